// What no real operator can know and the demo does: the true value of a policy over exactly the requests that were
// driven. Every model's outcome on every question is recorded, so the value is an average over the policy's own
// probabilities, at the snapshots the router took, without any draw and without any estimate.
import type { Policy } from '../router/policy/policy.ts'
import { contextOf, type Decision, type DecisionRecord } from '../router/policy/record.ts'
import { bookPrice } from '../router/prices.ts'
import { type Asked, durationOf, type Potential, potential, promptOf, targets, tokensOf, type World } from './world.ts'

/** What a request, or the mean request, comes to. The names are those of the replay's metrics. */
export type Worth = {
  readonly cost_usd: number
  readonly latency_ms: number
  readonly quality: number
}
export const worthNames = ['cost_usd', 'latency_ms', 'quality'] as const

/** What is known of the world that the policies act in. */
export type Known = {
  readonly outcome: (asked: Asked, model: string) => Potential
  readonly costUsd: (asked: Asked, model: string, outcome: Potential) => number
  /** Wall milliseconds per recorded millisecond: latencies are compared as the router measured them. */
  readonly timeScale: number
  /** What each request took beyond its recorded delays; see `overheadMsOf`. */
  readonly overheadMs: number
}

/** One driven request: what was asked and what the router recorded. */
export type Driven = { readonly asked: Asked; readonly record: DecisionRecord }

/** Too late for a fallback: the client has part of the answer. */
const isFinal = (asked: Asked, { failure, outputTokens }: Potential): boolean =>
  failure === null || (failure === 'cut' && asked.stream && outputTokens > 0)

/** What a request comes to when the models of `plan` are tried in turn until one answers. */
export const worthOfPlan = (known: Known, asked: Asked, plan: readonly string[]): Worth => {
  let cost_usd = 0
  let latency_ms = known.overheadMs
  let last: Potential | null = null
  for (const model of plan) {
    last = known.outcome(asked, model)
    cost_usd += known.costUsd(asked, model, last)
    latency_ms += durationOf(last) * known.timeScale
    if (isFinal(asked, last)) break
  }
  const answered = last !== null && last.failure === null
  return { cost_usd, latency_ms, quality: answered && last?.correct ? 1 : 0 }
}

/** The order of attempts had the draw fallen on `first`: the others follow by score, as many as the policy tries. */
const planFrom = ({ candidates, plan }: Pick<Decision, 'candidates' | 'plan'>, first: string): string[] => {
  const others = candidates.filter(({ model, eligible }) => eligible && model !== first)
  others.sort((a, b) => (b.score ?? 0) - (a.score ?? 0) || (a.model < b.model ? -1 : 1))
  return [first, ...others.map(({ model }) => model)].slice(0, plan.length)
}

/**
 * The mean worth of a policy over the driven requests, Σ π(a|x)·worth(a, x) / n; of the policy that was in force when
 * `policy` is null. It must score with "more is better", as the demo's policies do.
 */
export const truthOf = (known: Known, driven: readonly Driven[], policy: Policy | null): Worth => {
  const total = { cost_usd: 0, latency_ms: 0, quality: 0 }
  for (const { asked, record } of driven) {
    const decision = policy ? policy.decide(contextOf(record)) : record
    const choices = decision.chosen === null ? [] : decision.candidates.filter(({ probability }) => probability > 0)
    for (const { model, probability } of choices) {
      const worth = worthOfPlan(known, asked, planFrom(decision, model))
      for (const name of worthNames) total[name] += probability * worth[name]
    }
  }
  for (const name of worthNames) total[name] /= driven.length
  return total
}

/**
 * Milliseconds per request that the recorded delays do not account for: timers, sockets and the router itself, on this
 * machine and during this drive. Added to the recorded delays it makes the true latency of any policy.
 */
export const overheadMsOf = (known: Omit<Known, 'overheadMs'>, driven: readonly Driven[]): number => {
  const extra = driven.flatMap(({ asked, record }) => {
    const measured = record.outcome?.latency_ms ?? null
    return measured === null ? [] : [measured - worthOfPlan({ ...known, overheadMs: 0 }, asked, record.plan).latency_ms]
  })
  return extra.reduce((sum, ms) => sum + ms, 0) / Math.max(1, extra.length)
}

/** The world as the truth needs it, at the router's own prices: a refused call is free, one that broke off is not. */
export const knownOf = (world: World, seed: number, timeScale: number, driven: readonly Driven[]): Known => {
  const byModel = new Map(
    targets.map((target) => [target.model, { target, price: bookPrice(target.provider, target.upstreamModel) }]),
  )
  const find = (model: string) => {
    const found = byModel.get(model)
    if (!found) throw new RangeError(`the demo has no model '${model}'; it has: ${[...byModel.keys()].join(', ')}`)
    return found
  }
  const known: Omit<Known, 'overheadMs'> = {
    timeScale,
    outcome: ({ question }, model) => potential(world, seed, question, find(model).target),
    costUsd: (asked, model, { failure, outputTokens }) => {
      if (failure === '429' || failure === '500') return 0
      const sent = failure === 'cut' && !asked.stream ? 0 : outputTokens
      const usage = { inputTokens: tokensOf(promptOf(asked)), outputTokens: sent, cachedInputTokens: null }
      return find(model).price?.costUsd(usage) ?? Number.NaN
    },
  }
  return { ...known, overheadMs: overheadMsOf(known, driven) }
}
