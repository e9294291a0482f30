// One metric of one replay, from its sums: every estimator, the paired difference and the bounds. The figures rest on the
// rows whose outcome is known, weighted by how often the outcomes of the same model are, so that a model whose users
// rarely answer does not fade from the average. That alone would let an outcome hide by staying away: so the intervals are
// widened by whatever the missing, the untried and the never seen could have been, unless a person vouches for the missing.
import type { Survey } from '../redecide/survey.ts'
import {
  byMetricAt,
  byMetricCount,
  type CandidateTally,
  type LogTally,
  wholeAt,
  wholeTotal,
} from '../redecide/tallies.ts'
import { bernsteinInterval } from './bernstein.ts'
import { type BootstrapInterval, bootstrapRatio, type Draws } from './bootstrap.ts'
import { type Diagnostics, diagnoseMetric } from './diagnostics.ts'
import {
  clipped,
  dm,
  dr,
  drDifference,
  drOs,
  drProduction,
  drSupported,
  type Estimate,
  estimate,
  ips,
  logged,
  matched,
  type Ratio,
  ratioOf,
  sndr,
  snips,
  subGaussian,
  switchDr,
  total,
} from './estimators.ts'
import { type MetricName, metricCount, metricNames, metrics } from './metrics.ts'
import { cellsOf } from './outcome-cells.ts'
import { answersOf, askedDifference, askedFigures } from './reexecuted.ts'
import type { Interval } from './sequence.ts'
import { skewedEstimate } from './skewness.ts'
import { combine, type Sums, termCount } from './terms.ts'
import { type Ends, endsOf, type Range, reaching, unseenEvents, widen } from './unknown.ts'

/** Beyond this share of missing outcomes a metric speaks for those who answered. */
export const missingShareMax = 0.2
/** Differences below this part of the value are rounding, not evidence. */
export const roundingShare = 1e-9

export type EstimatorName =
  | 'ips'
  | 'snips'
  | 'dm'
  | 'dr'
  | 'sndr'
  | 'clipped'
  | 'subGaussian'
  | 'switchDr'
  | 'drOs'
  | 'matched'

export type MetricResult = {
  readonly metric: MetricName
  readonly rows: number
  /** Rows without this outcome, and their share of all. */
  readonly missing: number
  readonly missingShare: number
  /** The same share under either policy's weights. */
  readonly missingUnder: { readonly candidate: number; readonly production: number }
  /** The plain mean of what was logged. */
  readonly logged: Estimate
  readonly production: Estimate
  readonly candidate: Estimate
  /** Candidate − production, paired; its interval allows for all that is not known. */
  readonly difference: Estimate
  /** The interval that the difference would have if outcomes were missing at random. */
  readonly differenceAtRandom: { readonly low: number; readonly high: number }
  /** The difference's interval by the bootstrap, to hold the formula's against; null where it was not asked for. */
  readonly bootstrap: BootstrapInterval | null
  /**
   * The candidate's value by IPS within bounds that hold for every distribution (Maurer & Pontil 2009), given the largest weight
   * that the logging design allows; null where that was not stated, rows share draws, outcomes are missing or have no range.
   */
  readonly bernstein: Interval | null
  /** How far below and above the difference its value may lie however many rows there were. */
  readonly doubt: { readonly low: number; readonly high: number }
  /** How far the difference may lie off because an event was never seen where the candidate changes things; or 0. */
  readonly unseenReach: number
  /** True when an amount is not even predicted for a choice that production never makes. */
  readonly unpredicted: boolean
  /** Whether the figures above come from logged probabilities, or from answers asked anew (reexecuted.ts); and how many of those tell it. */
  readonly evidence: 'estimated' | 're-executed'
  readonly answers: number
  /** The candidate's value by each estimator. All but the first four are for comparison and never judge. */
  readonly estimators: Readonly<Record<EstimatorName, Estimate>>
  /** DR on what production tries, |DR − SNIPS| there, and the same in units of the standard error of that gap. */
  readonly drSupported: number
  readonly disagreement: number
  readonly disagreementSe: number
  /** Manski bounds on the candidate's value, sampling error included; null for metrics without a natural range. */
  readonly bounds: { readonly low: number; readonly high: number } | null
  /** The spread of the logged outcome. */
  readonly sd: number
  readonly diagnostics: Diagnostics
}

/** The difference of two values in [0, 1]. */
const differenceRange: Range = [-1, 1]

const compared = { ips, snips, dm, dr, clipped, subGaussian, switchDr, drOs, matched } as const

/** What the sums of a run are evaluated with. */
export type Means = {
  readonly survey: Survey
  readonly log: LogTally
  readonly tally: CandidateTally
  /** Takes requests without an outcome to be like those with one. */
  readonly missingAtRandom: boolean
  /** Null where no bootstrap is wanted. */
  readonly draws: Draws | null
  /** The largest importance weight that the logging design allows, as somebody states it; or null. */
  readonly weightBound: number | null
  /** Whether there are answers asked anew that are evidence on this candidate. */
  readonly hasAnswers: boolean
  /** The error of one judgement of quality, as repeats show it; 0 where none was repeated. */
  readonly judgeSd: number
}

/** One metric's sums of a candidate. */
export const sumsOf = ({ clusters }: Survey, { sums }: CandidateTally, metric: number): Sums => {
  const column = new Float64Array(clusters.groupCount * termCount)
  for (let group = 0; group < clusters.groupCount; group++) {
    const from = (group * metricCount + metric) * termCount
    column.set(sums.subarray(from, from + termCount), group * termCount)
  }
  return { groups: clusters.groupCount, sums: column }
}

/** Evaluates one metric; `whole` are the diagnostics of all rows, reused when no outcome is missing. */
export const evaluate = (means: Means, name: MetricName, whole: Diagnostics): MetricResult => {
  const { survey, log, tally } = means
  const metric = metricNames.indexOf(name)
  const sums = sumsOf(survey, tally, metric)
  const rows = survey.cells.known[metric] ?? 0
  const missing = survey.rows - rows
  const diagnostics = missing === 0 ? whole : diagnoseMetric(survey, log, tally, metric, sums, rows)
  const interval = intervalsOf(means, metric, sums, diagnostics, missing)
  const isBounded = missing > 0 && !means.missingAtRandom
  const asked = means.hasAnswers && rows > 0 ? askedFigures(tally, metric, sums, isBounded, means.judgeSd) : null
  return {
    metric: name,
    rows,
    missing,
    missingShare: survey.rows > 0 ? missing / survey.rows : 0,
    missingUnder: { ...missingUnder(means, metric), ...(asked ? { candidate: asked.unknown } : {}) },
    logged: estimate(sums, logged),
    ...interval,
    ...(asked?.figures ?? { evidence: 'estimated' }),
    answers: means.hasAnswers ? answersOf(tally, metric) : 0,
    bootstrap: means.draws && rows > 0 ? bootstrapOf(sums, asked ? askedDifference : drDifference, means.draws) : null,
    bernstein: bernsteinOf(means, metric, sums, missing),
    unpredicted: !asked && (tally.byMetric[metric * byMetricCount + byMetricAt.unpredicted] ?? 0) > 0,
    estimators: estimatorsOf(sums, interval.candidate),
    ...disagreementOf(sums),
    sd: spreadOf(survey, metric),
    diagnostics,
  }
}

const bernsteinOf = (
  { survey, tally, weightBound }: Means,
  metric: number,
  sums: Sums,
  missing: number,
): Interval | null => {
  const { range } = metrics[metricNames[metric] as MetricName]
  const count = survey.rows
  if (weightBound === null || !range || missing > 0 || survey.clusters.count < count) return null
  // Rows that stand for several, or for more than was stated, are not draws from within the bounds.
  if (tally.extremes.weightMax > weightBound || total(combine(sums, { n: 1 })) !== count) return null
  const mean = total(combine(sums, { wr: 1 })) / count
  const squares = total(combine(sums, { weightedSquare: 1 }))
  const variance = Math.max(0, squares - count * mean ** 2) / (count - 1)
  return bernsteinInterval({ count, mean, variance, lowest: 0, highest: weightBound, alpha: 0.05 })
}

const bootstrapOf = (sums: Sums, [above, below]: Ratio, draws: Draws): BootstrapInterval =>
  bootstrapRatio(combine(sums, above), combine(sums, below), draws)

const estimatorsOf = (sums: Sums, candidate: Estimate): MetricResult['estimators'] => {
  const plain = Object.fromEntries(
    Object.entries(compared).map(([name, ratio]) => [name, estimate(sums, ratio)]),
  ) as Record<keyof typeof compared, Estimate>
  return { ...plain, dr: candidate, sndr: sndr(sums) }
}

type Intervals = Pick<
  MetricResult,
  'production' | 'candidate' | 'difference' | 'differenceAtRandom' | 'doubt' | 'unseenReach' | 'bounds'
>

/** Values from the rows whose outcome is known, with intervals that allow for what all of them leave open. */
const intervalsOf = (
  { missingAtRandom, tally }: Means,
  metric: number,
  sums: Sums,
  diagnostics: Diagnostics,
  missing: number,
): Intervals => {
  const { range } = metrics[metricNames[metric] as MetricName]
  const production = skewedEstimate(sums, drProduction)
  const candidate = skewedEstimate(sums, dr)
  const difference = withoutRounding(skewedEstimate(sums, drDifference), production.value)
  const certain = { low: 0, high: 0 }
  const base = { production, candidate, difference, differenceAtRandom: difference, doubt: certain, unseenReach: 0 }
  if (!range) return { ...base, bounds: null }
  const reach = unseenReachOf(tally, metric, diagnostics)
  const isBounded = missing > 0 && !missingAtRandom
  const ends = endsOf((ratio) => skewedEstimate(sums, ratio), isBounded)
  const bounds = { low: ends.candidate.low.low, high: ends.candidate.high.high }
  const seen = {
    candidate: reaching(candidate, reach, range),
    difference: reaching(difference, reach, differenceRange),
  }
  const found = { ...base, ...seen, differenceAtRandom: seen.difference, unseenReach: reach, bounds }
  if (!isBounded && diagnostics.unsupported.mass === 0) return found
  const { low, high }: Ends = ends.difference
  const reached = { low: reaching(low, reach, differenceRange), high: reaching(high, reach, differenceRange) }
  return {
    ...found,
    production: widen(production, ends.production, range),
    candidate: widen(seen.candidate, ends.candidate, range),
    difference: widen(seen.difference, reached, differenceRange),
    doubt: { low: Math.max(0, difference.value - low.value), high: Math.max(0, high.value - difference.value) },
  }
}

/**
 * Where no event was seen among the rows that speak for the change (nothing failed, or everything did), their spread is 0
 * and says nothing: the "rule of three" (Hanley & Lippman-Hand 1983) on their effective number does. 0 when events were seen.
 */
const unseenReachOf = (tally: CandidateTally, metric: number, { changedRows, change }: Diagnostics): number => {
  if (changedRows === 0) return 0
  const isEven = !((tally.rewardLeast[metric] ?? 0) < (tally.rewardMost[metric] ?? 0))
  return isEven ? unseenEvents / change.ess : 0
}

/** Zero where there is nothing but rounding. */
const withoutRounding = (estimate: Estimate, scale: number): Estimate => {
  const exact = (amount: number) => (Math.abs(amount) <= roundingShare * Math.abs(scale) ? 0 : amount)
  return { ...estimate, value: exact(estimate.value), low: exact(estimate.low), high: exact(estimate.high) }
}

/**
 * How far DR and SNIPS lie apart where both have support, and how many of the gap's own standard errors that is: the gap
 * linearised around their values (Taylor; Cochran 1977, §6.3), in which the noise that both share has gone.
 */
const disagreementOf = (sums: Sums): Pick<MetricResult, 'drSupported' | 'disagreement' | 'disagreementSe'> => {
  const rows = combine(sums, { n: 1 })
  const [inDr, inTried] = drSupported.map((combination) => combine(sums, combination)) as [Float64Array, Float64Array]
  const [inSnips, weight] = snips.map((combination) => combine(sums, combination)) as [Float64Array, Float64Array]
  const drValue = total(inDr) / total(inTried)
  const snipsValue = total(inSnips) / total(weight)
  const disagreement = Math.abs(drValue - snipsValue)
  if (disagreement <= roundingShare * Math.abs(drValue))
    return { drSupported: drValue, disagreement, disagreementSe: 0 }
  const [drScale, snipsScale] = [total(rows) / total(inTried), total(rows) / total(weight)]
  const gap = rows.map(
    (_, group) =>
      drScale * ((inDr[group] as number) - drValue * (inTried[group] as number)) -
      snipsScale * ((inSnips[group] as number) - snipsValue * (weight[group] as number)),
  )
  return { drSupported: drValue, disagreement, disagreementSe: disagreement / ratioOf(gap, rows, rows).se }
}

/** The share of rows without an outcome, under either policy's weights. */
const missingUnder = ({ tally }: Means, metric: number): MetricResult['missingUnder'] => {
  const place = metric * byMetricCount
  const share = (part: number, all: number) => (all > 0 ? part / all : 0)
  return {
    candidate: share(tally.byMetric[place + byMetricAt.missingWeight] ?? 0, wholeTotal(tally, wholeAt.w)),
    production: share(tally.byMetric[place + byMetricAt.missing] ?? 0, wholeTotal(tally, wholeAt.n)),
  }
}

const spreadOf = ({ cells }: Survey, metric: number): number => {
  const { weight, sum, squares } = cellsOf(cells, metric)
  let [k, r, rr] = [0, 0, 0]
  for (let cell = 0; cell < cells.count; cell++) {
    k += weight(cell)
    r += sum(cell)
    rr += squares(cell)
  }
  return k > 0 ? Math.sqrt(Math.max(0, rr / k - (r / k) ** 2)) : 0
}
