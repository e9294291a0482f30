// What must survive: a killed collector, a folder that is owned by another process, and a schema step that failed half-way.
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { test } from 'node:test'
import { openEngine } from '../collector/engine.ts'
import { migrate, readMigrations } from '../collector/migrate.ts'
import { embeddedStore } from '../collector/store.ts'
import { jsonRequest, jsonSpan, otlpAttributes, post, rowsOf, temporaryFolder } from './collector-fixtures.ts'

const program = `
  import { pino } from 'pino'
  import { startCollector } from './collector/server.ts'
  const options = { otlpPort: 0, clickhousePort: 0, dataFolder: process.argv[1], log: pino({ level: 'silent' }) }
  const { otlpUrl, clickhouseUrl, close } = await startCollector(options).catch((error) => {
    console.log(JSON.stringify({ code: error.code, message: error.message }))
    process.exit(1)
  })
  console.log(JSON.stringify({ otlpUrl, clickhouseUrl }))
  process.on('SIGTERM', () => close())`

type Started = { otlpUrl: string; clickhouseUrl: string; code?: string; message?: string; child: ChildProcess }
const startChild = async (folder: string): Promise<Started> => {
  const child = spawn(process.execPath, ['--input-type=module', '-e', program, folder], {
    cwd: new URL('..', import.meta.url),
    stdio: ['ignore', 'pipe', 'ignore'],
    env: { ...process.env, TZ: 'America/New_York' },
  })
  const [line] = (await once(createInterface(child.stdout), 'line')) as [string]
  return { ...JSON.parse(line), child }
}

test('a collector killed after it acknowledged batches has lost none of them, and its folder opens again', async (t) => {
  const folder = await temporaryFolder()
  t.after(folder.remove)
  const first = await startChild(folder.path)
  t.after(() => first.child.kill('SIGKILL'))

  const second = await startChild(folder.path)
  assert.equal(second.code, 'engine-locked')
  assert.match(
    second.message ?? '',
    new RegExp(`process ${first.child.pid} owns it; .* over that collector's HTTP ports`),
  )

  const acknowledged: string[] = []
  const sending = Promise.allSettled(
    Array.from({ length: 8 }, async (_, lane) => {
      for (let n = 0; n < 1000; n++) {
        const name = `batch-${lane}-${n}`
        const { status } = await post(first, jsonRequest(jsonSpan({ name }), jsonSpan({ name }), jsonSpan({ name })))
        if (status === 200) acknowledged.push(name)
        if (acknowledged.length === 24) first.child.kill('SIGKILL')
      }
    }),
  )
  await once(first.child, 'exit')
  await sending
  assert.ok(acknowledged.length >= 24)

  const again = await startChild(folder.path)
  t.after(() => again.child.kill('SIGKILL'))
  const rows = await rowsOf<{ name: string; n: number }>(
    again,
    'SELECT SpanName AS name, count() AS n FROM otel.otel_traces GROUP BY name',
  )
  const stored = new Map(rows.map(({ name, n }) => [name, Number(n)]))
  for (const name of acknowledged) assert.equal(stored.get(name), 3, name)
  for (const [name, n] of stored) assert.equal(n, 3, `${name} is stored in part`)

  assert.deepEqual(await rowsOf(again, 'SELECT timezone() AS zone'), [{ zone: 'UTC' }])
  again.child.kill('SIGTERM')
  const [code] = await once(again.child, 'exit')
  assert.equal(code, 0)
})

test('a batch repeated after a crash is stored once in tables and views, also where the schema was made just before', async (t) => {
  const folder = await temporaryFolder()
  t.after(folder.remove)
  const attributes = otlpAttributes({ 'signalbox.decision.id': '01a20493-db79-73ae-abe7-899071b44827' })
  const body = jsonRequest(jsonSpan({ kind: 2, attributes }), jsonSpan({ kind: 3, attributes }))
  for (const run of [1, 2, 3]) {
    const { child, ...collector } = await startChild(folder.path)
    t.after(() => child.kill('SIGKILL'))
    assert.equal((await post(collector, body, { 'x-signalbox-batch': 'batch-1' })).status, 200)
    const counts =
      'SELECT (SELECT count() FROM otel.otel_traces) AS spans, (SELECT count() FROM otel.routing_decisions) AS decisions'
    const [stored = {}] = await rowsOf<Record<string, string>>(collector, counts)
    assert.deepEqual(Object.values(stored).map(Number), [2, 1], `run ${run}`)
    child.kill('SIGKILL')
    await once(child, 'exit')
    // As if the crash had come before the collector could note that the batch is stored.
    await rm(join(folder.path, 'journal'), { recursive: true })
  }
})

test('migrations are applied once, again where one failed half-way, and never backwards', async (t) => {
  const folder = await temporaryFolder()
  t.after(folder.remove)
  const engine = await openEngine(folder.path)
  t.after(engine.close)
  const store = embeddedStore(engine)
  const steps = await readMigrations()
  const broken = steps.map((step) =>
    step.number === 2 ? { ...step, statements: [...step.statements.slice(0, 1), 'CREATE NONSENSE'] } : step,
  )
  const failed = /migration 2 'routing_decisions' failed: Code: 62\. DB::Exception: Syntax error/
  await assert.rejects(migrate(store, broken), { code: 'migration-failed', message: failed })
  assert.deepEqual(
    await migrate(store),
    steps.slice(1).map((step) => step.name),
  )
  assert.deepEqual(await migrate(store), [])
  const rows = await store.query<{ number: number }>('SELECT number FROM otel.schema_migrations ORDER BY number')
  assert.deepEqual(
    rows.map((row) => row.number),
    steps.map((step) => step.number),
  )
  const newer = /has migration 3, 4, 5, 6, [\d, ]*which/
  await assert.rejects(migrate(store, steps.slice(0, 2)), { message: newer })
  await assert.rejects(openEngine(`${folder.path}/other`), { code: 'engine-busy' })
})
