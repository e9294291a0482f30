// Gathers what is added — spans, or log events — into batches, and loses none of it while there is room. Each item is encoded
// as it comes, goes to disk with what came beside it, and with its batch to the sender. Adding costs encoding and nothing
// else: disk and collector are waited for elsewhere.
import type { Logger } from 'pino'
import { Batch, type Encoding } from './batch.ts'
import type { Transport } from './otlp-transport.ts'
import { hasRoom, type Room } from './room.ts'
import { Sender } from './sender.ts'
import type { SpoolFile, SpoolFolder } from './spool.ts'
import { SpoolWriter } from './spool-writer.ts'

/** A batch is whole when it has this many items or bytes, or when its first item has waited this long. */
const batchItemsMax = 2048
const batchBytesMax = 4_194_304
const lingerMsMin = 250
/** The same while other batches wait: then there is no hurry, and fewer files are better. */
const lingerMsMax = 5_000
/** How often what is new goes to disk. */
const commitMs = 25
/** How long closing waits for a batch to be taken before what is left, in memory only, is given up and counted. */
const closeMsMax = 15_000
/** How long closing goes on sending what is safe on disk. */
const closeKeptMsMax = 5_000

export type DeliveryCounts = {
  readonly queued: number
  readonly delivered: number
  /** Not delivered: there was no room, or the process ended before what was in memory only was taken. */
  readonly dropped: number
  /** Set aside: the collector refused them as bad, or they were unreadable in what an earlier run left. */
  readonly refused: number
  /** Bytes that wait, of all signals together. */
  readonly queuedBytes: number
  /** How long the oldest has waited; 0 when nothing waits. */
  readonly oldestMs: number
  /** How often the spool's disk failed. */
  readonly diskErrors: number
}

/** What one signal is delivered by. */
export type Lane<Item> = {
  /** What it carries, in messages: 'spans'. */
  readonly what: string
  readonly encoding: Encoding<Item>
  readonly transport: Transport
  /** Null when batches are in memory only. */
  readonly folder: SpoolFolder | null
  readonly room: Room
  /** A name that no other batch ever had. */
  readonly nextName: () => string
  readonly log: Logger
}

/** The batch that is being gathered. */
type Open = {
  readonly name: string
  readonly batch: Batch
  readonly file: SpoolFile | null
  readonly sinceMs: number
}

export class Delivery<Item> {
  readonly #lane: Lane<Item>
  readonly #writer: SpoolWriter
  readonly #sender: Sender
  #open: Open | null = null
  #bytesExpected = 0
  #timer: NodeJS.Timeout | null = null
  #closed = false
  #dropped = 0
  #dropping = false
  /** What waited in memory only when closing was over. */
  #givenUp = 0

  constructor(lane: Lane<Item>) {
    const { folder, log, what } = lane
    this.#lane = lane
    this.#writer = new SpoolWriter(log)
    this.#sender = new Sender({ ...lane, writer: this.#writer })
    const nowMs = performance.now()
    for (const { ageMs, ...left } of folder?.left ?? [])
      this.#sender.put({ ...left, sinceMs: nowMs - ageMs, body: null })
    const { queued } = this.#sender.counts
    if (queued > 0) log.info({ queued }, `${what} of an earlier run are delivered first`)
  }

  get counts(): DeliveryCounts {
    const { folder, room } = this.#lane
    const { queued, delivered, refused, unreadable, sinceMs } = this.#sender.counts
    const oldest = sinceMs ?? this.#open?.sinceMs
    return {
      queued: queued + (this.#open?.batch.items ?? 0) - this.#givenUp,
      delivered,
      dropped: this.#dropped + unreadable + this.#givenUp,
      refused: refused + (folder?.unreadable ?? 0),
      queuedBytes: room.queuedBytes,
      oldestMs: oldest === undefined ? 0 : Math.round(performance.now() - oldest),
      diskErrors: this.#writer.errors,
    }
  }

  /** Adds an item, or drops and counts it when there is no room. Never throws, and waits for nothing. */
  add(item: Item): void {
    const { room, encoding, log, what } = this.#lane
    if (this.#closed || !hasRoom(room)) {
      this.#drop()
      return
    }
    this.#open ??= this.#begin()
    const { batch } = this.#open
    const before = batch.byteLength
    try {
      batch.add(encoding, item)
    } catch (error) {
      if (batch.items === 0) this.#open = null
      this.#dropped += 1
      log.error({ err: error }, `one of the ${what} could not be encoded`)
      return
    }
    this.#take(batch.byteLength - before)
    if (batch.items >= batchItemsMax || batch.byteLength >= batchBytesMax) this.#seal()
    this.#timer ??= setTimeout(this.#tick, commitMs)
  }

  /** Resolves when everything added so far has been delivered or set aside, or when closing is over. */
  async flush(): Promise<void> {
    this.#seal()
    await this.#sender.finished()
  }

  /**
   * Delivers what waits. What is safe on disk stays there as soon as the collector does not take it; what is in memory only
   * is given up and counted when the collector takes nothing for a while.
   */
  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    this.#seal()
    await this.#writer.pass()
    if (this.#timer) clearTimeout(this.#timer)
    if (this.#lane.folder && this.#sender.inMemoryOnly === 0) await this.#sender.leave(closeKeptMsMax)
    else await this.#sender.exhaust(closeMsMax)
    await this.#writer.pass()
    const { log, what } = this.#lane
    this.#givenUp = this.#sender.inMemoryOnly
    const { queued } = this.counts
    if (this.#givenUp > 0)
      log.error({ dropped: this.#givenUp }, `${what} were given up: the collector took none of them in time`)
    if (queued > 0) log.info({ queued }, `${what} stay in the spool until the next start`)
  }

  #begin(): Open {
    const { folder, nextName } = this.#lane
    const name = nextName()
    const batch = new Batch(this.#bytesExpected)
    return { name, batch, file: folder?.file(name) ?? null, sinceMs: performance.now() }
  }

  #take(bytes: number): void {
    this.#lane.room.queuedBytes += bytes
    this.#lane.room.memoryBytes += bytes
  }

  #drop(): void {
    const { log, room, what } = this.#lane
    this.#dropped += 1
    if (!this.#dropping) log.error({ bytesMax: room.bytesMax }, `${what} are being dropped: there is no room for more`)
    this.#dropping = true
  }

  readonly #tick = (): void => {
    this.#timer = null
    const open = this.#open
    if (this.#sender.isIdle) this.#dropping = false
    const lingerMs = this.#sender.isIdle ? lingerMsMin : lingerMsMax
    if (open && performance.now() - open.sinceMs >= lingerMs) this.#seal()
    else if (open?.file) this.#writer.grow(open.file, open.batch.bytes)
    if (this.#writer.isBehind) void this.#writer.pass()
    if (this.#open || this.#writer.isBehind) this.#timer ??= setTimeout(this.#tick, commitMs)
  }

  #seal(): void {
    if (!this.#open) return
    const { batch, ...rest } = this.#open
    const before = batch.byteLength
    const body = batch.close()
    this.#take(body.length - before)
    this.#open = null
    this.#bytesExpected = body.length
    this.#sender.put({ ...rest, items: batch.items, byteLength: body.length, body })
  }
}
