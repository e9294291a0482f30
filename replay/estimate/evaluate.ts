// One metric of one replay: the outcome model, every estimator, the paired difference and the bounds. The figures rest on
// the rows whose outcome is known, weighted by how often the outcomes of the same model are, so that a model whose users
// rarely answer does not fade from the average. That alone would let an outcome hide by staying away: so the intervals are
// widened by whatever the missing, the untried and the never seen could have been, unless a person vouches for the missing.
import type { Amount, Columns } from '../redecide/columns.ts'
import { type Diagnostics, diagnose, rowWeights } from './diagnostics.ts'
import {
  accumulate,
  dm,
  dr,
  drDifference,
  drProduction,
  drSupported,
  type Estimate,
  type Estimator,
  gap,
  ips,
  logged,
  type Row,
  snips,
} from './estimators.ts'
import type { MetricName } from './metrics.ts'
import { fitOutcomeModel, type OutcomeModel } from './outcome-model.ts'
import { endsOf, missingUnder, type Range, reaching, unseenReachOf, widen } from './unknown.ts'

/** Beyond this share of missing outcomes a metric speaks for those who answered. */
export const missingShareMax = 0.2
/** Differences below this part of the value are rounding, not evidence. */
export const roundingShare = 1e-9

export type MetricResult = {
  readonly metric: MetricName
  readonly rows: number
  /** Rows without this outcome, and their share of all. */
  readonly missing: number
  readonly missingShare: number
  /** The same share under either policy's weights. */
  readonly missingUnder: { readonly candidate: number; readonly production: number }
  /** The plain mean of what was logged. */
  readonly logged: Estimate
  readonly production: Estimate
  readonly candidate: Estimate
  /** Candidate − production, paired; its interval allows for all that is not known. */
  readonly difference: Estimate
  /** The interval that the difference would have if outcomes were missing at random. */
  readonly differenceAtRandom: { readonly low: number; readonly high: number }
  /** How far below and above the difference its value may lie however many rows there were. */
  readonly doubt: { readonly low: number; readonly high: number }
  /** How far the difference may lie off because an event was never seen where the candidate changes things; or 0. */
  readonly unseenReach: number
  /** True when an amount is not even predicted for a choice that production never makes. */
  readonly unpredicted: boolean
  /** The candidate's value by each estimator. */
  readonly estimators: Readonly<Record<'ips' | 'snips' | 'dm' | 'dr', Estimate>>
  /** DR on what production tries, |DR − SNIPS| there, and the same in units of the standard error of that gap. */
  readonly drSupported: number
  readonly disagreement: number
  readonly disagreementSe: number
  /** Manski bounds on the candidate's value, sampling error included; null for metrics without a natural range. */
  readonly bounds: { readonly low: number; readonly high: number } | null
  /** The spread of the logged outcome. */
  readonly sd: number
  readonly diagnostics: Diagnostics
}

/** The values that a share or a score can have; null for amounts without a natural end. */
const ranges: Readonly<Record<MetricName, Range | null>> = {
  cost_usd: null,
  latency_ms: null,
  quality: [0, 1],
  failed: [0, 1],
  abandoned: [0, 1],
}
/** The difference of two of them. */
const differenceRange: Range = [-1, 1]
const amountOf = (metric: MetricName): Amount | null =>
  metric === 'cost_usd' || metric === 'latency_ms' ? metric : null

/**
 * Evaluates one metric; `whole` are the diagnostics of all rows, reused when no outcome is missing. With `missingAtRandom`
 * requests without an outcome are taken to be like those with one.
 */
export const evaluate = (
  columns: Columns,
  metric: MetricName,
  whole: Diagnostics,
  missingAtRandom = false,
): MetricResult => {
  const reward = columns.outcomes[metric]
  const keepWeight = keepWeightsOf(columns, reward)
  const q = modelOf(columns, reward, keepWeight)
  const rows = rowsOf(columns, metric, keepWeight, q)
  const missing = columns.rowCount - rows.length
  const all = missing === 0 || missingAtRandom ? rows : rowsOf(columns, metric, columns.keepWeight, q)
  const run = (estimator: Estimator) => accumulate(rows, estimator).close()
  const diagnostics = missing === 0 ? whole : diagnose(columns, keepWeight)
  const interval = intervalsOf(rows, all, ranges[metric], diagnostics)
  const loggedMean = run(logged)
  return {
    metric,
    rows: rows.length,
    missing,
    missingShare: columns.rowCount > 0 ? missing / columns.rowCount : 0,
    missingUnder: missingUnder(columns, reward, (row) => rowWeights(columns, row).weight),
    logged: loggedMean,
    ...interval,
    unpredicted: isUnpredicted(columns, amountOf(metric)),
    estimators: { ips: run(ips), snips: run(snips), dm: run(dm), dr: interval.candidate },
    ...disagreementOf(rows),
    sd: Math.sqrt(rows.reduce((sum, row) => sum + (row.reward - loggedMean.value) ** 2, 0) / Math.max(1, rows.length)),
    diagnostics,
  }
}

type Intervals = Pick<
  MetricResult,
  'production' | 'candidate' | 'difference' | 'differenceAtRandom' | 'doubt' | 'unseenReach' | 'bounds'
>

/** Values from the `rows` whose outcome is known, with intervals that allow for what `all` of them leave open. */
const intervalsOf = (
  rows: readonly Row[],
  all: readonly Row[],
  range: Range | null,
  diagnostics: Diagnostics,
): Intervals => {
  const run = (estimator: Estimator) => accumulate(rows, estimator).close()
  const [production, candidate] = [run(drProduction), run(dr)]
  const difference = withoutRounding(run(drDifference), production.value)
  const certain = { low: 0, high: 0 }
  if (!range)
    return {
      production,
      candidate,
      difference,
      differenceAtRandom: difference,
      doubt: certain,
      unseenReach: 0,
      bounds: null,
    }
  const reach = unseenReachOf(rows, diagnostics)
  const ends = endsOf(all)
  const bounds = { low: ends.candidate.low.low, high: ends.candidate.high.high }
  const seen = {
    candidate: reaching(candidate, reach, range),
    difference: reaching(difference, reach, differenceRange),
  }
  const base = { differenceAtRandom: seen.difference, unseenReach: reach, bounds }
  if (all === rows && diagnostics.unsupported.mass === 0) return { ...base, ...seen, production, doubt: certain }
  const { low, high } = ends.difference
  const reached = { low: reaching(low, reach, differenceRange), high: reaching(high, reach, differenceRange) }
  return {
    ...base,
    production: widen(production, ends.production, range),
    candidate: widen(seen.candidate, ends.candidate, range),
    difference: widen(seen.difference, reached, differenceRange),
    doubt: { low: Math.max(0, difference.value - low.value), high: Math.max(0, high.value - difference.value) },
  }
}

/** Zero where there is nothing but rounding. */
const withoutRounding = (estimate: Estimate, scale: number): Estimate => {
  const exact = (amount: number) => (Math.abs(amount) <= roundingShare * Math.abs(scale) ? 0 : amount)
  return { ...estimate, value: exact(estimate.value), low: exact(estimate.low), high: exact(estimate.high) }
}

/** How far DR and SNIPS lie apart where both have support, and how many of the gap's own standard errors that is. */
const disagreementOf = (
  rows: readonly Row[],
): Pick<MetricResult, 'drSupported' | 'disagreement' | 'disagreementSe'> => {
  const run = (estimator: Estimator) => accumulate(rows, estimator).close()
  const [drValue, snipsValue] = [run(drSupported).value, run(snips).value]
  const disagreement = Math.abs(drValue - snipsValue)
  if (disagreement <= roundingShare * Math.abs(drValue))
    return { drSupported: drValue, disagreement, disagreementSe: 0 }
  let [supported, weight, total] = [0, 0, 0]
  for (const row of rows) {
    total += row.keepWeight
    supported += row.keepWeight * (1 - row.unsupported)
    weight += row.keepWeight * row.weight
  }
  const { se } = run(gap(drValue, snipsValue, supported / total, weight / total))
  return { drSupported: drValue, disagreement, disagreementSe: disagreement / se }
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

const modelOf = (columns: Columns, reward: Float64Array, keepWeight: Float64Array): OutcomeModel =>
  fitOutcomeModel({
    reward,
    keepWeight,
    fold: columns.fold,
    arm: columns.arm,
    armCount: columns.armNames.length,
    segmentations: columns.segmentations,
  })

/** The rows with a weight to be kept by; a reward that is missing stays NaN. */
const rowsOf = (columns: Columns, metric: MetricName, keepWeight: Float64Array, q: OutcomeModel): Row[] => {
  const rows: Row[] = []
  const amount = amountOf(metric)
  const predicted = amount && columns.entryPredicted[amount]
  for (const [row, reward] of columns.outcomes[metric].entries()) {
    if (keepWeight[row] === 0) continue
    const { weight, unsupported } = rowWeights(columns, row)
    rows.push({
      cluster: columns.cluster[row] ?? 0,
      keepWeight: keepWeight[row] ?? 0,
      reward,
      weight,
      fitted: q(row, columns.arm[row] ?? 0),
      unsupported,
      ...fittedSums(columns, row, q, predicted),
    })
  }
  return rows
}

/** An amount of what was never tried is what the router predicted, where it did: no outcome can tell. */
const fittedSums = (columns: Columns, row: number, q: OutcomeModel, predicted: Float64Array | null) => {
  const { offset, entryArm, entryCandidate, entryProduction } = columns
  let fittedCandidate = 0
  let fittedProduction = 0
  let fittedUnsupported = 0
  for (let at = offset[row] ?? 0; at < (offset[row + 1] ?? 0); at++) {
    const candidate = entryCandidate[at] ?? 0
    const production = entryProduction[at] ?? 0
    const known = production === 0 ? (predicted?.[at] ?? Number.NaN) : Number.NaN
    const fitted = Number.isNaN(known) ? q(row, entryArm[at] ?? 0) : known
    fittedCandidate += candidate * fitted
    fittedProduction += production * fitted
    if (production === 0) fittedUnsupported += candidate * fitted
  }
  return { fittedCandidate, fittedProduction, fittedUnsupported }
}

/** Whether the candidate makes an untried choice of which not even a prediction is known. */
const isUnpredicted = ({ entryCandidate, entryProduction, entryPredicted }: Columns, amount: Amount | null): boolean =>
  amount !== null &&
  entryPredicted[amount].some(
    (value, at) => entryProduction[at] === 0 && entryCandidate[at] !== 0 && Number.isNaN(value),
  )
