// The router's front: its express routes, and starting and stopping it.
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import express, { type ErrorRequestHandler, type Request, type Response } from 'express'
import type { Logger } from 'pino'
import { adminRoutes, answerAdmin, startingWith } from './admin.ts'
import { answerChat, type Core } from './answer.ts'
import { startCapture } from './capture/capture.ts'
import type { Config } from './config.ts'
import { readFeedback } from './feedback.ts'
import { callerOf } from './intake.ts'
import { errorBody } from './reply.ts'
import { startTelemetry, type Telemetry } from './telemetry.ts'
import { Upstream } from './upstream.ts'

/** How long closing waits for requests in flight. */
const drainMsMax = 10_000
const keepAliveMs = 65_000
const sweepMs = 50
const refusedRetryAfterS = '5'

export type Router = {
  readonly url: string
  readonly telemetry: Telemetry
  readonly close: () => Promise<void>
}

const invalid = (response: Response, status: number, message: string, code: string): void => {
  response.status(status).json(errorBody(message, 'invalid_request_error', code))
}

const takeFeedback = async ({ config, telemetry }: Core, request: Request, response: Response): Promise<void> => {
  const events = await readFeedback(request, config.keys)
  if ('status' in events) return invalid(response, events.status, events.message, events.code)
  for (const event of events) telemetry.event(event)
  response.status(202).json({ accepted: true, count: events.length })
}

/** What would be recorded could not be kept, and this router is set to answer nothing that is not recorded. */
const refuseForRoom = (response: Response): void => {
  const message =
    'the telemetry spool is full, and telemetry.spool.when_full is set to refuse: ask again when the collector has taken some of it'
  // The body is not read, so the connection cannot carry another request.
  response.set({ 'retry-after': refusedRetryAfterS, connection: 'close' })
  response.status(503).json(errorBody(message, 'service_unavailable', 'telemetry_spool_full'))
}

const modelList = ({ targets }: Config) => ({
  object: 'list',
  data: [
    { id: 'auto', object: 'model', created: 0, owned_by: 'signalbox' },
    ...targets.map(({ model, provider }) => ({ id: model, object: 'model', created: 0, owned_by: provider.name })),
  ],
})

const routes = [
  'POST /v1/chat/completions',
  'POST /v1/feedback',
  'GET /v1/models',
  'GET /healthz',
  'GET /readyz',
] as const

const appFor = (core: Core, closing: () => boolean): express.Express => {
  const app = express()
  app.disable('x-powered-by')
  app.disable('etag')
  app.post(['/v1/chat/completions', '/v1/feedback'], (_, response, next) => {
    if (core.telemetry.refusing()) refuseForRoom(response)
    else next()
  })
  app.post('/v1/chat/completions', (request, response) => answerChat(core, request, response))
  app.post('/v1/feedback', (request, response) => takeFeedback(core, request, response))
  app.get('/v1/models', (request, response) => {
    const caller = callerOf(request.headers, core.config.keys)
    if ('status' in caller) invalid(response, caller.status, caller.message, caller.code)
    else response.json(modelList(core.config))
  })
  app.get('/healthz', (_, response) => {
    response.json({ ok: true })
  })
  app.get('/readyz', (_, response) => {
    const { name, hash } = core.policies[0].policy
    const { events, ...spans } = core.telemetry.counts()
    const ready = !closing() && !core.telemetry.refusing()
    response
      .status(ready ? 200 : 503)
      .json({ ready, policy: { name, hash }, spans, events, payloads: core.capture?.counts() })
  })
  app.use(async (request, response) => {
    if (await answerAdmin(core, request, response)) return
    const known = [...routes, ...(core.config.admin ? adminRoutes : [])].join(', ')
    invalid(response, 404, `there is no ${request.method} ${request.path}; there are: ${known}`, 'not_found')
  })
  const failed: ErrorRequestHandler = (error, _request, response, _next) => {
    core.log.error(error, 'a request failed inside the router')
    if (response.headersSent) response.destroy()
    else response.status(500).json(errorBody('the router failed; its log says more', 'server_error', 'internal'))
  }
  app.use(failed)
  return app
}

/** Starts the router of a configuration. Port 0 takes any free one; `url` says which. Rejects when it is taken. */
export const startRouter = async (config: Config, { log }: { log: Logger }): Promise<Router> => {
  const telemetry = startTelemetry(config.telemetry, log)
  const core: Core = {
    config,
    targets: new Map(config.targets.map((target) => [target.model, target])),
    upstream: new Upstream(),
    telemetry,
    capture: config.capture && startCapture(config.capture, telemetry.event, log),
    log,
    inFlight: new Map(),
    health: new Map(),
    policies: startingWith(config.policy),
    lease: undefined,
  }
  let closing = false
  const server = createServer(
    { keepAliveTimeout: keepAliveMs },
    appFor(core, () => closing),
  )
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(config.listen.port, config.listen.host, resolve)
  }).catch(async (error) => {
    await telemetry.close()
    throw error
  })
  for (const warning of config.warnings) log.warn(warning)
  telemetry.policy(config.policy)
  const { port } = server.address() as AddressInfo
  const close = async (): Promise<void> => {
    closing = true
    clearTimeout(core.lease)
    const closed = new Promise((resolve) => server.close(resolve))
    const timer = setTimeout(() => server.closeAllConnections(), drainMsMax)
    // A connection that was busy when closing began is idle, but kept alive, once it has its answer.
    const sweep = setInterval(() => server.closeIdleConnections(), sweepMs)
    await closed
    clearInterval(sweep)
    clearTimeout(timer)
    await core.upstream.close()
    await core.capture?.settled()
    await telemetry.close()
  }
  return {
    url: `http://${config.listen.host.includes(':') ? `[${config.listen.host}]` : config.listen.host}:${port}`,
    telemetry,
    close,
  }
}
