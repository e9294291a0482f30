// From spans as the router writes them to typed rows: the materialized views, on the real engine.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { migrate, readMigrations } from '../collector/migrate.ts'
import type { Collector } from '../collector/server.ts'
import { serverStore } from '../collector/store.ts'
import type { Attempt } from '../router/policy/attempt.ts'
import { attemptToAttributes, attributeNames, phaseAttributes, toAttributes } from '../router/policy/attributes.ts'
import { promotionNames } from '../router/policy/promotion.ts'
import type { DecisionRecord } from '../router/policy/record.ts'
import { jsonRequest, jsonSpan, otlpAttributes, post, rowsOf, temporaryCollector } from './collector-fixtures.ts'

/** What the record's features and the rest of it are in the columns of migration 5. */
const featureColumns = {
  request_input_tokens: 812,
  request_output_tokens_max: null,
  keep_probability: 0.5,
  plan: ['small', 'large'],
  'candidates.unknown': ['', '', 'cost_usd', '', ''],
  'candidates.provider': ['openai', '', 'local', '', ''],
  'candidates.breaker': ['half-open', '', '', '', ''],
  'candidates.context_tokens_max': [128000, null, null, null, null],
  'candidates.input_usd_per_mtok': [0.25, null, null, null, null],
  'candidates.output_usd_per_mtok': [2, null, null, null, null],
  'candidates.output_tokens_expected': [300.5, null, null, null, null],
  'candidates.tokens_per_s': [50, null, null, null, null],
  'candidates.latency_ms': [6500.25, null, null, null, null],
  'candidates.error_rate': [0.000125, null, null, null, null],
  'candidates.samples': [3.5, null, null, null, null],
  'candidates.in_flight': [2, null, null, null, null],
  'candidates.extra': ['{"region":"eu \\"1\\"","rank":1.5,"local":true}', '', '', '', ''],
}

let collector: Collector
before(async () => {
  collector = await temporaryCollector()
})
after(() => collector.close())

const countOf = async (table: string): Promise<number> =>
  Number((await rowsOf<{ n: number }>(collector, `SELECT count() AS n FROM ${table}`))[0]?.n)

const record: DecisionRecord = {
  v: 1,
  id: '019ab0c4-0000-7000-8000-000000000001',
  time: '2026-11-01T08:00:00.000Z',
  session: 's-9',
  engine: '1',
  policy: { name: 'prod', hash: 'sha256:abc' },
  path: ['rule:premium', 'arm:canary'],
  request: {
    model: 'auto',
    input_tokens: 812,
    output_tokens_max: null,
    stream: true,
    tier: 'free',
    tenant: 'acme',
    user: 'u1',
    tags: { category: 'math', region: 'eu' },
  },
  candidates: [
    {
      model: 'small',
      eligible: true,
      exclusion: null,
      score: 0.25,
      probability: 0.9,
      features: {
        provider: 'openai',
        breaker: 'half-open',
        cost_usd: 4e-7,
        quality: 0.61,
        ttft_ms: null,
        context_tokens_max: 128000,
        input_usd_per_mtok: 0.25,
        output_usd_per_mtok: 2,
        output_tokens_expected: 300.5,
        tokens_per_s: 50,
        latency_ms: 6500.25,
        error_rate: 0.000125,
        samples: 3.5,
        in_flight: 2,
        region: 'eu "1"',
        rank: 1.5,
        local: true,
      },
    },
    { model: 'large', eligible: true, exclusion: null, score: null, probability: 0.1, features: { ttft_ms: 420.5 } },
    {
      model: 'unpriced',
      eligible: false,
      exclusion: { kind: 'feature-unknown', feature: 'cost_usd' },
      score: null,
      probability: 0,
      features: { provider: 'local' },
    },
    {
      model: 'old',
      eligible: false,
      exclusion: { kind: 'rule', name: 'in_region' },
      score: null,
      probability: 0,
      features: {},
    },
    {
      model: 'tiny',
      eligible: false,
      exclusion: { kind: 'context-window', needed_tokens: 9, tokens_max: 8 },
      score: null,
      probability: 0,
      features: {},
    },
  ],
  chosen: 'small',
  reason: 'weighted',
  explored: true,
  plan: ['small', 'large'],
  keep_probability: 0.5,
  outcome: {
    status: 'ok',
    served: 'large',
    attempts: 2,
    http_status: 200,
    error_type: null,
    cost_usd: 3.7e-7,
    cost_source: 'estimated',
    latency_ms: 912.25,
    ttft_ms: 171,
    input_tokens: 812,
    output_tokens: null,
    tokens_source: 'measured',
    stream_end: 'complete',
    quality: null,
  },
}
const attempt: Attempt = {
  number: 1,
  cause: 'choice',
  model: 'small',
  provider: 'openai',
  upstreamModel: 'small-2026',
  serverAddress: 'api.example.com',
  serverPort: 443,
  stream: true,
  startedAtMs: 1_763_810_000_000,
  durationMs: 80.5,
  connectMs: 1.25,
  headersMs: 40.25,
  ttftMs: null,
  status: 429,
  error: { kind: 'status', status: 429, retryAfterMs: null },
  streamEnd: null,
  usage: { inputTokens: 812, outputTokens: null, cachedInputTokens: 0, reasoningTokens: null, source: 'measured' },
  costUsd: 0.5,
  costSource: 'measured',
  responseId: 'r-1',
  responseModel: 'small-2026-01',
  finishReasons: ['stop', 'length'],
}

test('a decision span becomes a typed row, its candidates parallel arrays', async () => {
  const span = jsonSpan({
    kind: 2,
    name: 'POST /v1/chat/completions',
    attributes: otlpAttributes({
      ...toAttributes(record),
      'signalbox.epoch': 'e1',
      'signalbox.seq': 17,
      'signalbox.overhead_ms': 1.5,
      'http.response.status_code': 200,
      [phaseAttributes.decide]: 0.25,
      [phaseAttributes.first_byte]: 170,
    }),
  })
  assert.equal((await post(collector, jsonRequest(span))).status, 200)
  const [row] = await rowsOf(collector, `SELECT * FROM otel.routing_decisions WHERE decision_id = '${record.id}'`)
  assert.ok(row)
  const { decision_time, ingested_at, record: stored, trace_id, span_id, ...rest } = row
  assert.deepEqual([trace_id, span_id], [span.traceId, span.spanId])
  assert.deepEqual(JSON.parse(String(stored)), record)
  assert.ok(decision_time && ingested_at)
  assert.deepEqual(rest, {
    decision_id: record.id,
    service_name: 'signalbox',
    epoch: 'e1',
    seq: 17,
    policy_name: 'prod',
    policy_hash: 'sha256:abc',
    engine: '1',
    path: ['rule:premium', 'arm:canary'],
    requested_model: 'auto',
    chosen_model: 'small',
    served_model: 'large',
    reason: 'weighted',
    probability: 0.9,
    explored: true,
    tenant: 'acme',
    tier: 'free',
    session: 's-9',
    user: 'u1',
    tags: { category: 'math', region: 'eu' },
    stream: true,
    outcome: 'ok',
    stream_end: 'complete',
    http_status: 200,
    error_type: '',
    attempts: 2,
    fell_back: true,
    input_tokens: 812,
    output_tokens: null,
    tokens_source: 'measured',
    cost_usd: 3.7e-7,
    cost_source: 'estimated',
    latency_ms: 912.25,
    ttft_ms: 171,
    overhead_ms: 1.5,
    phases: { decide: 0.25, first_byte: 170 },
    'candidates.model': ['small', 'large', 'unpriced', 'old', 'tiny'],
    'candidates.eligible': [true, true, false, false, false],
    'candidates.exclusion': ['', '', 'feature-unknown', 'rule:in_region', 'context-window'],
    'candidates.score': [0.25, null, null, null, null],
    'candidates.probability': [0.9, 0.1, 0, 0, 0],
    'candidates.cost_usd': [4e-7, null, null, null, null],
    'candidates.quality': [0.61, null, null, null, null],
    'candidates.ttft_ms': [null, 420.5, null, null, null],
    ...featureColumns,
    irregular: stored,
  })
})

test('attempts, feedback and policies become rows of their own', async () => {
  const parent = 'c'.repeat(16)
  const feedback = (score: number, comment: string) =>
    jsonSpan({
      name: 'gen_ai.evaluation.result',
      attributes: otlpAttributes({
        'signalbox.decision.id': record.id,
        'gen_ai.evaluation.name': 'quality',
        'gen_ai.evaluation.score.value': score,
        'gen_ai.evaluation.explanation': comment,
      }),
    })
  const policy = (name: string) =>
    jsonSpan({
      name: 'signalbox.policy',
      attributes: otlpAttributes({
        'signalbox.policy.name': name,
        'signalbox.policy.hash': 'sha256:abc',
        'signalbox.policy.source': '{"name":"prod"}',
        'signalbox.policy.engine': '1',
      }),
    })
  const call = jsonSpan({
    kind: 3,
    parentSpanId: parent,
    attributes: otlpAttributes(attemptToAttributes(attempt, record.id)),
  })
  const body = jsonRequest(call, feedback(0.25, 'meh'), feedback(1, 'good'), policy('prod'), policy('prod'))
  assert.equal((await post(collector, body)).text, '{}')

  const [row] = await rowsOf(
    collector,
    `SELECT * EXCEPT (attempt_time, ingested_at, trace_id, span_id) FROM otel.routing_attempts`,
  )
  assert.deepEqual(row, {
    decision_id: record.id,
    parent_span_id: parent,
    number: 1,
    cause: 'choice',
    model: 'small',
    upstream_model: 'small-2026',
    provider: 'openai',
    server_address: 'api.example.com',
    server_port: 443,
    stream: true,
    http_status: 429,
    error_type: '429',
    duration_ms: 80.5,
    headers_ms: 40.25,
    ttft_ms: null,
    input_tokens: 812,
    output_tokens: null,
    cached_input_tokens: 0,
    tokens_source: 'measured',
    cost_usd: 0.5,
    cost_source: 'measured',
    stream_end: '',
    response_model: 'small-2026-01',
    response_id: 'r-1',
    finish_reasons: ['stop', 'length'],
  })
  assert.deepEqual(await rowsOf(collector, 'SELECT decision_id, name, score, comment FROM otel.feedback FINAL'), [
    { decision_id: record.id, name: 'quality', score: 1, comment: 'good' },
  ])
  assert.deepEqual(await rowsOf(collector, 'SELECT hash, name, engine, source FROM otel.policies FINAL'), [
    { hash: 'sha256:abc', name: 'prod', engine: '1', source: '{"name":"prod"}' },
  ])
})

test('garbage in any attribute that a view reads neither fails the insert nor loses a row', async () => {
  const garbage = [
    'no json',
    '['.repeat(5000),
    '{"candidates":[1,{"model":5,"probability":"x","exclusion":7,"features":[]}],"path":"p","request":{"tags":[1]}}',
    '{"candidates":{"a":1},"request":7,"engine":[]}',
    '{"candidates":[{"score":1e400,"probability":"1"}]}',
    '\u0000\uffff',
    '-1',
    '1e999',
    'nan',
    '99999999999999999999',
  ]
  const keys = Object.keys({ ...toAttributes(record), ...attemptToAttributes(attempt, record.id) })
  const names = ['POST /v1/chat/completions', 'gen_ai.evaluation.result', 'signalbox.policy']
  const more = ['signalbox.seq', 'signalbox.overhead_ms', 'gen_ai.evaluation.score.value', 'signalbox.policy.hash']
  const spans = garbage.flatMap((text) =>
    names.flatMap((name) =>
      [2, 3].map((kind) => {
        const attributes = Object.fromEntries([...keys, ...more, phaseAttributes.queue].map((key) => [key, text]))
        return jsonSpan({ name, kind, attributes: otlpAttributes(attributes) })
      }),
    ),
  )
  const [spansBefore, rowsBefore] = [await countOf('otel.otel_traces'), await countOf('otel.routing_decisions')]
  const answer = await post(collector, jsonRequest(...spans))
  assert.deepEqual([answer.status, answer.text], [200, '{}'])
  assert.equal((await countOf('otel.otel_traces')) - spansBefore, spans.length)
  assert.equal((await countOf('otel.routing_decisions')) - rowsBefore, spans.length / 2)
})

test('the view that parses a decision once gives what the view before it gave, also for irregular records', async () => {
  const regular = { ...record, candidates: record.candidates.slice(0, 1), plan: ['small'] }
  const attributes = otlpAttributes({ ...toAttributes(regular), 'http.response.status_code': 200 })
  const startTimeUnixNano = `${Date.parse(record.time)}000000`
  const span = jsonSpan({ kind: 2, attributes, startTimeUnixNano })
  assert.equal((await post(collector, jsonRequest(span))).status, 200)
  const store = serverStore(collector.clickhouseUrl)
  const statements = (await readMigrations()).filter(({ number }) => number === 5 || number === 8)
  for (const { number, statements: of } of statements) {
    const query = of.find((sql) => sql.includes('MODIFY QUERY'))?.split('MODIFY QUERY')[1]
    assert.ok(query)
    await store.command(`CREATE TABLE otel.from_${number} AS otel.otel_traces ENGINE = Null`)
    await store.command(`CREATE TABLE otel.to_${number} AS otel.routing_decisions`)
    await store.command(
      `CREATE MATERIALIZED VIEW otel.view_${number} TO otel.to_${number} AS ${query.replace('otel.otel_traces', `otel.from_${number}`)}`,
    )
    await store.command(`INSERT INTO otel.from_${number} SELECT * FROM otel.otel_traces`)
  }
  const rows = (number: number) =>
    rowsOf(collector, `SELECT * EXCEPT ingested_at FROM otel.to_${number} ORDER BY decision_time, span_id`)
  const [before5, now] = [await rows(5), await rows(8)]
  assert.deepEqual(now, before5)
  assert.ok(now.some(({ irregular }) => irregular === null) && now.some(({ irregular }) => irregular !== null))
  for (const number of [5, 8]) {
    for (const name of ['view', 'from', 'to']) await store.command(`DROP TABLE otel.${name}_${number}`)
  }
  await store.close()
})

test('rows written before migration 5 read the same after it', async () => {
  const steps = await readMigrations()
  const before5 = steps.filter(({ number }) => number < 5)
  const store = serverStore(collector.clickhouseUrl)
  await store.command('DROP DATABASE otel')
  await migrate(store, before5)
  const sqlText = (text: string) => `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`
  const insert = `INSERT INTO otel.otel_traces (Timestamp, TraceId, SpanId, SpanKind, SpanAttributes) VALUES
    (now64(9) - 60, repeat('a', 32), repeat('b', 16), 'Server', map('signalbox.decision.id', ${sqlText(record.id)}, 'signalbox.decision', ${sqlText(JSON.stringify(record))}))`
  await store.command(insert)
  assert.ok((await migrate(store)).includes('policy_features'))
  const columns = Object.keys(featureColumns).map((name) => `\`${name}\``)
  const read = `SELECT ${columns}, irregular = record AS kept FROM otel.routing_decisions`
  assert.deepEqual(await rowsOf(collector, read), [{ ...featureColumns, kept: 1 }])
  await store.close()
})

test('the views read only attributes that the router spells', async () => {
  const sql = (await readMigrations()).flatMap((step) => step.statements).join()
  const read = [...sql.matchAll(/SpanAttributes\['([^']+)'\]/g)].map(([, name]) => name ?? '')
  assert.ok(read.length > 50)
  const spelled = new Set<string>([...Object.values(attributeNames), ...Object.values(promotionNames)])
  assert.deepEqual(
    read.filter((name) => !spelled.has(name)),
    [],
  )
})
