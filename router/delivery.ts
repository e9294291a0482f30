// Delivers ended spans, losing none while there is room. The SDK's own batch processor drops a batch that failed once
// and all that exceeds 2,048 spans; this one encodes each span as it ends, seals what has gathered into a batch, sends
// batches in order, and sends the same bytes again until they are taken, so the collector can tell a repetition.
import { setTimeout as sleep } from 'node:timers/promises'
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http'
import type { ReadableSpan, SpanProcessor } from '@opentelemetry/sdk-trace'
import type { Logger } from 'pino'
import { SpanBatch } from './span-encoder.ts'

/** Bytes held while the collector does not answer; past this, new spans are dropped and counted. */
const queuedBytesMax = 268_435_456
/** A batch is sealed when it has this many spans or bytes, or when its first span has waited this long. */
const batchSpansMax = 2048
const batchBytesMax = 4_194_304
const lingerMs = 250
const retryMsFirst = 100
const retryMsMax = 5_000
/** How long closing waits for a batch to be taken before what is left is given up and counted. */
const closeMsMax = 15_000
/** Statuses that say this batch will never be taken. */
const refusals = new Set([400, 413, 415, 422])

export type DeliveryCounts = {
  readonly queued: number
  readonly delivered: number
  /** Not delivered and never to be: the queue was full, or time ran out while closing. */
  readonly dropped: number
  /** Set aside because the collector refused the batch as bad. */
  readonly refused: number
}

type Response = {
  readonly partialSuccess?: { readonly rejectedSpans?: number | string; readonly errorMessage?: string }
}
type Serializer = {
  serializeRequest: (batch: unknown) => Uint8Array
  deserializeResponse: (body: Uint8Array) => Response
}
type Sent = { readonly ok: boolean; readonly status: number; readonly message: string; readonly rejected: number }

/** The official exporter, with its settings, transport and retries, handed batches that are encoded already. */
class EncodedBatchExporter extends OTLPTraceExporter {
  /** What the collector said beside 200 about the batch in flight; there is one at a time. */
  #partial: NonNullable<Response['partialSuccess']> = {}

  constructor(url: string) {
    super({ url })
    const delegate = (this as unknown as { _delegate?: { _serializer?: Serializer } })._delegate
    if (!delegate?._serializer) throw new TypeError('this version of the OTLP exporter keeps its serializer elsewhere')
    const { deserializeResponse } = delegate._serializer
    delegate._serializer = {
      serializeRequest: (batch) => (batch as [Uint8Array])[0],
      deserializeResponse: (body) => {
        const response = deserializeResponse(body)
        this.#partial = response.partialSuccess ?? {}
        return response
      },
    }
  }

  send(body: Uint8Array): Promise<Sent> {
    const { promise, resolve } = Promise.withResolvers<Sent>()
    this.#partial = {}
    this.export([body] as never, ({ code, error }) => {
      const { code: status = 0, message = '' } = (error ?? {}) as { code?: number; message?: string }
      const { rejectedSpans = 0, errorMessage = '' } = this.#partial
      resolve({ ok: code === 0, status, message: message || errorMessage, rejected: Number(rejectedSpans) })
    })
    return promise
  }
}

type Sealed = { readonly body: Uint8Array; readonly spans: number }

export class DeliveryProcessor implements SpanProcessor {
  readonly #exporter: EncodedBatchExporter
  readonly #log: Logger
  readonly #open = new SpanBatch()
  readonly #sealed: Sealed[] = []
  #sealedBytes = 0
  #sealedSpans = 0
  #sending: Promise<void> | null = null
  #timer: NodeJS.Timeout | null = null
  #closing = false
  #wake: (() => void) | null = null
  #delivered = 0
  #dropped = 0
  #refused = 0
  #failures = 0

  constructor(url: string, log: Logger) {
    this.#exporter = new EncodedBatchExporter(url)
    this.#log = log
  }

  get counts(): DeliveryCounts {
    return {
      queued: this.#sealedSpans + this.#open.spans,
      delivered: this.#delivered,
      dropped: this.#dropped,
      refused: this.#refused,
    }
  }

  onStart(): void {}

  onEnd(span: ReadableSpan): void {
    if (this.#closing || this.#sealedBytes + this.#open.byteLength >= queuedBytesMax) {
      if (this.#dropped === 0) this.#log.error({ queuedBytesMax }, 'spans are being dropped: the queue is full')
      this.#dropped += 1
      return
    }
    this.#open.add(span)
    if (this.#open.spans >= batchSpansMax || this.#open.byteLength >= batchBytesMax) this.#seal()
    else this.#timer ??= setTimeout(() => this.#seal(), lingerMs)
  }

  #seal(): void {
    if (this.#timer) clearTimeout(this.#timer)
    this.#timer = null
    const { spans } = this.#open
    if (spans > 0) {
      const body = this.#open.take()
      this.#sealed.push({ body, spans })
      this.#sealedBytes += body.length
      this.#sealedSpans += spans
    }
    this.#sending ??= this.#drain().finally(() => {
      this.#sending = null
    })
  }

  async #drain(): Promise<void> {
    for (let batch = this.#sealed[0]; batch; batch = this.#sealed[0]) {
      const { ok, status, message, rejected } = await this.#exporter.send(batch.body)
      if (!ok && !refusals.has(status)) {
        await this.#pauseAfter(message)
        continue
      }
      this.#failures = 0
      this.#sealed.shift()
      this.#sealedBytes -= batch.body.length
      this.#sealedSpans -= batch.spans
      const refused = ok ? Math.min(rejected, batch.spans) : batch.spans
      this.#delivered += batch.spans - refused
      this.#refused += refused
      if (refused > 0) this.#log.error({ spans: refused, status, error: message }, 'the collector refused spans')
    }
  }

  async #pauseAfter(error: string): Promise<void> {
    if (this.#failures === 0)
      this.#log.warn({ queued: this.counts.queued, error }, 'spans wait: the collector does not take them')
    const ms = Math.min(retryMsMax, retryMsFirst * 2 ** Math.min(10, this.#failures))
    this.#failures += 1
    const { promise, resolve } = Promise.withResolvers<void>()
    const timer = setTimeout(resolve, ms * (0.8 + 0.4 * Math.random()))
    this.#wake = resolve
    await promise
    clearTimeout(timer)
  }

  /** Resolves when everything ended so far has been delivered or set aside. */
  async forceFlush(): Promise<void> {
    while (this.counts.queued > 0) {
      this.#wake?.()
      this.#seal()
      await this.#sending
    }
  }

  async shutdown(): Promise<void> {
    this.#closing = true
    const flushed = this.forceFlush()
    let settled: number
    do {
      settled = this.#delivered + this.#refused
      const patience = new AbortController()
      await Promise.race([flushed, sleep(closeMsMax, undefined, { signal: patience.signal }).catch(() => {})])
      patience.abort()
    } while (this.counts.queued > 0 && this.#delivered + this.#refused > settled)
    const { queued } = this.counts
    if (queued > 0) {
      this.#dropped += queued
      this.#sealed.length = 0
      this.#sealedSpans = 0
      this.#log.error({ spans: queued }, 'spans were given up: the collector took none of them in time')
    }
    await this.#exporter.shutdown()
  }
}
