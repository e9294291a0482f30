// What re-executed decisions say about the candidate. Where it chooses as production did, the logged outcome is its own;
// where it chooses otherwise, some were asked anew with known probability. Both are doubly robust scores of the candidate's
// drawn choice, so they average; no logged probability is needed, and what production never tries is no longer unknown.
import { type Estimate, RatioSum, type Row } from '../estimate/estimators.ts'

/** The outcome of the candidate's own choice on one row, and how it came to be known. */
export type SecondPhase = {
  /** ρ: 1 where the logged outcome is reused, 0 where the choice could not be asked. */
  readonly probability: number
  /** I: whether it was asked, or reused. */
  readonly included: boolean
  /** r', read only when included; NaN when asked but not known, as after a judge's failure. */
  readonly reward: number
  /** q(x, a') at the candidate's choice. */
  readonly fitted: number
}

/** A logged row with its second phase; `Row.weight` is not used. */
export type TwoPhaseRow = Row & { readonly second: SecondPhase }

/**
 * D of one row; `fittedCandidate` is Σ_a π_e(a|x) q(x,a), and `unknown` stands for an outcome in [0, 1] that cannot be known, null
 * for the outcome model's guess.
 */
export const score = (
  { probability, included, reward, fitted }: SecondPhase,
  fittedCandidate: number,
  unknown: number | null,
): number => {
  const guess = unknown ?? fitted
  if (probability === 0) return fittedCandidate + guess - fitted
  if (!included) return fittedCandidate
  return fittedCandidate + ((Number.isNaN(reward) ? guess : reward) - fitted) / probability
}

export type TwoPhase = {
  readonly candidate: Estimate
  /** Candidate − production on the same rows. */
  readonly difference: Estimate
  /** The ends of the difference when what could not be known was all 0, or all 1; for outcomes in [0, 1]. */
  readonly ends: { readonly low: Estimate; readonly high: Estimate }
}

/**
 * Two-phase doubly robust estimate, D_i = Σ_a π_e(a|x) q(x,a) + (I_i / ρ_i) (r'_i − q(x, a'_i)), V = Σ k D / Σ k, where a'_i is
 * drawn from π_e (the generalised difference estimator of Cassel, Särndal & Wretman 1976 on the second phase of Neyman 1938).
 * A decision that both make alike has ρ = 1 and reuses its outcome as it is, not weighted by 1/p: weighting it and asking the
 * others anew would count the luck of the draw twice. Production's part of the difference is `drProduction`. Intervals
 * are cluster-robust. In the unit of the reward.
 */
export const twoPhase = (rows: readonly TwoPhaseRow[]): TwoPhase => {
  const mean = (value: (row: TwoPhaseRow) => number): Estimate => {
    const byCluster = new Map<number, [number, number]>()
    for (const row of rows) {
      const sums = byCluster.get(row.cluster) ?? [0, 0]
      byCluster.set(row.cluster, sums)
      sums[0] += row.keepWeight * value(row)
      sums[1] += row.keepWeight
    }
    const sum = new RatioSum()
    for (const [a, b] of byCluster.values()) sum.add(a, b)
    return sum.close()
  }
  const produced = ({ fittedProduction, reward, fitted }: TwoPhaseRow) => fittedProduction + reward - fitted
  const difference = (unknown: number | null) =>
    mean((row) => score(row.second, row.fittedCandidate, unknown) - produced(row))
  return {
    candidate: mean((row) => score(row.second, row.fittedCandidate, null)),
    difference: difference(null),
    ends: { low: difference(0), high: difference(1) },
  }
}
