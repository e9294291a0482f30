// The spool behind a whole router: what its clients see when the spool is full, what its collector is shown, and that two
// routers never share one.
import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { pino } from 'pino'
import { parseConfig } from '../router/config.ts'
import { startRouter } from '../router/server.ts'
import { afterwards, scriptedCollector, status, temporarySpool } from './delivery-stage.ts'
import { json, startProvider } from './scripted-provider.ts'

const body = JSON.stringify({ model: 'auto', messages: [{ role: 'user', content: 'x' }] })
const ask = (url: string) => fetch(`${url}/v1/chat/completions`, { method: 'POST', body })
const silent = pino({ level: 'silent' })

const configText = (telemetry: string, providerUrl: string) => `
listen: { port: 0 }
telemetry: ${telemetry}
policy: { name: p, choose: { kind: weighted, weights: { one: 1, two: 1 } } }
providers: [{ name: p, kind: openai, base_url: "${providerUrl}/v1" }]
models: [{ name: one, provider: p }, { name: two, provider: p }]`

const stage = async (t: TestContext, telemetry: (otlpUrl: string) => string, env: NodeJS.ProcessEnv = {}) => {
  const folder = await temporarySpool(t)
  const collector = await scriptedCollector(t)
  const provider = await startProvider(json('x'))
  afterwards(t, provider.close)
  const text = configText(telemetry(collector.url), provider.url)
  const router = await startRouter(parseConfig(text, folder, 'test.yaml', env), { log: silent })
  afterwards(t, router.close)
  return { collector, router }
}

test('a full spool that refuses answers 503 with Retry-After, is not ready, and loses nothing that it answered', async (t) => {
  const { collector, router } = await stage(
    t,
    (url) => `{ endpoint: "${url}", spool: { megabytes_max: 1, when_full: refuse } }`,
  )
  collector.replying.otherwise = status(503)
  let answered = 0
  let refusal = await ask(router.url)
  for (; refusal.status === 200 && answered < 2000; refusal = await ask(router.url)) {
    await refusal.text()
    answered += 1
  }
  assert.ok(answered > 50, `${answered} were answered`)
  assert.equal(refusal.status, 503)
  assert.equal(refusal.headers.get('retry-after'), '5')
  const { error } = (await refusal.json()) as { error: { type: string; code: string; message: string } }
  assert.deepEqual([error.type, error.code], ['service_unavailable', 'telemetry_spool_full'])
  const ready = await fetch(`${router.url}/readyz`)
  assert.equal(ready.status, 503)
  const said = (await ready.json()) as { ready: boolean; spans: { queued: number; decisions: number } }
  assert.deepEqual([said.ready, said.spans.decisions], [false, answered])
  collector.replying.otherwise = status(200)
  await router.telemetry.flush()
  assert.equal((await ask(router.url)).status, 200)
  const { dropped, delivered, decisions } = router.telemetry.counts()
  // Two spans a decision, and one for the policy.
  assert.deepEqual(
    { dropped, delivered, decisions },
    { dropped: 0, delivered: 2 * answered + 1, decisions: answered + 1 },
  )
})

test('a full spool that drops answers as ever, and /readyz counts what was dropped', async (t) => {
  const { collector, router } = await stage(t, (url) => `{ endpoint: "${url}", spool: { megabytes_max: 1 } }`)
  collector.replying.otherwise = status(503)
  let dropped = 0
  for (let asked = 0; dropped === 0 && asked < 2000; asked += 1) {
    assert.equal(((await (await ask(router.url)).json()) as { object: string }).object, 'chat.completion')
    dropped = router.telemetry.counts().dropped
  }
  const ready = await fetch(`${router.url}/readyz`)
  assert.equal(ready.status, 200)
  const { spans } = (await ready.json()) as { spans: { dropped: number; queuedBytes: number } }
  assert.ok(spans.dropped > 0 && spans.queuedBytes > 1_000_000)
})

test('log events go to /v1/logs, with the token and a batch name that no batch of spans has', async (t) => {
  const { collector, router } = await stage(t, (url) => `{ endpoint: "${url}", token_env: TOKEN }`, { TOKEN: 'secret' })
  await ask(router.url)
  router.telemetry.event({
    name: 'test.event',
    timeMs: 1_700_000_000_000.5,
    severity: 9,
    attributes: { a: 1 },
    body: 'b',
  })
  await router.telemetry.flush()
  const logs = collector.received.filter(({ path }) => path === '/v1/logs')
  const record = JSON.parse(logs[0]?.body ?? '').resourceLogs[0].scopeLogs[0].logRecords[0]
  assert.deepEqual(
    [record.eventName, record.timeUnixNano, record.severityText, record.body, record.attributes],
    ['test.event', '1700000000000500000', 'INFO', { stringValue: 'b' }, [{ key: 'a', value: { intValue: 1 } }]],
  )
  assert.deepEqual([...new Set(collector.received.map(({ authorization }) => authorization))], ['Bearer secret'])
  const names = collector.received.map(({ name }) => name)
  assert.equal(new Set(names).size, names.length)
  const { epoch, events } = router.telemetry.counts()
  assert.ok(names.every((name) => name.startsWith(`${epoch}-`) && /^[\w.:-]{1,100}$/.test(name)))
  assert.equal(events.delivered, 1)
})

test('a spool is kept by default, beside signalbox.yaml, by port; and a token that the environment lacks is missed', () => {
  const text = configText('{ token_env: TOKEN }', 'http://127.0.0.1:1').replace('port: 0', 'port: 8123')
  const { telemetry } = parseConfig(text, '/etc/signalbox', 'test.yaml', { TOKEN: 't' })
  assert.deepEqual(telemetry, {
    endpoint: 'http://127.0.0.1:4318',
    serviceName: 'signalbox',
    token: 't',
    spool: { folder: '/etc/signalbox/.signalbox/spool/8123', bytesMax: 2 ** 30, whenFull: 'drop' },
  })
  assert.throws(
    () => parseConfig(text, '/etc/signalbox', 'test.yaml', {}),
    /telemetry.token_env: the environment has no TOKEN/,
  )
})

test('a second router on the same spool is refused, and says whose it is', async (t) => {
  const folder = await temporarySpool(t)
  const text = configText('{ endpoint: "http://127.0.0.1:1", spool: { folder: spool } }', 'http://127.0.0.1:1')
  const router = await startRouter(parseConfig(text, folder), { log: silent })
  afterwards(t, router.close)
  await assert.rejects(startRouter(parseConfig(text, folder), { log: silent }), {
    code: 'spool-unusable',
    message: new RegExp(`process id ${process.pid}`),
  })
})
