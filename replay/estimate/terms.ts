// What is summed. Every estimator, interval, bound and diagnostic of a replay is computed from these sums and nothing else:
// for each group of clusters and each metric, one number per term. Sums add up, whoever made them: a worker thread, a
// slice of the log, or a GROUP BY in ClickHouse. In the formulas k = 1/ρ · (all / known outcomes of the row's model),
// w = π_e/π_b of the logged choice, r the outcome, q the outcome model, π_e and π_b the candidate's and the logged policy.

export const terms = [
  /** Σ k */
  'n',
  /** Σ k w */
  'w',
  /** Σ k w r */
  'wr',
  /** Σ k r */
  'r',
  /** Σ k q(x, a) */
  'q',
  /** Σ k w q(x, a) */
  'wq',
  /** Σ k Σ_a π_e q */
  'qe',
  /** Σ k Σ_a π_b q */
  'qb',
  /** Σ k Σ_a π_e 1{π_b = 0}: what was never tried */
  'u',
  /** Σ k Σ_a π_e 1{π_b = 0} q: what is filled in there */
  'qu',
  /** Σ k (w − 1)⁺ and its expectation over the logged draw: what speaks for the change */
  'x',
  'xe',
  /** Σ k min(w, L) r */
  'clipped',
  /** Σ k w / (1 − λ + λ w) r */
  'subGaussian',
  /** Σ k w 1{w ≤ τ} (r − q) */
  'switched',
  /** Σ k λ w / (w² + λ) (r − q) */
  'shrunk',
  /** Σ (k w r)² */
  'weightedSquare',
  /** Σ k 1{a = the candidate's choice}, and of r there */
  'matched',
  'matchedR',
  /** Of all rows, also those without an outcome, with k = 1/ρ: Σ k, and DR with the worst and the best in their place */
  'all',
  'candidateLow',
  'candidateHigh',
  'productionLow',
  'productionHigh',
  'differenceLow',
  'differenceHigh',
  /** Where changed decisions were asked anew (two-phase.ts): Σ k D, and D with what cannot be known at 0, and at 1 */
  'asked',
  'askedLow',
  'askedHigh',
  /** Of all rows, also those without an outcome, with k = 1/ρ: D − production with the worst and the best in their place */
  'askedDifferenceLow',
  'askedDifferenceHigh',
] as const
export type Term = (typeof terms)[number]

export const termCount = terms.length
export const termAt = Object.fromEntries(terms.map((term, at) => [term, at])) as Readonly<Record<Term, number>>

/** The parameters of the estimators that are shown for comparison. */
export const clipAt = 10
export const switchAt = 10
export const shrinkBy = 100
export const subGaussianBy = 0.01

/** A weighted sum of terms. */
export type Combination = Readonly<Partial<Record<Term, number>>>

/** One metric's sums: of `groups` groups, each with all terms in their order. */
export type Sums = { readonly groups: number; readonly sums: Float64Array }

/** Σ coefficient · term, for every group. */
export const combine = ({ groups, sums }: Sums, combination: Combination): Float64Array => {
  const total = new Float64Array(groups)
  for (const [term, coefficient] of Object.entries(combination)) {
    const at = termAt[term as Term]
    for (let group = 0; group < groups; group++)
      total[group] = (total[group] as number) + coefficient * (sums[group * termCount + at] as number)
  }
  return total
}

/** What the probabilities of one row say, apart from outcomes. */
export type Weighing = {
  /** w = π_e(a|x) / π_b(a|x) of the logged choice. */
  readonly w: number
  readonly u: number
  readonly x: number
  readonly xe: number
  /** Whether the candidate makes the logged choice. */
  readonly isSame: boolean
}

/** The first terms: those of a row whose outcome is known. */
const knownTerms = termAt.matchedR + 1
const row = new Float64Array(knownTerms)

/**
 * Adds one row with a known outcome; `base` is where its group's terms begin, `qu` the part of `qe` never tried. The terms are
 * written down and then added in one sweep, because this runs for every row, candidate and metric.
 */
export const addTerms = (
  sums: Float64Array,
  base: number,
  { w, u, x, xe, isSame }: Weighing,
  k: number,
  r: number,
  q: number,
  qe: number,
  qb: number,
  qu: number,
): void => {
  const kw = k * w
  row[termAt.n] = k
  row[termAt.w] = kw
  row[termAt.wr] = kw * r
  row[termAt.r] = k * r
  row[termAt.q] = k * q
  row[termAt.wq] = kw * q
  row[termAt.qe] = k * qe
  row[termAt.qb] = k * qb
  row[termAt.u] = k * u
  row[termAt.qu] = k * qu
  row[termAt.x] = k * x
  row[termAt.xe] = k * xe
  row[termAt.clipped] = k * Math.min(w, clipAt) * r
  row[termAt.subGaussian] = (kw / (1 - subGaussianBy + subGaussianBy * w)) * r
  row[termAt.switched] = w <= switchAt ? kw * (r - q) : 0
  row[termAt.shrunk] = ((shrinkBy * kw) / (w * w + shrinkBy)) * (r - q)
  row[termAt.weightedSquare] = kw * r * (kw * r)
  row[termAt.matched] = isSame ? k : 0
  row[termAt.matchedR] = isSame ? k * r : 0
  for (let term = 0; term < knownTerms; term++) add(sums, base + term, row[term] as number)
}

/**
 * Adds one row with whatever is not known put at 0 and at 1 (Manski 1990): what was never tried, and an outcome that never came
 * (NaN). A missing outcome is the same under both policies, so in the difference it weighs w − 1.
 */
export const addBounds = (
  sums: Float64Array,
  base: number,
  { w, u }: Weighing,
  k: number,
  r: number,
  q: number,
  qe: number,
  qb: number,
  qu: number,
): void => {
  const isMissing = Number.isNaN(r)
  const low = isMissing ? 0 : r
  const high = isMissing ? 1 : r
  const lowOfDifference = isMissing ? Number(w < 1) : r
  const highOfDifference = isMissing ? Number(w > 1) : r
  add(sums, base + termAt.all, k)
  add(sums, base + termAt.candidateLow, k * (qe + w * (low - q) - qu))
  add(sums, base + termAt.candidateHigh, k * (qe + w * (high - q) - qu + u))
  add(sums, base + termAt.productionLow, k * (qb + low - q))
  add(sums, base + termAt.productionHigh, k * (qb + high - q))
  add(sums, base + termAt.differenceLow, k * (qe - qb + (w - 1) * (lowOfDifference - q) - qu))
  add(sums, base + termAt.differenceHigh, k * (qe - qb + (w - 1) * (highOfDifference - q) - qu + u))
}

/** The scores of one row whose candidate's own choice may have been asked anew, from two-phase.ts. */
export type Asked = { readonly score: number; readonly low: number; readonly high: number }

/** Adds one row with a known outcome to the two-phase estimate. */
export const addAsked = (sums: Float64Array, base: number, { score, low, high }: Asked, k: number): void => {
  add(sums, base + termAt.asked, k * score)
  add(sums, base + termAt.askedLow, k * low)
  add(sums, base + termAt.askedHigh, k * high)
}

/**
 * Adds one row to the two-phase difference with whatever is not known put at either end. Where both choose alike a missing
 * outcome is the same under both and cancels; elsewhere it is production's alone, and worst for the difference at 1.
 */
export const addAskedBounds = (
  sums: Float64Array,
  base: number,
  { low, high }: Asked,
  k: number,
  r: number,
  q: number,
  qb: number,
  isSame: boolean,
): void => {
  const [least, most] = Number.isNaN(r) ? [Number(isSame), Number(!isSame)] : [r, r]
  add(sums, base + termAt.askedDifferenceLow, k * (low - (qb + most - q)))
  add(sums, base + termAt.askedDifferenceHigh, k * (high - (qb + least - q)))
}

/** Adds to one number of a column. */
export const add = (column: Float64Array, at: number, amount: number): void => {
  column[at] = (column[at] as number) + amount
}

/** Adds a column to another of the same length. */
export const addAll = (to: Float64Array, from: Float64Array): void => {
  for (let at = 0; at < to.length; at++) add(to, at, from[at] as number)
}
