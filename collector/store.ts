// Where rows go: ClickHouse, either embedded in this process or a server by URL. Both keep the same promise: when an insert
// resolves, its rows are stored, and inserting them again under the same token changes nothing.
import { open } from 'node:fs/promises'
import { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { ClickHouseError, ClickHouseLogLevel, createClient } from '@clickhouse/client'
import type { Engine } from './engine.ts'
import { daysPerInsertMax, EngineError } from './engine-error.ts'

/** How long a server may take for one insert or statement. */
const serverAnswerMsMax = 60_000

export type RowsFormat = 'JSONEachRow' | 'Native'

export type Store = {
  /** Stores rows in JSONEachRow, whole or not at all within a partition. */
  readonly insert: (table: string, rows: Buffer, token: string) => Promise<void>
  /** The same for rows that are a file's content. */
  readonly insertFile: (table: string, file: string, format: RowsFormat, token: string) => Promise<void>
  readonly command: (sql: string) => Promise<void>
  readonly query: <Row>(sql: string) => Promise<Row[]>
  readonly close: () => Promise<void>
}

export const embeddedStore = (engine: Engine): Store => {
  const textOf = async (sql: string): Promise<string> => {
    const { chunks } = await engine.run({ sql, format: 'JSONEachRow' })
    return text(chunks)
  }
  return {
    insert: engine.insert,
    insertFile: engine.insertFile,
    command: async (sql) => {
      await textOf(sql)
    },
    query: async <Row>(sql: string) => {
      const lines = (await textOf(sql)).split('\n').filter((line) => line !== '')
      return lines.map((line) => JSON.parse(line) as Row)
    },
    close: engine.close,
  }
}

/** A ClickHouse server; user, password and database may stand in the URL. */
export const serverStore = (url: string): Store => {
  const client = createClient({
    url,
    request_timeout: serverAnswerMsMax,
    compression: { request: true },
    log: { level: ClickHouseLogLevel.OFF },
  })
  // `client.insert` would have rows be objects; `exec` passes the bytes through.
  const insert = async (table: string, values: Readable, format: RowsFormat, token: string): Promise<void> => {
    const { stream } = await client.exec({
      query: `INSERT INTO ${table} FORMAT ${format}`,
      values,
      clickhouse_settings: {
        async_insert: 0,
        insert_deduplication_token: token,
        max_partitions_per_insert_block: String(daysPerInsertMax),
        // On a cluster an answer means that the shard has the rows.
        distributed_foreground_insert: 1,
      },
    })
    await text(stream)
  }
  return {
    insert: (table, rows, token) => insert(table, Readable.from([rows], { objectMode: false }), 'JSONEachRow', token),
    insertFile: async (table, file, format, token) => {
      const rows = (await open(file)).createReadStream()
      // A server that is away leaves the file unread, and open.
      await insert(table, rows, format, token).finally(() => rows.destroy())
    },
    command: async (sql) => {
      await client.command({ query: sql })
    },
    query: async <Row>(sql: string) =>
      (await client.query({ query: sql, format: 'JSONEachRow' })).json<Row>() as Promise<Row[]>,
    close: () => client.close(),
  }
}

/**
 * Has the tables of the database flush what an insert wrote before the insert is answered, or not. Only tables that are
 * not so already are changed.
 */
export const setFsync = async (store: Store, fsync: boolean): Promise<void> => {
  const isSet = "match(create_table_query, 'fsync_after_insert = 1')"
  const tables = await store.query<{ name: string }>(
    `SELECT name FROM system.tables WHERE database = 'otel' AND engine LIKE '%MergeTree' AND ${isSet} != ${fsync}`,
  )
  const [after, folder] = ['fsync_after_insert', 'fsync_part_directory']
  const change = fsync ? `MODIFY SETTING ${after} = 1, ${folder} = 1` : `RESET SETTING ${after}, ${folder}`
  for (const { name } of tables) await store.command(`ALTER TABLE otel.\`${name}\` ${change}`)
}

/**
 * Loads the views anew, which nobody may be writing through meanwhile. ClickHouse derives a token for a view's rows from the insert's
 * and from the view, and an ALTERed view has another name in that until it is loaded again: an insert that a crash cut
 * off and that is repeated after it would be stored twice in that view's table.
 */
export const reloadViews = async (store: Store): Promise<void> => {
  const views = await store.query<{ name: string }>(
    "SELECT name FROM system.tables WHERE database = 'otel' AND engine = 'MaterializedView'",
  )
  for (const { name } of views) {
    await store.command(`DETACH TABLE otel.\`${name}\` SYNC`)
    await store.command(`ATTACH TABLE otel.\`${name}\``)
  }
}

/** ClickHouse's codes for input that it cannot read as the table's columns. */
const unreadable = new Set([6, 26, 27, 33, 38, 41, 53, 69, 70, 72, 117, 130])

/** ClickHouse's code for rows of too many days, and for a table that has to merge first, which passes. */
const tooManyParts = 252

/** Whether an insert failed while its rows were read, so that none of them reached the table or a view of it. */
export const wasNotRead = (error: unknown): boolean => {
  const code = error instanceof EngineError ? error.clickhouseCode : null
  const number = error instanceof ClickHouseError ? Number(error.code) : code
  const { message } = error as Error
  if (number === tooManyParts) return /too many partitions/i.test(message)
  return number !== null && unreadable.has(number) && !/while pushing to view/i.test(message)
}
