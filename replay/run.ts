// A replay from end to end, as one pure function: records and a candidate policy in; verification, estimates, diagnostics
// and the verdict out, as data. Reading, printing and exit codes are elsewhere.
import { draw } from '../router/policy/chance.ts'
import { featureTypesOf, type Policy } from '../router/policy/policy.ts'
import { contextOf, type Decision, type DecisionRecord, engineVersion } from '../router/policy/record.ts'
import { type Diagnostics, diagnose } from './estimate/diagnostics.ts'
import { evaluate, type MetricResult } from './estimate/evaluate.ts'
import { metricNames } from './estimate/metrics.ts'
import type { Goal } from './judge/gate.ts'
import { judge, type Verdict } from './judge/verdict.ts'
import type { ClusterKey } from './redecide/clusters.ts'
import { type Columns, columnsOf } from './redecide/columns.ts'
import { type LoggedPolicy, shelve, type Verification, verify } from './redecide/verify.ts'

const sampleSize = 12
const movesMax = 12
const dayMs = 86_400_000

export type ReplayOptions = {
  readonly goal: Goal
  /** How much worse a guardrail may get: quality in its own unit, failures as a share. */
  readonly margin: number
  readonly trustPropensities: boolean
  /** Takes requests without an outcome to be like those with one, instead of allowing for whatever they might have been. */
  readonly missingAtRandom: boolean
}

export const replayDefaults: ReplayOptions = {
  goal: 'cost_usd',
  margin: 0.02,
  trustPropensities: false,
  missingAtRandom: false,
}

/** Where the answer to "what would the candidate have done here?" comes from, as shares of the rows. */
export type Shares = {
  /** It chooses as production did: the outcome is the logged one. */
  readonly observed: number
  /** It chooses otherwise: from rows where production happened to choose so. */
  readonly estimated: number
  /** It chooses what production never would: nothing is known. */
  readonly unsupported: number
}

export type Move = { readonly from: string; readonly to: string; readonly count: number }
export type ChangedDecision = { readonly record: DecisionRecord; readonly decision: Decision }

export type Replay = {
  readonly v: 1
  readonly engine: string
  readonly candidate: { readonly name: string; readonly hash: string }
  /** The logged policies, most rows first. */
  readonly production: readonly { readonly name: string; readonly hash: string; readonly rows: number }[]
  readonly options: ReplayOptions
  readonly window: { readonly from: string; readonly to: string; readonly rowsPerDay: number | null } | null
  readonly rows: number
  /** Groups of rows that one draw may have decided together, and by what they are told. */
  readonly clusters: number
  readonly clusterKeys: readonly ClusterKey[]
  readonly duplicates: number
  readonly verification: Verification
  readonly shares: Shares
  readonly moves: readonly Move[]
  readonly diagnostics: Diagnostics
  readonly metrics: readonly MetricResult[]
  readonly verdict: Verdict
  /** A few decisions that change, drawn by a hash of their ids. */
  readonly sample: readonly ChangedDecision[]
}

/** Replays `records` under `candidate`. `policies` are the logged policies' sources, for verification. */
export const replay = (
  records: readonly DecisionRecord[],
  policies: Iterable<LoggedPolicy>,
  candidate: Policy,
  options: ReplayOptions,
): Replay => {
  const logged = [...policies]
  const verification = verify(records, shelve(logged, featureTypesOf(records)))
  const columns = columnsOf(records, candidate, logged)
  const diagnostics = diagnose(columns, columns.keepWeight)
  const metrics = metricNames.map((metric) => evaluate(columns, metric, diagnostics, options.missingAtRandom))
  const shares = sharesOf(columns)
  const window = windowOf(columns.records)
  const verdict = judge({
    goal: options.goal,
    margin: options.margin,
    trustPropensities: options.trustPropensities,
    missingAtRandom: options.missingAtRandom,
    rows: columns.rowCount,
    rowsPerDay: window?.rowsPerDay ?? null,
    verification,
    impossible: columns.impossible,
    diagnostics,
    metrics,
    churn: 1 - shares.observed,
    changedChoices: columns.arm.filter((arm, row) => arm !== columns.armRedecided[row]).length,
    changedCostUsd: changedCost(columns),
    eligibleMean: eligibleMean(columns.records),
  })
  return {
    v: 1,
    engine: engineVersion,
    candidate: { name: candidate.name, hash: candidate.hash },
    production: productionOf(columns.records),
    options,
    window,
    rows: columns.rowCount,
    clusters: columns.clusterCount,
    clusterKeys: columns.clusterKeys,
    duplicates: columns.duplicates,
    verification,
    shares,
    moves: movesOf(columns),
    diagnostics,
    metrics,
    verdict,
    sample: sampleOf(columns, candidate),
  }
}

const productionOf = (records: readonly DecisionRecord[]): Replay['production'] => {
  const counts = new Map<string, { name: string; hash: string; rows: number }>()
  for (const { policy } of records) {
    const key = JSON.stringify([policy.name, policy.hash])
    const entry = counts.get(key) ?? { ...policy, rows: 0 }
    entry.rows++
    counts.set(key, entry)
  }
  return [...counts.values()].sort((a, b) => b.rows - a.rows)
}

const windowOf = (records: readonly DecisionRecord[]): Replay['window'] => {
  let [from, to] = [Infinity, -Infinity]
  for (const record of records) {
    const time = Date.parse(record.time)
    from = Math.min(from, time)
    to = Math.max(to, time)
  }
  if (from > to) return null
  const days = (to - from) / dayMs
  return {
    from: new Date(from).toISOString(),
    to: new Date(to).toISOString(),
    rowsPerDay: days > 0 ? records.length / days : null,
  }
}

const sharesOf = (columns: Columns): Shares => {
  let [observed, unsupported, total] = [0, 0, 0]
  for (let row = 0; row < columns.rowCount; row++) {
    const keep = columns.keepWeight[row] ?? 0
    total += keep
    if (columns.arm[row] === columns.armRedecided[row]) observed += keep
    else if (!isTried(columns, row)) unsupported += keep
  }
  if (total === 0) return { observed: 0, estimated: 0, unsupported: 0 }
  return {
    observed: observed / total,
    estimated: (total - observed - unsupported) / total,
    unsupported: unsupported / total,
  }
}

/** Whether production could have chosen what the candidate chooses. */
const isTried = ({ offset, entryArm, entryProduction, armRedecided }: Columns, row: number): boolean => {
  for (let at = offset[row] ?? 0; at < (offset[row + 1] ?? 0); at++)
    if (entryArm[at] === armRedecided[row]) return (entryProduction[at] ?? 0) > 0
  return false
}

const movesOf = ({ arm, armRedecided, armNames, rowCount }: Columns): Move[] => {
  const counts = new Map<number, number>()
  for (let row = 0; row < rowCount; row++) {
    const [from, to] = [arm[row] ?? 0, armRedecided[row] ?? 0]
    if (from !== to) counts.set(from * armNames.length + to, (counts.get(from * armNames.length + to) ?? 0) + 1)
  }
  const name = (index: number) => armNames[index] ?? ''
  return [...counts]
    .map(([key, count]) => ({ from: name(Math.floor(key / armNames.length)), to: name(key % armNames.length), count }))
    .sort((a, b) => b.count - a.count)
    .slice(0, movesMax)
}

const eligibleMean = (records: readonly DecisionRecord[]): number => {
  const eligible = records.reduce((sum, { candidates }) => sum + candidates.filter((c) => c.eligible).length, 0)
  return Math.max(1, eligible / Math.max(1, records.length))
}

/** The mean predicted cost of the choices that change; null when none is known. */
const changedCost = ({ arm, armRedecided, costPredictedUsd }: Columns): number | null => {
  const known = costPredictedUsd.filter((usd, row) => arm[row] !== armRedecided[row] && !Number.isNaN(usd))
  return known.length > 0 ? known.reduce((sum, usd) => sum + usd, 0) / known.length : null
}

const sampleOf = ({ arm, armRedecided, records }: Columns, candidate: Policy): ChangedDecision[] =>
  records
    .flatMap((record, row) =>
      arm[row] === armRedecided[row] ? [] : [{ record, lot: draw(record.id, 'replay', 'sample') }],
    )
    .sort((a, b) => a.lot - b.lot)
    .slice(0, sampleSize)
    .map(({ record }) => ({ record, decision: candidate.decide(contextOf(record)) }))
