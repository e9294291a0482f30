// An interval for figures whose error leans to one side. Costs and latencies have long tails, a rare choice's outcome is
// weighed many times over, and events are rare: a log that happens to lack its few expensive rows gives a value that is too
// low and a standard error that is too small at once. Student's interval then misses the truth above it, nearly always
// above it, which is where harm lies; stretched by the skewness that the log shows, it does not.
import { type Estimate, estimate, normalQuantile, type Ratio } from './estimators.ts'
import { combine, type Sums } from './terms.ts'

/**
 * A ratio's estimate whose interval reaches, at either end, as far as the farther of Student's and ABC's (DiCiccio & Efron
 * 1992, §3; Efron & Tibshirani 1993, §22.6): the bootstrap's BCa interval in closed form. For the ratio linearised in its
 * groups, with influences ψ, both the bias correction and the acceleration are a = Σ ψ³ / (6 (Σ ψ²)^1.5), and an end is
 * V + se · λ / (1 − a λ)², λ = a ± 1.96. As |a| ≤ 1/6, it reaches at most 5.1 standard errors. In the unit of the ratio.
 */
export const skewedEstimate = (sums: Sums, ratio: Ratio): Estimate => {
  const symmetric = estimate(sums, ratio)
  const { value, se } = symmetric
  if (!(se > 0 && se < Infinity)) return symmetric
  const [above, below] = ratio.map((combination) => combine(sums, combination)) as [Float64Array, Float64Array]
  let [squares, cubes] = [0, 0]
  for (const [group, numerator] of above.entries()) {
    const influence = numerator - value * (below[group] as number)
    squares += influence ** 2
    cubes += influence ** 3
  }
  const acceleration = cubes / (6 * squares ** 1.5)
  const end = (z: number): number => value + (se * (acceleration + z)) / (1 - acceleration * (acceleration + z)) ** 2
  return {
    ...symmetric,
    low: Math.min(symmetric.low, end(-normalQuantile)),
    high: Math.max(symmetric.high, end(normalQuantile)),
  }
}
