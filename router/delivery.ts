// Delivers ended spans, losing none while there is room. The SDK's own batch processor drops a batch that failed once
// and all that exceeds 2,048 spans; this one keeps the order, sends the same batch again until it is taken (the same
// bytes, so the collector can tell a repetition), and counts what it has to give up.
import type { ReadableSpan, SpanExporter, SpanProcessor } from '@opentelemetry/sdk-trace'
import type { Logger } from 'pino'

/** Spans held while the collector does not answer; past this, new ones are dropped and counted. */
const queuedSpansMax = 100_000
/** A batch is encoded in one go, so this bounds how long a batch holds up requests. */
const batchSpansMax = 256
/** How long a span waits for company. */
const lingerMs = 200
const retryMsFirst = 100
const retryMsMax = 5_000
/** How long closing may take before what is left is given up and counted. */
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

export class DeliveryProcessor implements SpanProcessor {
  readonly #exporter: SpanExporter
  readonly #log: Logger
  #queue: ReadableSpan[] = []
  #sending: Promise<void> | null = null
  #timer: NodeJS.Timeout | null = null
  #closing = false
  #wake: (() => void) | null = null
  #delivered = 0
  #dropped = 0
  #refused = 0
  #failures = 0

  constructor(exporter: SpanExporter, log: Logger) {
    this.#exporter = exporter
    this.#log = log
  }

  get counts(): DeliveryCounts {
    return { queued: this.#queue.length, delivered: this.#delivered, dropped: this.#dropped, refused: this.#refused }
  }

  onStart(): void {}

  onEnd(span: ReadableSpan): void {
    if (this.#queue.length >= queuedSpansMax || this.#closing) {
      if (this.#dropped === 0) this.#log.error({ queuedSpansMax }, 'spans are being dropped: the queue is full')
      this.#dropped += 1
      return
    }
    this.#queue.push(span)
    if (this.#sending) return
    if (this.#queue.length >= batchSpansMax) this.#send()
    else this.#timer ??= setTimeout(() => this.#send(), lingerMs)
  }

  #send(): void {
    if (this.#timer) clearTimeout(this.#timer)
    this.#timer = null
    this.#sending ??= this.#drain().finally(() => {
      this.#sending = null
    })
  }

  async #drain(): Promise<void> {
    while (this.#queue.length > 0) {
      const batch = this.#queue.slice(0, batchSpansMax)
      const result = await this.#export(batch)
      if (result === 'again') {
        await this.#pause(
          Math.min(retryMsMax, retryMsFirst * 2 ** Math.min(10, this.#failures)) * (0.8 + 0.4 * Math.random()),
        )
        continue
      }
      this.#failures = 0
      this.#queue = this.#queue.slice(batch.length)
      if (result === 'delivered') this.#delivered += batch.length
      else this.#refused += batch.length
    }
  }

  #export(batch: ReadableSpan[]): Promise<'delivered' | 'refused' | 'again'> {
    const { promise, resolve } = Promise.withResolvers<'delivered' | 'refused' | 'again'>()
    this.#exporter.export(batch, ({ code, error }) => {
      if (code === 0) return resolve('delivered')
      const status = (error as { code?: number } | undefined)?.code
      if (status !== undefined && refusals.has(status)) {
        this.#log.error(
          { spans: batch.length, status, error: error?.message },
          'the collector refused a batch of spans',
        )
        return resolve('refused')
      }
      if (this.#failures === 0)
        this.#log.warn(
          { queued: this.#queue.length, error: error?.message },
          'spans wait: the collector does not take them',
        )
      this.#failures += 1
      resolve('again')
    })
    return promise
  }

  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms)
      this.#wake = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }

  /** Resolves when everything ended so far has been delivered or given up. */
  async forceFlush(): Promise<void> {
    while (this.#queue.length > 0) {
      this.#wake?.()
      this.#send()
      await this.#sending
    }
  }

  async shutdown(): Promise<void> {
    this.#closing = true
    const { promise, resolve } = Promise.withResolvers<void>()
    const timer = setTimeout(resolve, closeMsMax)
    await Promise.race([this.forceFlush(), promise])
    clearTimeout(timer)
    if (this.#queue.length > 0) {
      this.#dropped += this.#queue.length
      this.#log.error({ spans: this.#queue.length }, 'spans were given up: the collector took none of them in time')
      this.#queue = []
    }
    await this.#exporter.shutdown()
  }
}
