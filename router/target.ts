// A target: one model at one provider, with all that is needed to ask it.
import type { Price } from './prices.ts'

export type Provider = {
  readonly name: string
  /** The API it speaks. */
  readonly kind: 'openai'
  /** Ends in a slash. */
  readonly baseUrl: URL
  readonly apiKey: string | null
  readonly passTraceparent: boolean
  readonly timeoutsMs: {
    readonly connect: number
    readonly firstByte: number
    readonly idle: number
    readonly total: number
  }
}

/** A model as the router knows it: where to ask for it, what it costs, what policies may know of it. */
export type Target = {
  readonly model: string
  readonly upstreamModel: string
  readonly provider: Provider
  readonly contextTokensMax: number | null
  readonly price: Price
  readonly features: Readonly<Record<string, number | string | boolean>>
}
