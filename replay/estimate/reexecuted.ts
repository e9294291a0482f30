// What answers asked anew make of a metric: the two-phase estimate (reexec/two-phase.ts) from the sums, with the same widening by what
// cannot be known as any other; and whether the answers may be used at all. No logged probability enters either.
import type { Survey } from '../redecide/survey.ts'
import {
  answeredAt,
  answeredCount,
  askedAt,
  type CandidateTally,
  frameAt,
  frameCount,
  wholeAt,
  wholeTotal,
} from '../redecide/tallies.ts'
import type { Reexecuted } from '../reexec/answers.ts'
import { type JudgeError, judgeErrorOf } from '../reexec/effect.ts'
import { drProduction, type Estimate, normalQuantile, type Ratio, RatioSum, total } from './estimators.ts'
import { metricNames, metrics } from './metrics.ts'
import { skewedEstimate } from './skewness.ts'
import { type Combination, combine, type Sums } from './terms.ts'
import { endsOf, type Range, reaching, unseenEvents, widen } from './unknown.ts'

/** Below so many answers a metric is not estimated from them. */
export const answersShownFrom = 30
/** The mean of I / ρ over what could be asked is 1; beyond this many standard errors the answers are of other requests. */
const auditSeMax = 3
const roundingMax = 1e-9
const differenceRange: Range = [-1, 1]
const n: Combination = { n: 1 }

/** Candidate − production by answers asked anew: the two-phase estimate of the one less `drProduction` of the other. */
export const askedDifference: Ratio = [{ asked: 1, qb: -1, r: -1, q: 1 }, n]

/** What was asked, as far as it concerns this log. */
export type ReexecutedSummary = {
  /** The hash of the policy whose choices were asked. */
  readonly policy: string
  /** Changed decisions of the log, by whether they are in the sample, and those that could not be asked. */
  readonly changed: number
  readonly asked: number
  readonly unasked: number
  /** Rows on which the candidate does not choose what was asked. */
  readonly strangers: number
  readonly tenantShare: number
  /** The mean of I / ρ over the changed decisions that could be asked, which must be 1. */
  readonly inclusion: { readonly mean: number; readonly se: number }
  /** The judge measured against itself, over all answers; null where none was judged. */
  readonly judge: JudgeError | null
  /** Why the answers are no evidence on this candidate and log; null when they are. */
  readonly problem: 'other-candidate' | 'other-log' | 'tenants' | null
}

/** Looks at the sample itself: whether it is the candidate's, of this log, and drawn in a way that the clusters allow for. */
export const summaryOf = (
  { clusters }: Survey,
  { asked, frame }: CandidateTally,
  { policy, tenantShare, results }: Reexecuted,
  changed: number,
  candidateHash: string,
): ReexecutedSummary => {
  const sum = new RatioSum()
  const answered = [...results.values()].filter((result) => result.status !== 'unasked')
  let all = 0
  for (let place = 0; place < frame.length; place += frameCount) {
    const keep = frame[place + frameAt.n] as number
    if (keep > 0) sum.add(frame[place + frameAt.asked] as number, keep)
    all += keep
  }
  const scalar = (at: number) => asked[at] as number
  const { value: mean, se: clustered } = sum.close()
  const independent = Math.sqrt(scalar(askedAt.variance)) / all
  const se = Math.max(Number.isFinite(clustered) ? clustered : 0, independent)
  const isOther = policy !== candidateHash || scalar(askedAt.strangers) > 0
  const isOff = all > 0 && Math.abs(mean - 1) > auditSeMax * se + roundingMax
  const isByTenant = tenantShare < 1 && !clusters.keys.includes('tenant')
  const problem = isOther ? 'other-candidate' : isByTenant ? 'tenants' : isOff ? 'other-log' : null
  return {
    policy,
    changed,
    asked: scalar(askedAt.asked),
    unasked: scalar(askedAt.unasked),
    strangers: scalar(askedAt.strangers),
    tenantShare,
    inclusion: { mean, se },
    judge: judgeErrorOf(answered),
    problem,
  }
}

/** What the answers say of one metric, in place of the log's own figures. */
type AskedFigures = {
  readonly evidence: 're-executed'
  readonly production: Estimate
  readonly candidate: Estimate
  readonly difference: Estimate
  readonly differenceAtRandom: { readonly low: number; readonly high: number }
  readonly doubt: { readonly low: number; readonly high: number }
  readonly unseenReach: number
  readonly bounds: { readonly low: number; readonly high: number } | null
}

/** With the share of rows on which the candidate's own outcome cannot be known: there was no way to ask, or no answer. */
type Asked = { readonly figures: AskedFigures; readonly unknown: number }

/** How many answers tell this metric. */
export const answersOf = ({ answered }: CandidateTally, metric: number): number =>
  answered[metric * answeredCount + answeredAt.count] as number

/**
 * The two-phase figures of one metric; null where too few answers tell it. What could not be asked or was not answered is put at 0 and
 * at 1, as what was never tried is in the log's own figures, and so is a missing logged outcome when `isBounded`.
 * `judgeSd` is the error of one judgement, as repeats show it, in the unit of quality.
 */
export const askedFigures = (
  tally: CandidateTally,
  metric: number,
  sums: Sums,
  isBounded: boolean,
  judgeSd: number,
): Asked | null => {
  if (answersOf(tally, metric) < answersShownFrom) return null
  const name = metricNames[metric] as (typeof metricNames)[number]
  const { range } = metrics[name]
  const slip = name === 'quality' ? judgeSd * judgementsReach(tally, metric) : 0
  const readLog = (ratio: Ratio) => skewedEstimate(sums, ratio)
  const read = (ratio: Ratio) => slipping(readLog(ratio), slip)
  const production = readLog(drProduction)
  const candidate = read([{ asked: 1 }, n])
  const difference = read(askedDifference)
  const unknown = total(combine(sums, { askedHigh: 1, askedLow: -1 })) / total(combine(sums, n))
  const certain = { doubt: { low: 0, high: 0 }, unseenReach: 0, bounds: null }
  const base = { evidence: 're-executed', production, candidate, difference, differenceAtRandom: difference } as const
  if (!range) return { figures: { ...base, ...certain }, unknown }
  const figures = { ...base, ...boundedFigures(read, readLog, base, unseenReachOf(tally, metric), isBounded, range) }
  return { figures, unknown }
}

/** √(Σ (k/ρ)²) / Σ k: what an error of one in each judgement makes of the mean over all rows, if each slips by itself. */
const judgementsReach = (tally: CandidateTally, metric: number): number =>
  Math.sqrt(tally.answered[metric * answeredCount + answeredAt.squares] as number) / wholeTotal(tally, wholeAt.n)

/**
 * A two-phase estimate whose answers' scores are themselves measured with error: V* = V + σ_J² Σ (k/ρ)² / (Σ k)², the third stage of
 * a multi-stage variance (Särndal, Swensson & Wretman 1992, ch. 4), σ_J from repeated judgements. Where each slips by itself the
 * spread of the answers holds this already, and the variance is too large by at most as much again; where slips are alike, as on
 * answers that all get one score, it does not. `slip` is the standard error to add, in the unit of the estimate.
 */
const slipping = (estimate: Estimate, slip: number): Estimate => {
  if (slip === 0) return estimate
  const se = Math.hypot(estimate.se, slip)
  const arm = (length: number) => (estimate.se > 0 ? (length * se) / estimate.se : normalQuantile * se)
  const { value, low, high } = estimate
  return { ...estimate, se, low: value - arm(value - low), high: value + arm(high - value) }
}

/** The same for outcomes in [0, 1], as wide as what cannot be known calls for. */
const boundedFigures = (
  read: (ratio: Ratio) => Estimate,
  readLog: (ratio: Ratio) => Estimate,
  { production, candidate, difference }: Pick<AskedFigures, 'production' | 'candidate' | 'difference'>,
  reach: number,
  isBounded: boolean,
  range: Range,
): Omit<AskedFigures, 'evidence'> => {
  const reached = (estimate: Estimate) => reaching(estimate, reach, differenceRange)
  const seen = reached(difference)
  const { asked: _, ...produced } = askedDifference[0]
  const ends: readonly Ratio[] = isBounded
    ? [
        [{ askedDifferenceLow: 1 }, { all: 1 }],
        [{ askedDifferenceHigh: 1 }, { all: 1 }],
      ]
    : [
        [{ ...produced, askedLow: 1 }, n],
        [{ ...produced, askedHigh: 1 }, n],
      ]
  const [low, high] = ends.map(read) as [Estimate, Estimate]
  const doubt = {
    low: Math.max(0, difference.value - low.value),
    high: Math.max(0, high.value - difference.value),
  }
  const shifted = (by: number) => ({ ...candidate, low: candidate.low + by, high: candidate.high + by })
  const widened = widen(candidate, { low: shifted(-doubt.low), high: shifted(doubt.high) }, range)
  return {
    production: widen(production, endsOf(readLog, isBounded).production, range),
    candidate: widened,
    difference: widen(seen, { low: reached(low), high: reached(high) }, differenceRange),
    differenceAtRandom: seen,
    doubt,
    unseenReach: reach,
    bounds: { low: widened.low, high: widened.high },
  }
}

/**
 * Where all answers are alike their spread says nothing: the "rule of three" (Hanley & Lippman-Hand 1983) on their effective number,
 * (Σ k/ρ)² / Σ (k/ρ)², for the share of rows that they stand for.
 */
const unseenReachOf = (tally: CandidateTally, metric: number): number => {
  if ((tally.answerLeast[metric] as number) < (tally.answerMost[metric] as number)) return 0
  const place = metric * answeredCount
  const [weight, squares] = [answeredAt.weight, answeredAt.squares].map((at) => tally.answered[place + at]) as [
    number,
    number,
  ]
  return (unseenEvents * squares) / weight / wholeTotal(tally, wholeAt.n)
}
