// The first look at a log, before any candidate: which models, policies, kinds of requests and clusters it has, what came
// twice, what cannot be true, and a table of outcomes by cell, from which the outcome model is fitted. It is one pass and
// keeps sums, so that it is as small for ten million decisions as for ten thousand.

import type { FeatureTypes } from '../../router/policy/cel.ts'
import { draw } from '../../router/policy/chance.ts'
import { startFeatureTypes } from '../../router/policy/policy.ts'
import type { DecisionRecord } from '../../router/policy/record.ts'
import { type Feedback, startFeedback } from '../estimate/feedback.ts'
import { type MetricName, metricNames, type Objective } from '../estimate/metrics.ts'
import { type Cell, type CellTable, foldCount, startCells } from '../estimate/outcome-cells.ts'
import { fitOutcome, type OutcomeFit } from '../estimate/outcome-model.ts'
import type { Judging } from '../estimate/prediction-powered.ts'
import { type Clusters, clusterOf, startClusters } from './clusters.ts'
import { hashSet } from './hash-set.ts'
import { readOutcomes, startOpinions } from './outcomes.ts'
import type { LoggedPolicy } from './verify.ts'

/** The arm of a decision that found nothing eligible; a model's name cannot be empty, so nothing else is called this. */
export const noneArm = ''
/** Kinds of requests beyond this many share one cell: a tag with a value of its own per request tells nothing about others. */
export const kindsMax = 1000
const kindsSeenMax = 20_000
export const octaveMax = 40
export const sumTolerance = 1e-6
/** Sums this close to 1 are what a logger makes that rounds to three or four decimals. */
const roundedTolerance = 2e-3
/** A row that was kept less often than this would stand for more requests than there are, and no sum could hold it. */
export const keptLeast = 1e-12
const impossibleNamedMax = 3

/** `rounded` when the sum is off by no more than rounding makes it. */
export type Impossible = { readonly id: string; readonly problem: string; readonly rounded: boolean }

/** A way to call requests alike for the outcome model: by tier and the tag `category`. */
export type Kind = { readonly tier: string; readonly category: string; readonly rows: number }

/** Plain data: a worker thread can be handed it. */
export type Survey = {
  /** Rows that can be used: neither repeated nor impossible. */
  readonly rows: number
  readonly duplicates: number
  readonly impossibleCount: number
  readonly impossible: readonly Impossible[]
  /** Milliseconds since 1970; infinite when there are no rows. */
  readonly fromMs: number
  readonly toMs: number
  /** The logged policies, most rows first. */
  readonly policies: readonly { readonly name: string; readonly hash: string; readonly rows: number }[]
  readonly armNames: readonly string[]
  /** By index; the first stands for all that are too many to tell apart. */
  readonly kinds: readonly Kind[]
  readonly clusters: Clusters
  /** How many models a request could have gone to, summed over rows. */
  readonly eligible: number
  readonly features: FeatureTypes
  readonly objective: Objective
  /** How a judge model's scores are used; null where there are none. */
  readonly judging: Judging | null
  /** How people's feedback came; null where nothing tells when. */
  readonly feedback: Feedback | null
  readonly cells: CellTable
  /** By metric, what is expected of each arm; null where no outcome is known. */
  readonly outcomeFits: readonly (OutcomeFit | null)[]
}

/** The survey with its outcomes modelled, once for all threads and candidates. */
export const modelled = (survey: Omit<Survey, 'outcomeFits'>): Survey => {
  const { armNames, kinds, cells } = survey
  const extent = { arms: armNames.length, octaves: octaveMax + 1, kinds: kinds.length }
  return { ...survey, outcomeFits: metricNames.map((_, metric) => fitOutcome(cells, metric, extent)) }
}

/** Why the logged probabilities cannot be those of the logged choice; null when they can. */
export const impossibility = ({
  id,
  chosen,
  candidates,
  keep_probability: kept,
}: DecisionRecord): Impossible | null => {
  const because = (problem: string, rounded = false): Impossible => ({ id, problem, rounded })
  if (kept < keptLeast)
    return because(`it was kept with probability ${kept}, and would stand for more than ${1 / keptLeast}`)
  let [sum, probability] = [0, 0]
  for (const candidate of candidates) {
    sum += candidate.probability
    if (candidate.model === chosen) probability = candidate.probability
  }
  const wanted = chosen === null ? 0 : 1
  if (!(Math.abs(sum - wanted) <= sumTolerance))
    return because(
      `the candidates' probabilities sum to ${sum}, not ${wanted}`,
      wanted === 1 && Math.abs(sum - wanted) <= roundedTolerance,
    )
  for (const [at, { model }] of candidates.entries())
    for (let before = 0; before < at; before++)
      if (candidates[before]?.model === model) return because('a model is listed twice')
  return chosen === null || probability > 0 ? null : because(`'${chosen}' was chosen with probability 0`)
}

export const kindKey = ({ request }: DecisionRecord): string =>
  `${request.tier.length}:${request.tier}${Object.hasOwn(request.tags, 'category') ? request.tags.category : ''}`
export const octaveOf = ({ request }: DecisionRecord): number =>
  Math.min(octaveMax, Math.round(Math.log2(1 + request.input_tokens)))
export const foldOf = (cluster: number): number => cluster % foldCount
/** A number below 2^53 by which a repeated id is known. */
export const idHash = ({ id }: DecisionRecord): number => draw(id, 'id', 'duplicate') * 2 ** 53

/** Gives each distinct key the next free index; beyond `max`, 0. */
const indexer = (max: number, first: readonly string[] = []) => {
  const indexes = new Map(first.map((key, at) => [key, at]))
  const indexOf = (key: string): number => {
    const known = indexes.get(key)
    if (known !== undefined) return known
    if (indexes.size >= max) return 0
    indexes.set(key, indexes.size)
    return indexes.size - 1
  }
  return { indexOf, names: () => [...indexes.keys()] }
}

const otherKinds = '\u0000'

/** Who decided, when, over which models: counted record by record. */
const startCounts = (arms: ReturnType<typeof indexer>) => {
  const decided = new Map<string, { name: string; hash: string; rows: number }>()
  let [eligible, fromMs, toMs] = [0, Infinity, -Infinity]
  return {
    add: ({ time, policy, candidates }: DecisionRecord): void => {
      const timeMs = Date.parse(time)
      fromMs = Math.min(fromMs, timeMs)
      toMs = Math.max(toMs, timeMs)
      const key = `${policy.name}\u0000${policy.hash}`
      const counted = decided.get(key)
      if (counted) counted.rows++
      else decided.set(key, { ...policy, rows: 1 })
      for (const candidate of candidates) {
        arms.indexOf(candidate.model)
        if (candidate.eligible) eligible++
      }
    },
    close: () => ({
      eligible,
      fromMs,
      toMs,
      policies: [...decided.values()].sort((a, b) => b.rows - a.rows || (a.hash < b.hash ? -1 : 1)),
    }),
  }
}

/** Numbers the kinds of requests as they come, and in the end by how many there are of each. */
const startKinds = () => {
  const indexes = indexer(kindsSeenMax, [otherKinds])
  const found: Kind[] = [{ tier: '', category: '', rows: 0 }]
  return {
    add: (record: DecisionRecord): number => {
      const kind = indexes.indexOf(kindKey(record))
      const { tier, tags } = record.request
      found[kind] = { tier, category: tags.category ?? '', rows: (found[kind]?.rows ?? 0) + 1 }
      return kind
    },
    close: (rows: number) => {
      const kept = found
        .map((kind, at) => ({ ...kind, at }))
        .slice(1)
        .sort(byRows)
        .slice(0, kindsMax - 1)
      const renumbered = new Map(kept.map(({ at }, index) => [at, index + 1]))
      const others = rows - kept.reduce((sum, kind) => sum + kind.rows, 0)
      return {
        kinds: [{ tier: '', category: '', rows: others }, ...kept.map(({ at, ...kind }) => kind)],
        kindOf: (kind: number) => renumbered.get(kind) ?? 0,
      }
    },
  }
}

export const byRows = (a: Kind, b: Kind): number =>
  b.rows - a.rows || (a.tier + a.category < b.tier + b.category ? -1 : 1)

/** Surveys a log, record by record. `policies` are those that decided, as far as their texts are known. */
export const startSurvey = (policies: Iterable<LoggedPolicy>, objective: Objective) => {
  const arms = indexer(Infinity, [noneArm])
  const [kinds, counts] = [startKinds(), startCounts(arms)]
  const [clusters, features, ids] = [startClusters(policies), startFeatureTypes(), hashSet()]
  const { horizon = null } = objective
  const [cells, opinions, feedback] = [startCells(metricNames.length), startOpinions(horizon), startFeedback(horizon)]
  const outcomes = new Float64Array(metricNames.length)
  const impossible: Impossible[] = []
  let [rows, duplicates, impossibleCount] = [0, 0, 0]
  const add = (record: DecisionRecord): void => {
    features.add(record.candidates)
    if (!ids.add(idHash(record))) {
      duplicates++
      return
    }
    const problem = impossibility(record)
    if (problem) {
      impossibleCount++
      if (impossible.length < impossibleNamedMax) impossible.push(problem)
      return
    }
    rows++
    counts.add(record)
    const fold = foldOf(clusters.add(record))
    const cell = {
      fold,
      arm: arms.indexOf(record.chosen ?? noneArm),
      octave: octaveOf(record),
      kind: kinds.add(record),
    }
    opinions.add(record, cell.arm)
    feedback.add(record)
    readOutcomes({ objective, judging: null }, record, cell.arm, outcomes)
    cells.add(cell, 1 / record.keep_probability, outcomes)
  }
  const close = (): Survey => {
    const { kindOf, kinds: found } = kinds.close(rows)
    const armNames = arms.names().sort()
    const places = new Map(armNames.map((name, at) => [name, at]))
    const armOf = arms.names().map((name) => places.get(name) ?? 0)
    return modelled({
      rows,
      duplicates,
      impossibleCount,
      impossible,
      ...counts.close(),
      armNames,
      kinds: found,
      clusters: clusters.close(),
      features: features.close(),
      objective,
      judging: opinions.close(armNames.length, armOf, objective),
      feedback: feedback.close(),
      cells: cells.close((cell) => ({ ...cell, arm: armOf[cell.arm] ?? 0, kind: kindOf(cell.kind) })),
    })
  }
  return { add, close }
}

/**
 * Whether the table of outcomes is what it would be had all been known from the start: not where a cluster is linked through
 * several keys, whose fold is known only at the end, and not where a judge is corrected by what people say.
 */
export const isToldRight = ({ clusters, judging }: Survey): boolean => clusters.rootOf.size === 0 && judging === null

/** Makes the table once more. */
export const startRetelling = (survey: Survey) => {
  const cells = startCells(metricNames.length)
  const isNew = deduplication(survey)
  const look = lookup(survey)
  const outcomes = new Float64Array(metricNames.length)
  return {
    add: (record: DecisionRecord): void => {
      if (!isNew(record) || impossibility(record)) return
      const cell = look(record)
      readOutcomes(survey, record, cell.arm, outcomes)
      cells.add(cell, 1 / record.keep_probability, outcomes)
    },
    close: (): Survey => modelled({ ...survey, cells: cells.close() }),
  }
}

/** Tells a record from one whose id came before; without work where the survey found none such. */
export const deduplication = ({ duplicates }: Pick<Survey, 'duplicates'>): ((record: DecisionRecord) => boolean) => {
  if (duplicates === 0) return () => true
  const ids = hashSet()
  return (record) => ids.add(idHash(record))
}

/** Finds a record's place among what a survey found. */
export const lookup = ({
  armNames,
  kinds,
  clusters,
}: Survey): ((record: DecisionRecord) => Cell & { readonly cluster: number }) => {
  const armOf = new Map(armNames.map((name, at) => [name, at]))
  const kindOf = new Map<string, number>(
    kinds.map(({ tier, category }, at) => [`${tier.length}:${tier}${category}`, at] as const).slice(1),
  )
  return (record) => {
    const cluster = clusterOf(clusters, record)
    return {
      cluster,
      fold: foldOf(cluster),
      arm: armOf.get(record.chosen ?? noneArm) ?? 0,
      octave: octaveOf(record),
      kind: kindOf.get(kindKey(record)) ?? 0,
    }
  }
}

/** The name of a kind, as people write it. */
export const kindName = ({ tier, category }: Kind): string =>
  [tier && `tier=${tier}`, category && `category=${category}`].filter(Boolean).join(' ')

/** Whether the log holds an outcome of this metric at all. */
export const isMeasured = ({ cells }: Survey, metric: MetricName): boolean =>
  (cells.known[metricNames.indexOf(metric)] ?? 0) > 0
