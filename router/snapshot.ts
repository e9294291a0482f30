// The snapshot: everything a policy may know of the candidates, frozen at the moment of the decision and recorded with
// it. Names are those that policies write after `candidate.`.
import { type Health, healthOf } from './health.ts'
import type { FeatureTypes } from './policy/cel.ts'
import type { Context, Features, RequestFeatures } from './policy/record.ts'
import type { Target } from './target.ts'

/** What the router measures or computes for every candidate; `signalbox.yaml` may add more under `features`. */
export const snapshotTypes = {
  provider: 'string',
  context_tokens_max: 'double',
  input_usd_per_mtok: 'double',
  output_usd_per_mtok: 'double',
  cost_usd: 'double',
  quality: 'double',
  output_tokens_expected: 'double',
  ttft_ms: 'double',
  tokens_per_s: 'double',
  latency_ms: 'double',
  error_rate: 'double',
  samples: 'double',
  in_flight: 'double',
  breaker: 'string',
} as const satisfies FeatureTypes

/**
 * Figures are rounded to what they can mean — hundredths of a millisecond, billionths of a dollar — because every one of
 * them is recorded with every decision, and a short number is cheaper to write, to store and to read.
 */
const rounded = (value: number, perUnit: number): number => Math.round(value * perUnit) / perUnit
const [hundredths, millionths, billionths] = [1e2, 1e6, 1e9]

/** Features of one target for one request; null is unknown. */
const featuresOf = (
  target: Target,
  request: RequestFeatures,
  health: Health,
  inFlight: number,
  nowMs: number,
): Features => {
  const { ttftMs, tokensPerS, outputTokens, errorRate, samples, breaker } = healthOf(
    health,
    target.model,
    nowMs,
    inFlight,
  )
  const expected = Math.min(outputTokens, request.output_tokens_max ?? Number.POSITIVE_INFINITY)
  const costUsd = target.price.costUsd({
    inputTokens: request.input_tokens,
    outputTokens: expected,
    cachedInputTokens: null,
  })
  return {
    quality: null,
    ...target.features,
    provider: target.provider.name,
    context_tokens_max: target.contextTokensMax,
    input_usd_per_mtok: target.price.inputUsdPerMtok,
    output_usd_per_mtok: target.price.outputUsdPerMtok,
    cost_usd: costUsd === null ? null : rounded(costUsd, billionths),
    output_tokens_expected: rounded(expected, hundredths),
    ttft_ms: rounded(ttftMs, hundredths),
    tokens_per_s: rounded(tokensPerS, hundredths),
    latency_ms: rounded(ttftMs + (expected * 1000) / tokensPerS, hundredths),
    error_rate: rounded(errorRate, millionths),
    samples: rounded(samples, hundredths),
    in_flight: inFlight,
    breaker,
  }
}

/** The context of one decision. */
export const contextFor = (
  request: Pick<Context, 'id' | 'session' | 'request'>,
  targets: readonly Target[],
  health: Health,
  inFlight: ReadonlyMap<string, number>,
  nowMs: number,
): Context => ({
  ...request,
  time: new Date(nowMs).toISOString(),
  candidates: targets.map((target) => ({
    model: target.model,
    features: featuresOf(target, request.request, health, inFlight.get(target.model) ?? 0, nowMs),
  })),
})
