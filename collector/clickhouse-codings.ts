// How bodies are compressed on HTTP's own terms: which codings are read, which is chosen for an answer, and with what limit.
import type { Duplex } from 'node:stream'
import {
  constants,
  createBrotliCompress,
  createBrotliDecompress,
  createDeflate,
  createGunzip,
  createGzip,
  createInflate,
  createZstdCompress,
  createZstdDecompress,
} from 'node:zlib'
import { HttpError } from './http.ts'

/** Brotli at its own default of 11 would take seconds for what others do in milliseconds. */
const brotliQuality = 4

/** A coding's way in and out, the most preferred first, in ClickHouse's order. */
const codings: Readonly<Record<string, { readonly read: () => Duplex; readonly write: () => Duplex }>> = {
  zstd: { read: () => createZstdDecompress(), write: () => createZstdCompress() },
  br: {
    read: () => createBrotliDecompress(),
    write: () => createBrotliCompress({ params: { [constants.BROTLI_PARAM_QUALITY]: brotliQuality } }),
  },
  gzip: { read: () => createGunzip(), write: () => createGzip() },
  deflate: { read: () => createInflate(), write: () => createDeflate() },
}

/** What decodes a body of that Content-Encoding; null when it is not encoded. Throws HttpError 415. */
export const readerOf = (encoding: string | undefined): Duplex | null => {
  const name = (encoding ?? 'identity').trim().toLowerCase().replace(/^x-/, '')
  if (name === 'identity' || name === '') return null
  const coding = Object.hasOwn(codings, name) ? codings[name] : undefined
  if (coding) return coding.read()
  const known = Object.keys(codings).join(', ')
  throw new HttpError(415, `content encoding '${name.slice(0, 64)}' is not read here; it reads ${known} and identity`)
}

/** What encodes an answer for that Accept-Encoding, and its name; null when nothing both sides know is accepted. */
export const writerOf = (accepted: string | undefined): { readonly name: string; readonly writer: Duplex } | null => {
  for (const [name, { write }] of Object.entries(codings)) {
    if (accepted?.includes(name)) return { name, writer: write() }
  }
  return null
}
