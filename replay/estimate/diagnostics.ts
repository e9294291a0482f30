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
import type { Columns } from '../redecide/columns.ts'
import { RatioSum } from './estimators.ts'

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

/** What the probabilities of one row say. */
type RowWeights = {
  readonly weight: number
  readonly unsupported: number
  /** E[w²] over the logged policy's draw. */
  readonly weightSquare: number
  /** (w − 1)⁺, its expectation and that of its square. */
  readonly excess: number
  readonly excessMean: number
  readonly excessSquare: number
  readonly changed: boolean
}

export const rowWeights = (columns: Columns, row: number): RowWeights => {
  const { offset, entryArm, entryCandidate, entryProduction } = columns
  let [weight, unsupported, weightSquare, excessMean, excessSquare] = [0, 0, 0, 0, 0]
  let changed = false
  for (let at = offset[row] ?? 0; at < (offset[row + 1] ?? 0); at++) {
    const candidate = entryCandidate[at] ?? 0
    const production = entryProduction[at] ?? 0
    if (candidate !== production) changed = true
    if (production === 0) {
      unsupported += candidate
      continue
    }
    const w = candidate / production
    const excess = Math.max(0, w - 1)
    weightSquare += production * w * w
    excessMean += production * excess
    excessSquare += production * excess * excess
    if (entryArm[at] === columns.arm[row]) weight = w
  }
  return { weight, unsupported, weightSquare, excess: Math.max(0, weight - 1), excessMean, excessSquare, changed }
}

/** Diagnoses the rows with a `keepWeight` above 0; that is 1/ρ, or 0 for a row that is left out. */
export const diagnose = (columns: Columns, keepWeight: Float64Array): Diagnostics => {
  const rows: number[] = []
  for (let row = 0; row < columns.rowCount; row++) if ((keepWeight[row] ?? 0) > 0) rows.push(row)
  const byRow = rows.map((row) => rowWeights(columns, row))
  const weights = Float64Array.from(rows, (row, at) => (keepWeight[row] ?? 0) * (byRow[at]?.weight ?? 0))
    .sort()
    .reverse()
  const total = weights.reduce((sum, weight) => sum + weight, 0)
  const top = weights.subarray(0, Math.ceil(weights.length * topShare)).reduce((sum, weight) => sum + weight, 0)
  return {
    rows: rows.length,
    clusters: new Set(rows.map((row) => columns.cluster[row])).size,
    effective: effectiveSize(columns, keepWeight, rows, (at) => {
      const { weight, unsupported, weightSquare } = byRow[at] as RowWeights
      return { seen: weight, mean: 1 - unsupported, square: weightSquare }
    }),
    change: effectiveSize(columns, keepWeight, rows, (at) => {
      const { excess, excessMean, excessSquare } = byRow[at] as RowWeights
      return { seen: excess, mean: excessMean, square: excessSquare }
    }),
    changedRows: byRow.filter(({ changed }) => changed).length,
    weightMax: byRow.reduce((max, { weight }) => Math.max(max, weight), 0),
    weightTopShare: total > 0 ? top / total : 0,
    audits: [auditWeights(columns, keepWeight, rows, byRow), ...auditArms(columns, keepWeight, rows)],
    unsupported: unsupportedMass(columns, keepWeight, rows),
  }
}

/** A weight as drawn, and its first two moments over the logged policy's draw. */
type Moments = { readonly seen: number; readonly mean: number; readonly square: number }

const effectiveSize = (
  columns: Columns,
  keepWeight: Float64Array,
  rows: readonly number[],
  momentsAt: (at: number) => Moments,
): EffectiveSize => {
  let [seenSum, seenSquares, meanSum, meanSquares, variance, total] = [0, 0, 0, 0, 0, 0]
  forClusters(columns.cluster, rows, (from, to) => {
    let [seen, mean] = [0, 0]
    for (let at = from; at < to; at++) {
      const keep = keepWeight[rows[at] ?? 0] ?? 0
      const moments = momentsAt(at)
      seen += keep * moments.seen
      total += keep
      mean += keep * moments.mean
      variance += keep * keep * Math.max(0, moments.square - moments.mean ** 2)
    }
    seenSum += seen
    seenSquares += seen * seen
    meanSum += mean
    meanSquares += mean * mean
  })
  const kish = (sum: number, squares: number) => (squares > 0 ? (sum * sum) / squares : 0)
  const seen = kish(seenSum, seenSquares)
  const expected = kish(meanSum, meanSquares + variance)
  return { ess: Math.min(seen, expected), seen, expected, mean: total > 0 ? meanSum / total : 0 }
}

/** The candidate's weights average 1, less what has no support. */
const auditWeights = (
  columns: Columns,
  keepWeight: Float64Array,
  rows: readonly number[],
  byRow: readonly RowWeights[],
): Audit => {
  const mean = new RatioSum()
  let [variance, total] = [0, 0]
  forClusters(columns.cluster, rows, (from, to) => {
    let [w, k] = [0, 0]
    for (let at = from; at < to; at++) {
      const keep = keepWeight[rows[at] ?? 0] ?? 0
      const { weight, unsupported, weightSquare } = byRow[at] as RowWeights
      w += keep * (weight + unsupported)
      k += keep
      variance += keep * keep * Math.max(0, weightSquare - (1 - unsupported) ** 2)
    }
    total += k
    mean.add(w, k)
  })
  return auditOf(null, mean, Math.sqrt(variance) / total, Infinity)
}

/**
 * For each arm, the mean over the rows that could have drawn it of 1{a = arm} / π_b(arm|x), which is 1 in expectation. An
 * arm whose probability is logged 20 % too low shows 1.2.
 */
const auditArms = (columns: Columns, keepWeight: Float64Array, rows: readonly number[]): Audit[] => {
  const { offset, entryArm, entryProduction, armNames } = columns
  const tally = armNames.map(() => ({ sum: new RatioSum(), a: 0, k: 0, variance: 0, total: 0, draws: 0, drawMax: 0 }))
  forClusters(columns.cluster, rows, (from, to) => {
    for (let at = from; at < to; at++) {
      const row = rows[at] ?? 0
      const keep = keepWeight[row] ?? 0
      for (let entry = offset[row] ?? 0; entry < (offset[row + 1] ?? 0); entry++) {
        const arm = entryArm[entry] ?? 0
        const probability = entryProduction[entry] ?? 0
        const counts = tally[arm]
        if (!counts || probability === 0) continue
        if (arm === columns.arm[row]) counts.a += keep / probability
        counts.k += keep
        counts.total += keep
        counts.variance += (keep * keep * (1 - probability)) / probability
        counts.drawMax = Math.max(counts.drawMax, probability)
      }
    }
    for (const counts of tally) {
      if (counts.k > 0) counts.sum.add(counts.a, counts.k)
      counts.draws += counts.drawMax
      counts.a = 0
      counts.k = 0
      counts.drawMax = 0
    }
  })
  return tally.flatMap(({ sum, variance, total, draws }, arm) =>
    total > 0 ? [auditOf(armNames[arm] ?? '', sum, Math.sqrt(variance) / total, draws)] : [],
  )
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

const unsupportedMass = (columns: Columns, keepWeight: Float64Array, rows: readonly number[]) => {
  const { offset, entryArm, entryCandidate, entryProduction, armNames } = columns
  const masses = new Float64Array(armNames.length)
  let total = 0
  for (const row of rows) {
    const keep = keepWeight[row] ?? 0
    total += keep
    for (let at = offset[row] ?? 0; at < (offset[row + 1] ?? 0); at++) {
      const arm = entryArm[at] ?? 0
      if (entryProduction[at] === 0) masses[arm] = (masses[arm] ?? 0) + keep * (entryCandidate[at] ?? 0)
    }
  }
  const arms = [...masses].flatMap((mass, arm) => (mass > 0 ? [{ arm: armNames[arm] ?? '', mass: mass / total }] : []))
  return { mass: arms.reduce((sum, { mass }) => sum + mass, 0), arms: arms.sort((a, b) => b.mass - a.mass) }
}

/** Calls `visit` with the bounds of each run of equal clusters among `rows`. */
const forClusters = (cluster: Int32Array, rows: readonly number[], visit: (from: number, to: number) => void): void => {
  let from = 0
  for (let at = 1; at <= rows.length; at++) {
    if (at < rows.length && cluster[rows[at] ?? 0] === cluster[rows[from] ?? 0]) continue
    visit(from, at)
    from = at
  }
}
