// The schema's statements as a cluster of ClickHouse servers takes them. What belongs to a trace is on the trace's shard, in a
// replicated table `…_local` beside a Distributed one of the plain name, and views fill local tables from local tables; the few rows
// that are joined from everywhere are kept whole by every server. So whatever reads or writes plain names works as before.

/** How long, and how many, inserts are remembered, so that one that is sent again is stored once. */
const rememberedInserts = 10_000
const rememberedSeconds = 7 * 86_400

const byTrace = 'cityHash64(TraceId)'
/** What belongs to no trace would all be on one shard. */
const byTraceIfAny = "if(TraceId = '', cityHash64(ServiceName, Timestamp), cityHash64(TraceId))"
const byDecisionTrace = 'cityHash64(trace_id)'
const bySeries = 'cityHash64(ServiceName, MetricName, Attributes)'

/** By what the rows of a table are spread over the shards. Everything of one trace hashes to one shard, by either spelling. */
const shardingKeys: Readonly<Record<string, string>> = {
  otel_traces: byTrace,
  otel_traces_trace_id_ts: byTrace,
  otel_logs: byTraceIfAny,
  payload_events: byTrace,
  otel_metrics_gauge: bySeries,
  otel_metrics_sum: bySeries,
  otel_metrics_histogram: bySeries,
  otel_metrics_exponential_histogram: bySeries,
  otel_metrics_summary: bySeries,
  routing_decisions: byDecisionTrace,
  routing_attempts: byDecisionTrace,
  captured_payloads: byDecisionTrace,
}

/** What is joined by another key than the trace, or has one row for the whole cluster: every server keeps all of it. */
const everywhere = new Set([
  'schema_migrations',
  'feedback',
  'policies',
  'replay_runs',
  'promotions',
  'policy_changes',
  'payload_erasures',
  'router_epochs',
])

/** A statement has no cluster form that is known here. */
export class ClusterError extends Error {
  readonly code = 'cluster-form'
}

type Found = Readonly<Record<string, string>>
type Form = readonly [pattern: RegExp, render: (found: Found, on: string) => string[]]

const named = (group: string): string => `(?:otel|"otel")\\.["\`]?(?<${group}>\\w+)["\`]?`
const form = (head: string, render: Form[1]): Form => [new RegExp(`^${head}$`), render]

/**
 * The same statement for every server of a cluster, as one statement or as several in order, each of which may be repeated.
 * Throws ClusterError for a statement of another form, and for a table of which it is not known where its rows go.
 */
export const onCluster = (statement: string, cluster: string): string[] => {
  if (!/^[\w.-]+$/.test(cluster))
    throw new ClusterError(`'${cluster}' is no cluster's name: letters, digits and _ . - only`)
  const sql = statement.replace(/^(?:\s*--[^\n]*\n)+/, '').trim()
  for (const [pattern, render] of forms) {
    const found = pattern.exec(sql)
    if (found) return render(found.groups ?? {}, `ON CLUSTER '${cluster}'`)
  }
  throw new ClusterError(`a statement has no cluster form (collector/cluster.ts): ${sql.slice(0, 120)}`)
}

const shardingKeyOf = (table: string): string | null => {
  const key = shardingKeys[table]
  if (key === undefined && !everywhere.has(table)) {
    throw new ClusterError(`it is not said in collector/cluster.ts on which shard a row of otel.${table} is`)
  }
  return key ?? null
}

/** The table that holds a server's own rows. */
const localOf = (table: string): string => (shardingKeyOf(table) === null ? `otel.${table}` : `otel.${table}_local`)

const texts = "'(?:[^'\\\\]|\\\\.)*'|--[^\\n]*"
const namesIn = new RegExp(`${texts}|(?<![\\w."\`])${named('table')}`, 'g')

/** The same text reading from local tables; what stands in quotes or in a comment is left alone. */
const readingLocally = (sql: string): string =>
  sql.replace(namesIn, (text, table?: string) => (table === undefined ? text : localOf(table)))

const createTable = ({ table = '', rest = '' }: Found, on: string): string[] => {
  const key = shardingKeyOf(table)
  const local = `CREATE TABLE IF NOT EXISTS ${localOf(table)} ${on} ${replicated(table, readingLocally(rest))}`
  if (key === null) return [local]
  const cluster = /'(.*)'/.exec(on)?.[1]
  const distributed = `ENGINE = Distributed('${cluster}', 'otel', '${table}_local', ${key})`
  return [local, `CREATE TABLE IF NOT EXISTS otel.${table} ${on} AS otel.${table}_local ${distributed}`]
}

/** Columns and engine of a table with a replica on another server. */
const replicated = (table: string, definition: string): string => {
  if (/\bENGINE = Null$/.test(definition)) return definition
  const all = everywhere.has(table)
  const [path, replica] = all
    ? [`/clickhouse/tables/otel/${table}`, '{shard}-{replica}']
    : [`/clickhouse/tables/{shard}/otel/${table}_local`, '{replica}']
  // Servers of several shards write to a table that is everywhere, each its part of the same insert under the same token: none
  // may be taken for another's repetition. Its rows replace each other by key instead.
  const window = all
    ? 'replicated_deduplication_window = 0'
    : `replicated_deduplication_window = ${rememberedInserts}, replicated_deduplication_window_seconds = ${rememberedSeconds}`
  const engine = definition.replace(
    /\bENGINE = (\w*MergeTree)(?:\(([^()]*)\))?(?=\s)/,
    (_, kind: string, of = '') => `ENGINE = Replicated${kind}('${path}', '${replica}'${of === '' ? '' : `, ${of}`})`,
  )
  const remembering = engine.replace(/\bnon_replicated_deduplication_window = \d+/, window)
  if (engine === definition || remembering === engine) {
    throw new ClusterError(`otel.${table} is not a MergeTree with a non_replicated_deduplication_window`)
  }
  return remembering
}

const addColumn = 'ADD COLUMN IF NOT EXISTS'
/** Changes that a replicated table makes on all its replicas, on whichever shard they are. */
const replicatedChanges = [addColumn, 'ADD INDEX IF NOT EXISTS', 'MODIFY ORDER BY', 'MODIFY TTL', 'REMOVE TTL']

const alterTable = ({ table = '', change = '' }: Found, on: string): string[] => {
  const key = shardingKeyOf(table)
  const local = `ALTER TABLE ${localOf(table)}`
  // Settings are each server's own.
  if (change.startsWith('MODIFY SETTING ')) return [`${local} ${on} ${change}`]
  const commands = commandsOf(change)
  const unknown = commands.find((command) => !replicatedChanges.some((known) => `${command} `.startsWith(`${known} `)))
  if (unknown !== undefined) {
    throw new ClusterError(`a change of otel.${table} has no cluster form: ${unknown.slice(0, 80)}`)
  }
  if (key === null) return [`${local} ${change} SETTINGS alter_sync = 2`]
  const columns = commands.filter((command) => command.startsWith(addColumn))
  const distributed = columns.length > 0 ? [`ALTER TABLE otel.${table} ${on} ${columns.join(',\n    ')}`] : []
  return [`${local} ${on} ${change}`, ...distributed]
}

/** What stands between the commas of an ALTER that are in no parentheses and no text. */
const commandsOf = (change: string): string[] => {
  let depth = 0
  const starts = [0]
  for (const { 0: mark, index } of change.matchAll(new RegExp(`${texts}|[()[\\],]`, 'g'))) {
    if (mark === '(' || mark === '[') depth += 1
    if (mark === ')' || mark === ']') depth -= 1
    if (mark === ',' && depth === 0) starts.push(index + 1)
  }
  return starts.map((start, at) => change.slice(start, (starts[at + 1] ?? change.length + 1) - 1).trim())
}

const forms: readonly Form[] = [
  form('CREATE DATABASE IF NOT EXISTS otel', (_, on) => [`CREATE DATABASE IF NOT EXISTS otel ${on}`]),
  form(`CREATE TABLE IF NOT EXISTS ${named('table')}\\s+(?<rest>[^]+)`, createTable),
  form(
    `CREATE MATERIALIZED VIEW IF NOT EXISTS ${named('view')} TO ${named('table')} AS\\s+(?<select>[^]+)`,
    ({ view, table = '', select = '' }, on) => [
      `CREATE MATERIALIZED VIEW IF NOT EXISTS otel.${view} ${on} TO ${localOf(table)} AS\n${readingLocally(select)}`,
    ],
  ),
  form(`CREATE OR REPLACE VIEW ${named('view')} AS\\s+(?<select>[^]+)`, ({ view, select }, on) => [
    `CREATE OR REPLACE VIEW otel.${view} ${on} AS\n${select}`,
  ]),
  form(`ALTER TABLE ${named('view')}\\s+MODIFY QUERY\\s+(?<select>[^]+)`, ({ view, select = '' }, on) => [
    `ALTER TABLE otel.${view} ${on} MODIFY QUERY\n${readingLocally(select)}`,
  ]),
  form(`ALTER TABLE ${named('table')}\\s+(?<change>[^]+)`, alterTable),
]
