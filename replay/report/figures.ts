// What changes, and where: the forest table of all metrics, quantiles with their distributions, the plane of cost and quality,
// and the same comparison within each part of the traffic. Every number stands as text beside its picture.
import type { Detail, Quantile, Segment } from '../estimate/detail.ts'
import type { Estimate } from '../estimate/estimators.ts'
import type { MetricResult } from '../estimate/evaluate.ts'
import { type MetricName, metrics } from '../estimate/metrics.ts'
import { isAsked } from '../judge/gate.ts'
import type { Replay } from '../run.ts'
import { figuresOf, isSupported, isSupportedByLog, quantileName, segmentName } from './cells.ts'
import { intervalStrip, reachOf } from './charts/interval.ts'
import { type FrontPoint, planeChart } from './charts/plane.ts'
import { distributionChart } from './charts/shape.ts'
import { html, type Markup } from './markup.ts'
import { figure, figured, fold, section, sideBySide, table, versus } from './page.ts'
import { count, intervalText, isShown, plain, relative, signed } from './words.ts'

const segmentsShownMax = 40
const stripHead: Markup = html`<span class="ends"><span>← worse</span><span>better →</span></span>`
const none: Markup = html``

const capital = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1)

/** Metrics with outcomes, with their place in the replay. */
const knownOf = (replay: Replay) =>
  replay.metrics.map((result, at) => ({ result, at })).filter(({ result }) => result.rows > 0 && isShown(result))

export const comparison = (replay: Replay, front: readonly FrontPoint[]): Markup =>
  section(
    'What changes',
    'Per request, with 95 % intervals. Right of the line is better; the dashed line is the margin beyond which the gate sees harm.',
    [
      table(
        ['', 'production', 'candidate', 'difference', '95 % interval', stripHead],
        knownOf(replay).map(({ result, at }) => comparisonRow(replay, result, at)),
        'forest',
      ),
      sideBySide([plane(replay, front), reading(replay)]),
      fold('By each estimator', estimators(replay)),
    ],
  )

const comparisonRow = (replay: Replay, result: MetricResult, at: number): Markup => {
  const { metric, production, candidate, difference } = result
  const text = figuresOf(replay, result)
  const isKnown = isSupported(replay, result)
  const finding = replay.verdict.findings.find((found) => found.metric === metric)
  const margin = finding?.role === 'guardrail' ? finding.tolerated : undefined
  const path = `metrics.${at}`
  const cell = (key: 'candidate' | 'difference', value: number) =>
    isKnown ? figured(`${path}.${key}.value`, value, text[key]) : html`${text[key]}`
  return html`<tr><th scope="row">${capital(metrics[metric].title)}${finding ? html` <small>${finding.role}</small>` : ''}${isAsked(result) ? html` <small>asked anew</small>` : ''}</th>
<td data-label="production">${figured(`${path}.production.value`, production.value, text.production)}</td>
<td data-label="candidate">${cell('candidate', candidate.value)}</td>
<td data-label="difference"><b>${cell('difference', difference.value)}</b>${text.relative === '' ? '' : html`<small>${text.relative}</small>`}</td>
<td data-label="95 % interval">${isKnown ? interval(path, metric, difference) : text.interval}</td>
<td class="strip">${isKnown && Number.isFinite(difference.low) ? intervalStrip(metric, difference, reachOf([difference], margin), margin) : ''}</td></tr>`
}

/** [low, high], both with their place in the JSON. */
const interval = (path: string, metric: MetricName, { low, high }: Estimate): Markup => {
  const { say } = metrics[metric]
  return html`<span class="interval">[${figured(`${path}.difference.low`, low, say(low))}, ${figured(`${path}.difference.high`, high, say(high))}]</span>`
}

const estimators = (replay: Replay): Markup[] => {
  const known = knownOf(replay)
  return [
    table(
      ['', 'as logged', 'DR', 'SNIPS', 'IPS', 'DM', 'difference, bootstrap'],
      known.map(({ result, at }) => estimatorRow(replay, result, at)),
    ),
    html`<p class="quiet">“As logged” is the plain mean: the bill. DM is the outcome model’s projection and never decides. The bootstrap’s interval assumes no symmetry.</p>`,
  ]
}

const estimatorRow = (replay: Replay, result: MetricResult, at: number): Markup => {
  const { say, title } = metrics[result.metric]
  const path = `metrics.${at}`
  const cell = (name: 'dr' | 'snips' | 'ips' | 'dm'): Markup => {
    if (!isSupportedByLog(replay, result)) return html`<td>—</td>`
    const estimate = result.estimators[name]
    const text = figured(`${path}.estimators.${name}.value`, estimate.value, say(estimate.value))
    return html`<td>${text}${name === 'dm' ? '' : html`<small>${intervalText(result.metric, estimate)}</small>`}</td>`
  }
  return html`<tr><th scope="row">${capital(title)}</th><td>${figured(`${path}.logged.value`, result.logged.value, say(result.logged.value))}</td>${(['dr', 'snips', 'ips', 'dm'] as const).map(cell)}<td>${bootstrapped(replay, result, path)}</td></tr>`
}

const bootstrapped = (replay: Replay, result: MetricResult, path: string): Markup => {
  const { bootstrap, metric } = result
  if (!bootstrap || !isSupported(replay, result)) return html`—`
  const { say } = metrics[metric]
  return html`<span class="interval">[${figured(`${path}.bootstrap.low`, bootstrap.low, say(bootstrap.low))}, ${figured(`${path}.bootstrap.high`, bootstrap.high, say(bootstrap.high))}]</span>`
}

/** The plane of cost and quality; nothing where the log cannot tell. */
const plane = (replay: Replay, front: readonly FrontPoint[]): Markup => {
  const isKnown = replay.metrics.every((result) => result.rows === 0 || isSupported(replay, result))
  const chart = isKnown ? planeChart(replay.metrics, front) : null
  if (!chart) return none
  const note = front.length > 0 ? 'Circles: the front found by the search; none of its policies is beaten in both.' : ''
  return figure('Cost and quality', chart, note)
}

const reading = (replay: Replay): Markup => html`<div class="quiet notes"><h3>How to read these</h3>
<p>Doubly robust, cross-fitted, paired on the same requests, clustered by ${replay.clusterKeys.join(', ')}.</p>
<p>“Production” is what the logged policy comes to over its own draws, the fair counterpart of the candidate; the bill is under “as logged”, below.</p>
${replay.metrics.some(isAsked) ? html`<p>“Asked anew” rests on answers to the candidate’s own choices, each with a known chance to be asked, and on no logged probability.</p>` : ''}
<p>Crosses are 95 % intervals. A dash: the log cannot tell.</p></div>`

/** How the slow end moves: distributions side by side, and the table of quantiles below. */
export const slowEnd = (detail: Detail): Markup => {
  const pictures = detail.distributions
    .filter(({ points }) => points.length > 1)
    .map((distribution) =>
      figure(html`${capital(plain[distribution.metric])} ${versus}`, distributionChart(distribution, detail.quantiles)),
    )
  if (pictures.length === 0 && detail.quantiles.length === 0) return none
  const lead = 'The share of requests served within a time. Dots mark the median and the 95th and 99th percentile.'
  return section('How long requests take', lead, [sideBySide(pictures), quantileTable(detail)])
}

const quantileTable = ({ quantiles, tails }: Detail): Markup => {
  if (quantiles.length === 0) return none
  const reach = (metric: MetricName) =>
    reachOf(quantiles.filter((quantile) => quantile.metric === metric).map(({ difference }) => difference))
  const rows = quantiles.map((quantile, at) => quantileRow(quantile, at, reach(quantile.metric)))
  const worst = tails.map(
    ({ metric, share, production, candidate }, at) =>
      html`<li>${plain[metric]}: ${figured(`detail.tails.${at}.production`, production, metrics[metric].say(production))} → ${figured(`detail.tails.${at}.candidate`, candidate, metrics[metric].say(candidate))} <small>${metrics[metric].title.replace(/^[^,]*, /, '')}, mean of the worst ${Math.round(share * 100)} %</small></li>`,
  )
  return html`${table(['', 'production', 'candidate', 'difference', '95 % interval', stripHead], rows, 'forest')}${worst.length > 0 ? html`<ul class="plain quiet">${worst}</ul>` : ''}`
}

const quantileRow = ({ metric, p, production, candidate, difference }: Quantile, at: number, reach: number): Markup => {
  const { say } = metrics[metric]
  const path = `detail.quantiles.${at}`
  return html`<tr><th scope="row">${capital(plain[metric])} ${quantileName(p)} <small>ms</small></th>
<td data-label="production">${figured(`${path}.production.value`, production.value, say(production.value))}</td>
<td data-label="candidate">${figured(`${path}.candidate.value`, candidate.value, say(candidate.value))}</td>
<td data-label="difference"><b>${figured(`${path}.difference.value`, difference.value, signed(metric, difference.value))}</b><small>${relative(difference.value, production.value)}</small></td>
<td data-label="95 % interval">${interval(path, metric, difference)}</td>
<td class="strip">${intervalStrip(metric, difference, reach)}</td></tr>`
}

/** The forest by segment: the goal and quality beside each other, the other metrics folded away. */
export const segments = (replay: Replay, { segments: all }: Detail): Markup => {
  if (all.length < 2) return none
  const names = [...new Set(all.flatMap(({ metrics: results }) => results.map(({ metric }) => metric)))].filter(
    (metric) => replay.metrics.some((result) => result.metric === metric && result.rows > 0 && isShown(result)),
  )
  const first = names.filter((metric) => metric === replay.options.goal || metric === 'quality')
  const rest = names.filter((metric) => !first.includes(metric))
  const cut = all.length > segmentsShownMax ? `The ${segmentsShownMax} largest of ${all.length}. ` : ''
  return section(
    'In which part of the traffic',
    `${cut}The same comparison within each part, on one scale per metric. With many parts a few intervals miss zero by chance.`,
    [
      segmentTable(all, first),
      ...(rest.length > 0
        ? [
            fold(
              'The other metrics',
              rest.map((metric) => segmentTable(all, [metric])),
            ),
          ]
        : []),
    ],
  )
}

const segmentTable = (all: readonly Segment[], names: readonly MetricName[]): Markup => {
  const reaches = new Map(names.map((name) => [name, reachOf(all.flatMap((segment) => differenceIn(segment, name)))]))
  const heads = names.flatMap((name) => [
    html`<span class="over">${capital(plain[name])}</span>${stripHead}`,
    metrics[name].title.replace(/^[^,]*, /, ''),
  ])
  const rows = all
    .map((segment, at) => ({ segment, at }))
    .toSorted((a, b) => b.segment.rows - a.segment.rows)
    .slice(0, segmentsShownMax)
    .map(({ segment, at }) => segmentRow(segment, at, names, reaches))
  return table(['', 'rows', ...heads], rows, `forest segments`)
}

const differenceIn = ({ metrics: results }: Segment, name: MetricName): Estimate[] =>
  results.flatMap(({ metric, difference }) => (metric === name ? [difference] : []))

const segmentRow = (
  segment: Segment,
  at: number,
  names: readonly MetricName[],
  reaches: ReadonlyMap<MetricName, number>,
): Markup => {
  const cells = names.map((name) => {
    const place = segment.metrics.findIndex(({ metric }) => metric === name)
    const difference = segment.metrics[place]?.difference
    if (!difference || !Number.isFinite(difference.value)) return html`<td class="strip"></td><td>—</td>`
    const path = `detail.segments.${at}.metrics.${place}.difference.value`
    return html`<td class="strip" data-label="${plain[name]}">${intervalStrip(name, difference, reaches.get(name) ?? 1)}</td><td>${figured(path, difference.value, signed(name, difference.value))}<small>${intervalText(name, difference)}</small></td>`
  })
  return html`<tr><th scope="row"><bdi>${segmentName(segment.name)}</bdi></th><td data-label="rows">${count(segment.rows)}</td>${cells}</tr>`
}
