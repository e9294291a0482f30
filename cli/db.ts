// `signalbox db`: how much the store holds of what, how long it is kept and when the disk will be full; and how long it is to be kept from
// now on, shown before it is done.
import { statfs } from 'node:fs/promises'
import { Command, InvalidArgumentError } from 'commander'
import { onCluster } from '../collector/cluster.ts'
import { type Store, serverStore } from '../collector/store.ts'
import { bytesText, countText, durationText, tableText } from './quantities.ts'
import { addressesOf, readConfig } from './where.ts'

const dayMs = 86_400_000
const tablesMax = 1_000
/** Days over which growth is measured, the last ones that are whole. */
const growthDays = 7
const daysMax = 36_500

/** What a person names, the tables it is, and the column by which they age. */
const kept = {
  traces: { otel_traces: 'Timestamp', otel_traces_trace_id_ts: 'Start' },
  logs: { otel_logs: 'Timestamp' },
  metrics: {
    otel_metrics_gauge: 'TimeUnix',
    otel_metrics_sum: 'TimeUnix',
    otel_metrics_histogram: 'TimeUnix',
    otel_metrics_summary: 'TimeUnix',
    otel_metrics_exponential_histogram: 'TimeUnix',
  },
  decisions: { routing_decisions: 'decision_time', routing_attempts: 'attempt_time', router_epochs: 'reported_at' },
  feedback: { feedback: 'time' },
} as const satisfies Readonly<Record<string, Readonly<Record<string, string>>>>
type Kind = keyof typeof kept
const kinds = Object.keys(kept) as Kind[]

const timeColumns: Readonly<Record<string, string>> = {
  ...Object.assign({}, ...Object.values(kept)),
  captured_payloads: 'captured_at',
}

class DbError extends Error {
  readonly code = 'store-unreadable'
}

const withStore = async <Result>(source: string, use: (store: Store) => Promise<Result>): Promise<Result> => {
  const store = serverStore(source)
  try {
    await store.query('SELECT 1').catch((error: Error & { code?: string }) => {
      throw new DbError(
        `asking ClickHouse at ${new URL(source).host}: ${error.code ?? error.message}; is it running (signalbox up), or elsewhere (--source)?`,
      )
    })
    return await use(store)
  } finally {
    await store.close()
  }
}

/** One table; times in ISO 8601, null where rows have none. */
export type TableSize = {
  readonly table: string
  readonly rows: number
  readonly bytes_on_disk: number
  readonly bytes_uncompressed: number
  readonly parts: number
  readonly oldest: string | null
  readonly newest: string | null
  /** As ClickHouse spells it; '' keeps for ever. */
  readonly ttl: string
}
export type Size = {
  readonly tables: readonly TableSize[]
  readonly bytes_on_disk: number
  readonly bytes_per_day: number
  readonly disk_free_bytes: number | null
  /** Days until the disk is full, if nothing expires meanwhile; null when it does not grow or nobody knows the disk. */
  readonly days_left: number | null
}

const tablesSql = `
SELECT t.name AS table, toUInt64(ifNull(t.total_rows, 0)) AS rows, p.bytes AS bytes_on_disk, p.raw AS bytes_uncompressed, p.parts AS parts,
  replaceRegexpOne(extract(t.create_table_query, '\\\\sTTL (.+?)(?: SETTINGS |$)'), '^\\\\s+', '') AS ttl
FROM system.tables AS t
LEFT JOIN (
  SELECT table, sum(bytes_on_disk) AS bytes, sum(data_uncompressed_bytes) AS raw, count() AS parts
  FROM system.parts WHERE database = 'otel' AND active GROUP BY table
) AS p ON p.table = t.name
WHERE t.database = 'otel' AND t.engine LIKE '%MergeTree'
ORDER BY bytes_on_disk DESC, table LIMIT ${tablesMax}
SETTINGS output_format_json_quote_64bit_integers = 0`

/** Bytes that the last days brought, a day, by the days of the parts. */
const growthSql = `
SELECT toFloat64(sum(bytes)) / greatest(1, count()) AS bytes_per_day FROM (
  SELECT partition, sum(bytes_on_disk) AS bytes FROM system.parts
  WHERE database = 'otel' AND active AND match(partition, '^\\\\d{4}-\\\\d{2}-\\\\d{2}$')
    AND toDateOrZero(partition) >= today() - ${growthDays} AND toDateOrZero(partition) < today()
  GROUP BY partition
)`

/** How much the store holds; `folder` is where it is, when it is on this machine. */
export const sizeOf = async (store: Store, folder: string | null): Promise<Size> => {
  type Row = Omit<TableSize, 'oldest' | 'newest'>
  const tables: TableSize[] = []
  for (const row of await store.query<Row>(tablesSql)) {
    const column = timeColumns[row.table]
    const [span] =
      column && row.rows > 0
        ? await store.query<{ oldest: string; newest: string }>(
            `SELECT toString(toDateTime(min(${column}), 'UTC')) AS oldest, toString(toDateTime(max(${column}), 'UTC')) AS newest FROM otel.\`${row.table}\``,
          )
        : []
    tables.push({ ...row, oldest: span?.oldest ?? null, newest: span?.newest ?? null })
  }
  const [growth] = await store.query<{ bytes_per_day: number }>(growthSql)
  const perDay = growth?.bytes_per_day ?? 0
  const free =
    folder === null
      ? null
      : await statfs(folder).then(
          (stats) => stats.bavail * stats.bsize,
          () => null,
        )
  return {
    tables,
    bytes_on_disk: tables.reduce((sum, { bytes_on_disk: bytes }) => sum + bytes, 0),
    bytes_per_day: perDay,
    disk_free_bytes: free,
    days_left: free !== null && perDay > 0 ? free / perDay : null,
  }
}

const ttlText = (ttl: string): string => {
  const days = /\+ toIntervalDay\((\d+)\)/.exec(ttl)?.[1]
  return ttl === '' ? 'for ever' : days ? `${days} days` : ttl
}

const sizeText = ({ tables, ...size }: Size): string => {
  const rows = tables
    .filter((table) => table.rows > 0)
    .map((table) => [
      table.table,
      countText(table.rows),
      bytesText(table.bytes_on_disk),
      (table.bytes_on_disk / table.rows).toFixed(0),
      (table.bytes_uncompressed / Math.max(1, table.bytes_on_disk)).toFixed(1),
      table.parts,
      table.oldest ?? '–',
      table.newest ?? '–',
      ttlText(table.ttl),
    ])
  const head = ['table', 'rows', 'on disk', 'bytes/row', 'compressed', 'parts', 'oldest', 'newest', 'kept']
  const growth = size.bytes_per_day > 0 ? `, ${bytesText(size.bytes_per_day)} a day` : ''
  const left =
    size.days_left === null ? '' : `; full in ${durationText(size.days_left * dayMs)} if nothing expires meanwhile`
  const free = size.disk_free_bytes === null ? '' : `; ${bytesText(size.disk_free_bytes)} free${left}`
  return `${tableText([head, ...rows])}\n\n${bytesText(size.bytes_on_disk)} in all${growth}${free}`
}

/** What is to be kept how long: days, or null for ever. */
export type Retention = Partial<Readonly<Record<Kind, number | null>>>

/** The cluster over which the tables are spread; null on one server. */
const clusterOf = async (store: Store): Promise<string | null> => {
  const [table] = await store.query<{ engine_full: string }>(
    "SELECT engine_full FROM system.tables WHERE database = 'otel' AND name = 'otel_traces'",
  )
  return /^Distributed\('([^']+)'/.exec(table?.engine_full ?? '')?.[1] ?? null
}

/** The statements that bring it about, and about how many rows they remove. */
export const planRetention = async (
  store: Store,
  retention: Retention,
): Promise<{ statements: string[]; rows: number }> => {
  const statements: string[] = []
  let rows = 0
  const cluster = await clusterOf(store)
  for (const kind of kinds) {
    const days = retention[kind]
    if (days === undefined) continue
    for (const [table, column] of Object.entries(kept[kind])) {
      const ttl = `toDate(${column}) + toIntervalDay(${days})`
      const statement = `ALTER TABLE otel.${table} ${days === null ? 'REMOVE TTL' : `MODIFY TTL ${ttl}`}`
      statements.push(...(cluster === null ? [statement] : onCluster(statement, cluster)))
      if (days === null) continue
      const [count] = await store.query<{ rows: number }>(
        `SELECT toFloat64(count()) AS rows FROM otel.${table} WHERE ${ttl} <= now()`,
      )
      rows += count?.rows ?? 0
    }
  }
  return { statements, rows }
}

/** Does it. A table that keeps for ever already has no TTL to remove. */
export const applyRetention = async (store: Store, statements: readonly string[]): Promise<void> => {
  for (const statement of statements)
    await store.command(statement).catch((error: Error) => {
      if (!(statement.includes('REMOVE TTL') && /doesn't have any table TTL/i.test(error.message))) throw error
    })
}

const print = (text: string): void => void process.stdout.write(`${text}\n`)
type Common = { readonly config: string; readonly source?: string; readonly json?: true }
const subCommand = (name: string): Command =>
  new Command(name)
    .option('-c, --config <file>', 'the configuration, which says where the store is', 'signalbox.yaml')
    .option('--source <url>', 'where ClickHouse answers, in place of what the configuration says')
    .option('--json', 'print as JSON')

/** Where the store answers, and its folder where that is on this machine. */
const whereOf = ({ config, source }: Common): { url: string; folder: string | null } => {
  const { store, data } = addressesOf(readConfig(config).config)
  return source === undefined ? { url: store, folder: data } : { url: source, folder: null }
}

const sizeCommand = (): Command =>
  subCommand('size')
    .description('Says what the store holds, how long it is kept, and when the disk will be full.')
    .addHelpText('after', '\nExample:\n  signalbox db size')
    .action(async (options: Common) => {
      const { url, folder } = whereOf(options)
      const size = await withStore(url, (store) => sizeOf(store, folder))
      print(options.json ? JSON.stringify(size) : sizeText(size))
    })

const days = (text: string): number | null => {
  if (text === 'forever') return null
  const count = Number(/^(\d+)d?$/.exec(text)?.[1])
  if (count > 0 && count <= daysMax) return count
  throw new InvalidArgumentError(`found '${text}'; wanted days, as in 30d, or forever`)
}

const retentionCommand = (): Command => {
  const command = subCommand('retention')
    .description(
      'Says how long what is kept from now on, and with --yes does so. What is older goes when its parts are next merged.',
    )
    .option('--yes', 'do it; without this it is only shown')
    .addHelpText('after', '\nExample:\n  signalbox db retention --traces 30d --decisions 365d --yes')
  for (const kind of kinds) command.option(`--${kind} <days>`, `keep ${kind} so long (30d), or forever`, days)
  return command.action(async (options: Common & Retention & { yes?: boolean }) => {
    const { json, yes = false } = options
    if (kinds.every((kind) => options[kind] === undefined))
      command.error(`wanted at least one of --${kinds.join(', --')}`)
    const plan = await withStore(whereOf(options).url, async (store) => {
      const planned = await planRetention(store, options)
      if (yes) await applyRetention(store, planned.statements)
      return planned
    })
    if (json) return print(JSON.stringify({ ...plan, done: yes }))
    print(plan.statements.join('\n'))
    const rows = countText(plan.rows)
    print(yes ? `done; about ${rows} rows go` : `\nThis removes about ${rows} rows for good. --yes does it.`)
  })
}

export const dbCommand = (): Command =>
  new Command('db')
    .description('The store: how much it holds, and how long it keeps it.')
    .addHelpText('after', '\nExample:\n  signalbox db size')
    .addCommand(sizeCommand())
    .addCommand(retentionCommand())
