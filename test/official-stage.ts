// What the official OpenTelemetry Collector stored of a set of requests, recorded once by `bench/official.ts` and kept, so that
// ours is held to it without it. Rows are compared as ClickHouse prints them, column by column, whatever order they came in.
import { readFile } from 'node:fs/promises'
import { gunzipSync } from 'node:zlib'
import { rowsOf } from './collector-fixtures.ts'

export const fixture = new URL('data/official-otelcol.ndjson.gz', import.meta.url)

export type Signal = 'traces' | 'logs' | 'metrics'
/** A request as it is posted to `/v1/SIGNAL`. */
export type Request = { readonly signal: Signal; readonly request: object }
export type Row = Readonly<Record<string, unknown>>
type Line = Request | { readonly table: string; readonly row: Row }

export const readFixture = async (): Promise<{ requests: Request[]; tables: Map<string, Row[]> }> => {
  const text = gunzipSync(await readFile(fixture)).toString()
  const requests: Request[] = []
  const tables = new Map<string, Row[]>()
  for (const line of text
    .trimEnd()
    .split('\n')
    .map((json) => JSON.parse(json) as Line)) {
    if ('request' in line) requests.push(line)
    else tables.set(line.table, [...(tables.get(line.table) ?? []), line.row])
  }
  return { requests, tables }
}

type Stored = { readonly clickhouseUrl: string }

/** The tables that rows are inserted into; the others are filled by views. */
export const isBase = (table: string): boolean => /^otel_(traces|logs|metrics_[a-z_]+)$/.test(table)

/** All tables of the schema that keep rows. */
export const tablesOf = async (collector: Stored): Promise<{ name: string; engine: string }[]> =>
  rowsOf(
    collector,
    `SELECT name, engine FROM system.tables WHERE database = 'otel' AND engine LIKE '%MergeTree'
       AND name NOT IN ('schema_migrations', 'payload_erasures') ORDER BY name`,
  )

const exactly = 'SETTINGS output_format_json_quote_64bit_integers = 1, output_format_json_quote_denormals = 1'

/** What a table holds, in an order of its own; the moment a row was stored is left out, and how spans of a trace were grouped into inserts. */
export const storedIn = async (collector: Stored, table: string, engine: string): Promise<Row[]> => {
  const sql =
    table === 'otel_traces_trace_id_ts'
      ? `SELECT TraceId, min(Start) AS Start, max(End) AS End FROM otel.${table} GROUP BY TraceId`
      : `SELECT * EXCEPT ('^(ingested|arrived)_at$') FROM otel.${table} ${engine === 'MergeTree' ? '' : 'FINAL'}`
  return inOrder(await rowsOf<Row>(collector, `${sql} ${exactly}`))
}

const inOrder = (rows: readonly Row[]): Row[] =>
  rows
    .map((row) => ({ row, text: JSON.stringify(row) }))
    .toSorted((a, b) => (a.text < b.text ? -1 : 1))
    .map(({ row }) => row)
