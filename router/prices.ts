// What a call costs. A price comes from signalbox.yaml or from the dated price book of the package genai-prices; where
// neither knows it, it is null and stays null: never 0, never a guess.
import { calcPrice } from '@pydantic/genai-prices'
import type { Usage } from './policy/attempt.ts'

const tokensPerMtok = 1e6

type Tokens = Pick<Usage, 'inputTokens' | 'outputTokens' | 'cachedInputTokens'>

/** Prices in US dollars per million tokens; `costUsd` is null when the price or a token count is not known. */
export type Price = {
  readonly source: 'config' | 'book' | 'unknown'
  readonly inputUsdPerMtok: number | null
  readonly outputUsdPerMtok: number | null
  readonly costUsd: (usage: Tokens) => number | null
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

/** A usage to compare by: whatever a price charges beside these tokens shows as a difference. */
const probe = { inputTokens: 1000, outputTokens: 100, cachedInputTokens: 200 } as const

const bookCost = (
  model: string,
  providerId: string,
  { inputTokens, outputTokens, cachedInputTokens }: Tokens,
): number | null => {
  if (inputTokens === null || outputTokens === null) return null
  const usage = {
    input_tokens: inputTokens,
    output_tokens: outputTokens,
    cache_read_tokens: Math.min(cachedInputTokens ?? 0, inputTokens),
  }
  try {
    return calcPrice(usage, model, { providerId })?.total_price ?? null
  } catch {
    // The book cannot price this usage; that makes the cost unknown, not the request a failure.
    return null
  }
}

/**
 * The book's price in force now, or null when the book does not know the model. Prices by the token alone are computed
 * here; those with tiers or fees per request are asked for each call.
 */
export const bookPrice = (providerId: string, model: string): Price | null => {
  const found = calcPrice({ input_tokens: 1, output_tokens: 1 }, model, { providerId })
  if (!found) return null
  const { input_mtok: input, output_mtok: output, cache_read_mtok: cached } = found.model_price
  const costUsd = (tokens: Tokens) => bookCost(model, providerId, tokens)
  if (typeof input === 'number' && typeof output === 'number' && (cached === undefined || typeof cached === 'number')) {
    const price = linear('book', input, output, cached ?? input)
    if (Math.abs((price.costUsd(probe) ?? 0) - (costUsd(probe) ?? 0)) < 1e-12) return price
  }
  const base = (price: typeof input): number | null => (typeof price === 'number' ? price : (price?.base ?? null))
  return { source: 'book', inputUsdPerMtok: base(input), outputUsdPerMtok: base(output), costUsd }
}
