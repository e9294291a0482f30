// The standard normal distribution, both ways. Intervals that are not simply a value ± 1.96 standard errors need it: the
// bootstrap corrects its quantiles through it, and other levels than 95 % come from it.

/** Beyond this many standard deviations the probability is below 1e-15. */
const zMax = 8
const termsMax = 400
const iterationsMax = 100

/** Φ(z), to about 15 decimals, by its Taylor series (Marsaglia 2004). */
export const normalCdf = (z: number): number => {
  if (z < -zMax) return 0
  if (z > zMax) return 1
  let [sum, term] = [z, z]
  for (let odd = 3; odd < termsMax; odd += 2) {
    term *= (z * z) / odd
    if (sum + term === sum) break
    sum += term
  }
  return 0.5 + (sum * Math.exp((-z * z) / 2)) / Math.sqrt(2 * Math.PI)
}

/**
 * The z with Φ(z) = `share`, by Newton's method from the middle: Φ bends away from its tangent there, so every step stays
 * on the near side. −∞ and ∞ at 0 and 1.
 */
export const normalInverse = (share: number): number => {
  if (!(share > 0)) return -Infinity
  if (!(share < 1)) return Infinity
  let z = 0
  for (let iteration = 0; iteration < iterationsMax; iteration++) {
    const step = (share - normalCdf(z)) * Math.sqrt(2 * Math.PI) * Math.exp((z * z) / 2)
    z += step
    if (Math.abs(step) < 1e-12) break
  }
  return z
}
