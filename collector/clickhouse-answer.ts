// An answer of the front: headers as ClickHouse sends them, the result in pieces or from a file, compressed as asked, and an exception
// marked where it came after the first bytes had gone. Then the connection is cut, so that nobody takes the answer for whole.
import { randomBytes } from 'node:crypto'
import type { ServerResponse } from 'node:http'
import { hostname } from 'node:os'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { type BlockMethod, blockOf, inBlocks } from './clickhouse-blocks.ts'
import { writerOf } from './clickhouse-codings.ts'
import { EngineError, refusal } from './engine-error.ts'
import type { Progress } from './engine-queries.ts'
import type { Result } from './engine-run.ts'
import { HttpError } from './http.ts'

/** Bytes of one result. */
const resultBytesMax = 16 * 1024 * 1024 * 1024
/** How long a client may leave its result unread. */
const idleMsMax = 300_000
/** Bytes of the text of an exception after the first bytes; clients look for no more. */
const exceptionBytesMax = 8 * 1024
const tagBytes = 16
/** What is told of a query's id, which the client chose. */
const idLengthMax = 200

/** The HTTP status that ClickHouse gives an error code; 500 for those not named. */
const statusByCode = new Map<number, number>([
  ...[6, 25, 26, 27, 33, 36, 38, 40, 41, 43, 53, 62, 69, 70, 72, 89, 117, 186, 271, 321, 349, 374, 456, 457].map(
    (code) => [code, 400] as const,
  ),
  ...[46, 47, 50, 56, 60, 63, 73, 78, 79, 81, 107, 115, 372, 1000].map((code) => [code, 404] as const),
  ...[192, 193, 497, 516].map((code) => [code, 403] as const),
  [48, 501],
  [159, 408],
  [194, 401],
  [202, 503],
])

/** How an answer is to be compressed: by HTTP's coding, by ClickHouse's blocks, by both or by neither. */
export type Compression = { readonly accepted: string | undefined; readonly blocks: BlockMethod | null }

export const compressionAsked = (search: URLSearchParams, accepted: string | undefined): Compression => {
  const method = search.get('network_compression_method')?.toLowerCase()
  const blocks = method === 'zstd' || method === 'none' ? method : 'lz4'
  return {
    accepted: search.get('enable_http_compression') === '1' ? accepted : undefined,
    blocks: search.get('compress') === '1' ? blocks : null,
  }
}

const contentTypeOf = (format: string): string => {
  if (/EachRow/.test(format) && /JSON/.test(format)) return 'application/x-ndjson; charset=UTF-8'
  if (/^JSON/.test(format)) return 'application/json; charset=UTF-8'
  if (/^CSV/.test(format)) return 'text/csv; charset=UTF-8; header=absent'
  if (/^(?:TabSeparated|TSV)/.test(format)) return 'text/tab-separated-values; charset=UTF-8'
  if (/^(?:Pretty|Vertical|Values|Markdown|SQLInsert)/.test(format)) return 'text/plain; charset=UTF-8'
  if (/^XML/.test(format)) return 'application/xml; charset=UTF-8'
  return 'application/octet-stream'
}

const stateHeaders = (response: ServerResponse, id: string): void => {
  response.setHeader('X-ClickHouse-Query-Id', id.slice(0, idLengthMax).replaceAll(/[^\x20-\x7e]/g, '?'))
  response.setHeader('X-ClickHouse-Server-Display-Name', hostname())
  response.setHeader('X-ClickHouse-Timezone', 'UTC')
}

/** What is to be sent. */
export type Answer = {
  readonly id: string
  readonly format: string
  readonly chunks: AsyncIterable<Uint8Array>
  /** What the statement read and wrote, where that is known. */
  readonly summary: Partial<Progress & { readonly result_rows: string; readonly result_bytes: string }>
  /** What it had done at moments before its first byte, where the client asked. */
  readonly progress: readonly Progress[]
}

/** The numbers of a statement that ran at once; none of one whose result is still coming. */
export const summaryOf = ({ rowsRead, bytesRead, elapsedSeconds }: Result, inserts: boolean): Answer['summary'] => {
  if (elapsedSeconds === 0) return {}
  const [rows, bytes] = [String(rowsRead), String(bytesRead)]
  const done = inserts ? { written_rows: rows, written_bytes: bytes } : { result_rows: rows, result_bytes: bytes }
  return { read_rows: rows, read_bytes: bytes, ...done, elapsed_ns: String(Math.round(elapsedSeconds * 1e9)) }
}

const nothing = {
  read_rows: '0',
  read_bytes: '0',
  written_rows: '0',
  written_bytes: '0',
  total_rows_to_read: '0',
  result_rows: '0',
  result_bytes: '0',
  elapsed_ns: '0',
}

/** Sends a result. Rejects when it could not be sent whole; what the client has by then says so. */
export const sendAnswer = async (response: ServerResponse, answer: Answer, compression: Compression): Promise<void> => {
  try {
    await send(response, answer, compression)
  } finally {
    // To a client that has gone no byte is read, and what is not read would not end.
    await answer.chunks[Symbol.asyncIterator]().return?.()
  }
}

const send = async (response: ServerResponse, answer: Answer, compression: Compression): Promise<void> => {
  const tag = randomTag()
  stateHeaders(response, answer.id)
  response.setHeader('Content-Type', contentTypeOf(answer.format))
  response.setHeader('X-ClickHouse-Format', answer.format)
  response.setHeader('X-ClickHouse-Exception-Tag', tag)
  if (answer.progress.length > 0)
    response.setHeader(
      'X-ClickHouse-Progress',
      answer.progress.map((at) => JSON.stringify(at)),
    )
  response.setHeader(
    'X-ClickHouse-Summary',
    JSON.stringify({ ...nothing, ...answer.progress.at(-1), ...answer.summary }),
  )
  const coding = writerOf(compression.accepted)
  if (coding) response.setHeader('Content-Encoding', coding.name)
  response.setTimeout(idleMsMax, () => response.destroy())
  let failed: unknown = null
  const marked = async function* (from: AsyncIterable<Uint8Array>) {
    try {
      yield* from
    } catch (error) {
      failed = error
      yield exceptionMark(error as Error, tag)
    }
  }
  const whole = limited(answer.chunks)
  const body = compression.blocks ? inBlocks(whole, compression.blocks) : whole
  const parts = [Readable.from(marked(body), { objectMode: false }), ...(coding ? [coding.writer] : []), response]
  await pipeline(parts as unknown as [Readable, ServerResponse], { end: false })
  if (failed === null) return void response.end()
  // Closed without the body's own end, once all of it has gone.
  response.socket?.end()
  throw failed
}

const randomTag = (): string =>
  Array.from(randomBytes(tagBytes), (byte) => String.fromCharCode(97 + (byte % 26))).join('')

/** The exception as ClickHouse marks it in the middle of a body: a block that its clients look for at the end. */
const exceptionMark = ({ message }: Error, tag: string): Buffer => {
  const text = Buffer.from(message).subarray(0, exceptionBytesMax)
  const mark = '\r\n__exception__\r\n'
  return Buffer.concat([Buffer.from(`${mark}${tag}\r\n`), text, Buffer.from(`\n${text.length + 1} ${tag}${mark}`)])
}

async function* limited(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let bytes = 0
  for await (const chunk of chunks) {
    bytes += chunk.length
    if (bytes > resultBytesMax) {
      throw refusal(396, `Limit for result exceeded, max bytes: ${resultBytesMax}. (TOO_MANY_ROWS_OR_BYTES)`)
    }
    yield chunk
  }
}

/** Answers an error as ClickHouse does: the exception as text, its code in a header, compressed as a result would be. */
export const sendError = (response: ServerResponse, id: string, error: unknown, { blocks }: Compression): void => {
  const { message } = error as Error
  const known = error instanceof EngineError && error.code === 'engine-query'
  const code = known ? (error.clickhouseCode ?? 0) : 1000
  const text = Buffer.from(known ? `${message}\n` : `Code: 1000. DB::Exception: ${message} (HTTP_EXCEPTION)\n`)
  const body = blocks === null ? text : blockOf(text, blocks)
  stateHeaders(response, id)
  response.statusCode = error instanceof HttpError ? error.status : (statusByCode.get(code) ?? 500)
  if (response.statusCode === 401) response.setHeader('WWW-Authenticate', 'Basic realm="ClickHouse server HTTP API"')
  response.setHeader('X-ClickHouse-Exception-Code', code)
  response.setHeader('Content-Type', 'text/plain; charset=UTF-8')
  response.removeHeader('Content-Encoding')
  response.end(body)
}
