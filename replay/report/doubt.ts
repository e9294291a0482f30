// Why the figures may be believed, or may not: the checks as lights, what it would take to turn the verdict, how evenly the
// evidence is spread, how well the outcome model does, whether time matters, and which rows weigh most.
import type { CalibrationBin, Detail, Drift, Influence } from '../estimate/detail.ts'
import { type MetricName, metrics } from '../estimate/metrics.ts'
import type { Replay } from '../run.ts'
import { bySensitivity, sensitivityText } from './cells.ts'
import { calibrationChart, histogram } from './charts/shape.ts'
import { type Check, checksOf } from './checks.ts'
import { html, type Markup } from './markup.ts'
import { figure, figured, fold, nameOf, section, sideBySide, table } from './page.ts'
import { armName, causeText, count, differenceText, intervalText, plain, signed } from './words.ts'

const sensitivitiesShownMax = 6
const influencesShownMax = 20
/** Halves of the window this many standard errors apart are worth a look. */
const driftSeNotable = 3

const none: Markup = html``
const lights: Readonly<Record<Check['state'], string>> = { good: '✓', warning: '!', bad: '✗' }
const lightWords: Readonly<Record<Check['state'], string>> = { good: 'holds', warning: 'mind this', bad: 'fails' }
const unitOf = (metric: MetricName): string => metrics[metric].title.replace(/^[^,]*, /, '')

export const belief = (replay: Replay, detail: Detail | null): Markup =>
  section('Whether it may be believed', '', [
    html`<ul class="checks">${checksOf(replay).map(light)}</ul>`,
    detail ? sensitivity(replay) : none,
  ])

const light = ({ name, found, state }: Check): Markup =>
  html`<li class="${state}"><i role="img" aria-label="${lightWords[state]}">${lights[state]}</i><b>${name}</b><span>${found}</span></li>`

const sensitivity = (replay: Replay): Markup => {
  const [first, ...rest] = bySensitivity(replay).slice(0, sensitivitiesShownMax)
  if (!first) return none
  const place = replay.detail.sensitivity.indexOf(first)
  return html`<div class="aside"><h3>How wrong the log would have to be</h3>
<p><b class="figure">${figured(`detail.sensitivity.${place}.factor`, first.factor, `${first.factor.toPrecision(2)} ×`)}</b> ${sensitivityText(first)}</p>
${rest.length > 0 ? html`<ul class="quiet">${rest.map((other) => html`<li>${sensitivityText(other)}</li>`)}</ul>` : ''}</div>`
}

export const evidenceSpread = (detail: Detail): Markup => {
  const pictures = [
    ...(detail.overlap.length > 0
      ? [
          figure(
            'Overlap',
            histogram(
              detail.overlap,
              'Share of rows by the logged probability of the candidate’s choice',
              'var(--candidate)',
            ),
            'How likely production was to choose what the candidate chooses, and the share of such rows. Mass on the left is thin evidence.',
          ),
        ]
      : []),
    ...(detail.weights.length > 0
      ? [
          figure(
            'Weights',
            histogram(detail.weights, 'Share of rows by importance weight', 'var(--neutral)'),
            'How many rows a logged row stands for, and the share of such rows. A long right tail rests on few rows.',
          ),
        ]
      : []),
  ]
  return pictures.length > 0 ? section('How evenly the evidence is spread', '', [sideBySide(pictures)]) : none
}

/** What only a statistician asks for, folded away. */
export const closerLook = (replay: Replay, detail: Detail): Markup => {
  const parts = [calibrations(replay, detail), drifts(detail), influences(replay, detail)].filter(
    (part) => part !== none,
  )
  return parts.length > 0 ? section('A closer look', '', parts) : none
}

const modelText = { means: 'shrunken means', ridge: 'a ridge' } as const

/** Which outcome model cross-validated better, and how much of the spread it explains of rows it was not fitted to. */
const modelOf = ({ outcomeModels }: Replay, metric: MetricName): string => {
  const model = outcomeModels[metric]
  if (!model) return metrics[metric].title
  const explains = model.r2 === null ? '' : `, R² ${model.r2.toFixed(2)}`
  return `${metrics[metric].title} (${modelText[model.kind]}${explains})`
}

const calibrations = (replay: Replay, { calibration }: Detail): Markup => {
  const pictures = calibration
    .filter(({ bins }) => bins.length > 1)
    .map(({ metric, bins }: { metric: MetricName; bins: readonly CalibrationBin[] }) =>
      figure(modelOf(replay, metric), calibrationChart(metric, bins)),
    )
  return pictures.length > 0
    ? fold('How well the outcome model predicts', [
        html`<p class="quiet">Each dot is a group of rows with about the same prediction; its size is their number. DR stays right when the model is off, only less precise.</p>`,
        sideBySide(pictures),
      ])
    : none
}

const drifts = ({ drift }: Detail): Markup =>
  drift.length === 0
    ? none
    : fold('Whether it held in both halves of the window', [
        table(['difference in', 'earlier half', 'later half', 'apart'], drift.map(driftRow)),
      ])

const driftRow = ({ metric, earlier, later, se }: Drift, at: number): Markup => {
  const half = (key: 'earlier' | 'later', estimate: Drift['earlier']) =>
    html`<td>${figured(`detail.drift.${at}.${key}.value`, estimate.value, signed(metric, estimate.value))}<small>${intervalText(metric, estimate)}</small></td>`
  const state = se > driftSeNotable ? 'warning' : 'good'
  return html`<tr><th scope="row">${plain[metric]} <small>${unitOf(metric)}</small></th>${half('earlier', earlier)}${half('later', later)}
<td>${Number.isFinite(se) ? html`<span class="mark ${state}">${lights[state]}</span> ${figured(`detail.drift.${at}.se`, se, se.toFixed(1))} SE` : '—'}</td></tr>`
}

const influences = ({ options: { goal } }: Replay, { influence }: Detail): Markup =>
  influence.length === 0
    ? none
    : fold(`The rows that move ${plain[goal]} most`, [
        table(
          ['request', 'production', 'candidate', 'weight', 'outcome', 'moves the mean by'],
          influence.slice(0, influencesShownMax).map((row, at) => influenceRow(goal, row, at)),
          'words',
        ),
        html`<p class="quiet">Outcome and effect in ${unitOf(goal)}. If one of these is a mistake in the log, it matters.</p>`,
      ])

const influenceRow = (goal: MetricName, row: Influence, at: number): Markup => {
  const { say } = metrics[goal]
  const path = `detail.influence.${at}`
  return html`<tr><th scope="row"><code>${nameOf(row.id)}</code></th><td>${nameOf(armName(row.chosen))}</td><td>${nameOf(armName(row.redecided))}</td>
<td class="number">${figured(`${path}.weight`, row.weight, row.weight.toPrecision(3))}</td><td class="number">${figured(`${path}.outcome`, row.outcome, say(row.outcome))}</td><td class="number">${figured(`${path}.contribution`, row.contribution, signed(goal, row.contribution))}</td></tr>`
}

/** Decisions that the same policy now makes otherwise, by cause. */
export const unfaithful = ({ verification: { groups } }: Replay): Markup =>
  groups.length === 0
    ? none
    : section('Decisions that do not come out as logged', '', [
        html`<ul>${groups.map(
          ({ cause, count: n, examples }) =>
            html`<li>${count(n)} × ${causeText(cause)}${
              cause.kind === 'field'
                ? html`<ul>${examples.map((difference) => html`<li><code>${differenceText(difference)}</code></li>`)}</ul>`
                : ''
            }</li>`,
        )}</ul>`,
      ])
