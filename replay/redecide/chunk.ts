// A piece of the log as columns: everything that candidates share, and what each candidate decides. A record is read, decided
// again and forgotten, so that it dies young; the columns are then gone through in the order of their groups, whose sums are many.
import type { Judged } from '../../router/policy/decide.ts'
import type { DecisionRecord, FeatureValue } from '../../router/policy/record.ts'
import { isCutShort, type MetricName, metricCount, metricNames, metrics } from '../estimate/metrics.ts'
import { cellsOf } from '../estimate/outcome-cells.ts'
import { type OutcomeFit, type OutcomeModel, predictorOf } from '../estimate/outcome-model.ts'
import { groupOfCluster } from './clusters.ts'
import { readOutcomes } from './outcomes.ts'
import { lookup, noneArm, type Survey } from './survey.ts'

/** What a survey says about outcomes, ready for use. */
export type Fit = {
  readonly survey: Survey
  /** By metric; null where no outcome is known. */
  readonly models: readonly (OutcomeModel | null)[]
  /** All over known outcomes of a model's rows, at metric × arms + arm: a model whose users rarely answer keeps its weight. */
  readonly keepRatio: Float64Array
  /** The metrics with an outcome, and what the router predicts of each. */
  readonly measured: readonly number[]
  readonly predictedBy: readonly (string | null)[]
  readonly armOf: ReadonlyMap<string, number>
  readonly look: ReturnType<typeof lookup>
  /** By metric: whether some rows have no outcome. */
  readonly isPartial: readonly boolean[]
  readonly middleMs: number
}

export const fitOf = (survey: Survey): Fit => {
  const { cells, armNames, rows } = survey
  const keepRatio = new Float64Array(metricCount * armNames.length)
  const all = new Float64Array(armNames.length)
  for (let cell = 0; cell < cells.count; cell++) {
    const arm = cells.arm[cell] as number
    all[arm] = (all[arm] as number) + (cells.keep[cell] as number)
  }
  for (let metric = 0; metric < metricCount; metric++) {
    const known = new Float64Array(armNames.length)
    const { weight } = cellsOf(cells, metric)
    for (let cell = 0; cell < cells.count; cell++) {
      const arm = cells.arm[cell] as number
      known[arm] = (known[arm] as number) + weight(cell)
    }
    for (const [arm, seen] of known.entries())
      keepRatio[metric * armNames.length + arm] = seen > 0 ? (all[arm] as number) / seen : 0
  }
  return {
    survey,
    models: survey.outcomeFits.map((fit) => fit && predictorOf(fit)),
    keepRatio,
    measured: metricNames.flatMap((_, metric) => (survey.outcomeFits[metric] ? [metric] : [])),
    predictedBy: metricNames.map((name) => metrics[name].predictedBy),
    armOf: new Map(armNames.map((name, at) => [name, at])),
    look: lookup(survey),
    isPartial: metricNames.map((_, metric) => (cells.known[metric] as number) < rows),
    middleMs: (survey.fromMs + survey.toMs) / 2,
  }
}

/** Rows gone through at a time: several of each group, so that a group's sums are in the processor's cache when they are added to. */
const chunkRows = 8192
/** Their models, the choice of nothing counted as one. */
const chunkEntries = 65_536

/** Some rows of the log, their records forgotten. It is filled again and again. */
export type Chunk = {
  rows: number
  readonly ids: string[]
  readonly group: Int32Array
  /** 1/ρ. */
  readonly keep: Float64Array
  /** The logged choice. */
  readonly arm: Int32Array
  readonly kind: Int32Array
  /** 1 in the later half of the window. */
  readonly later: Uint8Array
  /** 1 where the latency is only a lower bound. */
  readonly cutShort: Uint8Array
  /** 1 where the row belongs to a session. */
  readonly isTurn: Uint8Array
  /** Row i's models are entries offset[i] … offset[i + 1], in the record's order; the last is the choice of nothing. */
  readonly offset: Int32Array
  /** The entry of the logged choice. */
  readonly chosen: Int32Array
  readonly entryArm: Int32Array
  /** π_b. */
  readonly production: Float64Array
  /** At row × metrics + metric; NaN where not known. */
  readonly outcomes: Float64Array
  /** At entry × metrics + metric: q, or what the router predicted for what production never tries. */
  readonly expected: Float64Array
  /** 1 where production never tries it and nothing is predicted, for the metrics that are predicted. */
  readonly unpredicted: Uint8Array
  /** At row × metrics + metric: Σ_a π_b q. */
  readonly expectedProduction: Float64Array
  /** What the router predicted an entry to cost, US dollars; NaN where unknown. */
  readonly costUsd: Float64Array
  readonly redecided: readonly Redecided[]
}

/** What a candidate makes of a chunk's rows. */
export type Redecided = {
  /** π_e by entry. */
  readonly probability: Float64Array
  /** The entry that it chooses. */
  readonly chosen: Int32Array
  /** w of the logged choice. */
  readonly weight: Float64Array
}

/** An empty chunk for so many candidates. */
export const startChunk = (candidates: number, rows = chunkRows, entries = chunkEntries): Chunk => ({
  rows: 0,
  ids: [],
  group: new Int32Array(rows),
  keep: new Float64Array(rows),
  arm: new Int32Array(rows),
  kind: new Int32Array(rows),
  later: new Uint8Array(rows),
  cutShort: new Uint8Array(rows),
  isTurn: new Uint8Array(rows),
  offset: new Int32Array(rows + 1),
  chosen: new Int32Array(rows),
  entryArm: new Int32Array(entries),
  production: new Float64Array(entries),
  outcomes: new Float64Array(rows * metricCount),
  expected: new Float64Array(entries * metricCount),
  unpredicted: new Uint8Array(entries * metricCount),
  expectedProduction: new Float64Array(rows * metricCount),
  costUsd: new Float64Array(entries),
  redecided: Array.from({ length: candidates }, () => ({
    probability: new Float64Array(entries),
    chosen: new Int32Array(rows),
    weight: new Float64Array(rows),
  })),
})

/** Whether there is room for a row with so many models. */
export const hasRoom = ({ rows, keep, offset, production }: Chunk, models: number): boolean =>
  rows < keep.length && (offset[rows] as number) + models < production.length

const numberOf = (value: FeatureValue | undefined): number => (typeof value === 'number' ? value : Number.NaN)

/** Adds a row, which must be possible and have room, with what each candidate decides of it. */
export const addRow = (fit: Fit, chunk: Chunk, record: DecisionRecord, decided: readonly Judged[]): void => {
  const row = chunk.rows++
  const cell = fit.look(record)
  chunk.ids[row] = record.id
  chunk.group[row] = groupOfCluster(fit.survey.clusters, cell.cluster)
  chunk.keep[row] = 1 / record.keep_probability
  chunk.arm[row] = cell.arm
  chunk.kind[row] = cell.kind
  chunk.later[row] = Number(Date.parse(record.time) >= fit.middleMs)
  chunk.cutShort[row] = Number(isCutShort(record))
  chunk.isTurn[row] = Number(record.session !== '')
  readOutcomes(fit.survey, record, cell.arm, chunk.outcomes, row * metricCount)
  const from = chunk.offset[row] as number
  const last = from + record.candidates.length
  chunk.offset[row + 1] = last + 1
  chunk.chosen[row] = last
  for (let entry = from; entry <= last; entry++) addEntry(fit, chunk, row, entry, record, entry - from)
  addExpected(fit, chunk, row, cell)
  for (let at = 0; at < decided.length; at++)
    addDecided(chunk, row, decided[at] as Judged, chunk.redecided[at] as Redecided)
}

const addEntry = (fit: Fit, chunk: Chunk, row: number, entry: number, record: DecisionRecord, at: number): void => {
  const candidate = record.candidates[at]
  chunk.entryArm[entry] = fit.armOf.get(candidate?.model ?? noneArm) ?? 0
  chunk.production[entry] = candidate?.probability ?? Number(record.chosen === null)
  chunk.costUsd[entry] = candidate ? numberOf(candidate.features.cost_usd) : 0
  if (candidate && candidate.model === record.chosen) chunk.chosen[row] = entry
  if (chunk.production[entry] === 0) addPredicted(chunk, entry, candidate)
}

/** What the router predicted of what production never tries. To serve nothing costs nothing; how long that takes is not predicted. */
const addPredicted = (
  { expected, unpredicted }: Chunk,
  entry: number,
  candidate: DecisionRecord['candidates'][number] | undefined,
): void => {
  for (let metric = 0; metric < metricCount; metric++) {
    const { predictedBy } = metrics[metricNames[metric] as MetricName]
    if (!predictedBy) continue
    const nothing = predictedBy === 'cost_usd' ? 0 : Number.NaN
    const known = candidate ? numberOf(candidate.features[predictedBy]) : nothing
    expected[entry * metricCount + metric] = known
    unpredicted[entry * metricCount + metric] = Number(Number.isNaN(known))
  }
}

/** The outcome model's word on every entry, metric by metric. */
const addExpected = (
  { survey, predictedBy }: Fit,
  chunk: Chunk,
  row: number,
  { fold, octave, kind }: { readonly fold: number; readonly octave: number; readonly kind: number },
): void => {
  const { expected, unpredicted, production, entryArm } = chunk
  const [from, to] = [chunk.offset[row] as number, chunk.offset[row + 1] as number]
  for (let metric = 0; metric < metricCount; metric++) {
    const fitted = survey.outcomeFits[metric]
    let sum = 0
    if (fitted) {
      const { mean, byArm, byOctave, byKind } = fitted.effects[fold] as OutcomeFit['effects'][number]
      const { octaves, kinds } = fitted.extent
      for (let entry = from; entry < to; entry++) {
        const place = entry * metricCount + metric
        const b = production[entry] as number
        if (b !== 0 || !predictedBy[metric] || unpredicted[place] === 1) {
          const arm = entryArm[entry] as number
          expected[place] =
            mean +
            (byArm[arm] as number) +
            (byOctave[arm * octaves + octave] as number) +
            (byKind[arm * kinds + kind] as number)
          if (b !== 0) unpredicted[place] = 0
        }
        sum += b * (expected[place] as number)
      }
    }
    chunk.expectedProduction[row * metricCount + metric] = sum
  }
}

const addDecided = (chunk: Chunk, row: number, judged: Judged, { probability, chosen }: Redecided): void => {
  const from = chunk.offset[row] as number
  const { probabilities } = judged
  const last = from + probabilities.length
  for (let at = 0; at < probabilities.length; at++) probability[from + at] = probabilities[at] as number
  probability[last] = Number(judged.chosen === -1)
  chosen[row] = judged.chosen === -1 ? last : from + judged.chosen
}

/** The rows, those of one group after another. */
export const rowsByGroup = ({ rows, group }: Chunk, groups: number): Int32Array => {
  const ends = new Int32Array(groups + 1)
  for (let row = 0; row < rows; row++)
    ends[(group[row] as number) + 1] = (ends[(group[row] as number) + 1] as number) + 1
  for (let at = 0; at < groups; at++) ends[at + 1] = (ends[at + 1] as number) + (ends[at] as number)
  const order = new Int32Array(rows)
  for (let row = 0; row < rows; row++) {
    const at = group[row] as number
    const place = ends[at] as number
    order[place] = row
    ends[at] = place + 1
  }
  return order
}
