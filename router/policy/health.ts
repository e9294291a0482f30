// The health of every target is a fold over attempts: `observe(health, attempt) → health`. The router keeps the newest
// value in one variable; replay's simulation folds its own with the same functions. Means are decayed by time, so that an
// hour-old outage is forgotten.
import { type Attempt, isTargetsFault, type Usage } from './attempt.ts'
import type { Features, RequestFeatures } from './record.ts'

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

/** What of an attempt says something about its target's health. */
export type Observed = Pick<Attempt, 'model' | 'startedAtMs' | 'durationMs' | 'ttftMs' | 'error'> & {
  readonly usage: Pick<Usage, 'outputTokens'>
}

/** Folds one attempt into the health of its target. */
export const observe = (health: Health, attempt: Observed): Health => {
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

const succeeded = (before: TargetHealth, attempt: Observed, atMs: number): TargetHealth => {
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

/**
 * Figures are rounded to what they can mean — hundredths of a millisecond, billionths of a dollar — because every one of
 * them is recorded with every decision, and a short number is cheaper to write, to store and to read.
 */
export const rounded = (value: number, perUnit: number): number => Math.round(value * perUnit) / perUnit
export const [hundredths, millionths, billionths] = [1e2, 1e6, 1e9] as const

/** The features of one target that change with what it has been through: those that a policy reads as its present state. */
export const stateFeatures = (
  request: Pick<RequestFeatures, 'output_tokens_max'>,
  { ttftMs, tokensPerS, outputTokens, errorRate, samples, breaker }: HealthSummary,
  inFlight: number,
) => {
  const expected = Math.min(outputTokens, request.output_tokens_max ?? Number.POSITIVE_INFINITY)
  return {
    /** Not rounded: what the predicted cost is computed from. */
    expected,
    features: {
      output_tokens_expected: rounded(expected, hundredths),
      ttft_ms: rounded(ttftMs, hundredths),
      tokens_per_s: rounded(tokensPerS, hundredths),
      latency_ms: rounded(ttftMs + (expected * 1000) / tokensPerS, hundredths),
      error_rate: rounded(errorRate, millionths),
      samples: rounded(samples, hundredths),
      in_flight: inFlight,
      breaker,
    },
  }
}

/**
 * The health that a snapshot shows, taken up again at `nowMs`: `healthOf` of it gives the recorded figures. What a
 * snapshot does not show is as if never seen; an open breaker is taken to have opened just now, for the first time.
 */
export const resumedHealth = (features: Features, nowMs: number): TargetHealth => {
  const number = (name: string): number | null => {
    const value = features[name]
    return typeof value === 'number' && Number.isFinite(value) ? value : null
  }
  const weight = number('samples') ?? 0
  const showing = (mean: number | null, prior: number): Decayed =>
    mean === null || weight <= 0 ? nothing : { sum: mean * (weight + 1) - prior, weight, atMs: nowMs }
  const tripped = features.breaker === 'open' || features.breaker === 'half-open'
  const tokensPerS = number('tokens_per_s')
  const decodeMs = tokensPerS ? (1000 * priors.outputTokens) / tokensPerS : null
  return {
    ttftMs: showing(number('ttft_ms'), priors.ttftMs),
    tokens: showing(priors.outputTokens, priors.outputTokens),
    decodeMs: showing(decodeMs, (1000 * priors.outputTokens) / priors.tokensPerS),
    outputTokens: showing(number('output_tokens_expected'), priors.outputTokens),
    errors: showing(number('error_rate'), priors.errorRate),
    failuresInRow: tripped ? failuresInRowMax : 0,
    opens: tripped ? 1 : 0,
    openUntilMs: features.breaker === 'open' ? nowMs + openMsFirst : 0,
  }
}
