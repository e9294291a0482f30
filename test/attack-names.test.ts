// Hostile names — of models, policies, rules, tags, tiers, features, sessions — carried through the whole of a replay: stored, read
// back, decided in SQL and in JavaScript, and printed. A name is data everywhere, and everywhere the same.
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { after, before, test } from 'node:test'
import type { Collector } from '../collector/server.ts'
import { openSource, type Source } from '../replay/read/source.ts'
import { type Replay, replayDefaults, replaySource } from '../replay/run.ts'
import { attributeNames, toAttributes } from '../router/policy/attributes.ts'
import { type Policy, parsePolicy } from '../router/policy/policy.ts'
import { type Context, type DecisionRecord, type Outcome, recordOf } from '../router/policy/record.ts'
import { snapshotTypes } from '../router/snapshot.ts'
import { jsonRequest, jsonSpan, otlpAttributes, post, rowsOf, temporaryCollector } from './collector-fixtures.ts'
import { seeded } from './replay-truth.ts'

const rows = 600
const rulesCount = 5
const hostile = [
  "'); DROP TABLE otel.routing_decisions; --",
  'back\\slash\\',
  "\\'; SELECT 1 --",
  '`tick` "quote" {digits:String} {from: String}',
  '/* open',
  "line\nbreak\ttab\r\u0001\u001b[31m' || 1",
  '𝄞\u202e\u200b日本\uFFFD',
  '__proto__',
  'constructor',
  '<script>alert(1)</script>&amp;]]>',
  '%s $1 {{x}} #{y} ?',
] as const
const featureTypes = { ...snapshotTypes, region: 'string', toString: 'double' } as const
const random = seeded(7)
const pick = (): string => hostile[Math.floor(random() * hostile.length)] as string
const startMs = Date.now() - 3_600_000

const contextOf = (at: number): Context => ({
  id: randomUUID(),
  time: new Date(startMs + at * 1000).toISOString(),
  session: `${pick()}${at >> 1}`,
  request: {
    model: 'auto',
    input_tokens: 100 + Math.floor(random() * 100),
    output_tokens_max: null,
    stream: false,
    tier: pick(),
    tenant: pick(),
    user: pick(),
    tags: Object.fromEntries([
      ['category', pick()],
      [pick(), pick()],
    ]),
  },
  candidates: hostile.slice(0, 5).map((model, place) => ({
    model,
    features: {
      ...Object.fromEntries(Object.keys(snapshotTypes).map((name) => [name, 1 + place])),
      context_tokens_max: 128_000,
      provider: pick(),
      breaker: 'closed',
      region: pick(),
      toString: at % 3 === 0 ? null : random(),
      [`extra ${pick()}`]: pick(),
    },
  })),
})

const weights = Object.fromEntries(hostile.slice(0, 5).map((name, at) => [name, at + 1]))
const literal = (text: string) => JSON.stringify(text).replaceAll('\\u001b', '\\u001B')
const policyOf = (name: string, more: object): Policy => parsePolicy(JSON.stringify({ name, ...more }), featureTypes)
const production = policyOf('production', { choose: { kind: 'weighted', weights } })
const candidate = policyOf('candidate', {
  rules: [
    ...hostile.slice(0, rulesCount).map((text, at) => ({
      name: `r${at}`,
      when: `request.tier == ${literal(text)} && (${literal(text)} in request.tags || request.tags[${literal(text)}] != "")`,
      use: {
        filter: { [`f${at}`]: `candidate.region != ${literal(text)} && has(candidate.toString)` },
        choose: { kind: 'weighted', weights: Object.fromEntries(Object.entries(weights).reverse()) },
        explore: { rate: 0.2 },
      },
    })),
    { name: 'rest', use: { choose: { kind: 'weighted', weights }, explore: { rate: 0.3, per: 'session' } } },
  ],
})

let collector: Collector
let source: Source
const records: DecisionRecord[] = []
before(async () => {
  collector = await temporaryCollector()
  for (let at = 0; at < rows; at++) {
    const context = contextOf(at)
    const decision = production.decide(context)
    const outcome: Outcome = {
      status: random() < 0.05 ? 'error' : 'ok',
      served: decision.chosen,
      attempts: 1,
      http_status: 200,
      error_type: null,
      cost_usd: random(),
      cost_source: 'measured',
      latency_ms: 100 * random(),
      ttft_ms: 10 * random(),
      input_tokens: 10,
      output_tokens: 10,
      tokens_source: 'measured',
      stream_end: null,
      quality: null,
    }
    records.push(recordOf(context, decision, outcome))
  }
  const spans = records.map((record) =>
    jsonSpan({
      kind: 2,
      startTimeUnixNano: `${Date.parse(record.time)}000000`,
      attributes: otlpAttributes({ ...toAttributes(record), [attributeNames.httpStatus]: 200 }),
    }),
  )
  assert.equal((await post(collector, jsonRequest(...spans))).status, 200)
  source = openSource(collector.clickhouseUrl)
})
after(async () => {
  await source.close()
  await collector.close()
})

const run = async (engine: 'js' | 'sql'): Promise<Replay> => {
  const logged = [{ name: production.name, hash: production.hash, source: production.source }]
  const [result] = await replaySource(
    source,
    logged,
    () => [candidate],
    { ...replayDefaults, replicates: 0 },
    { engine, threads: 1 },
  )
  return result as Replay
}

test('hostile names come back from ClickHouse as they were sent', async () => {
  const read: DecisionRecord[] = []
  for await (const record of source.records()) read.push(record)
  assert.deepEqual(read, JSON.parse(JSON.stringify(records)))
  const query = 'SELECT toFloat64(countIf(irregular IS NULL)) AS regular FROM otel.routing_decisions'
  assert.deepEqual(await rowsOf(collector, query), [{ regular: rows }], 'by its columns')
})

test('hostile names give the same replay in SQL and in JavaScript', async () => {
  const [js, sql] = [await run('js'), await run('sql')]
  assert.equal(js.verification.reproduced, rows)
  assert.equal(sql.verification.reproduced, rows)
  assert.deepEqual(sql.moves, js.moves)
  assert.deepEqual(sql.shares, js.shares)
  for (const [at, { metric, difference }] of js.metrics.entries()) {
    const other = sql.metrics[at]?.difference
    assert.ok(Math.abs((other?.value ?? 0) - difference.value) <= 1e-9 || Number.isNaN(difference.value), metric)
  }
})
