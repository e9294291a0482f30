// Where records come from: an NDJSON file or a ClickHouse server, as the same stream of checked records. A line that is not
// a record stops everything: a replay that silently left rows out would be a replay of other traffic.
import { createReadStream } from 'node:fs'
import { open } from 'node:fs/promises'
import { type ClickHouseClient, ClickHouseLogLevel, createClient } from '@clickhouse/client'
import { type DecisionRecord, decisionRecordSchema } from '../../router/policy/record.ts'
import { issueText } from '../../router/policy/yaml.ts'
import type { LoggedPolicy } from '../redecide/verify.ts'

const lineBytesMax = 1 << 20
const byteOrderMark = /^\uFEFF/
const problemsShownMax = 5
const requestTimeoutMs = 300_000

/** Which records: by time (ISO 8601; from inclusive, to exclusive) and by logged policy, by name or by hash or its start. */
export type Selection = { readonly from?: string; readonly to?: string; readonly against?: string }

export type Source = {
  readonly name: string
  /** How much there is to read, in the unit that `records` reports progress in; null when not known. */
  readonly size: () => Promise<number | null>
  readonly records: (onProgress?: (done: number) => void) => AsyncIterable<DecisionRecord>
  readonly policies: () => Promise<LoggedPolicy[]>
  readonly close: () => Promise<void>
}

/** The input could not be read as decision records. */
export class SourceError extends Error {
  readonly code: 'record-invalid' | 'source-unreadable' | 'source-empty'
  constructor(code: SourceError['code'], message: string) {
    super(message)
    this.code = code
  }
}

/** Opens a ClickHouse URL or an NDJSON file. */
export const openSource = (where: string, selection: Selection = {}): Source =>
  /^https?:\/\//.test(where) ? clickhouseSource(where, selection) : fileSource(where, selection)

const parseRecord = (line: string, where: string, readBefore: number): DecisionRecord => {
  const fail = (problem: string): never => {
    throw new SourceError(
      'record-invalid',
      `reading decision records: ${where}: ${problem} (${readBefore} good records before it; nothing was computed)`,
    )
  }
  let input: unknown
  try {
    input = JSON.parse(line)
  } catch (error) {
    return fail(`not JSON: ${(error as Error).message}`)
  }
  const result = decisionRecordSchema.safeParse(input)
  if (result.success) return result.data
  const issues = result.error.issues.slice(0, problemsShownMax).map((issue) => issueText(issue, input))
  const more = result.error.issues.length - issues.length
  return fail(issues.join('; ') + (more > 0 ? `; and ${more} more` : ''))
}

const isSelected = ({ time, policy }: DecisionRecord, { from, to, against }: Selection): boolean => {
  const at = Date.parse(time)
  if (from !== undefined && at < Date.parse(from)) return false
  if (to !== undefined && at >= Date.parse(to)) return false
  return against === undefined || policy.name === against || isHash(policy.hash, against)
}

const hashPrefix = 'sha256:'
const hashLengthMin = 8

/** Whether `wanted` is a hash or the first eight or more digits of it, with or without `sha256:`. */
const isHash = (hash: string, wanted: string): boolean => {
  const digits = wanted.replace(hashPrefix, '')
  return digits.length >= hashLengthMin && hash.replace(hashPrefix, '').startsWith(digits)
}

const fileSource = (path: string, selection: Selection): Source => ({
  name: path,
  size: async () => {
    const file = await openFile(path)
    try {
      return (await file.stat()).size
    } finally {
      await file.close()
    }
  },
  records: async function* (onProgress) {
    await (await openFile(path)).close()
    let number = 0
    let good = 0
    for await (const { line, bytesRead } of lines(path)) {
      number++
      if (line.trim() === '') continue
      const record = parseRecord(number === 1 ? line.replace(byteOrderMark, '') : line, `${path} line ${number}`, good)
      good++
      onProgress?.(bytesRead)
      if (isSelected(record, selection)) yield record
    }
  },
  policies: async () => [],
  close: async () => {},
})

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

const conditions = ({ from, to, against }: Selection): string =>
  [
    from === undefined ? '' : 'AND decision_time >= parseDateTime64BestEffort({from: String}, 9)',
    to === undefined ? '' : 'AND decision_time < parseDateTime64BestEffort({to: String}, 9)',
    against === undefined
      ? ''
      : `AND (policy_name = {against: String} OR (length({digits: String}) >= ${hashLengthMin} AND startsWith(replaceOne(policy_hash, '${hashPrefix}', ''), {digits: String})))`,
  ].join(' ')

const clickhouseSource = (url: string, selection: Selection): Source => {
  const client = createClient({ url, request_timeout: requestTimeoutMs, log: { level: ClickHouseLogLevel.OFF } })
  const query = {
    query_params: { ...selection, digits: selection.against?.replace(hashPrefix, '') ?? '' },
    format: 'JSONEachRow' as const,
  }
  const where = `WHERE record != '' ${conditions(selection)}`
  const ask = <T>(sql: string) => answer<T>(client, url, { ...query, query: sql })
  return {
    name: url,
    size: async () => {
      const [row] = await ask<{ count: string }>(
        `SELECT toString(count()) AS count FROM otel.routing_decisions FINAL ${where}`,
      )
      return Number(row?.count ?? 0)
    },
    records: async function* (onProgress) {
      const result = await request(url, () =>
        client.query({
          ...query,
          query: `SELECT d.record AS record, f.score AS quality
            FROM (SELECT decision_id, decision_time, record FROM otel.routing_decisions FINAL ${where}) AS d
            LEFT JOIN (SELECT decision_id, toNullable(score) AS score FROM otel.feedback FINAL WHERE name = 'quality') AS f
            ON d.decision_id = f.decision_id ORDER BY d.decision_time, d.decision_id`,
        }),
      )
      let good = 0
      for await (const batch of result.stream<{ record: string; quality: number | null }>())
        for (const row of batch) {
          const { record, quality } = row.json<{ record: string; quality: number | null }>()
          const parsed = parseRecord(record, `${url} row ${good + 1} of otel.routing_decisions`, good)
          good++
          onProgress?.(good)
          yield withQuality(parsed, quality)
        }
    },
    policies: () => ask<LoggedPolicy>('SELECT hash, name, source FROM otel.policies FINAL'),
    close: () => client.close(),
  }
}

const withQuality = (record: DecisionRecord, quality: number | null): DecisionRecord =>
  quality === null || !record.outcome
    ? record
    : { ...record, outcome: { ...record.outcome, quality: Math.min(1, Math.max(0, quality)) } }

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
