// The spool: a folder in which each batch is one file, from its first item until the collector has taken it. A file grows as
// `<name>.open`, is renamed `<name>.<items>.json` when it is whole, and is never changed after that; what an earlier run
// left is found at the start, mended where it was cut off, and delivered before anything new.
import { constants, lstatSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { type FileHandle, open, readFile, rename, rm } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import type { Logger } from 'pino'
import { asideFor, fileMode, folderMode, mendOpen, openSuffix, sealedSuffix } from './spool-mend.ts'

/** A name is sent as a header, so nobody else's file may be taken for a batch. */
const sealedName = /^([\w.:-]{1,100})\.(\d{1,7})\.json$/
const sqliteBusy = 5

/** The spool cannot be used; the message says why, and what to change. */
export class SpoolError extends Error {
  readonly code = 'spool-unusable'
}

/** One batch's file. Each call waits for the one before. */
export class SpoolFile {
  #path: string
  #turn: Promise<unknown> = Promise.resolve()
  #handle: FileHandle | null = null
  #written = 0
  #syncing: Promise<void> | null = null
  /** What was written may not be on the disk, and must be written again. */
  #doubtful = false

  constructor(path: string) {
    this.#path = path
  }

  /**
   * Brings the file up to `bytes`, all of its batch so far: from then on they outlive the process, and soon after the
   * machine. Rejects with the system's error; the next call then writes the file anew.
   */
  grow(bytes: Uint8Array): Promise<void> {
    return this.#inTurn(async () => {
      const handle = await this.#write(bytes)
      // Not waited for: a disk that is slow to say so must not hold up the next items.
      this.#syncing ??= handle
        .datasync()
        .catch(() => {
          this.#doubtful = true
        })
        .finally(() => {
          this.#syncing = null
        })
    })
  }

  /** Hands `bytes` to the system, so that they outlive the process. Rejects as `grow` does. */
  write(bytes: Uint8Array): Promise<void> {
    return this.#inTurn(async () => {
      await this.#write(bytes)
    })
  }

  /** Brings the file up to `bytes`, its whole batch, and gives it its last name once they outlive the machine. */
  seal(bytes: Uint8Array, items: number): Promise<void> {
    return this.#inTurn(async () => {
      // Before the wait: a disk that is slow to flush must not keep the last items in the process.
      await this.#write(bytes)
      await this.#syncing
      const handle = await this.#write(bytes)
      await handle.datasync()
      await handle.close()
      this.#handle = null
      const path = this.#path.slice(0, -openSuffix.length) + sealedSuffix(items)
      await rename(this.#path, path)
      this.#path = path
    })
  }

  read(): Promise<Uint8Array> {
    return readFile(this.#path)
  }

  remove(): Promise<void> {
    return this.#inTurn(async () => {
      await this.#startAnew()
      await rm(this.#path, { force: true })
    })
  }

  /** Moves the file to where people look at what was refused, unless too much is there already; then it is removed. */
  setAside(): Promise<void> {
    const aside = asideFor(dirname(this.#path))
    if (!aside) return this.remove()
    return this.#inTurn(() => rename(this.#path, join(aside, basename(this.#path))))
  }

  async #inTurn(work: () => Promise<void>): Promise<void> {
    const done = this.#turn.then(work)
    this.#turn = done.catch(() => this.#startAnew())
    await done
  }

  async #write(bytes: Uint8Array): Promise<FileHandle> {
    this.#handle ??= await open(this.#path, constants.O_WRONLY | constants.O_CREAT, fileMode)
    let at = this.#doubtful ? 0 : this.#written
    this.#doubtful = false
    while (at < bytes.length) at += (await this.#handle.write(bytes, at, bytes.length - at, at)).bytesWritten
    this.#written = at
    return this.#handle
  }

  /** Gives the handle back, so that the next write opens the file, or makes it, and writes all of it. */
  async #startAnew(): Promise<void> {
    await this.#syncing
    const handle = this.#handle
    this.#handle = null
    this.#written = 0
    await handle?.close().catch(() => {})
  }
}

/** A whole batch that an earlier run left. */
export type Left = {
  readonly name: string
  readonly items: number
  readonly byteLength: number
  readonly ageMs: number
  readonly file: SpoolFile
}

/** The batches of one signal. */
export type SpoolFolder = {
  /** What an earlier run left, oldest first. */
  readonly left: readonly Left[]
  /** Items that an earlier run left and that cannot be read; they were set aside. */
  readonly unreadable: number
  /** The file of a new batch; nothing is on the disk before it grows. */
  readonly file: (name: string) => SpoolFile
}

export type Spool = {
  readonly traces: SpoolFolder
  readonly logs: SpoolFolder
  /** Lets another router have the folder. */
  readonly release: () => void
}

const leftIn = (folder: string): Left[] =>
  readdirSync(folder)
    .sort()
    .flatMap((entry) => {
      const [, name, items] = sealedName.exec(entry) ?? []
      if (name === undefined) return []
      const path = join(folder, entry)
      const found = lstatSync(path, { throwIfNoEntry: false })
      if (!found?.isFile()) return []
      const { size, mtimeMs } = found
      const ageMs = Math.max(0, Date.now() - mtimeMs)
      return [{ name, items: Number(items), byteLength: size, ageMs, file: new SpoolFile(path) }]
    })

const openFolder = (folder: string, log: Logger): SpoolFolder => {
  mkdirSync(folder, { recursive: true, mode: folderMode })
  const unreadable = mendOpen(folder, log)
  return { left: leftIn(folder), unreadable, file: (name) => new SpoolFile(join(folder, `${name}${openSuffix}`)) }
}

const ownerOf = (file: string): string => {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return 'unknown'
  }
}

/** A lock that goes with its process, whatever end that takes. SQLite's is the only one of that kind that Node can hold. */
const lock = (folder: string): (() => void) => {
  const ownerFile = join(folder, 'owner')
  const database = new DatabaseSync(join(folder, 'lock'))
  try {
    database.exec('PRAGMA journal_mode = MEMORY; PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE')
  } catch (error) {
    database.close()
    if ((error as { errcode?: number }).errcode !== sqliteBusy) throw error
    const owner = `the router with process id ${ownerOf(ownerFile)}`
    throw new SpoolError(
      `the spool ${folder} belongs to ${owner}; give this router a telemetry.spool.folder of its own`,
    )
  }
  try {
    writeFileSync(ownerFile, String(process.pid))
  } catch {
    // Only a message loses by it, and a full disk is no reason not to start.
  }
  return () => database.isOpen && database.close()
}

/**
 * Opens the spool at `folder`, made if it is missing, for this router alone, and mends what an earlier run left open.
 * Throws a SpoolError when another router has it or when it cannot be written.
 */
export const openSpool = (folder: string, log: Logger): Spool => {
  let release = () => {}
  try {
    mkdirSync(folder, { recursive: true, mode: folderMode })
    release = lock(folder)
    const [traces, logs] = [openFolder(join(folder, 'traces'), log), openFolder(join(folder, 'logs'), log)]
    return { traces, logs, release }
  } catch (error) {
    release()
    if (error instanceof SpoolError) throw error
    const found = (error as Error).message
    throw new SpoolError(
      `the spool ${folder} cannot be opened (${found}); name another as telemetry.spool.folder, or set telemetry.spool: false`,
    )
  }
}
