// Whether the logged probabilities can carry an estimate at all: how much evidence there is, how unevenly it is spread,
// whether the probabilities can be true, and how much of what the candidate would do was never tried. All of it is known
// from probabilities and choices alone; no outcome is looked at.
//
// Effective sample size, and which one. It is that of the candidate policy's weights over all rows: a row that both
// policies decide alike has weight 1 and is full evidence. Two things are added to Kish's (Σw)² / Σw². Rows of a cluster
// (clusters.ts) count together, because one draw may have decided them all; the intervals are clustered alike. And beside the
// size seen in the weights stands the one expected from the logged probabilities, and the smaller is used: an arm so rare
// that the log happens never to have drawn it leaves even weights behind and would look like perfect evidence.
//
// That size can be large while the difference hangs on a handful of rows, when the candidate changes a small part of the
// traffic to something rarely tried: on MMLU-Pro with 5 such rows among an effective 356, 95 % intervals covered 63-86 %.
// So the same is computed of what the weights exceed 1 by: how many rows speak for what the candidate does more often.
import type { Survey } from '../redecide/survey.ts'
import {
  byMetricAt,
  byMetricCount,
  type CandidateTally,
  type LogTally,
  scalarAt,
  wholeAt,
  wholeCount,
} from '../redecide/tallies.ts'
import { RatioSum } from './estimators.ts'
import { combine, type Sums } from './terms.ts'

/** An audit fires beyond this many standard errors. */
const auditSeMax = 3
/** Below this many expected draws of an arm, its mean weight is too skewed to be judged. */
const auditDrawsMin = 10
const topShare = 0.01

/** Whether the mean of an importance weight is 1, as it must be when the logged probabilities are true. */
export type Audit = {
  /** Null for the candidate policy's own weights. */
  readonly arm: string | null
  readonly mean: number
  readonly se: number
  /** False when too few draws are expected for a judgement. */
  readonly judged: boolean
  readonly ok: boolean
}

export type EffectiveSize = {
  /** The smaller of the two below. */
  readonly ess: number
  /** (Σ_c W_c)² / Σ_c W_c² of the weights seen, W_c being a cluster's sum. */
  readonly seen: number
  /** The same with the expectation of Σ_c W_c² under the logged probabilities. */
  readonly expected: number
  /** The expected weight per row. */
  readonly mean: number
}

export type Diagnostics = {
  readonly rows: number
  readonly clusters: number
  readonly effective: EffectiveSize
  /** Of the excess weights (w − 1)⁺: the evidence for what the candidate does more often than production. */
  readonly change: EffectiveSize
  /** Rows whose probabilities the candidate changes. */
  readonly changedRows: number
  readonly weightMax: number
  /** The share of all weight that the heaviest 1 % of rows carry. */
  readonly weightTopShare: number
  readonly audits: readonly Audit[]
  /** Σ_a π_e(a|x) 1{π_b(a|x) = 0}, averaged over rows, and the arms it falls on. */
  readonly unsupported: {
    readonly mass: number
    readonly arms: readonly { readonly arm: string; readonly mass: number }[]
  }
}

/** Sums by group, and the variance over the logged draws, of one set of weights. */
type Weights = {
  readonly n: Float64Array
  readonly w: Float64Array
  readonly u: Float64Array
  readonly x: Float64Array
  readonly xe: Float64Array
  readonly weightVariance: number
  readonly excessVariance: number
}

const total = (column: Float64Array): number => column.reduce((sum, value) => sum + value, 0)

/** Diagnoses all rows, whatever their outcomes. */
export const diagnose = (survey: Survey, log: LogTally, tally: CandidateTally): Diagnostics => {
  const column = (at: number) =>
    Float64Array.from({ length: survey.clusters.groupCount }, (_, group) => tally.whole[group * wholeCount + at] ?? 0)
  const weights = {
    n: column(wholeAt.n),
    w: column(wholeAt.w),
    u: column(wholeAt.u),
    x: column(wholeAt.x),
    xe: column(wholeAt.xe),
    weightVariance: tally.scalars[scalarAt.weightVariance] ?? 0,
    excessVariance: tally.scalars[scalarAt.excessVariance] ?? 0,
  }
  return close(survey, log, tally, weights, 0, survey.rows)
}

/** Diagnoses the `rows` whose outcome of the metric is known. */
export const diagnoseMetric = (
  survey: Survey,
  log: LogTally,
  tally: CandidateTally,
  metric: number,
  sums: Sums,
  rows: number,
): Diagnostics => {
  const spread = metric * byMetricCount
  const weights = {
    n: combine(sums, { n: 1 }),
    w: combine(sums, { w: 1 }),
    u: combine(sums, { u: 1 }),
    x: combine(sums, { x: 1 }),
    xe: combine(sums, { xe: 1 }),
    weightVariance: tally.byMetric[spread + byMetricAt.weightVariance] ?? 0,
    excessVariance: tally.byMetric[spread + byMetricAt.excessVariance] ?? 0,
  }
  return close(survey, log, tally, weights, metric + 1, rows)
}

const close = (
  survey: Survey,
  log: LogTally,
  tally: CandidateTally,
  weights: Weights,
  variant: number,
  rows: number,
): Diagnostics => {
  const { n, w, u, x, xe, weightVariance, excessVariance } = weights
  const isDealt = survey.clusters.groupOf === null
  const all = total(n)
  const tried = n.map((keep, group) => keep - (u[group] as number))
  return {
    rows,
    clusters: isDealt ? survey.clusters.count : n.filter((keep) => keep > 0).length,
    effective: effectiveSize(w, tried, weightVariance, all, isDealt),
    change: effectiveSize(x, xe, excessVariance, all, isDealt),
    changedRows: tally.scalars[scalarAt.changedRows] ?? 0,
    weightMax: tally.extremes.weightMax,
    weightTopShare: topShareOf(tally.weights),
    audits: [auditWeights(weights), ...auditArms(survey, log, variant)],
    unsupported: unsupportedMass(survey, tally, all > 0 ? total(u) / all : 0),
  }
}

/**
 * `seen` and `mean` are sums of weights and of their expectations by group. Clusters that were dealt to groups by a hash leave
 * E Σ_g W_g² = (1 − 1/G) Σ_c W_c² + (ΣW)² / G, which is solved for the sum of squares over clusters.
 */
const effectiveSize = (
  seen: Float64Array,
  mean: Float64Array,
  variance: number,
  all: number,
  isDealt: boolean,
): EffectiveSize => {
  const squaresOf = (sums: Float64Array): number => {
    const squares = sums.reduce((sum, value) => sum + value * value, 0)
    if (!isDealt) return squares
    const groups = sums.length
    return Math.max(0, (squares - total(sums) ** 2 / groups) / (1 - 1 / groups))
  }
  const kish = (sum: number, squares: number) => (squares > 0 ? (sum * sum) / squares : 0)
  const seenSize = kish(total(seen), squaresOf(seen))
  const expected = kish(total(mean), squaresOf(mean) + variance)
  return {
    ess: Math.min(seenSize, expected),
    seen: seenSize,
    expected,
    mean: all > 0 ? total(mean) / all : 0,
  }
}

/** The candidate's weights average 1, less what has no support. */
const auditWeights = ({ n, w, u, weightVariance }: Weights): Audit => {
  const mean = new RatioSum()
  for (const [group, keep] of n.entries()) if (keep > 0) mean.add((w[group] as number) + (u[group] as number), keep)
  return auditOf(null, mean, Math.sqrt(weightVariance) / total(n), Infinity)
}

/**
 * For each arm, the mean over the rows that could have drawn it of 1{a = arm} / π_b(arm|x), which is 1 in expectation. An
 * arm whose probability is logged 20 % too low shows 1.2.
 */
const auditArms = ({ armNames, clusters, rows }: Survey, log: LogTally, variant: number): Audit[] => {
  const arms = armNames.length
  const groups = clusters.groupCount
  return armNames.flatMap((name, arm): Audit[] => {
    const scalars = (variant * arms + arm) * 3
    const [variance, keep, draws] = [0, 1, 2].map((at) => log.armScalars[scalars + at] ?? 0) as [number, number, number]
    if (keep === 0) return []
    const sum = new RatioSum()
    for (let group = 0; group < groups; group++) {
      const place = ((variant * groups + group) * arms + arm) * 2
      const k = log.arms[place + 1] as number
      if (k > 0) sum.add(log.arms[place] as number, k)
    }
    // Rows of a cluster may share one draw, so it is the clusters that count.
    const independent = draws * Math.min(1, clusters.count / Math.max(1, rows))
    return [auditOf(name, sum, Math.sqrt(variance) / keep, independent)]
  })
}

/**
 * The standard error is the larger of what the probabilities imply for independent draws, which does not shrink when an
 * arm happens not to be drawn, and the cluster-robust one, which sees draws shared by a cluster; the latter is scaled to
 * the draws expected rather than seen, because a mean below 1 has few draws and so a small error of its own.
 */
const auditOf = (arm: string | null, sum: RatioSum, seIndependent: number, draws: number): Audit => {
  const { value: mean, se: seSeen } = sum.close()
  const seClustered = mean > 0 && Number.isFinite(seSeen) ? seSeen / Math.sqrt(Math.min(1, mean)) : 0
  const se = Math.max(seIndependent, seClustered)
  const judged = draws >= auditDrawsMin
  return { arm, mean, se, judged, ok: !judged || Math.abs(mean - 1) <= auditSeMax * se + Number.EPSILON * 8 }
}

/** Read off the histogram of weights: bins from the heaviest down, the last one by its part. */
const topShareOf = (bins: Float64Array): number => {
  const count = bins.length / 2
  const sum = (at: number) => Array.from({ length: count }, (_, bin) => bins[bin * 2 + at] ?? 0)
  const [keeps, weights] = [sum(0), sum(1)]
  const [all, weight] = [keeps, weights].map((column) => column.reduce((a, b) => a + b, 0)) as [number, number]
  if (weight === 0) return 0
  let [left, top] = [all * topShare, 0]
  for (let bin = count - 1; bin >= 0 && left > 0; bin--) {
    const keep = keeps[bin] as number
    if (keep === 0) continue
    const part = Math.min(1, left / keep)
    top += part * (weights[bin] as number)
    left -= part * keep
  }
  return top / weight
}

const unsupportedMass = ({ armNames }: Survey, { untriedArms }: CandidateTally, mass: number) => {
  const all = total(untriedArms)
  const arms = [...untriedArms].flatMap((part, arm) =>
    part > 0 ? [{ arm: armNames[arm] ?? '', mass: (mass * part) / all }] : [],
  )
  return { mass, arms: arms.sort((a, b) => b.mass - a.mass) }
}
