// ClickHouse's HTTP interface in front of the embedded engine, so that its official clients, curl and Grafana can read it
// while the collector holds the folder: `query` and body, `param_x`, settings, formats, and errors spelled as ClickHouse
// spells them. Results stream. There are no sessions and no users: every request is alone, and only loopback reaches it.
import { isUtf8 } from 'node:buffer'
import { randomUUID } from 'node:crypto'
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http'
import { hostname } from 'node:os'
import { Readable, Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createGzip } from 'node:zlib'
import type { Logger } from 'pino'
import { type Engine, EngineError, type Result, refusal, type Statement } from './engine.ts'
import { createBudget, HttpError, type Lease, readBody, refuseBrowsers } from './http.ts'

/** Bytes of queries and inserted data in memory at once. */
const waitingBytesMax = 256 * 1024 * 1024
/** Bytes of one result. */
const resultBytesMax = 16 * 1024 * 1024 * 1024
/** How long a client may leave its result unread. */
const idleMsMax = 300_000

/** Parameters of the transport; all others are settings, and the engine says whether it knows them. */
const transport = new Set(
  `query query_id database default_format user password quota_key role session_timeout session_check compress decompress
  enable_http_compression http_zlib_compression_level wait_end_of_query buffer_size send_progress_in_http_headers
  http_headers_progress_interval_ms http_response_headers add_http_cors_header client_protocol_version
  cancel_http_readonly_queries_on_client_close framing`.split(/\s+/),
)

/** The HTTP status that ClickHouse gives an error code; 500 for those not named. */
const statusByCode = new Map<number, number>([
  ...[6, 25, 26, 27, 36, 38, 41, 43, 53, 62, 69, 70, 72, 117, 321, 349, 456, 457].map((c) => [c, 400] as const),
  ...[46, 47, 50, 56, 60, 63, 73, 78, 79, 81, 107, 115, 1000].map((c) => [c, 404] as const),
  [48, 501],
  [497, 403],
  [159, 408],
  [202, 503],
])

export const clickhouseHttp = (engine: Engine, log: Logger): RequestListener => {
  const lease = createBudget(waitingBytesMax)
  return (request, response) => {
    const held = lease()
    answer(engine, request, response, held)
      .catch((error: unknown) => refuse(request, response, error, log))
      .finally(held.release)
  }
}

const answer = async (
  engine: Engine,
  request: IncomingMessage,
  response: ServerResponse,
  held: Lease,
): Promise<void> => {
  refuseBrowsers(request)
  const url = new URL(request.url ?? '/', 'http://localhost')
  if (url.pathname === '/ping' || (url.pathname === '/' && request.method === 'GET' && url.search === '')) {
    response.end('Ok.\n')
    return
  }
  if (url.pathname !== '/') throw new HttpError(404, `there is no handle ${url.pathname.slice(0, 200)}`)
  if (request.method !== 'GET' && request.method !== 'POST') {
    throw new HttpError(405, `method ${request.method} is not served; it serves GET and POST`)
  }
  const statement = statementOf(request, url.searchParams, await readBody(request, held))
  response.setHeader('X-ClickHouse-Query-Id', url.searchParams.get('query_id') ?? randomUUID())
  const result = await engine.run(statement)
  await sendResult(request, response, statement, result, url.searchParams.get('enable_http_compression') === '1')
}

/** What reads or writes outside the data folder, which the engine itself would do for anyone. */
const outside =
  /\b(file|url|http|s3|gcs|hdfs|azureBlobStorage|remote|remoteSecure|executable|input|mysql|postgresql|mongodb|redis|sqlite|odbc|jdbc|deltaLake|iceberg\w*|hudi|python)(?:Cluster)?[`"]?\s*\(|\binto\s+outfile\b|\bfrom\s+infile\b/i
/** String literals and comments; the names in quotes stay. */
const literals = /'(?:[^'\\]|\\[\s\S]|'')*'|--[^\n]*|\/\*[\s\S]*?\*\//g

const refuseOutside = (sql: string): void => {
  // Data that follows an INSERT is not read as SQL.
  const data = /^\s*insert\b/i.test(sql) ? sql.search(/\bformat\s+\w+/i) : -1
  const found = outside.exec((data < 0 ? sql : sql.slice(0, data)).replaceAll(literals, "''"))
  if (found)
    throw refusal(497, `'${found[1] ?? found[0]}' is not served here: it reaches outside the database. (ACCESS_DENIED)`)
}

const statementOf = (request: IncomingMessage, search: URLSearchParams, body: Buffer): Statement => {
  for (const name of ['session_id', 'compress', 'decompress']) {
    if ((search.get(name) ?? '0') !== '0') throw notImplemented(`'${name}' in front of the embedded engine`)
  }
  if (!isUtf8(body)) throw notImplemented('Input that is not UTF-8 text, in front of the embedded engine')
  const query = search.get('query') ?? ''
  const sql = body.length > 0 ? `${query}${query === '' ? '' : '\n'}${body}` : query
  if (sql.trim() === '') throw refusal(62, 'Empty query. (SYNTAX_ERROR)')
  refuseOutside(sql)
  const settings: Record<string, string> = {}
  const parameters: Record<string, string> = {}
  for (const [name, value] of search) {
    if (name.startsWith('param_')) parameters[name.slice('param_'.length)] = value
    else if (!transport.has(name)) settings[name] = value
  }
  const database = search.get('database') ?? header(request, 'x-clickhouse-database')
  const format = search.get('default_format') ?? header(request, 'x-clickhouse-format') ?? 'TabSeparated'
  const base = { sql, format, settings, parameters, readonly: request.method === 'GET' }
  return database ? { ...base, database } : base
}

const notImplemented = (what: string): EngineError => refusal(48, `${what} is not supported. (NOT_IMPLEMENTED)`)

const header = (request: IncomingMessage, name: string): string | undefined => {
  const value = request.headers[name]
  return Array.isArray(value) ? value[0] : value
}

/** The format that the SQL names at its end, or the default. */
const formatOf = ({ sql, format = 'TabSeparated' }: Statement): string =>
  /\bFORMAT\s+(\w+)\s*(?:SETTINGS\s[^;]*)?;?\s*$/i.exec(sql.slice(-1000))?.[1] ?? format

const contentTypeOf = (format: string): string => {
  if (/EachRow/.test(format)) return 'application/x-ndjson; charset=UTF-8'
  if (/^JSON/.test(format)) return 'application/json; charset=UTF-8'
  if (/^CSV/.test(format)) return 'text/csv; charset=UTF-8; header=absent'
  if (/^(?:TabSeparated|TSV)/.test(format)) return 'text/tab-separated-values; charset=UTF-8'
  if (/^(?:Pretty|Vertical|Values|Markdown|XML)/.test(format)) return 'text/plain; charset=UTF-8'
  return 'application/octet-stream'
}

const sendResult = async (
  request: IncomingMessage,
  response: ServerResponse,
  statement: Statement,
  result: Result,
  compressionAsked: boolean,
): Promise<void> => {
  const format = formatOf(statement)
  response.setHeader('Content-Type', contentTypeOf(format))
  response.setHeader('X-ClickHouse-Format', format)
  response.setHeader('X-ClickHouse-Server-Display-Name', hostname())
  response.setHeader('X-ClickHouse-Summary', JSON.stringify(summaryOf(result)))
  const gzip = compressionAsked && /\bgzip\b/.test(header(request, 'accept-encoding') ?? '')
  if (gzip) response.setHeader('Content-Encoding', 'gzip')
  response.setTimeout(idleMsMax, () => response.destroy())
  const source = Readable.from(result.chunks, { objectMode: false })
  await (gzip ? pipeline(source, limit(), createGzip(), response) : pipeline(source, limit(), response))
}

const summaryOf = ({ rowsRead, bytesRead, elapsedSeconds }: Result) => ({
  read_rows: String(rowsRead),
  read_bytes: String(bytesRead),
  written_rows: '0',
  written_bytes: '0',
  total_rows_to_read: '0',
  result_rows: '0',
  result_bytes: '0',
  elapsed_ns: String(Math.round(elapsedSeconds * 1e9)),
})

const limit = (): Transform => {
  let bytes = 0
  return new Transform({
    transform(chunk: Buffer, _encoding, done) {
      bytes += chunk.length
      done(bytes > resultBytesMax ? new Error(`the result is larger than ${resultBytesMax} bytes`) : null, chunk)
    },
  })
}

/** Answers as ClickHouse does: the exception as text, its code in a header. A result that is on its way is cut off. */
const refuse = (request: IncomingMessage, response: ServerResponse, error: unknown, log: Logger): void => {
  const { message } = error as Error
  if (response.headersSent || response.destroyed) {
    log.warn({ message }, 'result cut off')
    response.destroy()
    return
  }
  const known = error instanceof EngineError && error.code === 'engine-query'
  const code = known ? (error.clickhouseCode ?? 0) : 0
  const status = error instanceof HttpError ? error.status : (statusByCode.get(code) ?? 500)
  const text = known ? message : `Code: 1000. DB::Exception: ${message} (HTTP_EXCEPTION)`
  for (const name of response.getHeaderNames()) if (name.startsWith('content-')) response.removeHeader(name)
  response.setHeader('X-ClickHouse-Exception-Code', known ? code : 1000)
  response.setHeader('Content-Type', 'text/plain; charset=UTF-8')
  if (!request.complete) response.setHeader('Connection', 'close')
  request.resume()
  response.statusCode = status
  response.end(`${text}\n`)
}
