// The schema's numbered steps, applied once each, in order, forward only, on one server or on all of a cluster. A step is recorded
// after its last statement and every statement can be repeated, so a step that failed half-way is simply run again.
import { readdir, readFile } from 'node:fs/promises'
import { onCluster } from './cluster.ts'
import type { Store } from './store.ts'

const folder = new URL('migrations/', import.meta.url)

/** Where the steps that were applied are recorded. */
const ledger = [
  'CREATE DATABASE IF NOT EXISTS otel',
  `CREATE TABLE IF NOT EXISTS otel.schema_migrations (number UInt32, name String, applied_at DateTime DEFAULT now())
    ENGINE = MergeTree ORDER BY number SETTINGS non_replicated_deduplication_window = 1000`,
]

/** One file of `migrations/`: `0002_routing_decisions.sql` is number 2. */
export type Migration = { readonly number: number; readonly name: string; readonly statements: readonly string[] }

/** The schema of the database is not one that this version can bring forward. */
export class MigrationError extends Error {
  readonly code = 'migration-failed'
}

/** Reads the steps, in order. A statement ends with a semicolon at the end of a line. */
export const readMigrations = async (): Promise<Migration[]> => {
  const files = (await readdir(folder)).filter((file) => /^\d{4}_\w+\.sql$/.test(file)).sort()
  return Promise.all(
    files.map(async (file) => {
      return { number: Number(file.slice(0, 4)), name: file.slice(5, -4), statements: await statementsOf(file) }
    }),
  )
}

const statementsOf = async (file: string): Promise<string[]> => {
  const sql = await readFile(new URL(file, folder), 'utf8')
  return sql.split(/;\s*$/m).filter((statement) => statement.trim() !== '')
}

const formsOf = (statements: readonly string[], cluster: string | null): string[] =>
  statements.flatMap((statement) => (cluster === null ? [statement.trim()] : onCluster(statement, cluster)))

/** Adds the text indexes that a person may ask for; they need ClickHouse 26.2. Throws MigrationError. */
export const addTextIndexes = async (store: Store, cluster: string | null = null): Promise<void> => {
  for (const statement of formsOf(await statementsOf('text_indexes.sql'), cluster)) {
    await store.command(statement).catch((cause: Error) => {
      throw new MigrationError(`text indexes cannot be added: ${cause.message}`, { cause })
    })
  }
}

/** The whole schema as statements, each with its semicolon, for people who apply it by hand; throws ClusterError. */
export const schemaText = async (cluster: string | null, textIndexes: boolean): Promise<string> => {
  const steps = await readMigrations()
  const statements = steps.flatMap((step) => [
    ...formsOf(step.statements, cluster),
    `INSERT INTO otel.schema_migrations (number, name) VALUES (${step.number}, '${step.name}')`,
  ])
  const asked = textIndexes ? formsOf(await statementsOf('text_indexes.sql'), cluster) : []
  return [...formsOf(ledger, cluster), ...statements, ...asked].map((statement) => `${statement};\n`).join('\n')
}

/**
 * Brings the database `otel` to the newest schema, on every server of a cluster if one is named; gives the names of the steps that
 * were applied now. Throws MigrationError, also for a schema that is not of the asked form, and ClusterError.
 */
export const migrate = async (
  store: Store,
  migrations?: readonly Migration[],
  cluster: string | null = null,
): Promise<string[]> => {
  const steps = migrations ?? (await readMigrations())
  const isClustered = await isClusteredNow(store).catch((cause: Error) => {
    throw new MigrationError(`ClickHouse does not take the schema: ${cause.message}`, { cause })
  })
  if (cluster !== null) await checkCluster(store, cluster, isClustered)
  for (const statement of isClustered ? [] : formsOf(ledger, cluster)) {
    await store.command(statement).catch((cause: Error) => {
      throw new MigrationError(`ClickHouse does not take the schema: ${cause.message}`, { cause })
    })
  }
  const undone = await undoneOf(store, steps)
  if (undone.length > 0 && isClustered && cluster === null) {
    const message = `the database is spread over a cluster and lacks migration ${undone.map(({ number }) => number).join(', ')}`
    throw new MigrationError(`${message}: run \`signalbox migrate --cluster NAME\` first`)
  }
  for (const step of undone) await apply(store, step, cluster)
  return undone.map(({ name }) => name)
}

/** Whether the database has a cluster's schema; null when it has none. */
const isClusteredNow = async (store: Store): Promise<boolean | null> => {
  const [traces] = await store.query<{ engine: string }>(
    "SELECT engine FROM system.tables WHERE database = 'otel' AND name = 'otel_traces'",
  )
  return traces ? traces.engine === 'Distributed' : null
}

const checkCluster = async (store: Store, cluster: string, isClustered: boolean | null): Promise<void> => {
  const clusters = await store.query<{ cluster: string; internal: number }>(
    'SELECT cluster, min(internal_replication) AS internal FROM system.clusters GROUP BY cluster ORDER BY cluster',
  )
  const known = clusters.find((one) => one.cluster === cluster)
  const macros = await store.query<{ macro: string }>('SELECT macro FROM system.macros')
  const missing = ['shard', 'replica'].filter((name) => !macros.some(({ macro }) => macro === name))
  const has = clusters.map((one) => one.cluster).join(', ') || 'none'
  const fault =
    (isClustered === false &&
      'otel.otel_traces is one server’s own table: a cluster’s schema wants a database without it') ||
    (known === undefined && `the server knows no cluster '${cluster}'; it has: ${has}`) ||
    (known?.internal === 0 &&
      `cluster '${cluster}' would store each row once a replica: set internal_replication to true`) ||
    (missing.length > 0 && `the server has no macro '${missing.join("', '")}', by which replicas are told apart`)
  if (fault) throw new MigrationError(`the schema cannot be laid over cluster '${cluster}': ${fault}`)
}

/** The steps that are not recorded yet. Throws MigrationError when others are. */
const undoneOf = async (store: Store, steps: readonly Migration[]): Promise<Migration[]> => {
  const rows = await store.query<{ number: number }>(
    'SELECT DISTINCT number FROM otel.schema_migrations ORDER BY number',
  )
  const done = new Set(rows.map((row) => row.number))
  const unknown = [...done].filter((number) => !steps.some((step) => step.number === number))
  if (unknown.length > 0) {
    const message = `the database has migration ${unknown.join(', ')}, which this version does not know: use a newer Signalbox`
    throw new MigrationError(message)
  }
  return steps.filter(({ number }) => !done.has(number))
}

const apply = async (store: Store, { number, name, statements }: Migration, cluster: string | null): Promise<void> => {
  for (const statement of formsOf(statements, cluster)) {
    await store.command(statement).catch((cause: Error) => {
      throw new MigrationError(`migration ${number} '${name}' failed: ${cause.message}`, { cause })
    })
  }
  const row = Buffer.from(`${JSON.stringify({ number, name })}\n`)
  await store.insert('otel.schema_migrations', row, `migration-${number}`)
}
