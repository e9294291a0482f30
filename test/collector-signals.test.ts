// Logs and metrics through the collector's front door into the real engine, column by column, and as the official
// OpenTelemetry SDK's own serializers write them.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { BinaryReader } from '@bufbuild/protobuf/wire'
import {
  JsonLogsSerializer,
  JsonMetricsSerializer,
  ProtobufLogsSerializer,
  ProtobufMetricsSerializer,
} from '@opentelemetry/otlp-transformer'
import { addTextIndexes } from '../collector/migrate.ts'
import type { Collector } from '../collector/server.ts'
import { serverStore } from '../collector/store.ts'
import { jsonRequest, jsonSpan, otlpAttributes, post, rowsOf, temporaryCollector } from './collector-fixtures.ts'
import { encode } from './otlp-oracle.ts'

let collector: Collector
before(async () => {
  collector = await temporaryCollector()
})
after(() => collector.close())

const protobufType = { 'content-type': 'application/x-protobuf' }
const json = (value: object): string => JSON.stringify(value)
const resource = { attributes: otlpAttributes({ 'service.name': 'shop', region: 'eu' }) }
const scope = { name: 'lib', version: '2', attributes: otlpAttributes({ s: 1 }), droppedAttributesCount: 3 }
const logsOf = (...logRecords: object[]) => ({
  resourceLogs: [{ resource, schemaUrl: 'https://r', scopeLogs: [{ scope, schemaUrl: 'https://s', logRecords }] }],
})
const metricsOf = (...metrics: object[]) => ({
  resourceMetrics: [{ resource, schemaUrl: 'https://r', scopeMetrics: [{ scope, schemaUrl: 'https://s', metrics }] }],
})

test('a log record of every column comes back exactly, from both encodings', async () => {
  const record = {
    timeUnixNano: '1795000000123456789',
    observedTimeUnixNano: '1795000009000000000',
    severityNumber: 17,
    severityText: 'ERR',
    body: { kvlistValue: { values: otlpAttributes({ b: ['x', 'y'], a: 0.5 }) } },
    attributes: otlpAttributes({ z: true, a: 'tab\t' }),
    flags: 257,
    traceId: 'ab'.repeat(16),
    spanId: 'cd'.repeat(8),
    eventName: 'whole',
  }
  const observedOnly = { ...record, timeUnixNano: '0' }
  const request = logsOf(record, observedOnly)
  assert.equal((await post(collector, json(request), {}, '/v1/logs')).text, '{}')
  const bytes = new Uint8Array(encode('Logs', request))
  assert.equal((await post(collector, bytes, protobufType, '/v1/logs')).status, 200)
  const rows = await rowsOf(
    collector,
    "SELECT *, toUnixTimestamp64Nano(Timestamp) AS ns FROM otel.otel_logs WHERE EventName = 'whole' ORDER BY ns",
  )
  assert.deepEqual(
    rows.map(({ ns }) => String(ns)),
    ['1795000000123456789', '1795000000123456789', '1795000009000000000', '1795000009000000000'].map((ns) =>
      String(Number(ns)),
    ),
  )
  const [row] = rows
  assert.deepEqual(row, {
    Timestamp: row?.Timestamp,
    TraceId: record.traceId,
    SpanId: record.spanId,
    TraceFlags: 1,
    SeverityText: 'ERR',
    SeverityNumber: 17,
    ServiceName: 'shop',
    Body: '{"a":0.5,"b":["x","y"]}',
    ResourceSchemaUrl: 'https://r',
    ResourceAttributes: { region: 'eu', 'service.name': 'shop' },
    ScopeSchemaUrl: 'https://s',
    ScopeName: 'lib',
    ScopeVersion: '2',
    ScopeAttributes: { s: '1' },
    LogAttributes: { a: 'tab\t', z: 'true' },
    EventName: 'whole',
    ns: row?.ns,
  })
  assert.match(String(row?.Timestamp), /\.123456789$/)
  assert.deepEqual(rows[1], row)
})

const time = { startTimeUnixNano: '1795000000999999999', timeUnixNano: '1795000060000000001' }
const point = { ...time, attributes: otlpAttributes({ model: 'a' }), flags: 1 }
const exemplars = [
  {
    timeUnixNano: time.timeUnixNano,
    asInt: '9',
    filteredAttributes: otlpAttributes({ k: 'v' }),
    spanId: 'cd'.repeat(8),
    traceId: 'ab'.repeat(16),
  },
  { timeUnixNano: '0', asDouble: 'NaN' },
]
const total = { ...point, count: '18446744073709551615', sum: 2.5 }
const data = {
  gauge: { dataPoints: [{ ...point, asDouble: 'Infinity', exemplars }] },
  sum: { dataPoints: [{ ...point, asInt: '-7' }], aggregationTemporality: 2, isMonotonic: true },
  histogram: {
    dataPoints: [{ ...total, bucketCounts: ['1', 2], explicitBounds: [0.1], min: -0.5, max: 1e21, exemplars }],
    aggregationTemporality: 1,
  },
  exponentialHistogram: {
    dataPoints: [
      {
        ...total,
        scale: -2,
        zeroCount: '4',
        positive: { offset: -3, bucketCounts: ['5', '0'] },
        negative: { offset: 6, bucketCounts: [] },
      },
    ],
    aggregationTemporality: 1,
  },
  summary: { dataPoints: [{ ...total, quantileValues: [{ quantile: 0.99, value: 12 }] }] },
}
/** The columns that only its kind has, as JSON gives them; 64-bit numbers and what is not finite are text. */
const columnsOfKind = {
  gauge: { Value: 'inf' },
  sum: { Value: -7, AggregationTemporality: 2, IsMonotonic: true },
  histogram: {
    Count: '18446744073709551615',
    Sum: 2.5,
    BucketCounts: ['1', '2'],
    ExplicitBounds: [0.1],
    Min: -0.5,
    Max: 1e21,
    AggregationTemporality: 1,
  },
  exponential_histogram: {
    Count: '18446744073709551615',
    Sum: 2.5,
    Scale: -2,
    ZeroCount: '4',
    PositiveOffset: -3,
    PositiveBucketCounts: ['5', '0'],
    NegativeOffset: 6,
    NegativeBucketCounts: [],
    Min: 0,
    Max: 0,
    AggregationTemporality: 1,
  },
  summary: {
    Count: '18446744073709551615',
    Sum: 2.5,
    'ValueAtQuantiles.Quantile': [0.99],
    'ValueAtQuantiles.Value': [12],
  },
}
const exemplarsStored = {
  'Exemplars.FilteredAttributes': [{ k: 'v' }, {}],
  exemplarSeconds: [1_795_000_060, 0],
  'Exemplars.Value': [9, 'nan'],
  'Exemplars.SpanId': ['cd'.repeat(8), '0'.repeat(16)],
  'Exemplars.TraceId': ['ab'.repeat(16), '0'.repeat(32)],
}
const noExemplars = Object.fromEntries(Object.keys(exemplarsStored).map((name) => [name, []]))

test('a data point of every kind and column comes back exactly, from both encodings', async () => {
  const described = { name: 'latency', description: 'how long', unit: 'ms' }
  const request = metricsOf(...Object.entries(data).map(([kind, of]) => ({ ...described, [kind]: of })))
  assert.equal((await post(collector, json(request), {}, '/v1/metrics')).text, '{}')
  const bytes = new Uint8Array(encode('Metrics', request))
  assert.equal((await post(collector, bytes, protobufType, '/v1/metrics')).status, 200)
  const settings = 'SETTINGS output_format_json_quote_64bit_integers = 1, output_format_json_quote_denormals = 1'
  for (const [kind, columns] of Object.entries(columnsOfKind)) {
    const seconds = 'arrayMap(at -> toUnixTimestamp(at), Exemplars.TimeUnix) AS exemplarSeconds'
    const columnsRead = kind === 'summary' ? '*' : `* EXCEPT \`Exemplars.TimeUnix\`, ${seconds}`
    const rows = await rowsOf(collector, `SELECT ${columnsRead} FROM otel.otel_metrics_${kind} ${settings}`)
    assert.equal(rows.length, 2, kind)
    assert.deepEqual(rows[0], rows[1])
    const { StartTimeUnix, TimeUnix, ...row } = rows[0] ?? {}
    const withExemplars = kind === 'gauge' || kind === 'histogram' ? exemplarsStored : noExemplars
    assert.deepEqual(
      row,
      {
        ResourceAttributes: { region: 'eu', 'service.name': 'shop' },
        ResourceSchemaUrl: 'https://r',
        ScopeName: 'lib',
        ScopeVersion: '2',
        ScopeAttributes: { s: '1' },
        ScopeDroppedAttrCount: 3,
        ScopeSchemaUrl: 'https://s',
        ServiceName: 'shop',
        MetricName: 'latency',
        MetricDescription: 'how long',
        MetricUnit: 'ms',
        Attributes: { model: 'a' },
        Flags: 1,
        ...(kind === 'summary' ? {} : withExemplars),
        ...columns,
      },
      kind,
    )
    const [span] = await rowsOf(
      collector,
      `SELECT toUnixTimestamp(StartTimeUnix) AS start, toUnixTimestamp(TimeUnix) AS end FROM otel.otel_metrics_${kind}`,
    )
    assert.deepEqual(span, { start: 1_795_000_000, end: 1_795_000_060 }, `${StartTimeUnix} to ${TimeUnix}`)
  }
})

const hrTime = (nanos: number): [number, number] => [1_795_000_000, nanos]
const sdkResource = { attributes: { 'service.name': 'sdk', list: ['a', 'b'] } }
const instrumentationScope = { name: 'meter', version: '1.2.3' }

test("the official SDK's log serializers are understood, and both mean the same", async () => {
  const record = {
    hrTime: hrTime(5),
    hrTimeObserved: hrTime(6),
    severityNumber: 9,
    severityText: 'INFO',
    body: { text: 'hello', parts: [1, 2.5, null, true] },
    eventName: 'from-sdk',
    attributes: { n: 3, x: 0.5, deep: { a: [1] } },
    droppedAttributesCount: 0,
    resource: sdkResource,
    instrumentationScope,
    spanContext: { traceId: 'ab'.repeat(16), spanId: 'cd'.repeat(8), traceFlags: 1 },
  }
  for (const [serializer, headers] of [
    [JsonLogsSerializer, {}],
    [ProtobufLogsSerializer, protobufType],
  ] as const) {
    const bytes = serializer.serializeRequest([record] as never)
    assert.ok(bytes)
    assert.equal((await post(collector, new Uint8Array(bytes), headers, '/v1/logs')).status, 200)
  }
  const rows = await rowsOf(collector, "SELECT * EXCEPT Timestamp FROM otel.otel_logs WHERE EventName = 'from-sdk'")
  assert.equal(rows.length, 2)
  assert.deepEqual(rows[0], rows[1])
  const { Body, LogAttributes, TraceId, TraceFlags, SeverityText, ResourceAttributes, ScopeVersion } = rows[0] ?? {}
  assert.deepEqual(
    { Body, LogAttributes, TraceId, TraceFlags, SeverityText, ResourceAttributes, ScopeVersion },
    {
      Body: '{"parts":[1,2.5,null,true],"text":"hello"}',
      LogAttributes: { deep: '{"a":[1]}', n: '3', x: '0.5' },
      TraceId: 'ab'.repeat(16),
      TraceFlags: 1,
      SeverityText: 'INFO',
      ResourceAttributes: { list: '["a","b"]', 'service.name': 'sdk' },
      ScopeVersion: '1.2.3',
    },
  )
})

test("the official SDK's metric serializers are understood, and both mean the same", async () => {
  const at = { startTime: hrTime(0), endTime: hrTime(7), attributes: { kind: 'sdk' } }
  const descriptor = (name: string, valueType: number) => ({ name, description: 'd', unit: '1', valueType })
  const histogram = { buckets: { boundaries: [1, 10], counts: [1, 2, 3] }, count: 6, sum: 40, min: 0.5, max: 20 }
  const exponential = {
    scale: 3,
    zeroCount: 1,
    positive: { offset: -1, bucketCounts: [1, 0, 2] },
    negative: { offset: 2, bucketCounts: [4] },
    count: 8,
    sum: 3.5,
    min: -1,
    max: 4,
  }
  // The SDK's DataPointType: 0 histogram, 1 exponential histogram, 2 gauge, 3 sum; its ValueType: 0 int, 1 double.
  const metrics = [
    {
      descriptor: descriptor('sdk.h', 1),
      aggregationTemporality: 1,
      dataPointType: 0,
      dataPoints: [{ ...at, value: histogram }],
    },
    {
      descriptor: descriptor('sdk.e', 1),
      aggregationTemporality: 0,
      dataPointType: 1,
      dataPoints: [{ ...at, value: exponential }],
    },
    {
      descriptor: descriptor('sdk.g', 1),
      aggregationTemporality: 0,
      dataPointType: 2,
      dataPoints: [{ ...at, value: 0.25 }],
    },
    {
      descriptor: descriptor('sdk.s', 0),
      aggregationTemporality: 0,
      dataPointType: 3,
      isMonotonic: true,
      dataPoints: [{ ...at, value: 12 }],
    },
  ]
  const request = { resource: sdkResource, scopeMetrics: [{ scope: instrumentationScope, metrics }] }
  for (const [serializer, headers] of [
    [JsonMetricsSerializer, {}],
    [ProtobufMetricsSerializer, protobufType],
  ] as const) {
    const bytes = serializer.serializeRequest(request as never)
    assert.ok(bytes)
    assert.equal((await post(collector, new Uint8Array(bytes), headers, '/v1/metrics')).status, 200)
  }
  const stored = async (kind: string, columns: string) => {
    const rows = await rowsOf(
      collector,
      `SELECT ${columns} FROM otel.otel_metrics_${kind} WHERE MetricName LIKE 'sdk.%'`,
    )
    assert.equal(rows.length, 2, kind)
    assert.deepEqual(rows[0], rows[1])
    return rows[0]
  }
  assert.deepEqual(
    await stored('histogram', 'Count, Sum, BucketCounts, ExplicitBounds, Min, Max, AggregationTemporality AS t'),
    {
      Count: 6,
      Sum: 40,
      BucketCounts: [1, 2, 3],
      ExplicitBounds: [1, 10],
      Min: 0.5,
      Max: 20,
      t: 2,
    },
  )
  assert.deepEqual(
    await stored(
      'exponential_histogram',
      'Scale, ZeroCount, PositiveOffset AS p, PositiveBucketCounts AS pc, NegativeOffset AS n, NegativeBucketCounts AS nc',
    ),
    {
      Scale: 3,
      ZeroCount: 1,
      p: -1,
      pc: [1, 0, 2],
      n: 2,
      nc: [4],
    },
  )
  assert.deepEqual(await stored('gauge', 'Value, Attributes, ServiceName'), {
    Value: 0.25,
    Attributes: { kind: 'sdk' },
    ServiceName: 'sdk',
  })
  assert.deepEqual(await stored('sum', 'Value, IsMonotonic, AggregationTemporality AS t'), {
    Value: 12,
    IsMonotonic: true,
    t: 1,
  })
})

test('a partly bad request keeps its good items and counts the bad by its own name for them, in both encodings', async () => {
  const bad = '4294967296000000000'
  const cases = [
    ['/v1/logs', 'Logs', 'rejectedLogRecords', logsOf({ timeUnixNano: '1' }, { timeUnixNano: '9223372036854775808' })],
    [
      '/v1/metrics',
      'Metrics',
      'rejectedDataPoints',
      metricsOf({ name: 'm', gauge: { dataPoints: [point, { timeUnixNano: bad }] } }),
    ],
    ['/v1/traces', 'Traces', 'rejectedSpans', JSON.parse(jsonRequest(jsonSpan(), jsonSpan({ spanId: 'ab' })))],
  ] as const
  for (const [path, signal, field, request] of cases) {
    const asJson = await post(collector, json(request), {}, path)
    assert.deepEqual([asJson.status, JSON.parse(asJson.text).partialSuccess[field]], [200, '1'])
    const binary = await post(collector, new Uint8Array(encode(signal, request)), protobufType, path)
    const reader = new BinaryReader(binary.bytes)
    assert.deepEqual(
      [binary.status, ...reader.tag(), reader.uint32() > 0, ...reader.tag(), String(reader.int64())],
      [200, 1, 2, true, 1, 0, '1'],
    )
    assert.match(reader.string(), /^1 refused: |/)
    assert.equal((await post(collector, '{}', {}, path)).text, '{}')
    assert.equal((await post(collector, '{', {}, path)).status, 400)
  }
})

test('captured content is taken with the logs and does not rest among them', async () => {
  const event = { timeUnixNano: '1795000000000000000', body: { stringValue: 'c2VjcmV0' } }
  const names = ['gen_ai.client.inference.operation.details', 'gen_ai.evaluation.result']
  const request = logsOf(...names.map((eventName) => ({ ...event, eventName, severityText: 'mixed-batch' })))
  for (const _ of [1, 2]) assert.equal((await post(collector, json(request), {}, '/v1/logs')).text, '{}')
  const rows = await rowsOf(collector, "SELECT EventName FROM otel.otel_logs WHERE SeverityText = 'mixed-batch'")
  assert.deepEqual(rows, [{ EventName: 'gen_ai.evaluation.result' }])
})

test('text indexes can be asked for, twice too, and find an attribute without reading what has none like it', async (t) => {
  const store = serverStore(collector.clickhouseUrl)
  t.after(store.close)
  for (const _ of [1, 2]) await addTextIndexes(store)
  await post(collector, jsonRequest(jsonSpan({ name: 'indexed', attributes: otlpAttributes({ 'cart.id': 'c-7' }) })))
  const where = "FROM otel.otel_traces WHERE SpanAttributes['cart.id'] = 'c-7'"
  assert.deepEqual(await rowsOf(collector, `SELECT SpanName ${where}`), [{ SpanName: 'indexed' }])
  const plan = await rowsOf<{ explain: string }>(collector, `EXPLAIN indexes = 1 SELECT count() ${where}`)
  assert.match(plan.map(({ explain }) => explain).join('\n'), /text_span_attr_value/)
})
