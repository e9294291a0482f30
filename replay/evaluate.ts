// One metric of one replay: the outcome model, every estimator, the paired difference and the bounds, on the rows whose
// outcome is known. Rows without an outcome leave; those that stay stand for them, weighted by how often the outcomes of
// the same model are known, so that a model whose users rarely give feedback does not fade from the average.
import type { Columns } from './columns.ts'
import { type Diagnostics, diagnose, rowWeights } from './diagnostics.ts'
import {
  accumulate,
  dm,
  dr,
  drBounded,
  drDifference,
  drProduction,
  type Estimate,
  ips,
  logged,
  type Row,
  snips,
} from './estimators.ts'
import type { MetricName } from './metrics.ts'
import { fitOutcomeModel } from './outcome-model.ts'

/** Beyond this share of missing outcomes a metric says so: it then speaks for those who answered. */
export const missingShareMax = 0.2
/** −ln 0.025: an event not seen in n draws has, with 97.5 % confidence, a probability below 3.69 / n. */
const unseenEvents = 3.689
/** Differences below this part of the value are rounding, not evidence. */
export const roundingShare = 1e-9

export type MetricResult = {
  readonly metric: MetricName
  readonly rows: number
  /** Rows without this outcome, and their share of all. */
  readonly missing: number
  readonly missingShare: number
  /** The plain mean of what was logged. */
  readonly logged: Estimate
  readonly production: Estimate
  readonly candidate: Estimate
  /** Candidate − production, paired. */
  readonly difference: Estimate
  /** The candidate's value by each estimator. */
  readonly estimators: Readonly<Record<'ips' | 'snips' | 'dm' | 'dr', Estimate>>
  /** |DR − SNIPS| in units of √(SE² + SE²), which bounds the error of the gap between two positively related figures. */
  readonly disagreementSe: number
  /** Manski bounds on the candidate's value, sampling error included; null for metrics without a natural range. */
  readonly bounds: { readonly low: number; readonly high: number } | null
  /** The spread of the logged outcome. */
  readonly sd: number
  readonly diagnostics: Diagnostics
}

type Range = readonly [lowest: number, highest: number]
/** The values that a share or a score can have; null for amounts without a natural end. */
const ranges: Readonly<Record<MetricName, Range | null>> = {
  cost_usd: null,
  latency_ms: null,
  quality: [0, 1],
  failed: [0, 1],
}

/** Evaluates one metric; `whole` are the diagnostics of all rows, reused when no outcome is missing. */
export const evaluate = (columns: Columns, metric: MetricName, whole: Diagnostics): MetricResult => {
  const reward = columns.outcomes[metric]
  const keepWeight = keepWeightsOf(columns, reward)
  const rows = rowsOf(columns, reward, keepWeight)
  const run = (estimator: Parameters<typeof accumulate>[1]) => accumulate(rows, estimator).close()
  const estimators = { ips: run(ips), snips: run(snips), dm: run(dm), dr: run(dr) }
  const range = ranges[metric]
  const missing = columns.rowCount - rows.length
  const loggedMean = run(logged)
  const diagnostics = missing === 0 ? whole : diagnose(columns, keepWeight)
  const candidate = withUnseen(estimators.dr, range, diagnostics)
  return {
    metric,
    rows: rows.length,
    missing,
    missingShare: columns.rowCount > 0 ? missing / columns.rowCount : 0,
    logged: loggedMean,
    production: run(drProduction),
    candidate,
    difference: withUnseen(run(drDifference), range && [-1, 1], diagnostics),
    estimators: { ...estimators, dr: candidate },
    disagreementSe: disagreement(estimators.dr, estimators.snips),
    bounds: range && { low: run(drBounded(range[0])).low, high: run(drBounded(range[1])).high },
    sd: Math.sqrt(rows.reduce((sum, row) => sum + (row.reward - loggedMean.value) ** 2, 0) / Math.max(1, rows.length)),
    diagnostics,
  }
}

/**
 * When nothing varies (no request failed) the spread is 0 and says nothing about what was not seen: the interval then is the
 * "rule of three" (Hanley & Lippman-Hand 1983) on the evidence there is for what changes.
 */
const withUnseen = (estimate: Estimate, limits: Range | null, { changedRows, change }: Diagnostics): Estimate => {
  if (!limits || estimate.se > roundingShare || changedRows === 0) return estimate
  const [lowest, highest] = limits
  const reach = unseenEvents / change.ess
  return {
    ...estimate,
    low: Math.max(lowest, estimate.value - reach),
    high: Math.min(highest, estimate.value + reach),
  }
}

const disagreement = (a: Estimate, b: Estimate): number => {
  const gap = Math.abs(a.value - b.value)
  return gap <= roundingShare * Math.abs(a.value) ? 0 : gap / Math.hypot(a.se, b.se)
}

/** 1/ρ over the share of known outcomes of the row's model; 0 where the outcome is missing. */
const keepWeightsOf = ({ arm, armNames, keepWeight }: Columns, reward: Float64Array): Float64Array => {
  const all = new Float64Array(armNames.length)
  const known = new Float64Array(armNames.length)
  for (const [row, value] of reward.entries()) {
    const a = arm[row] ?? 0
    const k = keepWeight[row] ?? 0
    all[a] = (all[a] ?? 0) + k
    if (!Number.isNaN(value)) known[a] = (known[a] ?? 0) + k
  }
  return reward.map((value, row) => {
    const a = arm[row] ?? 0
    return Number.isNaN(value) ? 0 : ((keepWeight[row] ?? 0) * (all[a] ?? 0)) / (known[a] ?? 1)
  })
}

const rowsOf = (columns: Columns, reward: Float64Array, keepWeight: Float64Array): Row[] => {
  const q = fitOutcomeModel({
    reward,
    keepWeight,
    fold: columns.fold,
    arm: columns.arm,
    armCount: columns.armNames.length,
    segmentations: columns.segmentations,
  })
  const rows: Row[] = []
  for (const [row, value] of reward.entries()) {
    if (Number.isNaN(value)) continue
    const { weight, unsupported } = rowWeights(columns, row)
    rows.push({
      cluster: columns.cluster[row] ?? 0,
      keepWeight: keepWeight[row] ?? 0,
      reward: value,
      weight,
      fitted: q(row, columns.arm[row] ?? 0),
      unsupported,
      ...fittedSums(columns, row, q),
    })
  }
  return rows
}

const fittedSums = (columns: Columns, row: number, q: (row: number, arm: number) => number) => {
  const { offset, entryArm, entryCandidate, entryProduction } = columns
  let fittedCandidate = 0
  let fittedProduction = 0
  let fittedUnsupported = 0
  for (let at = offset[row] ?? 0; at < (offset[row + 1] ?? 0); at++) {
    const fitted = q(row, entryArm[at] ?? 0)
    const candidate = entryCandidate[at] ?? 0
    const production = entryProduction[at] ?? 0
    fittedCandidate += candidate * fitted
    fittedProduction += production * fitted
    if (production === 0) fittedUnsupported += candidate * fitted
  }
  return { fittedCandidate, fittedProduction, fittedUnsupported }
}
