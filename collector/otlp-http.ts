// OTLP/HTTP: the way from a request to its answer, which is the same for every signal and both encodings. A request is
// answered 200 only once its rows are stored; its token is the hash of its body and of the name that its
// sender gave it, so a batch that is sent again is stored once. What fails for a while is answered 503, which exporters send
// again; what can never succeed is a 4xx.
import { createHash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { BinaryWriter } from '@bufbuild/protobuf/wire'
import express, { type NextFunction, type Request, type Response } from 'express'
import type { Logger } from 'pino'
import { bearerCheck, createBudget, HttpError, readBody, refuseBrowsers, refuseWebPages } from './http.ts'
import { OtlpError, OtlpSizeError } from './otlp.ts'
import { logs } from './otlp-logs.ts'
import { metrics } from './otlp-metrics.ts'
import type { ExportRows, Signal } from './otlp-signal.ts'
import { traces } from './otlp-traces.ts'
import { wasNotRead } from './store.ts'
import type { Writer } from './writer.ts'

/** Bytes of bodies in memory at once, read or being read; more are answered 503. */
const waitingBytesMax = 256 * 1024 * 1024
/** What Retry-After says. */
const retryAfterSeconds = 1
/** How long the store may take to say that it is well. */
const healthMsMax = 2_000

const signals: readonly Signal[] = [traces, logs, metrics]

export type OtlpOptions = {
  readonly write: Writer['write']
  /** Resolves when the store can answer. */
  readonly ping: () => Promise<unknown>
  /** What senders must show; null where nobody else can reach the collector. */
  readonly token: string | null
  /** Whether only this machine can reach the collector. */
  readonly loopback: boolean
  readonly log: Logger
}

/** The collector's OTLP side: POST /v1/traces, /v1/logs, /v1/metrics, and GET /healthz. */
export const otlpApp = ({ write, ping, token, loopback, log }: OtlpOptions) => {
  const app = express()
  app.disable('x-powered-by')
  const lease = createBudget(waitingBytesMax)
  const checkSender = token === null ? () => {} : bearerCheck(token)
  app.use((request, _response, next) => {
    loopback ? refuseBrowsers(request) : refuseWebPages(request)
    next()
  })
  for (const signal of signals) {
    app.post(signal.path, async (request, response) => {
      checkSender(request)
      const held = lease()
      try {
        const encoding = encodingOf(request)
        const body = await readBody(request, held)
        const rows = encoding.read(signal, body)
        if (rows.accepted === 0 && rows.rejected > 0) throw new OtlpError(problemsOf(rows))
        const batch = batchOf(request, body)
        await Promise.all(rows.tables.map((table) => write({ ...table, token: `${batch}:${table.table}` })))
        if (rows.rejected > 0)
          log.warn({ path: signal.path, rejected: rows.rejected, problems: rows.problems }, 'partly refused')
        send(response, 200, encoding, encoding.success(signal, rows))
      } finally {
        held.release()
      }
    })
  }
  app.get('/healthz', async (_request, response) => {
    const answer = ping().then(() => 'ok')
    const status = await Promise.race([answer, sleep(healthMsMax, 'store does not answer', { ref: false })])
    response.status(status === 'ok' ? 200 : 503).json({ status })
  })
  app.use((request: Request, response: Response) => notHere(request, response))
  app.use(failure(log))
  return app
}

const notHere = ({ method, path }: Request, response: Response): never => {
  const paths = signals.map((signal) => signal.path)
  if (!paths.includes(path))
    throw new HttpError(404, `${method} ${path.slice(0, 200)} is not here; there are POST ${paths.join(', ')}`)
  response.set('allow', 'POST')
  throw new HttpError(405, `${method} ${path} is not taken; export requests come by POST`)
}

/**
 * A batch is known by its bytes and, where its sender has given it one, by its name: other bytes under the same name are
 * another batch, or they would be answered and never stored. Throws HttpError.
 */
const batchOf = ({ headers }: Request, body: Uint8Array): string => {
  const { 'x-signalbox-batch': name } = headers
  const hash = createHash('sha256')
  if (name === undefined) return hash.update(body).digest('hex')
  if (typeof name === 'string' && /^[\w.:-]{1,100}$/.test(name)) {
    return hash.update(`${name}\n`).update(body).digest('hex')
  }
  throw new HttpError(
    400,
    `x-signalbox-batch is '${String(name).slice(0, 100)}', wanted 1 to 100 of A–Z a–z 0–9 _ . : -`,
  )
}

type Encoding = {
  readonly contentType: string
  readonly read: (signal: Signal, body: Uint8Array) => ExportRows
  readonly success: (signal: Signal, rows: ExportRows) => Uint8Array
  /** A google.rpc Status. */
  readonly status: (code: number, message: string) => Uint8Array
}

const problemsOf = ({ rejected, problems }: ExportRows): string => `${rejected} refused: ${problems.join('; ')}`

const json: Encoding = {
  contentType: 'application/json',
  read: (signal, body) => signal.json(body),
  success: ({ rejectedField }, rows) => {
    const partialSuccess = { [rejectedField]: String(rows.rejected), errorMessage: problemsOf(rows) }
    return Buffer.from(JSON.stringify(rows.rejected > 0 ? { partialSuccess } : {}))
  },
  status: (code, message) => Buffer.from(JSON.stringify({ code, message })),
}

const protobuf: Encoding = {
  contentType: 'application/x-protobuf',
  read: (signal, body) => signal.protobuf(body),
  success: (_signal, rows) => {
    const writer = new BinaryWriter()
    if (rows.rejected === 0) return writer.finish()
    writer.uint32(0x0a).fork().uint32(0x08).int64(rows.rejected).uint32(0x12).string(problemsOf(rows)).join()
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

/** Rows that ClickHouse cannot read stay so: sent again for ever, they would hold up all that comes behind them. */
const statusOf = (error: unknown): number => {
  if (error instanceof HttpError) return error.status
  if (error instanceof OtlpSizeError) return 413
  return error instanceof OtlpError || wasNotRead(error) ? 400 : 503
}

/** google.rpc codes of HTTP statuses; invalid argument for the rest. */
const rpcCodes: Readonly<Record<number, number>> = { 401: 16, 403: 7, 404: 5, 405: 12, 413: 8, 429: 8, 503: 14 }
const invalidArgument = 3

/** Answers an error as OTLP wants it: a google.rpc Status in the request's own encoding. */
const failure = (log: Logger) => (error: unknown, request: Request, response: Response, _next: NextFunction) => {
  if (response.headersSent || response.destroyed) return response.destroy()
  const status = statusOf(error)
  const { message } = error as Error
  if (status === 503 || status === 429) {
    response.set('retry-after', String(retryAfterSeconds))
    log.error({ err: error }, 'not stored')
  } else log.warn({ status, message }, 'request refused')
  if (status === 401) response.set('www-authenticate', 'Bearer')
  // What is left of the body is not read, so the connection cannot carry another request.
  if (!request.complete) response.set('connection', 'close')
  request.resume()
  const encoding = request.headers['content-type']?.toLowerCase().startsWith(protobuf.contentType) ? protobuf : json
  return send(response, status, encoding, encoding.status(rpcCodes[status] ?? invalidArgument, message))
}
