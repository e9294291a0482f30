// The whole store as one stream, and back. The engine makes the archive of its parts; inserts and merges wait only until it knows which
// parts belong to it, so that all tables are of one moment, and go on while the parts are copied. A copy is read into a
// folder of its own and counted there before anything is in its place.
import { createReadStream } from 'node:fs'
import { copyFile, link, mkdir, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { z } from 'zod'
import { type Engine, openEngine } from './engine.ts'
import { backupsFolderOf } from './engine-config.ts'
import { literal } from './engine-run.ts'
import { migrate } from './migrate.ts'
import { embeddedStore, type Store } from './store.ts'

const archiveName = 'store.tar'
const pollMs = 50
/** How long inserts wait at most until the engine knows which parts belong to a backup. */
const holdMsMax = 60_000
const chunkBytes = 1024 * 1024
const tablesMax = 1_000

export class BackupError extends Error {
  readonly code = 'backup-failed'
}

/** What an archive holds, by which it is known again. */
export const contentSchema = z.object({
  format: z.literal(1),
  made_at: z.string(),
  clickhouse: z.string(),
  migrations: z.array(z.int()),
  rows: z.record(z.string(), z.number()),
  bytes: z.int(),
})
export type Content = z.infer<typeof contentSchema>

/** A line before the archive's bytes; the content's is the last one. */
export type Head =
  | { readonly progress: { readonly bytes: number; readonly total: number } }
  | { readonly content: Content }
  | { readonly error: string }

/** Rows of each table, which must not be counted while merges may take away what FINAL would. */
const rowsOf = async (store: Store): Promise<Record<string, number>> => {
  const rows = await store.query<{ name: string; rows: string }>(
    `SELECT name, toString(total_rows) AS rows FROM system.tables
     WHERE database = 'otel' AND engine LIKE '%MergeTree' ORDER BY name LIMIT ${tablesMax}`,
  )
  return Object.fromEntries(rows.map((row) => [row.name, Number(row.rows)]))
}

const migrationsOf = async (store: Store): Promise<number[]> => {
  const rows = await store.query<{ number: number }>(
    'SELECT DISTINCT number FROM otel.schema_migrations ORDER BY number',
  )
  return rows.map((row) => row.number)
}

type Running = { readonly status: string; readonly files: number; readonly bytes: number; readonly error: string }
const runningSql = (id: string): string =>
  `SELECT status, toUInt32(num_files) AS files, toFloat64(total_size) AS bytes, error FROM system.backups WHERE id = ${literal(id)}`

const look = async (store: Store, id: string): Promise<Running> => {
  const [running] = await store.query<Running>(runningSql(id))
  if (!running || running.status === 'BACKUP_FAILED')
    throw new BackupError(`making a backup: ${running?.error ?? 'the engine has forgotten it'}`)
  return running
}

/** Has the engine begin; resolves when it knows all parts, with what is in them. */
const begin = async (store: Store): Promise<{ id: string; rows: Record<string, number> }> => {
  const [change] = await store.query<{ table: string; command: string }>(
    "SELECT table, command FROM system.mutations WHERE database = 'otel' AND NOT is_done LIMIT 1",
  )
  if (change)
    throw new BackupError(
      `making a backup: rows of ${change.table} are being changed (${change.command}); try again when that is done`,
    )
  await store.command('SYSTEM STOP MERGES')
  try {
    const rows = await rowsOf(store)
    const [begun] = await store.query<{ id: string }>(`BACKUP DATABASE otel TO File(${literal(archiveName)}) ASYNC`)
    if (!begun) throw new BackupError('making a backup: the engine did not begin')
    const endMs = Date.now() + holdMsMax
    for (
      let now = await look(store, begun.id);
      now.status === 'CREATING_BACKUP' && now.files === 0;
      now = await look(store, begun.id)
    ) {
      if (Date.now() > endMs) throw new BackupError('making a backup: the engine takes too long to list its parts')
      await sleep(pollMs)
    }
    if (JSON.stringify(rows) !== JSON.stringify(await rowsOf(store)))
      throw new BackupError('making a backup: rows were inserted by hand meanwhile; try again')
    return { id: begun.id, rows }
  } finally {
    await store.command('SYSTEM START MERGES')
  }
}

const line = (head: Head): Uint8Array => Buffer.from(`${JSON.stringify(head)}\n`)
const busy = new Set<string>()

/** A backup of the engine's store: lines of JSON, of which the last says what follows, then the archive. */
export async function* backupOf(engine: Engine): AsyncGenerator<Uint8Array, void> {
  if (busy.has(engine.folder)) return yield line({ error: 'another backup is being made' })
  busy.add(engine.folder)
  const store = embeddedStore(engine)
  const folder = backupsFolderOf(engine.folder)
  const archive = join(folder, archiveName)
  try {
    await removeUnfinished(engine.folder)
    await mkdir(folder, { recursive: true, mode: 0o700 })
    const { id, rows } = await engine.holdInserts(() => begin(store))
    for (let now = await look(store, id); now.status === 'CREATING_BACKUP'; now = await look(store, id)) {
      const { size } = await stat(archive).catch(() => ({ size: 0 }))
      yield line({ progress: { bytes: size, total: now.bytes } })
      await sleep(pollMs * 4)
    }
    const { size } = await stat(archive)
    const made = { format: 1 as const, made_at: new Date().toISOString(), clickhouse: engine.version }
    yield line({ content: { ...made, migrations: await migrationsOf(store), rows, bytes: size } })
    yield* createReadStream(archive, { highWaterMark: chunkBytes })
  } catch (error) {
    yield line({ error: (error as Error).message })
  } finally {
    await removeUnfinished(engine.folder).catch(() => {})
    busy.delete(engine.folder)
  }
}

/** Removes what is left of a backup that was being made when the process ended. */
export const removeUnfinished = (folder: string): Promise<void> =>
  rm(backupsFolderOf(folder), { recursive: true, force: true })

const erasureColumns = 'erased_at, scope, decision_id, tenant, up_to, payloads, reason'

/** The notes of what was erased, as rows to insert; '' where there are none. */
export const erasuresOf = async (folder: string): Promise<string> => {
  const engine = await openEngine(folder)
  try {
    const rows = await embeddedStore(engine).query<object>(`SELECT ${erasureColumns} FROM otel.payload_erasures`)
    return rows.map((row) => JSON.stringify(row)).join('\n')
  } finally {
    await engine.close()
  }
}

/** Erases what a backup brings back of payloads that were erased after it was made. */
const eraseAgain = async (store: Store, erasures: string): Promise<void> => {
  if (erasures === '') return
  await store.insert('otel.payload_erasures', Buffer.from(erasures), 'erasures-kept')
  await store.command(`ALTER TABLE otel.captured_payloads DELETE WHERE
    decision_id IN (SELECT decision_id FROM otel.payload_erasures WHERE scope = 'decision')
    OR arrayExists(erased -> erased.1 = tenant AND captured_at <= erased.2,
      (SELECT groupArray((tenant, up_to)) FROM otel.payload_erasures WHERE scope = 'tenant'))
    SETTINGS mutations_sync = 2`)
}

/**
 * Makes a store of an archive, in a folder that is not there yet, and brings its schema up to date. `erasures` is what `erasuresOf` gave
 * for the store that this one replaces. Throws BackupError when the rows are not those that the content says, or the engine's error.
 */
export const restoreInto = async (
  folder: string,
  archive: string,
  content: Content,
  erasures: string,
): Promise<void> => {
  const given = join(backupsFolderOf(folder), archiveName)
  await mkdir(backupsFolderOf(folder), { recursive: true })
  await link(archive, given).catch(() => copyFile(archive, given))
  const engine = await openEngine(folder)
  try {
    const store = embeddedStore(engine)
    await store.command('SYSTEM STOP MERGES')
    await store.command(`RESTORE DATABASE otel FROM File(${literal(archiveName)}) SETTINGS max_execution_time = 0`)
    const rows = await rowsOf(store)
    const wrong = Object.keys({ ...rows, ...content.rows }).filter((table) => rows[table] !== content.rows[table])
    if (wrong.length > 0) {
      const texts = wrong.map(
        (table) => `${table} has ${rows[table] ?? 'no'} rows, wanted ${content.rows[table] ?? 'none'}`,
      )
      throw new BackupError(`restoring a backup: ${texts.join('; ')}`)
    }
    await store.command('SYSTEM START MERGES')
    await migrate(store)
    await eraseAgain(store, erasures)
  } finally {
    await engine.close()
  }
  await removeUnfinished(folder)
}
