// What one call would bring: how long an answer, in what time, at what price. Everything is taken from the log, and what the
// log has itself — the same model's answer to the same request — is kept as it was.
import { draw } from '../../router/policy/chance.ts'
import type { DecisionRecord, Features } from '../../router/policy/record.ts'
import type { Arrival } from './arrivals.ts'
import type { Duration } from './latency-model.ts'
import { inputTokensOf, type LogModel, servedOf } from './log-model.ts'
import { type Price, priceIn, type World } from './scenario.ts'

const tokensPerMtok = 1e6

export type Answer = Duration & {
  readonly servedFromMs: number
  readonly outputTokens: number
  readonly cachedTokens: number
  readonly costUsd: number | null
}
/** What all calls of one simulation have in common. */
export type Setting = { readonly log: LogModel; readonly world: World; readonly seed: string }

/** The logged length where the same model answered; else as long, among its answers, as the logged one was among its own. */
export const outputTokensOf = (record: DecisionRecord, target: string, { log, seed }: Setting): number => {
  const logged = record.outcome?.output_tokens
  if (logged != null && servedOf(record) === target) return logged
  const tokens = log.target(target).outputTokens(log.verbosity(record, seed))
  return Math.min(tokens, record.request.output_tokens_max ?? Number.POSITIVE_INFINITY)
}

/** The answer to an arrival of which `cachedTokens` need not be read again. */
export const answerOf = (
  { id, record }: Arrival,
  target: string,
  cachedTokens: number,
  nowMs: number,
  setting: Setting,
): Answer => {
  const { log, seed } = setting
  const outputTokens = outputTokensOf(record, target, setting)
  const { sample } = log.target(target).latency(record.request.stream)
  return {
    ...sample(inputTokensOf(record) - cachedTokens, outputTokens, draw(id, seed, `time:${target}`)),
    servedFromMs: nowMs,
    outputTokens,
    cachedTokens,
    costUsd: costUsdOf(record, target, outputTokens, cachedTokens, setting),
  }
}

/** What a client that leaves at a moment has got of an answer, and what that costs. */
export const partOf = (
  answer: Answer,
  record: DecisionRecord,
  target: string,
  nowMs: number,
  setting: Setting,
): Answer => {
  const { servedFromMs, ttftMs, totalMs, cachedTokens } = answer
  const decodeMs = totalMs - (ttftMs ?? 0)
  const share = decodeMs > 0 ? Math.min(1, Math.max(0, (nowMs - servedFromMs - (ttftMs ?? 0)) / decodeMs)) : 0
  const outputTokens = Math.round(answer.outputTokens * share)
  return { ...answer, outputTokens, costUsd: costUsdOf(record, target, outputTokens, cachedTokens, setting) }
}

const numberOf = (value: unknown): number | null => (typeof value === 'number' ? value : null)

/** The price of a target when a record was decided: the recorded one, else the one that explains the log's costs. */
export const priceBefore = (features: Features | undefined, target: string, log: LogModel): Price | null => {
  const [input, output] = [numberOf(features?.input_usd_per_mtok), numberOf(features?.output_usd_per_mtok)]
  return input === null || output === null
    ? log.target(target).price
    : { input_usd_per_mtok: input, output_usd_per_mtok: output }
}

/** US dollars for tokens at a price. */
export const usd = (price: Price, inputTokens: number, outputTokens: number): number =>
  (inputTokens * price.input_usd_per_mtok + outputTokens * price.output_usd_per_mtok) / tokensPerMtok

/** The cost of an answer, US dollars; null when no price is known. What is unchanged costs to the cent what it cost. */
const costUsdOf = (
  record: DecisionRecord,
  target: string,
  outputTokens: number,
  cachedTokens: number,
  { log, world }: Setting,
): number | null => {
  const before = priceBefore(record.candidates.find(({ model }) => model === target)?.features, target, log)
  const now = priceIn(world, target, before)
  if (!now) return null
  const inputTokens = inputTokensOf(record)
  const nowUsd = usd(now, inputTokens - cachedTokens * (world.cache?.discount ?? 0), outputTokens)
  const { outcome } = record
  const isLogged = servedOf(record) === target && outcome?.attempts === 1 && outcome.output_tokens === outputTokens
  const beforeUsd = before ? usd(before, inputTokens, outputTokens) : 0
  return isLogged && outcome.cost_usd !== null && beforeUsd > 0 ? outcome.cost_usd * (nowUsd / beforeUsd) : nowUsd
}
