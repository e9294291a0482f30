// A piece of the log as columns: everything that candidates share. What a row's models can be expected to do is looked up
// once here, and each candidate policy then only adds its own probabilities.
import { draw } from '../../router/policy/chance.ts'
import type { DecisionRecord, FeatureValue } from '../../router/policy/record.ts'
import { isCutShort, metricCount, metricNames, metrics, spreadMetrics } from '../estimate/metrics.ts'
import { cellsOf } from '../estimate/outcome-cells.ts'
import { type OutcomeModel, predictorOf } from '../estimate/outcome-model.ts'
import { addAt, type Bins, binOf, quantileGroups } from '../estimate/quantiles.ts'
import { clusterOf, groupOfCluster } from './clusters.ts'
import { readOutcomes } from './outcomes.ts'
import { impossibility, lookup, noneArm, type Survey } from './survey.ts'

/** What a survey says about outcomes, ready for use. */
export type Fit = {
  readonly survey: Survey
  /** By metric; null where no outcome is known. */
  readonly models: readonly (OutcomeModel | null)[]
  /** All over known outcomes of a model's rows, at metric × arms + arm: a model whose users rarely answer keeps its weight. */
  readonly keepRatio: Float64Array
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
    isPartial: metricNames.map((_, metric) => (cells.known[metric] as number) < rows),
    middleMs: (survey.fromMs + survey.toMs) / 2,
  }
}

export type Chunk = {
  readonly rows: number
  readonly records: readonly DecisionRecord[]
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
  /** At row × amounts + amount: the bin of the distribution that its value falls into. */
  readonly bins: Uint16Array
  /** A number by which rows are drawn for the report, the same for every candidate. */
  readonly lot: Float64Array
  /** What the router predicted an entry to cost, US dollars; NaN where unknown. */
  readonly costUsd: Float64Array
}

const numberOf = (value: FeatureValue | undefined): number => (typeof value === 'number' ? value : Number.NaN)

/** Builds the columns of those `records` that are possible; repeated ones must be gone already. */
export const chunkOf = (fit: Fit, records: readonly DecisionRecord[]): Chunk => {
  const possible = records.filter((record) => impossibility(record) === null)
  const rows = possible.length
  const entries = possible.reduce((sum, { candidates }) => sum + candidates.length + 1, 0)
  const chunk = {
    rows,
    records: possible,
    group: new Int32Array(rows),
    keep: new Float64Array(rows),
    arm: new Int32Array(rows),
    kind: new Int32Array(rows),
    later: new Uint8Array(rows),
    cutShort: new Uint8Array(rows),
    offset: new Int32Array(rows + 1),
    chosen: new Int32Array(rows),
    entryArm: new Int32Array(entries),
    production: new Float64Array(entries),
    outcomes: new Float64Array(rows * metricCount),
    expected: new Float64Array(entries * metricCount),
    unpredicted: new Uint8Array(entries * metricCount),
    expectedProduction: new Float64Array(rows * metricCount),
    bins: new Uint16Array(rows * spreadMetrics.length),
    lot: new Float64Array(rows),
    costUsd: new Float64Array(entries),
  }
  const look = lookup(fit.survey)
  const armOf = new Map(fit.survey.armNames.map((name, at) => [name, at]))
  for (const [row, record] of possible.entries()) {
    const cell = look(record)
    chunk.group[row] = groupOfCluster(fit.survey.clusters, clusterOf(fit.survey.clusters, record))
    chunk.keep[row] = 1 / record.keep_probability
    chunk.arm[row] = cell.arm
    chunk.kind[row] = cell.kind
    chunk.later[row] = Number(Date.parse(record.time) >= fit.middleMs)
    chunk.cutShort[row] = Number(isCutShort(record))
    readOutcomes(fit.survey, record, cell.arm, chunk.outcomes, row * metricCount)
    chunk.lot[row] = draw(record.id, 'replay', 'sample')
    fillBins(chunk, row)
    fillEntries(fit, chunk, row, record, cell, armOf)
  }
  return chunk
}

const fillBins = ({ bins, outcomes }: Pick<Chunk, 'bins' | 'outcomes'>, row: number): void => {
  for (const [place, { metric, scale }] of spreadMetrics.entries()) {
    const value = outcomes[row * metricCount + metricNames.indexOf(metric)] as number
    if (!Number.isNaN(value)) bins[row * spreadMetrics.length + place] = binOf(value * scale)
  }
}

const fillEntries = (
  { models }: Fit,
  chunk: Chunk,
  row: number,
  { candidates, chosen }: DecisionRecord,
  { fold, octave, kind }: { fold: number; octave: number; kind: number },
  armOf: ReadonlyMap<string, number>,
): void => {
  const from = chunk.offset[row] as number
  const { expected, unpredicted, expectedProduction } = chunk
  for (let at = 0; at <= candidates.length; at++) {
    const entry = from + at
    const candidate = candidates[at]
    const model = candidate?.model ?? noneArm
    const arm = armOf.get(model) ?? 0
    const production = candidate?.probability ?? Number(chosen === null)
    chunk.entryArm[entry] = arm
    chunk.production[entry] = production
    chunk.costUsd[entry] = candidate ? numberOf(candidate.features.cost_usd) : 0
    if (model === (chosen ?? noneArm)) chunk.chosen[row] = entry
    for (let metric = 0; metric < metricCount; metric++) {
      const q = models[metric]
      if (!q) continue
      let value = q(fold, arm, octave, kind)
      const { predictedBy } = metrics[metricNames[metric] as (typeof metricNames)[number]]
      if (production === 0 && predictedBy) {
        // To serve nothing costs nothing; how long that takes is not predicted.
        const known = candidate
          ? numberOf(candidate.features[predictedBy])
          : predictedBy === 'cost_usd'
            ? 0
            : Number.NaN
        if (Number.isNaN(known)) unpredicted[entry * metricCount + metric] = 1
        else value = known
      }
      expected[entry * metricCount + metric] = value
      const place = row * metricCount + metric
      expectedProduction[place] = (expectedProduction[place] as number) + production * value
    }
  }
  chunk.offset[row + 1] = from + candidates.length + 1
}

/** Adds a row to the distributions of amounts, with its mass: k for production, k w for a candidate. */
export const addSpread = (fit: Fit, chunk: Chunk, at: number, weight: number, bins: readonly Bins[]): void => {
  if (weight === 0) return
  const arm = chunk.arm[at] as number
  const group = (chunk.group[at] as number) % quantileGroups
  for (let place = 0; place < spreadMetrics.length; place++) {
    const { metric: name, scale } = spreadMetrics[place] as (typeof spreadMetrics)[number]
    const metric = metricNames.indexOf(name)
    const value = chunk.outcomes[at * metricCount + metric] as number
    if (Number.isNaN(value)) continue
    const k = (chunk.keep[at] as number) * (fit.keepRatio[metric * fit.survey.armNames.length + arm] as number)
    const isCut = name === 'latency_ms' && chunk.cutShort[at] === 1
    const seen = chunk.bins[at * spreadMetrics.length + place] as number
    addAt(bins[place] as Bins, group, seen, value * scale, k * weight, isCut)
  }
}
