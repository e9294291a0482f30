// A what-if as one HTML file. What a reader must not miss comes first, and largest: that all of it is simulated, what was
// supposed, and whether the simulator can be believed; then what would change, and where requests would go instead.
import { flowChart } from '../report/charts/flow.ts'
import { html, type Markup, markup } from '../report/markup.ts'
import { figure, figured, nameOf, page, section, sideBySide, table } from '../report/page.ts'
import { count, percent, relative } from '../report/words.ts'
import type { Quantiles, Summary } from './summary.ts'
import { calibrationText, partText } from './text.ts'
import { type Distributions, timesSection } from './times.ts'
import type { WhatIf } from './whatif.ts'

const flowsDrawnMax = 12
const flowsListedMax = 40
/** From here on a change is said as a factor: × 49 is read faster than +4,814 %. */
const factorMin = 3
/** Where a page says what a screen need not: the label across each sheet of paper, so that no copied sheet passes for fact. */
const marking = `.simulated { margin: 0 0 1rem; padding: .7rem 1rem .8rem; border-radius: 10px; border: 2px dashed var(--tone); color: var(--ink); background: repeating-linear-gradient(-45deg, transparent 0 14px, color-mix(in srgb, var(--tone) 9%, transparent) 14px 28px); }
.simulated b { display: block; color: var(--tone); font-size: 1.7rem; line-height: 1.2; letter-spacing: .14em; } .watermark { display: none; }
.supposed { margin: .2rem 0 .8rem; } .light { --tone: var(--state); border-left: 6px solid var(--state); } .light b { color: var(--state); font-size: 1.15rem; display: block; }
@media print { .watermark { display: block; position: fixed; top: 42%; left: 0; right: 0; text-align: center; transform: rotate(-32deg); font-size: 84pt; font-weight: 800; letter-spacing: .08em; color: #68399f; opacity: .09; } }`

/** The page as text; `command` is the command line that makes it again. */
export const whatIfHtml = (whatIf: WhatIf, distributions: Distributions, command: string): string =>
  page(
    `Simulated: ${suppositionsOf(whatIf).join('; ')}`,
    [
      html`<style>${markup(marking)}</style><div class="watermark" aria-hidden="true">SIMULATED</div>`,
      header(whatIf),
      belief(whatIf),
      changes(whatIf),
      timesSection(distributions),
      moved(whatIf),
      cascade(whatIf),
      reproduction(whatIf, command),
    ],
    { ...whatIf, distributions },
  )

/** Names come from logs: no control or direction marks. */
const clean = (text: string): string => text.replace(/[\p{Cc}\p{Cf}]/gu, '�')
const capital = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1)
const suppositionsOf = ({ scenario, policy }: WhatIf): string[] => {
  const all = [...scenario.map(partText), ...(policy ? [`${policy.name} decides`] : [])]
  return all.length > 0 ? all.map((text) => clean(text).replaceAll('.000Z', 'Z')) : ['nothing is different']
}

const header = (whatIf: WhatIf): Markup => {
  const { records, calibration, simulated } = whatIf
  return html`<header class="${calibration.calibrated ? 'refused' : 'reject'}">
<div class="simulated" role="note"><b>SIMULATED${calibration.calibrated ? '' : ', UNCALIBRATED'}</b>Nothing on this page was observed, except what is called logged; and nothing on it may decide a promotion.</div>
<p class="mast"><span class="badge" style="--tone: var(--${lightOf(calibration)})">${marks[lightOf(calibration)]} ${calibration.calibrated ? 'Calibrated' : 'Uncalibrated'}</span> <span>Signalbox what-if: ${figured('records', records, count(records))} recorded decisions, ${figured('simulated.requests', simulated.requests, count(simulated.requests))} simulated</span></p>
<p class="supposed">Suppose that</p><ul>${suppositionsOf(whatIf).map((part) => html`<li><bdi><b>${part}</b></bdi></li>`)}</ul>
<h1 dir="auto">${sentence(whatIf)}</h1>
</header>`
}

/** The scenario's effect in one sentence, which says so where it is not to be relied on. */
const sentence = ({ production, simulated, calibration }: WhatIf): string => {
  const said = headlineRows
    .map((row) => ({ title: row.title, change: changeOf(row, { production, simulated }).text }))
    .filter(({ change }) => /[1-9]/.test(change))
    .map(({ title, change }) => `${title} ${change}`)
  const effect = said.length > 0 ? said.join(', ') : 'no cost, latency or failure would change'
  return calibration.calibrated ? `Then ${effect}.` : `Uncalibrated, so do not rely on it: ${effect}.`
}

type Row = {
  readonly title: string
  /** Below a summary, in the page's JSON; empty for what is computed here. */
  readonly path: string
  readonly of: (summary: Summary) => number | null
  readonly say: (value: number) => string
  readonly isShare?: boolean
  /** More of it is no harm. */
  readonly isNeutral?: boolean
}

const ms = (value: number): string => `${count(value)} ms`
const usd = (value: number): string => `$${value >= 100 ? count(value) : value.toPrecision(4).replace(/\.?0+$/, '')}`
const share = (value: number): string => `${(value * 100).toFixed(2)} %`

const quantileRows = (title: string, name: 'latencyMs' | 'ttftMs'): Row[] =>
  (['p50', 'p95', 'p99'] as const).map((key: keyof Quantiles) => ({
    title: `${title} ${key}`,
    path: `${name}.${key}`,
    of: (summary) => summary[name][key],
    say: ms,
  }))

const rows: readonly Row[] = [
  { title: 'requests', path: 'requests', of: (s) => s.requests, say: count, isNeutral: true },
  { title: 'cost', path: 'costUsd', of: (s) => s.costUsd, say: usd },
  { title: 'cost per 1,000', path: '', of: (s) => (s.requests > 0 ? (1000 * s.costUsd) / s.requests : null), say: usd },
  ...quantileRows('latency', 'latencyMs'),
  ...quantileRows('TTFT', 'ttftMs'),
  { title: 'failures', path: 'failedShare', of: (s) => s.failedShare, say: share, isShare: true },
  { title: 'fell back', path: 'fellBackShare', of: (s) => s.fellBackShare, say: share, isShare: true },
  { title: 'client left', path: 'leftShare', of: (s) => s.leftShare, say: share, isShare: true },
  { title: 'late or failed', path: 'sloMissShare', of: (s) => s.sloMissShare, say: share, isShare: true },
  { title: 'input from cache', path: 'cachedTokens', of: (s) => s.cachedTokens, say: count, isNeutral: true },
]

type Pair = Pick<WhatIf, 'production' | 'simulated'>

/** How the scenario differs from production in a row, as text and as a finding; text is empty where nothing does. */
const changeOf = ({ of, isShare, isNeutral }: Row, { production, simulated }: Pair) => {
  const [before, after] = [of(production), of(simulated)]
  if (before === null || after === null || before === after) return { text: '', kind: '' }
  const points = `${after > before ? '+' : '−'}${Math.abs((after - before) * 100).toFixed(2)} pp`
  const factor =
    before > 0 && after / before >= factorMin
      ? `× ${Number((after / before).toPrecision(2)).toLocaleString('en-US')}`
      : relative(after - before, before)
  const text = isShare ? points : factor
  return { text, kind: isNeutral || !/[1-9]/.test(text) ? '' : after < before ? 'good' : 'bad' }
}

/** What is said first; failures before all, because what fails is cheap and quick. */
const headlineRows = ['failedShare', 'costUsd', 'latencyMs.p95', 'ttftMs.p95'].flatMap((path) =>
  rows.filter((row) => row.path === path),
)

const marks = { good: '✓', warning: '!', bad: '✗' } as const

/** Green when the simulator reproduces production, red when it does not, amber when there is too little to tell. */
const lightOf = ({ calibrated, answered, answeredMin, checks }: WhatIf['calibration']): keyof typeof marks => {
  if (calibrated) return 'good'
  return answered < answeredMin && checks.every(({ ok }) => ok) ? 'warning' : 'bad'
}

/** The calibration: production simulated by itself against what was logged. */
const belief = (whatIf: WhatIf): Markup => {
  const { calibration } = whatIf
  const { checks, answered, answeredMin, errorMax } = calibration
  const light = lightOf(calibration)
  const [verdict = '', ...why] = capital(clean(calibrationText(whatIf))).split(': ')
  return section('Can the simulator be believed?', '', [
    html`<div class="aside light ${light}"><b>${marks[light]} ${verdict}</b><p>${capital(why.join(': '))}.</p></div>`,
    checks.length === 0
      ? html``
      : table(
          ['production', 'as logged', 'simulated by itself', 'off', ''],
          checks.map(
            ({ figure: title, logged, simulated, error, ok }, at) => html`<tr><th scope="row">${title}</th>
<td data-label="as logged">${figured(`calibration.checks.${at}.logged`, logged, ms(logged))}</td><td data-label="simulated">${figured(`calibration.checks.${at}.simulated`, simulated, ms(simulated))}</td>
<td data-label="off">${figured(`calibration.checks.${at}.error`, error, Number.isFinite(error) ? percent(error) : 'not answered')}</td>
<td data-label="" class="${ok ? 'good' : 'bad'}"><span class="mark">${ok ? '✓ holds' : '✗ too far'}</span></td></tr>`,
          ),
          'forest',
        ),
    html`<p class="quiet">Every quantile has to come out within ${percent(errorMax)} of the log, over at least ${count(answeredMin)} answered requests; here ${figured('calibration.answered', answered, count(answered))}.</p>`,
  ])
}

const arms = ['production', 'firstOrder', 'simulated'] as const
const armTitles = { production: 'production', firstOrder: 'first order', simulated: 'simulated' } as const

const changes = (whatIf: WhatIf): Markup => {
  const isNews = (row: Row) =>
    arms.some((arm) => row.of(whatIf[arm]) !== null) &&
    (!['fellBackShare', 'leftShare', 'cachedTokens'].includes(row.path) || arms.some((arm) => row.of(whatIf[arm])))
  const shown = rows.filter(isNews)
  const late = whatIf.sloMs === null ? '' : ` Late: after more than ${ms(whatIf.sloMs)}.`
  return section(
    'What would change',
    `Production is simulated too, so that what the simulator gets wrong is on both sides. First order: the scenario hits, and nobody reroutes. Simulated: policy, fallbacks and queues react. Times are of answered requests: what fails is cheap and quick, and no gain.${late}`,
    [
      html`<ul class="tiles">${headlineRows.filter(isNews).map((row) => tile(row, whatIf))}</ul>`,
      table(
        ['', ...arms.map((arm) => armTitles[arm]), 'change'],
        shown.map((row) => rowOf(row, whatIf)),
        'forest',
      ),
    ],
  )
}

const cell = ({ of, say, path }: Row, whatIf: WhatIf, arm: (typeof arms)[number]): Markup => {
  const value = of(whatIf[arm])
  if (value === null) return html`—`
  return path === '' ? html`${say(value)}` : figured(`${arm}.${path}`, value, say(value))
}

const rowOf = (row: Row, whatIf: WhatIf): Markup => {
  const { text, kind } = changeOf(row, whatIf)
  return html`<tr><th scope="row">${capital(row.title)}</th>${arms.map((arm) => html`<td data-label="${armTitles[arm]}">${cell(row, whatIf, arm)}</td>`)}<td data-label="change" class="${kind}"><b class="${kind && 'mark'}">${text || '—'}</b></td></tr>`
}

const tile = (row: Row, whatIf: WhatIf): Markup => {
  const { text, kind } = changeOf(row, whatIf)
  return html`<li class="${kind}" style="${kind ? '' : '--state: var(--neutral)'}"><span class="name">${row.title}</span><b class="figure">${text || 'unchanged'}</b>
<span class="quiet">${cell(row, whatIf, 'production')} → ${cell(row, whatIf, 'simulated')}</span></li>`
}

/** Requests that go from one name to another, with their place in the page's JSON. */
type Flow = {
  readonly names: readonly [string, string]
  readonly cause?: string
  readonly count: number
  readonly path: string
}

const nobody = '(nobody)'

/** Ribbons of the widest flows beside the table of all of them. */
const flowing = (caption: Markup, heads: readonly string[], flows: readonly Flow[]): Markup[] => {
  const pairs = new Map<string, { from: string; to: string; count: number }>()
  for (const { names, count: n } of flows) {
    const [from, to] = names
    const pair = pairs.get(JSON.stringify(names)) ?? { from, to, count: 0 }
    pair.count += n
    pairs.set(JSON.stringify(names), pair)
  }
  const drawn = [...pairs.values()].sort((a, b) => b.count - a.count).slice(0, flowsDrawnMax)
  const listed = flows
    .slice(0, flowsListedMax)
    .map(
      ({ names: [from, to], cause, count: n, path }) =>
        html`<tr><th scope="row">${nameOf(from)}</th><td>${nameOf(to)}${cause === undefined ? '' : html`<small>${nameOf(cause)}</small>`}</td><td class="number">${figured(path, n, count(n))}</td></tr>`,
    )
  const unlisted = flows.length - listed.length
  return [
    sideBySide([
      figure(
        caption,
        flowChart(drawn),
        pairs.size > drawn.length ? `The ${drawn.length} widest of ${pairs.size}.` : '',
      ),
      html`<div>${table(heads, listed, 'words moves')}${unlisted > 0 ? html`<p class="quiet">and ${count(unlisted)} more</p>` : ''}</div>`,
    ]),
  ]
}

const moved = ({ moves, simulated }: WhatIf): Markup => {
  const total = moves.reduce((sum, move) => sum + move.count, 0)
  if (total === 0)
    return section('Where traffic moves', 'Every request gets the first choice that it gets in production.', [])
  const flows = moves.map(({ from, to, count: n }, at) => ({
    names: [from ?? nobody, to ?? nobody] as const,
    count: n,
    path: `moves.${at}.count`,
  }))
  const caption = html`<b class="key production">production</b> → <b class="key candidate">scenario</b>`
  return section(
    'Where traffic moves',
    `${count(total)} of ${count(simulated.requests)} requests get another first choice.`,
    flowing(caption, ['production', 'scenario', 'requests'], flows),
  )
}

const cascade = ({ cascade: hops }: WhatIf): Markup => {
  const sum = (of: WhatIf['cascade']) => of.reduce((total, hop) => total + hop.count, 0)
  const lost = sum(hops.filter(({ to }) => to === null))
  if (hops.length === 0) return section('The fallback cascade', 'No attempt fails.', [])
  const flows = hops.map(({ from, to, cause, count: n }, at) => ({
    names: [from, to ?? nobody] as const,
    cause,
    count: n,
    path: `cascade.${at}.count`,
  }))
  const caption = html`<b class="key production">failed at</b> → <b class="key candidate">asked next</b>`
  return section(
    'The fallback cascade',
    `${count(sum(hops))} attempts fail in the scenario: ${lost === 0 ? 'all' : count(sum(hops) - lost)} are followed by another${lost === 0 ? '' : `, ${count(lost)} by none`}.`,
    flowing(caption, ['failed at', 'asked next, and why', 'requests'], flows),
  )
}

const reproduction = (whatIf: WhatIf, command: string): Markup => {
  const { seed, policy, unused, withoutOutcome, simulated, targets } = whatIf
  const untimed = targets
    .filter(({ isTimed }) => !isTimed)
    .map(
      ({ model }) =>
        html`<dt>not timed alone</dt><dd>${nameOf(model)}: too few calls, taken to be as fast as all together</dd>`,
    )
  const number = (path: string, value: number) => figured(path, value, count(value))
  return section('Make this page again', '', [
    html`<pre dir="auto">${command}</pre>`,
    html`<dl class="quiet"><dt>seed</dt><dd><code>${clean(seed)}</code>; the same words, records and seed give the same page</dd>
${policy ? html`<dt>decided by</dt><dd>${nameOf(policy.name)} <code>${policy.hash}</code></dd>` : html`<dt>decided by</dt><dd>the policies that decided the records</dd>`}
<dt>not used for timing</dt><dd>${number('unused.fellBack', unused.fellBack)} that fell back, ${number('unused.failed', unused.failed)} that failed, ${number('unused.left', unused.left)} left in the middle, ${number('unused.missing', unused.missing)} without latency or tokens</dd>
${withoutOutcome > 0 ? html`<dt>without an outcome</dt><dd>${number('withoutOutcome', withoutOutcome)} records, simulated but not in the logged figures</dd>` : ''}
${simulated.costUnknown > 0 ? html`<dt>cost unknown</dt><dd>${number('simulated.costUnknown', simulated.costUnknown)} requests, not in the sum</dd>` : ''}${untimed}</dl>`,
  ])
}
