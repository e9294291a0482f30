// What stands in the cells of the report's tables, as text: the figures of a metric, and the sentences and rankings that
// come from a replay's detail. The terminal and the HTML report both take theirs from here.
import type { Detail, Segment, Sensitivity } from '../estimate/detail.ts'
import type { MetricResult } from '../estimate/evaluate.ts'
import { metrics } from '../estimate/metrics.ts'
import { essRefusedBelow, isAsked, unsupportedMassMax } from '../judge/gate.ts'
import type { Replay } from '../run.ts'
import { armName, intervalText, plain, relative, short, signed } from './words.ts'

/** Whether anything can be said about the candidate's value; if not, a figure would be the outcome model's guess. */
export const isSupported = (replay: Replay, result: MetricResult): boolean =>
  isAsked(result) || isSupportedByLog(replay, result)

/** Whether the log's own probabilities can say it. */
export const isSupportedByLog = (replay: Replay, { diagnostics }: MetricResult): boolean =>
  replay.diagnostics.unsupported.mass <= unsupportedMassMax && diagnostics.effective.ess >= essRefusedBelow

/** The cells of a metric's row: production, candidate, difference, its interval, and relative to production. */
export const figuresOf = (replay: Replay, result: MetricResult) => {
  const { metric, production, candidate, difference, bounds } = result
  const { say } = metrics[metric]
  if (isSupported(replay, result))
    return {
      production: say(production.value),
      candidate: say(candidate.value),
      difference: signed(metric, difference.value),
      interval: intervalText(metric, difference),
      relative: relative(difference.value, production.value),
    }
  const unknown = replay.diagnostics.unsupported.mass > unsupportedMassMax && bounds
  const clamp = (value: number) => Math.min(1, Math.max(0, value))
  return {
    production: say(production.value),
    candidate: unknown ? `${say(clamp(bounds.low))} to ${say(clamp(bounds.high))}` : '—',
    difference: '—',
    interval: '—',
    relative: '',
  }
}

/** The detail where there is one and the log can carry it: a quantile of what was never tried is nobody's. */
export const detailOf = (replay: Replay): Detail | null =>
  replay.rows > 0 && replay.metrics.every((result) => result.rows === 0 || isSupportedByLog(replay, result))
    ? replay.detail
    : null

/** "The logged probabilities of 'x' would have to be 1.8 times too high to turn …" */
export const sensitivityText = ({ metric, arm, factor, direction }: Sensitivity): string =>
  `The logged probabilities of ‘${short(armName(arm))}’ would have to be ${factor.toPrecision(2)} times too ${direction === 'too-high' ? 'high' : 'low'} to turn what is shown about ${plain[metric]}.`

/** What would turn a condition of the gate, the smallest error first. */
export const bySensitivity = ({ detail, verdict, metrics: results }: Replay): Sensitivity[] =>
  detail.sensitivity
    .filter(({ metric }) => verdict.findings.some((finding) => finding.metric === metric))
    .filter(({ metric }) => !results.some((result) => result.metric === metric && isAsked(result)))
    .toSorted((a, b) => a.factor - b.factor)

/** How a quantile is called: p95. */
export const quantileName = (p: number): string => `p${Number((p * 100).toFixed(1))}`

/** Segments in which the goal does worst, worst first; those without a figure for it are left out. */
export const worstSegments = ({ segments }: Detail, { options: { goal } }: Replay, shown: number): Segment[] => {
  const sign = metrics[goal].better === 'higher' ? -1 : 1
  const harm = (segment: Segment): number =>
    sign * (segment.metrics.find(({ metric }) => metric === goal)?.difference.value ?? Number.NaN)
  return segments
    .filter((segment) => Number.isFinite(harm(segment)))
    .toSorted((a, b) => harm(b) - harm(a))
    .slice(0, shown)
}

/** `tier=free category=math`, or what it is when a request has neither. */
export const segmentName = (name: string): string => (name === '' ? 'without tier or category' : short(name))
