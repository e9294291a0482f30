// The health of every target is a fold over attempts: `observe(health, attempt) → health`. The router keeps the newest
// value in one variable; replay can fold its own. Means are decayed by time, so that an hour-old outage is forgotten.
import type { Attempt } from './policy/attempt.ts'

/** How long until an observation counts half. */
const halfLifeMs = 120_000
/** Consecutive failures that open a breaker, and for how long: doubled each time it opens again, up to a limit. */
const failuresInRowMax = 5
const openMsFirst = 5_000
const openMsMax = 60_000

/** A mean of observations, each weighing half as much after every `halfLifeMs`. */
type Decayed = { readonly sum: number; readonly weight: number; readonly atMs: number }
const nothing: Decayed = { sum: 0, weight: 0, atMs: 0 }

const add = (mean: Decayed, value: number, atMs: number): Decayed => {
  const keep = 2 ** (-Math.max(0, atMs - mean.atMs) / halfLifeMs)
  return { sum: mean.sum * keep + value, weight: mean.weight * keep + 1, atMs: Math.max(atMs, mean.atMs) }
}
/** The mean, with the prior as one observation more: an unseen target reads as the prior, a forgotten one returns to it. */
const meanOf = ({ sum, weight, atMs }: Decayed, prior: number, nowMs: number): number => {
  const keep = 2 ** (-Math.max(0, nowMs - atMs) / halfLifeMs)
  return (sum * keep + prior) / (weight * keep + 1)
}
/** What is assumed of a target that has not been measured. */
const priors = { ttftMs: 500, tokensPerS: 50, outputTokens: 256, errorRate: 0 } as const

export type TargetHealth = {
  readonly ttftMs: Decayed
  readonly tokensPerS: Decayed
  readonly outputTokens: Decayed
  readonly errors: Decayed
  readonly failuresInRow: number
  /** How often the breaker opened without a success in between. */
  readonly opens: number
  readonly openUntilMs: number
}
export type Health = ReadonlyMap<string, TargetHealth>

const unseen: TargetHealth = {
  ttftMs: nothing,
  tokensPerS: nothing,
  outputTokens: nothing,
  errors: nothing,
  failuresInRow: 0,
  opens: 0,
  openUntilMs: 0,
}

/** Whether the target is to blame. A refused request (4xx) and a client that left say nothing about it. */
const verdictOn = ({ error }: Attempt): 'success' | 'failure' | 'neither' => {
  if (!error) return 'success'
  if (error.kind === 'client-abort') return 'neither'
  if (error.kind === 'status' && error.status < 500 && error.status !== 408 && error.status !== 429) return 'neither'
  return 'failure'
}

/** Folds one attempt into the health of its target. */
export const observe = (health: Health, attempt: Attempt): Health => {
  const verdict = verdictOn(attempt)
  if (verdict === 'neither') return health
  const atMs = attempt.startedAtMs + attempt.durationMs
  const before = health.get(attempt.model) ?? unseen
  const errors = add(before.errors, verdict === 'failure' ? 1 : 0, atMs)
  const after =
    verdict === 'failure' ? failed({ ...before, errors }, atMs) : succeeded({ ...before, errors }, attempt, atMs)
  return new Map(health).set(attempt.model, after)
}

const failed = (before: TargetHealth, atMs: number): TargetHealth => {
  const failuresInRow = before.failuresInRow + 1
  if (failuresInRow < failuresInRowMax || atMs < before.openUntilMs) return { ...before, failuresInRow }
  const openMs = Math.min(openMsMax, openMsFirst * 2 ** before.opens)
  return { ...before, failuresInRow, opens: before.opens + 1, openUntilMs: atMs + openMs }
}

const succeeded = (before: TargetHealth, attempt: Attempt, atMs: number): TargetHealth => {
  const { outputTokens } = attempt.usage
  const decodeMs = attempt.durationMs - (attempt.ttftMs ?? 0)
  return {
    ...before,
    failuresInRow: 0,
    opens: 0,
    openUntilMs: 0,
    ttftMs: attempt.ttftMs === null ? before.ttftMs : add(before.ttftMs, attempt.ttftMs, atMs),
    outputTokens: outputTokens === null ? before.outputTokens : add(before.outputTokens, outputTokens, atMs),
    tokensPerS:
      outputTokens && decodeMs > 0 ? add(before.tokensPerS, (outputTokens * 1000) / decodeMs, atMs) : before.tokensPerS,
  }
}

/** What is known of one target now; `samples` is the decayed count of observations behind it. */
export type HealthSummary = {
  readonly ttftMs: number
  readonly tokensPerS: number
  readonly outputTokens: number
  readonly errorRate: number
  readonly samples: number
  readonly breaker: 'closed' | 'open' | 'half-open'
}

/** Summarises a target. A breaker whose time is up lets one probe through: while that is in flight it reads as open. */
export const healthOf = (health: Health, model: string, nowMs: number, inFlight: number): HealthSummary => {
  const target = health.get(model) ?? unseen
  const tripped = target.failuresInRow >= failuresInRowMax
  const waiting = tripped && (nowMs < target.openUntilMs || inFlight > 0)
  return {
    ttftMs: meanOf(target.ttftMs, priors.ttftMs, nowMs),
    tokensPerS: meanOf(target.tokensPerS, priors.tokensPerS, nowMs),
    outputTokens: meanOf(target.outputTokens, priors.outputTokens, nowMs),
    errorRate: meanOf(target.errors, priors.errorRate, nowMs),
    samples: target.errors.weight,
    breaker: waiting ? 'open' : tripped ? 'half-open' : 'closed',
  }
}
