// A router killed with -9 under traffic, with the collector up or hanging, and started again: what it answered is stored once,
// but for the last 100 ms, which is what the spool promises; here that is measured from each answer to the kill.
import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { startCollectorChild, startRouterChild } from '../cli/children.ts'
import { rowsOf } from './collector-fixtures.ts'
import { afterwards, temporarySpool } from './delivery-stage.ts'
import { seeded } from './replay-truth.ts'
import { json, startProvider } from './scripted-provider.ts'

/** What a router that is killed may lose of what it has answered. */
const lostMsMax = 100
const deliveredMsMax = 60_000
const body = JSON.stringify({ model: 'auto', messages: [{ role: 'user', content: 'x' }] })
const ask = (url: string) => fetch(`${url}/v1/chat/completions`, { method: 'POST', body })

test(`a router killed with -9 under traffic, the collector up or hanging, loses at most ${lostMsMax} ms of what it answered`, async (t) => {
  const random = seeded(7)
  const folder = await temporarySpool(t)
  const provider = await startProvider(json('x'))
  afterwards(t, provider.close)
  const file = join(folder, 'signalbox.yaml')
  await writeFile(
    file,
    `
listen: { port: 0 }
telemetry: { spool: { folder: spool } }
policy: { name: p, choose: { kind: weighted, weights: { one: 1, two: 1 } } }
providers: [{ name: p, kind: openai, base_url: "${provider.url}/v1" }]
models: [{ name: one, provider: p }, { name: two, provider: p }]
collector: { data: "${folder}/data", otlp_port: 0, clickhouse_port: 0 }`,
  )
  const start = { configFile: file, logLevel: 'silent' } as const
  const collector = await startCollectorChild(start)
  afterwards(t, () => collector.process.kill('SIGKILL'))
  const answered: { id: string; atMs: number; killedAtMs: number }[] = []
  for (const hangs of [false, true, false]) {
    const router = await startRouterChild({ ...start, otlpUrl: collector.urls.otlpUrl })
    afterwards(t, () => router.process.kill('SIGKILL'))
    if (hangs) collector.process.kill('SIGSTOP')
    let killedAtMs = Number.POSITIVE_INFINITY
    const round: { id: string; atMs: number }[] = []
    const lanes = Array.from({ length: 4 }, async () => {
      while (killedAtMs === Number.POSITIVE_INFINITY) {
        const answer = await ask(router.urls.routerUrl).catch(() => null)
        if (answer?.status !== 200) continue
        round.push({ id: answer.headers.get('x-signalbox-decision-id') as string, atMs: performance.now() })
        await answer.arrayBuffer().catch(() => {})
      }
    })
    await sleep(400 + 600 * random())
    killedAtMs = performance.now()
    router.process.kill('SIGKILL')
    await router.ended
    await Promise.all(lanes)
    answered.push(...round.map((each) => ({ ...each, killedAtMs })))
    if (hangs) collector.process.kill('SIGCONT')
  }
  // The spool goes to the next router.
  const last = await startRouterChild({ ...start, otlpUrl: collector.urls.otlpUrl })
  const queued = async () => {
    const ready = await fetch(`${last.urls.routerUrl}/readyz`)
    return ((await ready.json()) as { spans: { queued: number } }).spans.queued
  }
  for (const deadline = performance.now() + deliveredMsMax; (await queued()) > 0; await sleep(50))
    assert.ok(performance.now() < deadline, 'the spool is delivered')
  await last.stop()
  const rows = await rowsOf<{ id: string; rows: string; spans: string }>(
    collector.urls,
    `SELECT toString(decision_id) AS id, count() AS rows, any(s.spans) AS spans
     FROM otel.routing_decisions AS d LEFT JOIN (SELECT SpanAttributes['signalbox.decision.id'] AS id, count() AS spans FROM otel.otel_traces WHERE SpanKind = 'Server' GROUP BY id) AS s
       ON s.id = toString(d.decision_id) GROUP BY id`,
  )
  const stored = new Map(rows.map((row) => [row.id, Number(row.rows)]))
  const due = answered.filter(({ atMs, killedAtMs }) => atMs < killedAtMs - lostMsMax)
  assert.ok(due.length > 20, `${due.length} decisions were answered in time`)
  assert.deepEqual(
    due.filter(({ id }) => stored.get(id) !== 1).map(({ atMs, killedAtMs }) => killedAtMs - atMs),
    [],
    'milliseconds before the kill of what is missing or stored twice',
  )
  assert.deepEqual(
    [...stored.values()].filter((count) => count !== 1),
    [],
  )
  assert.deepEqual(
    rows.filter(({ spans }) => Number(spans) !== 1),
    [],
  )
  const late = answered.length - due.length
  const kept = answered.filter(({ id, atMs, killedAtMs }) => atMs >= killedAtMs - lostMsMax && stored.has(id)).length
  t.diagnostic(`${due.length} due, all stored once; of ${late} in the last ${lostMsMax} ms, ${kept} are stored`)
  await collector.stop()
})
