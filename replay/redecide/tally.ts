// Adds a chunk, decided again by a candidate, to the candidate's sums. Nothing of a row is kept but a few that are named in
// the report; all else is added up, so that tallies of other chunks, from other threads, can be added to it.
import { metricCount } from '../estimate/metrics.ts'
import { add, addBounds, addTerms, termCount } from '../estimate/terms.ts'
import type { Reexecuted } from '../reexec/answers.ts'
import type { Chunk, Fit, Redecided } from './chunk.ts'
import {
  byMetricAt,
  byMetricCount,
  type CandidateTally,
  isMover,
  keepMover,
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

/** Adds the chunk's row `at`, as the candidate redecides it, with the answers asked anew where there are some. */
export const tallyRow = (
  fit: Fit,
  chunk: Chunk,
  at: number,
  redecided: Redecided,
  row: Row,
  tally: CandidateTally,
  reexecuted: Reexecuted | null,
): void => {
  readRow(chunk, at, redecided, row, tally)
  redecided.weight[at] = row.w
  addWhole(chunk, at, row, tally)
  addPlaces(fit, chunk, at, row, tally)
  for (let place = 0; place < fit.measured.length; place++) {
    const metric = fit.measured[place] as number
    readExpected(chunk, at, metric, redecided, row)
    addMetric(fit, chunk, at, metric, row, tally)
  }
  addParts(fit, chunk, at, row, tally)
  if (reexecuted) tallyAsked(fit, chunk, at, row, reexecuted, tally)
}

/** What the probabilities of one row say; one object serves all rows. */
export type Row = {
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
  /** At metric × partTerms: what the row adds to the parts it belongs to. */
  readonly parts: Float64Array
}

export const startRow = (): Row => ({
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
  parts: new Float64Array(metricCount * partTerms),
})

const readRow = (
  chunk: Chunk,
  at: number,
  { probability, chosen }: Redecided,
  row: Row,
  { untriedArms }: CandidateTally,
): void => {
  const { production, entryArm } = chunk
  const [from, to, logged] = [chunk.offset[at] as number, chunk.offset[at + 1] as number, chunk.chosen[at] as number]
  let [changed, u, w2, xe, x2] = [false, 0, 0, 0, 0]
  for (let entry = from; entry < to; entry++) {
    const e = probability[entry] as number
    const b = production[entry] as number
    if (e !== b) changed = true
    if (b > 0) {
      const w = e / b
      const x = w > 1 ? w - 1 : 0
      w2 += b * w * w
      xe += b * x
      x2 += b * x * x
    } else if (e > 0) {
      u += e
      add(untriedArms, entryArm[entry] as number, (chunk.keep[at] as number) * e)
    }
  }
  const b = production[logged] as number
  row.w = b > 0 ? (probability[logged] as number) / b : 0
  row.x = Math.max(0, row.w - 1)
  row.changed = changed
  row.u = u
  row.w2 = w2
  row.xe = xe
  row.x2 = x2
  row.redecided = chosen[at] as number
  row.isSame = entryArm[row.redecided] === chunk.arm[at]
}

/** What is expected of a metric under the candidate, and what of that production never tries. */
const readExpected = (chunk: Chunk, at: number, metric: number, { probability }: Redecided, row: Row): void => {
  const { production, expected, unpredicted } = chunk
  const [from, to] = [chunk.offset[at] as number, chunk.offset[at + 1] as number]
  let [all, untried, isUnpredicted] = [0, 0, 0]
  for (let entry = from; entry < to; entry++) {
    const e = probability[entry] as number
    if (e === 0) continue
    const place = entry * metricCount + metric
    const q = e * (expected[place] as number)
    all += q
    if ((production[entry] as number) > 0) continue
    untried += q
    if (unpredicted[place]) isUnpredicted = 1
  }
  row.expected[metric] = all
  row.untried[metric] = untried
  row.unpredicted[metric] = isUnpredicted
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
  if (chunk.isTurn[at] === 1) {
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
  const part = metric * partTerms
  if (Number.isNaN(r)) {
    add(byMetric, metric * byMetricCount + byMetricAt.missing, raw)
    add(byMetric, metric * byMetricCount + byMetricAt.missingWeight, raw * row.w)
    row.parts[part] = row.parts[part + 1] = row.parts[part + 2] = 0
    return
  }
  const k = raw * (fit.keepRatio[metric * fit.survey.armNames.length + arm] as number)
  const { w, u } = row
  addTerms(sums, base, row, k, r, q, qe, qb, qu)
  const spread = metric * byMetricCount
  add(byMetric, spread + byMetricAt.weightVariance, k * k * Math.max(0, row.w2 - (1 - u) ** 2))
  add(byMetric, spread + byMetricAt.excessVariance, k * k * Math.max(0, row.x2 - row.xe ** 2))
  if (w > 1) {
    tally.rewardLeast[metric] = Math.min(tally.rewardLeast[metric] as number, r)
    tally.rewardMost[metric] = Math.max(tally.rewardMost[metric] as number, r)
  }
  add(tally.residuals, metric * fit.survey.armNames.length + arm, k * w * (r - q))
  const difference = k * (qe - qb + (w - 1) * (r - q))
  row.parts[part] = k
  row.parts[part + 1] = k * (qb + r - q)
  row.parts[part + 2] = difference
  addMover(chunk, at, metric, difference, row, r, tally)
}

/** The same comparison within a kind of requests, and within a half of the window. */
const addParts = ({ measured }: Fit, chunk: Chunk, at: number, row: Row, { parts }: CandidateTally): void => {
  const kind = chunk.kind[at] as number
  const group = (chunk.group[at] as number) % partGroups
  const inHalf = (kindsShownMax + (chunk.later[at] as number)) * partGroups + group
  const inKind = kind >= 1 && kind <= kindsShownMax ? (kind - 1) * partGroups + group : null
  for (let index = 0; index < measured.length; index++) {
    const metric = measured[index] as number
    for (let term = metric * partTerms; term < (metric + 1) * partTerms; term++) {
      const amount = row.parts[term] as number
      add(parts, inHalf * row.parts.length + term, amount)
      if (inKind !== null) add(parts, inKind * row.parts.length + term, amount)
    }
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
    id: chunk.ids[at] as string,
    chosen: chunk.arm[at] as number,
    redecided: chunk.entryArm[row.redecided] as number,
    weight: row.w,
    outcome,
    contribution,
  })
}
