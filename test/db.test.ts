// What the store holds and how long: sizes of a real store, and a time to live that is shown, set and kept to.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { applyRetention, planRetention, sizeOf } from '../cli/db.ts'
import { onCluster } from '../collector/cluster.ts'
import { type Store, serverStore } from '../collector/store.ts'
import { temporaryCollector } from './collector-fixtures.ts'

let collector: Awaited<ReturnType<typeof temporaryCollector>>
let store: Store
before(async () => {
  collector = await temporaryCollector()
  store = serverStore(collector.clickhouseUrl)
  await store.command(`INSERT INTO otel.otel_traces (Timestamp, TraceId, SpanId, SpanName)
    SELECT now() - toIntervalDay(number % 12), toString(number), toString(number), 'work' FROM numbers(1200)`)
})
after(async () => {
  await store.close()
  await collector.close()
})
const ages = async (): Promise<[number, number]> => {
  const [row] = await store.query<{ rows: number; age: number }>(
    'SELECT toUInt32(count()) AS rows, dateDiff(day, min(Timestamp), now()) AS age FROM otel.otel_traces',
  )
  return [row?.rows ?? 0, row?.age ?? 0]
}

test('every table is told with its rows, bytes, age and time to live, and how fast all of it grows', async () => {
  const size = await sizeOf(store, '/')
  const of = (name: string) => size.tables.find(({ table }) => table === name)
  const traces = of('otel_traces')
  assert.deepEqual([traces?.rows, traces?.parts, traces?.ttl], [1200, 12, ''])
  assert.ok(traces && traces.bytes_on_disk > 0 && traces.bytes_uncompressed > 0)
  assert.ok(traces.oldest && traces.newest && traces.oldest < traces.newest)
  assert.match(of('routing_decisions')?.ttl ?? '', /^toDate\(decision_time\) \+ toIntervalDay\(90\)$/)
  assert.ok(size.bytes_per_day > 0 && size.days_left !== null && size.days_left > 0)
  assert.equal((await sizeOf(store, null)).days_left, null)
})

test('retention is planned without a change, then set, and rows past it are gone after a merge', async () => {
  const plan = await planRetention(store, { traces: 4 })
  assert.deepEqual(plan, {
    statements: [
      'ALTER TABLE otel.otel_traces MODIFY TTL toDate(Timestamp) + toIntervalDay(4)',
      'ALTER TABLE otel.otel_traces_trace_id_ts MODIFY TTL toDate(Start) + toIntervalDay(4)',
    ],
    rows: 1600,
  })
  assert.deepEqual(await ages(), [1200, 11])
  await applyRetention(store, plan.statements)
  await store.command('OPTIMIZE TABLE otel.otel_traces FINAL')
  assert.deepEqual(await ages(), [400, 3])
  const traces = (await sizeOf(store, null)).tables.find(({ table }) => table === 'otel_traces')
  assert.equal(traces?.ttl, 'toDate(Timestamp) + toIntervalDay(4)')
  const forever = await planRetention(store, { traces: null })
  await applyRetention(store, forever.statements)
  await applyRetention(store, forever.statements)
  assert.equal((await sizeOf(store, null)).tables.find(({ table }) => table === 'otel_traces')?.ttl, '')
})

test('what sets or ends a time to live has a form for clusters, too', () => {
  const [set] = onCluster('ALTER TABLE otel.otel_traces MODIFY TTL toDate(Timestamp) + toIntervalDay(4)', 'prod')
  assert.match(set ?? '', /^ALTER TABLE otel\.otel_traces_local ON CLUSTER 'prod' MODIFY TTL/)
  assert.match(
    onCluster('ALTER TABLE otel.feedback REMOVE TTL', 'prod')[0] ?? '',
    /^ALTER TABLE otel\.feedback REMOVE TTL/,
  )
})
