// Records re-decided under a candidate policy, as columns: everything the statistics need and nothing else. Rows are put
// in order of their cluster, so that whatever follows can work on one cluster at a time.
import { draw } from '../../router/policy/chance.ts'
import type { Policy } from '../../router/policy/policy.ts'
import { contextOf, type Decision, type DecisionRecord, type FeatureValue } from '../../router/policy/record.ts'
import { type MetricName, metricNames, metrics } from '../estimate/metrics.ts'
import { foldCount, type Segmentation } from '../estimate/outcome-model.ts'
import { type ClusterKey, clusterKeysOf, clustersOf } from './clusters.ts'
import type { LoggedPolicy } from './verify.ts'

/** The arm of a decision that found nothing eligible; a model's name cannot be empty, so nothing else is called this. */
export const noneArm = ''
/** Segments beyond this many share one cell: a tag with a value of its own per request tells nothing about others. */
const segmentsMax = 1000
const octaveMax = 40
const sumTolerance = 1e-6
/** Sums this close to 1 are what a logger makes that rounds to three or four decimals. */
const roundedTolerance = 2e-3

export type Columns = {
  readonly rowCount: number
  readonly clusterCount: number
  /** The record each row was made from. */
  readonly records: readonly DecisionRecord[]
  /** By what rows belong together. */
  readonly clusterKeys: readonly ClusterKey[]
  /** What one draw may have decided together; ascending. */
  readonly cluster: Int32Array
  readonly fold: Uint8Array
  /** 1/ρ. */
  readonly keepWeight: Float64Array
  readonly armNames: readonly string[]
  /** The logged choice. */
  readonly arm: Int32Array
  /** What the candidate policy chooses with its own draws. */
  readonly armRedecided: Int32Array
  /** What the candidate's choice was predicted to cost, US dollars; NaN where unknown. */
  readonly costPredictedUsd: Float64Array
  /** Row i's probabilities are entries offset[i] … offset[i+1] of the three columns below. */
  readonly offset: Int32Array
  readonly entryArm: Int32Array
  readonly entryCandidate: Float64Array
  readonly entryProduction: Float64Array
  /** What the router predicted for the entry's model; NaN where it did not. */
  readonly entryPredicted: Readonly<Record<Amount, Float64Array>>
  readonly segmentations: readonly Segmentation[]
  readonly outcomes: Readonly<Record<MetricName, Float64Array>>
  /** Records left out because an id came twice, and because their logged probabilities cannot be true. */
  readonly duplicates: number
  readonly impossible: readonly Impossible[]
}

/** `rounded` when the sum is off by no more than rounding makes it. */
export type Impossible = { readonly id: string; readonly problem: string; readonly rounded: boolean }

/** Metrics without a natural range, which the router predicts for every candidate. */
export type Amount = 'cost_usd' | 'latency_ms'

/** Gives each distinct key the next free index. */
const indexer = (max = Infinity) => {
  const indexes = new Map<string, number>()
  const indexOf = (key: string): number => {
    const known = indexes.get(key)
    if (known !== undefined) return known
    if (indexes.size >= max) return 0
    indexes.set(key, indexes.size)
    return indexes.size - 1
  }
  return { indexOf, names: () => [...indexes.keys()], count: () => indexes.size }
}

/** Why the logged probabilities cannot be those of the logged choice; null when they can. */
const impossibility = ({ id, chosen, candidates }: DecisionRecord): Impossible | null => {
  const because = (problem: string, rounded = false): Impossible => ({ id, problem, rounded })
  const sum = candidates.reduce((total, { probability }) => total + probability, 0)
  const wanted = chosen === null ? 0 : 1
  if (!(Math.abs(sum - wanted) <= sumTolerance))
    return because(
      `the candidates' probabilities sum to ${sum}, not ${wanted}`,
      wanted === 1 && Math.abs(sum - wanted) <= roundedTolerance,
    )
  if (new Set(candidates.map(({ model }) => model)).size < candidates.length) return because('a model is listed twice')
  const probability = candidates.find(({ model }) => model === chosen)?.probability ?? 0
  return chosen === null || probability > 0 ? null : because(`'${chosen}' was chosen with probability 0`)
}

/** Drops repeated ids and impossible probabilities, and puts the rows of each cluster together. */
const arrange = (records: Iterable<DecisionRecord>, policies: Iterable<LoggedPolicy>) => {
  const seen = new Set<string>()
  const impossible: Impossible[] = []
  const possible: DecisionRecord[] = []
  let duplicates = 0
  for (const record of records) {
    const problem = impossibility(record)
    if (seen.has(record.id)) duplicates++
    else if (problem) impossible.push(problem)
    else possible.push(record)
    seen.add(record.id)
  }
  const keys = clusterKeysOf(possible, policies)
  const { cluster, names, count } = clustersOf(possible, keys)
  const kept = possible.map((record, row) => ({ record, cluster: cluster[row] ?? 0 }))
  kept.sort((a, b) => a.cluster - b.cluster)
  return { kept, impossible, duplicates, keys, names, clusterCount: count }
}

type Entry = {
  readonly model: string
  readonly candidate: number
  readonly production: number
  readonly predicted: Readonly<Record<Amount, number>>
}

const numberOf = (value: FeatureValue | undefined): number => (typeof value === 'number' ? value : Number.NaN)
/** To serve nothing costs nothing; how long that takes is not predicted. */
const predictedNone = { cost_usd: 0, latency_ms: Number.NaN }

/** Every model that either policy may choose, with both probabilities; a decision for nothing is an arm of its own. */
const entriesOf = (record: DecisionRecord, decision: Decision): Entry[] => {
  const entries: Entry[] = []
  for (const [at, { model, probability: production, features }] of record.candidates.entries()) {
    const candidate = decision.candidates[at]?.probability ?? 0
    if (production > 0 || candidate > 0)
      entries.push({
        model,
        candidate,
        production,
        predicted: { cost_usd: numberOf(features.cost_usd), latency_ms: numberOf(features.latency_ms) },
      })
  }
  const [candidate, production] = [Number(decision.chosen === null), Number(record.chosen === null)]
  if (candidate || production) entries.push({ model: noneArm, candidate, production, predicted: predictedNone })
  return entries
}

/**
 * Re-decides every record under `candidate`; `policies` are those that were logged, as far as their texts are known. Pure,
 * and in time linear in the candidates of the records.
 */
export const columnsOf = (
  records: Iterable<DecisionRecord>,
  candidate: Policy,
  policies: Iterable<LoggedPolicy> = [],
): Columns => {
  const { kept, impossible, duplicates, keys, names, clusterCount } = arrange(records, policies)
  const arms = indexer()
  const kinds = indexer(segmentsMax)
  const kind = new Int32Array(kept.length)
  const outcome = (name: MetricName) => Float64Array.from(kept, ({ record }) => metrics[name].read(record))
  const redecided = redecide(kept, candidate, arms)
  kept.forEach(({ record }, row) => {
    kind[row] = kinds.indexOf(JSON.stringify([record.request.tier, record.request.tags.category ?? '']))
  })
  const octave = Int32Array.from(kept, ({ record }) =>
    Math.min(octaveMax, Math.round(Math.log2(1 + record.request.input_tokens))),
  )
  const foldOf = (name: string) => draw(name, 'replay', 'fold') * foldCount
  return {
    ...redecided,
    rowCount: kept.length,
    clusterCount,
    clusterKeys: keys,
    records: kept.map(({ record }) => record),
    cluster: Int32Array.from(kept, ({ cluster }) => cluster),
    fold: Uint8Array.from(kept, ({ cluster }) => foldOf(names[cluster] ?? '')),
    keepWeight: Float64Array.from(kept, ({ record }) => 1 / record.keep_probability),
    arm: Int32Array.from(kept, ({ record }) => arms.indexOf(record.chosen ?? noneArm)),
    armNames: arms.names(),
    segmentations: segmentationsOf(octave, kind, kinds.count()),
    outcomes: Object.fromEntries(metricNames.map((name) => [name, outcome(name)])) as Record<MetricName, Float64Array>,
    duplicates,
    impossible,
  }
}

/** The columns that come of deciding again. */
const redecide = (
  kept: readonly { readonly record: DecisionRecord }[],
  candidate: Policy,
  arms: ReturnType<typeof indexer>,
) => {
  const armRedecided = new Int32Array(kept.length)
  const costPredictedUsd = new Float64Array(kept.length)
  const offset = new Int32Array(kept.length + 1)
  const entryArm: number[] = []
  const entries: Entry[] = []
  kept.forEach(({ record }, row) => {
    const decision = candidate.decide(contextOf(record))
    for (const entry of entriesOf(record, decision)) {
      entryArm.push(arms.indexOf(entry.model))
      entries.push(entry)
    }
    offset[row + 1] = entryArm.length
    armRedecided[row] = arms.indexOf(decision.chosen ?? noneArm)
    costPredictedUsd[row] = numberOf(
      record.candidates.find(({ model }) => model === decision.chosen)?.features.cost_usd,
    )
  })
  return {
    armRedecided,
    costPredictedUsd,
    offset,
    entryArm: Int32Array.from(entryArm),
    entryCandidate: Float64Array.from(entries, (entry) => entry.candidate),
    entryProduction: Float64Array.from(entries, (entry) => entry.production),
    entryPredicted: {
      cost_usd: Float64Array.from(entries, ({ predicted }) => predicted.cost_usd),
      latency_ms: Float64Array.from(entries, ({ predicted }) => predicted.latency_ms),
    },
  }
}

/**
 * How requests are told apart by the outcome model: by input length in octaves, which drives cost and latency, and by tier
 * and the tag `category`, which drive quality. Other tags are left alone: they may be as many as the requests.
 */
const segmentationsOf = (octave: Int32Array, kind: Int32Array, kindCount: number): Segmentation[] => [
  { segment: octave, count: octaveMax + 1 },
  { segment: kind, count: Math.max(1, kindCount) },
]
