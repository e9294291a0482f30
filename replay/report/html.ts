// The report as one HTML file that needs no network: light and dark, on a phone and on paper. First what a signer needs, then
// why it may be believed, then the details; every number carries its place in the JSON that the page holds.

import { metrics } from '../estimate/metrics.ts'
import type { Finding } from '../judge/gate.ts'
import type { Replay } from '../run.ts'
import { detailOf, isSupported } from './cells.ts'
import { changes, probabilityBefore } from './changes.ts'
import type { FrontPoint } from './charts/plane.ts'
import { belief, closerLook, evidenceSpread, unfaithful } from './doubt.ts'
import { comparison, segments, slowEnd } from './figures.ts'
import { html, type Markup } from './markup.ts'
import { figured, nameOf, page, section } from './page.ts'
import { remedyText } from './remedies.ts'
import {
  count,
  findingText,
  percent,
  plain,
  refusalText,
  relative,
  shortHash,
  shownFindings,
  signed,
  units,
  verdictSentence,
} from './words.ts'

const titles: Readonly<Record<Replay['verdict']['kind'], string>> = {
  promote: 'Promote',
  reject: 'Reject',
  inconclusive: 'Undecided',
  refused: 'No verdict',
}

/** What a report may show besides its replay: the Pareto front of a search. */
export type Extras = { readonly front?: readonly FrontPoint[] }

/** The page as text; `command` is the command line that makes it again. */
export const reportHtml = (replay: Replay, command: string, { front = [] }: Extras = {}): string => {
  const detail = detailOf(replay)
  const hasRows = replay.rows > 0
  return page(
    `${titles[replay.verdict.kind]}: ${replay.candidate.name}`,
    [
      header(replay),
      ...(hasRows ? [ledger(replay), comparison(replay, front)] : []),
      ...(detail ? [slowEnd(detail), segments(replay, detail)] : []),
      changes(replay),
      belief(replay, detail),
      unfaithful(replay),
      ...(detail ? [evidenceSpread(detail), closerLook(replay, detail)] : []),
      reproduction(replay, command),
    ],
    pageData(replay, front),
  )
}

/** The replay as its JSON has it, without the records: of the sample only what the page shows. */
const pageData = (replay: Replay, front: readonly FrontPoint[]) => ({
  ...replay,
  verification: { ...replay.verification, groups: [] },
  sample: replay.sample.map((change) => ({
    id: change.record.id,
    from: change.record.chosen,
    to: change.decision.chosen,
    probability: probabilityBefore(change),
  })),
  front,
})

const header = (replay: Replay): Markup => {
  const { verdict, candidate, production, rows, window } = replay
  const time = (iso: string) => iso.slice(0, 16).replace('T', ' ')
  const span = window ? ` from ${time(window.from)} to ${time(window.to)} UTC` : ''
  const logged = production.map(({ name, hash }) => html`<b>${nameOf(name)}</b> <code>${shortHash(hash)}</code> `)
  return html`<header class="${verdict.kind}">
<p class="mast"><span class="badge">${titles[verdict.kind]}</span> <span>Signalbox replay report</span></p>
<h1 dir="auto">${verdictSentence(replay)}</h1>
<p class="quiet">Candidate <b>${nameOf(candidate.name)}</b> <code>${shortHash(candidate.hash)}</code> against ${logged.length > 0 ? logged : 'nothing'}on ${count(rows)} decisions${span}.</p>
${conditions(replay)}
${remedies(replay)}
</header>`
}

const conditions = (replay: Replay): Markup => {
  const { verdict } = replay
  if (verdict.kind === 'refused')
    return html`<ul class="reasons">${verdict.refusals.map((refusal) => html`<li class="bad">${refusalText(refusal)}</li>`)}</ul>`
  return html`<ul class="tiles">${shownFindings(replay, verdict.findings).map((finding) => tile(replay, finding))}</ul>`
}

const findingClass = { held: 'good', harm: 'bad', open: 'warning' } as const
const findingMark = { held: '✓', harm: '✗', open: '?' } as const

/** One condition of the gate: whether it held, by how much the metric changes, and the sentence with its interval. */
const tile = (replay: Replay, finding: Finding): Markup => {
  const { metric, role, result } = finding
  const at = replay.metrics.findIndex((found) => found.metric === metric)
  const found = replay.metrics[at]
  const isKnown = found !== undefined && isSupported(replay, found)
  const share = found && metrics[metric].range === null ? relative(found.difference.value, found.production.value) : ''
  const text =
    found && (share || `${signed(metric, found.difference.value)}${units[metric].replace(' percentage points', ' pp')}`)
  return html`<li class="${findingClass[result]}"><span class="name">${findingMark[result]} ${plain[metric]} <small>${role}</small></span>
<b class="figure">${isKnown ? figured(`metrics.${at}.difference.value`, found.difference.value, text ?? '') : '—'}</b>
<span class="quiet">${findingText(replay, finding)}</span></li>`
}

const remedies = ({ verdict: { remedies: all, kind } }: Replay): Markup =>
  all.length === 0
    ? html``
    : html`<div class="aside"><h2>${kind === 'inconclusive' ? 'What it would take to be sure' : 'What would help'}</h2><ul>${all.map((remedy) => html`<li>${remedyText(remedy)}</li>`)}</ul></div>`

const evidenceParts = [
  {
    name: 'observed',
    title: 'observed',
    means: 'the candidate chooses as production did, and the logged outcome is reused',
  },
  {
    name: 'estimated',
    title: 'estimated',
    means: 'it chooses otherwise; estimated from requests where production happened to choose so',
  },
  {
    name: 'reexecuted',
    title: 're-executed',
    means: 'it chooses otherwise, and its own choice was asked anew and paid for',
  },
  { name: 'unsupported', title: 'never tried', means: 'it chooses what production never would; nothing is known' },
] as const

const ledger = ({ shares }: Replay): Markup => {
  const orAsked = shares.reexecuted > 0 ? ', or from those asked anew' : ''
  const parts = evidenceParts.filter(({ name }) => shares[name] > 0)
  const said = parts.map(({ name, title }) => `${percent(shares[name])} ${title}`).join(', ')
  return section('Where the evidence comes from', '', [
    html`<div class="ledger" role="img" aria-label="${said}">${parts.map(({ name }) => html`<i class="${name}" style="flex-grow:${shares[name]}"></i>`)}</div>
<ul class="legend">${parts.map(({ name, title, means }) => html`<li><i class="${name}"></i><b>${figured(`shares.${name}`, shares[name], percent(shares[name]))} ${title}</b> ${means}${name === 'estimated' ? orAsked : ''}</li>`)}</ul>`,
  ])
}

const reproduction = ({ candidate, production, engine, options }: Replay, command: string): Markup =>
  section('Make this report again', '', [
    html`<pre dir="auto">${command}</pre>`,
    html`<dl class="quiet"><dt>engine</dt><dd>${engine}</dd><dt>candidate</dt><dd>${nameOf(candidate.name)} <code>${candidate.hash}</code></dd>${production.map(
      ({ name, hash, rows }) =>
        html`<dt>production</dt><dd>${nameOf(name)} <code>${hash || 'no hash'}</code>, ${count(rows)} rows</dd>`,
    )}${options.trustPropensities || options.missingAtRandom ? html`<dt>on your word</dt><dd>${[options.trustPropensities ? 'probabilities taken on trust' : '', options.missingAtRandom ? 'outcomes taken to be missing at random' : ''].filter(Boolean).join('; ')}</dd>` : ''}</dl>`,
  ])
