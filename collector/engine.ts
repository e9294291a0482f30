// ClickHouse inside this process (chdb), on one folder that it locks. Inserts go one after another through a session of
// their own, so that no long query delays them; every query gets a fresh session (about 1 ms), because a session remembers
// SET and USE. The engine works on libuv's few threads, so only some queries may compute at once.
import { mkdir, readFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import type { Session } from 'chdb'
import { writeEngineConfig } from './engine-config.ts'
import { daysPerInsertMax, EngineError, queryError } from './engine-error.ts'
import { openQueries, type Queries } from './engine-queries.ts'
import { literal, settingList } from './engine-run.ts'

export type Engine = Queries & {
  readonly version: string
  /** The folder that holds it all. */
  readonly folder: string
  /** Stores rows in JSONEachRow. The same token again is the same rows again, and stores nothing. */
  readonly insert: (table: string, rows: Buffer, token: string) => Promise<void>
  /** The same for rows that are a file's content. */
  readonly insertFile: (table: string, file: string, format: 'JSONEachRow' | 'Native', token: string) => Promise<void>
  /** Does something while no insert runs; those that come meanwhile wait. */
  readonly holdInserts: <Value>(work: () => Promise<Value>) => Promise<Value>
  /** Lets inserts end, cuts queries off, and gives the folder back. */
  readonly close: () => Promise<void>
}

/** Opens the engine on a folder, which is made if it is missing. Only one folder can be open in a process at a time. */
export const openEngine = async (folder: string): Promise<Engine> => {
  const chdb = await loadChdb()
  await mkdir(folder, { recursive: true })
  const inserts = await openSession(chdb, folder)
  const version = (await inserts.queryAsync('SELECT version()', { format: 'TabSeparated' })).text().trim()
  const { close: closeQueries, ...queries } = openQueries(() => new chdb.Session(folder), version)
  let lastInsert: Promise<unknown> = Promise.resolve()

  const holdInserts = <Value>(work: () => Promise<Value>): Promise<Value> => {
    const done = lastInsert.then(work)
    lastInsert = done.catch(() => {})
    return done
  }
  const inTurn = async (work: () => Promise<unknown>): Promise<void> => {
    await holdInserts(work).catch((error: unknown) => {
      throw queryError(error, version)
    })
  }

  const insert = (table: string, rows: Buffer, token: string): Promise<void> => {
    const settings = {
      async_insert: 0,
      insert_deduplication_token: token,
      max_partitions_per_insert_block: daysPerInsertMax,
    }
    return inTurn(() => inserts.insert({ table, values: rows, format: 'JSONEachRow', settings }))
  }

  const insertFile = async (table: string, file: string, format: 'JSONEachRow' | 'Native', token: string) => {
    if (format === 'JSONEachRow') return insert(table, await readFile(file), token)
    // chdb passes only text through; a file it reads itself. One thread: the same blocks in the same order, every time.
    const settings = settingList({
      async_insert: '0',
      insert_deduplication_token: token,
      max_partitions_per_insert_block: String(daysPerInsertMax),
      max_threads: '1',
      max_insert_threads: '1',
    })
    const sql = `INSERT INTO ${table} FROM INFILE ${literal(file)} SETTINGS ${settings} FORMAT Native`
    return inTurn(() => inserts.queryAsync(sql))
  }

  const close = async (): Promise<void> => {
    await lastInsert
    closeQueries()
    inserts.close()
    await chdb.drainPending()
  }
  return { ...queries, version, folder, insert, insertFile, holdInserts, close }
}

type Chdb = typeof import('chdb')

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
  const connectionArgs = await writeEngineConfig(resolve(folder))
  try {
    return new chdb.Session(folder, { connectionArgs })
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
