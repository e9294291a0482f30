// A request to the front, read into one statement: the URL's query and the body, settings and parameters, external tables, and the rows
// of an INSERT, which go to a file as they come and are read by the engine from there, in any format and of any size.
import { randomUUID } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { type Duplex, pipeline, type Readable } from 'node:stream'
import { decompressBlocks } from './clickhouse-blocks.ts'
import { readerOf } from './clickhouse-codings.ts'
import type { Spooled } from './clickhouse-spool.ts'
import {
  type InsertHead,
  insertHeadOf,
  readsOnly,
  refuseMany,
  refuseOutside,
  refuseToReader,
  type Token,
  tokensOf,
} from './clickhouse-sql.ts'
import type { FrontUser } from './clickhouse-users.ts'
import { EngineError, refusal } from './engine-error.ts'
import { literal, type Statement, tag } from './engine-run.ts'
import { bodyBytesMax, HttpError, type Lease } from './http.ts'

/** The part of a body in which an INSERT must have said what its rows are. */
const headBytesMax = 256 * 1024

/** Parameters of the transport; all others are settings, and the engine says whether it knows them. */
const transport = new Set(
  `query query_id database default_format user password quota_key role session_id session_timeout session_check compress decompress
  enable_http_compression http_zlib_compression_level wait_end_of_query buffer_size http_response_buffer_size
  send_progress_in_http_headers http_headers_progress_interval_ms http_response_headers add_http_cors_header client_protocol_version
  cancel_http_readonly_queries_on_client_close http_native_compression_disable_checksumming_on_decompress
  framing stacktrace close_session`.split(/\s+/),
)

/** What a request asks for. */
export type Asked = {
  readonly statement: Statement & { readonly id: string }
  readonly tokens: readonly Token[]
  /** Whether it stores the rows that it brought. */
  readonly inserts: boolean
  readonly reads: boolean
  readonly format: string
}

/** Reads a request whole; its rows and tables lie in files of `spooled`. Throws HttpError and EngineError. */
export const readRequest = async (
  request: IncomingMessage,
  search: URLSearchParams,
  user: FrontUser,
  held: Lease,
  spooled: Spooled,
): Promise<Asked> => {
  const body = bodyOf(request, search)
  const fields = new URLSearchParams(search)
  const query = search.get('query') ?? ''
  const multipart = /^multipart\/form-data/i.test(request.headers['content-type'] ?? '')
  const { sql, before } = multipart
    ? await fromParts(request, fields, await whole(body, held), spooled)
    : await fromBody(query, body, held, spooled)
  if (sql.head.trim() === '') throw refusal(62, 'Empty query. (SYNTAX_ERROR)')
  const tokens = [...tokensOf(sql.head)]
  refuseOutside(tokens)
  refuseMany(sql.head, tokens)
  const readonly = request.method === 'GET' || user.readonly
  if (readonly) refuseToReader(tokens)
  const settings: Record<string, string> = {}
  const parameters: Record<string, string> = {}
  for (const [name, value] of fields) {
    if (name.startsWith('param_')) parameters[name.slice('param_'.length)] = value
    else if (!transport.has(name)) settings[name] = value
  }
  const database = search.get('database') ?? header(request, 'x-clickhouse-database')
  const format = search.get('default_format') ?? header(request, 'x-clickhouse-format') ?? 'TabSeparated'
  // It becomes part of the SQL.
  if (!/^\w+$/.test(format)) throw refusal(73, `Unknown format ${format.slice(0, 100)}. (UNKNOWN_FORMAT)`)
  const kills = tokens[0]?.text.toUpperCase() === 'KILL'
  const statement = {
    sql: kills ? byOwnIds(sql.head, tokens) : (sql.insert ?? sql.head),
    id: search.get('query_id') || randomUUID(),
    format,
    settings,
    parameters,
    before,
    readonly,
    urgent: kills,
    ...(database ? { database } : {}),
  }
  return { statement, tokens, inserts: sql.insert !== null, reads: readsOnly(tokens), format }
}

const header = (request: IncomingMessage, name: string): string | undefined => {
  const value = request.headers[name]
  return Array.isArray(value) ? value[0] : value
}

/** The engine gives statements ids of its own; those that clients know them by are in a setting. */
const byOwnIds = (sql: string, tokens: readonly Token[]): string => {
  let changed = sql
  for (const { kind, text, start, end } of tokens.toReversed()) {
    if (kind === 'word' && text.toLowerCase() === 'query_id') {
      changed = `${changed.slice(0, start)}Settings['${tag}']${changed.slice(end)}`
    }
  }
  return changed
}

/** The body's bytes, decoded. A request refused half-way is left open, or its answer could not be sent. */
const bodyOf = (request: IncomingMessage, search: URLSearchParams): AsyncIterable<Buffer> => {
  const source = request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>
  const decoder = readerOf(request.headers['content-encoding'])
  const decoders: Duplex[] = decoder ? [decoder] : []
  if (search.get('decompress') === '1') decoders.push(decompressBlocks())
  return decoders.length === 0 ? source : decoded(source, decoders)
}

async function* decoded(source: AsyncIterable<Buffer>, decoders: readonly Duplex[]): AsyncGenerator<Buffer> {
  const end = pipeline([source, ...decoders] as unknown as [Readable], () => {}) as unknown as AsyncIterable<Buffer>
  try {
    yield* end
  } catch (error) {
    if (error instanceof EngineError || error instanceof HttpError) throw error
    throw new HttpError(400, `the body cannot be decompressed: ${(error as Error).message}`)
  }
}

const tooLarge = (): HttpError => new HttpError(413, `the body is larger than ${bodyBytesMax} bytes`)
const tooMuch = (): HttpError => new HttpError(413, 'the rows of all requests together are more than is kept on disk')

/** All of a body in memory, taken on the lease. */
const whole = async (body: AsyncIterable<Buffer>, held: Lease): Promise<Buffer> => {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of body) {
    bytes += chunk.length
    if (bytes > bodyBytesMax) throw tooLarge()
    held.take(chunk.length)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

/** SQL as it came, without rows; for an INSERT with rows also as it is run: from a file. */
type Sql = { readonly head: string; readonly insert: string | null }
type Read = { readonly sql: Sql; readonly before: readonly string[] }

/** Query and body are one text; from where the rows of an INSERT begin, it goes to a file. */
const fromBody = async (query: string, body: AsyncIterable<Buffer>, held: Lease, spooled: Spooled): Promise<Read> => {
  const source = body[Symbol.asyncIterator]()
  const first: Buffer[] = query === '' ? [] : [Buffer.from(query)]
  const known = insertHeadOf(query)
  let [bytes, ended] = [0, false]
  while (!known && bytes < headBytesMax && !ended) {
    const { value, done } = await source.next()
    ended = done === true
    if (ended) break
    if (bytes === 0 && query !== '' && value.length > 0) first.push(Buffer.from('\n'))
    held.take(value.length)
    first.push(value)
    bytes += value.length
  }
  const start = Buffer.concat(first)
  const text = start.toString()
  const rest = { [Symbol.asyncIterator]: () => source }
  const head = known ?? insertHeadOf(text)
  if (head) {
    const rows = async function* () {
      const begun = start.subarray(Buffer.byteLength(text.slice(0, head.rows)))
      if (begun.length > 0) yield begun
      if (!ended) yield* rest
    }
    return insertFrom(text.slice(0, head.rows), head, await spooled.keep(rows(), tooMuch))
  }
  const sql = ended ? start : Buffer.concat([start, await whole(rest, held)])
  return { sql: { head: textOf(sql), insert: null }, before: [] }
}

const textOf = (bytes: Buffer): string => {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: false }).decode(bytes)
  } catch {
    throw refusal(62, 'Syntax error: the query is not UTF-8 text. (SYNTAX_ERROR)')
  }
}

const insertFrom = (text: string, head: InsertHead, path: string): Read => {
  const { format, settings, input } = head
  const infile = `FROM INFILE ${literal(path)}`
  if (!input) {
    const insert = `${text.slice(0, head.at)} ${infile} ${settings} FORMAT ${format}`
    return { sql: { head: text, insert }, before: [] }
  }
  // The engine reads no rows for `input(…)`: they become a temporary table, which the SELECT reads in its place.
  const table = `_input_${randomUUID().replaceAll('-', '')}`
  const insert = `${text.slice(0, input.start)}${table}${text.slice(input.end, head.at)} ${settings}`
  return { sql: { head: text, insert }, before: tableFrom(table, input.structure, format, path) }
}

const tableFrom = (name: string, structure: string, format: string, path: string): string[] => {
  const create = `CREATE TEMPORARY TABLE ${name} (${structure})`
  const tokens = [...tokensOf(create)]
  refuseOutside(tokens)
  refuseMany(create, tokens)
  return [create, `INSERT INTO ${name} FROM INFILE ${literal(path)} FORMAT ${format}`]
}

/** A form: the query, parameters and settings as fields, and tables as files, which are there for this query alone. */
const fromParts = async (
  request: IncomingMessage,
  fields: URLSearchParams,
  body: Buffer,
  spooled: Spooled,
): Promise<Read> => {
  if (request.method === 'GET') throw new HttpError(400, 'a form goes with POST')
  const headers = { 'content-type': request.headers['content-type'] ?? '' }
  const form = await new Response(new Uint8Array(body), { headers }).formData().catch((error: Error) => {
    throw new HttpError(400, `the form cannot be read: ${error.message}`)
  })
  const before: string[] = []
  const query: string[] = []
  for (const [name, value] of form) {
    if (typeof value === 'string') {
      if (name === 'query') query.push(value)
      else fields.set(name, value)
      continue
    }
    const structure = fields.get(`${name}_structure`)
    const format = fields.get(`${name}_format`) ?? 'TabSeparated'
    const types = fields.get(`${name}_types`)?.split(',')
    const columns = structure ?? types?.map((type, index) => `_${index + 1} ${type}`).join(', ')
    if (!/^\w+$/.test(name) || !/^\w+$/.test(format) || !columns) {
      throw refusal(
        36,
        `External table '${name.slice(0, 100)}' needs ${name}_structure or ${name}_types. (BAD_ARGUMENTS)`,
      )
    }
    for (const suffix of ['structure', 'format', 'types']) fields.delete(`${name}_${suffix}`)
    before.push(...tableFrom(name, columns, format, await spooled.keep(value.stream(), tooMuch)))
  }
  return { sql: { head: [fields.get('query') ?? '', ...query].filter(Boolean).join('\n'), insert: null }, before }
}
