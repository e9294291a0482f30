// The schema's numbered steps, applied once each, in order, forward only. A step is recorded after its last statement and
// every statement can be repeated, so a step that failed half-way is simply run again.
import { readdir, readFile } from 'node:fs/promises'
import type { Store } from './store.ts'

const folder = new URL('migrations/', import.meta.url)

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
      const sql = await readFile(new URL(file, folder), 'utf8')
      const statements = sql.split(/;\s*$/m).filter((statement) => statement.trim() !== '')
      return { number: Number(file.slice(0, 4)), name: file.slice(5, -4), statements }
    }),
  )
}

/** Brings the database `otel` to the newest schema; gives the names of the steps that were applied now. */
export const migrate = async (store: Store, migrations?: readonly Migration[]): Promise<string[]> => {
  const steps = migrations ?? (await readMigrations())
  await store.command('CREATE DATABASE IF NOT EXISTS otel').catch((cause: Error) => {
    throw new MigrationError(`ClickHouse does not take the schema: ${cause.message}`, { cause })
  })
  await store.command(`CREATE TABLE IF NOT EXISTS otel.schema_migrations
    (number UInt32, name String, applied_at DateTime DEFAULT now()) ENGINE = MergeTree ORDER BY number`)
  const rows = await store.query<{ number: number }>(
    'SELECT DISTINCT number FROM otel.schema_migrations ORDER BY number',
  )
  const done = new Set(rows.map((row) => row.number))
  const unknown = [...done].filter((number) => !steps.some((step) => step.number === number))
  if (unknown.length > 0) {
    const message = `the database has migration ${unknown.join(', ')}, which this version does not know: use a newer Signalbox`
    throw new MigrationError(message)
  }
  const applied: string[] = []
  for (const step of steps.filter(({ number }) => !done.has(number))) {
    await apply(store, step)
    applied.push(step.name)
  }
  return applied
}

const apply = async (store: Store, { number, name, statements }: Migration): Promise<void> => {
  for (const statement of statements) {
    await store.command(statement).catch((cause: Error) => {
      throw new MigrationError(`migration ${number} '${name}' failed: ${cause.message}`, { cause })
    })
  }
  const row = Buffer.from(`${JSON.stringify({ number, name })}\n`)
  await store.insert('otel.schema_migrations', row, `migration-${number}`)
}
