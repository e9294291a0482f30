// An interval that is true at every sample size and for every distribution between two stated bounds. It is wide; it is the one
// to show when somebody must be able to rely on the 95 % without believing in a limit theorem.
import type { Interval } from './sequence.ts'

/**
 * The empirical Bernstein interval for the mean of independent draws from [lowest, highest] (Maurer & Pontil 2009, theorem 4,
 * once for either side): mean ± ( √(2 s² L / n) + 7 B L / (3 (n − 1)) ), L = ln(4 / α), B = highest − lowest, s² the sample
 * variance with n − 1. The bounds must be known beforehand, as the largest weight that an exploration rate allows is: the
 * largest value *seen* bounds nothing. Infinite below two draws. Throws a RangeError when the mean contradicts the bounds.
 */
export const bernsteinInterval = (sample: {
  readonly count: number
  readonly mean: number
  readonly variance: number
  readonly lowest: number
  readonly highest: number
  readonly alpha: number
}): Interval => {
  const { count, mean, variance, lowest, highest, alpha } = sample
  const width = highest - lowest
  if (!(Number.isFinite(width) && lowest <= mean && mean <= highest))
    throw new RangeError(
      `a Bernstein interval was asked for a mean of ${mean} within ${lowest}…${highest}; finite bounds of every value are wanted`,
    )
  if (count < 2) return { low: -Infinity, high: Infinity }
  const doubt = Math.log(4 / alpha)
  const reach = Math.sqrt((2 * variance * doubt) / count) + (7 * width * doubt) / (3 * (count - 1))
  return { low: mean - reach, high: mean + reach }
}
