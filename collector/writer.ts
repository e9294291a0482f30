// The one that writes: batches that arrive while an insert is running, or right after one another, go together in the next, so that
// many small requests cost what a few large ones do, and a lone one waits for nobody. A group is written to the journal before it is inserted
// and answered after; one whose insert failed may be stored all the same, so it is tried again, as it was, before all else.
import { createHash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Logger } from 'pino'
import { HttpError } from './http.ts'
import { type Group, type Journal, openJournal } from './journal.ts'
import { type RowsFormat, type Store, wasNotRead } from './store.ts'

/** Rows and bytes at which a group is full; one batch alone may exceed them. */
const groupRowsMax = 10_000
const groupBytesMax = 32 * 1024 * 1024
/** Where several send at once, a group waits for more as long as they keep coming, but no longer than this. */
const quietMs = 20
const gatherMsMax = 1_000
/** Bytes of rows waiting in memory, and hence of one batch; more are answered 503. */
export const batchBytesMax = 128 * 1024 * 1024

/** Rows of one table under the token of their batch: the same token is the same rows, whenever it comes. */
export type Write = {
  readonly table: string
  readonly rows: Buffer
  /** How many rows there are. */
  readonly count: number
  readonly token: string
  /** `Native` is a block of Native format; JSONEachRow when not given. */
  readonly format?: RowsFormat
}

export type Writer = {
  /** Resolves when the rows are stored, once. Throws HttpError 503 or the store's error; the batch may then be sent again. */
  readonly write: (write: Write) => Promise<void>
  /** Batches of earlier processes that were not stored yet, and damaged parts of the journal. */
  readonly recovered: { readonly groups: number; readonly setAside: number }
  /** Ends when what was accepted is stored or refused. */
  readonly close: () => Promise<void>
}

type Waiter = { readonly resolve: () => void; readonly reject: (error: unknown) => void }
/** A batch on its way, and those who wait for it. One of an earlier process has no rows in memory. */
type Member = Required<Write> & { readonly waiters: Waiter[]; alone: boolean }
type Begun = { readonly group: Group; readonly of: readonly Member[] }

export type WriterOptions = { readonly folder: string; readonly fsync: boolean; readonly log: Logger }

/** Opens the writer on its journal's folder, and finishes what an earlier process began. Throws OwnerError. */
export const openWriter = async (store: Store, { folder, fsync, log }: WriterOptions): Promise<Writer> => {
  const journal = await openJournal(folder, fsync, log)
  const queue = new WriteQueue(store, journal, log)
  if (journal.unfinished.length > 0) {
    log.info({ groups: journal.unfinished.length }, 'finishing what was begun before')
    await queue.finish()
  }
  let closed = false
  const write = async (batch: Write): Promise<void> => {
    if (closed) throw new HttpError(503, 'the collector is stopping; send the batch again later')
    if (!journal.isStored(batch.token)) await queue.stored(batch)
  }
  const close = async (): Promise<void> => {
    closed = true
    await queue.finish()
    await journal.close()
  }
  return { write, recovered: { groups: journal.unfinished.length, setAside: journal.setAside }, close }
}

const newMember = (write: Write): Member => ({ format: 'JSONEachRow', ...write, waiters: [], alone: false })

/** What waits, and the loop that stores it, one group after another. */
class WriteQueue {
  readonly #store: Store
  readonly #journal: Journal
  readonly #log: Logger
  /** All that is waiting or begun, by token. */
  readonly #members = new Map<string, Member>()
  /** Begun and not known to be stored: after a failure, or from an earlier process. */
  readonly #begun: Begun[] = []
  #waiting: Member[] = []
  #waitingBytes = 0
  /** Whether several sent the last group, and so will send the next. */
  #isCrowded = false
  #running: Promise<void> | null = null

  constructor(store: Store, journal: Journal, log: Logger) {
    this.#store = store
    this.#journal = journal
    this.#log = log
    for (const group of journal.unfinished) {
      const { table, format } = group
      const of = group.members.map((token) => newMember({ table, format, token, rows: Buffer.alloc(0), count: 0 }))
      for (const member of of) this.#members.set(member.token, member)
      this.#begun.push({ group, of })
    }
  }

  /** Resolves when the batch is stored; one that is on its way already is not taken twice. */
  async stored(write: Write): Promise<void> {
    const member = this.#members.get(write.token) ?? this.#accept(write)
    const done = new Promise<void>((resolve, reject) => member.waiters.push({ resolve, reject }))
    this.#start()
    await done
  }

  /** Ends when nothing more can be done for now. */
  async finish(): Promise<void> {
    if (this.#begun.length > 0) this.#start()
    await this.#running
  }

  #accept(write: Write): Member {
    const busy = `rows of ${batchBytesMax} bytes are waiting to be stored already; send the batch again later`
    if (this.#waitingBytes + write.rows.length > batchBytesMax) throw new HttpError(503, busy)
    const member = newMember(write)
    this.#members.set(write.token, member)
    this.#waiting.push(member)
    this.#waitingBytes += write.rows.length
    return member
  }

  #start(): void {
    this.#running ??= this.#run().finally(() => {
      this.#running = null
      if (this.#waiting.length > 0) this.#start()
    })
  }

  async #run(): Promise<void> {
    try {
      while (this.#begun.length > 0 || this.#waiting.length > 0) {
        if (this.#begun.length === 0) {
          await this.#gather()
          await this.#begin()
        }
        await this.#insert(this.#begun[0] as Begun)
      }
    } catch (error) {
      // Everyone hears it and may come again; what is in the journal stays there for the next attempt.
      const refused = this.#waiting
      this.#waiting = []
      this.#waitingBytes = 0
      this.#forget(refused)
      settle(refused, error)
      for (const { of } of this.#begun) settle(of, error)
    }
  }

  /** An insert costs as much as two thousand of its rows do, so under load it should have many; a lone sender waits for nobody. */
  async #gather(): Promise<void> {
    if (!this.#isCrowded && this.#waiting.length < 2) return
    const endMs = performance.now() + gatherMsMax
    let before = 0
    while (this.#waiting.length > before && performance.now() < endMs) {
      if (this.#waiting.reduce((sum, { count }) => sum + count, 0) >= groupRowsMax) return
      if (this.#waitingBytes >= groupBytesMax) return
      before = this.#waiting.length
      await sleep(quietMs)
    }
  }

  async #begin(): Promise<void> {
    const of = this.#take()
    this.#isCrowded = of.length > 1
    try {
      const { table, format } = of[0] as Member
      const members = of.map(({ token }) => token)
      const rows = of.map((member) => member.rows)
      const group = await this.#journal.begin({ table, format, token: groupToken(members), members }, rows)
      this.#begun.push({ group, of })
    } catch (error) {
      // Nothing of it was inserted, so its batches are as if they had never come.
      this.#forget(of)
      settle(of, error)
      throw error
    }
  }

  /** Takes from those who wait what goes with the first of them. */
  #take(): Member[] {
    const [first] = this.#waiting
    const taken: Member[] = []
    const left: Member[] = []
    let [rows, bytes] = [0, 0]
    for (const member of this.#waiting) {
      const fits = rows + member.count <= groupRowsMax && bytes + member.rows.length <= groupBytesMax
      const alike = member.table === first?.table && member.format === first.format && !member.alone && !first.alone
      if (member === first || (fits && alike)) {
        taken.push(member)
        rows += member.count
        bytes += member.rows.length
      } else left.push(member)
    }
    this.#waiting = left
    this.#waitingBytes -= bytes
    return taken
  }

  async #insert({ group, of }: Begun): Promise<void> {
    try {
      await this.#store.insertFile(group.table, this.#journal.fileOf(group), group.format, group.token)
      await this.#journal.stored(group)
    } catch (error) {
      if (!wasNotRead(error)) throw error
      await this.#journal.dropped(group)
      this.#begun.shift()
      this.#separate(of, error)
      return
    }
    this.#begun.shift()
    this.#forget(of)
    settle(of, null)
  }

  /** A group that cannot be read was not stored in part either: each member is tried by itself, and the bad one refused. */
  #separate(of: readonly Member[], error: unknown): void {
    this.#log.error({ err: error, batches: of.length }, 'rows refused by ClickHouse')
    if (of.length === 1 || of.some(({ rows }) => rows.length === 0)) {
      this.#forget(of)
      settle(of, error)
      return
    }
    for (const member of of) {
      member.alone = true
      this.#waitingBytes += member.rows.length
    }
    this.#waiting.unshift(...of)
  }

  #forget(of: readonly Member[]): void {
    for (const { token } of of) this.#members.delete(token)
  }
}

const settle = (of: readonly Member[], error: unknown): void => {
  for (const { waiters } of of) {
    for (const { resolve, reject } of waiters.splice(0)) error === null ? resolve() : reject(error)
  }
}

/** A group is what its members are, in their order. */
const groupToken = (tokens: readonly string[]): string => {
  const [only = ''] = tokens
  return tokens.length === 1 ? only : createHash('sha256').update(tokens.join('\n')).digest('hex')
}
