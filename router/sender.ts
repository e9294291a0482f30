// Sends whole batches to the collector, one after another in order: the same bytes under the same name until they are taken.
// How often something is tried, how long is waited and what becomes of a batch's file is decided here and nowhere else.
import { setTimeout as sleep } from 'node:timers/promises'
import type { Logger } from 'pino'
import type { Sent, Transport } from './otlp-transport.ts'
import type { Room } from './room.ts'
import type { SpoolFile } from './spool.ts'
import type { SpoolWriter } from './spool-writer.ts'

/** Bytes of bodies that stay in memory though they are on disk; past this they are read back when their turn comes. */
const bodiesBytesMax = 33_554_432
const retryMsFirst = 100
const retryMsMax = 5_000
const doublingsMax = 10
const jitter = 0.2

/** A whole batch. */
export type Waiting = {
  readonly name: string
  readonly items: number
  readonly byteLength: number
  /** When its first item came, by `performance.now()`. */
  readonly sinceMs: number
  /** Null when it is in memory only. */
  readonly file: SpoolFile | null
  /** Null when only the file has it. */
  body: Uint8Array | null
}

type Parts = {
  /** What batches hold, in messages: 'spans'. */
  readonly what: string
  readonly transport: Transport
  readonly writer: SpoolWriter
  readonly room: Room
  readonly log: Logger
}

export class Sender {
  readonly #parts: Parts
  readonly #queue: Waiting[] = []
  #sending: Promise<void> | null = null
  #pausing: { readonly wake: AbortController; readonly asked: boolean } | null = null
  #failures = 0
  /** `leaving`: stops at the first batch that is not taken. `over`: has stopped. */
  #state: 'running' | 'leaving' | 'over' = 'running'
  /** Items, like the three below. */
  #queued = 0
  #delivered = 0
  #refused = 0
  #unreadable = 0

  constructor(parts: Parts) {
    this.#parts = parts
  }

  /** Items that wait, by what became of them, and when the first that waits came. */
  get counts() {
    const { sinceMs = null } = this.#queue[0] ?? {}
    return {
      queued: this.#queued,
      delivered: this.#delivered,
      refused: this.#refused,
      unreadable: this.#unreadable,
      sinceMs,
    }
  }

  get isIdle(): boolean {
    return this.#queue.length === 0
  }

  /** Takes a batch over, and with it the care for its file and for the room that it takes up. */
  put(batch: Waiting): void {
    const { file, body, items, byteLength } = batch
    this.#queue.push(batch)
    this.#queued += items
    if (body && file) {
      const kept = () => this.#parts.room.memoryBytes > bodiesBytesMax && this.#forgetBody(batch)
      this.#parts.writer.want(file, { kind: 'whole', bytes: body, items, kept })
    } else if (!body) this.#parts.room.queuedBytes += byteLength
    this.#start()
  }

  /** Resolves when nothing waits any more, or when sending has stopped. */
  async finished(): Promise<void> {
    while (!this.isIdle && this.#state !== 'over') {
      // A wait that the collector asked for is its own affair.
      if (!this.#pausing?.asked || this.#state !== 'running') this.#pausing?.wake.abort()
      await this.#sending
    }
  }

  /** Goes on for so long at most, and stops before at the first batch that is not taken. */
  async leave(msMax: number): Promise<void> {
    this.#state = 'leaving'
    await this.#finishedWithin(msMax)
    this.#stop()
  }

  /** Goes on for as long as some batch is taken within `patienceMs`. */
  async exhaust(patienceMs: number): Promise<void> {
    let before: number
    do {
      before = this.#queued
      await this.#finishedWithin(patienceMs)
    } while (this.#queued > 0 && this.#queued < before)
    this.#stop()
  }

  /** Items that wait and that no file has; they are lost when the process ends. */
  get inMemoryOnly(): number {
    return this.#queue.reduce((sum, batch) => sum + (this.#isKept(batch) ? 0 : batch.items), 0)
  }

  #isKept({ file }: Waiting): boolean {
    return file !== null && this.#parts.writer.isThere(file)
  }

  #stop(): void {
    this.#state = 'over'
    this.#pausing?.wake.abort()
    this.#parts.transport.close()
  }

  async #finishedWithin(msMax: number): Promise<void> {
    const patience = new AbortController()
    await Promise.race([this.finished(), sleep(msMax, undefined, { signal: patience.signal }).catch(() => {})])
    patience.abort()
  }

  #start(): void {
    this.#sending ??= this.#send().finally(() => {
      this.#sending = null
      if (!this.isIdle && this.#state !== 'over') this.#start()
    })
  }

  async #send(): Promise<void> {
    for (let batch = this.#queue[0]; batch && this.#state !== 'over'; batch = this.#queue[0]) {
      // Sent only once its file is whole, so that its name never stands for other bytes; a disk that fails is not waited for.
      if (batch.file && !this.#isKept(batch)) await this.#parts.writer.pass()
      const body = batch.body ?? (await this.#read(batch))
      if (!body) continue
      const sent = await this.#parts.transport.send(batch.name, body)
      if (sent.kind === 'later') await this.#pause(sent)
      else this.#settle(batch, sent)
    }
  }

  async #read({ name, items, file }: Waiting): Promise<Uint8Array | null> {
    try {
      return (await file?.read()) ?? null
    } catch (error) {
      this.#dequeue()
      this.#unreadable += items
      this.#parts.log.error({ err: error, batch: name, items }, 'a batch could not be read back; its file stays')
      return null
    }
  }

  #settle({ name, items, file }: Waiting, sent: Exclude<Sent, { kind: 'later' }>): void {
    const { log, what, writer } = this.#parts
    this.#dequeue()
    if (this.#failures > 0) log.info({ queued: this.#queued }, `the collector takes ${what} again`)
    this.#failures = 0
    const refused = sent.kind === 'refused' ? items : Math.min(sent.rejected, items)
    this.#delivered += items - refused
    this.#refused += refused
    if (refused > 0) log.error({ batch: name, refused, error: sent.message }, `the collector refused ${what}`)
    if (!file) return
    writer.want(file, { kind: sent.kind === 'refused' ? 'aside' : 'gone' })
    void writer.pass()
  }

  #dequeue(): void {
    const batch = this.#queue.shift() as Waiting
    this.#forgetBody(batch)
    this.#queued -= batch.items
    this.#parts.room.queuedBytes -= batch.byteLength
  }

  #forgetBody(batch: Waiting): void {
    if (batch.body) this.#parts.room.memoryBytes -= batch.byteLength
    batch.body = null
  }

  async #pause({ message, waitMs = 0 }: Extract<Sent, { kind: 'later' }>): Promise<void> {
    const { log, what } = this.#parts
    if (this.#failures === 0)
      log.warn({ queued: this.#queued, error: message }, `${what} wait: the collector does not take them`)
    const backoffMs = Math.min(retryMsMax, retryMsFirst * 2 ** Math.min(doublingsMax, this.#failures))
    this.#failures += 1
    if (this.#state === 'leaving') this.#state = 'over'
    if (this.#state === 'over') return
    const wake = new AbortController()
    this.#pausing = { wake, asked: waitMs > 0 }
    const ms = Math.max(waitMs, backoffMs * (1 - jitter + 2 * jitter * Math.random()))
    await sleep(ms, undefined, { signal: wake.signal }).catch(() => {})
    this.#pausing = null
  }
}
