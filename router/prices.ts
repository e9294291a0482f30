// What a call costs. A price comes from signalbox.yaml or from the dated price book of the package genai-prices; where
// neither knows it, it is null and stays null: never 0, never a guess.
import { calcPrice } from '@pydantic/genai-prices'
import type { Usage } from './policy/attempt.ts'

const tokensPerMtok = 1e6

/** Prices in US dollars per million tokens; `costUsd` is null when the price or a token count is not known. */
export type Price = {
  readonly source: 'config' | 'book' | 'unknown'
  readonly inputUsdPerMtok: number | null
  readonly outputUsdPerMtok: number | null
  readonly costUsd: (usage: Pick<Usage, 'inputTokens' | 'outputTokens' | 'cachedInputTokens'>) => number | null
}

export const unknownPrice: Price = {
  source: 'unknown',
  inputUsdPerMtok: null,
  outputUsdPerMtok: null,
  costUsd: () => null,
}

const linear = (source: Price['source'], input: number, output: number, cached: number): Price => ({
  source,
  inputUsdPerMtok: input,
  outputUsdPerMtok: output,
  costUsd: ({ inputTokens, outputTokens, cachedInputTokens }) => {
    if (inputTokens === null || outputTokens === null) return null
    const fromCache = Math.min(cachedInputTokens ?? 0, inputTokens)
    return ((inputTokens - fromCache) * input + fromCache * cached + outputTokens * output) / tokensPerMtok
  },
})

/** A price written in signalbox.yaml; cached input costs as much as other input unless it says otherwise. */
export const configuredPrice = (price: {
  input_usd_per_mtok: number
  output_usd_per_mtok: number
  cached_input_usd_per_mtok?: number | undefined
}): Price =>
  linear(
    'config',
    price.input_usd_per_mtok,
    price.output_usd_per_mtok,
    price.cached_input_usd_per_mtok ?? price.input_usd_per_mtok,
  )

/** The book's price in force now, or null when the book does not know the model. Tiered prices are asked per call. */
export const bookPrice = (providerId: string, model: string): Price | null => {
  const found = calcPrice({ input_tokens: 1, output_tokens: 1 }, model, { providerId })
  if (!found) return null
  const { input_mtok: input, output_mtok: output, cache_read_mtok: cached } = found.model_price
  if (typeof input === 'number' && typeof output === 'number' && (cached === undefined || typeof cached === 'number'))
    return linear('book', input, output, cached ?? input)
  const base = (price: typeof input): number | null => (typeof price === 'number' ? price : (price?.base ?? null))
  return {
    source: 'book',
    inputUsdPerMtok: base(input),
    outputUsdPerMtok: base(output),
    costUsd: ({ inputTokens, outputTokens, cachedInputTokens }) =>
      inputTokens === null || outputTokens === null
        ? null
        : (calcPrice(
            { input_tokens: inputTokens, output_tokens: outputTokens, cache_read_tokens: cachedInputTokens ?? 0 },
            model,
            { providerId },
          )?.total_price ?? null),
  }
}
