// The snapshot: everything a policy may know of the candidates, frozen at the moment of the decision and recorded with
// it. Names are those that policies write after `candidate.`.
import type { FeatureTypes } from './policy/cel.ts'
import { billionths, type Health, healthOf, rounded, stateFeatures } from './policy/health.ts'
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

/** Features of one target for one request; null is unknown. */
const featuresOf = (
  target: Target,
  request: RequestFeatures,
  health: Health,
  inFlight: number,
  nowMs: number,
): Features => {
  const { expected, features } = stateFeatures(request, healthOf(health, target.model, nowMs, inFlight), inFlight)
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
    ...features,
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
