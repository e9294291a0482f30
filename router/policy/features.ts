// How expressions look up what is known of a candidate. A property that the code names is found at once, one that a variable
// names is searched for every time, and a replay asks a hundred million times: so what every router knows is written out.
import type { Features, FeatureValue } from './record.ts'

/** One feature of a candidate; null when it is unknown. */
export type FeatureReader = (features: Features) => FeatureValue

const named: Readonly<Record<string, FeatureReader>> = {
  provider: ({ provider }) => provider ?? null,
  breaker: ({ breaker }) => breaker ?? null,
  context_tokens_max: (features) => features.context_tokens_max ?? null,
  input_usd_per_mtok: (features) => features.input_usd_per_mtok ?? null,
  output_usd_per_mtok: (features) => features.output_usd_per_mtok ?? null,
  cost_usd: (features) => features.cost_usd ?? null,
  quality: ({ quality }) => quality ?? null,
  output_tokens_expected: (features) => features.output_tokens_expected ?? null,
  ttft_ms: (features) => features.ttft_ms ?? null,
  tokens_per_s: (features) => features.tokens_per_s ?? null,
  latency_ms: (features) => features.latency_ms ?? null,
  error_rate: (features) => features.error_rate ?? null,
  samples: ({ samples }) => samples ?? null,
  in_flight: (features) => features.in_flight ?? null,
}

/** What an unknown feature reads as where an expression asks for it all the same. */
export const unknownValue = { double: Number.NaN, string: '', bool: false } as const

/** What reads the feature of this name. */
export const featureReader = (name: string): FeatureReader =>
  Object.hasOwn(named, name) ? (named[name] as FeatureReader) : (features) => features[name] ?? null

/** What tells the first of these features that is unknown; null when none is. */
export const unknownFinder = (names: readonly string[]): ((features: Features) => string | null) => {
  const readers = names.map(featureReader)
  return (features) => {
    for (let at = 0; at < readers.length; at++)
      if ((readers[at] as FeatureReader)(features) === null) return names[at] as string
    return null
  }
}
