// What is added up while a log is decided again: columns of sums and a few named rows. Plain data, so that a worker thread can
// send it; two tallies of different rows of one survey add up to the tally of both, in any order.
import type { Decision, DecisionRecord } from '../../router/policy/record.ts'
import { metricCount, spreadMetrics } from '../estimate/metrics.ts'
import { type Bins, emptyBins, mergeBins } from '../estimate/quantiles.ts'
import { addAll, termCount } from '../estimate/terms.ts'
import type { Survey } from './survey.ts'

/** Kinds of requests that are compared on their own; the last two parts are the halves of the window. */
export const kindsShownMax = 12
export const partCount = kindsShownMax + 2
/** Parts are for looking, so their clusters are dealt to fewer groups. */
export const partGroups = 64
/** Σ k, production's and the difference's DR terms. */
export const partTerms = 3
export const sampleMax = 12
export const influenceMax = 12
/** Powers of two, below and above 1. */
export const overlapBins = 24
export const weightBins = 160
export const weightBinsPerOctave = 4
export const calibrationBins = 24

const indexed = <Name extends string>(...names: readonly Name[]) =>
  Object.fromEntries(names.map((name, at) => [name, at])) as Readonly<Record<Name, number>>

/** Sums over all rows. */
export const scalarAt = indexed(
  'observed',
  'untried',
  'changedChoices',
  'changedCostUsd',
  'changedCosts',
  'changedRows',
  'weightVariance',
  'excessVariance',
  // Rows that belong to a session, and those of them that the candidate decides otherwise.
  'turns',
  'changedTurns',
)
/** Sums by group over all rows, whatever their outcomes. */
export const wholeAt = indexed('n', 'w', 'u', 'x', 'xe')
/** Sums by metric. */
export const byMetricAt = indexed('missing', 'missingWeight', 'weightVariance', 'excessVariance', 'unpredicted')
/**
 * Where changed decisions were asked anew. Over all rows: how many were asked and could not be, Σ k of those asked and of those that
 * could not be and were never tried, Σ k² (1 − ρ) / ρ² of those asked, and rows that the answers contradict.
 */
export const askedAt = indexed('asked', 'unasked', 'paid', 'untried', 'variance', 'strangers')
/** By group, over changed decisions that could be asked: Σ k, and Σ k I / ρ. */
export const frameAt = indexed('n', 'asked')
/** By metric, over answers in which it is known: how many, Σ k / ρ and Σ (k / ρ)². */
export const answeredAt = indexed('count', 'weight', 'squares')
export const [scalarCount, wholeCount, byMetricCount, askedCount, frameCount, answeredCount] = [
  scalarAt,
  wholeAt,
  byMetricAt,
  askedAt,
  frameAt,
  answeredAt,
].map((names) => Object.keys(names).length) as [number, number, number, number, number, number]

/** A decision that the candidate makes otherwise, drawn by a hash of its id. */
export type Changed = { readonly rank: number; readonly record: DecisionRecord; readonly decision: Decision }
/** A row by how far it moves the difference of a metric. */
export type Mover = {
  readonly rank: number
  readonly metric: number
  readonly id: string
  readonly chosen: number
  readonly redecided: number
  readonly weight: number
  readonly outcome: number
  readonly contribution: number
}

export type CandidateTally = {
  /** At (group × metrics + metric) × terms + term. */
  readonly sums: Float64Array
  readonly whole: Float64Array
  readonly scalars: Float64Array
  readonly byMetric: Float64Array
  /** By metric: the least and the greatest outcome among rows with w > 1. */
  readonly rewardLeast: Float64Array
  readonly rewardMost: Float64Array
  readonly extremes: { weightMax: number }
  /** All zero where nothing was asked anew. */
  readonly asked: Float64Array
  readonly frame: Float64Array
  readonly answered: Float64Array
  /** By metric: the least and the greatest outcome among the answers. */
  readonly answerLeast: Float64Array
  readonly answerMost: Float64Array
  /** Σ k π_e where π_b = 0, by arm. */
  readonly untriedArms: Float64Array
  /** At from × arms + to. */
  readonly moves: Float64Array
  /** Σ k by the logged probability of what the candidate chooses. */
  readonly overlap: Float64Array
  /** Σ k and Σ k w by weight. */
  readonly weights: Float64Array
  /** Σ k w (r − q) at metric × arms + arm: how an arm's weights enter the estimate. */
  readonly residuals: Float64Array
  /** At ((part × partGroups + group) × metrics + metric) × partTerms. */
  readonly parts: Float64Array
  /** The distributions of the `spreadMetrics` under the candidate's weights. */
  readonly bins: readonly Bins[]
  readonly sample: Changed[]
  readonly movers: Mover[][]
}

export const startTally = ({ clusters, armNames }: Survey): CandidateTally => {
  const [groups, arms] = [clusters.groupCount, armNames.length]
  return {
    sums: new Float64Array(groups * metricCount * termCount),
    whole: new Float64Array(groups * wholeCount),
    scalars: new Float64Array(scalarCount),
    byMetric: new Float64Array(metricCount * byMetricCount),
    rewardLeast: new Float64Array(metricCount).fill(Infinity),
    rewardMost: new Float64Array(metricCount).fill(-Infinity),
    extremes: { weightMax: 0 },
    asked: new Float64Array(askedCount),
    frame: new Float64Array(groups * frameCount),
    answered: new Float64Array(metricCount * answeredCount),
    answerLeast: new Float64Array(metricCount).fill(Infinity),
    answerMost: new Float64Array(metricCount).fill(-Infinity),
    untriedArms: new Float64Array(arms),
    moves: new Float64Array(arms * arms),
    overlap: new Float64Array(overlapBins),
    weights: new Float64Array(weightBins * 2),
    residuals: new Float64Array(metricCount * arms),
    parts: new Float64Array(partCount * partGroups * metricCount * partTerms),
    bins: spreadMetrics.map(emptyBins),
    sample: [],
    movers: Array.from({ length: metricCount }, () => []),
  }
}

/** One of the sums by group, over all groups. */
export const wholeTotal = ({ whole }: CandidateTally, at: number): number => {
  let sum = 0
  for (let place = at; place < whole.length; place += wholeCount) sum += whole[place] as number
  return sum
}

/** What the log shows, whoever the candidate is: for the audits of its probabilities and of the outcome model. */
export type LogTally = {
  /** At ((variant × groups + group) × arms + arm) × 2: Σ k 1{a} / π_b and Σ k; the first variant is all rows, then one a metric. */
  readonly arms: Float64Array
  /** At (variant × arms + arm) × 3: Σ k² (1 − π_b) / π_b, Σ k, Σ π_b. */
  readonly armScalars: Float64Array
  /** At (metric × bins + bin) × 3: Σ k q, Σ k r, rows. */
  readonly calibration: Float64Array
  /** The distributions of the `spreadMetrics` as logged. */
  readonly bins: readonly Bins[]
}

export const startLogTally = ({ clusters, armNames }: Survey): LogTally => {
  const variants = metricCount + 1
  return {
    arms: new Float64Array(variants * clusters.groupCount * armNames.length * 2),
    armScalars: new Float64Array(variants * armNames.length * 3),
    calibration: new Float64Array(metricCount * calibrationBins * 3),
    bins: spreadMetrics.map(emptyBins),
  }
}

export const mergeLogTallies = (to: LogTally, from: LogTally): void => {
  addAll(to.arms, from.arms)
  addAll(to.armScalars, from.armScalars)
  addAll(to.calibration, from.calibration)
  for (const [at, bins] of to.bins.entries()) mergeBins(bins, from.bins[at] as Bins)
}

const added = [
  'sums',
  'whole',
  'scalars',
  'byMetric',
  'asked',
  'frame',
  'answered',
  'untriedArms',
  'moves',
  'overlap',
  'weights',
  'residuals',
  'parts',
] as const

/** Adds the second to the first. */
export const mergeTallies = (to: CandidateTally, from: CandidateTally): void => {
  for (const column of added) addAll(to[column], from[column])
  for (const [at, bins] of to.bins.entries()) mergeBins(bins, from.bins[at] as Bins)
  for (let metric = 0; metric < metricCount; metric++) {
    for (const least of ['rewardLeast', 'answerLeast'] as const)
      to[least][metric] = Math.min(to[least][metric] as number, from[least][metric] as number)
    for (const most of ['rewardMost', 'answerMost'] as const)
      to[most][metric] = Math.max(to[most][metric] as number, from[most][metric] as number)
  }
  to.extremes.weightMax = Math.max(to.extremes.weightMax, from.extremes.weightMax)
  for (const changed of from.sample) keepFirst(to.sample, changed, sampleMax)
  for (const [metric, movers] of from.movers.entries())
    for (const mover of movers) keepFirst(to.movers[metric] as Mover[], mover, influenceMax)
}

/** Keeps the `max` items of least rank, in order. */
const keepFirst = <Item extends { readonly rank: number }>(kept: Item[], item: Item, max: number): void => {
  if (kept.length === max && item.rank >= (kept[max - 1] as Item).rank) return
  const at = kept.findIndex(({ rank }) => item.rank < rank)
  kept.splice(at < 0 ? kept.length : at, 0, item)
  if (kept.length > max) kept.pop()
}

/** Whether an item of this rank would be kept; asked before anything is made for it. */
const isKept = (kept: readonly { readonly rank: number }[], rank: number, max: number): boolean =>
  kept.length < max || rank < (kept[max - 1]?.rank ?? Infinity)

export const isSampled = (tally: CandidateTally, rank: number): boolean => isKept(tally.sample, rank, sampleMax)
export const keepSampled = (tally: CandidateTally, changed: Changed): void =>
  keepFirst(tally.sample, changed, sampleMax)
export const isMover = (movers: readonly Mover[], rank: number): boolean => isKept(movers, rank, influenceMax)
export const keepMover = (movers: Mover[], mover: Mover): void => keepFirst(movers, mover, influenceMax)
