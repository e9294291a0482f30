// Which decisions to ask anew, in which order, and what that will cost and tell: pure, from the log and the candidate alone. The
// order does not depend on the budget, which only says how far down it to go; so a run may be topped up, or cut off
// anywhere, and the probability of every request to have been asked is still known.
import { createHash } from 'node:crypto'
import { draw } from '../../router/policy/chance.ts'
import type { Policy } from '../../router/policy/policy.ts'
import { type Candidate, contextOf, type DecisionRecord } from '../../router/policy/record.ts'
import { normalQuantile } from '../estimate/estimators.ts'
import type { PayloadNote } from './payloads.ts'
import type { Unasked } from './result.ts'
import { qualitySpreads } from './spread.ts'

/** Below this a call is as good as free; it keeps the square root away from 0. */
const costFloorUsd = 1e-7
/** A Poisson sample's cost varies, and reservations are larger than bills: the plan leaves this part of the budget to both. */
const plannedShare = 0.9
/** Tokens of an answer where neither the client nor the router says. */
const outputTokensGuess = 500
/** Of a judge's answer. */
const judgeTokensExpected = 40
const tokensPerMtok = 1e6
const bisectionsMax = 60

/** US dollars per million tokens. */
export type Price = { readonly input: number; readonly output: number }

/** Fits no budget. */
const unknownPrice: Price = { input: Infinity, output: Infinity }

export type JudgePlan = { readonly model: string; readonly price: Price; readonly repeatShare: number }

export type PlanOptions = {
  readonly seed: number
  /** Prices beside those in the records; they win. */
  readonly prices: ReadonlyMap<string, Price>
  readonly judge: JudgePlan | null
  /** At most so many tenants, drawn by a hash; Infinity for all. */
  readonly tenantsMax: number
}

/** A changed decision that can be asked. */
export type Ask = {
  readonly record: DecisionRecord
  readonly from: string | null
  readonly model: string
  readonly price: Price
  /** Predicted, with its judge. */
  readonly costUsd: number
  /** Requests sent for it, its judge's included, on average. */
  readonly calls: number
  readonly importance: number
  readonly priority: number
  /** The spread of the outcome that is asked for, and of the logged one. */
  readonly sd: number
  readonly sdFrom: number
}

export type Frame = {
  /** Requests that the records stand for (1 / keep probability each), and those of them that the candidate decides otherwise. */
  readonly rows: number
  readonly changed: number
  /** In the order of asking. */
  readonly asks: readonly Ask[]
  readonly unasked: readonly Unasked[]
  readonly tenantShare: number
  readonly digest: string
}

/** What the router knew of a model's price; null when it did not. */
export const priceOf = ({ features }: Candidate): Price | null => {
  const { input_usd_per_mtok: input, output_usd_per_mtok: output } = features
  return typeof input === 'number' && typeof output === 'number' ? { input, output } : null
}

/** US dollars for so many tokens. */
export const usdOf = ({ input, output }: Price, inputTokens: number, outputTokens: number): number =>
  (inputTokens * input + outputTokens * output) / tokensPerMtok

/** Judge calls for one answer, on average: once by itself or twice against the logged one, and the share that is repeated. */
const judgeCalls = (judge: JudgePlan, note: PayloadNote | null): number =>
  (note?.hasResponse ? 2 : 1) * (1 + judge.repeatShare)

/** The tenants whose requests may be asked. */
const drawnTenants = (records: readonly DecisionRecord[], { seed, tenantsMax }: PlanOptions) => {
  const all = [...new Set(records.map(({ request }) => request.tenant))]
  const lot = new Map(all.map((tenant) => [tenant, draw(tenant, 'reexec-tenant', String(seed))]))
  const drawn = all.sort((a, b) => (lot.get(a) ?? 0) - (lot.get(b) ?? 0)).slice(0, tenantsMax)
  return { drawn: new Set(drawn), share: all.length > 0 ? drawn.length / all.length : 1 }
}

/**
 * Every changed decision of `records` under `candidate`, in the order of asking: by u / importance, with u a hash of its
 * id and importance = k · sd / √cost (Neyman 1934's optimal allocation with unequal costs; Cochran 1977, §5.5). `noteOf` says whether
 * there is a payload; without it (null) every decision is taken to have one, as a plan made beforehand may.
 */
export const frameOf = (
  records: readonly DecisionRecord[],
  candidate: Policy,
  noteOf: ((id: string) => PayloadNote | undefined) | null,
  options: PlanOptions,
): Frame => {
  const unique = [...new Map(records.map((record) => [record.id, record])).values()]
  const spreadOf = qualitySpreads(unique)
  const sdOf = (model: string | null) => spreadOf(model).sd
  const tenants = drawnTenants(unique, options)
  const asks: Ask[] = []
  const unasked: Unasked[] = []
  let changed = 0
  for (const record of unique) {
    const decision = candidate.decide(contextOf(record))
    if (decision.chosen === record.chosen) continue
    changed += 1 / record.keep_probability
    const note = noteOf ? (noteOf(record.id) ?? null) : null
    const ask = noteOf && !note ? 'no-payload' : askOf(record, decision.chosen, note, sdOf, options)
    if (typeof ask === 'string')
      unasked.push({
        v: 1,
        status: 'unasked',
        id: record.id,
        model: decision.chosen,
        inclusion_probability: 0,
        reason: ask,
      })
    else if (tenants.drawn.has(record.request.tenant)) asks.push(ask)
  }
  asks.sort((a, b) => a.priority - b.priority || (a.record.id < b.record.id ? -1 : 1))
  const hash = createHash('sha256')
  for (const { record, model, importance } of asks) hash.update(`${record.id}|${model}|${importance}\n`)
  const rows = unique.reduce((sum, { keep_probability }) => sum + 1 / keep_probability, 0)
  return { rows, changed, asks, unasked, tenantShare: tenants.share, digest: `sha256:${hash.digest('hex')}` }
}

const askOf = (
  record: DecisionRecord,
  chosen: string | null,
  note: PayloadNote | null,
  sdOf: (model: string | null) => number,
  { seed, prices, judge }: PlanOptions,
): Ask | Unasked['reason'] => {
  const candidate = record.candidates.find(({ model }) => model === chosen)
  if (!candidate) return 'none-eligible'
  const known = prices.get(candidate.model) ?? priceOf(candidate)
  const { cost_usd: predicted, output_tokens_expected: expected } = candidate.features
  const inputTokens = record.request.input_tokens
  const outputTokens = typeof expected === 'number' ? expected : outputTokensGuess
  // A plan made beforehand may go by predictions; what is asked needs a price, or its cost has no bound.
  if (!known && (note || typeof predicted !== 'number')) return 'unpriced'
  const price = known ?? unknownPrice
  const answerUsd = typeof predicted === 'number' ? predicted : usdOf(price, inputTokens, outputTokens)
  const shown = inputTokens + outputTokens * (note?.hasResponse ? 2 : 1)
  const judgeUsd = judge ? judgeCalls(judge, note) * usdOf(judge.price, shown, judgeTokensExpected) : 0
  const costUsd = answerUsd + judgeUsd
  const sd = sdOf(candidate.model)
  const importance = sd / record.keep_probability / Math.sqrt(Math.max(costFloorUsd, costUsd))
  const priority = draw(record.id, 'reexec', String(seed)) / importance
  const base = { record, from: record.chosen, model: candidate.model, price, importance, priority }
  const calls = 1 + (judge ? judgeCalls(judge, note) : 0)
  return { ...base, costUsd, calls, sd, sdFrom: sdOf(record.chosen) }
}

const probabilityAt = (threshold: number, { importance }: Ask): number => Math.min(1, threshold * importance)

/** What asking down to a threshold is expected to take and to tell. */
export type Forecast = {
  readonly threshold: number
  /** Decisions asked anew, and requests sent, the judge's included. */
  readonly answers: number
  readonly calls: number
  readonly usd: number
  /** Of the 95 % interval of the mean quality's difference, over all requests. */
  readonly halfWidth: number
}

/**
 * Half-width = 1.96 / N · √Σ_changed k² (sd'² / ρ + sd²): what the sample of new answers and the logged ones they are compared
 * with leave open. Dollars and calls are expectations over the draw.
 */
export const forecast = ({ rows, asks, tenantShare }: Frame, threshold: number): Forecast => {
  let [answers, calls, usd, variance] = [0, 0, 0, 0]
  for (const ask of asks) {
    const probability = probabilityAt(threshold, ask)
    answers += probability
    calls += probability * ask.calls
    usd += probability * ask.costUsd
    const spread = ask.sd ** 2 / probability + ask.sdFrom ** 2
    variance += spread / ask.record.keep_probability ** 2 / tenantShare ** 2
  }
  const halfWidth = asks.length > 0 ? (normalQuantile * Math.sqrt(variance)) / rows : 0
  return { threshold, answers, calls, usd, halfWidth }
}

/** The largest threshold for which `fits`, which must hold at 0 and turn at most once. */
const largestThreshold = ({ asks }: Frame, fits: (threshold: number) => boolean): number => {
  const all = asks.reduce((max, { importance }) => Math.max(max, 1 / importance), 0)
  if (fits(all)) return all
  let [low, high] = [0, all]
  for (let step = 0; step < bisectionsMax; step++) {
    const middle = (low + high) / 2
    if (fits(middle)) low = middle
    else high = middle
  }
  return low
}

/** How far down the order the budget goes: Σ ρ_i c_i is nine tenths of it, or every changed decision is asked. */
export const affordable = (frame: Frame, budgetUsd: number, callsMax: number): Forecast =>
  forecast(
    frame,
    largestThreshold(frame, (threshold) => {
      const { usd, calls } = forecast(frame, threshold)
      return usd <= plannedShare * budgetUsd && calls <= callsMax
    }),
  )

/** How far down to go for a half-width within the margin; all the way where even that is not enough. */
export const precise = (frame: Frame, margin: number): Forecast =>
  forecast(
    frame,
    largestThreshold(frame, (threshold) => forecast(frame, threshold).halfWidth > margin),
  )
