// Brings the files of a spool to where they should be, beside the requests: the open one grows, and of whole ones each has a
// state that is wanted, which passes bring about in order. A disk that fails is tried again later, with all that has
// gathered by then.
import type { Logger } from 'pino'
import type { SpoolFile } from './spool.ts'

/** How long a disk that failed is left alone. */
const retryMs = 1_000

/** Where the file of a whole batch should be. */
export type Wanted =
  /** `kept` is called once it is whole on disk. */
  | { readonly kind: 'whole'; readonly bytes: Uint8Array; readonly items: number; readonly kept: () => void }
  | { readonly kind: 'gone' }
  | { readonly kind: 'aside' }

const bring = (file: SpoolFile, wanted: Wanted): Promise<void> => {
  switch (wanted.kind) {
    case 'whole':
      return file.seal(wanted.bytes, wanted.items)
    case 'gone':
      return file.remove()
    case 'aside':
      return file.setAside()
  }
}

export class SpoolWriter {
  readonly #log: Logger
  #growing = false
  readonly #wanted = new Map<SpoolFile, Wanted>()
  #last: Promise<void> = Promise.resolve()
  #next: Promise<void> | null = null
  #retryAtMs = 0
  #failing = false
  #errors = 0

  constructor(log: Logger) {
    this.#log = log
  }

  /** How often the disk failed. */
  get errors(): number {
    return this.#errors
  }

  /** Whether some file of a whole batch is not yet where it should be. */
  get isBehind(): boolean {
    return this.#wanted.size > 0
  }

  isThere(file: SpoolFile): boolean {
    return !this.#wanted.has(file)
  }

  want(file: SpoolFile, wanted: Wanted): void {
    this.#wanted.set(file, wanted)
    // Passes may wait long for the disk, and until then a crash would take the batch's last items.
    if (wanted.kind === 'whole' && !this.#isLeftAlone) file.write(wanted.bytes).catch((error) => this.#failed(error))
  }

  /** Writes what an open batch has so far, unless the disk is still at it; beside the passes, which may wait long for it. */
  grow(file: SpoolFile, bytes: Uint8Array): void {
    if (this.#growing || this.#isLeftAlone) return
    this.#growing = true
    file
      .grow(bytes)
      .then(
        () => this.#succeeded(),
        (error) => this.#failed(error),
      )
      .finally(() => {
        this.#growing = false
      })
  }

  /** Resolves after a whole pass over all that is wanted by now, whether the disk obliged or not. Never rejects. */
  pass(): Promise<void> {
    this.#next ??= this.#last.then(() => {
      this.#next = null
      return this.#walk()
    })
    this.#last = this.#next
    return this.#last
  }

  get #isLeftAlone(): boolean {
    return performance.now() < this.#retryAtMs
  }

  async #walk(): Promise<void> {
    if (this.#isLeftAlone) return
    for (const [file, wanted] of this.#wanted) {
      try {
        await bring(file, wanted)
        this.#succeeded()
      } catch (error) {
        this.#failed(error)
        // A file that stays is sent again at the next start, and known there as a repetition; one not written would be lost.
        if (wanted.kind === 'whole') return
      }
      // What it should be may have changed meanwhile; then the next pass sees to it.
      if (this.#wanted.get(file) !== wanted) continue
      this.#wanted.delete(file)
      if (wanted.kind === 'whole') wanted.kept()
    }
  }

  #succeeded(): void {
    if (this.#failing) this.#log.info('the spool is written again')
    this.#failing = false
  }

  #failed(error: unknown): void {
    this.#errors += 1
    this.#retryAtMs = performance.now() + retryMs
    if (!this.#failing) this.#log.error({ err: error }, 'the spool cannot be written: what is new stays in memory')
    this.#failing = true
  }
}
