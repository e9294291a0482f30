// What a router that was killed left in its spool: files that were still growing. Each is cut back to its last whole item and
// closed, so that it can be delivered; what cannot be read is set aside for a person, and counted.
import {
  closeSync,
  fsyncSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { basename, join } from 'node:path'
import type { Logger } from 'pino'
import { batchTail } from './batch.ts'

/** What is in here may be content, so it is its owner's alone. */
export const folderMode = 0o700
export const fileMode = 0o600
export const openSuffix = '.open'
export const sealedSuffix = (items: number): string => `.${items}.json`

/** Files kept for a person to look at; more are only counted. */
const asideFilesMax = 64
const lineBreak = 10

/** The folder for what cannot be delivered, made if it is missing; null when it holds enough. */
export const asideFor = (folder: string): string | null => {
  const aside = join(folder, 'refused')
  mkdirSync(aside, { recursive: true, mode: folderMode })
  return readdirSync(aside).length < asideFilesMax ? aside : null
}

const isJson = (text: string): boolean => {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

/** How many whole items a growing batch begins with, and where the last of them ends. */
export const wholeItems = (bytes: Buffer): { readonly items: number; readonly end: number } => {
  let end = bytes.indexOf(lineBreak) + 1
  if (end === 0 || !isJson(bytes.toString('utf8', 0, end) + batchTail)) return { items: 0, end: 0 }
  for (let items = 0; ; items += 1) {
    const next = bytes.indexOf(lineBreak, end) + 1
    const line = bytes.toString('utf8', end, next)
    const item = items === 0 ? line : line.startsWith(',') ? line.slice(1) : ''
    if (next === 0 || !isJson(item)) return { items, end }
    end = next
  }
}

const closeAfter = (path: string, end: number, items: number): void => {
  const file = openSync(path, 'r+')
  try {
    ftruncateSync(file, end)
    writeSync(file, batchTail, end)
    fsyncSync(file)
  } finally {
    closeSync(file)
  }
  renameSync(path, path.slice(0, -openSuffix.length) + sealedSuffix(items))
}

/** Mends one file; the number of its items that cannot be read. */
const mend = (folder: string, path: string): number => {
  const bytes = readFileSync(path)
  const { items, end } = wholeItems(bytes)
  const rest = bytes.subarray(end)
  // A closing that was cut off is no loss.
  const unreadable = batchTail.startsWith(rest.toString('latin1'))
    ? 0
    : Math.max(1, rest.toString().split('\n').length - 1)
  if (unreadable > 0) {
    const aside = asideFor(folder)
    if (aside) writeFileSync(join(aside, `${basename(path, openSuffix)}.tail`), rest, { mode: fileMode })
  }
  if (items === 0) rmSync(path)
  else closeAfter(path, end, items)
  return unreadable
}

/** Mends every open file of a folder; the number of items that could not be read. One that cannot be mended now is left. */
export const mendOpen = (folder: string, log: Logger): number => {
  let unreadable = 0
  for (const entry of readdirSync(folder).filter((name) => name.endsWith(openSuffix))) {
    const path = join(folder, entry)
    try {
      const found = mend(folder, path)
      if (found > 0) log.error({ file: path, items: found }, 'the end of a spool file is unreadable and was set aside')
      unreadable += found
    } catch (error) {
      log.error({ err: error, file: path }, 'a spool file could not be mended; it waits for the next start')
    }
  }
  return unreadable
}
