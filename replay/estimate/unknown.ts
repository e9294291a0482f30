// How far a figure could be off because of what the log does not hold, whatever its size: outcomes that never came, choices
// that were never tried, events too rare to have been seen. For a metric with a range the first two are bounded by putting
// the worst and the best value in their place (Manski 1990), once against the candidate and once for it.
import { dr, drDifference, drProduction, type Estimate, type Ratio } from './estimators.ts'
import type { Combination } from './terms.ts'

/** −ln 0.025: an event not seen in n draws has, with 97.5 % confidence, a probability below 3.69 / n. */
export const unseenEvents = 3.689

export type Range = readonly [lowest: number, highest: number]
export type Ends = { readonly low: Estimate; readonly high: Estimate }

const n: Combination = { n: 1 }
const all: Combination = { all: 1 }
/** DR with 0 for what was never tried. */
const candidateLow: Combination = { ...dr[0], qu: -1 }
const differenceLow: Combination = { ...drDifference[0], qu: -1 }

/**
 * The lowest and highest value of either policy and of their difference, when outcomes lie in [0, 1]. With `isBounded` also the
 * missing outcomes are put at either end, which the tally has summed; without, only what was never tried.
 */
export const endsOf = (
  estimate: (ratio: Ratio) => Estimate,
  isBounded: boolean,
): Readonly<Record<'candidate' | 'production' | 'difference', Ends>> =>
  isBounded
    ? {
        candidate: { low: estimate([{ candidateLow: 1 }, all]), high: estimate([{ candidateHigh: 1 }, all]) },
        production: { low: estimate([{ productionLow: 1 }, all]), high: estimate([{ productionHigh: 1 }, all]) },
        difference: { low: estimate([{ differenceLow: 1 }, all]), high: estimate([{ differenceHigh: 1 }, all]) },
      }
    : {
        candidate: { low: estimate([candidateLow, n]), high: estimate([{ ...candidateLow, u: 1 }, n]) },
        production: { low: estimate(drProduction), high: estimate(drProduction) },
        difference: { low: estimate([differenceLow, n]), high: estimate([{ ...differenceLow, u: 1 }, n]) },
      }

/** The interval that holds both ends and what there was; the value stays. */
export const widen = (estimate: Estimate, { low, high }: Ends, [lowest, highest]: Range): Estimate => ({
  ...estimate,
  low: Math.max(lowest, Math.min(estimate.low, low.low)),
  high: Math.min(highest, Math.max(estimate.high, high.high)),
})

/** The wider of the interval and one that reaches so far to both sides, within what is possible. */
export const reaching = (estimate: Estimate, reach: number, [lowest, highest]: Range): Estimate =>
  reach === 0
    ? estimate
    : {
        ...estimate,
        low: Math.min(estimate.low, Math.max(lowest, estimate.value - reach)),
        high: Math.max(estimate.high, Math.min(highest, estimate.value + reach)),
      }
