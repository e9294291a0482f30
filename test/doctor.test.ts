// What the doctor says of a real router, a real collector and rows that are made to be missing: each gap, each loss at the end that only the
// router's own count shows, each repetition, and what stands on the screen when something is down.
import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { after, beforeEach, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import fc from 'fast-check'
import { examine, reconcile } from '../cli/doctor.ts'
import { askRouter } from '../cli/doctor-checks.ts'
import { type Gap, readEpochs, readGaps } from '../collector/gaps.ts'
import { type Store, serverStore } from '../collector/store.ts'
import { startEpochReports } from '../router/epoch-report.ts'
import type { LogEvent } from '../router/log-event.ts'
import { temporaryFolder } from './collector-fixtures.ts'
import { chat, collector, post, router, scripts, start } from './router-stage.ts'
import { json } from './scripted-provider.ts'

const seed = Number(process.env.SEED ?? 7)
const hourMs = 3_600_000
const range = { from: new Date(Date.now() - hourMs).toISOString(), to: new Date(Date.now() + hourMs).toISOString() }
let store: Store
beforeEach(() => {
  store ??= serverStore(collector.clickhouseUrl)
})
after(() => store?.close())

const ask = async (times: number): Promise<void> => {
  scripts(json('hello'))
  for (let asked = 0; asked < times; asked += 1) await (await post(chat())).text()
  await router.telemetry.flush()
}
const lose = (epoch: string, seqs: string): Promise<void> =>
  store.command(`DELETE FROM otel.routing_decisions WHERE epoch = '${epoch}' AND seq IN (${seqs})`)
const stretch = ({ kind, seq_from: from, seq_to: to, decisions }: Gap) => [kind, from, to, decisions]

test('a router that stops in order has told how much it answered, and a loss at the end shows', async () => {
  await start()
  await ask(6)
  const { epoch } = router.telemetry.counts()
  await router.close()
  const told = (await readEpochs(store, range)).find((each) => each.epoch === epoch)
  assert.deepEqual(
    [told?.answered, told?.reported, told?.decisions, told?.stored_rows, told?.missing, told?.late, told?.ended],
    [6, 6, 6, 6, 0, 0, true],
  )
  assert.deepEqual(await readGaps(store, range), [])
  await lose(epoch, '1, 3, 4, 6')
  const { gaps } = await reconcile(store, range, null)
  assert.deepEqual(gaps.map(stretch), [
    ['gap', 1, 1, 1],
    ['gap', 3, 4, 2],
    ['end', 6, 6, 1],
  ])
  await lose(epoch, '2, 5')
  const all = await reconcile(store, range, null)
  assert.deepEqual(
    all.gaps.map(stretch),
    [['end', 1, 6, 6]],
    'an epoch of which nothing is stored is known by its report',
  )
})

test('a router that runs is asked itself, and what it still holds is on its way, not missing', async () => {
  await start()
  await ask(3)
  const { epoch } = router.telemetry.counts()
  await lose(epoch, '3')
  const state = await askRouter(router.url)
  assert.ok(state)
  const own = (gaps: readonly Gap[]) => gaps.filter((gap) => gap.epoch === epoch)
  const { gaps } = await reconcile(store, range, state)
  assert.deepEqual(own(gaps).map(stretch), [['end', 3, 3, 1]])
  assert.equal(gaps.find((gap) => gap.epoch === epoch)?.on_its_way, false)
  const busy = await reconcile(store, range, { ...state, spans: { ...state.spans, queued: 2 } })
  assert.equal(busy.gaps.find((gap) => gap.epoch === epoch)?.on_its_way, true)
})

test('a router reports while it decides, is quiet while it does not, and always ends with a report', async () => {
  const told: LogEvent[] = []
  let decisions = 0
  const counts = () => ({ epoch: 'e', decisions, dropped: 1, refused: 2 })
  const reports = startEpochReports(counts, (event) => told.push(event), 5)
  const until = async (count: number) => {
    for (let waited = 0; told.length < count && waited < 400; waited += 1) await sleep(5)
  }
  await sleep(30)
  assert.equal(told.length, 0, 'nothing was decided')
  decisions = 3
  await until(1)
  await sleep(30)
  assert.equal(told.length, 1, 'nothing new was decided')
  decisions = 4
  await until(2)
  reports.end()
  await sleep(30)
  assert.deepEqual(
    told.map(({ name, attributes: a }) => [name, a['signalbox.epoch.decisions'], a['signalbox.epoch.ended']]),
    [
      ['signalbox.epoch', 3, false],
      ['signalbox.epoch', 4, false],
      ['signalbox.epoch', 4, true],
    ],
  )
})

test('a decision stored twice is told from a row that FINAL takes away', async () => {
  await start()
  await ask(4)
  const { epoch } = router.telemetry.counts()
  const again = (span: string, seq: number) =>
    store.command(`INSERT INTO otel.routing_decisions SELECT * REPLACE (${span} AS span_id) FROM otel.routing_decisions
      WHERE epoch = '${epoch}' AND seq = ${seq} SETTINGS insert_deduplicate = 0`)
  await again('span_id', 2)
  await again("toFixedString('another', 16)", 4)
  const gaps = (await readGaps(store, range)).filter((gap) => gap.epoch === epoch)
  assert.deepEqual(gaps.map(stretch), [
    ['repeated', 2, 2, 1],
    ['duplicate', 4, 4, 1],
  ])
})

test('whatever is stored of an epoch, what is stored and what is named as missing are all that was answered', async () => {
  const numbers = fc.uniqueArray(fc.integer({ min: 1, max: 1500 }), { maxLength: 30 })
  const epochs: { epoch: string; stored: readonly number[]; reported: number }[] = []
  fc.assert(
    fc.property(numbers, fc.integer({ min: 0, max: 1600 }), (stored, reported) => {
      const time = Date.now().toString(16).padStart(12, '0')
      const epoch = `${time.slice(0, 8)}-${time.slice(8)}-7000-8000-${epochs.length.toString(16).padStart(12, '0')}`
      epochs.push({ epoch, stored, reported })
    }),
    { seed, numRuns: 30 },
  )
  const now = new Date().toISOString().slice(0, -1).replace('T', ' ')
  const rows = epochs.flatMap(({ epoch, stored }, at) =>
    stored.map((seq) => ({ decision_time: now, epoch, seq, span_id: String(at * 10_000 + seq).padStart(16, '0') })),
  )
  const reports = epochs
    .filter(({ reported }) => reported > 0)
    .map(({ epoch, reported }) => ({ epoch, decisions: reported, reported_at: now }))
  const lines = (all: readonly object[]) => Buffer.from(all.map((row) => JSON.stringify(row)).join('\n'))
  await store.insert('otel.routing_decisions', lines(rows), 'law-rows')
  await store.insert('otel.router_epochs', lines(reports), 'law-reports')
  const gaps = await readGaps(store, range)
  const told = new Map((await readEpochs(store, range)).map((each) => [each.epoch, each]))
  for (const { epoch, stored, reported } of epochs) {
    const answered = Math.max(reported, ...stored, 0)
    if (answered === 0) continue
    const missing = gaps
      .filter((gap) => gap.epoch === epoch)
      .flatMap((gap) => Array.from({ length: gap.decisions }, (_, at) => gap.seq_from + at))
    const all = [...stored, ...missing].sort((a, b) => a - b)
    assert.deepEqual(
      all,
      Array.from({ length: answered }, (_, at) => at + 1),
      epoch,
    )
    assert.deepEqual([told.get(epoch)?.answered, told.get(epoch)?.missing], [answered, missing.length], epoch)
  }
})

test('one screen says what is well and what is not, and what to do', async () => {
  await start()
  await ask(1)
  const folder = await temporaryFolder()
  const config = `${folder.path}/signalbox.yaml`
  const port = new URL(router.url).port
  await writeFile(
    config,
    `
listen: { port: ${port} }
telemetry: { endpoint: "${collector.otlpUrl}", spool: { folder: "${folder.path}/spool" } }
collector: { data: "${folder.path}", clickhouse_port: ${new URL(collector.clickhouseUrl).port} }
policy: { name: test, choose: { kind: weighted, weights: { one: 1 } } }
providers: [{ name: p, kind: openai, base_url: "http://127.0.0.1:1/v1" }]
models: [{ name: one, provider: p, price: { input_usd_per_mtok: 1, output_usd_per_mtok: 1 } }]`,
  )
  const states = async () => Object.fromEntries((await examine({ config })).map((each) => [each.name, each.state]))
  const well = await states()
  const { missing, 'disk of the store': disk, 'disk of the spool': _spool, ...rest } = well
  assert.deepEqual(rest, {
    configuration: 'ok',
    router: 'ok',
    spool: 'ok',
    collector: 'ok',
    engine: 'ok',
    store: 'ok',
    schema: 'ok',
    clock: 'ok',
    policy: 'ok',
  })
  assert.ok(disk)
  assert.equal(missing, 'warn', 'the tests before have lost decisions')
  await store.command('DELETE FROM otel.policies WHERE 1')
  await router.close()
  const down = await examine({ config, source: 'http://127.0.0.1:1' })
  assert.deepEqual(
    down.filter(({ state }) => state === 'fail').map(({ name }) => name),
    ['router', 'store'],
  )
  for (const { state, todo, name } of down) assert.ok(state === 'ok' || todo, `${name} says what to do`)
  const [invalid] = await examine({ config: `${folder.path}/none.yaml`, source: 'http://127.0.0.1:1' })
  assert.match(invalid?.found ?? '', /none\.yaml: cannot be read/)
  await folder.remove()
})
