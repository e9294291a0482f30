// The off-policy estimators. Each is a ratio of two combinations of the sums in terms.ts, which is all that is needed for one
// accumulator to serve them all: it takes the two totals of one group of clusters at a time, merges with another that saw
// other groups, and gives a value with a cluster-robust interval. Memory does not grow with the rows.
import { addTerms, type Combination, combine, type Sums, termCount } from './terms.ts'

/** What is above and what is below the line. */
export type Ratio = readonly [numerator: Combination, denominator: Combination]

const n: Combination = { n: 1 }

/** Inverse propensity scoring, V = Σ k w r / Σ k (Horvitz & Thompson 1952; Dudík, Langford & Li 2011, eq. 2). */
export const ips: Ratio = [{ wr: 1 }, n]

/** Self-normalised IPS, V = Σ k w r / Σ k w (Swaminathan & Joachims 2015, eq. 8). */
export const snips: Ratio = [{ wr: 1 }, { w: 1 }]

/** Direct method, V = Σ k Σ_a π_e(a|x) q(x,a) / Σ k (Dudík et al. 2011, eq. 1). A projection: it never enters the gate. */
export const dm: Ratio = [{ qe: 1 }, n]

/** Doubly robust, V = Σ k [Σ_a π_e q + w (r − q)] / Σ k (Dudík et al. 2011, eq. 3; cross-fitted: Chernozhukov et al. 2018). */
export const dr: Ratio = [{ qe: 1, wr: 1, wq: -1 }, n]

/** Doubly robust value of the logged policy itself (w = 1): what production costs over its own draws, not only these. */
export const drProduction: Ratio = [{ qb: 1, r: 1, q: -1 }, n]

/**
 * Candidate − production, paired on the same rows: d = Σ_a (π_e − π_b) q + (w − 1)(r − q). A row decided alike under both
 * contributes 0, so only what changes is uncertain.
 */
export const drDifference: Ratio = [{ qe: 1, wr: 1, wq: -1, qb: -1, r: -1, q: 1 }, n]

/** DR on the part that has support, V = Σ k [dr − what is filled in] / Σ k (1 − u): what SNIPS estimates too. */
export const drSupported: Ratio = [
  { qe: 1, wr: 1, wq: -1, qu: -1 },
  { n: 1, u: -1 },
]

/** Clipped IPS, V = Σ k min(w, L) r / Σ k (Ionides 2008; Bottou et al. 2013). Biased towards what the log does often. */
export const clipped: Ratio = [{ clipped: 1 }, n]

/**
 * Sub-Gaussian IPS, V = Σ k w / (1 − λ + λ w) r / Σ k, 0 ≤ λ ≤ 1 (Metelli, Russo & Restelli 2021, the power-mean weight with
 * s = −1): IPS at λ = 0, the sum over what the candidate could have chosen at λ = 1, with tails like a normal's in between.
 */
export const subGaussian: Ratio = [{ subGaussian: 1 }, n]

/** Switch-DR: the outcome model alone where w exceeds τ, V = Σ k [q_π + w 1{w ≤ τ} (r − q)] / Σ k (Wang, Agarwal & Dudík 2017). */
export const switchDr: Ratio = [{ qe: 1, switched: 1 }, n]

/** DR with optimistic shrinkage, V = Σ k [q_π + λ w / (w² + λ) (r − q)] / Σ k (Su et al. 2020): DM at λ = 0, DR as λ → ∞. */
export const drOs: Ratio = [{ qe: 1, shrunk: 1 }, n]

/**
 * Matched replay, V = Σ k 1{a = a_e} r / Σ k 1{a = a_e} (Li et al. 2011, algorithm 2), a_e being the candidate's own draw.
 * Unbiased only if the log chose with equal probabilities.
 */
export const matched: Ratio = [{ matchedR: 1 }, { matched: 1 }]

/** The plain mean of what was logged, Σ k r / Σ k: what the bill says. */
export const logged: Ratio = [{ r: 1 }, n]

/**
 * Σ a / Σ b over the groups that have rows, with its cluster-robust interval: rows with the outcome, or, where the ratio is of
 * all rows, any. A group in which every outcome is missing must not drop out of the bounds on what is missing.
 */
export const estimate = (sums: Sums, [numerator, denominator]: Ratio): Estimate =>
  ratioOf(combine(sums, numerator), combine(sums, denominator), combine(sums, denominator.all ? { all: 1 } : n))

/** The same of columns by group; a group counts where `rows` is above 0. */
export const ratioOf = (a: Float64Array, b: Float64Array, rows: Float64Array): Estimate => {
  const sum = new RatioSum()
  for (const [group, keep] of rows.entries()) if (keep > 0) sum.add(a[group] as number, b[group] as number)
  return sum.close()
}

export const total = (column: Float64Array): number => column.reduce((sum, value) => sum + value, 0)

/**
 * Self-normalised DR, V = Σ k Σ_a π_e q / Σ k + Σ k w (r − q) / Σ k w (Thomas & Brunskill 2016, weighted DR of one step; Open
 * Bandit Pipeline's SNDR): a sum of two ratios, its error by linearising both (Taylor; Cochran 1977, §6.3).
 */
export const sndr = (sums: Sums): Estimate => {
  const [k, w] = [combine(sums, n), combine(sums, { w: 1 })]
  const [q, rest] = [combine(sums, { qe: 1 }), combine(sums, { wr: 1, wq: -1 })]
  const [base, correction] = [total(q) / total(k), total(rest) / total(w)]
  const scale = total(k) / total(w)
  const linear = k.map(
    (keep, group) =>
      (q[group] as number) - base * keep + scale * ((rest[group] as number) - correction * (w[group] as number)),
  )
  const { se, low, high, clusters } = ratioOf(linear, k, k)
  const value = base + correction
  return { value, se, low: value + low, high: value + high, clusters }
}

/** One logged row as the sums take it; `reward` is any outcome, whichever direction is good. */
export type Row = {
  readonly cluster: number
  /** 1/ρ: how many rows this one stands for, after sampling of telemetry and missing feedback. */
  readonly keepWeight: number
  readonly reward: number
  /** w = π_e(a|x) / π_b(a|x): candidate over logged probability of the logged choice. */
  readonly weight: number
  /** q(x, a): the outcome model at the logged choice, fitted without this row's fold. */
  readonly fitted: number
  /** Σ_a π_e(a|x) q(x, a), and Σ_a π_b(a|x) q(x, a). */
  readonly fittedCandidate: number
  readonly fittedProduction: number
  /** Σ_a π_e(a|x) 1{π_b(a|x) = 0}, and the same times q(x, a): what the log cannot tell, and what DR fills in there. */
  readonly unsupported: number
  readonly fittedUnsupported: number
}

/** The sums of rows in memory, a group for each cluster; a candidate without chance made the logged choice where w > 0. */
export const sumsOfRows = (rows: readonly Row[]): Sums => {
  const groupOf = new Map<number, number>()
  for (const { cluster } of rows) if (!groupOf.has(cluster)) groupOf.set(cluster, groupOf.size)
  const sums = new Float64Array(groupOf.size * termCount)
  for (const row of rows) {
    const { weight: w, unsupported: u, fitted: q, fittedCandidate: qe, fittedProduction: qb } = row
    const weighing = { w, u, x: 0, xe: 0, isSame: w > 0 }
    const base = (groupOf.get(row.cluster) ?? 0) * termCount
    addTerms(sums, base, weighing, row.keepWeight, row.reward, q, qe, qb, row.fittedUnsupported)
  }
  return { groups: groupOf.size, sums }
}

/** A value and its two-sided 95 % interval; `se` and the bounds are infinite while there are fewer than two clusters. */
export type Estimate = {
  readonly value: number
  readonly se: number
  readonly low: number
  readonly high: number
  readonly clusters: number
}

/**
 * Σ a / Σ b over clusters, with the linearised cluster-robust variance
 * Var = G/(G−1) Σ_c (a_c − V b_c)² / (Σ b)² (Liang & Zeger 1986; Cochran 1977, §6.3 for the ratio). Sums are kept as means
 * and centred co-moments (Welford 1962), which merge by Chan, Golub & LeVeque 1979.
 */
export class RatioSum {
  #count = 0
  #meanA = 0
  #meanB = 0
  #aa = 0
  #ab = 0
  #bb = 0

  /** Adds one whole cluster: the sums of its rows' terms. */
  add(a: number, b: number): void {
    this.#count++
    const deltaA = a - this.#meanA
    const deltaB = b - this.#meanB
    this.#meanA += deltaA / this.#count
    this.#meanB += deltaB / this.#count
    this.#aa += deltaA * (a - this.#meanA)
    this.#ab += deltaA * (b - this.#meanB)
    this.#bb += deltaB * (b - this.#meanB)
  }

  /** Takes over what another saw; the two must not have seen parts of the same cluster. */
  merge(other: RatioSum): void {
    const count = this.#count + other.#count
    if (count === 0) return
    const deltaA = other.#meanA - this.#meanA
    const deltaB = other.#meanB - this.#meanB
    const share = other.#count / count
    const cross = this.#count * share
    this.#aa += other.#aa + cross * deltaA * deltaA
    this.#ab += other.#ab + cross * deltaA * deltaB
    this.#bb += other.#bb + cross * deltaB * deltaB
    this.#meanA += deltaA * share
    this.#meanB += deltaB * share
    this.#count = count
  }

  close(): Estimate {
    const count = this.#count
    const value = this.#meanA / this.#meanB
    if (!(count >= 2 && Number.isFinite(value)))
      return { value, se: Infinity, low: -Infinity, high: Infinity, clusters: count }
    const residuals = this.#aa - 2 * value * this.#ab + value * value * this.#bb
    const se = Math.sqrt(Math.max(0, residuals) * (count / (count - 1))) / Math.abs(this.#meanB * count)
    const reach = studentQuantile(count - 1) * se
    return { value, se, low: value - reach, high: value + reach, clusters: count }
  }
}

/** The 97.5 % quantile of the standard normal distribution. */
export const normalQuantile = 1.959963984540054

/**
 * The 97.5 % quantile of Student's t, by the expansion in 1/ν of Abramowitz & Stegun 26.7.5 (within 0.1 % for ν ≥ 4);
 * for fewer degrees of freedom the table's values.
 */
export const studentQuantile = (degrees: number): number => {
  const table = [12.7062, 4.3027, 3.1824]
  const z = normalQuantile
  const z2 = z * z
  const terms = [
    (z * (z2 + 1)) / 4,
    (z * ((5 * z2 + 16) * z2 + 3)) / 96,
    (z * (((3 * z2 + 19) * z2 + 17) * z2 - 15)) / 384,
    (z * ((((79 * z2 + 776) * z2 + 1482) * z2 - 1920) * z2 - 945)) / 92160,
  ]
  return table[degrees - 1] ?? terms.reduce((sum, term, power) => sum + term / degrees ** (power + 1), z)
}
