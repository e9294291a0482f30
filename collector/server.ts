// The collector: OTLP/HTTP in, ClickHouse rows out. It opens the store, brings its schema up to date and only then listens;
// what it listens on beyond loopback asks for a token.
import { join } from 'node:path'
import type { Logger } from 'pino'
import { removeUnfinished } from './backup.ts'
import { clickhouseHttp } from './clickhouse-http.ts'
import { type FrontUser, needsLogin } from './clickhouse-users.ts'
import { openEngine } from './engine.ts'
import { isLoopback, listen } from './http.ts'
import { migrate } from './migrate.ts'
import { otlpApp } from './otlp-http.ts'
import { embeddedStore, reloadViews, type Store, serverStore, setFsync } from './store.ts'
import { openWriter } from './writer.ts'

const tokenLengthMin = 16

export type CollectorOptions = {
  /** Where OTLP is taken; the embedded engine is served there too if nobody may ask it without a password. */
  readonly host?: string
  /** What senders must show as a bearer token; off loopback there must be one. */
  readonly token?: string | null
  readonly otlpPort: number
  /** Where the embedded engine is served; unused with a ClickHouse server. */
  readonly clickhousePort: number
  /** Who may ask it; with none, or with one who needs no password, it is served on loopback only. */
  readonly clickhouseUsers?: readonly FrontUser[]
  /** Where the embedded engine and the journal are; with a ClickHouse server, the journal alone. */
  readonly dataFolder: string
  /** A ClickHouse server in the place of the embedded engine. */
  readonly clickhouseUrl?: string
  /** Whether what is acknowledged survives a power cut as it does a crash; true when not given. */
  readonly fsync?: boolean
  readonly log: Logger
}

/** A running collector; `clickhouseUrl` is where its rows can be read over ClickHouse's HTTP interface. */
export type Collector = {
  readonly otlpUrl: string
  readonly clickhouseUrl: string
  readonly close: () => Promise<void>
}

/** The collector was asked to be where it should not be. */
export class CollectorError extends Error {
  readonly code = 'collector-host'
}

/**
 * Starts the collector, on the embedded engine or on a ClickHouse server, and brings the schema up to date.
 * Throws CollectorError, EngineError, MigrationError, or the system's error when a port is taken.
 */
export const startCollector = async (options: CollectorOptions): Promise<Collector> => {
  const { host = '127.0.0.1', token = null, fsync = true, otlpPort, log } = options
  const loopback = isLoopback(host)
  if (!loopback && (token?.length ?? 0) < tokenLengthMin) {
    const wanted = `a bearer token of at least ${tokenLengthMin} characters is required (collector.token_env)`
    throw new CollectorError(`the collector would listen on '${host}', which others can reach: ${wanted}`)
  }
  const opened: Closeable[] = []
  const keep = <Part extends Closeable>(part: Part): Part => {
    opened.push(part)
    return part
  }
  const close = async (): Promise<void> => {
    for (const part of opened.splice(0).reverse()) await part.close()
  }
  const ready = async (store: Store, isOurs: boolean): Promise<Store> => {
    const applied = await migrate(store)
    if (applied.length > 0) log.info({ migrations: applied }, 'schema brought up to date')
    // On a server others may be writing, and would miss a view that is away.
    if (applied.length > 0 && isOurs) await reloadViews(store)
    return store
  }
  const listenForOtlp = async (store: Store): Promise<string> => {
    const { write } = keep(await openWriter(store, { folder: join(options.dataFolder, 'journal'), fsync, log }))
    const app = otlpApp({ write, ping: () => store.query('SELECT 1'), token, loopback, log })
    return keep(await listen(app, host, otlpPort)).url
  }
  try {
    const { clickhouseUrl } = options
    if (clickhouseUrl !== undefined) {
      const store = await ready(keep(serverStore(clickhouseUrl)), false)
      return { otlpUrl: await listenForOtlp(store), clickhouseUrl, close }
    }
    const engine = keep(await openEngine(options.dataFolder))
    await removeUnfinished(options.dataFolder)
    const store = await ready(embeddedStore(engine), true)
    await setFsync(store, fsync)
    const { clickhouseUsers: users = [], clickhousePort } = options
    const frontHost = loopback || needsLogin(users) ? host : '127.0.0.1'
    const front = keep(await listen(clickhouseHttp(engine, log, users), frontHost, clickhousePort))
    return { otlpUrl: await listenForOtlp(store), clickhouseUrl: front.url, close }
  } catch (error) {
    await close()
    throw error
  }
}

type Closeable = { readonly close: () => Promise<void> }
