// How much evidence a question will take, before any is gathered: for several rates of exploration the requests until the effective
// sample suffices and until quality's difference is known within the margin, and what exploring costs meanwhile; beside it,
// what re-execution would take for the same. Pure; the log supplies probabilities, spreads and traffic, not the answer.
import type { Policy } from '../../router/policy/policy.ts'
import { contextOf, type Decision, type DecisionRecord } from '../../router/policy/record.ts'
import { normalQuantile } from '../estimate/estimators.ts'
import { type Horizon, qualityWithin } from '../estimate/feedback.ts'
import { metrics } from '../estimate/metrics.ts'
import { essDecidesFrom, type Goal, unsupportedMassMax } from '../judge/gate.ts'
import { rowsPlannedMax } from '../judge/remedy.ts'
import { type Forecast, frameOf, type PlanOptions, precise } from '../reexec/plan.ts'
import { qualitySpreads, type Spread, spreads } from '../reexec/spread.ts'

/** Shares of all requests, beside what production explores already (0). */
export const explorationRates = [0, 0.005, 0.01, 0.02, 0.05, 0.1] as const
/** Rounding of a search for the margin. */
const reachTolerance = 1e-6
const dayMs = 86_400_000
/** To show a gain four times in five, not every second time: (1.96 + 0.84) / 1.96. */
const powerFactor = (normalQuantile + 0.8416) / normalQuantile

export type PowerOptions = Pick<PlanOptions, 'seed' | 'prices' | 'judge'> & {
  readonly goal: Goal
  readonly margin: number
  /** Null: as the log has it. */
  readonly rowsPerDay: number | null
}

/** So many requests, and as many days at the log's traffic; null rows when no number of them would do. */
export type Needed = { readonly rows: number | null; readonly days: number | null }

export type RatePlan = {
  readonly rate: number
  /** Until the effective sample decides: 250 in all, and as many for what changes. */
  readonly untilEss: Needed
  /** Until the half-width of quality's difference is within the margin. */
  readonly untilMargin: Needed
  /** Until the goal's difference, if it is what the log suggests, shows four times in five; null when the log suggests none. */
  readonly untilGoal: Needed | null
  /** Half-width of quality's difference after as many requests as the log has. */
  readonly halfWidth: number
  /** The candidate's choices that this exploration never makes: evidence is refused beyond one percent. */
  readonly unsupported: number
  /** What exploring costs by the router's predictions, US dollars per request, and until the margin; negative when it saves. */
  readonly regretUsd: number | null
  readonly regretUsdUntilMargin: number | null
  /** Quality given up per request. */
  readonly regretQuality: number
}

export type Power = {
  readonly v: 1
  readonly rows: number
  readonly rowsPerDay: number | null
  readonly changedShare: number
  readonly margin: number
  readonly goal: Goal
  readonly rates: readonly RatePlan[]
  /** Asking changed decisions anew for the same half-width, on this log; and the narrowest it can give. */
  readonly reexecution: Forecast & { readonly reaches: boolean; readonly changed: number; readonly askable: number }
}

/** The log, decided again, and what comes of each model's choice in the two metrics that a plan is about. */
type Scene = {
  readonly rows: readonly { readonly record: DecisionRecord; readonly decision: Decision }[]
  readonly outcomes: Readonly<Record<'quality' | 'goal', (model: string) => Spread>>
}

/** Plans from `records` for `candidate`. Pure; one pass over the records for each rate. */
export const power = (records: readonly DecisionRecord[], candidate: Policy, options: PowerOptions): Power => {
  const rowsPerDay = options.rowsPerDay ?? rateOf(records)
  const readGoal = (record: DecisionRecord) => metrics[options.goal].read(record, { slowAboveMs: null })
  const quality = qualitySpreads(records)
  const scene: Scene = {
    rows: records.map((record) => ({ record, decision: candidate.decide(contextOf(record)) })),
    outcomes: {
      quality,
      goal: options.goal === 'quality' ? quality : spreads(records, readGoal, { mean: Number.NaN, sd: Number.NaN }, 0),
    },
  }
  const frame = frameOf(records, candidate, null, { ...options, tenantsMax: Infinity })
  const forecast = precise(frame, options.margin)
  const reaches = frame.asks.length > 0 && forecast.halfWidth <= options.margin * (1 + reachTolerance)
  return {
    v: 1,
    rows: records.length,
    rowsPerDay,
    changedShare: frame.changed / frame.rows,
    margin: options.margin,
    goal: options.goal,
    rates: explorationRates.map((rate) => planFor(scene, rate, options, rowsPerDay)),
    reexecution: {
      ...forecast,
      reaches,
      changed: frame.asks.length + frame.unasked.length,
      askable: frame.asks.length,
    },
  }
}

/**
 * The records with the quality that a replay would read of them: no feedback that a horizon leaves out, and where it is trusted a
 * judge's score where no person's counts. Pure.
 */
export const withOpinions = (
  records: readonly DecisionRecord[],
  { horizon, trustJudge }: { readonly horizon: Horizon | null; readonly trustJudge: boolean },
): DecisionRecord[] =>
  records.map((record) => {
    if (!record.outcome) return record
    const byPeople = qualityWithin(record, horizon)
    const byJudge = trustJudge ? (record.outcome.quality_judge ?? null) : null
    return { ...record, outcome: { ...record.outcome, quality: Number.isNaN(byPeople) ? byJudge : byPeople } }
  })

const rateOf = (records: readonly DecisionRecord[]): number | null => {
  let [from, to] = [Infinity, -Infinity]
  for (const { time } of records) {
    from = Math.min(from, Date.parse(time))
    to = Math.max(to, Date.parse(time))
  }
  return to > from ? (records.length * dayMs) / (to - from) : null
}

/** What a plan follows from, as means over the log's rows under one rate of exploration. */
type Moments = {
  /** Of the candidate's weights, and of what they exceed 1 by. */
  readonly square: number
  readonly mean: number
  readonly excessSquare: number
  readonly excessMean: number
  /** Of the difference within a row (over draws and outcomes), and of its expectation. */
  readonly within: Readonly<Record<'quality' | 'goal', number>>
  readonly effect: Readonly<Record<'quality' | 'goal', number>>
  readonly effectSquare: Readonly<Record<'quality' | 'goal', number>>
  /** Of exploring instead of not; NaN where a price is not predicted. */
  readonly regretUsd: number
  readonly regretQuality: number
}

/** One model for one request: what either policy does with it, and what it is predicted to cost. */
type Arm = {
  readonly model: string
  readonly candidate: number
  readonly logged: number
  readonly uniform: number
  readonly costUsd: number
}

const armsOf = ({ record, decision }: Scene['rows'][number]): Arm[] => {
  if (record.chosen === null || decision.chosen === null) return []
  const eligible = record.candidates.filter((candidate) => candidate.eligible).length
  return record.candidates.map(({ model, eligible: isEligible, probability, features: { cost_usd: usd } }, at) => ({
    model,
    candidate: decision.candidates[at]?.probability ?? 0,
    logged: probability,
    uniform: isEligible ? 1 / eligible : 0,
    costUsd: typeof usd === 'number' ? usd : Number.NaN,
  }))
}

const momentsOf = ({ rows, outcomes }: Scene, rate: number): Moments => {
  const sum = { square: 0, mean: 0, excessSquare: 0, excessMean: 0, regretUsd: 0, regretQuality: 0 }
  const [within, effect, effectSquare] = [pair(), pair(), pair()]
  let total = 0
  for (const row of rows) {
    const keep = 1 / row.record.keep_probability
    const arms = armsOf(row)
    if (arms.length === 0) continue
    total += keep
    const rowEffect = pair()
    for (const { model, candidate, logged, uniform, costUsd } of arms) {
      const probability = (1 - rate) * logged + rate * uniform
      const moved = rate * (uniform - logged)
      if (moved !== 0) {
        sum.regretUsd += keep * moved * costUsd
        sum.regretQuality -= keep * moved * outcomes.quality(model).mean
      }
      if (probability === 0) continue
      const weight = candidate / probability
      const excess = Math.max(0, weight - 1)
      sum.square += keep * probability * weight ** 2
      sum.mean += keep * candidate
      sum.excessMean += keep * probability * excess
      sum.excessSquare += keep * probability * excess ** 2
      for (const name of metricsPlanned) {
        const { mean, sd } = outcomes[name](model)
        within[name] += keep * probability * (weight - 1) ** 2 * sd ** 2
        rowEffect[name] += (candidate - probability) * mean
      }
    }
    for (const name of metricsPlanned) {
      effect[name] += keep * rowEffect[name]
      effectSquare[name] += keep * rowEffect[name] ** 2
    }
  }
  const mean = <Names extends string>(sums: Record<Names, number>) =>
    Object.fromEntries(Object.entries<number>(sums).map(([name, value]) => [name, value / total])) as Record<
      Names,
      number
    >
  return { ...mean(sum), within: mean(within), effect: mean(effect), effectSquare: mean(effectSquare) }
}

const metricsPlanned = ['quality', 'goal'] as const
const pair = (): Record<'quality' | 'goal', number> => ({ quality: 0, goal: 0 })

/**
 * With p' = (1 − ε) p + ε / K and w = π_e / p': ESS = n E[w]² / E[w²]; the variance of one row's paired difference is
 * E[Σ_a p' (w − 1)² σ_a²] + Var(Σ_a (π_e − p') q), and the half-width 1.96 √(variance / n) (the variance of DR, Dudík et al. 2014, §3, at a fitted q).
 */
const planFor = (scene: Scene, rate: number, { margin }: PowerOptions, rowsPerDay: number | null): RatePlan => {
  const moments = momentsOf(scene, rate)
  const { square, mean, excessSquare, excessMean, regretUsd, regretQuality } = moments
  const needed = (rows: number): Needed => {
    const isPossible = rows <= rowsPlannedMax
    const whole = isPossible ? Math.ceil(rows) : null
    return { rows: whole, days: whole !== null && rowsPerDay ? whole / rowsPerDay : null }
  }
  const varianceOf = (name: 'quality' | 'goal') =>
    moments.within[name] + moments.effectSquare[name] - moments.effect[name] ** 2
  const unsupported = 1 - mean
  const untried = unsupported > unsupportedMassMax ? Infinity : 1
  const variance = varianceOf('quality')
  const forChange = excessMean > 0 ? (essDecidesFrom * excessSquare) / excessMean ** 2 : 0
  const untilMargin = needed(untried * variance * (normalQuantile / margin) ** 2)
  const goalRows = varianceOf('goal') * ((normalQuantile * powerFactor) / moments.effect.goal) ** 2
  const usd = Number.isNaN(regretUsd) ? null : regretUsd
  return {
    rate,
    untilEss: needed(untried * Math.max((essDecidesFrom * square) / mean ** 2, forChange)),
    untilMargin,
    untilGoal: Number.isFinite(goalRows) ? needed(untried * goalRows) : null,
    halfWidth: untried * normalQuantile * Math.sqrt(variance / scene.rows.length),
    unsupported: Math.max(0, unsupported),
    regretUsd: usd,
    regretUsdUntilMargin: usd === null || untilMargin.rows === null ? null : usd * untilMargin.rows,
    regretQuality,
  }
}
