// A store that was backed up while it was written to and put back elsewhere is the same store: rows, digest, schema. Whatever is damaged, cut
// off or in the way is refused, and leaves nothing behind.
import assert from 'node:assert/strict'
import { appendFile, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { checkBackup, fromCollector, fromFolder, restore, writeBackup } from '../cli/backup.ts'
import { type Collector, startCollector } from '../collector/server.ts'
import { serverStore } from '../collector/store.ts'
import { openSource } from '../replay/read/source.ts'
import { digestSql } from '../replay/redecide/digest.ts'
import { verify } from '../replay/redecide/verify.ts'
import { jsonRequest, jsonSpan, otlpAttributes, post, rowsOf, silent, temporaryFolder } from './collector-fixtures.ts'
import { decisionsCount, demoRows } from './grafana-data.ts'

const quiet = (): void => {}
/** A collector that is closed at the test's end, if not before. */
const open = async (t: TestContext, dataFolder: string): Promise<Collector> => {
  const collector = await startCollector({ otlpPort: 0, clickhousePort: 0, dataFolder, log: silent })
  t.after(collector.close)
  return collector
}

const sent = async (collector: Collector): Promise<AsyncIterable<Uint8Array>> => {
  const chunks = await fromCollector(collector.clickhouseUrl)
  assert.ok(chunks, 'the collector answers')
  return chunks
}
/** The digest of all decisions, by SQL and by the code of `replay verify`, and how many there are. */
const digests = async (collector: Collector): Promise<unknown[]> => {
  const [row] = await rowsOf<{ rows: string; digest: string }>(
    collector,
    `SELECT toString(count()) AS rows, ${digestSql} AS digest FROM otel.routing_decisions FINAL WHERE record != ''`,
  )
  const source = openSource(collector.clickhouseUrl)
  const records = []
  for await (const record of source.records()) records.push(record)
  await source.close()
  return [row?.rows, row?.digest, verify(records, new Map()).digest.logged]
}
const collected = async (collector: Collector, body: string): Promise<void> => {
  const { status } = await post(collector, body)
  assert.equal(status, 200)
}
const payloadIds = async (collector: Collector): Promise<string[]> =>
  (
    await rowsOf<{ id: string }>(
      collector,
      'SELECT toString(decision_id) AS id FROM otel.captured_payloads ORDER BY id',
    )
  ).map(({ id }) => id)
const ids = ['00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-000000000002']

test('a backup taken while rows come in is of one moment, and restores to the same digest', async (t) => {
  const folder = await temporaryFolder()
  t.after(folder.remove)
  const [data, elsewhere, backup] = ['data', 'elsewhere', 'backup'].map((name) => join(folder.path, name)) as [
    string,
    string,
    string,
  ]
  const collector = await open(t, data)
  const store = serverStore(collector.clickhouseUrl)
  await store.insert('otel.otel_traces', demoRows(Math.floor(Date.now() / 60_000) * 60_000), 'demo')
  for (const id of ids)
    await store.command(
      `INSERT INTO otel.captured_payloads (captured_at, decision_id, tenant, body, expires_at) SELECT now64(3), '${id}', 't', 'text', now() + 9999`,
    )
  const before = await digests(collector)
  assert.equal(before[0], String(decisionsCount))
  let making = true
  const inserting = (async () => {
    for (let at = 0; making; at += 1)
      await collected(collector, jsonRequest(jsonSpan({ attributes: otlpAttributes({ at }) })))
  })()
  const manifest = await writeBackup(await sent(collector), backup, quiet)
  making = false
  await inserting
  assert.equal(manifest.rows.routing_decisions, decisionsCount)
  await assert.rejects(writeBackup(await sent(collector), backup, quiet), /is there already/)
  // Erased after the backup: what a restore brings back is erased again.
  await store.command(
    `INSERT INTO otel.payload_erasures (scope, decision_id, tenant, up_to, payloads, reason) SELECT 'decision', '${ids[0]}', '', now64(3), 1, ''`,
  )
  await store.close()
  await collector.close()

  const copied = await writeBackup(fromFolder(data), join(folder.path, 'stopped'), quiet)
  assert.ok(Number(copied.rows.otel_traces) > Number(manifest.rows.otel_traces), 'rows came in while it was made')
  assert.deepEqual((await readdir(backup)).sort(), ['manifest.json', 'store.tar'])
  assert.deepEqual(
    (await readdir(data)).filter((name) => name === 'backups'),
    [],
    'nothing of it is left in the store',
  )

  assert.equal((await restore(backup, elsewhere, false, quiet)).aside, null)
  const restored = await open(t, elsewhere)
  assert.deepEqual(await digests(restored), before)
  assert.deepEqual(await payloadIds(restored), ids)
  const [alone] = await rowsOf<{ count: number }>(
    restored,
    'SELECT uniqExact(TraceId)::UInt32 AS count FROM otel.otel_traces WHERE TraceId NOT IN (SELECT TraceId FROM otel.otel_traces_trace_id_ts)',
  )
  assert.equal(alone?.count, 0, 'what an insert brought to a table and to its view is there together')
  await restored.close()

  await assert.rejects(restore(backup, data, false, quiet), /--force/)
  const { aside } = await restore(backup, data, true, quiet)
  assert.ok(aside && (await readdir(aside)).length > 0, 'what was there is aside')
  const again = await open(t, data)
  assert.deepEqual(await digests(again), before)
  assert.deepEqual(await payloadIds(again), ids.slice(1), 'what was erased stays erased')
  await again.close()
})

test('a damaged backup, or one of a newer version, is refused before anything is touched', async (t) => {
  const folder = await temporaryFolder()
  t.after(folder.remove)
  const [data, backup] = [join(folder.path, 'data'), join(folder.path, 'backup')]
  await (await open(t, data)).close()
  await writeBackup(fromFolder(data), backup, quiet)
  const entries = await readdir(folder.path)
  const file = join(backup, 'manifest.json')
  const manifest = await readFile(file, 'utf8')
  await writeFile(file, manifest.replace('"migrations": [', '"migrations": [9999,'))
  await assert.rejects(restore(backup, data, true, quiet), /migration 9999, which this version does not know/)
  const wrong = JSON.parse(manifest)
  wrong.rows.policies = 5
  await writeFile(file, JSON.stringify(wrong))
  await assert.rejects(restore(backup, data, true, quiet), /policies has 0 rows, wanted 5/)
  await writeFile(file, manifest)
  await checkBackup(backup, quiet)
  await appendFile(join(backup, 'store.tar'), 'x')
  await assert.rejects(restore(backup, data, true, quiet), /it is damaged/)
  assert.deepEqual(await readdir(folder.path), entries)
})

test('a backup that is cut off leaves nothing, and takes more than a reader', async (t) => {
  const folder = await temporaryFolder()
  t.after(folder.remove)
  const collector = await open(t, join(folder.path, 'data'))
  const whole: Uint8Array[] = []
  for await (const chunk of await sent(collector)) whole.push(chunk)
  const bytes = Buffer.concat(whole)
  const cutOff = async function* (): AsyncGenerator<Uint8Array> {
    yield bytes.subarray(0, bytes.length - 1000)
  }
  await assert.rejects(writeBackup(cutOff(), join(folder.path, 'cut'), quiet), /it ended after/)
  const failing = async function* (): AsyncGenerator<Uint8Array> {
    yield bytes.subarray(0, bytes.length - 1000)
    throw new Error('the line went dead')
  }
  await assert.rejects(writeBackup(failing(), join(folder.path, 'cut'), quiet), /went dead/)
  assert.deepEqual(await readdir(folder.path), ['data'])
  const reader = await fetch(`${collector.clickhouseUrl}/admin/backup`, {
    method: 'POST',
    headers: { 'x-clickhouse-user': 'reader' },
  })
  assert.match(await reader.text(), /a backup takes a user who may write/)
  assert.ok(!reader.ok)
  for (const sql of ["BACKUP DATABASE otel TO File('x.tar')", "RESTORE DATABASE otel FROM File('x.tar')"]) {
    await assert.rejects(rowsOf(collector, sql), /reaches outside the database/, sql)
  }
})
