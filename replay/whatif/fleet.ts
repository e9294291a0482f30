// The targets as a policy would see them now: their health folded from simulated attempts with the router's own functions,
// calls in flight, prices of the world. A recorded context keeps what does not change by routing; the features that do are
// replaced, and only those that the record has.
import {
  billionths,
  type Health,
  healthOf,
  type Observed,
  observe,
  resumedHealth,
  rounded,
  stateFeatures,
} from '../../router/policy/health.ts'
import type { Context, DecisionRecord, Features, FeatureValue } from '../../router/policy/record.ts'
import { priceBefore, usd } from './answer.ts'
import type { Arrival } from './arrivals.ts'
import type { LogModel } from './log-model.ts'
import { priceIn, serverOf, type World } from './scenario.ts'

export type Fleet = {
  /** The context of an arrival now. */
  readonly contextAt: (arrival: Arrival, nowMs: number) => Context
  readonly began: (target: string) => void
  /** An attempt ended; null when nothing can be learned from it. */
  readonly ended: (target: string, seen: Observed | null) => void
}

const isoOf = (ms: number): string => new Date(ms).toISOString()
const numberOf = (value: unknown): number | null => (typeof value === 'number' ? value : null)

export const fleetOf = (log: LogModel, world: World): Fleet => {
  let health: Health = new Map()
  const inFlight = new Map<string, number>()
  const add = (target: string, calls: number) => inFlight.set(target, (inFlight.get(target) ?? 0) + calls)
  const featuresNow = ({ record }: Arrival, target: string, recorded: Features, nowMs: number): Features => {
    if (!health.has(target)) health = new Map(health).set(target, resumedHealth(recorded, nowMs))
    const calls = inFlight.get(target) ?? 0
    const { expected, features } = stateFeatures(record.request, healthOf(health, target, nowMs, calls), calls)
    const live: Features = { ...features, ...pricesNow(record, target, recorded, expected) }
    const isNews = world.prices.has(target)
    const now: Record<string, FeatureValue> = { ...recorded }
    for (const [name, value] of Object.entries(live))
      if (name in now && (now[name] !== null || isNews)) now[name] = value
    return now
  }
  /** The recorded prediction scales with its price and its expected answer, so that it keeps what else was charged. */
  const pricesNow = (record: DecisionRecord, target: string, recorded: Features, expected: number): Features => {
    const before = priceBefore(recorded, target, log)
    const now = priceIn(world, target, before)
    const { input_tokens: inputTokens } = record.request
    const expectedBefore = numberOf(recorded.output_tokens_expected)
    const beforeUsd = before ? usd(before, inputTokens, expectedBefore ?? expected) : 0
    const nowUsd = now ? usd(now, inputTokens, expected) : 0
    const predicted = numberOf(recorded.cost_usd)
    if (predicted === null || beforeUsd === 0)
      return { ...now, ...(world.prices.has(target) ? { cost_usd: nowUsd } : {}) }
    return {
      ...now,
      cost_usd: nowUsd === beforeUsd ? predicted : rounded((predicted * nowUsd) / beforeUsd, billionths),
    }
  }
  return {
    contextAt: (arrival, nowMs) => {
      const { id, session, record } = arrival
      const { request } = record
      // A model that is gone, asked for by its name, is refused before anything is decided.
      if (serverOf(world, request.model) === null) return { id, session, time: isoOf(nowMs), request, candidates: [] }
      const recorded = new Map(record.candidates.map(({ model, features }) => [model, features]))
      const candidates = record.candidates.flatMap(({ model }) => {
        const target = serverOf(world, model)
        const features = target === null ? undefined : recorded.get(target)
        return target === null || !features ? [] : [{ model, features: featuresNow(arrival, target, features, nowMs) }]
      })
      return { id, session, time: isoOf(nowMs), request, candidates }
    },
    began: (target) => add(target, 1),
    ended: (target, seen) => {
      add(target, -1)
      if (seen) health = observe(health, seen)
    },
  }
}
