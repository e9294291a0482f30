// The stage on which the router is tested through its front door: real sockets, three scripted providers, the real collector
// and ClickHouse behind it, and a router of its own for each test. What is asserted is what the client got, and what the rows say.
import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, before } from 'node:test'
import { createClient } from '@clickhouse/client'
import OpenAI from 'openai'
import { pino } from 'pino'
import { type Collector, startCollector } from '../collector/server.ts'
import { parseConfig } from '../router/config.ts'
import { type Router, startRouter } from '../router/server.ts'
import { json, type Script, type ScriptedProvider, startProvider } from './scripted-provider.ts'

export const log = pino({ level: 'silent' })
let folder: string
export let collector: Collector
export let router: Router
export let providers: Record<'a' | 'b' | 'c', ScriptedProvider>
export let client: OpenAI
const unreachable = 'http://127.0.0.1:1'

const configText = (overrides = '') => `
listen: { port: 0 }
telemetry: { endpoint: "${collector.otlpUrl}" }
policy: { name: test, score: candidate.quality, choose: { kind: highest }, fallback: { attempts_max: 3 } }
providers:
${(['a', 'b', 'c'] as const).map((name) => `  - { name: ${name}, kind: openai, base_url: "${providers[name].url}/v1", timeouts_ms: { connect: 300, first_byte: 300, idle: 300, total: 1500 } }`).join('\n')}
  - { name: gone, kind: openai, base_url: "${unreachable}/v1" }
models:
  - { name: first, provider: a, price: { input_usd_per_mtok: 1, output_usd_per_mtok: 10 }, features: { quality: 0.9 } }
  - { name: second, provider: b, price: { input_usd_per_mtok: 2, output_usd_per_mtok: 20 }, features: { quality: 0.8 } }
  - { name: third, provider: c, features: { quality: 0.7 } }
  - { name: dead, provider: gone, features: { quality: 0.1 } }
${overrides}`

export const scripts = (a: Script, b: Script = json('from b'), c: Script = json('from c')) => {
  providers.a.script = a
  providers.b.script = b
  providers.c.script = c
}

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'signalbox-'))
  collector = await startCollector({ otlpPort: 0, clickhousePort: 0, dataFolder: folder, log })
  const [a, b, c] = await Promise.all([startProvider(json('a')), startProvider(json('b')), startProvider(json('c'))])
  providers = { a, b, c }
})
after(async () => {
  for (const provider of Object.values(providers)) await provider.close()
  await collector.close()
  await rm(folder, { recursive: true, force: true })
})
// A router of its own for each test, so that no breaker or latency is carried over.
/** Starts this test's router; `models` are further ones, `providerA` further settings of the first provider. */
export const start = async (models = '', providerA = '') => {
  const text = configText(models).replace('name: a, kind: openai,', `name: a, kind: openai,${providerA}`)
  router = await startRouter(parseConfig(text, folder), { log })
  client = new OpenAI({ baseURL: `${router.url}/v1`, apiKey: 'none', maxRetries: 0 })
}
afterEach(() => router?.close())

const messages = [{ role: 'user' as const, content: 'Hi' }]
export const chat = <Extra extends object = object>(extra?: Extra) => ({ model: 'auto', messages, ...(extra as Extra) })
export const post = (body: unknown, init: RequestInit = {}) =>
  fetch(`${router.url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...(init.headers as Record<string, string>) },
    body: typeof body === 'string' ? body : JSON.stringify(body),
    signal: init.signal ?? null,
  })

export const query = async <Row>(sql: string, id: string): Promise<Row[]> => {
  await router.telemetry.flush()
  const clickhouse = createClient({ url: collector.clickhouseUrl })
  try {
    return (await (await clickhouse.query({ query: sql, query_params: { id }, format: 'JSONEachRow' })).json()) as Row[]
  } finally {
    await clickhouse.close()
  }
}
export type DecisionRow = Record<string, unknown>
export const decisionOf = async (id: string): Promise<DecisionRow> => {
  const [row] = await query<DecisionRow>('SELECT * FROM otel.routing_decisions FINAL WHERE decision_id = {id:UUID}', id)
  return row ?? assert.fail(`decision ${id} is not stored`)
}
export const attemptsOf = (id: string) =>
  query<DecisionRow>(
    'SELECT number, cause, model, http_status, error_type, stream_end, cost_usd, cost_source, input_tokens, output_tokens FROM otel.routing_attempts FINAL WHERE decision_id = {id:UUID} ORDER BY number',
    id,
  )
export const pick = (row: DecisionRow | undefined, ...names: string[]) => names.map((name) => row?.[name])
export const idOf = (response: Response): string =>
  response.headers.get('x-signalbox-decision-id') ?? assert.fail('no decision id')
