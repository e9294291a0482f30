// The collector: OTLP/HTTP in, ClickHouse rows out. One request is one insert, and it is answered 200 only once its rows are
// stored; the insert's token is the hash of the body, so a batch that is sent again is stored once. What fails for
// a while is answered 503, which exporters send again; what can never succeed is a 4xx.
import { createHash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { BinaryWriter } from '@bufbuild/protobuf/wire'
import express, { type NextFunction, type Request, type Response } from 'express'
import type { Logger } from 'pino'
import { clickhouseHttp } from './clickhouse-http.ts'
import { openEngine } from './engine.ts'
import { createBudget, HttpError, isLoopback, listen, readBody, refuseBrowsers } from './http.ts'
import { migrate } from './migrate.ts'
import { decodeJson, OtlpError, type TraceRequest } from './otlp.ts'
import { decodeProtobuf } from './otlp-protobuf.ts'
import { toRows } from './rows.ts'
import { embeddedStore, type Store, serverStore } from './store.ts'

/** Bytes of bodies in memory at once, read or being read; more are answered 503. */
const waitingBytesMax = 256 * 1024 * 1024
/** What Retry-After says. */
const retryAfterSeconds = 1
/** How long the store may take to say that it is well. */
const healthMsMax = 2_000

export type CollectorOptions = {
  readonly host?: string
  readonly otlpPort: number
  /** Where the embedded engine is served; unused with a ClickHouse server. */
  readonly clickhousePort: number
  readonly log: Logger
} & ({ readonly dataFolder: string } | { readonly clickhouseUrl: string })

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
  const { host = '127.0.0.1', otlpPort, log } = options
  if (!isLoopback(host)) {
    throw new CollectorError(`the collector has no login, so it listens on loopback only, not on '${host}'`)
  }
  const opened: Closeable[] = []
  const keep = <Part extends Closeable>(part: Part): Part => {
    opened.push(part)
    return part
  }
  const close = async (): Promise<void> => {
    for (const part of opened.splice(0).reverse()) await part.close()
  }
  const ready = async (store: Store): Promise<Store> => {
    const applied = await migrate(store)
    if (applied.length > 0) log.info({ migrations: applied }, 'schema brought up to date')
    return store
  }
  try {
    if ('clickhouseUrl' in options) {
      const store = await ready(keep(serverStore(options.clickhouseUrl)))
      const otlp = keep(await listen(otlpApp(store, log), host, otlpPort))
      return { otlpUrl: otlp.url, clickhouseUrl: options.clickhouseUrl, close }
    }
    const engine = keep(await openEngine(options.dataFolder))
    const store = await ready(embeddedStore(engine))
    const front = keep(await listen(clickhouseHttp(engine, log), host, options.clickhousePort))
    const otlp = keep(await listen(otlpApp(store, log), host, otlpPort))
    return { otlpUrl: otlp.url, clickhouseUrl: front.url, close }
  } catch (error) {
    await close()
    throw error
  }
}

type Closeable = { readonly close: () => Promise<void> }

const otlpApp = (store: Store, log: Logger) => {
  const app = express()
  app.disable('x-powered-by')
  const lease = createBudget(waitingBytesMax)
  app.use((request, _response, next) => {
    refuseBrowsers(request)
    next()
  })
  app.post('/v1/traces', async (request, response) => {
    const held = lease()
    try {
      const encoding = encodingOf(request)
      const body = await readBody(request, held)
      const decoded = encoding.decode(body)
      if (decoded.accepted === 0 && decoded.rejected > 0) throw new OtlpError(problemsOf(decoded))
      if (decoded.accepted > 0) {
        const token = createHash('sha256').update(body).digest('hex')
        await store.insert('otel.otel_traces', toRows(decoded.resources), token)
      }
      if (decoded.rejected > 0) log.warn({ rejected: decoded.rejected, problems: decoded.problems }, 'spans refused')
      send(response, 200, encoding, encoding.success(decoded))
    } finally {
      held.release()
    }
  })
  app.get('/healthz', async (_request, response) => {
    const answer = store.query('SELECT 1').then(() => 'ok')
    const status = await Promise.race([answer, sleep(healthMsMax, 'store does not answer', { ref: false })])
    response.status(status === 'ok' ? 200 : 503).json({ status })
  })
  app.use((request: Request) => {
    throw new HttpError(
      404,
      `${request.method} ${request.path.slice(0, 200)} is not here; traces go to POST /v1/traces`,
    )
  })
  app.use(failure(log))
  return app
}

type Encoding = {
  readonly contentType: string
  readonly decode: (body: Uint8Array) => TraceRequest
  readonly success: (request: TraceRequest) => Uint8Array
  readonly status: (code: number, message: string) => Uint8Array
}

const problemsOf = ({ rejected, problems }: TraceRequest): string => `${rejected} spans refused: ${problems.join('; ')}`

const json: Encoding = {
  contentType: 'application/json',
  decode: decodeJson,
  success: (request) => {
    const partialSuccess = { rejectedSpans: String(request.rejected), errorMessage: problemsOf(request) }
    return Buffer.from(JSON.stringify(request.rejected > 0 ? { partialSuccess } : {}))
  },
  status: (code, message) => Buffer.from(JSON.stringify({ code, message })),
}

const protobuf: Encoding = {
  contentType: 'application/x-protobuf',
  decode: decodeProtobuf,
  success: (request) => {
    const writer = new BinaryWriter()
    if (request.rejected === 0) return writer.finish()
    writer.uint32(0x0a).fork().uint32(0x08).int64(request.rejected).uint32(0x12).string(problemsOf(request)).join()
    return writer.finish()
  },
  status: (code, message) => new BinaryWriter().uint32(0x08).int32(code).uint32(0x12).string(message).finish(),
}

const encodingOf = (request: Request): Encoding => {
  const type = (request.headers['content-type'] ?? '').split(';')[0]?.trim().toLowerCase()
  if (type === json.contentType) return json
  if (type === protobuf.contentType) return protobuf
  const found = type ? `'${type.slice(0, 100)}'` : 'missing'
  throw new HttpError(415, `content type is ${found}, wanted ${json.contentType} or ${protobuf.contentType}`)
}

const send = (response: Response, status: number, encoding: Encoding, body: Uint8Array): void => {
  response.status(status).setHeader('content-type', encoding.contentType)
  response.end(body)
}

const statusOf = (error: unknown): number => {
  if (error instanceof HttpError) return error.status
  return error instanceof OtlpError ? 400 : 503
}

/** google.rpc codes: unavailable, resource exhausted, not found, and invalid argument for the rest. */
const rpcCodes: Readonly<Record<number, number>> = { 503: 14, 413: 8, 404: 5 }

/** Answers an error as OTLP wants it: a google.rpc Status in the request's own encoding. */
const failure = (log: Logger) => (error: unknown, request: Request, response: Response, _next: NextFunction) => {
  if (response.headersSent || response.destroyed) return response.destroy()
  const status = statusOf(error)
  const { message } = error as Error
  if (status === 503) {
    response.set('retry-after', String(retryAfterSeconds))
    log.error({ err: error }, 'not stored')
  } else log.warn({ status, message }, 'request refused')
  // What is left of the body is not read, so the connection cannot carry another request.
  if (!request.complete) response.set('connection', 'close')
  request.resume()
  const encoding = request.headers['content-type']?.startsWith(protobuf.contentType) ? protobuf : json
  return send(response, status, encoding, encoding.status(rpcCodes[status] ?? 3, message))
}
