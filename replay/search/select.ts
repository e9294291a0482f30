// Choosing the policies worth certifying, on the earlier part of a log: successive halving (Jamieson & Talwalkar 2016). Many
// policies are tried on a few clusters, the better third of them on three times as many, and so on. Better is meant on two axes:
// a policy goes when another is better on both, and the one that is most clearly so goes first.
import { parsePolicy } from '../../router/policy/policy.ts'
import { drDifference, type Estimate, estimate } from '../estimate/estimators.ts'
import { sumsOf } from '../estimate/evaluate.ts'
import type { Horizon } from '../estimate/feedback.ts'
import { type MetricName, metricNames, metrics } from '../estimate/metrics.ts'
import { type Goal, unsupportedMassMax } from '../judge/gate.ts'
import type { Source } from '../read/source.ts'
import { surveyLog } from '../redecide/engine.ts'
import type { Survey } from '../redecide/survey.ts'
import { type CandidateTally, wholeAt, wholeTotal } from '../redecide/tallies.ts'
import type { LoggedPolicy } from '../redecide/verify.ts'
import type { Parts } from './parts.ts'
import type { Point } from './template.ts'

/** What a round keeps: one in three, on three times the clusters. */
const keepOneIn = 3
/** A round on fewer clusters would sort by noise. */
const clustersMin = 1000
/** Sums of so many candidates are held at a time. */
const candidatesAtOnce = 32
/** A policy this many standard errors behind another on both axes is not near the front. */
const nearSe = 2

/** The goal, and what it is weighed against. */
export type Axes = readonly [goal: Goal, other: MetricName]
export const axesOf = (goal: Goal): Axes => [goal, goal === 'quality' ? 'cost_usd' : 'quality']

/** Where a policy stands in its last round: candidate − production on either axis, on that round's clusters. */
export type Standing = {
  readonly differences: readonly [goal: Estimate, other: Estimate]
  /** Whether it could not be promoted as it stands: the goal or a guardrail harmed, or choices that production never tries. */
  readonly isBarred: boolean
}

export type Tried = { readonly point: Point; readonly round: number; readonly standing: Standing }
export type Round = { readonly share: number; readonly tried: number; readonly kept: number }
export type Selected = {
  readonly rounds: readonly Round[]
  readonly tried: readonly Tried[]
  readonly finalists: readonly Tried[]
}

export type SelectOptions = {
  readonly goal: Goal
  readonly margin: number
  readonly rounds: number
  readonly finalists: number
  readonly horizon: Horizon | null
  readonly onWork?: (candidateRows: number) => void
}

/** The rounds as far as they are known beforehand: a round may keep fewer. Rounds that would be on the same clusters are one. */
export const plannedRounds = (
  { clusters }: Pick<Parts, 'clusters'>,
  points: number,
  options: Pick<SelectOptions, 'rounds' | 'finalists'>,
): Round[] => {
  const shares = Array.from({ length: options.rounds }, (_, round) =>
    Math.min(1, Math.max(keepOneIn ** (round + 1 - options.rounds), clustersMin / clusters)),
  )
  let tried = points
  return [...new Set(shares)].map((share) => {
    const kept = Math.min(
      tried,
      share < 1 ? Math.max(options.finalists, Math.ceil(tried / keepOneIn)) : options.finalists,
    )
    const round = { share, tried, kept }
    tried = kept
    return round
  })
}

/** Halves the points down to the finalists. Nothing after the cut is read. */
export const select = async (
  parts: Parts,
  policies: readonly LoggedPolicy[],
  points: readonly Point[],
  options: SelectOptions,
): Promise<Selected> => {
  const latest = new Map<Point, Tried>()
  const rounds: Round[] = []
  let finalists: readonly Tried[] = []
  for (const [at, { share, kept }] of plannedRounds(parts, points.length, options).entries()) {
    const left = at === 0 ? points : finalists.map(({ point }) => point)
    const standings = await standingsOf(parts.selection(share), policies, left, options)
    const tried = left.map((point, place) => ({ point, round: at + 1, standing: standings[place] as Standing }))
    for (const one of tried) latest.set(one.point, one)
    finalists = frontmost(tried, options.goal, kept, share < 1 ? Infinity : nearSe)
    rounds.push({ share, tried: tried.length, kept: finalists.length })
  }
  return { rounds, tried: [...latest.values()], finalists }
}

/** Every point on one source: surveyed once, decided again by some dozens of policies at a time. */
const standingsOf = async (
  source: Source,
  policies: readonly LoggedPolicy[],
  points: readonly Point[],
  options: SelectOptions,
): Promise<Standing[]> => {
  const standings: Standing[] = []
  const now = { candidates: 0, rows: 0 }
  const log = await surveyLog(source, policies, {
    objective: { slowAboveMs: null, horizon: options.horizon },
    onProgress: ({ pass, rows }) => {
      if (pass === 'decide') options.onWork?.((rows - now.rows) * now.candidates)
      now.rows = rows
    },
  })
  for (let from = 0; from < points.length; from += candidatesAtOnce) {
    const some = points.slice(from, from + candidatesAtOnce)
    now.candidates = some.length
    now.rows = 0
    const candidates = some.map(({ text, parameters }) => parsePolicy(text, log.survey.features, where(parameters)))
    const { tallies } = await log.gather(candidates)
    for (const tally of tallies) standings.push(standingOf(log.survey, tally, options))
  }
  return standings
}

const where = (parameters: Point['parameters']): string => `the template with ${JSON.stringify(parameters)}`

const standingOf = (survey: Survey, tally: CandidateTally, { goal, margin }: SelectOptions): Standing => {
  const unsupported = wholeTotal(tally, wholeAt.u) / wholeTotal(tally, wholeAt.n)
  const isHarmed = metricNames.some((metric) => {
    if (metric !== goal && !metrics[metric].guards) return false
    const { low, high } = differenceOf(survey, tally, metric)
    const tolerated = metric === goal ? 0 : margin
    return metrics[metric].better === 'higher' ? high < -tolerated : low > tolerated
  })
  const [first, second] = axesOf(goal)
  return {
    differences: [differenceOf(survey, tally, first), differenceOf(survey, tally, second)],
    isBarred: unsupported > unsupportedMassMax || isHarmed,
  }
}

/** Candidate − production, with the plain clustered interval. */
const differenceOf = (survey: Survey, tally: CandidateTally, metric: MetricName): Estimate =>
  estimate(sumsOf(survey, tally, metricNames.indexOf(metric)), drDifference)

/**
 * Those that are left when, one by one, whoever is furthest behind has gone. How far one is behind another is the smaller of
 * its lags on the two axes, in typical standard errors: the additive ε-indicator (Zitzler & Künzli 2004), which is 0 or less
 * on the front. Production, at 0 and 0, is one of the others and never goes. Who is barred goes first; one always stays.
 */
export const frontmost = (tried: readonly Tried[], goal: Goal, most: number, behindMax: number): Tried[] => {
  const axes = axesOf(goal)
  const scales = axes.map((_, axis) => typical(tried.map(({ standing }) => standing.differences[axis]?.se ?? 0)))
  const gains = tried.map(({ standing }) =>
    standing.differences.map(({ value }, axis) => {
      const gain = metrics[axes[axis] as MetricName].better === 'higher' ? value : -value
      return Number.isFinite(gain) ? gain / (scales[axis] as number) : 0
    }),
  )
  let left = tried.map((_, at) => at)
  const behind = (one: number): number => {
    const lag = (other: readonly number[]) =>
      Math.min(...other.map((gain, axis) => gain - (gains[one]?.[axis] as number)))
    return Math.max(lag([0, 0]), ...left.flatMap((other) => (other === one ? [] : [lag(gains[other] as number[])])))
  }
  while (left.length > 1) {
    const barred = left.filter((at) => tried[at]?.standing.isBarred)
    const some = barred.length > 0 && barred.length < left.length ? barred : left
    const last = some
      .map((at) => ({ at, lag: behind(at) }))
      .reduce((worst, one) => (one.lag >= worst.lag ? one : worst))
    if (left.length <= most && some !== barred && last.lag <= behindMax) break
    left = left.filter((at) => at !== last.at)
  }
  return left.map((at) => tried[at] as Tried)
}

/** The median of what is finite and above 0; 1 where nothing is. */
const typical = (values: readonly number[]): number => {
  const sorted = values.filter((value) => value > 0 && value < Infinity).sort((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)] ?? 1
}
