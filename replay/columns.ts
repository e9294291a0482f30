// Records re-decided under a candidate policy, as columns: everything the statistics need and nothing else. Rows are put
// in order of their cluster, so that whatever follows can work on one cluster at a time.
import { draw } from '../router/policy/chance.ts'
import type { Policy } from '../router/policy/policy.ts'
import { contextOf, type Decision, type DecisionRecord } from '../router/policy/record.ts'
import { type MetricName, metricNames, metrics } from './metrics.ts'
import { foldCount, type Segmentation } from './outcome-model.ts'

/** The arm of a decision that found nothing eligible; a model's name cannot be empty, so nothing else is called this. */
export const noneArm = ''
/** Segments beyond this many share one cell: a tag with a value of its own per request tells nothing about others. */
const segmentsMax = 1000
const octaveMax = 40
const sumTolerance = 1e-6

export type Columns = {
  readonly rowCount: number
  readonly clusterCount: number
  /** The record each row was made from. */
  readonly records: readonly DecisionRecord[]
  /** The session, or the row itself; ascending. */
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
  readonly segmentations: readonly Segmentation[]
  readonly outcomes: Readonly<Record<MetricName, Float64Array>>
  /** Records left out because an id came twice, and because their logged probabilities cannot be true. */
  readonly duplicates: number
  readonly impossible: readonly { readonly id: string; readonly problem: string }[]
}

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
const impossibility = ({ chosen, candidates }: DecisionRecord): string | null => {
  const sum = candidates.reduce((total, { probability }) => total + probability, 0)
  const wanted = chosen === null ? 0 : 1
  if (Math.abs(sum - wanted) > sumTolerance) return `the candidates' probabilities sum to ${sum}, not ${wanted}`
  if (new Set(candidates.map(({ model }) => model)).size < candidates.length) return 'a model is listed twice'
  const probability = candidates.find(({ model }) => model === chosen)?.probability ?? 0
  return chosen === null || probability > 0 ? null : `'${chosen}' was chosen with probability 0`
}

/** Drops repeated ids and impossible probabilities, and puts the rows of each session together. */
const arrange = (records: Iterable<DecisionRecord>) => {
  const seen = new Set<string>()
  const sessions = indexer()
  const impossible: { id: string; problem: string }[] = []
  const kept: { readonly record: DecisionRecord; readonly cluster: number }[] = []
  let duplicates = 0
  for (const record of records) {
    const problem = impossibility(record)
    if (seen.has(record.id)) duplicates++
    else if (problem) impossible.push({ id: record.id, problem })
    else
      kept.push({
        record,
        cluster: sessions.indexOf(record.session ? `session ${record.session}` : `row ${record.id}`),
      })
    seen.add(record.id)
  }
  kept.sort((a, b) => a.cluster - b.cluster)
  return { kept, impossible, duplicates, clusterCount: sessions.count() }
}

type Entry = { readonly model: string; readonly candidate: number; readonly production: number }

/** Every model that either policy may choose, with both probabilities; a decision for nothing is an arm of its own. */
const entriesOf = (record: DecisionRecord, decision: Decision): Entry[] => {
  const entries: Entry[] = []
  for (const [at, { model, probability: production }] of record.candidates.entries()) {
    const candidate = decision.candidates[at]?.probability ?? 0
    if (production > 0 || candidate > 0) entries.push({ model, candidate, production })
  }
  const [candidate, production] = [Number(decision.chosen === null), Number(record.chosen === null)]
  if (candidate || production) entries.push({ model: noneArm, candidate, production })
  return entries
}

/** Re-decides every record under `candidate`; pure, and in time linear in the candidates of the records. */
export const columnsOf = (records: Iterable<DecisionRecord>, candidate: Policy): Columns => {
  const { kept, impossible, duplicates, clusterCount } = arrange(records)
  const arms = indexer()
  const octave = new Int32Array(kept.length)
  const kinds = indexer(segmentsMax)
  const kind = new Int32Array(kept.length)
  const armRedecided = new Int32Array(kept.length)
  const costPredictedUsd = new Float64Array(kept.length)
  const offset = new Int32Array(kept.length + 1)
  const entryArm: number[] = []
  const entryCandidate: number[] = []
  const entryProduction: number[] = []
  kept.forEach(({ record }, row) => {
    const decision = candidate.decide(contextOf(record))
    for (const { model, candidate: target, production } of entriesOf(record, decision)) {
      entryArm.push(arms.indexOf(model))
      entryCandidate.push(target)
      entryProduction.push(production)
    }
    offset[row + 1] = entryArm.length
    armRedecided[row] = arms.indexOf(decision.chosen ?? noneArm)
    const predicted = record.candidates.find(({ model }) => model === decision.chosen)?.features.cost_usd
    costPredictedUsd[row] = typeof predicted === 'number' ? predicted : Number.NaN
    octave[row] = Math.min(octaveMax, Math.round(Math.log2(1 + record.request.input_tokens)))
    kind[row] = kinds.indexOf(JSON.stringify([record.request.tier, record.request.tags.category ?? '']))
  })
  const outcome = (name: MetricName) => Float64Array.from(kept, ({ record }) => metrics[name].read(record))
  return {
    rowCount: kept.length,
    clusterCount,
    records: kept.map(({ record }) => record),
    cluster: Int32Array.from(kept, ({ cluster }) => cluster),
    fold: Uint8Array.from(kept, ({ record }) => draw(record.session || record.id, 'replay', 'fold') * foldCount),
    keepWeight: Float64Array.from(kept, ({ record }) => 1 / record.keep_probability),
    armNames: arms.names(),
    arm: Int32Array.from(kept, ({ record }) => arms.indexOf(record.chosen ?? noneArm)),
    armRedecided,
    costPredictedUsd,
    offset,
    entryArm: Int32Array.from(entryArm),
    entryCandidate: Float64Array.from(entryCandidate),
    entryProduction: Float64Array.from(entryProduction),
    segmentations: segmentationsOf(octave, kind, kinds.count()),
    outcomes: Object.fromEntries(metricNames.map((name) => [name, outcome(name)])) as Record<MetricName, Float64Array>,
    duplicates,
    impossible,
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
