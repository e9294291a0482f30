// Queries on the embedded engine: each on a session of its own (about 1 ms), because a session remembers SET and USE, unless it was
// asked to remember. One more session, which no query holds up, sees how far they are and ends them.
import type { Session } from 'chdb'
import { EngineError } from './engine-error.ts'
import { createGate } from './engine-gate.ts'
import { likeServer, literal, type Result, runOn, type Statement, setStatement, settingsOf, tag } from './engine-run.ts'

/** Queries computing at the same time: half of libuv's four threads, the rest are for inserts, files and zlib. */
const queriesRunningMax = 2
/** Steps of queries waiting for one of those; more are refused. */
const queriesWaitingMax = 64

/** A session that outlives its statements; it runs one after another. */
export type KeptSession = {
  /** Settings of the statement itself are taken back after it. */
  readonly run: (statement: Statement) => Promise<Result>
  readonly close: () => void
}

/** Counts as ClickHouse gives them: of rows and of bytes. */
export type Progress = {
  readonly read_rows: string
  readonly read_bytes: string
  readonly written_rows: string
  readonly written_bytes: string
  readonly total_rows_to_read: string
  readonly elapsed_ns: string
}

export type Queries = {
  /** Runs a statement; resolves when its first bytes are there, so that most errors come before any output. */
  readonly run: (statement: Statement) => Promise<Result>
  /** A session that remembers what it was told: SET, USE, temporary tables; for good read-only where asked. */
  readonly keep: (readonly: boolean) => Promise<KeptSession>
  /** How far the statement of that id is; null when none runs. */
  readonly progress: (id: string) => Promise<Progress | null>
  /** Ends the statement of that id, if one runs. */
  readonly cancel: (id: string) => Promise<void>
}

/** The queries of an open engine; `connect` gives it new sessions. `close` cuts off what runs. */
export const openQueries = (connect: () => Session, version: string): Queries & { readonly close: () => void } => {
  const gate = createGate(queriesRunningMax, queriesWaitingMax)
  const control = connect()
  const sessions = new Set<Session>()
  let closed = false
  const open = (): Session => {
    if (closed) throw new EngineError('engine-failed', 'the engine is closed')
    const session = connect()
    sessions.add(session)
    return session
  }
  const end = (session: Session): void => {
    sessions.delete(session)
    session.close()
  }
  const keep = async (readonly: boolean): Promise<KeptSession> => {
    const session = open()
    await session.queryAsync(setStatement(readonly ? { ...likeServer, readonly: '2' } : likeServer))
    let last: Promise<void> = Promise.resolve()
    const run = async (statement: Statement): Promise<Result> => {
      await last
      const before = await settingsNow(session, Object.keys(settingsOf(statement)))
      const { promise, resolve } = Promise.withResolvers<void>()
      last = promise
      return runOn(session, statement, gate, version, async () => {
        for (const sql of before) await session.queryAsync(sql).catch(() => {})
        resolve()
      })
    }
    return { run, close: () => end(session) }
  }
  const run = async (statement: Statement): Promise<Result> => {
    const session = open()
    const settings = { ...likeServer, ...statement.settings }
    return runOn(session, { ...statement, settings }, gate, version, async () => end(session))
  }
  // Not through the gate: what is asked here must not wait for the very query that it is about.
  const ask = async (sql: string) => (await control.queryAsync(sql, { format: 'JSONEachRow' })).text()
  const progress = async (id: string): Promise<Progress | null> => {
    const row = closed ? '' : await ask(`${progressSql} WHERE ${isNamed(id)} LIMIT 1`)
    return row === '' ? null : (JSON.parse(row) as Progress)
  }
  const cancel = async (id: string): Promise<void> => {
    if (!closed) await ask(`KILL QUERY WHERE ${isNamed(id)} ASYNC`)
  }
  const close = (): void => {
    closed = true
    for (const session of [...sessions, control]) session.close()
  }
  return { run, keep, progress, cancel, close }
}

const isNamed = (id: string): string => `Settings['${tag}'] = ${literal(id)}`

const progressSql = `SELECT toString(read_rows) AS read_rows, toString(read_bytes) AS read_bytes,
  toString(written_rows) AS written_rows, toString(written_bytes) AS written_bytes,
  toString(total_rows_approx) AS total_rows_to_read, toString(toUInt64(elapsed * 1e9)) AS elapsed_ns
  FROM system.processes`

/** The statements that give settings back the values they have now. */
const settingsNow = async (session: Session, names: readonly string[]): Promise<string[]> => {
  if (names.length === 0) return []
  const sql = `SELECT name, value, changed FROM system.settings WHERE name IN (${names.map(literal).join(', ')})`
  const rows = (await session.queryAsync(sql, { format: 'JSONCompactEachRow' })).text().split('\n').filter(Boolean)
  return rows
    .map((row) => JSON.parse(row) as [string, string, number])
    .map(([name, value, changed]) => (changed ? setStatement({ [name]: value }) : `SET ${name} = DEFAULT`))
}
