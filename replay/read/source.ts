// Where records come from: an NDJSON file or a ClickHouse server, as the same stream of checked records in batches. A line
// that is not a record stops everything: a replay that silently left rows out would be a replay of other traffic. ClickHouse
// is read in slices of time, each one answer in Native format whose bytes a worker can turn into records by itself.
import { createReadStream } from 'node:fs'
import { open } from 'node:fs/promises'
import { type ClickHouseClient, ClickHouseLogLevel, createClient } from '@clickhouse/client'
import type { DecisionRecord } from '../../router/policy/record.ts'
import { lastMomentOf } from '../estimate/feedback.ts'
import type { LoggedPolicy } from '../redecide/verify.ts'
import { allFeatures, type ReadFeatures } from './candidates.ts'
import { parseRecord, SourceError } from './parse.ts'
import { recordColumns, recordsOf } from './rows.ts'
import { conditions, isSelected, parametersOf, type Selection } from './selection.ts'
import { isIndirectSql, isRecord, lastMomentSql, never, sliceSql, startsSql } from './slice-sql.ts'

export { type Selection, SourceError }

const lineBytesMax = 1 << 20
const byteOrderMark = /^\uFEFF/
const requestTimeoutMs = 300_000
/** Records in a batch: few enough to be forgotten while they are young, which halves the work of the collector of garbage. */
const batchRecords = 512
const sliceBytesMax = 2 ** 30

export type Source = {
  readonly name: string
  /** How much there is to read, in the unit that `records` reports progress in; null when not known. */
  readonly size: () => Promise<number | null>
  readonly records: (onProgress?: (done: number) => void) => AsyncIterable<DecisionRecord>
  /** The same records, some thousands at a time. */
  readonly batches: (onProgress?: (done: number) => void) => AsyncIterable<readonly DecisionRecord[]>
  /**
   * The same, not yet decoded: `recordsOf(slice.bytes, features)` are the records. Null where records are lines. Nothing decided after
   * `untilMs` (since 1970) is in them: a log that is still being written can be read twice.
   */
  readonly slices: ((untilMs?: number, features?: ReadFeatures) => AsyncIterable<Slice>) | null
  /** Asks the server about the same records, `selected` in SQL being their condition; null where there is none to ask. */
  readonly ask: (<Row>(sql: (selected: string) => string) => Promise<Row[]>) | null
  /** The few of these records that a condition in SQL holds for, with these features or all; null where there is no server to ask. */
  readonly find: ((condition: string, features?: ReadFeatures) => Promise<DecisionRecord[]>) | null
  readonly policies: () => Promise<LoggedPolicy[]>
  /** The last moment that the log knows of, whatever is selected: a decision or a feedback, milliseconds since 1970. */
  readonly lastMomentMs: () => Promise<number>
  readonly close: () => Promise<void>
}

/**
 * Some of the rows of a ClickHouse source, in a buffer of their own; `rows` still counts rows that replace one another, and `end`
 * is the moment before which they were decided.
 */
export type Slice = { readonly bytes: ArrayBuffer; readonly rows: number; readonly end: string }

/** Opens a ClickHouse URL or an NDJSON file. */
export const openSource = (where: string, selection: Selection = {}): Source =>
  /^https?:\/\//.test(where) ? clickhouseSource(where, selection) : fileSource(where, selection)

function* batched(records: Iterable<DecisionRecord>): Generator<readonly DecisionRecord[]> {
  let batch: DecisionRecord[] = []
  for (const record of records) {
    batch.push(record)
    if (batch.length < batchRecords) continue
    yield batch
    batch = []
  }
  if (batch.length > 0) yield batch
}

async function* flattened(batches: AsyncIterable<readonly DecisionRecord[]>): AsyncGenerator<DecisionRecord> {
  for await (const batch of batches) yield* batch
}

const fileSource = (path: string, selection: Selection): Source => {
  const batches: Source['batches'] = (onProgress) => fileBatches(path, selection, onProgress)
  return {
    name: path,
    size: async () => {
      const file = await openFile(path)
      try {
        return (await file.stat()).size
      } finally {
        await file.close()
      }
    },
    batches,
    records: (onProgress) => flattened(batches(onProgress)),
    slices: null,
    ask: null,
    find: null,
    policies: async () => [],
    lastMomentMs: () => lastMomentOf(fileBatches(path, {})),
    close: async () => {},
  }
}

async function* fileBatches(
  path: string,
  selection: Selection,
  onProgress?: (done: number) => void,
): AsyncGenerator<readonly DecisionRecord[]> {
  await (await openFile(path)).close()
  let number = 0
  let good = 0
  let batch: DecisionRecord[] = []
  for await (const { line, bytesRead } of lines(path)) {
    number++
    if (line.trim() === '') continue
    const record = parseRecord(number === 1 ? line.replace(byteOrderMark, '') : line, `${path} line ${number}`, good)
    good++
    if (isSelected(record, selection)) batch.push(record)
    if (good % batchRecords !== 0) continue
    onProgress?.(bytesRead)
    yield batch
    batch = []
  }
  yield batch
}

const unreadable = (path: string, problem: string): SourceError =>
  new SourceError('source-unreadable', `reading decision records: cannot open ${path}: ${problem}`)

const openFile = async (path: string) => {
  let file: Awaited<ReturnType<typeof open>>
  try {
    file = await open(path)
  } catch (error) {
    throw unreadable(path, (error as Error).message)
  }
  if (!(await file.stat()).isDirectory()) return file
  await file.close()
  throw unreadable(path, 'it is a folder; wanted a file of decision records, one JSON object a line')
}

/** The lines of a file, none longer than the limit. */
async function* lines(path: string): AsyncGenerator<{ line: string; bytesRead: number }> {
  const stream = createReadStream(path)
  let rest: Buffer[] = []
  let restBytes = 0
  let number = 1
  const hold = (part: Buffer) => {
    rest.push(part)
    restBytes += part.length
    if (restBytes > lineBytesMax)
      throw new SourceError(
        'record-invalid',
        `reading decision records: ${path} line ${number} is longer than ${lineBytesMax} bytes; nothing was computed`,
      )
  }
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    let from = 0
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, from)) {
      hold(chunk.subarray(from, end))
      yield { line: Buffer.concat(rest).toString('utf8'), bytesRead: stream.bytesRead }
      rest = []
      restBytes = 0
      from = end + 1
      number++
    }
    hold(chunk.subarray(from))
  }
  if (restBytes > 0) yield { line: Buffer.concat(rest).toString('utf8'), bytesRead: stream.bytesRead }
}

const clickhouseSource = (url: string, selection: Selection): Source => {
  const client = createClient({ url, request_timeout: requestTimeoutMs, log: { level: ClickHouseLogLevel.OFF } })
  const query_params = parametersOf(selection)
  const ask = <T>(query: string) => answer<T>(client, url, { query_params, query })
  const isIndirect = async (): Promise<boolean> => ((await ask<{ rows: number }>(isIndirectSql))[0]?.rows ?? 0) > 0
  type Part = { readonly start: string; readonly end: string; readonly also?: string; readonly features?: ReadFeatures }
  const within = ({ start, end, also = '', features = allFeatures }: Part, indirect: boolean): Promise<ArrayBuffer> => {
    const where = `${conditions(selection)} ${also}`
    const query = sliceSql(recordColumns(features), where, selection.feedbackTimes === true, indirect)
    return bytesOf(client, url, { query, query_params: { ...query_params, start, end } })
  }
  const slices = async function* (untilMs = Infinity, features = allFeatures): AsyncGenerator<Slice> {
    const starts = await ask<{ start: string; end: string; rows: number }>(startsSql(conditions(selection), untilMs))
    const indirect = await isIndirect()
    const read = async ({ start, end, rows }: (typeof starts)[number]): Promise<Slice> => ({
      bytes: await within({ start, end, features }, indirect),
      rows,
      end,
    })
    // The next slice is made while this one is used.
    let next = starts[0] && read(starts[0])
    for (const [at] of starts.entries()) {
      const slice = await next
      next = starts[at + 1] && read(starts[at + 1] as (typeof starts)[number])
      next?.catch(() => {})
      if (slice) yield slice
    }
  }
  const batches = async function* (onProgress?: (done: number) => void): AsyncGenerator<readonly DecisionRecord[]> {
    let done = 0
    for await (const { bytes, rows } of slices()) {
      yield* batched(recordsOf(bytes))
      done += rows
      onProgress?.(done)
    }
  }
  return {
    name: url,
    size: async () => {
      const [row] = await ask<{ count: string }>(
        `SELECT toString(count()) AS count FROM otel.routing_decisions FINAL WHERE ${isRecord} ${conditions(selection)}`,
      )
      return Number(row?.count ?? 0)
    },
    batches,
    records: (onProgress) => flattened(batches(onProgress)),
    slices,
    ask: (sql) => ask(sql(`${isRecord} ${conditions(selection)}`)),
    find: async (condition, features) => {
      const part = { start: '1900-01-01 00:00:00', end: never, also: `AND ${condition}` }
      return [...recordsOf(await within(features ? { ...part, features } : part, await isIndirect()), features)]
    },
    policies: () => ask<LoggedPolicy>('SELECT hash, name, source FROM otel.policies FINAL'),
    lastMomentMs: async () => Number((await ask<{ at: string }>(lastMomentSql))[0]?.at ?? Number.NaN),
    close: () => client.close(),
  }
}

/** The whole answer to a query in a buffer of its own. */
const bytesOf = (
  client: ClickHouseClient,
  url: string,
  query: Parameters<ClickHouseClient['exec']>[0],
): Promise<ArrayBuffer> =>
  request(url, async () => {
    const { stream } = await client.exec({ ...query, clickhouse_settings: { wait_end_of_query: 1 } })
    const chunks: Buffer[] = []
    let length = 0
    for await (const chunk of stream as AsyncIterable<Buffer>) {
      chunks.push(chunk)
      length += chunk.length
      if (length > sliceBytesMax) throw new Error(`a slice of the decisions is longer than ${sliceBytesMax} bytes`)
    }
    const bytes = new Uint8Array(length)
    let at = 0
    for (const chunk of chunks) {
      bytes.set(chunk, at)
      at += chunk.length
    }
    return bytes.buffer
  })

const answer = async <T>(
  client: ClickHouseClient,
  url: string,
  query: Parameters<ClickHouseClient['query']>[0],
): Promise<T[]> => request(url, async () => (await client.query({ ...query, format: 'JSONEachRow' })).json<T>())

const request = async <T>(url: string, run: () => Promise<T>): Promise<T> => {
  try {
    return await run()
  } catch (error) {
    const { message, code } = error as Error & { code?: string }
    throw new SourceError(
      'source-unreadable',
      `reading decision records from ClickHouse at ${withoutPassword(url)}: ${message || code || 'no answer'}; is it running (signalbox up), or did you mean a file with --source?`,
    )
  }
}

const withoutPassword = (url: string): string => {
  const parsed = new URL(url)
  parsed.password = ''
  parsed.username = ''
  return parsed.href
}
