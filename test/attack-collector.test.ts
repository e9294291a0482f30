// The collector and its ClickHouse front in hostile hands: files and networks through the engine, readers that change things, batches
// that reuse a name, bodies small to send and huge to hold, and numbers, texts and fields that two decoders could read two ways.
import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import fc from 'fast-check'
import { OtlpSizeError } from '../collector/otlp.ts'
import { metrics } from '../collector/otlp-metrics.ts'
import { blockOfProtobuf } from '../collector/otlp-protobuf-fast.ts'
import { carefulTraces, traces } from '../collector/otlp-traces.ts'
import type { Collector } from '../collector/server.ts'
import {
  jsonRequest,
  jsonSpan,
  otlpAttributes,
  post,
  rowsOf,
  temporaryCollector,
  temporaryFolder,
} from './collector-fixtures.ts'

const runs = { seed: Number(process.env.SEED ?? 7), numRuns: 25 }
let folder: Awaited<ReturnType<typeof temporaryFolder>>
let collector: Collector
before(async () => {
  folder = await temporaryFolder()
  collector = await temporaryCollector()
  await ask('CREATE TABLE t (a String) ENGINE = MergeTree ORDER BY a', {}, 'default')
})
after(async () => {
  await collector.close()
  await folder.remove()
})

const ask = async (sql: string, search: Record<string, string> = {}, user = 'reader', method = 'POST') => {
  const fields = new URLSearchParams(method === 'GET' ? { ...search, query: sql } : search)
  const body = method === 'GET' ? {} : { body: sql }
  const response = await fetch(`${collector.clickhouseUrl}/?${fields}`, {
    method,
    headers: { 'x-clickhouse-user': user },
    ...body,
  })
  return { code: Number(response.headers.get('x-clickhouse-exception-code') ?? 0), text: await response.text() }
}

test('no format reads a file for anybody, however its setting is given, nor writes one', async () => {
  const secret = join(folder.path, 'secret')
  await writeFile(secret, 'plain-as-day\n')
  const written = join(folder.path, 'written')
  const row = { format_template_row: secret, format_template_resultset_format: `$${'{data}'}` }
  const inside = `SETTINGS format_template_row = '${secret}'`
  for (const user of ['reader', 'default']) {
    for (const [sql, search] of [
      ['SELECT 1 AS a FORMAT Template', row],
      [`SELECT 1 AS a FORMAT Template ${inside}`, {}],
      [`SELECT * FROM (SELECT 1 AS a ${inside}) FORMAT Template`, {}],
      [`SELECT * FROM format(Template, 'x') ${inside}`, {}],
      [`INSERT INTO t ${inside} FORMAT Template\nx`, {}],
      [`SET format_template_row = '${secret}'`, { session_id: user }],
      ['SELECT 1 AS a FORMAT Template', { ...row, compatibility: '22.1', profile: 'default' }],
      ['SELECT 1 AS a FORMAT Protobuf', { format_schema: `${secret}:M` }],
      ['SELECT 1 AS a FORMAT Protobuf', { output_format_schema: written }],
      ['SELECT 1 AS a', { default_format: `JSON; SELECT 2 INTO OUTFILE '${written}' FORMAT CSV` }],
      ['SELECT 1 AS a', { default_format: `CSV INTO OUTFILE '${written}'`, wait_end_of_query: '1' }],
    ] as const) {
      const { code, text } = await ask(sql, search, user)
      assert.notEqual(code, 0, `${user}: ${sql} ${JSON.stringify(search)}`)
      assert.doesNotMatch(text, /plain-as-day/)
    }
  }
  assert.equal(existsSync(written), false)
})

test('the engine asks no other server and runs no program: not by a registry of schemas, a dictionary, or a database elsewhere', async () => {
  let asked = 0
  const other = createServer((_request, response) => {
    asked += 1
    response.end('1,2\n')
  })
  await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve))
  const address = `127.0.0.1:${(other.address() as AddressInfo).port}`
  const registry = `SETTINGS format_avro_schema_registry_url = 'http://${address}'`
  const dictionary = (source: string) =>
    `CREATE DICTIONARY d (id UInt64, v String) PRIMARY KEY id SOURCE(${source}) LAYOUT(DIRECT())`
  const program = join(folder.path, 'ran')
  for (const sql of [
    `SELECT * FROM format(AvroConfluent, 'a Int8', '\\0\\0\\0\\0\\1a') ${registry}`,
    dictionary(`HTTP(url 'http://${address}/' format 'CSV')`),
    dictionary(`EXECUTABLE_POOL(command 'touch ${program}' format 'CSV')`),
    `CREATE DATABASE s ENGINE = SQLite('${join(folder.path, 'sqlite')}')`,
    `CREATE DATABASE p ENGINE = PostgreSQL('${address}', 'a', 'b', 'c')`,
    `CREATE TABLE r (a Int8) ENGINE = Redis('${address}') PRIMARY KEY a`,
  ]) {
    assert.notEqual((await ask(sql, {}, 'default')).code, 0, sql)
    await ask("SELECT dictGet('d', 'v', toUInt64(1))", {}, 'default')
  }
  assert.equal(asked, 0)
  assert.equal(existsSync(program) || existsSync(join(folder.path, 'sqlite')), false)
  other.close()
})

test('a reader, and a GET, cannot stop merges, end what others ask, or make backups', async () => {
  const changes = [
    'SYSTEM STOP MERGES',
    'SYSTEM STOP TTL MERGES',
    'KILL QUERY WHERE 1',
    'BACKUP TABLE t TO Null',
    '(SYSTEM STOP MERGES)',
  ]
  for (const sql of changes) {
    assert.equal((await ask(sql)).code, 164, sql)
    assert.equal((await ask(sql, {}, 'default', 'GET')).code, 164, sql)
  }
  assert.equal((await ask("KILL QUERY WHERE query_id = 'none'", {}, 'default')).code, 0)
  assert.equal((await ask('CREATE TEMPORARY TABLE mine (a Int8)')).code, 0)
  assert.equal((await ask('SET max_threads = 1', {}, 'default', 'GET')).code, 0)
})

test('a query that was answered to nobody ends, also where its client asked that it be not cancelled', async () => {
  const search = new URLSearchParams({ cancel_http_readonly_queries_on_client_close: '0' })
  const body = 'SELECT sleep(0.2), number FROM numbers(100000)'
  const gone = Array.from({ length: 6 }, () =>
    fetch(`${collector.clickhouseUrl}/?${search}`, { method: 'POST', body, signal: AbortSignal.timeout(100) }).catch(
      () => null,
    ),
  )
  assert.deepEqual(new Set(await Promise.all(gone)), new Set([null]))
  for (let tries = 0; tries < 100; tries++) {
    if ((await ask('SELECT count() FROM system.processes')).text === '1\n') return
    await sleep(100)
  }
  assert.fail('they run on')
})

const decisionId = '019a8f6e-5b1c-7cc3-98c4-dc0c0c07398f'
/** A span that says it is a decision, whose record is whatever. */
const decided = (record: string, attributes: Record<string, string> = {}) =>
  jsonSpan({
    kind: 2,
    attributes: otlpAttributes({ 'signalbox.decision.id': decisionId, 'signalbox.decision': record, ...attributes }),
  })
const eventRequest = (
  eventName: string,
  attributes: Record<string, string>,
  body = 'eA==',
  time: bigint | null = null,
): string =>
  JSON.stringify({
    resourceLogs: [
      {
        scopeLogs: [
          {
            logRecords: [
              {
                eventName,
                timeUnixNano: String(time ?? BigInt(Date.now()) * 1_000_000n),
                body: { stringValue: body },
                attributes: otlpAttributes(attributes),
              },
            ],
          },
        ],
      },
    ],
  })

const names = [
  ...[
    'v',
    'id',
    'time',
    'session',
    'engine',
    'path',
    'plan',
    'policy',
    'name',
    'hash',
    'chosen',
    'request',
    'tags',
    'outcome',
  ],
  ...[
    'candidates',
    'model',
    'eligible',
    'exclusion',
    'kind',
    'score',
    'probability',
    'features',
    'cost_usd',
    'provider',
    'x',
  ],
]
const leaves = [
  null,
  true,
  0,
  -1,
  1e308,
  -0,
  2 ** 64,
  '',
  'x',
  '\0',
  '99999-99-99',
  'rule',
  'context-window',
  '\ud800',
  [],
  {},
]
const { value: anyJson } = fc.letrec((tie) => ({
  value: fc.oneof(
    { maxDepth: 6, depthSize: 'medium' },
    fc.constantFrom(...leaves),
    fc.array(tie('value'), { maxLength: 4 }),
    fc.dictionary(fc.constantFrom(...names), tie('value'), { maxKeys: 8 }),
  ),
}))
const anyRecord = fc
  .tuple(fc.dictionary(fc.constantFrom(...names), anyJson, { maxKeys: 10 }), fc.array(anyJson, { maxLength: 3 }))
  .map(([record, candidates]) => JSON.stringify({ ...record, candidates }))

test('no record makes a view fail, which would hold up all that comes behind it, for ever', {
  timeout: 60_000,
}, async () => {
  const nested = (depth: number): string =>
    `{"candidates":[{"features":${'{"a":'.repeat(depth)}1${'}'.repeat(depth)}}]}`
  const records = [
    nested(900),
    nested(100_000),
    '['.repeat(1_000_000),
    '{"candidates":[1]}',
    '{"candidates":[1,{"model":"m"}]}',
  ]
  const odd = {
    'signalbox.probability': 'nan',
    'signalbox.phase.a_ms': '1e999',
    'signalbox.seq': '-1',
    'signalbox.attempts': '1e9',
  }
  for (const record of [...records, '{"candidates":{"0":{}}}', '{"v":1e400}', '"', 'null', '\0'])
    assert.equal((await post(collector, jsonRequest(decided(record, odd)))).status, 200, record.slice(0, 80))
  await fc.assert(
    fc.asyncProperty(fc.array(anyRecord, { minLength: 40, maxLength: 40 }), async (samples) => {
      const { status, text } = await post(collector, jsonRequest(...samples.map((record) => decided(record))))
      assert.equal(status, 200, text)
    }),
    runs,
  )
})

test('no payload, judgement or report makes a view fail', async () => {
  const [most, least] = [9_223_372_036_854_775_807n, 0n]
  const payload = { 'signalbox.decision.id': decisionId, 'signalbox.payload.kind': 'request' }
  for (const [name, odd] of [
    ['sha256', 'zz'],
    ['sha256', 'a'.repeat(1001)],
    ['nonce', '!!!'],
    ['expires_at', '+999999-01-01T00:00:00Z'],
    ['expires_at', '\0'],
    ['attempt', '-1'],
    ['bytes', '9'.repeat(30)],
    ['encoding', "'; DROP TABLE otel.feedback; --"],
  ] as const) {
    const body = eventRequest('gen_ai.client.inference.operation.details', {
      ...payload,
      [`signalbox.payload.${name}`]: odd,
    })
    assert.equal((await post(collector, body, {}, '/v1/logs')).status, 200, `${name} ${odd.slice(0, 20)}`)
  }
  for (const name of [
    'gen_ai.client.inference.operation.details',
    'gen_ai.evaluation.result',
    'signalbox.epoch.report',
    'x',
  ]) {
    for (const odd of ['nan', '-inf', '1e999', '\0', '{', '', '-1']) {
      const attributes = Object.fromEntries(oddNames.map((attribute) => [attribute, odd]))
      for (const time of [most, least]) {
        const body = eventRequest(
          name,
          { ...attributes, 'signalbox.decision.id': odd === '{' ? decisionId : odd },
          odd,
          time,
        )
        assert.equal((await post(collector, body, {}, '/v1/logs')).status, 200, `${name} ${odd} ${time}`)
      }
    }
  }
})
const oddNames = [
  ...[
    'gen_ai.evaluation.name',
    'gen_ai.evaluation.score.value',
    'gen_ai.evaluation.score.label',
    'gen_ai.evaluation.explanation',
  ],
  ...[
    'signalbox.epoch',
    'signalbox.decisions',
    'signalbox.capture.keep_probability',
    'signalbox.payload.kind',
    'signalbox.trace.id',
  ],
]

test('other bytes under the name of a batch are another batch, and are stored', async () => {
  const named = { 'x-signalbox-batch': 'one-name' }
  const bodies = [jsonRequest(jsonSpan({ name: 'reused' })), jsonRequest(jsonSpan({ name: 'reused' }))]
  for (const body of [...bodies, ...bodies]) assert.equal((await post(collector, body, named)).status, 200)
  const [row] = await rowsOf<{ spans: string }>(
    collector,
    "SELECT count() AS spans FROM otel.otel_traces WHERE SpanName = 'reused'",
  )
  assert.equal(Number(row?.spans), 2)
})

const field = (tag: number, bytes: Uint8Array): Buffer => {
  const length: number[] = []
  for (let rest = bytes.length; ; rest >>>= 7) {
    length.push(rest > 0x7f ? (rest & 0x7f) | 0x80 : rest)
    if (rest <= 0x7f) return Buffer.concat([Buffer.from([tag, ...length]), bytes])
  }
}
const ids = Buffer.concat([field(0x0a, Buffer.alloc(16, 1)), field(0x12, Buffer.alloc(8, 2))])
const spansOf = (spans: Uint8Array): Buffer => field(0x0a, field(0x12, spans))
const spanOf = (fields: Uint8Array): Buffer => spansOf(field(0x12, Buffer.concat([ids, fields])))
const many = (bytes: number[], count: number): Buffer => Buffer.alloc(bytes.length * count, Buffer.from(bytes))

test('a body that is small to send and huge to hold is refused for good, soon, and before it is held', async () => {
  const big = [{ key: 'big', value: { stringValue: 'x'.repeat(1_000_000) } }]
  const resource = (fields: Record<string, unknown>) =>
    Buffer.from(
      JSON.stringify({
        resourceSpans: [
          {
            resource: { attributes: big },
            scopeSpans: [{ spans: Array.from({ length: 500 }, () => jsonSpan(fields)) }],
          },
        ],
      }),
    )
  const bombs: [string, 'json' | 'protobuf', Buffer][] = [
    ['a resource in each row', 'json', resource({})],
    ['a resource in each row, read with care', 'json', resource({ kind: null })],
    ['empty spans', 'protobuf', spansOf(many([0x12, 0], 100_000))],
    ['broken spans', 'protobuf', spansOf(many([0x12, 1, 0xff], 100_000))],
    ['empty resources', 'protobuf', many([0x0a, 0], 4_100_000)],
    ['empty attributes', 'protobuf', spanOf(many([0x4a, 0], 4_100_000))],
    ['empty events', 'protobuf', spanOf(many([0x5a, 0], 4_100_000))],
    [
      'empty objects',
      'json',
      Buffer.from(`{"resourceSpans":[{"scopeSpans":[{"spans":[${'{},'.repeat(100_000)}{}]}]}]}`),
    ],
  ]
  const before = process.cpuUsage()
  for (const [name, encoding, body] of bombs) {
    assert.throws(() => traces[encoding](body), OtlpSizeError, name)
  }
  assert.ok(process.cpuUsage(before).user < 15_000_000)
  const refused = await post(collector, resource({}))
  assert.deepEqual([refused.status, /send fewer items/.test(refused.text)], [413, true])
})

test('spans of a thousand days are refused for good, and hold up nobody else’s', async () => {
  const dayNs = 86_400_000_000_000n
  const day = (at: number) => String(1_600_000_000_000_000_000n + BigInt(at) * dayNs)
  const spans = Array.from({ length: 1000 }, (_, at) =>
    jsonSpan({ startTimeUnixNano: day(at), endTimeUnixNano: day(at) }),
  )
  const [refused, good] = await Promise.all([
    post(collector, Buffer.from(jsonRequest(...spans))),
    post(collector, Buffer.from(jsonRequest(jsonSpan({ name: 'of one day' })))),
  ])
  assert.deepEqual([refused.status, good.status], [400, 200])
  assert.match(refused.text, /too many partitions/i)
  const few = spans.slice(0, 3)
  assert.equal((await post(collector, Buffer.from(jsonRequest(...few)))).status, 200)
})

test('both decoders read what protobuf lets one say twice, or longer than it need be, the same way', () => {
  const status = (fields: number[]) => field(0x7a, Buffer.from(fields))
  const twice = spanOf(Buffer.concat([status([0x18, 2]), status([0x12, 2, 0x6e, 0x6f])]))
  const careful = carefulTraces.protobuf(twice).tables[0]?.rows.toString()
  assert.match(careful ?? '', /"StatusCode":"Error","StatusMessage":"no"/)
  assert.match(blockOfProtobuf(twice)?.rows.toString('latin1') ?? '', /StatusCode.String.Error/s)
  // 2 and 2^32 above it: an enum has 32 bits.
  const kind = spanOf(Buffer.from([0x30, 0x82, 0x80, 0x80, 0x80, 0x10]))
  assert.match(carefulTraces.protobuf(kind).tables[0]?.rows.toString() ?? '', /"SpanKind":"Server"/)
  assert.match(blockOfProtobuf(kind)?.rows.toString('latin1') ?? '', /SpanKind.String.Server/s)
})

test("the name of a property that every object has is no number, and spoils no other data point's request", () => {
  for (const name of ['constructor', '__proto__', 'toString']) {
    const dataPoints = [{ asDouble: 1 }, { asDouble: name }].map((point) => ({
      timeUnixNano: '1795372578000000000',
      ...point,
    }))
    const gauge = { resourceMetrics: [{ scopeMetrics: [{ metrics: [{ name: 'm', gauge: { dataPoints } }] }] }] }
    const { accepted, rejected } = metrics.json(Buffer.from(JSON.stringify(gauge)))
    assert.deepEqual([accepted, rejected], [1, 1], name)
    const attributes = [{ key: 'k', value: { doubleValue: name } }]
    assert.equal(traces.json(Buffer.from(jsonRequest(jsonSpan({ attributes })))).rejected, 1, name)
  }
})
