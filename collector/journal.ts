// What the collector writes down before it inserts, so that a crash cannot change how batches were grouped: the same group
// under the same token is the same insert to ClickHouse, which stores it once. A group's rows are a file of their own,
// from which ClickHouse reads them; `log` has a line when a group is begun, with its members, and one when it is stored.
// Each line carries its checksum and stands for itself, so what a crash tore is set aside and never read in part.
import { type FileHandle, mkdir, open, readdir, readFile, rename, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import type { Logger } from 'pino'
import { own } from './journal-owner.ts'
import type { RowsFormat } from './store.ts'

/** Tokens of batches that were stored, the newest, by which one that is sent again is known. */
const tokensMax = 65_536
/** A longer log is written anew with what still counts. */
const logBytesMax = 16 * 1024 * 1024
const checksumDigits = 8

/** Batches that are inserted together; `file` holds their rows. */
export type Group = {
  readonly number: number
  readonly table: string
  readonly format: RowsFormat
  readonly token: string
  readonly members: readonly string[]
  readonly bytes: number
  readonly crc: number
}
export type NewGroup = Pick<Group, 'table' | 'format' | 'token' | 'members'>

export type Journal = {
  /** Groups that were begun before and not stored, oldest first. */
  readonly unfinished: readonly Group[]
  /** Lines and files that were damaged when the journal was opened. */
  readonly setAside: number
  readonly fileOf: (group: Group) => string
  readonly isStored: (member: string) => boolean
  /** Writes a group down; when this resolves, a crash no longer changes it. */
  readonly begin: (group: NewGroup, rows: readonly Uint8Array[]) => Promise<Group>
  /** The group is stored: its members are remembered, its rows are not. */
  readonly stored: (group: Group) => Promise<void>
  /** The group was refused, and nothing of it stored; its members may come again in another. */
  readonly dropped: (group: Group) => Promise<void>
  readonly close: () => Promise<void>
}

type Line =
  | { readonly begun: Group }
  | { readonly stored: number }
  | { readonly dropped: number }
  | { readonly tokens: readonly string[] }

/** Opens the journal in a folder, which is made if it is missing, and owns it. Throws OwnerError. */
export const openJournal = async (folder: string, fsync: boolean, log: Logger): Promise<Journal> => {
  await mkdir(folder, { recursive: true })
  const release = await own(folder)
  try {
    const fileOf = ({ number }: { readonly number: number }): string => join(folder, `${number}.rows`)
    const found = await recover(folder, fileOf, log)
    const sync = async (handle: FileHandle): Promise<void> => {
      if (fsync) await handle.datasync()
    }
    const begun = new Map(found.unfinished.map((group) => [group.number, group]))
    let next = found.next
    let lines = await rewrite(folder, [...begun.values()], found.tokens, sync)

    const append = (line: Line): Promise<void> => appendLine(lines, folder, line)
    const end = async (group: Group, line: Line): Promise<void> => {
      await append(line)
      begun.delete(group.number)
      await unlink(fileOf(group)).catch(() => {})
      if (lines.bytes < logBytesMax) return
      const { handle } = lines
      try {
        lines = await rewrite(folder, [...begun.values()], found.tokens, sync)
      } catch (error) {
        // The group has ended all the same, and the long log serves as well.
        log.error({ err: error, folder }, 'the journal could not be written anew; its log grows on')
        return
      }
      await handle.close()
    }

    return {
      unfinished: found.unfinished,
      setAside: found.setAside,
      fileOf,
      isStored: (member) => found.tokens.has(member),
      begin: async (group, rows) => {
        const bytes = rows.reduce((sum, part) => sum + part.length, 0)
        const crc = rows.reduce((sum, part) => crc32(part, sum), 0)
        const whole: Group = { number: next, ...group, bytes, crc }
        next += 1
        try {
          await writeRows(fileOf(whole), rows, bytes, sync)
          if (fsync) await syncFolder(folder)
          await append({ begun: whole })
          await sync(lines.handle)
        } catch (error) {
          await unlink(fileOf(whole)).catch(() => {})
          throw error
        }
        begun.set(whole.number, whole)
        return whole
      },
      stored: async (group) => {
        await end(group, { stored: group.number })
        remember(found.tokens, group.members)
      },
      dropped: (group) => end(group, { dropped: group.number }),
      close: async () => {
        await lines.handle.close()
        release()
      },
    }
  } catch (error) {
    release()
    throw error
  }
}

const remember = (tokens: Set<string>, members: readonly string[]): void => {
  for (const member of members) tokens.add(member)
  for (const oldest of tokens) {
    if (tokens.size <= tokensMax) return
    tokens.delete(oldest)
  }
}

const spell = (line: Line): Buffer => {
  const json = Buffer.from(JSON.stringify(line))
  const checksum = crc32(json).toString(16).padStart(checksumDigits, '0')
  return Buffer.concat([Buffer.from(`${checksum} `), json, Buffer.from('\n')])
}

/** The line, or null when it is not what was written. */
const parse = (text: string): Line | null => {
  const json = text.slice(checksumDigits + 1)
  const sum = Number.parseInt(text.slice(0, checksumDigits), 16)
  return json !== '' && crc32(json) === sum ? (JSON.parse(json) as Line) : null
}

type Lines = { readonly handle: FileHandle; bytes: number }

const appendLine = async (lines: Lines, folder: string, line: Line): Promise<void> => {
  const bytes = spell(line)
  const { bytesWritten } = await lines.handle.write(bytes, 0, bytes.length, lines.bytes)
  // A disk that is nearly full takes a part and says nothing; the next line takes that part's place.
  if (bytesWritten !== bytes.length) throw shortWrite(join(folder, 'log'), bytesWritten, bytes.length)
  lines.bytes += bytes.length
}

const shortWrite = (file: string, written: number, bytes: number): Error =>
  new Error(`cannot write ${file}: the disk took ${written} of ${bytes} bytes`)

const writeRows = async (
  file: string,
  rows: readonly Uint8Array[],
  bytes: number,
  sync: (handle: FileHandle) => Promise<void>,
): Promise<void> => {
  const handle = await open(file, 'wx')
  try {
    const { bytesWritten } = await handle.writev([...rows])
    if (bytesWritten !== bytes) throw shortWrite(file, bytesWritten, bytes)
    await sync(handle)
  } finally {
    await handle.close()
  }
}

/** A new log with what still counts, in the place of the old one. */
const rewrite = async (
  folder: string,
  unfinished: readonly Group[],
  tokens: ReadonlySet<string>,
  sync: (handle: FileHandle) => Promise<void>,
): Promise<Lines> => {
  const content = Buffer.concat([{ tokens: [...tokens] }, ...unfinished.map((begun) => ({ begun }))].map(spell))
  const file = join(folder, 'log.new')
  const handle = await open(file, 'w')
  try {
    await handle.writeFile(content)
    await sync(handle)
    await rename(file, join(folder, 'log'))
    await syncFolder(folder)
    return { handle, bytes: content.length }
  } catch (error) {
    await handle.close()
    throw error
  }
}

const syncFolder = async (folder: string): Promise<void> => {
  const handle = await open(folder, 'r')
  await handle.sync().finally(() => handle.close())
}

/** Reads what an earlier process left, and puts away what is damaged. */
const recover = async (folder: string, fileOf: (group: { readonly number: number }) => string, log: Logger) => {
  const begun = new Map<number, Group>()
  const tokens = new Set<string>()
  const damaged: string[] = []
  let next = 1
  const text = await readFile(join(folder, 'log'), 'utf8').catch(() => '')
  for (const part of text.split('\n')) {
    const line = part === '' ? null : parse(part)
    if (line === null) {
      if (part !== '') damaged.push('a line of log')
    } else if ('begun' in line) {
      begun.set(line.begun.number, line.begun)
      next = Math.max(next, line.begun.number + 1)
    } else if ('tokens' in line) remember(tokens, line.tokens)
    else if ('dropped' in line) begun.delete(line.dropped)
    else {
      remember(tokens, begun.get(line.stored)?.members ?? [])
      begun.delete(line.stored)
    }
  }
  const unfinished: Group[] = []
  for (const group of begun.values()) {
    const rows = await readFile(fileOf(group)).catch(() => null)
    if (rows !== null && rows.length === group.bytes && crc32(rows) === group.crc) unfinished.push(group)
    else damaged.push(`the rows of group ${group.number}`)
  }
  const files = (await readdir(folder)).filter((file) => /^\d+\.rows$/.test(file))
  for (const file of files) {
    const number = Number.parseInt(file, 10)
    next = Math.max(next, number + 1)
    if (unfinished.some((group) => group.number === number)) continue
    if (begun.has(number)) await rename(join(folder, file), join(folder, `${file}.damaged`))
    // Rows without a line: the crash came before the group was begun, or after it was stored.
    else await unlink(join(folder, file))
  }
  if (damaged.length > 0) {
    if (text !== '') await rename(join(folder, 'log'), join(folder, `log.${next}.damaged`))
    log.warn({ folder, damaged: damaged.length, what: damaged.slice(0, 10) }, 'damaged parts of the journal set aside')
  }
  return { unfinished, tokens, next, setAside: damaged.length }
}
