// `signalbox backup` and `signalbox restore`: the whole embedded store as a folder of two files, an archive and what it holds. A backup is
// taken from a running collector or from a folder that nobody uses; it appears under its name when it is whole. A restore puts
// a store where none is, or aside what is there.
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createReadStream, createWriteStream } from 'node:fs'
import { access, mkdir, open, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { request as httpRequest } from 'node:http'
import { request as httpsRequest } from 'node:https'
import { dirname, join, resolve } from 'node:path'
import { Command } from 'commander'
import { z } from 'zod'
import { backupOf, type Content, contentSchema, erasuresOf, type Head, restoreInto } from '../collector/backup.ts'
import { openEngine } from '../collector/engine.ts'
import { readMigrations } from '../collector/migrate.ts'
import { progressBar } from '../replay/log-command.ts'
import { loadConfig } from '../router/config.ts'
import { bytesText, countText } from './quantities.ts'

const archiveName = 'store.tar'
const manifestName = 'manifest.json'
/** A line before the archive is short; a longer one is none of ours. */
const lineBytesMax = 1024 * 1024

const manifestSchema = contentSchema.extend({ sha256: z.string() })
export type Manifest = z.infer<typeof manifestSchema>
export type OnProgress = (what: string, bytes: number, total: number) => void

export class BackupFileError extends Error {
  readonly code = 'backup-refused'
}

const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  )

const syncFolder = async (folder: string): Promise<void> => {
  const handle = await open(folder, 'r')
  await handle.sync().finally(() => handle.close())
}

/** The lines before the archive; resolves with the last of them and what of the archive came with it. */
const readHead = async (
  chunks: AsyncIterator<Uint8Array>,
  onProgress: OnProgress,
): Promise<{ content: Content; rest: Buffer }> => {
  let text: Buffer = Buffer.alloc(0)
  for (;;) {
    const end = text.indexOf('\n')
    if (end >= 0) {
      const head = JSON.parse(text.subarray(0, end).toString()) as Head
      text = text.subarray(end + 1)
      if ('error' in head) throw new BackupFileError(head.error)
      if ('content' in head) return { content: contentSchema.parse(head.content), rest: text }
      onProgress('copying parts', head.progress.bytes, head.progress.total)
      continue
    }
    const { value, done } = await chunks.next()
    if (done) throw new BackupFileError('making a backup: the collector went away before it was made; its log says why')
    text = Buffer.concat([text, value])
    if (text.length > lineBytesMax) throw new BackupFileError('making a backup: what answers is not a collector')
  }
}

/** Writes what comes of a backup into a folder that is not there yet; nothing is under its name before all is. */
export const writeBackup = async (
  source: AsyncIterable<Uint8Array>,
  to: string,
  onProgress: OnProgress,
): Promise<Manifest> => {
  const folder = resolve(to)
  if (await exists(folder))
    throw new BackupFileError(`making a backup: ${folder} is there already; name a folder that is not`)
  const partial = `${folder}.partial`
  await rm(partial, { recursive: true, force: true })
  await mkdir(partial, { recursive: true, mode: 0o700 })
  try {
    const chunks = source[Symbol.asyncIterator]()
    const { content, rest } = await readHead(chunks, onProgress)
    const hash = createHash('sha256')
    const file = createWriteStream(join(partial, archiveName), { flags: 'wx', mode: 0o600, flush: true })
    let bytes = 0
    const failed = once(file, 'error').then(([error]) => Promise.reject(error))
    failed.catch(() => {})
    for (let chunk: Uint8Array | undefined = rest; chunk; chunk = (await chunks.next()).value) {
      bytes += chunk.length
      hash.update(chunk)
      if (!file.write(chunk)) await Promise.race([once(file, 'drain'), failed])
      onProgress('writing', bytes, content.bytes)
    }
    file.end()
    await Promise.race([once(file, 'close'), failed])
    if (bytes !== content.bytes)
      throw new BackupFileError(`making a backup: it ended after ${bytes} of ${content.bytes} bytes; nothing was kept`)
    const manifest = { ...content, sha256: hash.digest('hex') }
    await writeFile(join(partial, manifestName), `${JSON.stringify(manifest, null, 2)}\n`, { mode: 0o600, flush: true })
    await syncFolder(partial)
    await rename(partial, folder)
    await syncFolder(dirname(folder))
    return manifest
  } catch (error) {
    await rm(partial, { recursive: true, force: true })
    throw error
  }
}

/** What a running collector sends; null when nobody answers there. */
export const fromCollector = async (source: string): Promise<AsyncIterable<Uint8Array> | null> => {
  const url = new URL('/admin/backup', source)
  const user = decodeURIComponent(url.username) || 'default'
  const headers = { 'x-clickhouse-user': user, 'x-clickhouse-key': decodeURIComponent(url.password) }
  const asked = (url.protocol === 'https:' ? httpsRequest : httpRequest)(url, { method: 'POST', headers })
  asked.end()
  try {
    const [answer] = await once(asked, 'response')
    if (answer.statusCode === 200) return answer
    throw new BackupFileError(
      `making a backup: ${url.host} answers ${answer.statusCode}: ${(await answer.toArray()).join('').slice(0, 300)}`,
    )
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ECONNREFUSED') return null
    throw error
  }
}

/** A backup of a folder that no collector has open. Throws EngineError when one has. */
export async function* fromFolder(folder: string): AsyncGenerator<Uint8Array, void> {
  const engine = await openEngine(folder)
  try {
    yield* backupOf(engine)
  } finally {
    await engine.close()
  }
}

const manifestOf = async (from: string): Promise<Manifest> => {
  const file = join(from, manifestName)
  const text = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    throw new BackupFileError(
      `reading a backup: ${file} cannot be read (${error.code}); wanted a folder that signalbox backup made`,
    )
  })
  const parsed = manifestSchema.safeParse(JSON.parse(text))
  if (!parsed.success)
    throw new BackupFileError(
      `reading a backup: ${file} is not what signalbox backup writes: ${z.prettifyError(parsed.error)}`,
    )
  return parsed.data
}

/** Reads a backup whole and holds it against its manifest. Throws BackupFileError when it is not what was written. */
export const checkBackup = async (from: string, onProgress: OnProgress): Promise<Manifest> => {
  const manifest = await manifestOf(from)
  const known = new Set((await readMigrations()).map(({ number }) => number))
  const newer = manifest.migrations.filter((number) => !known.has(number))
  if (newer.length > 0)
    throw new BackupFileError(
      `reading a backup: it has migration ${newer.join(', ')}, which this version does not know: use a newer Signalbox`,
    )
  const archive = join(from, archiveName)
  const { size } = await stat(archive)
  const hash = createHash('sha256')
  let bytes = 0
  for await (const chunk of createReadStream(archive)) {
    hash.update(chunk as Uint8Array)
    bytes += (chunk as Uint8Array).length
    onProgress('checking', bytes, size)
  }
  const sha256 = hash.digest('hex')
  if (sha256 !== manifest.sha256)
    throw new BackupFileError(
      `reading a backup: ${archive} has ${size} bytes of sha256 ${sha256}, wanted ${manifest.bytes} of ${manifest.sha256}; it is damaged`,
    )
  return manifest
}

export type Restored = { readonly manifest: Manifest; readonly aside: string | null }

/**
 * Puts the store of a backup in the place of `data`. What is there is moved aside, which takes `isForced`; nothing of it changes
 * before the restored store has been counted. Throws BackupFileError, BackupError or EngineError.
 */
export const restore = async (
  from: string,
  data: string,
  isForced: boolean,
  onProgress: OnProgress,
): Promise<Restored> => {
  const isThere = await exists(data)
  if (isThere && !isForced)
    throw new BackupFileError(`restoring a backup: ${data} is there already; --force moves it aside`)
  const manifest = await checkBackup(from, onProgress)
  // Opening it also makes sure that no collector runs on it. One that cannot be read is what restores are for.
  const erasures = isThere
    ? await erasuresOf(data).catch((error: Error & { code?: string }) => {
        if (error.code === 'engine-locked') throw error
        return ''
      })
    : ''
  const fresh = `${data}.restoring`
  await rm(fresh, { recursive: true, force: true })
  onProgress('restoring', 0, manifest.bytes)
  try {
    await restoreInto(fresh, join(from, archiveName), manifest, erasures)
  } catch (error) {
    await rm(fresh, { recursive: true, force: true })
    throw error
  }
  const aside = isThere ? `${data}.before-${new Date().toISOString().replaceAll(/[:.]/g, '-')}` : null
  if (aside) await rename(data, aside)
  await rename(fresh, data)
  await syncFolder(dirname(data))
  return { manifest, aside }
}

const withBar = async <Result>(run: (onProgress: OnProgress) => Promise<Result>): Promise<Result> => {
  const bar = progressBar('{what} {bar} {percentage} %  {eta_formatted} left')
  bar?.start(1, 0, { what: 'asking' })
  try {
    return await run((what, bytes, total) => {
      bar?.setTotal(Math.max(1, total))
      bar?.update(Math.min(bytes, total), { what })
    })
  } finally {
    bar?.stop()
  }
}

const print = (text: string): void => void process.stdout.write(`${text}\n`)
const rowsText = ({ rows }: Content): string =>
  `${countText(Object.values(rows).reduce((sum, each) => sum + each, 0))} rows`
const holds = 'It holds everything in the store, captured payloads too: keep it as safe as the store itself.'

type Options = { readonly config: string; readonly json?: true }

const collectorOf = (file: string) => {
  const { collector } = loadConfig(file)
  if (collector.clickhouse_url)
    throw new BackupFileError(
      'this store is a ClickHouse server (collector.clickhouse_url): back it up with its own BACKUP and RESTORE',
    )
  return { url: `http://127.0.0.1:${collector.clickhouse_port}`, data: collector.data }
}

export const backupCommand = (): Command =>
  new Command('backup')
    .description('Copies the whole store, of one moment, while the collector runs or while it does not.')
    .requiredOption('--to <folder>', 'a folder that is not there yet')
    .option('-c, --config <file>', 'the configuration', 'signalbox.yaml')
    .option('--source <url>', 'a running collector elsewhere, as in http://user:password@host:8123')
    .option('--json', 'print as JSON')
    .addHelpText('after', '\nExample:\n  signalbox backup --to backups/monday')
    .action(async ({ to, config, source, json }: Options & { to: string; source?: string }) => {
      const stopped = source ? null : collectorOf(config)
      const running = await fromCollector(source ?? (stopped as { url: string }).url)
      if (!running && !stopped)
        throw new BackupFileError(`making a backup: nobody answers at ${new URL(source as string).host}`)
      const chunks = running ?? fromFolder((stopped as { data: string }).data)
      const manifest = await withBar((onProgress) => writeBackup(chunks, to, onProgress))
      print(
        json
          ? JSON.stringify({ folder: resolve(to), ...manifest })
          : `${resolve(to)}: ${rowsText(manifest)}, ${bytesText(manifest.bytes)}\n${holds}`,
      )
    })

export const restoreCommand = (): Command =>
  new Command('restore')
    .description('Puts the store of a backup in place, on a collector that is stopped, and counts it.')
    .requiredOption('--from <folder>', 'what signalbox backup made')
    .option('-c, --config <file>', 'the configuration, which says where the store is', 'signalbox.yaml')
    .option('--force', 'move aside the store that is there')
    .option('--check', 'only read the backup and hold it against its manifest')
    .option('--json', 'print as JSON')
    .addHelpText('after', '\nExample:\n  signalbox restore --from backups/monday --force')
    .action(
      async ({
        from,
        config,
        force = false,
        check,
        json,
      }: Options & { from: string; force?: boolean; check?: true }) => {
        const done = await withBar<Restored>(async (onProgress) =>
          check
            ? { manifest: await checkBackup(from, onProgress), aside: null }
            : restore(from, collectorOf(config).data, force, onProgress),
        )
        const { manifest, aside } = done
        if (json) return print(JSON.stringify({ ...manifest, restored: !check, aside }))
        print(`${check ? 'the backup is whole' : 'restored'}: ${rowsText(manifest)} of ${manifest.made_at}`)
        if (aside) print(`what was there is now ${aside}: remove it when all is well`)
      },
    )
