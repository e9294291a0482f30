// Judging the finalists on the later part of a log, which nothing was chosen by. Several are judged at once, and one is picked
// afterwards; so that this stays honest, all their intervals hold together in 95 % of searches, and each is judged by them with
// the same gate and the same refusals as a replay of its own.
import { parsePolicy } from '../../router/policy/policy.ts'
import { listeningTo } from '../audit/grounds.ts'
import { type Draws, poissonDraws, replicateSums } from '../estimate/bootstrap.ts'
import { drDifference, type Estimate, studentQuantile, total } from '../estimate/estimators.ts'
import { type MetricResult, roundingShare, sumsOf } from '../estimate/evaluate.ts'
import type { Horizon } from '../estimate/feedback.ts'
import { type MetricName, metricNames, metrics } from '../estimate/metrics.ts'
import { normalCdf } from '../estimate/normal.ts'
import { combine } from '../estimate/terms.ts'
import { unseenEvents } from '../estimate/unknown.ts'
import { gainOf, gateOf, type Refusal } from '../judge/gate.ts'
import type { Source } from '../read/source.ts'
import { surveyLog } from '../redecide/engine.ts'
import type { Gathered } from '../redecide/gather.ts'
import type { Survey } from '../redecide/survey.ts'
import type { LoggedPolicy } from '../redecide/verify.ts'
import { appraise, type Replay, type ReplayOptions } from '../run.ts'
import { type Axes, axesOf, type Tried } from './select.ts'

/** Together the intervals miss with this probability. */
const alpha = 0.05

/** `better`: the goal is better and every guardrail holds, simultaneously over all finalists. */
export type Finding = 'better' | 'harm' | 'open' | 'thin' | 'refused'

/** One axis of one finalist: candidate − production, in the metric's own unit. */
export type AxisResult = {
  readonly metric: MetricName
  readonly production: Estimate
  readonly candidate: Estimate
  /** On the part it was chosen on: too good, because it was chosen for that. */
  readonly selected: Estimate
  /** On the held-out part, with the interval it would have alone. */
  readonly alone: Estimate
  /** The interval that holds together with those of all other finalists and metrics. */
  readonly low: number
  readonly high: number
}

export type Finalist = {
  readonly name: string
  readonly parameters: Readonly<Record<string, number>>
  readonly hash: string
  /** The policy as YAML. */
  readonly text: string
  readonly finding: Finding
  /** The conditions of the gate that are harmed, or else stay open. */
  readonly failing: readonly MetricName[]
  /** Better, and no other that is better beats it on both axes. */
  readonly isOnFront: boolean
  readonly axes: readonly [goal: AxisResult, other: AxisResult]
  readonly refusals: readonly Refusal[]
}

export type Certified = {
  readonly rows: number
  readonly clusters: number
  /** How many standard errors the simultaneous intervals reach to either side. */
  readonly reach: number
  readonly finalists: readonly Finalist[]
}

export type CertifyOptions = ReplayOptions & {
  readonly horizon: Horizon | null
  readonly onWork?: (candidateRows: number) => void
}

/** Judges the finalists on `holdOut`; best on the goal first. */
export const certify = async (
  holdOut: Source,
  policies: readonly LoggedPolicy[],
  chosen: readonly Tried[],
  options: CertifyOptions,
): Promise<Certified> => {
  let done = 0
  const heard = listeningTo(holdOut)
  const log = await surveyLog(heard.source, policies, {
    objective: { slowAboveMs: null, horizon: options.horizon },
    onProgress: ({ pass, rows }) => {
      if (pass === 'survey') return
      options.onWork?.((rows - done) * chosen.length)
      done = rows
    },
  })
  const candidates = chosen.map(({ point }) => parsePolicy(point.text, log.survey.features, 'a finalist'))
  const gathered = await log.gather(candidates)
  const grounds = await heard.grounds(log.survey)
  const replays = candidates.map((candidate, at) => {
    const found = grounds({ ...options, source: candidate.source })
    return appraise(log.survey, gathered, at, candidate, { ...options, replicates: 0 }, null, found)
  })
  const reach = simultaneousReach(familyOf(log.survey, gathered, replays), drawsOf(log.survey, options))
  const finalists = chosen.map((one, at) => judged(one, replays[at] as Replay, reach, options))
  return {
    rows: log.survey.rows,
    clusters: log.survey.clusters.count,
    reach,
    finalists: withFront(finalists).sort((a, b) => axisGains(b)[0] - axisGains(a)[0]),
  }
}

const drawsOf = ({ clusters }: Survey, { replicates, seed }: ReplayOptions): Draws | null =>
  clusters.groupCount > 0 && replicates > 0 ? poissonDraws(clusters.groupCount, replicates, seed) : null

/** A difference: its sums by group above and below the line. */
export type Member = { readonly a: Float64Array; readonly b: Float64Array }

/** Everything that is claimed at once: each finalist's goal, its other axis and its guardrails, as far as they vary. */
const familyOf = (survey: Survey, { tallies }: Gathered, replays: readonly Replay[]): Member[] =>
  replays.flatMap(({ metrics: results, options: { goal } }, at) =>
    judgedMetrics(goal).flatMap((metric) => {
      const { se, low, high } = resultOf(results, metric).difference
      if (!(se > 0 && se < Infinity && low < high)) return []
      const sums = sumsOf(survey, tallies[at] as Gathered['tallies'][number], metricNames.indexOf(metric))
      return [{ a: combine(sums, drDifference[0]), b: combine(sums, drDifference[1]) }]
    }),
  )

const judgedMetrics = (goal: Axes[0]): MetricName[] =>
  metricNames.filter((metric) => axesOf(goal).includes(metric) || metrics[metric].guards)

const resultOf = (results: readonly MetricResult[], metric: MetricName): MetricResult =>
  results.find((result) => result.metric === metric) as MetricResult

/**
 * The c for which all intervals value ± c·se hold together with probability 0.95: the 95 % quantile, over bootstrap replicates,
 * of max |V* − V| / se* over the family, V* and se* being a replicate's own (the first step of the studentised method of Romano
 * & Wolf 2005, "Stepwise multiple testing as formalized data snooping"; White 2000). All members share a replicate's Poisson
 * draws, so that their correlation counts and nothing is assumed of it. Never below the quantile for one alone.
 */
export const simultaneousReach = (family: readonly Member[], draws: Draws | null): number => {
  const active = Math.max(0, ...family.map(({ b }) => b.filter((keep) => keep !== 0).length))
  const single = studentQuantile(Math.max(1, active - 1))
  if (!draws || family.length === 0) return single
  const most = new Float64Array(draws.replicates)
  for (const member of family)
    for (const [at, lag] of studentised(member, draws).entries()) if (lag > (most[at] as number)) most[at] = lag
  most.sort()
  return Math.max(single, most[Math.ceil((1 - alpha) * most.length) - 1] as number)
}

/** |V* − V| / se* by replicate, with se*² = Σ c (a − V* b)² / (Σ c b)² over the groups, each drawn c times. */
const studentised = ({ a, b }: Member, draws: Draws): Float64Array => {
  const value = total(a) / total(b)
  const times = (one: Float64Array, other: Float64Array) => one.map((amount, at) => amount * (other[at] as number))
  const [above, below, aa, ab, bb] = [a, b, times(a, a), times(a, b), times(b, b)].map((term) =>
    replicateSums(term, draws),
  ) as [Float64Array, Float64Array, Float64Array, Float64Array, Float64Array]
  return above.map((sum, at) => {
    const [divisor, drawn] = [below[at] as number, sum / (below[at] as number)]
    const squares = (aa[at] as number) - 2 * drawn * (ab[at] as number) + drawn * drawn * (bb[at] as number)
    return Math.abs(drawn - value) / (Math.sqrt(Math.max(0, squares)) / divisor)
  })
}

/**
 * The difference with an interval for the whole family. What its interval allows for besides sampling is allowed for in
 * proportion; an event never seen, with the confidence that a reach of c standard errors stands for.
 */
const widened = (result: MetricResult, reach: number): MetricResult => {
  const { difference, unseenReach } = result
  const single = studentQuantile(Math.max(1, difference.clusters - 1))
  const unseen = (unseenReach * -Math.log(normalCdf(-reach))) / unseenEvents
  const [least, most] = metrics[result.metric].range ? [-1, 1] : [-Infinity, Infinity]
  const arm = (length: number) => (length > 0 ? Math.max((length * reach) / single, unseen) : 0)
  return {
    ...result,
    difference: {
      ...difference,
      low: Math.max(least, difference.value - arm(difference.value - difference.low)),
      high: Math.min(most, difference.value + arm(difference.high - difference.value)),
    },
  }
}

const judged = ({ point, standing }: Tried, replay: Replay, reach: number, options: CertifyOptions): Finalist => {
  const results = replay.metrics.map((result) => widened(result, reach))
  const [goal, other] = axesOf(options.goal).map((metric, axis): AxisResult => {
    const { production, candidate, difference } = resultOf(replay.metrics, metric)
    const { low, high } = resultOf(results, metric).difference
    const selected = standing.differences[axis] as Estimate
    return { metric, production, candidate, selected, alone: difference, low, high }
  }) as [AxisResult, AxisResult]
  const { parameters, name, hash, text } = point
  const { refusals } = replay.verdict
  return {
    name,
    parameters,
    hash,
    text,
    ...findingOf(replay, results, options),
    isOnFront: false,
    axes: [goal, other],
    refusals,
  }
}

/** The gate of a verdict, on the simultaneous intervals. */
const findingOf = (
  { verdict }: Replay,
  results: readonly MetricResult[],
  { goal, margin }: CertifyOptions,
): Pick<Finalist, 'finding' | 'failing'> => {
  if (verdict.refusals.length > 0) return { finding: 'refused', failing: [] }
  if (verdict.thin) return { finding: 'thin', failing: [] }
  const conditions = gateOf({ goal, metrics: results }).map(({ role, result }) => {
    const { low, high } = gainOf(result)
    const rounding = roundingShare * Math.abs(result.production.value)
    const [wanted, tolerated] = role === 'goal' ? [rounding, rounding] : [-margin, margin]
    return { metric: result.metric, isHeld: low > wanted, isHarmed: high < -tolerated }
  })
  const harmed = conditions.filter(({ isHarmed }) => isHarmed)
  const open = conditions.filter(({ isHeld }) => !isHeld)
  const failing = (harmed.length > 0 ? harmed : open).map(({ metric }) => metric)
  return { finding: harmed.length > 0 ? 'harm' : open.length > 0 ? 'open' : 'better', failing }
}

/** The gains of a finalist on its axes, positive where it is better than production. */
export const axisGains = ({ axes }: Pick<Finalist, 'axes'>): [goal: number, other: number] =>
  axes.map(({ metric, alone }) => (metrics[metric].better === 'higher' ? alone.value : -alone.value)) as [
    number,
    number,
  ]

const withFront = (finalists: readonly Finalist[]): Finalist[] =>
  finalists.map((one) => {
    const [goal, other] = axisGains(one)
    const isBeaten = finalists.some((rival) => {
      const [rivalGoal, rivalOther] = axisGains(rival)
      const isAhead = rivalGoal >= goal && rivalOther >= other && (rivalGoal > goal || rivalOther > other)
      return rival.finding === 'better' && isAhead
    })
    return { ...one, isOnFront: one.finding === 'better' && !isBeaten }
  })
