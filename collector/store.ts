// Where rows go: ClickHouse, either embedded in this process or a server by URL. Both keep the same promise: when an insert
// resolves, its rows are stored, and inserting them again under the same token changes nothing.
import { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { ClickHouseLogLevel, createClient } from '@clickhouse/client'
import type { Engine } from './engine.ts'

/** How long a server may take for one insert or statement. */
const serverAnswerMsMax = 60_000

export type Store = {
  /** Stores rows in JSONEachRow, whole or not at all within a partition. */
  readonly insert: (table: string, rows: Buffer, token: string) => Promise<void>
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
  return {
    insert: async (table, rows, token) => {
      // `client.insert` would have rows be objects; `exec` passes the bytes through.
      const { stream } = await client.exec({
        query: `INSERT INTO ${table} FORMAT JSONEachRow`,
        values: Readable.from([rows], { objectMode: false }),
        clickhouse_settings: {
          async_insert: 0,
          insert_deduplication_token: token,
          max_partitions_per_insert_block: '0',
        },
      })
      await text(stream)
    },
    command: async (sql) => {
      await client.command({ query: sql })
    },
    query: async <Row>(sql: string) =>
      (await client.query({ query: sql, format: 'JSONEachRow' })).json<Row>() as Promise<Row[]>,
    close: () => client.close(),
  }
}
