// The collector through its front door: OTLP in over HTTP, rows out of the real engine.
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { request as httpRequest } from 'node:http'
import { after, before, test } from 'node:test'
import { deflateSync, gzipSync } from 'node:zlib'
import { BinaryReader } from '@bufbuild/protobuf/wire'
import { SpanKind, trace } from '@opentelemetry/api'
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http'
import { NodeSDK } from '@opentelemetry/sdk-node'
import { bodyBytesMax, createBudget, HttpError, listen, readBody } from '../collector/http.ts'
import { type Collector, startCollector } from '../collector/server.ts'
import {
  jsonRequest,
  jsonSpan,
  otlpAttributes,
  post,
  rowsOf,
  silent,
  temporaryCollector,
  temporaryFolder,
} from './collector-fixtures.ts'

let collector: Collector
before(async () => {
  collector = await temporaryCollector()
})
after(() => collector.close())

const countOf = async (sql: string): Promise<number> =>
  Number((await rowsOf<{ n: number }>(collector, `SELECT count() AS n FROM ${sql}`))[0]?.n)

test('a batch that is sent again is stored once, in the base table and behind every view', async () => {
  const attributes = otlpAttributes({ 'signalbox.decision.id': randomUUID(), 'signalbox.epoch': 'again' })
  const body = jsonRequest(jsonSpan({ kind: 2, name: 'again', attributes }), jsonSpan({ name: 'again' }))
  for (const _ of [1, 2, 3]) assert.equal((await post(collector, body)).status, 200)
  assert.equal((await post(collector, gzipSync(body), { 'content-encoding': 'gzip' })).status, 200)
  const traces = "otel.otel_traces WHERE SpanName = 'again'"
  assert.equal(await countOf(traces), 2)
  assert.equal(await countOf("otel.routing_decisions WHERE epoch = 'again'"), 1)
  assert.equal(await countOf(`otel.otel_traces_trace_id_ts WHERE TraceId IN (SELECT TraceId FROM ${traces})`), 2)
})

test('a span of every column comes back exactly', async () => {
  const span = jsonSpan({
    name: 'whole',
    startTimeUnixNano: '1795000000123456789',
    endTimeUnixNano: '1795000001123456790',
    traceState: 'a=b',
    status: { code: 2, message: 'it "broke"' },
    attributes: otlpAttributes({ n: 3, x: 0.5, ok: true, text: 'tab\there\u0000', list: ['a', 'b'] }),
    events: [{ timeUnixNano: '1795000000123456790', name: 'e', attributes: otlpAttributes({ k: 'v' }) }],
    links: [
      { traceId: 'AB'.repeat(16), spanId: 'CD'.repeat(8), traceState: 's', attributes: otlpAttributes({ l: 1 }) },
    ],
  })
  await post(collector, jsonRequest(span))
  const [row] = await rowsOf(
    collector,
    "SELECT *, toUnixTimestamp64Nano(Timestamp) AS ns FROM otel.otel_traces WHERE SpanName = 'whole'",
  )
  assert.deepEqual(row, {
    Timestamp: row?.Timestamp,
    TraceId: span.traceId,
    SpanId: span.spanId,
    ParentSpanId: '',
    TraceState: 'a=b',
    SpanName: 'whole',
    SpanKind: 'Internal',
    ServiceName: 'signalbox',
    ResourceAttributes: { 'service.name': 'signalbox' },
    ScopeName: 'test',
    ScopeVersion: '1',
    SpanAttributes: { n: '3', x: '0.5', ok: 'true', text: 'tab\there\u0000', list: '["a","b"]' },
    Duration: 1_000_000_001,
    StatusCode: 'Error',
    StatusMessage: 'it "broke"',
    'Events.Timestamp': row?.['Events.Timestamp'],
    'Events.Name': ['e'],
    'Events.Attributes': [{ k: 'v' }],
    'Links.TraceId': ['ab'.repeat(16)],
    'Links.SpanId': ['cd'.repeat(8)],
    'Links.TraceState': ['s'],
    'Links.Attributes': [{ l: '1' }],
    ns: row?.ns,
  })
  assert.match(String(row?.Timestamp), /\.123456789$/)
  assert.match(String(row?.['Events.Timestamp']), /\.123456790$/)
})

test('a partly bad batch keeps its good spans and names the bad, in both encodings', async () => {
  const mixed = await post(collector, jsonRequest(jsonSpan({ name: 'mixed' }), jsonSpan({ spanId: 'no' })))
  assert.equal(mixed.status, 200)
  const { partialSuccess } = JSON.parse(mixed.text)
  assert.equal(partialSuccess.rejectedSpans, '1')
  assert.match(partialSuccess.errorMessage, /resourceSpans\[0\]\.scopeSpans\[0\]\.spans\[1\]: spanId is 'no'/)
  assert.equal(await countOf("otel.otel_traces WHERE SpanName = 'mixed'"), 1)
  assert.equal((await post(collector, jsonRequest(jsonSpan({ spanId: 'no' })))).status, 400)
})

test('what can never succeed is a 4xx with a google.rpc Status, and nothing of it is stored', async () => {
  const spansBefore = await countOf('otel.otel_traces')
  const whole = jsonRequest(jsonSpan())
  const protobuf = { 'content-type': 'application/x-protobuf' }
  const cases: [string | Uint8Array<ArrayBuffer>, Record<string, string>, number, RegExp][] = [
    [whole.slice(0, -2), {}, 400, /the body is not JSON/],
    ['\x0a\xff\xff\xff\x0f', protobuf, 400, /not an export request for \/v1\/traces in protobuf/],
    ['', {}, 400, /the body is not JSON/],
    [whole, { 'content-type': 'text/plain' }, 415, /content type is 'text\/plain', wanted application\/json or/],
    [whole, { 'content-encoding': 'br' }, 415, /content encoding 'br' is not read here/],
    [whole, { 'content-encoding': 'gzip' }, 400, /cannot be decompressed/],
    [gzipSync(Buffer.alloc(bodyBytesMax + 1)), { 'content-encoding': 'gzip' }, 413, /larger than 67108864 bytes/],
    [new Uint8Array(bodyBytesMax + 1), {}, 413, /larger than 67108864 bytes/],
    [whole, { origin: 'https://evil.example' }, 403, /requests from web pages \(https:\/\/evil.example\) are refused/],
  ]
  for (const [body, headers, status, message] of cases) {
    const answer = await post(collector, body, headers)
    assert.equal(answer.status, status, message.source)
    if (headers['content-type'] === 'application/x-protobuf') {
      const reader = new BinaryReader(answer.bytes)
      assert.deepEqual([...reader.tag(), reader.int32(), ...reader.tag()], [1, 0, 3, 2, 2])
      assert.match(reader.string(), message)
    } else assert.match(JSON.parse(answer.text).message, message)
  }
  assert.equal(await countOf('otel.otel_traces'), spansBefore)
  const preflight = {
    method: 'OPTIONS',
    headers: { origin: 'http://a.example', 'access-control-request-method': 'POST' },
  }
  const refused = await fetch(`${collector.otlpUrl}/v1/traces`, preflight)
  assert.deepEqual([refused.status, refused.headers.get('access-control-allow-origin')], [403, null])
  const asked = await fetch(`${collector.otlpUrl}/v1/traces`)
  assert.deepEqual([asked.status, asked.headers.get('allow')], [405, 'POST'])
  assert.equal((await fetch(`${collector.otlpUrl}/v1/profiles`, { method: 'POST' })).status, 404)
  assert.equal((await fetch(`${collector.otlpUrl}/healthz`)).status, 200)
})

test('an empty request, a deflated one and a protobuf one are answered 200 in their own encoding', async () => {
  assert.deepEqual((await post(collector, '{}')).text, '{}')
  const body = deflateSync(jsonRequest(jsonSpan({ name: 'deflated' })))
  assert.equal((await post(collector, body, { 'content-encoding': 'deflate' })).status, 200)
  assert.equal(await countOf("otel.otel_traces WHERE SpanName = 'deflated'"), 1)
  const empty = await post(collector, new Uint8Array(), { 'content-type': 'application/x-protobuf' })
  assert.deepEqual(
    [empty.status, empty.headers.get('content-type'), empty.bytes.length],
    [200, 'application/x-protobuf', 0],
  )
})

test('a client that hangs up half-way leaves nothing behind', async () => {
  const body = jsonRequest(jsonSpan({ name: 'half' }))
  await new Promise<void>((resolve) => {
    const headers = { 'content-type': 'application/json', 'content-length': body.length }
    const request = httpRequest(`${collector.otlpUrl}/v1/traces`, { method: 'POST', headers })
    request.on('error', () => resolve())
    request.write(body.slice(0, 100), () => request.destroy(new Error('gone')))
  })
  assert.equal(await countOf("otel.otel_traces WHERE SpanName = 'half'"), 0)
  assert.equal((await post(collector, '{}')).status, 200)
})

test('the official OpenTelemetry exporter can send to it', async () => {
  const sdk = new NodeSDK({
    serviceName: 'official',
    autoDetectResources: false,
    traceExporter: new OTLPTraceExporter({ url: `${collector.otlpUrl}/v1/traces` }),
  })
  sdk.start()
  const span = trace
    .getTracer('t')
    .startSpan('exported', { kind: SpanKind.PRODUCER, attributes: { a: 1.5, b: [true, false] } })
  span.end()
  await sdk.shutdown()
  assert.deepEqual(
    await rowsOf(
      collector,
      "SELECT SpanKind, SpanAttributes, TraceId FROM otel.otel_traces WHERE ServiceName = 'official'",
    ),
    [{ SpanKind: 'Producer', SpanAttributes: { a: '1.5', b: '[true,false]' }, TraceId: span.spanContext().traceId }],
  )
})

test('the same collector works on a ClickHouse server by URL, and answers 503 while it is away', async (t) => {
  const folder = await temporaryFolder()
  t.after(folder.remove)
  const { clickhouseUrl } = collector
  const remote = await startCollector({
    otlpPort: 0,
    clickhousePort: 0,
    clickhouseUrl,
    dataFolder: folder.path,
    log: silent,
  })
  t.after(() => remote.close())
  const body = jsonRequest(jsonSpan({ name: 'remote' }))
  for (const _ of [1, 2]) assert.equal((await post(remote, body)).text, '{}')
  assert.equal(await countOf("otel.otel_traces WHERE SpanName = 'remote'"), 1)
  await rowsOf(collector, 'RENAME TABLE otel.otel_traces TO otel.away')
  const refused = await post(remote, jsonRequest(jsonSpan({ name: 'later' })))
  assert.deepEqual([refused.status, refused.headers.get('retry-after'), JSON.parse(refused.text).code], [503, '1', 14])
  await rowsOf(collector, 'RENAME TABLE otel.away TO otel.otel_traces')
  assert.equal((await fetch(`${remote.otlpUrl}/healthz`)).status, 200)
})

test('it listens where others could reach it only with a token to ask for', async () => {
  const options = { host: '0.0.0.0', otlpPort: 0, clickhousePort: 0, dataFolder: '/nowhere', log: silent }
  for (const token of [undefined, null, '', 'short']) {
    await assert.rejects(startCollector({ ...options, ...(token === undefined ? {} : { token }) }), {
      code: 'collector-host',
      message: /would listen on '0\.0\.0\.0', which others can reach: a bearer token .* is required/,
    })
  }
})

test('a bearer token that is asked for must be shown, and nothing is read without it', async (t) => {
  const folder = await temporaryFolder()
  t.after(folder.remove)
  const token = 'a token of 24 characters'.replaceAll(' ', '-')
  const { clickhouseUrl } = collector
  const options = {
    host: '0.0.0.0',
    token,
    otlpPort: 0,
    clickhousePort: 0,
    clickhouseUrl,
    dataFolder: folder.path,
    log: silent,
  }
  const guarded = await startCollector(options)
  t.after(() => guarded.close())
  const body = jsonRequest(jsonSpan({ name: 'guarded' }))
  for (const authorization of ['', `Bearer ${token}x`, token, `Basic ${token}`, 'Bearer ']) {
    const refused = await post(guarded, body, { authorization })
    assert.deepEqual([refused.status, refused.headers.get('www-authenticate')], [401, 'Bearer'])
    assert.equal(JSON.parse(refused.text).code, 16)
    assert.doesNotMatch(refused.text, new RegExp(token))
  }
  assert.equal((await post(guarded, body, { authorization: `bearer ${token}` })).text, '{}')
  assert.equal(
    (await post(guarded, body, { authorization: `Bearer ${token}`, origin: 'http://a.example' })).status,
    403,
  )
  assert.equal(await countOf("otel.otel_traces WHERE SpanName = 'guarded'"), 1)
  assert.equal((await fetch(`${guarded.otlpUrl}/healthz`)).status, 200)
})

test('a batch is known by its name and its bytes, however they are compressed; other bytes under its name are another', async () => {
  const body = jsonRequest(jsonSpan({ name: 'named' }))
  for (const bytes of [body, body, gzipSync(body)]) {
    const encoding: Record<string, string> = typeof bytes === 'string' ? {} : { 'content-encoding': 'gzip' }
    assert.equal((await post(collector, bytes, { ...encoding, 'x-signalbox-batch': 'epoch-1:7' })).text, '{}')
  }
  assert.equal(await countOf("otel.otel_traces WHERE SpanName = 'named'"), 1)
  const other = jsonRequest(jsonSpan({ name: 'named' }))
  assert.equal((await post(collector, other, { 'x-signalbox-batch': 'epoch-1:7' })).text, '{}')
  assert.equal((await post(collector, other, { 'x-signalbox-batch': 'epoch-1:7' })).text, '{}')
  assert.equal(await countOf("otel.otel_traces WHERE SpanName = 'named'"), 2)
  for (const name of ['', 'a b', 'x'.repeat(101)]) {
    const refused = await post(collector, body, { 'x-signalbox-batch': name })
    assert.deepEqual([refused.status, /wanted 1 to 100 of/.test(refused.text)], [400, true], name)
  }
})

test('a bomb is not unpacked beyond the bound, and leaves the memory that it held', async (t) => {
  const lease = createBudget(bodyBytesMax / 4)
  let heldBytesMax = 0
  const server = await listen(
    async (request, response) => {
      const held = lease()
      let bytes = 0
      const counting = {
        take: (more: number) => {
          held.take(more)
          bytes += more
          heldBytesMax = Math.max(heldBytesMax, bytes)
        },
        release: held.release,
      }
      response.statusCode = await readBody(request, counting).then(
        () => 200,
        (error: HttpError) => error.status,
      )
      held.release()
      response.end()
    },
    '127.0.0.1',
    0,
  )
  t.after(server.close)
  const send = async (bytes: number): Promise<number> => {
    const body = gzipSync(Buffer.alloc(bytes))
    return (await fetch(server.url, { method: 'POST', body, headers: { 'content-encoding': 'gzip' } })).status
  }
  assert.deepEqual([await send(bodyBytesMax), await send(1_000_000)], [503, 200])
  assert.ok(heldBytesMax <= bodyBytesMax / 4)
})

test('rows that ClickHouse cannot read are a 400, so that nobody sends them for ever', async (t) => {
  const gauge = { name: 'm', unit: 'ms', gauge: { dataPoints: [{ timeUnixNano: '1', asInt: 1 }] } }
  const body = JSON.stringify({ resourceMetrics: [{ scopeMetrics: [{ metrics: [gauge] }] }] })
  await rowsOf(collector, 'RENAME TABLE otel.otel_metrics_gauge TO otel.away')
  t.after(() => rowsOf(collector, 'EXCHANGE TABLES otel.otel_metrics_gauge AND otel.away'))
  await rowsOf(collector, 'CREATE TABLE otel.otel_metrics_gauge (MetricUnit UInt8) ENGINE = MergeTree ORDER BY ()')
  const refused = await post(collector, body, {}, '/v1/metrics')
  assert.deepEqual([refused.status, JSON.parse(refused.text).code], [400, 3], refused.text)
})

test('work beyond the memory bound is refused as 503, and what is done makes room again', async (t) => {
  const lease = createBudget(1000)
  const answers: (number | string)[] = []
  const server = await listen(
    async (request, response) => {
      const held = lease()
      const status = await readBody(request, held).then(
        (body) => body.length,
        (error: HttpError) => error.status,
      )
      held.release()
      answers.push(status)
      response.end()
    },
    '127.0.0.1',
    0,
  )
  t.after(server.close)
  for (const bytes of [1000, 1001, 1000]) {
    await fetch(server.url, { method: 'POST', body: new Uint8Array(bytes) })
  }
  assert.deepEqual(answers, [1000, 503, 1000])
  const [one, other] = [lease(), lease()]
  one.take(600)
  assert.throws(() => other.take(600), HttpError)
  one.release()
  other.take(600)
})
