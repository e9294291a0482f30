// One call to one target, on a keep-alive pool. Its result is always a value. A JSON answer is held until it is whole; a
// stream is held until its first content and passed through from then on, as it comes and as fast as the client reads.
import type { IncomingHttpHeaders } from 'node:http'
import { type Dispatcher, Pool } from 'undici'
import { bodyFor, type ChatRequest } from './chat.ts'
import type { Client } from './client.ts'
import { EventReader, emptyReading, type Reading, readAnswer, type StreamPiece, usageFrom } from './completion.ts'
import type { Attempt, AttemptError, Usage } from './policy/attempt.ts'
import type { StreamEnd } from './policy/record.ts'
import type { Provider, Target } from './target.ts'
import { type Trace, traceparentFor } from './trace.ts'

const connectionsMax = 1024
/** A JSON answer, an error body, or what a stream sends before its first content. */
const heldBytesMax = 33_554_432
const retryAfterMsMax = 3_600_000

export type Call = {
  readonly number: number
  readonly cause: string
  readonly target: Target
  readonly chat: ChatRequest
  readonly client: Client
  readonly trace: Trace
  /** Called with the response's head when the stream's first content is at hand. */
  readonly begin: (headers: IncomingHttpHeaders) => void
}

/** What a call came to: the attempt as recorded, and what there is to pass on if nothing has been passed on yet. */
export type Answer = { readonly attempt: Attempt; readonly headers: IncomingHttpHeaders; readonly body: Buffer }

/** The pools, one per provider. */
export class Upstream {
  readonly #pools = new Map<string, Pool>()

  async call(call: Call): Promise<Answer> {
    const { provider, upstreamModel } = call.target
    const body = bodyFor(call.chat, upstreamModel)
    const { promise, resolve } = Promise.withResolvers<Answer>()
    const handler = new CallHandler(call, resolve)
    this.#poolFor(provider).dispatch(
      {
        path: `${provider.baseUrl.pathname}chat/completions`,
        method: 'POST',
        headers: {
          'content-type': 'application/json',
          accept: call.chat.stream ? 'text/event-stream' : 'application/json',
          ...(provider.apiKey ? { authorization: `Bearer ${provider.apiKey}` } : {}),
          ...(provider.passTraceparent ? { traceparent: traceparentFor(call.trace, call.number) } : {}),
        },
        body,
        headersTimeout: call.chat.stream ? provider.timeoutsMs.firstByte : provider.timeoutsMs.total,
        bodyTimeout: provider.timeoutsMs.idle,
      },
      handler,
    )
    return promise
  }

  #poolFor(provider: Provider): Pool {
    let pool = this.#pools.get(provider.name)
    if (!pool) {
      pool = new Pool(provider.baseUrl.origin, {
        connections: connectionsMax,
        connect: { timeout: provider.timeoutsMs.connect },
      })
      this.#pools.set(provider.name, pool)
    }
    return pool
  }

  async close(): Promise<void> {
    await Promise.all([...this.#pools.values()].map((pool) => pool.destroy()))
  }
}

const abortedByUs = new Error('aborted by the router')

/** Folds undici's callbacks into one Answer. */
class CallHandler implements Dispatcher.DispatchHandler {
  readonly #call: Call
  readonly #settle: (answer: Answer) => void
  readonly #startedAtMs: number
  readonly #totalTimer: NodeJS.Timeout
  #controller: Dispatcher.DispatchController | null = null
  #status: number | null = null
  #headers: IncomingHttpHeaders = {}
  #connectMs: number | null = null
  #headersMs: number | null = null
  #ttftMs: number | null = null
  #reader: EventReader | null = null
  #held: Buffer[] = []
  #heldBytes = 0
  #begun = false
  #error: AttemptError | null = null
  #settled = false

  constructor(call: Call, settle: (answer: Answer) => void) {
    this.#call = call
    this.#settle = settle
    this.#startedAtMs = call.client.nowMs()
    const { total } = call.target.provider.timeoutsMs
    this.#totalTimer = setTimeout(() => this.#abort({ kind: 'timeout', phase: 'total' }), total)
    call.client.onGone = () => this.#abort({ kind: 'client-abort' })
    call.client.onDrain = () => this.#controller?.resume()
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller
    if (this.#error || this.#call.client.gone) this.#abort(this.#error ?? { kind: 'client-abort' })
    else this.#connectMs = this.#elapsedMs()
  }

  onResponseStart(_: Dispatcher.DispatchController, status: number, headers: IncomingHttpHeaders): void {
    this.#status = status
    this.#headers = headers
    this.#headersMs = this.#elapsedMs()
    const isStream = String(headers['content-type']).startsWith('text/event-stream')
    if (status === 200 && isStream) this.#reader = new EventReader(this.#call.chat.wantsUsage)
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.#error) return
    const piece = this.#reader?.push(chunk)
    if (!piece) this.#hold(chunk)
    else this.#take(controller, piece)
  }

  #take(controller: Dispatcher.DispatchController | null, piece: StreamPiece): void {
    if (piece.content) this.#ttftMs ??= this.#elapsedMs()
    this.#pass(controller, piece.forward)
    if (piece.kind === 'malformed') this.#abort({ kind: 'malformed' })
    else if (piece.kind === 'error') this.#abort({ kind: 'upstream-cut' })
  }

  onResponseEnd(): void {
    if (this.#reader && !this.#error) this.#take(this.#controller, this.#reader.end())
    if (this.#status === 200) this.#error ??= this.#reader ? this.#streamError(this.#reader.reading) : null
    this.#finish()
  }

  onResponseError(_: Dispatcher.DispatchController, error: Error): void {
    this.#error ??= errorOf(error, this.#connectMs !== null)
    this.#finish()
  }

  #streamError(reading: Reading): AttemptError | null {
    if (!reading.done) return { kind: 'upstream-cut' }
    // A whole stream without content (a refusal of zero tokens, say) is passed on as it is.
    if (!this.#begun) this.#begin()
    return null
  }

  #pass(controller: Dispatcher.DispatchController | null, forward: Buffer): void {
    if (forward.length === 0) return
    if (!this.#begun) {
      this.#hold(forward)
      if (this.#ttftMs !== null && !this.#error) this.#begin()
    } else if (!this.#call.client.write(forward)) controller?.pause()
  }

  #begin(): void {
    this.#begun = true
    this.#call.begin(this.#headers)
    if (!this.#call.client.write(Buffer.concat(this.#held))) this.#controller?.pause()
    this.#held = []
  }

  #hold(chunk: Buffer): void {
    this.#heldBytes += chunk.length
    if (this.#heldBytes > heldBytesMax) this.#abort({ kind: 'too-large' })
    else this.#held.push(chunk)
  }

  #abort(error: AttemptError): void {
    this.#error ??= error
    if (this.#controller) this.#controller.abort(abortedByUs)
    // Still waiting for a connection: settle now; the request is aborted as soon as it gets one.
    else this.#finish()
  }

  #elapsedMs(): number {
    return this.#call.client.nowMs() - this.#startedAtMs
  }

  #finish(): void {
    if (this.#settled) return
    this.#settled = true
    clearTimeout(this.#totalTimer)
    const { client } = this.#call
    client.onGone = null
    client.onDrain = null
    const body = Buffer.concat(this.#held)
    const reading = this.#reader?.reading ?? emptyReading()
    if (!this.#reader && this.#status !== null && !this.#error)
      this.#error = bodyError(this.#status, this.#headers, body, reading)
    this.#settle({ attempt: this.#attempt(reading), headers: this.#headers, body })
  }

  #attempt(reading: Reading): Attempt {
    const { number, cause, target, chat } = this.#call
    const { baseUrl } = target.provider
    const sent = this.#connectMs !== null
    const usage = sent ? usageOf(this.#error, reading, chat.inputTokens) : nothingUsed
    const costUsd = usage.inputTokens === 0 && usage.outputTokens === 0 ? 0 : target.price.costUsd(usage)
    return {
      number,
      cause,
      model: target.model,
      provider: target.provider.name,
      upstreamModel: target.upstreamModel,
      serverAddress: baseUrl.hostname,
      serverPort: Number(baseUrl.port) || (baseUrl.protocol === 'https:' ? 443 : 80),
      stream: chat.stream,
      startedAtMs: this.#startedAtMs,
      durationMs: this.#elapsedMs(),
      connectMs: this.#connectMs,
      headersMs: this.#headersMs,
      ttftMs: this.#ttftMs,
      status: this.#status,
      error: this.#error,
      streamEnd: this.#reader ? streamEndOf(this.#error) : null,
      usage,
      costUsd,
      costSource: costUsd === null ? 'unknown' : usage.source,
      responseId: reading.responseId,
      responseModel: reading.responseModel,
      finishReasons: reading.finishReasons,
    }
  }
}

const nothingUsed: Usage = {
  inputTokens: 0,
  outputTokens: 0,
  cachedInputTokens: null,
  reasoningTokens: null,
  source: 'measured',
}

/** Nothing was generated where the answer is an error status, or the request never left; a call cut short is estimated. */
const usageOf = (error: AttemptError | null, reading: Reading, inputTokens: number): Usage =>
  error?.kind === 'status' ? nothingUsed : usageFrom(reading, inputTokens)

const bodyError = (
  status: number,
  headers: IncomingHttpHeaders,
  body: Buffer,
  reading: Reading,
): AttemptError | null => {
  // A redirect, or an answer without content, is none of this API: as useless as one that cannot be read.
  if (status < 400 && status !== 200) return { kind: 'malformed' }
  if (status !== 200) return { kind: 'status', status, retryAfterMs: retryAfterMs(headers['retry-after']) }
  return readAnswer(reading, body) ? null : { kind: 'malformed' }
}

/** Retry-After in milliseconds, from seconds or an HTTP date; null when there is none. */
const retryAfterMs = (value: string | undefined): number | null => {
  if (value === undefined) return null
  const ms = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now()
  return Number.isFinite(ms) ? Math.min(Math.max(0, ms), retryAfterMsMax) : null
}

const streamEndOf = (error: AttemptError | null): StreamEnd => {
  switch (error?.kind) {
    case undefined:
      return 'complete'
    case 'client-abort':
      return 'client-abort'
    case 'timeout':
      return 'stalled'
    case 'malformed':
    case 'too-large':
      return 'malformed'
    case 'connect':
    case 'status':
    case 'upstream-cut':
      return 'upstream-cut'
  }
}

/** `sent` tells whether the request had a connection: what fails before it is a connect error, and nothing after it is. */
const errorOf = (error: Error & { code?: string }, sent: boolean): AttemptError => {
  switch (error.code) {
    case 'UND_ERR_CONNECT_TIMEOUT':
      return { kind: 'timeout', phase: 'connect' }
    case 'UND_ERR_HEADERS_TIMEOUT':
      return { kind: 'timeout', phase: 'first-byte' }
    case 'UND_ERR_BODY_TIMEOUT':
      return { kind: 'timeout', phase: 'idle' }
    case 'ECONNRESET':
    case 'EPIPE':
    case 'UND_ERR_SOCKET':
    case 'UND_ERR_RES_CONTENT_LENGTH_MISMATCH':
      return { kind: 'upstream-cut' }
  }
  if (sent) return { kind: 'malformed' }
  return { kind: 'connect', code: error.code ?? error.name }
}
