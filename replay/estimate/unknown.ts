// How far a figure could be off because of what the log does not hold, whatever its size: outcomes that never came, choices
// that were never tried, events too rare to have been seen. For a metric with a range the first two are bounded by putting
// the worst and the best value in their place (Manski 1990), once against the candidate and once for it.
import type { Columns } from '../redecide/columns.ts'
import type { Diagnostics } from './diagnostics.ts'
import { accumulate, bounded, dr, drDifference, drProduction, type Estimate, type Row } from './estimators.ts'

/** −ln 0.025: an event not seen in n draws has, with 97.5 % confidence, a probability below 3.69 / n. */
export const unseenEvents = 3.689

export type Range = readonly [lowest: number, highest: number]
type Ends = { readonly low: Estimate; readonly high: Estimate }

/**
 * The lowest and highest value of either policy and of their difference, when outcomes lie in [0, 1]. `rows` are all rows;
 * a NaN reward is missing. A missing outcome is the same under both policies, so in the difference it weighs w − 1: where
 * they decide alike it cannot matter.
 */
export const endsOf = (rows: readonly Row[]) => {
  const filled = (fill: (row: Row) => number): readonly Row[] =>
    rows.some(({ reward }) => Number.isNaN(reward))
      ? rows.map((row) => (Number.isNaN(row.reward) ? { ...row, reward: fill(row) } : row))
      : rows
  const [worst, best] = [filled(() => 0), filled(() => 1)]
  const run = (some: readonly Row[], estimator: typeof dr) => accumulate(some, estimator).close()
  return {
    candidate: { low: run(worst, bounded(dr, 0)), high: run(best, bounded(dr, 1)) },
    production: { low: run(worst, drProduction), high: run(best, drProduction) },
    difference: {
      low: run(
        filled(({ weight }) => Number(weight < 1)),
        bounded(drDifference, 0),
      ),
      high: run(
        filled(({ weight }) => Number(weight > 1)),
        bounded(drDifference, 1),
      ),
    },
  }
}

/** The interval that holds both ends and what there was; the value stays. */
export const widen = (estimate: Estimate, { low, high }: Ends, [lowest, highest]: Range): Estimate => ({
  ...estimate,
  low: Math.max(lowest, Math.min(estimate.low, low.low)),
  high: Math.min(highest, Math.max(estimate.high, high.high)),
})

/**
 * Where no event was seen among the rows that speak for the change (nothing failed, or everything did), their spread is 0
 * and says nothing: the "rule of three" (Hanley & Lippman-Hand 1983) on their effective number does. 0 when events were seen.
 */
export const unseenReachOf = (rows: readonly Row[], { changedRows, change }: Diagnostics): number => {
  if (changedRows === 0) return 0
  const rewards = rows.flatMap(({ weight, reward }) => (weight > 1 ? [reward] : []))
  return rewards.every((reward) => reward === rewards[0]) ? unseenEvents / change.ess : 0
}

/** The wider of the interval and one that reaches so far to both sides, within what is possible. */
export const reaching = (estimate: Estimate, reach: number, [lowest, highest]: Range): Estimate =>
  reach === 0
    ? estimate
    : {
        ...estimate,
        low: Math.min(estimate.low, Math.max(lowest, estimate.value - reach)),
        high: Math.max(estimate.high, Math.min(highest, estimate.value + reach)),
      }

/** The share of rows without an outcome, under either policy's weights. */
export const missingUnder = ({ keepWeight }: Columns, reward: Float64Array, weightAt: (row: number) => number) => {
  const sums = { candidate: [0, 0] as [number, number], production: [0, 0] as [number, number] }
  for (const [row, value] of reward.entries()) {
    const keep = keepWeight[row] ?? 0
    const absent = Number(Number.isNaN(value))
    const weighted = keep * weightAt(row)
    sums.candidate[0] += absent * weighted
    sums.candidate[1] += weighted
    sums.production[0] += absent * keep
    sums.production[1] += keep
  }
  const share = ([part, whole]: [number, number]) => (whole > 0 ? part / whole : 0)
  return { candidate: share(sums.candidate), production: share(sums.production) }
}
