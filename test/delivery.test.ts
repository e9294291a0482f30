// Delivery against a collector that misbehaves: what it does not take is sent again, the same bytes in the same order; what
// it refuses is set aside and counted; nothing is called delivered that was not taken.
import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import type { Delivery } from '../router/delivery.ts'
import { transportTo } from '../router/otlp-transport.ts'
import { namesIn, type Reply, scriptedCollector, startDelivery, status } from './delivery-stage.ts'

const stage = async (t: TestContext, replies: Reply[]) => {
  const collector = await scriptedCollector(t, replies)
  return { ...collector, ...startDelivery(t, collector.url) }
}
const countsOf = ({ counts }: Pick<Delivery<never>, 'counts'>) => {
  const { queued, delivered, dropped, refused } = counts
  return { queued, delivered, dropped, refused }
}

test('a batch that is not taken is sent again, byte for byte and by the same name, before any later one', async (t) => {
  const { received, delivery, end } = await stage(t, [status(500), status(404), (response) => void response.destroy()])
  end('span-1')
  end('span-2')
  const flushed = delivery.flush()
  end('span-3')
  await flushed
  await delivery.flush()
  assert.equal(new Set(received.slice(0, 4).map(({ body }) => body)).size, 1)
  assert.equal(new Set(received.slice(0, 4).map(({ name }) => name)).size, 1)
  assert.deepEqual(
    received.slice(3).map(({ body }) => namesIn(body)),
    [['span-1', 'span-2'], ['span-3']],
  )
  assert.notEqual(received[4]?.name, received[3]?.name)
  assert.deepEqual(countsOf(delivery), { queued: 0, delivered: 3, dropped: 0, refused: 0 })
})

test('a batch that is refused as bad is set aside and counted, and those behind it go on', async (t) => {
  const { received, delivery, end } = await stage(t, [status(400, { code: 3, message: 'bad' })])
  end('span-1')
  await delivery.flush()
  end('span-2')
  await delivery.flush()
  assert.deepEqual(
    received.map(({ body }) => namesIn(body)),
    [['span-1'], ['span-2']],
  )
  assert.deepEqual(countsOf(delivery), { queued: 0, delivered: 1, dropped: 0, refused: 1 })
})

test('spans that a partial success rejects are not called delivered', async (t) => {
  const partial = { partialSuccess: { rejectedSpans: '2', errorMessage: 'two are bad' } }
  const { delivery, end } = await stage(t, [status(200, partial)])
  for (const name of ['span-1', 'span-2', 'span-3']) end(name)
  await delivery.flush()
  assert.deepEqual(countsOf(delivery), { queued: 0, delivered: 1, dropped: 0, refused: 2 })
})

test('5,000 spans ended in one tick are all delivered, in order', async (t) => {
  const { received, delivery, end } = await stage(t, [])
  const names = Array.from({ length: 5000 }, (_, at) => `span-${at}`)
  for (const name of names) end(name)
  await delivery.flush()
  assert.deepEqual(
    received.flatMap(({ body }) => namesIn(body)),
    names,
  )
  assert.equal(delivery.counts.delivered, 5000)
})

test('Retry-After is waited for, in seconds and as a date, and a flush does not cut it short', async (t) => {
  const date = () => new Date(Date.now() + 2000).toUTCString()
  const { received, delivery, end } = await stage(t, [
    status(503, {}, { 'retry-after': '1' }),
    (response) => status(429, {}, { 'retry-after': date() })(response),
  ])
  end('span-1')
  const flushed = delivery.flush()
  await delivery.flush()
  await flushed
  const [first, second, third] = received.map(({ atMs }) => atMs) as [number, number, number]
  assert.ok(second - first >= 990, `the second came ${second - first} ms after the first`)
  // A date has whole seconds: two seconds from now is more than one away.
  assert.ok(third - second >= 990, `the third came ${third - second} ms after the second`)
  assert.equal(delivery.counts.delivered, 1)
})

test('a span that cannot be encoded costs itself only', async (t) => {
  const { received, delivery, end } = await stage(t, [])
  delivery.add({ attributes: null } as never)
  end('span-1')
  await delivery.flush()
  assert.deepEqual(
    received.flatMap(({ body }) => namesIn(body)),
    ['span-1'],
  )
  assert.deepEqual(countsOf(delivery), { queued: 0, delivered: 1, dropped: 1, refused: 0 })
})

test('a bearer token is shown to the collector', async (t) => {
  const { received, url } = await scriptedCollector(t)
  const transport = transportTo(`${url}/v1/logs`, 'secret-token')
  assert.deepEqual(await transport.send('e-1', Buffer.from('{}')), { kind: 'taken', rejected: 0, message: '' })
  transport.close()
  assert.deepEqual(
    received.map(({ name, authorization }) => [name, authorization]),
    [['e-1', 'Bearer secret-token']],
  )
})
