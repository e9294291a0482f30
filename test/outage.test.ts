// The collector is killed while requests flow, stays away, and comes back. Every decision must be stored once, and no
// request may notice. OUTAGE_MS sets how long it stays away (30,000 is what the promise says; CI takes less).
import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { createClient } from '@clickhouse/client'
import { pino } from 'pino'
import { startCollectorChild } from '../cli/children.ts'
import { parseConfig } from '../router/config.ts'
import { startRouter } from '../router/server.ts'
import { json, sse, startProvider } from './scripted-provider.ts'

const outageMs = Number(process.env.OUTAGE_MS ?? 2_000)

test(`a collector killed under traffic and away for ${outageMs} ms costs no decision and no request`, async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'signalbox-outage-'))
  t.after(() => rm(folder, { recursive: true, force: true }))
  const provider = await startProvider((response, asked) =>
    asked.body.stream ? sse(['a', 'b'])(response, asked) : json('x')(response, asked),
  )
  t.after(provider.close)
  const configText = (otlp: number, clickhouse: number) => `
listen: { port: 0 }
telemetry: { endpoint: "http://127.0.0.1:${otlp}" }
policy: { name: p, choose: { kind: weighted, weights: { one: 1, two: 1 } } }
providers: [{ name: p, kind: openai, base_url: "${provider.url}/v1" }]
models: [{ name: one, provider: p }, { name: two, provider: p }]
collector: { data: "${folder}/data", otlp_port: ${otlp}, clickhouse_port: ${clickhouse} }`
  const file = join(folder, 'signalbox.yaml')
  await writeFile(file, configText(0, 0))
  const start = () => startCollectorChild({ configFile: file, logLevel: 'silent' })
  const first = await start()
  t.after(() => first.process.kill('SIGKILL'))
  const ports = [first.urls.otlpUrl, first.urls.clickhouseUrl].map((url) => Number(new URL(url).port)) as [
    number,
    number,
  ]
  await writeFile(file, configText(...ports))

  const router = await startRouter(parseConfig(configText(...ports), folder), { log: pino({ level: 'silent' }) })
  let stop = false
  const ids: string[] = []
  const traffic = Array.from({ length: 4 }, async (_, lane) => {
    while (!stop) {
      const body = JSON.stringify({ model: 'auto', stream: lane % 2 === 0, messages: [{ role: 'user', content: 'x' }] })
      const answer = await fetch(`${router.url}/v1/chat/completions`, { method: 'POST', body })
      assert.equal(answer.status, 200)
      await answer.text()
      ids.push(answer.headers.get('x-signalbox-decision-id') as string)
      await sleep(5)
    }
  })
  await sleep(1000)
  first.process.kill('SIGKILL')
  await first.ended
  await sleep(outageMs)
  const waiting = router.telemetry.counts().queued
  const second = await start()
  t.after(() => second.process.kill('SIGKILL'))
  await sleep(300)
  stop = true
  await Promise.all(traffic)
  await router.telemetry.flush()
  await router.close()

  assert.ok(waiting > 0, 'spans waited while the collector was away')
  const { delivered, dropped, refused, decisions } = router.telemetry.counts()
  assert.deepEqual({ dropped, refused, decisions }, { dropped: 0, refused: 0, decisions: ids.length })
  assert.equal(delivered, 2 * ids.length + 1)
  const clickhouse = createClient({ url: second.urls.clickhouseUrl })
  const counted = await clickhouse.query({
    query: `SELECT count() AS rows, uniqExact(decision_id) AS decisions, max(seq) AS last,
              (SELECT count() FROM otel.otel_traces) AS spans, (SELECT count() FROM otel.routing_attempts) AS attempts
            FROM otel.routing_decisions`,
    format: 'JSONEachRow',
  })
  const n = ids.length
  assert.deepEqual(await counted.json(), [{ rows: n, decisions: n, last: n, spans: 2 * n + 1, attempts: n }])
  await clickhouse.close()
  await second.stop()
})
