// Intervals for what no formula covers: each replicate weighs every group of rows by a Poisson(1) draw, which is resampling
// with replacement that needs no second look at the rows (Chamandy et al. 2012). All figures of one run share the draws, so
// that a difference of figures has the interval that belongs to it.
import { normalCdf, normalInverse } from './normal.ts'

export const replicatesDefault = 1000
/** Beyond this many groups or replicates the draws would no longer fit in a few megabytes. */
const groupsMax = 4096
const replicatesMax = 10_000

/** `draws[group * replicates + replicate]` is how often the replicate holds the group. */
export type Draws = { readonly groups: number; readonly replicates: number; readonly counts: Uint8Array }

/** A bias-corrected interval; `se` and `bias` are the spread of the replicates and how far their mean lies from the value. */
export type BootstrapInterval = {
  readonly value: number
  readonly low: number
  readonly high: number
  readonly se: number
  readonly bias: number
}

/** The probabilities that a Poisson(1) draw is at most 0, 1, 2, …, until rounding ends them. */
const poissonSteps = Array.from({ length: 18 }, (_, most) => {
  let [sum, term] = [0, Math.exp(-1)]
  for (let count = 0; count <= most; count++) {
    sum += term
    term /= count + 1
  }
  return sum
})

/**
 * Draws for up to 4,096 groups; the same for the same seed on every machine. The draws of a group do not depend on how many
 * groups there are. Throws a RangeError for sizes out of range.
 */
export const poissonDraws = (groups: number, replicates: number = replicatesDefault, seed = 1): Draws => {
  if (!(groups >= 1 && groups <= groupsMax && replicates >= 1 && replicates <= replicatesMax))
    throw new RangeError(
      `${replicates} bootstrap replicates of ${groups} groups were asked for; wanted 1…${replicatesMax} of 1…${groupsMax}`,
    )
  const random = splitMix(seed)
  const counts = new Uint8Array(groups * replicates)
  for (let at = 0; at < counts.length; at++) {
    const lot = random()
    let count = 0
    while (count < poissonSteps.length && lot >= (poissonSteps[count] ?? 1)) count++
    counts[at] = count
  }
  return { groups, replicates, counts }
}

/** SplitMix (Steele, Lea & Flood 2014) with 32 bits of state and MurmurHash3's finalizer: numbers in [0, 1). */
const splitMix = (seed: number) => {
  let state = Math.trunc(seed) | 0
  return (): number => {
    state = (state + 0x9e3779b9) | 0
    let mixed = Math.imul(state ^ (state >>> 16), 0x85ebca6b)
    mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35)
    return ((mixed ^ (mixed >>> 16)) >>> 0) / 2 ** 32
  }
}

/** A term's sum in every replicate; `term` has the sum of each group. */
export const replicateSums = (term: Float64Array, { replicates, counts }: Draws): Float64Array => {
  const sums = new Float64Array(replicates)
  for (let group = 0; group < term.length; group++) {
    const amount = term[group] ?? 0
    if (amount === 0) continue
    for (let replicate = 0, at = group * replicates; replicate < replicates; replicate++, at++)
      sums[replicate] = (sums[replicate] ?? 0) + amount * (counts[at] ?? 0)
  }
  return sums
}

/**
 * The bias-corrected and accelerated interval (BCa: Efron 1987; Efron & Tibshirani 1993, eqs. 14.9 to 14.15, the acceleration
 * from the delete-one-group jackknife) of a smooth function of sums. `terms` are T arrays with a sum per group; `statistic`
 * gets the T totals. Groups without rows must hold 0 in every term. Replicates in which the statistic is not finite are
 * left out; with fewer than two active groups the interval is infinite. `alpha` is the probability to miss on both sides
 * together.
 */
export const bootstrapStatistic = (
  terms: readonly Float64Array[],
  statistic: (sums: Float64Array) => number,
  draws: Draws,
  alpha = 0.05,
): BootstrapInterval => {
  const totals = Float64Array.from(terms, total)
  const value = statistic(totals)
  const without = jackknife(terms, totals, statistic)
  if (without.length < 2 || !Number.isFinite(value))
    return { value, low: -Infinity, high: Infinity, se: Infinity, bias: 0 }
  const drawn = terms.map((term) => replicateSums(term, draws))
  const sums = new Float64Array(terms.length)
  const replicates = new Float64Array(draws.replicates)
  for (let replicate = 0; replicate < draws.replicates; replicate++) {
    for (let term = 0; term < sums.length; term++) sums[term] = drawn[term]?.[replicate] ?? 0
    replicates[replicate] = statistic(sums)
  }
  return bcaInterval(value, replicates, without, alpha)
}

/** The interval of Σ a / Σ b: the form of every estimator. */
export const bootstrapRatio = (a: Float64Array, b: Float64Array, draws: Draws, alpha = 0.05): BootstrapInterval =>
  bootstrapStatistic([a, b], ([numerator = 0, denominator = 0]) => numerator / denominator, draws, alpha)

const total = (term: Float64Array): number => {
  let sum = 0
  for (let at = 0; at < term.length; at++) sum += term[at] ?? 0
  return sum
}

/** The statistic without each active group in turn. */
const jackknife = (
  terms: readonly Float64Array[],
  totals: Float64Array,
  statistic: (sums: Float64Array) => number,
): Float64Array => {
  const groups = terms[0]?.length ?? 0
  const without: number[] = []
  const sums = new Float64Array(terms.length)
  for (let group = 0; group < groups; group++) {
    let active = false
    for (let term = 0; term < terms.length; term++) {
      const amount = terms[term]?.[group] ?? 0
      active ||= amount !== 0
      sums[term] = (totals[term] ?? 0) - amount
    }
    if (active) without.push(statistic(sums))
  }
  return Float64Array.from(without.filter(Number.isFinite))
}

const bcaInterval = (value: number, drawn: Float64Array, without: Float64Array, alpha: number): BootstrapInterval => {
  const sorted = drawn.filter(Number.isFinite).sort()
  const mean = total(sorted) / sorted.length
  const variance = sorted.reduce((sum, replicate) => sum + (replicate - mean) ** 2, 0) / (sorted.length - 1)
  if (sorted.length < 2 || variance === 0) return { value, low: value, high: value, se: 0, bias: 0 }
  const below = sorted.reduce((count, replicate) => count + (replicate < value ? 1 : replicate === value ? 0.5 : 0), 0)
  const half = 0.5 / sorted.length
  const z0 = normalInverse(Math.min(1 - half, Math.max(half, below / sorted.length)))
  const acceleration = accelerationOf(without)
  const end = (share: number): number => {
    const z = z0 + normalInverse(share)
    const divisor = 1 - acceleration * z
    const adjusted = divisor > 0 ? normalCdf(z0 + z / divisor) : Number(z > 0)
    const at = Math.min(sorted.length - 1, Math.max(0, adjusted * (sorted.length + 1) - 1))
    const [left, right] = [sorted[Math.floor(at)] ?? 0, sorted[Math.ceil(at)] ?? 0]
    return left + (right - left) * (at - Math.floor(at))
  }
  return { value, low: end(alpha / 2), high: end(1 - alpha / 2), se: Math.sqrt(variance), bias: mean - value }
}

/** a = Σ d³ / (6 (Σ d²)^1.5), d being how far each delete-one value lies below their mean. */
const accelerationOf = (without: Float64Array): number => {
  const mean = total(without) / without.length
  let [squares, cubes] = [0, 0]
  for (const value of without) {
    squares += (mean - value) ** 2
    cubes += (mean - value) ** 3
  }
  return squares > 0 ? cubes / (6 * squares ** 1.5) : 0
}
