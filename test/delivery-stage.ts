// What the tests of delivery share: a collector that replies as it is told and keeps what it was sent, and a delivery of
// spans to it, over a spool or in memory.
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { SpanKind } from '@opentelemetry/api'
import { AlwaysOnSampler, TracerProvider } from '@opentelemetry/sdk-trace'
import { pino } from 'pino'
import { Delivery } from '../router/delivery.ts'
import { transportTo } from '../router/otlp-transport.ts'
import { type Room, roomFor } from '../router/room.ts'
import { spanEncoding } from '../router/span-encoder.ts'
import { openSpool } from '../router/spool.ts'

export type Reply = (response: ServerResponse) => void
export const status =
  (code: number, body: object = {}, headers: Record<string, string> = {}): Reply =>
  (response) =>
    void response.writeHead(code, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body))

/** What a collector was sent, and when, by a clock that does not jump. */
export type Received = {
  readonly path: string
  readonly name: string
  readonly body: string
  readonly authorization: string | undefined
  readonly atMs: number
}

const closings = new WeakMap<TestContext, (() => unknown)[]>()
/** Runs `close` after the test, the last one first: what was opened on top of something is closed before it. */
export const afterwards = (t: TestContext, close: () => unknown): void => {
  const list = closings.get(t) ?? []
  if (list.length === 0)
    t.after(async () => {
      for (const each of list.toReversed()) await each()
    })
  list.push(close)
  closings.set(t, list)
}

/** A collector that replies as scripted, one reply a request, and then as `otherwise` says. */
export const scriptedCollector = async (t: TestContext, replies: Reply[] = [], otherwise: Reply = status(200)) => {
  const received: Received[] = []
  const replying = { otherwise }
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    const name = String(request.headers['x-signalbox-batch'])
    const { authorization } = request.headers
    received.push({
      path: String(request.url),
      name,
      body: Buffer.concat(chunks).toString(),
      authorization,
      atMs: performance.now(),
    })
    const reply = replies.shift() ?? replying.otherwise
    reply(response)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  afterwards(t, () => {
    server.closeAllConnections()
    server.close()
  })
  return { received, replying, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` }
}

export const temporarySpool = async (t: TestContext): Promise<string> => {
  const folder = await mkdtemp(join(tmpdir(), 'signalbox-spool-'))
  afterwards(t, () => rm(folder, { recursive: true, force: true }))
  return folder
}

let runs = 0
/** A run of a router's delivery, as far as spans are concerned; `end` ends a span of that name. */
export const startDelivery = (
  t: TestContext,
  url: string,
  folder: string | null = null,
  room: Room = roomFor(folder === null ? false : { folder, bytesMax: 1e9, whenFull: 'drop' }),
) => {
  const log = pino({ level: 'silent' })
  const spool = folder === null ? null : openSpool(folder, log)
  runs += 1
  let batches = 0
  const delivery = new Delivery({
    what: 'spans',
    encoding: spanEncoding,
    transport: transportTo(`${url}/v1/traces`, null),
    folder: spool?.traces ?? null,
    room,
    nextName: () => {
      batches += 1
      return `run${runs}-${String(batches).padStart(3, '0')}`
    },
    log,
  })
  const processor = { onStart: () => {}, onEnd: delivery.add.bind(delivery), forceFlush: async () => {} }
  const tracer = new TracerProvider({
    spanProcessors: [{ ...processor, shutdown: async () => {} }],
    sampler: new AlwaysOnSampler(),
  }).getTracer('t')
  const close = async (): Promise<void> => {
    await delivery.close()
    spool?.release()
  }
  afterwards(t, close)
  const end = (name: string, attributes: Record<string, string> = {}) =>
    tracer.startSpan(name, { kind: SpanKind.SERVER, attributes }).end()
  return { delivery, room, end, close }
}

export const namesIn = (body: string): string[] =>
  [...body.matchAll(/"name":"(span-[\w-]+)"/g)].map(([, name]) => name as string)
