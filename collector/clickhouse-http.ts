// ClickHouse's HTTP interface in front of the embedded engine, so that its official clients, curl and Grafana can read and write it
// while the collector holds the folder. A request becomes one statement, runs in a fresh session or the one that it names,
// and is answered in pieces; what a format cannot say in pieces goes through a file.
import { randomUUID } from 'node:crypto'
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import type { Logger } from 'pino'
import { backupOf } from './backup.ts'
import { type Answer, compressionAsked, sendAnswer, sendError, summaryOf } from './clickhouse-answer.ts'
import { type Asked, readRequest } from './clickhouse-request.ts'
import { createSessions, sessionAskedBy } from './clickhouse-sessions.ts'
import { openSpool, type Spooled } from './clickhouse-spool.ts'
import { isQuery, outputFormatOf } from './clickhouse-sql.ts'
import { type FrontUser, needsLogin, userOf } from './clickhouse-users.ts'
import type { Engine } from './engine.ts'
import { refusal } from './engine-error.ts'
import type { Progress } from './engine-queries.ts'
import { literal, type Result, type Statement } from './engine-run.ts'
import { createBudget, HttpError, type Lease, refuseBrowsers, refuseWebPages } from './http.ts'

/** Bytes of queries and forms in memory at once; rows go to files. */
const waitingBytesMax = 256 * 1024 * 1024
/** Bytes of a result that goes through a file, as the engine counts them, unless the request says otherwise. */
const fileBytesMax = 4 * 1024 * 1024 * 1024
/** Progress headers of one answer, and how often progress is looked at unless the client says. */
const progressMax = 100
const progressMsDefault = 100
const progressMsMin = 20

/** Formats in which pieces, one after another, are the whole; the engine writes others' beginning and end around each piece. */
const inPieces =
  /^(?:JSON(?:Compact)?(?:Strings)?EachRow|JSONLines|NDJSON|TabSeparated(?:Raw)?|TSV(?:Raw)?|CSV|TSKV|Values|SQLInsert|RowBinary|Native|MsgPack|BSONEachRow|Protobuf|LineAsString|RawBLOB|Null)$/i

const backupPath = '/admin/backup'
const handshake = 'SELECT displayName ( ) , version ( ) , revision ( ) , timezone ( )'
const health = 'Use / or /ping for health checks.\nOr /replicas_status for more sophisticated health checks.\n'
const usage = `${health}\nSend queries from your program with POST method or GET /?query=...\n`

type Front = {
  readonly engine: Engine
  readonly log: Logger
  readonly users: readonly FrontUser[]
  readonly lend: ReturnType<typeof createSessions>
  readonly running: Set<string>
}

/** Serves the engine. Without users it is for loopback: `default` writes, every other name reads. */
export const clickhouseHttp = (engine: Engine, log: Logger, users: readonly FrontUser[] = []): RequestListener => {
  const lease = createBudget(waitingBytesMax)
  const opening = openSpool(join(engine.folder, 'front'))
  const front: Front = { engine, log, users, lend: createSessions(engine), running: new Set() }
  return (request, response) => {
    const held = lease()
    void opening
      .then(async (spool) => {
        const spooled = spool.request()
        await serve(front, request, response, held, spooled).finally(spooled.remove)
      })
      .catch((error: unknown) => {
        log.error({ err: error }, 'the ClickHouse front failed')
        response.destroy()
      })
      .finally(held.release)
  }
}

const serve = async (
  front: Front,
  request: IncomingMessage,
  response: ServerResponse,
  held: Lease,
  spooled: Spooled,
): Promise<void> => {
  const { pathname, searchParams: search } = new URL(request.url ?? '/', 'http://localhost')
  const compression = compressionAsked(search, request.headers['accept-encoding'])
  try {
    needsLogin(front.users) ? refuseWebPages(request) : refuseBrowsers(request)
    if (pathname === '/ping' || pathname === '/replicas_status') return void response.end('Ok.\n')
    if (pathname === '/' && request.method === 'GET' && search.size === 0) return void response.end('Ok.\n')
    if (pathname !== '/' && pathname !== backupPath)
      throw new HttpError(404, `There is no handle ${pathname.slice(0, 200)}\n\n${usage}`)
    if (request.method !== 'GET' && request.method !== 'POST') {
      throw new HttpError(405, `method ${request.method} is not served; it serves GET and POST`)
    }
    const user = userOf(request, search, front.users)
    if (pathname === backupPath) return await sendBackup(front, user, response)
    const asked = await readRequest(request, search, user, held, spooled)
    const answer = await answerTo(front, response, search, user, asked, spooled)
    await sendAnswer(response, answer, compression).finally(answer.end)
  } catch (error) {
    const { message } = error as Error
    if (response.headersSent || response.destroyed) {
      front.log.warn({ message }, 'result cut off')
      if (!response.socket?.writableEnded) response.destroy()
      return
    }
    if (!request.complete) response.setHeader('Connection', 'close')
    request.resume()
    sendError(response, search.get('query_id') ?? randomUUID(), error, compression)
  }
}

/** Sends a copy of the whole store, for which reading is not enough: it holds what may not be asked for by SQL, too. */
const sendBackup = async ({ engine, log }: Front, { name, readonly }: FrontUser, response: ServerResponse) => {
  if (readonly) throw refusal(497, `${name.slice(0, 200)}: a backup takes a user who may write. (ACCESS_DENIED)`)
  log.info({ user: name }, 'a backup is made')
  response.setHeader('content-type', 'application/octet-stream')
  await pipeline(backupOf(engine), response)
}

type Running = Answer & { readonly end: () => void }

/** Runs what was asked; the answer is ready to be sent when its first bytes are there. */
const answerTo = async (
  front: Front,
  response: ServerResponse,
  search: URLSearchParams,
  user: FrontUser,
  asked: Asked,
  spooled: Spooled,
): Promise<Running> => {
  const { id } = asked.statement
  if (isHandshake(asked, search)) return { ...(await greeting(front.engine, id)), end: () => {} }
  if (front.running.has(id)) {
    throw refusal(216, `Query with id = ${id} is already running. (QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING)`)
  }
  front.running.add(id)
  let giveBack = (): void => {}
  let over = false
  const watch = watchProgress(front.engine, id, search)
  const end = (): void => {
    over = true
    front.running.delete(id)
    giveBack()
  }
  response.once('close', () => {
    const cancels = asked.reads && search.get('cancel_http_readonly_queries_on_client_close') !== '0'
    if (!over && cancels)
      void front.engine.cancel(id).catch((error: unknown) => front.log.warn({ err: error }, 'not cancelled'))
  })
  try {
    const session = sessionAskedBy(search)
    const lent = session && (await front.lend(user, session))
    giveBack = lent?.giveBack ?? giveBack
    if (lent && asked.statement.readonly && !user.readonly) refuseChange(asked)
    const readonly = lent ? false : (asked.statement.readonly ?? false)
    const statement = { ...asked.statement, readonly, abandoned: () => response.destroyed }
    const run = lent?.run ?? front.engine.run
    const result = await resultOf(run, { ...asked, statement }, search.get('wait_end_of_query') === '1', spooled)
    return { id, ...result, progress: watch.seen, end }
  } catch (error) {
    end()
    throw error
  } finally {
    watch.stop()
  }
}

/** In a session that may write, a GET may not: there the engine cannot be told so for one statement. */
const refuseChange = ({ tokens, reads }: Asked): void => {
  if (reads || /^(?:SET|USE)$/i.test(tokens[0]?.text ?? '')) return
  const why = 'For queries over HTTP, method GET implies readonly. You should use method POST for modifying queries.'
  throw refusal(164, `Cannot execute query in readonly mode. ${why} (READONLY)`)
}

type Run = (statement: Statement) => Promise<Result>

/** Runs a statement, into a file where its result must be whole before it is sent. */
const resultOf = async (
  run: Run,
  asked: Asked,
  mustEnd: boolean,
  spooled: Spooled,
): Promise<Pick<Answer, 'format' | 'chunks' | 'summary'>> => {
  const { statement, tokens, inserts } = asked
  const named = outputFormatOf(tokens)
  const format = inserts ? asked.format : (named?.format ?? asked.format)
  if (!isQuery(tokens) || (inPieces.test(format) && !mustEnd)) {
    const result = await run(statement)
    return { format, chunks: result.chunks, summary: summaryOf(result, inserts) }
  }
  const path = spooled.path()
  const end = tokens.findLast(({ text }) => text !== ';')?.end
  const at = named?.start ?? end
  const tail = named ? statement.sql.slice(named.start, end) : `FORMAT ${format}`
  const result = await run({
    ...statement,
    atOnce: true,
    settings: { max_result_bytes: String(fileBytesMax), ...statement.settings },
    sql: `${statement.sql.slice(0, at)}\nINTO OUTFILE ${literal(path)}\n${tail}`,
  })
  for await (const _ of result.chunks);
  return { format, chunks: spooled.read(path), summary: summaryOf(result, false) }
}

/** Looks, while a statement runs, how far it is, where the client wants to know. */
const watchProgress = (engine: Engine, id: string, search: URLSearchParams): { seen: Progress[]; stop: () => void } => {
  const seen: Progress[] = []
  if (search.get('send_progress_in_http_headers') !== '1') return { seen, stop: () => {} }
  const everyMs = Number(search.get('http_headers_progress_interval_ms') ?? progressMsDefault) || progressMsDefault
  const look = async (): Promise<void> => {
    const progress = await engine.progress(id).catch(() => null)
    if (progress !== null && seen.length < progressMax) seen.push(progress)
  }
  const timer = setInterval(() => void look(), Math.max(everyMs, progressMsMin))
  return { seen, stop: () => clearInterval(timer) }
}

/** The first question of clickhouse-go, which decodes this one answer as revisions of the protocol do that know of blocks' own facts. */
const isHandshake = ({ tokens, format }: Asked, search: URLSearchParams): boolean =>
  search.has('client_protocol_version') && format === 'Native' && tokens.map(({ text }) => text).join(' ') === handshake

/** The answer to it: revision 0, so that all that follow can be the engine's Native format as it is. */
const greeting = async ({ version }: Engine, id: string): Promise<Answer> => {
  const text = (value: string): Buffer => Buffer.concat([Buffer.from([Buffer.byteLength(value)]), Buffer.from(value)])
  const column = (name: string, type: string, value: Buffer): Buffer =>
    Buffer.concat([text(name), text(type), Buffer.from([0]), value])
  const block = Buffer.concat([
    // What blocks say of themselves: field 1, not of overflow rows; field 2, bucket -1; no more fields. Then 4 columns, 1 row.
    Buffer.from([1, 0, 2, 0xff, 0xff, 0xff, 0xff, 0, 4, 1]),
    column('displayName()', 'String', text(hostname().slice(0, 100))),
    column('version()', 'String', text(version)),
    column('revision()', 'UInt32', Buffer.alloc(4)),
    column('timezone()', 'String', text('UTC')),
  ])
  const chunks = (async function* () {
    yield block
  })()
  return { id, format: 'Native', chunks, summary: { result_rows: '1' }, progress: [] }
}
