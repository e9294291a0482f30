// The off-policy estimators. Each is a ratio of two sums over logged rows, which is all that is needed for one accumulator
// to serve them all: it takes the two terms of one cluster (rows that one draw may have decided) at a time, merges with
// another that saw other clusters, and gives a value with a cluster-robust interval. Memory does not grow with the rows.

/** One logged row as an estimator sees it; `reward` is any outcome, whichever direction is good. */
export type Row = {
  /** Rows of one cluster follow each other and share this number. */
  readonly cluster: number
  /** 1/ρ: how many rows this one stands for, after sampling of telemetry and missing feedback. */
  readonly keepWeight: number
  readonly reward: number
  /** w = π_e(a|x) / π_b(a|x): candidate over logged probability of the logged choice. */
  readonly weight: number
  /** q(x, a): the outcome model at the logged choice, fitted without this row's fold. */
  readonly fitted: number
  /** Σ_a π_e(a|x) q(x, a). */
  readonly fittedCandidate: number
  /** Σ_a π_b(a|x) q(x, a). */
  readonly fittedProduction: number
  /** Σ_a π_e(a|x) 1{π_b(a|x) = 0}: what the log cannot tell anything about. */
  readonly unsupported: number
  /** Σ_a π_e(a|x) 1{π_b(a|x) = 0} q(x, a): what DR fills in there. */
  readonly fittedUnsupported: number
}

/** A row's share in the sum above and the sum below the line. */
export type Terms = readonly [numerator: number, denominator: number]
export type Estimator = (row: Row) => Terms

/** Inverse propensity scoring, V = Σ k w r / Σ k (Horvitz & Thompson 1952; Dudík, Langford & Li 2011, eq. 2). */
export const ips: Estimator = (row) => [row.keepWeight * row.weight * row.reward, row.keepWeight]

/** Self-normalised IPS, V = Σ k w r / Σ k w (Swaminathan & Joachims 2015, eq. 8). */
export const snips: Estimator = (row) => [row.keepWeight * row.weight * row.reward, row.keepWeight * row.weight]

/** Direct method, V = Σ k Σ_a π_e(a|x) q(x,a) / Σ k (Dudík et al. 2011, eq. 1). A projection: it never enters the gate. */
export const dm: Estimator = (row) => [row.keepWeight * row.fittedCandidate, row.keepWeight]

/** Doubly robust, V = Σ k [Σ_a π_e q + w (r − q)] / Σ k (Dudík et al. 2011, eq. 3; cross-fitted: Chernozhukov et al. 2018). */
export const dr: Estimator = (row) => [
  row.keepWeight * (row.fittedCandidate + row.weight * (row.reward - row.fitted)),
  row.keepWeight,
]

/** Doubly robust value of the logged policy itself (w = 1): what production costs over its own draws, not only these. */
export const drProduction: Estimator = (row) => [
  row.keepWeight * (row.fittedProduction + (row.reward - row.fitted)),
  row.keepWeight,
]

/**
 * Candidate − production, paired on the same rows: d = Σ_a (π_e − π_b) q + (w − 1)(r − q). A row decided alike under both
 * contributes exactly 0, so only what changes is uncertain.
 */
export const drDifference: Estimator = (row) => [
  row.keepWeight * (row.fittedCandidate - row.fittedProduction + (row.weight - 1) * (row.reward - row.fitted)),
  row.keepWeight,
]

/** An estimator with every outcome that has no support replaced by `bound`: one end of the bounds of Manski 1990. */
export const bounded =
  (estimator: Estimator, bound: number): Estimator =>
  (row) => {
    const [supported, denominator] = estimator(row)
    return [supported + row.keepWeight * (bound * row.unsupported - row.fittedUnsupported), denominator]
  }

/** DR on the part that has support, V = Σ k [dr − what is filled in] / Σ k (1 − u): what SNIPS estimates too. */
export const drSupported: Estimator = (row) => [
  dr(row)[0] - row.keepWeight * row.fittedUnsupported,
  row.keepWeight * (1 - row.unsupported),
]

/**
 * The gap between the two linearised around their values (Taylor; Cochran 1977, §6.3): its mean is 0 and its standard error
 * that of DR − SNIPS, in which the noise that both share has gone. `supported` and `weight` are the mean denominators.
 */
export const gap =
  (drValue: number, snipsValue: number, supported: number, weight: number): Estimator =>
  (row) => {
    const [numerator, denominator] = drSupported(row)
    const inDr = (numerator - drValue * denominator) / supported
    return [inDr - (row.keepWeight * row.weight * (row.reward - snipsValue)) / weight, row.keepWeight]
  }

/** The plain mean of what was logged, Σ k r / Σ k: what the bill says. */
export const logged: Estimator = (row) => [row.keepWeight * row.reward, row.keepWeight]

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

/** Runs an estimator over rows whose clusters are contiguous. */
export const accumulate = (rows: Iterable<Row>, estimator: Estimator): RatioSum => {
  const sum = new RatioSum()
  let cluster: number | null = null
  let a = 0
  let b = 0
  for (const row of rows) {
    if (row.cluster !== cluster && cluster !== null) {
      sum.add(a, b)
      a = 0
      b = 0
    }
    cluster = row.cluster
    const [numerator, denominator] = estimator(row)
    a += numerator
    b += denominator
  }
  if (cluster !== null) sum.add(a, b)
  return sum
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
