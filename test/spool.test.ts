// The spool against what happens to it: a collector that is away, a router that ends, a file that was cut off, a disk that
// fails or is full, a clock that jumps. What was spooled is delivered once, under one name, with the same bytes.
import assert from 'node:assert/strict'
import { type FileHandle, mkdir, open, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import fc from 'fast-check'
import { pino } from 'pino'
import { batchTail } from '../router/batch.ts'
import { isRefusing, roomFor } from '../router/room.ts'
import { openSpool } from '../router/spool.ts'
import { wholeItems } from '../router/spool-mend.ts'
import './arbitraries.ts' // the seed of all laws
import { afterwards, namesIn, scriptedCollector, startDelivery, status, temporarySpool } from './delivery-stage.ts'

const away = status(503)
const silent = pino({ level: 'silent' })
const numbered = (count: number, from = 0) => Array.from({ length: count }, (_, at) => `span-${from + at}`)
const until = async (holds: () => boolean | Promise<boolean>, what: string, msMax = 5000) => {
  for (const deadline = performance.now() + msMax; !(await holds()); await sleep(10))
    assert.ok(performance.now() < deadline, `${what} within ${msMax} ms`)
}
const filesIn = async (folder: string, ending = '') =>
  (await readdir(join(folder, 'traces'))).filter((name) => name.endsWith(ending)).sort()

test('what was added is on disk within 100 ms, and off it once it was taken', async (t) => {
  const folder = await temporarySpool(t)
  const { url, replying } = await scriptedCollector(t, [], away)
  const { delivery, end } = startDelivery(t, url, folder)
  end('span-1')
  const addedAtMs = performance.now()
  await until(async () => {
    const [file] = await filesIn(folder)
    return file !== undefined && namesIn(await readFile(join(folder, 'traces', file), 'utf8')).includes('span-1')
  }, 'the span is on disk')
  const tookMs = performance.now() - addedAtMs
  assert.ok(tookMs < 100, `it took ${tookMs} ms`)
  replying.otherwise = status(200)
  await delivery.flush()
  await until(async () => (await filesIn(folder, 'json')).length === 0, 'the file is gone')
  assert.equal(delivery.counts.delivered, 1)
})

test('a batch that is whole is on disk at once, though the disk is slow to flush what came before', async (t) => {
  const folder = await temporarySpool(t)
  const probe = await open(join(folder, 'probe'), 'w')
  const handles = Object.getPrototypeOf(probe) as FileHandle
  await probe.close()
  const { datasync } = handles
  afterwards(t, () => Object.assign(handles, { datasync }))
  handles.datasync = async function (this: FileHandle) {
    await sleep(2_000)
    return datasync.call(this)
  }
  const { url } = await scriptedCollector(t, [], away)
  const { delivery, end } = startDelivery(t, url, folder)
  end('span-1')
  await until(async () => (await filesIn(folder)).length > 0, 'a file is there')
  await sleep(50)
  end('span-2')
  void delivery.flush()
  await until(
    async () => {
      const [file = ''] = await filesIn(folder)
      return namesIn(await readFile(join(folder, 'traces', file), 'utf8')).includes('span-2')
    },
    'the last span is on disk',
    1_000,
  )
})

test('closing leaves on disk what is not taken, and the next run sends it first: same names, same bytes, same order', async (t) => {
  const folder = await temporarySpool(t)
  const { url, received, replying } = await scriptedCollector(t, [], away)
  const first = startDelivery(t, url, folder)
  for (const name of numbered(3000)) first.end(name)
  const startedAtMs = performance.now()
  await first.close()
  assert.ok(performance.now() - startedAtMs < 3000, 'closing does not wait for a collector that is away')
  assert.deepEqual(
    [first.delivery.counts.queued, first.delivery.counts.delivered, first.delivery.counts.dropped],
    [3000, 0, 0],
  )
  const refused = received.splice(0)
  replying.otherwise = status(200)
  const second = startDelivery(t, url, folder)
  assert.equal(second.delivery.counts.queued, 3000)
  second.end('span-new')
  await second.delivery.flush()
  assert.deepEqual(
    received.flatMap(({ body }) => namesIn(body)),
    [...numbered(3000), 'span-new'],
  )
  assert.deepEqual([received[0]?.name, received[0]?.body], [refused[0]?.name, refused[0]?.body])
  assert.equal(second.delivery.counts.delivered, 3001)
})

test('a backlog beyond a little memory lives on disk only, and is read back in order', async (t) => {
  const folder = await temporarySpool(t)
  const { url, received, replying } = await scriptedCollector(t, [], away)
  const { delivery, room, end } = startDelivery(t, url, folder)
  const text = 'x'.repeat(100_000)
  for (let at = 0; at < 600; at += 1) end(`span-${at}`, { text })
  await until(() => room.memoryBytes < 45e6, 'bodies leave memory')
  assert.ok(room.queuedBytes > 60e6)
  replying.otherwise = status(200)
  await delivery.flush()
  assert.deepEqual(
    received
      .filter(({ name }, at) => received.findLastIndex((other) => other.name === name) === at)
      .flatMap(({ body }) => namesIn(body)),
    numbered(600),
  )
  assert.deepEqual([room.queuedBytes, room.memoryBytes], [0, 0])
})

const growing = (count: number) => {
  const lines = numbered(count).map((name, at) => `${at === 0 ? '' : ','}${JSON.stringify({ name, text: 'ü"\\n' })}\n`)
  return Buffer.from(`{"resourceSpans":[{"resource":{},"scopeSpans":[{"scope":{},"spans":[\n${lines.join('')}`)
}

test('a growing file cut off anywhere is cut back to its last whole item, and no further', () => {
  const bytes = growing(20)
  fc.assert(
    fc.property(fc.nat({ max: bytes.length }), fc.uint8Array({ maxLength: 40 }), (at, garbage) => {
      const cut = Buffer.concat([bytes.subarray(0, at), garbage])
      const { items, end } = wholeItems(cut)
      // Garbage may by chance be an item; what came before the cut must be there.
      const before = bytes.subarray(0, at).toString().split('\n').length - 2
      assert.ok(items >= before, `${items} of ${before}`)
      if (items === 0) return
      const mended = cut.toString('utf8', 0, end) + batchTail
      assert.equal(JSON.parse(mended).resourceSpans[0].scopeSpans[0].spans.length, items)
    }),
    { numRuns: 300 },
  )
})

test('what a killed router left open is mended, delivered, and its unreadable end set aside with a count', async (t) => {
  const folder = await temporarySpool(t)
  await mkdir(join(folder, 'traces'), { recursive: true })
  const left = (name: string, bytes: Buffer | string) => writeFile(join(folder, 'traces', `${name}.open`), bytes)
  await left('a-001', growing(3))
  await left('a-002', Buffer.concat([growing(2), Buffer.alloc(500)]))
  await left('a-003', `${growing(2)}${batchTail.slice(0, 3)}`)
  await left('a-004', `${growing(2)},{"name":"span-torn","te`)
  await left('a-005', '')
  await left('a-006', 'not a batch\nat all\n')
  const { url, received } = await scriptedCollector(t)
  const { delivery } = startDelivery(t, url, folder)
  await delivery.flush()
  assert.deepEqual(
    received.map(({ name, body }) => [name, namesIn(body)]),
    [
      ['a-001', numbered(3)],
      ['a-002', numbered(2)],
      ['a-003', numbered(2)],
      ['a-004', numbered(2)],
    ],
  )
  for (const { body } of received) JSON.parse(body)
  assert.deepEqual([delivery.counts.delivered, delivery.counts.refused], [9, 4])
  assert.deepEqual((await readdir(join(folder, 'traces', 'refused'))).sort(), [
    'a-002.tail',
    'a-004.tail',
    'a-006.tail',
  ])
})

test('a batch that the collector refuses goes to the folder `refused`, and those behind it go on', async (t) => {
  const folder = await temporarySpool(t)
  const { url, received } = await scriptedCollector(t, [status(400, { message: 'bad' })])
  const { delivery, end, close } = startDelivery(t, url, folder)
  end('span-1')
  await delivery.flush()
  end('span-2')
  await delivery.flush()
  await close()
  const [aside = ''] = await readdir(join(folder, 'traces', 'refused'))
  assert.equal(await readFile(join(folder, 'traces', 'refused', aside), 'utf8'), received[0]?.body)
  assert.deepEqual([delivery.counts.delivered, delivery.counts.refused], [1, 1])
  assert.deepEqual(await filesIn(folder), ['refused'])
})

test('a full spool drops what is new, counts it, and takes it again when there is room', async (t) => {
  const folder = await temporarySpool(t)
  const { url, replying } = await scriptedCollector(t, [], away)
  const room = roomFor({ folder, bytesMax: 200_000, whenFull: 'drop' })
  const { delivery, end } = startDelivery(t, url, folder, room)
  for (let at = 0; at < 1000; at += 1) end(`span-${at}`, { text: 'x'.repeat(1000) })
  const { queued, dropped, queuedBytes } = delivery.counts
  assert.equal(queued + dropped, 1000)
  assert.ok(dropped > 800, `${dropped} dropped`)
  assert.ok(queuedBytes < 203_000, `${queuedBytes} bytes wait`)
  assert.equal(isRefusing(room), false)
  replying.otherwise = status(200)
  await delivery.flush()
  end('span-after')
  await delivery.flush()
  assert.deepEqual([delivery.counts.delivered, delivery.counts.dropped], [queued + 1, dropped])
})

test('a spool that refuses when it is full says so, and still keeps what was under way', async (t) => {
  const folder = await temporarySpool(t)
  const { url, replying } = await scriptedCollector(t, [], away)
  const room = roomFor({ folder, bytesMax: 200_000, whenFull: 'refuse' })
  const { delivery, end } = startDelivery(t, url, folder, room)
  for (let at = 0; at < 1000; at += 1) end(`span-${at}`, { text: 'x'.repeat(1000) })
  assert.equal(isRefusing(room), true)
  replying.otherwise = status(200)
  await delivery.flush()
  assert.deepEqual([delivery.counts.delivered, delivery.counts.dropped], [1000, 0])
  assert.equal(isRefusing(room), false)
})

test('a full disk costs nothing but memory: what is there is delivered, and written again when there is room', async (t) => {
  const folder = await temporarySpool(t)
  const { url, received, replying } = await scriptedCollector(t, [], away)
  await mkdir(join(folder, 'traces'), { recursive: true })
  // Writing to /dev/full fails as writing to a full disk does. The stage's names are known beforehand.
  const { delivery, end } = startDelivery(t, url, folder)
  end('span-0')
  await until(async () => (await filesIn(folder, 'json')).length === 1, 'the first batch is whole')
  const next = ((await filesIn(folder, 'json'))[0] as string).replace(/001\..*/, '002.open')
  await symlink('/dev/full', join(folder, 'traces', next))
  for (const name of numbered(10, 1)) end(name)
  await until(() => delivery.counts.diskErrors > 0, 'the disk fails')
  await rm(join(folder, 'traces', next))
  await until(async () => (await filesIn(folder, 'open')).length === 1, 'it is written again')
  replying.otherwise = status(200)
  await delivery.flush()
  assert.deepEqual(
    received.filter(({ name }) => name.endsWith('002')).flatMap(({ body }) => namesIn(body)),
    numbered(10, 1),
  )
  assert.deepEqual([delivery.counts.delivered, delivery.counts.dropped], [11, 0])
})

test('a spool folder that is taken away under way is missed by no one', async (t) => {
  const folder = await temporarySpool(t)
  const { url, received } = await scriptedCollector(t)
  const { delivery, end } = startDelivery(t, url, folder)
  await rm(join(folder, 'traces'), { recursive: true })
  end('span-1')
  await delivery.flush()
  await mkdir(join(folder, 'traces'))
  end('span-2')
  await delivery.flush()
  assert.deepEqual(
    received.flatMap(({ body }) => namesIn(body)),
    ['span-1', 'span-2'],
  )
  assert.ok(delivery.counts.diskErrors > 0)
})

test('a file that someone removed is counted as dropped, and those behind it go on', async (t) => {
  const folder = await temporarySpool(t)
  const { url, replying, received } = await scriptedCollector(t, [], away)
  const first = startDelivery(t, url, folder)
  for (const name of numbered(4097)) first.end(name)
  await first.close()
  const second = startDelivery(t, url, folder)
  await rm(join(folder, 'traces', (await filesIn(folder, '2048.json'))[1] as string))
  received.splice(0)
  replying.otherwise = status(200)
  await second.delivery.flush()
  assert.deepEqual([second.delivery.counts.delivered, second.delivery.counts.dropped], [2049, 2048])
})

test('a clock that jumps, either way, changes no age and delays no batch', async (t) => {
  const folder = await temporarySpool(t)
  const { url } = await scriptedCollector(t, [status(503), status(503)])
  const now = Date.now
  afterwards(t, () => {
    Date.now = now
  })
  const { delivery, end } = startDelivery(t, url, folder)
  end('span-1')
  Date.now = () => now() + 1e11
  end('span-2')
  await sleep(100)
  Date.now = () => now() - 1e11
  assert.ok(delivery.counts.oldestMs >= 90 && delivery.counts.oldestMs < 5000, `${delivery.counts.oldestMs} ms`)
  await until(() => delivery.counts.delivered === 2, 'both are delivered')
  assert.equal(delivery.counts.oldestMs, 0)
})

test('a folder has one router at a time, and the other is told whose it is', async (t) => {
  const folder = await temporarySpool(t)
  const spool = openSpool(folder, silent)
  assert.throws(() => openSpool(folder, silent), {
    code: 'spool-unusable',
    message: new RegExp(`${folder} belongs to the router with process id ${process.pid};.*telemetry.spool.folder`),
  })
  spool.release()
  openSpool(folder, silent).release()
})

test('a folder that cannot be written is refused with what to change', async (t) => {
  const folder = await temporarySpool(t)
  await writeFile(join(folder, 'file'), '')
  assert.throws(
    () => openSpool(join(folder, 'file', 'spool'), silent),
    /telemetry\.spool\.folder.*telemetry\.spool: false/,
  )
})
