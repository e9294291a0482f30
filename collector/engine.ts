// ClickHouse inside this process (chdb), on one folder that it locks. Inserts go one after another through a session of
// their own, so that no long query delays them; every query gets a fresh session (about 1 ms), because a session remembers
// SET and USE. The engine works on libuv's few threads, so only some queries may compute at once.
import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { ChdbResult, Session } from 'chdb'

/** Queries computing at the same time: half of libuv's four threads, the rest are for inserts, files and zlib. */
const queriesRunningMax = 2
/** Steps of queries waiting for one of those; more are refused. */
const queriesWaitingMax = 64
/** The longest a query may compute, unless it sets `max_execution_time` itself. */
const querySecondsMax = 600

export type EngineErrorCode = 'engine-missing' | 'engine-locked' | 'engine-busy' | 'engine-failed' | 'engine-query'

/** The engine could not be opened or refused a statement; the message of a refusal is ClickHouse's own. */
export class EngineError extends Error {
  readonly code: EngineErrorCode
  /** ClickHouse's number for the error, where it has one. */
  readonly clickhouseCode: number | null
  constructor(code: EngineErrorCode, message: string, clickhouseCode: number | null = null, cause?: unknown) {
    super(message, { cause })
    this.code = code
    this.clickhouseCode = clickhouseCode
  }
}

/** A refusal of our own, spelled as ClickHouse spells its own. */
export const refusal = (clickhouseCode: number, text: string): EngineError =>
  new EngineError('engine-query', `Code: ${clickhouseCode}. DB::Exception: ${text}`, clickhouseCode)

/** One statement and the world it runs in; parameter values are spelled as in ClickHouse's HTTP `param_x`. */
export type Statement = {
  readonly sql: string
  /** The output format where the SQL names none. */
  readonly format?: string
  readonly database?: string
  readonly settings?: Readonly<Record<string, string>>
  readonly parameters?: Readonly<Record<string, string>>
  readonly readonly?: boolean
}

/** What a statement gave: bytes in its format, as they are made. The numbers are known only when it was not streamed. */
export type Result = {
  readonly chunks: AsyncIterable<Uint8Array>
  readonly rowsRead: number
  readonly bytesRead: number
  readonly elapsedSeconds: number
}

export type Engine = {
  readonly version: string
  /** Stores rows in JSONEachRow. The same token again is the same rows again, and stores nothing. */
  readonly insert: (table: string, rows: Buffer, token: string) => Promise<void>
  /** Runs a statement; resolves when its first bytes are there, so that most errors come before any output. */
  readonly run: (statement: Statement) => Promise<Result>
  /** Lets inserts end, cuts queries off, and gives the folder back. */
  readonly close: () => Promise<void>
}

/** Opens the engine on a folder, which is made if it is missing. Only one folder can be open in a process at a time. */
export const openEngine = async (folder: string): Promise<Engine> => {
  const chdb = await loadChdb()
  await mkdir(folder, { recursive: true })
  const inserts = await openSession(chdb, folder)
  const version = (await inserts.queryAsync('SELECT version()', { format: 'TabSeparated' })).text().trim()
  const gate = createGate(queriesRunningMax, queriesWaitingMax)
  const open = new Set<Session>()
  let lastInsert: Promise<unknown> = Promise.resolve()
  let closed = false

  const insert = async (table: string, rows: Buffer, token: string): Promise<void> => {
    const settings = { async_insert: 0, insert_deduplication_token: token, max_partitions_per_insert_block: 0 }
    const inserted = lastInsert.then(() => inserts.insert({ table, values: rows, format: 'JSONEachRow', settings }))
    lastInsert = inserted.catch(() => {})
    await inserted.catch((error: unknown) => {
      throw queryError(error, version)
    })
  }

  const run = async (statement: Statement): Promise<Result> => {
    if (closed) throw new EngineError('engine-failed', 'the engine is closed')
    const session = new chdb.Session(folder)
    open.add(session)
    const release = (): void => {
      open.delete(session)
      session.close()
    }
    try {
      for (const sql of preparation(statement)) await gate(() => session.queryAsync(sql))
      const { result, chunks } = await start(session, statement, gate)
      const first = await chunks.next()
      return { ...summary(result), chunks: guarded(first, chunks, version, release) }
    } catch (error) {
      release()
      throw queryError(error, version)
    }
  }

  const close = async (): Promise<void> => {
    closed = true
    await lastInsert
    for (const session of [...open, inserts]) session.close()
    await chdb.drainPending()
  }
  return { version, insert, run, close }
}

type Chdb = typeof import('chdb')
type Gate = <Value>(work: () => Promise<Value>) => Promise<Value>

const loadChdb = async (): Promise<Chdb> => {
  // The engine takes its time zone from here and from nowhere else; without it a row's day would depend on the machine.
  // biome-ignore lint/style/noProcessEnv: it is set for the engine, not read
  process.env.TZ = 'UTC'
  try {
    return await import('chdb')
  } catch (cause) {
    const advice = 'run `npm install chdb`, or set collector.clickhouse_url to use a ClickHouse server'
    const message = `the embedded ClickHouse needs the optional package chdb, which cannot be loaded here: ${advice}`
    throw new EngineError('engine-missing', message, null, cause)
  }
}

const openSession = async (chdb: Chdb, folder: string): Promise<Session> => {
  try {
    return new chdb.Session(folder)
  } catch (cause) {
    const why = (cause as Error).message
    if (why.includes('one active data directory')) {
      throw new EngineError('engine-busy', `cannot open ${folder}: this process has another folder open`, null, cause)
    }
    const owner = await ownerOf(folder)
    if (owner === null) throw new EngineError('engine-failed', `cannot open ${folder}: ${why}`, null, cause)
    const message = `cannot open ${folder}: process ${owner} owns it; read and write it over that collector's HTTP ports`
    throw new EngineError('engine-locked', message, null, cause)
  }
}

/** The living process that ClickHouse's lock file names, if it is another one. */
const ownerOf = async (folder: string): Promise<number | null> => {
  const status = await readFile(join(folder, 'status'), 'utf8').catch(() => '')
  const pid = Number(/PID: (\d+)/.exec(status)?.[1])
  if (!pid || pid === process.pid) return null
  try {
    process.kill(pid, 0)
    return pid
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM' ? pid : null
  }
}

/** What a server does and chdb by default does not: inserts that are stored when they are answered, no implied SELECT. */
const likeServer = { async_insert: '0', implicit_select: '0', max_execution_time: String(querySecondsMax) }

/** The statements that give a fresh session its world. `readonly` comes last: after it nothing can be set. */
const preparation = (statement: Statement): string[] => {
  const settings: Record<string, string> = { ...likeServer }
  Object.assign(settings, statement.settings)
  for (const [name, value] of Object.entries(statement.parameters ?? {})) settings[`param_${name}`] = value
  const statements = [`SET ${Object.entries(settings).map(setting).join(', ')}`]
  if (statement.database) statements.push(`USE \`${statement.database.replaceAll(/[\\`]/g, '\\$&')}\``)
  if (statement.readonly && !Number(settings.readonly)) statements.push('SET readonly = 2')
  return statements
}

const setting = ([name, value]: readonly [string, string]): string => {
  if (!/^\w+$/.test(name)) throw refusal(115, `Unknown setting '${name}'. (UNKNOWN_SETTING)`)
  return `${name} = '${value.replaceAll(/[\\']/g, '\\$&')}'`
}

const reads = /^(?:\s|--[^\n]*\n|\/\*[\s\S]*?\*\/)*(?:SELECT|WITH|FROM|\()/i
const notStreamable = 'Streaming query is not supported'

/** Streams what can be streamed, and runs the rest at once. */
const start = async (session: Session, { sql, format = 'TabSeparated' }: Statement, gate: Gate) => {
  if (reads.test(sql)) {
    try {
      const stream = session.queryStream(sql, { format })[Symbol.asyncIterator]()
      const next = async (): Promise<Step> => step((await gate(() => stream.next())).value?.raw())
      return { result: null, chunks: { next, return: async () => stream.return?.() } }
    } catch (error) {
      if (!(error as Error).message.includes(notStreamable)) throw error
    }
  }
  const result = await gate(() => session.queryAsync(sql, { format }))
  const bytes = [result.bytes()]
  return { result, chunks: { next: async () => step(bytes.shift()), return: async () => {} } }
}

const step = (value: Uint8Array | undefined): Step =>
  value === undefined ? { done: true, value } : { done: false, value }

type Step = IteratorResult<Uint8Array, undefined>
type Chunks = { readonly next: () => Promise<Step>; readonly return: () => Promise<unknown> }

/**
 * The first chunk and those after it; however the reading ends, the session is released. Not a generator, because one
 * that is ended before it was begun runs no `finally`.
 */
const guarded = (
  first: Step,
  chunks: Chunks,
  version: string,
  release: () => void,
): AsyncIterableIterator<Uint8Array, undefined> => {
  let ready: Step | null = first
  const end = async (): Promise<Step> => {
    await chunks.return().finally(release)
    return { done: true, value: undefined }
  }
  const next = async (): Promise<Step> => {
    try {
      const taken = ready ?? (await chunks.next())
      ready = null
      return taken.done ? await end() : taken
    } catch (error) {
      release()
      throw queryError(error, version)
    }
  }
  const iterator = { next, return: end, [Symbol.asyncIterator]: () => iterator }
  return iterator
}

const summary = (result: ChdbResult | null) => ({
  rowsRead: result?.rowsRead ?? 0,
  bytesRead: result?.bytesRead ?? 0,
  elapsedSeconds: result?.elapsed ?? 0,
})

/** ClickHouse's code for an error that has none. */
const unknownException = 1002

/** Gives ClickHouse's text its usual form: one `Code: N. DB::Exception:` before it, one version after it. */
const queryError = (error: unknown, version: string): EngineError => {
  if (error instanceof EngineError) return error
  const text = (error as Error).message.trim()
  const code = Number(/Code: (\d+)\./.exec(text)?.[1] ?? unknownException)
  const plain = text
    .replaceAll(/ \(version [\d.]+\)(?:\. \([A-Z_]+\))?/g, '')
    .replace(/^(?:Code: \d+\. DB::Exception: )+/, '')
  return new EngineError('engine-query', `Code: ${code}. DB::Exception: ${plain} (version ${version})`, code, error)
}

/** Lets `runningMax` pieces of work run at once and `waitingMax` wait. */
const createGate = (runningMax: number, waitingMax: number): Gate => {
  const waiting: (() => void)[] = []
  let running = 0
  return async (work) => {
    if (running >= runningMax) {
      if (waiting.length >= waitingMax) {
        const maximum = `Maximum: ${runningMax} running, ${waitingMax} waiting`
        throw refusal(202, `Too many simultaneous queries. ${maximum}. (TOO_MANY_SIMULTANEOUS_QUERIES)`)
      }
      await new Promise<void>((resolve) => waiting.push(resolve))
    } else running += 1
    try {
      return await work()
    } finally {
      const next = waiting.shift()
      if (next) next()
      else running -= 1
    }
  }
}
