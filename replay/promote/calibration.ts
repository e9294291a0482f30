// Whether predictions come true: what replays said a promotion would change, beside what the arms of its canary then came to.
// A prediction holds when the two differ by no more than both their errors explain, which it should in 95 of 100 cases.

import { normalQuantile } from '../estimate/estimators.ts'
import { type MetricName, metrics } from '../estimate/metrics.ts'
import { count, percent, signed } from '../report/words.ts'
import { aligned, linesOf } from './lines.ts'
import type { Effect, Promotion, Realised } from './promotion.ts'

export type Comparison = {
  readonly promotion: string
  readonly started_at: string
  readonly candidate: string
  readonly metric: MetricName
  readonly predicted: Effect
  readonly realised: Realised
  /** Whether the realised value lies inside the predicted interval, its own error put aside. */
  readonly inside: boolean
  readonly held: boolean
}

/** A share with its 95 % interval (Wilson 1927). */
export type Share = { readonly count: number; readonly of: number; readonly low: number; readonly high: number }
export type Calibration = {
  readonly v: 1
  readonly promotions: number
  readonly held: Share
  readonly inside: Share
  readonly comparisons: readonly Comparison[]
}

/** What was predicted and is realised of one promotion, metric by metric. */
export const comparisonsOf = ({ id, started_at, candidate, predicted, realised }: Promotion): Comparison[] =>
  predicted.flatMap((prediction): Comparison[] => {
    const found = realised?.find(({ metric }) => metric === prediction.metric)
    if (!found) return []
    const { value, low, high } = prediction
    const gap = Math.abs(found.value - value)
    // The part of the interval on the side where the realised value lies, and the realised value's own error.
    const reach = Math.hypot(found.value > value ? high - value : value - low, normalQuantile * found.se)
    return [
      {
        ...{ promotion: id, started_at, candidate: candidate.name, metric: prediction.metric },
        ...{ predicted: prediction, realised: found },
        inside: found.value >= low && found.value <= high,
        held: gap <= reach,
      },
    ]
  })

const shareOf = (comparisons: readonly Comparison[], holds: (comparison: Comparison) => boolean): Share => {
  const [of, hits] = [comparisons.length, comparisons.filter(holds).length]
  if (of === 0) return { count: 0, of: 0, low: 0, high: 1 }
  const z2 = normalQuantile ** 2
  const [p, centre] = [hits / of, (hits + z2 / 2) / (of + z2)]
  const reach = (Math.sqrt(of * p * (1 - p) + z2 / 4) * normalQuantile) / (of + z2)
  return { count: hits, of, low: Math.max(0, centre - reach), high: Math.min(1, centre + reach) }
}

/** All promotions whose realised change is known. */
export const calibrationOf = (promotions: readonly Promotion[]): Calibration => {
  const comparisons = promotions.flatMap(comparisonsOf)
  return {
    v: 1,
    promotions: new Set(comparisons.map(({ promotion }) => promotion)).size,
    held: shareOf(comparisons, ({ held }) => held),
    inside: shareOf(comparisons, ({ inside }) => inside),
    comparisons,
  }
}

/** `12 of 13 (92 %, 95 % interval 67 % to 99 %)` */
export const shareText = ({ count: hits, of, low, high }: Share): string =>
  of === 0
    ? 'none'
    : `${count(hits)} of ${count(of)} (${percent(hits / of)}, 95 % interval ${percent(low)} to ${percent(high)})`

/** Where the realised value lies in units of the predicted interval: −1 and 1 are its ends. */
export const placeOf = ({ value, low, high }: Effect, realised: number): number =>
  (realised - value) / (realised > value ? high - value : value - low || Number.NaN)

/** One comparison in the metric's unit, for a table. */
export const cellsOf = ({ metric, predicted, realised, held }: Comparison): string[] => {
  const interval = ({ low, high }: Effect) => `[${signed(metric, low)}, ${signed(metric, high)}]`
  return [
    metrics[metric].title,
    signed(metric, predicted.value),
    interval(predicted),
    signed(metric, realised.value),
    interval(realised),
    held ? 'held' : 'missed',
  ]
}
export const comparisonHeads = ['per request', 'predicted', '95 % interval', 'realised', 'over all looks', ''] as const

/** A promotion's predictions and what became of them; only its state while nothing is realised. */
export const promotionText = (promotion: Promotion): string => {
  const { id, state, reason, candidate, production } = promotion
  const comparisons = comparisonsOf(promotion)
  const head = `${state}: '${candidate.name}' in place of '${production.name}' (${reason}; promotion ${id})`
  const lines = comparisons.length > 0 ? ['', ...aligned([comparisonHeads, ...comparisons.map(cellsOf)])] : []
  return linesOf([head, ...lines])
}

export const calibrationText = ({ promotions, held, inside, comparisons }: Calibration): string => {
  if (promotions === 0)
    return 'No promotion has a realised change yet: signalbox promote attaches it at the end of a canary.\n'
  const rows = comparisons.map((comparison) => [comparison.candidate, ...cellsOf(comparison)])
  return linesOf([
    `${count(promotions)} promotions; predictions that held: ${shareText(held)}; wanted: 95 %`,
    `Realised values inside the predicted interval, their own error put aside: ${shareText(inside)}`,
    '',
    ...aligned([['candidate', ...comparisonHeads], ...rows]),
  ])
}
