// Delivery against a collector that misbehaves: what it does not take is sent again, the same bytes in the same order; what
// it refuses is set aside and counted; nothing is called delivered that was not taken.
import assert from 'node:assert/strict'
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { type TestContext, test } from 'node:test'
import { SpanKind } from '@opentelemetry/api'
import { AlwaysOnSampler, TracerProvider } from '@opentelemetry/sdk-trace'
import { pino } from 'pino'
import { DeliveryProcessor } from '../router/delivery.ts'

type Reply = (response: ServerResponse) => void
const status =
  (code: number, body: object = {}): Reply =>
  (response) =>
    void response.writeHead(code, { 'content-type': 'application/json' }).end(JSON.stringify(body))

/** A collector that replies as scripted, one reply a request and 200 from then on; and a tracer that delivers to it. */
const stage = async (t: TestContext, replies: Reply[]) => {
  const bodies: string[] = []
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    bodies.push(Buffer.concat(chunks).toString())
    const reply = replies.shift() ?? status(200)
    reply(response)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1/traces`
  const delivery = new DeliveryProcessor(url, pino({ level: 'silent' }))
  const tracer = new TracerProvider({ spanProcessors: [delivery], sampler: new AlwaysOnSampler() }).getTracer('t')
  t.after(async () => {
    await delivery.shutdown()
    server.closeAllConnections()
    server.close()
  })
  const end = (name: string) => tracer.startSpan(name, { kind: SpanKind.SERVER }).end()
  return { bodies, delivery, end }
}
const namesIn = (body: string): string[] => [...body.matchAll(/"name":"(span-\d+)"/g)].map(([, name]) => name as string)

test('a batch that is not taken is sent again, byte for byte, before any later one', async (t) => {
  const { bodies, delivery, end } = await stage(t, [status(500), status(404), (response) => void response.destroy()])
  end('span-1')
  end('span-2')
  const flushed = delivery.forceFlush()
  end('span-3')
  await flushed
  await delivery.forceFlush()
  assert.equal(new Set(bodies.slice(0, 4)).size, 1)
  assert.deepEqual(bodies.slice(3).map(namesIn), [['span-1', 'span-2'], ['span-3']])
  assert.deepEqual(delivery.counts, { queued: 0, delivered: 3, dropped: 0, refused: 0 })
})

test('a batch that is refused as bad is set aside and counted, and those behind it go on', async (t) => {
  const { bodies, delivery, end } = await stage(t, [status(400, { code: 3, message: 'bad' })])
  end('span-1')
  await delivery.forceFlush()
  end('span-2')
  await delivery.forceFlush()
  assert.deepEqual(bodies.map(namesIn), [['span-1'], ['span-2']])
  assert.deepEqual(delivery.counts, { queued: 0, delivered: 1, dropped: 0, refused: 1 })
})

test('spans that a partial success rejects are not called delivered', async (t) => {
  const partial = { partialSuccess: { rejectedSpans: '2', errorMessage: 'two are bad' } }
  const { delivery, end } = await stage(t, [status(200, partial)])
  for (const name of ['span-1', 'span-2', 'span-3']) end(name)
  await delivery.forceFlush()
  assert.deepEqual(delivery.counts, { queued: 0, delivered: 1, dropped: 0, refused: 2 })
})

test('5,000 spans ended in one tick are all delivered, in order', async (t) => {
  const { bodies, delivery, end } = await stage(t, [])
  const names = Array.from({ length: 5000 }, (_, at) => `span-${at}`)
  for (const name of names) end(name)
  await delivery.forceFlush()
  assert.deepEqual(bodies.flatMap(namesIn), names)
  assert.equal(delivery.counts.delivered, 5000)
})
