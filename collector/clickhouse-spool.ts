// Bodies and results that are too long for memory rest in files of a folder of their own, one request at a time: the engine reads rows
// from them and writes results to them. What an unclean stop left is removed at the next start.
import { createReadStream, createWriteStream } from 'node:fs'
import { mkdir, rm } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import type { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'

/** Bytes in all files of all requests. */
const spoolBytesMax = 16 * 1024 * 1024 * 1024

export type Spool = {
  /** A place for the files of one request. */
  readonly request: () => Spooled
}

/** The files of one request. */
export type Spooled = {
  /** A path where nothing is yet. */
  readonly path: () => string
  /** Keeps a stream; gives the path. Throws the `tooMuch` error once all together would hold too much. */
  readonly keep: (stream: Readable | AsyncIterable<Uint8Array>, tooMuch: () => Error) => Promise<string>
  readonly read: (path: string) => Readable
  /** Removes the request's files. */
  readonly remove: () => Promise<void>
}

/** Opens the folder, empty. */
export const openSpool = async (folder: string): Promise<Spool> => {
  await rm(folder, { recursive: true, force: true })
  await mkdir(folder, { recursive: true })
  let number = 0
  let allBytes = 0
  const request = (): Spooled => {
    const paths: string[] = []
    let ownBytes = 0
    const path = (): string => {
      const next = resolve(join(folder, String(number++)))
      paths.push(next)
      return next
    }
    const keep: Spooled['keep'] = async (stream, tooMuch) => {
      const to = path()
      const counted = async function* (from: AsyncIterable<Uint8Array>) {
        for await (const chunk of from) {
          if (allBytes + chunk.length > spoolBytesMax) throw tooMuch()
          allBytes += chunk.length
          ownBytes += chunk.length
          yield chunk
        }
      }
      await pipeline(stream, counted, createWriteStream(to, { flags: 'wx', mode: 0o600 }))
      return to
    }
    const remove = async (): Promise<void> => {
      allBytes -= ownBytes
      ownBytes = 0
      await Promise.all(paths.splice(0).map((old) => rm(old, { force: true })))
    }
    return { path, keep, read: (from) => createReadStream(from), remove }
  }
  return { request }
}
