// Adds a chunk, decided again by a candidate, to the candidate's sums. Nothing of a row is kept but a few that are named in
// the report; all else is added up, so that tallies of other chunks, from other threads, can be added to it.
import type { Policy } from '../../router/policy/policy.ts'
import type { Decision } from '../../router/policy/record.ts'
import { metricCount, metricNames } from '../estimate/metrics.ts'
import { add, addBounds, addCompared, addTerms, termCount } from '../estimate/terms.ts'
import type { Reexecuted } from '../reexec/answers.ts'
import { addSpread, type Chunk, type Fit } from './chunk.ts'
import {
  byMetricAt,
  byMetricCount,
  type CandidateTally,
  isMover,
  isSampled,
  keepMover,
  keepSampled,
  kindsShownMax,
  overlapBins,
  partGroups,
  partTerms,
  scalarAt,
  weightBins,
  weightBinsPerOctave,
  wholeAt,
  wholeCount,
} from './tallies.ts'
import { tallyAsked } from './tally-asked.ts'

/** Decides the chunk's rows again under `policy` and adds what comes out, with the answers asked anew where there are some. */
export const tallyCandidate = (
  fit: Fit,
  chunk: Chunk,
  policy: Policy,
  tally: CandidateTally,
  reexecuted: Reexecuted | null = null,
): void => {
  const measured = metricNames.flatMap((_, metric) => (fit.models[metric] ? [metric] : []))
  const row = startRow()
  for (let at = 0; at < chunk.rows; at++) {
    const record = chunk.records[at] as Chunk['records'][number]
    // A record holds its context; to copy it out would cost as much as to decide.
    const decision = policy.decide(record)
    readRow(chunk, at, decision, row, tally)
    addWhole(chunk, at, row, tally)
    addPlaces(fit, chunk, at, row, tally)
    addSpread(fit, chunk, at, row.w, tally.bins)
    for (const metric of measured) addMetric(fit, chunk, at, metric, row, tally)
    if (reexecuted) tallyAsked(fit, chunk, at, measured, decision.chosen, row, reexecuted, tally)
    if (row.isSame) continue
    const rank = chunk.lot[at] as number
    if (isSampled(tally, rank)) keepSampled(tally, { rank, record, decision })
  }
}

/** What the probabilities of one row say; one object serves all rows. */
type Row = {
  w: number
  u: number
  /** E[w²] over the logged policy's draw. */
  w2: number
  /** (w − 1)⁺, its expectation and that of its square. */
  x: number
  xe: number
  x2: number
  changed: boolean
  /** The entry that the candidate chooses, and whether that is production's choice. */
  redecided: number
  isSame: boolean
  /** By metric: Σ_a π_e q, the part of it that production never tries, and whether that is not even predicted. */
  readonly expected: Float64Array
  readonly untried: Float64Array
  readonly unpredicted: Uint8Array
}

const startRow = (): Row => ({
  w: 0,
  u: 0,
  w2: 0,
  x: 0,
  xe: 0,
  x2: 0,
  changed: false,
  redecided: 0,
  isSame: true,
  expected: new Float64Array(metricCount),
  untried: new Float64Array(metricCount),
  unpredicted: new Uint8Array(metricCount),
})

const readRow = (chunk: Chunk, at: number, decision: Decision, row: Row, tally: CandidateTally): void => {
  const from = chunk.offset[at] as number
  const last = (chunk.offset[at + 1] as number) - 1
  row.w = row.u = row.w2 = row.x = row.xe = row.x2 = 0
  row.changed = false
  row.redecided = last
  row.expected.fill(0)
  row.untried.fill(0)
  row.unpredicted.fill(0)
  for (let entry = from; entry <= last; entry++) {
    const candidate = decision.candidates[entry - from]
    const e = candidate ? candidate.probability : Number(decision.chosen === null)
    const b = chunk.production[entry] as number
    if (candidate && candidate.model === decision.chosen) row.redecided = entry
    if (e !== b) row.changed = true
    if (b > 0) {
      const w = e / b
      const x = Math.max(0, w - 1)
      row.w2 += b * w * w
      row.xe += b * x
      row.x2 += b * x * x
      if (entry === chunk.chosen[at]) {
        row.w = w
        row.x = x
      }
    } else if (e > 0) {
      row.u += e
      add(tally.untriedArms, chunk.entryArm[entry] as number, (chunk.keep[at] as number) * e)
    }
    if (e > 0) addExpected(chunk, entry, e, b, row)
  }
  row.isSame = chunk.entryArm[row.redecided] === chunk.arm[at]
}

const addExpected = (chunk: Chunk, entry: number, e: number, b: number, row: Row): void => {
  const place = entry * metricCount
  for (let metric = 0; metric < metricCount; metric++) {
    const q = e * (chunk.expected[place + metric] as number)
    add(row.expected, metric, q)
    if (b > 0) continue
    add(row.untried, metric, q)
    if (chunk.unpredicted[place + metric]) row.unpredicted[metric] = 1
  }
}

/** What does not depend on outcomes. */
const addWhole = (chunk: Chunk, at: number, row: Row, { scalars, whole, extremes }: CandidateTally): void => {
  const k = chunk.keep[at] as number
  const place = (chunk.group[at] as number) * wholeCount
  add(whole, place + wholeAt.n, k)
  add(whole, place + wholeAt.w, k * row.w)
  add(whole, place + wholeAt.u, k * row.u)
  add(whole, place + wholeAt.x, k * row.x)
  add(whole, place + wholeAt.xe, k * row.xe)
  add(scalars, scalarAt.weightVariance, k * k * Math.max(0, row.w2 - (1 - row.u) ** 2))
  add(scalars, scalarAt.excessVariance, k * k * Math.max(0, row.x2 - row.xe ** 2))
  if (row.changed) add(scalars, scalarAt.changedRows, 1)
  extremes.weightMax = Math.max(extremes.weightMax, row.w)
  if (chunk.records[at]?.session !== '') {
    add(scalars, scalarAt.turns, k)
    if (!row.isSame) add(scalars, scalarAt.changedTurns, k)
  }
  if (row.isSame) {
    add(scalars, scalarAt.observed, k)
    return
  }
  add(scalars, scalarAt.changedChoices, 1)
  const costUsd = chunk.costUsd[row.redecided] as number
  if (!Number.isNaN(costUsd)) {
    add(scalars, scalarAt.changedCostUsd, costUsd)
    add(scalars, scalarAt.changedCosts, 1)
  }
  if (chunk.production[row.redecided] === 0) add(scalars, scalarAt.untried, k)
}

/** Who moves where, and the histograms of probabilities and weights. */
const addPlaces = ({ survey }: Fit, chunk: Chunk, at: number, row: Row, tally: CandidateTally): void => {
  const k = chunk.keep[at] as number
  const move = (chunk.arm[at] as number) * survey.armNames.length + (chunk.entryArm[row.redecided] as number)
  add(tally.moves, move, 1)
  const tried = chunk.production[row.redecided] as number
  const octave = tried > 0 ? Math.floor(-Math.log2(tried)) : overlapBins - 1
  add(tally.overlap, Math.min(overlapBins - 1, octave), k)
  const bin = row.w > 0 ? Math.floor(Math.log2(row.w) * weightBinsPerOctave) + weightBins / 2 : 0
  const place = Math.max(0, Math.min(weightBins - 1, bin)) * 2
  add(tally.weights, place, k)
  add(tally.weights, place + 1, k * row.w)
}

/** One metric's terms of one row. */
const addMetric = (fit: Fit, chunk: Chunk, at: number, metric: number, row: Row, tally: CandidateTally): void => {
  const { sums, byMetric } = tally
  const raw = chunk.keep[at] as number
  const r = chunk.outcomes[at * metricCount + metric] as number
  const arm = chunk.arm[at] as number
  const base = ((chunk.group[at] as number) * metricCount + metric) * termCount
  const qe = row.expected[metric] as number
  const qb = chunk.expectedProduction[at * metricCount + metric] as number
  const qu = row.untried[metric] as number
  const q = chunk.expected[(chunk.chosen[at] as number) * metricCount + metric] as number
  if (row.unpredicted[metric]) add(byMetric, metric * byMetricCount + byMetricAt.unpredicted, 1)
  if (fit.isPartial[metric]) addBounds(sums, base, row, raw, r, q, qe, qb, qu)
  if (Number.isNaN(r)) {
    add(byMetric, metric * byMetricCount + byMetricAt.missing, raw)
    add(byMetric, metric * byMetricCount + byMetricAt.missingWeight, raw * row.w)
    return
  }
  const k = raw * (fit.keepRatio[metric * fit.survey.armNames.length + arm] as number)
  const { w, u } = row
  addTerms(sums, base, row, k, r, q, qe, qb, qu)
  addCompared(sums, base, row, k, r, q)
  const spread = metric * byMetricCount
  add(byMetric, spread + byMetricAt.weightVariance, k * k * Math.max(0, row.w2 - (1 - u) ** 2))
  add(byMetric, spread + byMetricAt.excessVariance, k * k * Math.max(0, row.x2 - row.xe ** 2))
  if (w > 1) {
    tally.rewardLeast[metric] = Math.min(tally.rewardLeast[metric] as number, r)
    tally.rewardMost[metric] = Math.max(tally.rewardMost[metric] as number, r)
  }
  add(tally.residuals, metric * fit.survey.armNames.length + arm, k * w * (r - q))
  addParts(chunk, at, metric, k, qb + r - q, qe - qb + (w - 1) * (r - q), tally)
  addMover(chunk, at, metric, k * (qe - qb + (w - 1) * (r - q)), row, r, tally)
}

/** The same comparison within a kind of requests, and within a half of the window. */
const addParts = (
  chunk: Chunk,
  at: number,
  metric: number,
  k: number,
  production: number,
  difference: number,
  { parts }: CandidateTally,
): void => {
  const group = (chunk.group[at] as number) % partGroups
  const kind = chunk.kind[at] as number
  const half = kindsShownMax + (chunk.later[at] as number)
  for (const part of kind >= 1 && kind <= kindsShownMax ? [kind - 1, half] : [half]) {
    const place = ((part * partGroups + group) * metricCount + metric) * partTerms
    add(parts, place, k)
    add(parts, place + 1, k * production)
    add(parts, place + 2, k * difference)
  }
}

const addMover = (
  chunk: Chunk,
  at: number,
  metric: number,
  contribution: number,
  row: Row,
  outcome: number,
  { movers }: CandidateTally,
): void => {
  const kept = movers[metric] as CandidateTally['movers'][number]
  const rank = -Math.abs(contribution)
  if (rank === 0 || !isMover(kept, rank)) return
  keepMover(kept, {
    rank,
    metric,
    id: (chunk.records[at] as Chunk['records'][number]).id,
    chosen: chunk.arm[at] as number,
    redecided: chunk.entryArm[row.redecided] as number,
    weight: row.w,
    outcome,
    contribution,
  })
}
