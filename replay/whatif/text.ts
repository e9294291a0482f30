// A what-if for a terminal at 3 a.m.: that it is simulated, whether the simulator can be believed, production beside the
// scenario, and where requests went. Colours only when asked for; every line makes sense without them.
import { styleText } from 'node:util'
import { count, percent } from '../report/words.ts'
import type { Part } from './scenario.ts'
import type { Quantiles, Summary } from './summary.ts'
import type { WhatIf } from './whatif.ts'

const movesShown = 8
const hopsShown = 10

type Style = Parameters<typeof styleText>[0]

/** Control characters cannot reach the terminal: names come from logs. */
const safe = (text: string): string => text.replace(/[\p{Cc}\p{Cf}]/gu, '�')
const named = (model: string | null): string => (model === null ? '(nobody)' : safe(model))

const ms = (value: number | null): string => (value === null ? '–' : count(value))
const share = (value: number): string => `${(value * 100).toFixed(2)} %`
const usd = (value: number): string => (value >= 100 ? count(value) : value.toPrecision(4).replace(/\.?0+$/, ''))
/** A change relative to production; empty where that says nothing. */
const change = (before: number | null, after: number | null): string => {
  if (before === null || after === null || before === 0 || before === after) return ''
  return `${after > before ? '+' : '−'}${(Math.abs(after / before - 1) * 100).toFixed(1)} %`
}

/** One part of a scenario in words. */
export const partText = (part: Part): string => {
  switch (part.kind) {
    case 'price': {
      const set = Object.keys(part.prices).map((model) => `${model} as given`)
      const scaled = Object.entries(part.factors).map(
        ([model, factor]) => `${model} × ${Number(factor.toPrecision(6))}`,
      )
      return `price of ${[...set, ...scaled].join(', ') || 'nothing'}`
    }
    case 'outage':
      return `${part.model} is down from ${part.from} to ${part.to}, failing after ${part.fail_after_ms} ms`
    case 'ratelimit': {
      const { rpm, tpm, concurrency } = part
      const limits = { 'requests a minute': rpm, 'tokens a minute': tpm, 'at once': concurrency }
      const given = Object.entries(limits).flatMap(([name, limit]) =>
        limit === undefined ? [] : [`${count(limit)} ${name}`],
      )
      return `${part.model} takes ${given.join(', ') || 'as much as before'}`
    }
    case 'retire':
      return `${part.model} is gone${part.successor === undefined ? '' : `, ${part.successor} takes its place`}`
    case 'cache': {
      const kept = part.ttl_s === undefined ? 'for ever' : `${part.ttl_s} s after their last use`
      const size = part.size_tokens === undefined ? '' : `, ${count(part.size_tokens)} tokens a target`
      return `prompts are cached ${kept}${size}, cached input costs ${Number((100 * (1 - part.discount)).toFixed(1))} %`
    }
    case 'traffic': {
      const mix = Object.entries(part.mix).map(([segment, wanted]) => `${segment} becomes ${percent(wanted)}`)
      return `traffic × ${part.scale}${mix.map((text) => `, ${text}`).join('')}`
    }
  }
}

type Figure = {
  readonly title: string
  readonly of: (summary: Summary) => number | null
  readonly say: (value: number) => string
}

const figuresOf = ({ sloMs, logged, production, simulated }: WhatIf): Figure[] => {
  const times = (title: string, of: (summary: Summary) => Quantiles): Figure[] =>
    (['p50', 'p95', 'p99'] as const).map((name) => ({ title: `${title} ${name}, ms`, of: (s) => of(s)[name], say: ms }))
  const hasTtft = [logged, production, simulated].some(({ ttftMs }) => ttftMs.p50 !== null)
  const figures: Figure[] = [
    { title: 'requests', of: (s) => s.requests, say: count },
    { title: 'cost, $', of: (s) => s.costUsd, say: usd },
    { title: 'cost per 1,000, $', of: (s) => (s.requests > 0 ? (1000 * s.costUsd) / s.requests : null), say: usd },
    ...times('latency', (s) => s.latencyMs),
    ...(hasTtft ? times('TTFT', (s) => s.ttftMs) : []),
    { title: 'failed', of: (s) => s.failedShare, say: share },
    { title: 'fell back', of: (s) => s.fellBackShare, say: share },
    { title: 'client left', of: (s) => s.leftShare, say: share },
    { title: `later than ${sloMs} ms or failed`, of: (s) => s.sloMissShare, say: share },
    { title: 'input from cache', of: (s) => (s.inputTokens > 0 ? s.cachedTokens / s.inputTokens : null), say: share },
  ]
  const isNews = ({ title, of }: Figure) =>
    !['fell back', 'client left', 'input from cache'].includes(title) || [logged, simulated].some((s) => of(s))
  return figures.filter((figure) => figure.of(simulated) !== null && isNews(figure))
}

const table = (whatIf: WhatIf): string => {
  const { logged, production, firstOrder, simulated } = whatIf
  const header = ['', 'logged', 'production', 'first order', 'simulated', 'change']
  const rows = figuresOf(whatIf).map(({ title, of, say }) => [
    title,
    ...[logged, production, firstOrder, simulated].map((summary) => {
      const value = of(summary)
      return value === null ? '–' : say(value)
    }),
    change(of(production), of(simulated)),
  ])
  const widths = header.map((title, at) => Math.max(...[header, ...rows].map((row) => (row[at] ?? title).length)))
  return [header, ...rows]
    .map((cells) =>
      cells
        .map((cell, at) => (at === 0 ? cell.padEnd(widths[at] ?? 0) : cell.padStart(widths[at] ?? 0)))
        .join('   ')
        .trimEnd(),
    )
    .join('\n')
}

/** Whether the simulator can be believed, in one sentence. */
export const calibrationText = ({ calibration }: WhatIf): string => {
  const { calibrated, answered, answeredMin, checks, errorMax, sameChoiceShare } = calibration
  const same = `it repeats ${percent(sameChoiceShare)} of production's choices`
  const worst = [...checks].sort((a, b) => b.error - a.error)
  const said = ({ figure, logged, simulated, error }: (typeof checks)[number]) =>
    `${figure} ${ms(simulated)} for ${ms(logged)} ms (${percent(error)} off)`
  if (calibrated)
    return `calibrated: production simulated by itself is within ${percent(errorMax)} of the log; the furthest is ${worst.slice(0, 1).map(said).join('')}; ${same}`
  const why =
    answered < answeredMin
      ? `only ${count(answered)} requests were answered, and it takes ${answeredMin}`
      : worst
          .filter(({ ok }) => !ok)
          .map(said)
          .join(', ') || 'the log has no latencies'
  return `uncalibrated: production simulated by itself does not come out as logged: ${why}; ${same}. Do not rely on these figures`
}

const list = (title: string, lines: readonly string[], shown: number): string => {
  if (lines.length === 0) return ''
  const more = lines.length > shown ? [`  and ${lines.length - shown} more`] : []
  return [title, ...lines.slice(0, shown), ...more].join('\n')
}

const notes = ({ targets, unused, seed, withoutOutcome, simulated }: WhatIf): string => {
  const untimed = targets.filter(({ isTimed }) => !isTimed).map(({ model }) => safe(model))
  const open = withoutOutcome > 0 ? ` ${count(withoutOutcome)} records have no outcome.` : ''
  const costs =
    simulated.costUnknown > 0 ? ` ${count(simulated.costUnknown)} costs are unknown and not in the sum.` : ''
  const borrowed =
    untimed.length > 0 ? ` Too few calls to time ${untimed.join(', ')}: taken to be as fast as all together.` : ''
  const left = `${count(unused.fellBack)} that fell back, ${count(unused.failed)} that failed, ${count(unused.left)} left in the middle`
  return `seed ${safe(seed)}; not timed: ${left}, ${count(unused.missing)} without latency or tokens.${open}${costs}${borrowed}`
}

export const whatIfText = (whatIf: WhatIf, options: { readonly colour: boolean }): string => {
  const paint = (style: Style, text: string) =>
    options.colour ? styleText(style, text, { validateStream: false }) : text
  const { scenario, records, moves, cascade, policy, calibration, simulated } = whatIf
  const width = count(Math.max(0, ...moves.map((move) => move.count), ...cascade.map((hop) => hop.count))).length
  const number = (value: number) => count(value).padStart(width)
  const parts = scenario.map((part) => `  · ${safe(partText(part))}`)
  const candidate = policy
    ? [`  · decided by ${safe(policy.name)} ${policy.hash.replace('sha256:', '').slice(0, 8)}`]
    : []
  const moved = moves.reduce((sum, move) => sum + move.count, 0)
  return `${[
    [
      paint('bold', `SIMULATED, not observed: ${count(records)} recorded decisions, if`),
      ...(parts.length + candidate.length > 0 ? [...parts, ...candidate] : ['  · nothing were different']),
    ].join('\n'),
    paint(
      calibration.calibrated ? 'green' : 'red',
      `${calibration.calibrated ? '✓' : '✗'} ${calibrationText(whatIf)}.`,
    ),
    table(whatIf),
    list(
      `${count(moved)} of ${count(simulated.requests)} requests get another first choice:`,
      moves.map(({ from, to, count: n }) => `  ${number(n)}  ${named(from)} → ${named(to)}`),
      movesShown,
    ),
    list(
      'Attempts that failed, and who was asked next:',
      cascade.map(({ from, to, cause, count: n }) => `  ${number(n)}  ${named(from)} → ${named(to)}  (${safe(cause)})`),
      hopsShown,
    ),
    paint('dim', notes(whatIf)),
  ]
    .filter((section) => section !== '')
    .join('\n\n')}\n`
}
