// One call to an OpenAI-compatible API, with its model pinned: asked again while it is told to wait, read within limits,
// priced, and kept, so that the same body is never paid for twice. What a provider does is a value; nothing here throws for it.
import { createHash } from 'node:crypto'
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Agent, type Dispatcher, request } from 'undici'
import { z } from 'zod'
import { answerText, type Body } from './payloads.ts'
import { type Price, usdOf } from './plan.ts'

const attemptsMax = 5
const waitMsMin = 500
const waitMsMax = 60_000
const callMsMax = 300_000
const answerBytesMax = 16 << 20
const errorCharsMax = 300
const tooManyRequests = 429
const serverErrorFrom = 500

const answeredSchema = z.object({
  kind: z.literal('answered'),
  text: z.string(),
  /** US dollars; null when neither the header nor usage and price tell. */
  costUsd: z.number().min(0).nullable(),
  latencyMs: z.number(),
  /** Known for streams only. */
  ttftMs: z.number().nullable(),
  outputTokens: z.number().nullable(),
})
type Answered = z.infer<typeof answeredSchema>

/** `costUsd` is null when the call may have been charged all the same. */
type Failed = {
  readonly kind: 'failed'
  readonly error: string
  readonly costUsd: number | null
  readonly latencyMs: number
}

/** `paidUsd` is what this call took from the budget: 0 from the cache, null when not known; `calls` are the requests sent. */
export type Answer = (Answered | Failed) & { readonly paidUsd: number | null; readonly calls: number }

export type Caller = {
  /** Asks `model`; `repeat` tells apart calls whose bodies are equal and whose answers shall not be. Never throws. */
  readonly ask: (model: string, body: Body, price: Price, repeat?: number) => Promise<Answer>
  readonly close: () => Promise<void>
}

export type CallerOptions = {
  /** As in http://127.0.0.1:8080/v1 */
  readonly url: string
  readonly key: string | null
  readonly cacheFolder: string
  readonly concurrency: number
  /** Whether one more request may be sent for what was refused, which then counts as sent. */
  readonly mayRetry: () => boolean
  /** Cuts off what is in flight. */
  readonly signal: AbortSignal
}

export const callerOf = async (options: CallerOptions): Promise<Caller> => {
  const { url, key, cacheFolder, concurrency, signal } = options
  // Answers are content: for the eyes of whoever ran it.
  await mkdir(cacheFolder, { recursive: true, mode: 0o700 })
  const agent = new Agent({ connections: concurrency })
  const target = `${url.replace(/\/+$/, '')}/chat/completions`
  const headers = { 'content-type': 'application/json', ...(key === null ? {} : { authorization: `Bearer ${key}` }) }
  const askOnce = async (path: string, model: string, body: string, price: Price): Promise<Answer> => {
    const kept = await readKept(path)
    if (kept) return { ...kept, paidUsd: 0, calls: 0 }
    const { answer, calls } = await askPatiently(
      () => send(target, { headers, body, dispatcher: agent, signal }, model, price),
      options,
    )
    if (answer.kind === 'answered') await keep(path, answer)
    return { ...answer, paidUsd: answer.costUsd, calls }
  }
  // Equal bodies are asked one after another: whoever comes second finds the answer kept.
  const asking = new Map<string, Promise<Answer>>()
  return {
    ask: async (model, body, price, repeat = 0) => {
      const text = JSON.stringify(pinned(body, model))
      const name = createHash('sha256').update(`${model}\n${repeat}\n${text}`).digest('hex')
      const path = join(cacheFolder, `${name}.json`)
      const last = Promise.resolve(asking.get(path)).then(() => askOnce(path, model, text, price))
      asking.set(path, last)
      const answer = await last
      if (asking.get(path) === last) asking.delete(path)
      return answer
    },
    close: () => agent.destroy(),
  }
}

const pinned = (body: Body, model: string): Body => ({
  ...body,
  model,
  ...(body.stream ? { stream_options: { include_usage: true } } : {}),
})

const readKept = async (path: string): Promise<Answered | null> => {
  try {
    return answeredSchema.parse(JSON.parse(await readFile(path, 'utf8')))
  } catch {
    // Not there, or not whole: asked again.
    return null
  }
}

/** An answer that cannot be kept has been paid for all the same: it counts, and is only not there for another time. */
const keep = async (path: string, answer: Answered): Promise<void> => {
  const part = `${path}.part`
  await writeFile(part, JSON.stringify(answer))
    .then(() => rename(part, path))
    .catch(() => rm(part, { force: true }))
    .catch(() => {})
}

/** What one attempt came to; `retryMs` when it was refused before any work was done and may be made again after so long. */
type Attempt = { readonly answer: Answered | Failed; readonly retryMs: number | null }

const askPatiently = async (
  attempt: () => Promise<Attempt>,
  { signal, mayRetry }: Pick<CallerOptions, 'signal' | 'mayRetry'>,
): Promise<{ readonly answer: Answered | Failed; readonly calls: number }> => {
  for (let number = 1; ; number++) {
    const { answer, retryMs } = await attempt()
    if (retryMs === null || number === attemptsMax || signal.aborted || !mayRetry()) return { answer, calls: number }
    const backoffMs = waitMsMin * 2 ** (number - 1)
    await sleep(Math.min(waitMsMax, Math.max(retryMs, backoffMs)), null, { signal }).catch(() => null)
  }
}

type Options = {
  readonly headers: Record<string, string>
  readonly body: string
  readonly dispatcher: Dispatcher
  readonly signal: AbortSignal
}

const send = async (url: string, options: Options, model: string, price: Price): Promise<Attempt> => {
  const startMs = performance.now()
  const elapsedMs = () => performance.now() - startMs
  const failed = (error: string, costUsd: number | null, retryMs: number | null = null): Attempt => ({
    answer: { kind: 'failed', error: excerptOf(error), costUsd, latencyMs: elapsedMs() },
    retryMs,
  })
  const signal = AbortSignal.any([options.signal, AbortSignal.timeout(callMsMax)])
  try {
    const response = await request(url, { ...options, method: 'POST', signal, headersTimeout: callMsMax })
    const { statusCode, headers } = response
    const billed = billedUsd(headers['x-signalbox-cost-usd'])
    const served = headers['x-signalbox-model']
    const read = await readBody(response.body, elapsedMs)
    if (statusCode >= 400) {
      const retryMs = statusCode === tooManyRequests || statusCode >= serverErrorFrom ? retryAfterMs(headers) : null
      // No provider charges for an error answer, unless the router says that an attempt behind it cost something.
      return failed(`HTTP ${statusCode}: ${read.raw}`, billed ?? 0, billed ? null : retryMs)
    }
    const { text, usage } = read
    const costUsd = billed ?? usageUsd(price, usage)
    if (read.error !== null) return failed(`cut off: ${read.error}`, costUsd)
    if (text === null) return failed(`not a chat completion: ${read.raw}`, costUsd)
    if (served !== undefined && served !== model)
      return failed(`answered by '${String(served)}', not '${model}'`, costUsd)
    const outputTokens = usage?.completion_tokens ?? null
    return {
      answer: { kind: 'answered', text, costUsd, latencyMs: elapsedMs(), ttftMs: read.ttftMs, outputTokens },
      retryMs: null,
    }
  } catch (error) {
    const { code, message } = error as Error & { code?: string }
    // Refused before the request left: nothing was charged, and it may be tried again.
    const isUnsent = code === 'ECONNREFUSED' || code === 'UND_ERR_CONNECT_TIMEOUT'
    return failed(message || code || 'no answer', isUnsent ? 0 : null, isUnsent ? 0 : null)
  }
}

/** The beginning of a text, as one of its own: a slice would keep megabytes of an answer alive for its first words. */
const excerptOf = (text: string): string => Buffer.from(text.slice(0, errorCharsMax)).toString()

/** What a header says was charged, US dollars; null for anything that is no amount of money, so that no cap is fooled by it. */
const billedUsd = (header: string | string[] | undefined): number | null => {
  const usd = typeof header === 'string' && /^\d+(\.\d+)?(e[+-]?\d+)?$/i.test(header) ? Number(header) : Number.NaN
  return Number.isFinite(usd) ? usd : null
}

const usageUsd = (price: Price, usage: Read['usage']): number | null => {
  const usd = usage ? usdOf(price, usage.prompt_tokens, usage.completion_tokens) : Number.NaN
  return Number.isFinite(usd) ? usd : null
}

/** Retry-After in milliseconds: seconds or a date; 0 when there is none. */
const retryAfterMs = ({ 'retry-after': after }: Record<string, string | string[] | undefined>): number => {
  const text = String(after ?? '0')
  const ms = /^\d+(\.\d+)?$/.test(text) ? Number(text) * 1000 : Date.parse(text) - Date.now()
  return Number.isFinite(ms) ? Math.max(0, ms) : 0
}

const usageSchema = z.object({ prompt_tokens: z.number().min(0), completion_tokens: z.number().min(0) })
const messageSchema = z.looseObject({ content: z.unknown().optional(), tool_calls: z.unknown().optional() })
const completionSchema = z.object({
  choices: z.array(z.object({ message: messageSchema.optional(), delta: messageSchema.optional() })),
  usage: usageSchema.nullish().catch(null),
})

const errorSchema = z.object({ error: z.looseObject({ message: z.string() }) })

type Read = {
  readonly raw: string
  /** What a stream says went wrong, in an event of its own. */
  readonly error: string | null
  /** Null when it is no chat completion. */
  readonly text: string | null
  readonly usage: z.infer<typeof usageSchema> | null
  readonly ttftMs: number | null
}

/** A whole JSON answer or a stream of events, told apart by how it begins. */
const readBody = async (body: AsyncIterable<Buffer>, elapsedMs: () => number): Promise<Read> => {
  const decoder = new TextDecoder()
  let [raw, rest, bytes] = ['', '', 0]
  let text: string | null = null
  let usage: Read['usage'] = null
  let error: string | null = null
  let ttftMs: number | null = null
  const take = (json: string): void => {
    const value = parsed(json)
    error ??= errorSchema.safeParse(value).data?.error.message ?? null
    const piece = completionSchema.safeParse(value).data
    usage = piece?.usage ?? usage
    const [choice] = piece?.choices ?? []
    if (!choice?.message && !choice?.delta) return
    const found = answerText(choice.message ?? choice.delta)
    if (found !== '' && choice.delta) ttftMs ??= elapsedMs()
    text = (text ?? '') + found
  }
  const takeLine = (line: string): void => {
    if (line.startsWith('data:')) take(line.slice('data:'.length))
  }
  for await (const chunk of body) {
    bytes += chunk.length
    if (bytes > answerBytesMax) throw new Error(`the answer is longer than ${answerBytesMax} bytes`)
    const decoded = decoder.decode(chunk, { stream: true })
    raw += decoded
    rest += decoded
    // A megabyte without a line break is put together once, not with every piece of it.
    if (!decoded.includes('\n')) continue
    const lines = rest.split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) takeLine(line)
  }
  takeLine(rest)
  if (ttftMs === null && text === null) take(raw)
  return { raw, error, text, usage, ttftMs }
}

const parsed = (json: string): unknown => {
  try {
    return JSON.parse(json)
  } catch {
    return null
  }
}
