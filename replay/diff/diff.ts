// What a candidate policy would do otherwise, decision by decision: who loses traffic to whom and in which segments, which
// requests change most by predicted cost, what sets changed requests apart, and a few to read. These are facts of the log,
// not estimates. A fold over records, in little memory, that merges, so that work can be split among threads.
import { draw } from '../../router/policy/chance.ts'
import type { Policy } from '../../router/policy/policy.ts'
import { contextOf, type Decision, type DecisionRecord } from '../../router/policy/record.ts'
import { addContrasts, addFeatures, type Contrasts, type FeatureShift, shiftsOf } from './shifts.ts'

/** Segments beyond this many are counted as one. */
const segmentsMax = 20_000
const costChangesMax = 10
const requestKeys = ['model', 'tier', 'tenant', 'user'] as const

export const otherSegments = '(other segments)'

export type DiffOptions = {
  /** The name of a request's segment. */
  readonly segmentBy: (record: DecisionRecord) => string
  /** How many changed decisions to keep as they are. */
  readonly sampleSize: number
}

/** Decisions that went to `from` and would go to `to`; '' where nothing is chosen. */
export type Move = { readonly from: string; readonly to: string; readonly count: number }

export type SegmentDiff = {
  readonly name: string
  readonly records: number
  readonly changed: number
  /** Most decisions first. */
  readonly moves: readonly Move[]
}

/** One changed decision and what it was predicted to cost more, in US dollars. */
export type CostChange = {
  readonly id: string
  readonly segment: string
  readonly from: string
  readonly to: string
  readonly differenceUsd: number
}

export type ChangedDecision = { readonly record: DecisionRecord; readonly decision: Decision }

export type Diff = {
  readonly records: number
  /** Decisions that come out otherwise, by the candidate's own draws. */
  readonly changed: number
  /** The part of all choices that differs on average over draws: the mean total variation between both probabilities. */
  readonly differingShare: number
  readonly moves: readonly Move[]
  /** Most changed decisions first. */
  readonly segments: readonly SegmentDiff[]
  /** Over the changed decisions whose cost is predicted on both sides. */
  readonly predictedCost: { readonly decisions: number; readonly differenceUsd: number }
  /** By the size of the difference. */
  readonly costChanges: readonly CostChange[]
  readonly featureShifts: readonly FeatureShift[]
  /** Drawn by a hash of their ids: the same whatever the order. */
  readonly sample: readonly ChangedDecision[]
}

type Segment = { records: number; changed: number; readonly moves: Map<string, Move> }

type Drawn = ChangedDecision & { readonly lot: number }

/** What is found so far; plain data, so that a worker thread can hand it back. */
export type DiffFold = {
  readonly sampleSize: number
  records: number
  variation: number
  predictedDecisions: number
  differenceUsd: number
  readonly segments: Map<string, Segment>
  readonly contrasts: Contrasts
  /** The first by size of difference, and the first by lot. */
  costChanges: readonly CostChange[]
  sample: readonly Drawn[]
}

export const startDiff = ({ sampleSize }: Pick<DiffOptions, 'sampleSize'>): DiffFold => ({
  sampleSize,
  records: 0,
  variation: 0,
  predictedDecisions: 0,
  differenceUsd: 0,
  segments: new Map(),
  contrasts: new Map(),
  costChanges: [],
  sample: [],
})

/** Adds one record and what the candidate decides in its place. */
export const diffRecord = (fold: DiffFold, record: DecisionRecord, decision: Decision, segment: string): void => {
  const [from, to] = [record.chosen ?? '', decision.chosen ?? '']
  const isChanged = from !== to
  fold.records++
  fold.variation += variationOf(record, decision)
  addSegment(fold, segment, {
    records: 1,
    changed: Number(isChanged),
    moves: new Map([[`${from}\n${to}`, { from, to, count: 1 }]]),
  })
  addFeatures(fold.contrasts, record, isChanged)
  if (!isChanged) return
  const [before, after] = [predictedUsd(record, from), predictedUsd(record, to)]
  if (before !== null && after !== null) {
    fold.predictedDecisions++
    fold.differenceUsd += after - before
    const change = { id: record.id, segment, from, to, differenceUsd: after - before }
    fold.costChanges = withItem(fold.costChanges, change, byCost, costChangesMax)
  }
  const drawn = { record, decision, lot: draw(record.id, 'replay', 'diff') }
  fold.sample = withItem(fold.sample, drawn, byLot, fold.sampleSize)
}

/** What two folds found, together: the same as one fold over the records of both. */
export const mergeDiffs = (a: DiffFold, b: DiffFold): DiffFold => {
  const merged: DiffFold = {
    ...startDiff(a),
    records: a.records + b.records,
    variation: a.variation + b.variation,
    predictedDecisions: a.predictedDecisions + b.predictedDecisions,
    differenceUsd: a.differenceUsd + b.differenceUsd,
    costChanges: b.costChanges.reduce((list, item) => withItem(list, item, byCost, costChangesMax), a.costChanges),
    sample: b.sample.reduce((list, item) => withItem(list, item, byLot, a.sampleSize), a.sample),
  }
  for (const fold of [a, b]) {
    for (const [name, segment] of fold.segments) addSegment(merged, name, segment)
    addContrasts(merged.contrasts, fold.contrasts)
  }
  return merged
}

export const closeDiff = (fold: DiffFold): Diff => {
  const all = new Map<string, Move>()
  for (const { moves } of fold.segments.values()) addMoves(all, moves)
  const segments = Array.from(fold.segments, ([name, { moves, ...counts }]) => ({
    name,
    ...counts,
    moves: sorted(moves),
  }))
  const moves = sorted(all)
  return {
    records: fold.records,
    changed: moves.reduce((sum, { from, to, count }) => sum + (from === to ? 0 : count), 0),
    differingShare: fold.records > 0 ? fold.variation / fold.records : 0,
    moves,
    segments: segments.sort((a, b) => b.changed - a.changed || b.records - a.records || byText(a.name, b.name)),
    predictedCost: { decisions: fold.predictedDecisions, differenceUsd: fold.differenceUsd },
    costChanges: fold.costChanges,
    featureShifts: shiftsOf(fold.contrasts),
    sample: fold.sample.map(({ record, decision }) => ({ record, decision })),
  }
}

/** Decides every record again under `candidate`, and tells what comes out otherwise. */
export const diffRecords = (records: Iterable<DecisionRecord>, candidate: Policy, options: DiffOptions): Diff => {
  const fold = startDiff(options)
  for (const record of records) diffRecord(fold, record, candidate.decide(contextOf(record)), options.segmentBy(record))
  return closeDiff(fold)
}

/** Names a request's segment by fields of the request and by tags: `tier=free category=math`. */
export const segmentsBy =
  (keys: readonly string[]) =>
  ({ request }: DecisionRecord): string =>
    keys
      .map((key) => {
        const field = requestKeys.find((name) => name === key)
        const tag = Object.hasOwn(request.tags, key) ? request.tags[key] : ''
        const value = field ? request[field] : tag
        return value ? `${key}=${value}` : ''
      })
      .filter((part) => part !== '')
      .join(' ')

/** The total variation between both distributions, ½ Σ|π_e − π_b|: the least share of draws that must come out otherwise. */
const variationOf = (record: DecisionRecord, decision: Decision): number => {
  let sum = Math.abs(Number(record.chosen === null) - Number(decision.chosen === null))
  for (const [at, { probability }] of record.candidates.entries())
    sum += Math.abs(probability - (decision.candidates[at]?.probability ?? 0))
  return sum / 2
}

const predictedUsd = ({ candidates }: DecisionRecord, model: string): number | null => {
  const usd = candidates.find((candidate) => candidate.model === model)?.features.cost_usd
  return typeof usd === 'number' ? usd : null
}

const addMoves = (to: Map<string, Move>, moves: ReadonlyMap<string, Move>): void => {
  for (const [key, move] of moves) to.set(key, { ...move, count: move.count + (to.get(key)?.count ?? 0) })
}

const addSegment = ({ segments }: DiffFold, name: string, added: Segment): void => {
  const known = segments.has(name) || segments.size < segmentsMax ? name : otherSegments
  const segment = segments.get(known) ?? { records: 0, changed: 0, moves: new Map() }
  segment.records += added.records
  segment.changed += added.changed
  addMoves(segment.moves, added.moves)
  segments.set(known, segment)
}

const byText = (a: string, b: string): number => (a < b ? -1 : Number(a > b))
const byCost = (a: CostChange, b: CostChange): number =>
  Math.abs(b.differenceUsd) - Math.abs(a.differenceUsd) || byText(a.id, b.id)
const byLot = (a: Drawn, b: Drawn): number => a.lot - b.lot || byText(a.record.id, b.record.id)

/** A sorted list of at most `max`, with one more item where it belongs; the list itself where the item comes too late. */
const withItem = <T>(list: readonly T[], item: T, compare: (a: T, b: T) => number, max: number): readonly T[] => {
  const last = list[max - 1]
  if (max === 0 || (last !== undefined && compare(item, last) >= 0)) return list
  return [...list, item].sort(compare).slice(0, max)
}

const sorted = (moves: ReadonlyMap<string, Move>): Move[] =>
  [...moves.values()].sort((a, b) => b.count - a.count || byText(a.from, b.from) || byText(a.to, b.to))
