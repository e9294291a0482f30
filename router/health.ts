// The health of every target is a fold over attempts: `observe(health, attempt) → health`. The router keeps the newest
// value in one variable; replay can fold its own. Means are decayed by time, so that an hour-old outage is forgotten.
import { type Attempt, isTargetsFault } from './policy/attempt.ts'

/** How long until an observation counts half. */
const halfLifeMs = 120_000
/** Consecutive failures that open a breaker, and for how long: doubled each time it opens again, up to a limit. */
const failuresInRowMax = 5
const openMsFirst = 5_000
const openMsMax = 60_000

/** A mean of observations, each weighing half as much after every `halfLifeMs`. */
type Decayed = { readonly sum: number; readonly weight: number; readonly atMs: number }
const nothing: Decayed = { sum: 0, weight: 0, atMs: 0 }

/** The share of its weight that an observation still has. */
const keptOf = ({ atMs }: Decayed, nowMs: number): number => 2 ** (-Math.max(0, nowMs - atMs) / halfLifeMs)

const add = (mean: Decayed, value: number, atMs: number): Decayed => {
  const keep = keptOf(mean, atMs)
  return { sum: mean.sum * keep + value, weight: mean.weight * keep + 1, atMs: Math.max(atMs, mean.atMs) }
}
/** The mean, with the prior as one observation more: an unseen target reads as the prior, a forgotten one returns to it. */
const meanOf = (mean: Decayed, prior: number, nowMs: number): number => {
  const keep = keptOf(mean, nowMs)
  return (mean.sum * keep + prior) / (mean.weight * keep + 1)
}
/** What is assumed of a target that has not been measured. */
const priors = { ttftMs: 500, tokensPerS: 50, outputTokens: 256, errorRate: 0 } as const

export type TargetHealth = {
  readonly ttftMs: Decayed
  /** Tokens generated, and the milliseconds that took: their ratio is the throughput, long answers counting for more. */
  readonly tokens: Decayed
  readonly decodeMs: Decayed
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
  tokens: nothing,
  decodeMs: nothing,
  outputTokens: nothing,
  errors: nothing,
  failuresInRow: 0,
  opens: 0,
  openUntilMs: 0,
}

/** Folds one attempt into the health of its target. */
export const observe = (health: Health, attempt: Attempt): Health => {
  const { error } = attempt
  if (error && !isTargetsFault(error)) return health
  const atMs = attempt.startedAtMs + attempt.durationMs
  const before = health.get(attempt.model) ?? unseen
  const errors = add(before.errors, error ? 1 : 0, atMs)
  const after = error ? failed({ ...before, errors }, atMs) : succeeded({ ...before, errors }, attempt, atMs)
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
  const timed = outputTokens !== null && outputTokens > 0 && decodeMs > 0
  return {
    ...before,
    failuresInRow: 0,
    opens: 0,
    openUntilMs: 0,
    ttftMs: attempt.ttftMs === null ? before.ttftMs : add(before.ttftMs, attempt.ttftMs, atMs),
    outputTokens: outputTokens === null ? before.outputTokens : add(before.outputTokens, outputTokens, atMs),
    tokens: timed ? add(before.tokens, outputTokens, atMs) : before.tokens,
    decodeMs: timed ? add(before.decodeMs, decodeMs, atMs) : before.decodeMs,
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
  // A breaker cannot stay open longer than the limit, whatever a clock that stepped back says.
  const isOpen = nowMs < target.openUntilMs && target.openUntilMs - nowMs <= openMsMax
  const waiting = tripped && (isOpen || inFlight > 0)
  return {
    ttftMs: meanOf(target.ttftMs, priors.ttftMs, nowMs),
    tokensPerS:
      (1000 * meanOf(target.tokens, priors.outputTokens, nowMs)) /
      meanOf(target.decodeMs, (1000 * priors.outputTokens) / priors.tokensPerS, nowMs),
    outputTokens: meanOf(target.outputTokens, priors.outputTokens, nowMs),
    errorRate: meanOf(target.errors, priors.errorRate, nowMs),
    samples: target.errors.weight * keptOf(target.errors, nowMs),
    breaker: waiting ? 'open' : tripped ? 'half-open' : 'closed',
  }
}
