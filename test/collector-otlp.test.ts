// Laws and spellings of decoding, without an engine: protobufjs encodes what the collector's decoder must read, and what the
// official collector's own code prints is what values must be spelled as.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { OtlpError, valueDepthMax } from '../collector/otlp.ts'
import { logs } from '../collector/otlp-logs.ts'
import { metrics } from '../collector/otlp-metrics.ts'
import type { ExportRows } from '../collector/otlp-signal.ts'
import { carefulTraces as traces } from '../collector/otlp-traces.ts'
import { asString } from '../collector/rows.ts'
import { jsonRequest, jsonSpan } from './collector-fixtures.ts'
import { encode, requestsOf, type SignalName } from './otlp-oracle.ts'

const signals = { Traces: traces, Logs: logs, Metrics: metrics }
const names = Object.keys(signals) as SignalName[]
const textOf = (rows: ExportRows): string => rows.tables.map((table) => table.rows.toString()).join('')
const linesOf = (rows: ExportRows): Record<string, unknown>[] =>
  textOf(rows)
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line))
const json = (value: unknown): Buffer => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value))

for (const name of names) {
  test(`a request of ${name.toLowerCase()} gives the same rows as JSON and as protobuf, and none is refused`, () => {
    fc.assert(
      fc.property(requestsOf[name], (request) => {
        const fromJson = signals[name].json(json(request))
        const fromProtobuf = signals[name].protobuf(encode(name, request))
        assert.deepEqual(fromProtobuf, fromJson)
        assert.deepEqual([fromJson.rejected, fromJson.problems], [0, []])
        assert.equal(linesOf(fromJson).length, fromJson.accepted)
        assert.equal(
          fromJson.tables.reduce((sum, table) => sum + table.count, 0),
          fromJson.accepted,
        )
      }),
      { seed: 7, numRuns: 100 },
    )
  })

  test(`damaged ${name.toLowerCase()} are refused or decoded, and never throw anything but OtlpError`, () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), requestsOf[name], fc.nat(), (noise, request, place) => {
        const damaged = Buffer.from(encode(name, request))
        const at = place % (damaged.length + 1)
        damaged.set(noise.subarray(0, damaged.length - at), at)
        for (const body of [noise, damaged]) {
          for (const read of [signals[name].protobuf, signals[name].json]) {
            try {
              linesOf(read(body))
            } catch (error) {
              assert.ok(error instanceof OtlpError, String(error))
            }
          }
        }
      }),
      { seed: 7, numRuns: 100 },
    )
  })
}

/** What the official collector's pdata v1.67 prints for these values, found by running it (Go 1.26). */
const asStringCases: readonly (readonly [value: object, spelling: string])[] = [
  [{}, ''],
  [{ stringValue: '<a> & ü \u2028' }, '<a> & ü \u2028'],
  [{ boolValue: true }, 'true'],
  [{ boolValue: false }, 'false'],
  [{ intValue: '-9223372036854775808' }, '-9223372036854775808'],
  [{ intValue: '9223372036854775807' }, '9223372036854775807'],
  [{ doubleValue: 0.1 }, '0.1'],
  [{ doubleValue: 1 }, '1'],
  [{ doubleValue: 1e21 }, '1e+21'],
  [{ doubleValue: 123456789012345680000 }, '123456789012345680000'],
  [{ doubleValue: 1e-6 }, '0.000001'],
  [{ doubleValue: 1e-7 }, '1e-7'],
  [{ doubleValue: 1.5e-10 }, '1.5e-10'],
  [{ doubleValue: 5e-324 }, '5e-324'],
  [{ doubleValue: 1.7976931348623157e308 }, '1.7976931348623157e+308'],
  [{ doubleValue: 'NaN' }, 'NaN'],
  [{ doubleValue: 'Infinity' }, 'Infinity'],
  [{ doubleValue: '-Infinity' }, '-Infinity'],
  [{ bytesValue: '+/8=' }, '+/8='],
  [{ bytesValue: '' }, ''],
  [{ arrayValue: { values: [] } }, '[]'],
  [{ arrayValue: {} }, '[]'],
  [{ kvlistValue: {} }, '{}'],
  [
    {
      arrayValue: {
        values: [
          { stringValue: 'a' },
          { intValue: '1' },
          { doubleValue: 2.5 },
          { doubleValue: 1 },
          { doubleValue: 1e21 },
          { doubleValue: 1e-7 },
          {},
          { boolValue: false },
          { arrayValue: { values: [] } },
          { bytesValue: 'AQ==' },
          { bytesValue: '' },
        ],
      },
    },
    '["a",1,2.5,1,1e+21,1e-7,null,false,[],"AQ==",null]',
  ],
  [
    { arrayValue: { values: [{ stringValue: '<>& \u2028\u2029 \u007f \b\f\n\r\t \u0000 \u001f " \\ / ü 😀' }] } },
    '["<>& \\u2028\\u2029 \u007f \\b\\f\\n\\r\\t \\u0000 \\u001f \\" \\\\ / ü 😀"]',
  ],
  [
    {
      kvlistValue: {
        values: [
          { key: 'b', value: { stringValue: '<' } },
          { key: 'a', value: { bytesValue: 'AQ==' } },
          { key: 'b', value: { intValue: '9007199254740993' } },
          { key: '\ufffd', value: {} },
          { key: '😀', value: { kvlistValue: { values: [{ key: 'z' }, { key: '\u2028' }] } } },
        ],
      },
    },
    '{"a":"AQ==","b":9007199254740993,"\ufffd":null,"😀":{"z":null,"\\u2028":null}}',
  ],
  [{ arrayValue: { values: [{ doubleValue: 'NaN' }] } }, ''],
  [{ kvlistValue: { values: [{ key: 'a', value: { doubleValue: 'Infinity' } }] } }, ''],
]

test("values are spelled as the official collector's AsString spells them, in bodies and in attributes", () => {
  for (const [value, spelling] of asStringCases) {
    const record = { timeUnixNano: '1', body: value, attributes: [{ key: 'k', value }] }
    const request = { resourceLogs: [{ scopeLogs: [{ logRecords: [record] }] }] }
    for (const rows of [logs.json(json(request)), logs.protobuf(encode('Logs', request))]) {
      const [line] = linesOf(rows)
      assert.deepEqual([line?.Body, line?.LogAttributes], [spelling, { k: spelling }])
    }
  }
  assert.deepEqual([asString(-0), asString({ list: [-0] })], ['-0', '[-0]'])
})

test('attributes are stored in the order of their keys, as the exporter stores them', () => {
  const attributes = ['b', '😀', 'a', '\ufffd', 'b'].map((key, at) => ({ key, value: { intValue: at } }))
  const stored = textOf(traces.json(json(jsonRequest(jsonSpan({ attributes })))))
  assert.match(stored, /"SpanAttributes":\{"a":"2","b":"0","b":"4","\ufffd":"3","😀":"1"\}/u)
})

test('kinds, statuses, ids and times are spelled as the official exporter spells them', () => {
  const kinds = ['Unspecified', 'Internal', 'Server', 'Client', 'Producer', 'Consumer', '']
  const spans = kinds.map((_, kind) =>
    jsonSpan({
      kind,
      traceId: 'ABCDEF00'.repeat(4),
      startTimeUnixNano: '1763810000123456789',
      status: { code: kind % 4 },
    }),
  )
  const stored = traces.json(json(jsonRequest(...spans)))
  assert.deepEqual(
    linesOf(stored).map(({ SpanKind, StatusCode }) => [SpanKind, StatusCode]),
    kinds.map((kind, code) => [kind, ['Unset', 'Ok', 'Error', ''][code % 4]]),
  )
  assert.match(textOf(stored), /"Timestamp":1763810000123456789,"TraceId":"(abcdef00){4}",/)
  assert.match(textOf(stored), /"ServiceName":"signalbox","ResourceAttributes":\{"service.name":"signalbox"\}/)
})

test('64-bit integers keep every digit, as strings and as bare numbers', () => {
  const body = jsonRequest(jsonSpan({ attributes: [{ key: 'n', value: { intValue: '9007199254740993' } }] }))
  const bare = body.replace(/"(\d{16,})"/g, '$1')
  assert.notEqual(bare, body)
  assert.equal(textOf(traces.json(json(bare))), textOf(traces.json(json(body))))
  assert.match(textOf(traces.json(json(bare))), /"n":"9007199254740993"/)
})

test('unknown fields are ignored, in both encodings', () => {
  const span = jsonSpan()
  const plain = JSON.parse(jsonRequest(span))
  const withMore = JSON.parse(jsonRequest({ ...span, future: { deep: [1] } }))
  const wanted = textOf(traces.json(json(plain)))
  assert.equal(textOf(traces.json(json({ ...withMore, more: 1 }))), wanted)
  const unknownField = Buffer.from([0xfa, 0x3f, 2, 8, 1])
  assert.equal(textOf(traces.protobuf(Buffer.concat([unknownField, encode('Traces', plain)]))), wanted)
})

test('a bad span is left out and named, and its neighbours are kept', () => {
  const bad: [Record<string, unknown>, RegExp][] = [
    [{ traceId: 'xyz' }, /spans\[1\]: traceId is 'xyz', wanted 32 hex digits/],
    [{ spanId: '0'.repeat(16) }, /spans\[1\]: spanId is '0000000000000000'/],
    [{ startTimeUnixNano: '18446744073709551615' }, /startTimeUnixNano is 18446744073709551615, wanted 0 to/],
    [{ name: 7 }, /name is number, wanted a string/],
    [{ kind: 'SPAN_KIND_SERVER' }, /kind is "SPAN_KIND_SERVER", wanted an integer/],
    [{ attributes: {} }, /attributes is object, wanted a list/],
    [{ attributes: [{ key: 'n', value: { intValue: '1.5' } }] }, /n is "1.5", wanted a whole number/],
    [
      { attributes: [{ key: 'n', value: { intValue: '9223372036854775808' } }] },
      /wanted a whole number from -9223372036/,
    ],
    [{ attributes: [{ key: 'x', value: { doubleValue: 'much' } }] }, /x is "much", wanted a number/],
    [{ events: [7] }, /an entry of events is number, wanted an object/],
  ]
  for (const [fields, problem] of bad) {
    const decoded = traces.json(json(jsonRequest(jsonSpan(), jsonSpan(fields), jsonSpan())))
    assert.deepEqual([decoded.accepted, decoded.rejected], [2, 1])
    assert.match(decoded.problems[0] ?? '', problem)
  }
  const request = JSON.parse(jsonRequest(jsonSpan(), jsonSpan({ traceId: 'abcd' }), jsonSpan()))
  const binary = traces.protobuf(encode('Traces', request))
  assert.deepEqual([binary.accepted, binary.rejected], [2, 1])
  assert.match(binary.problems[0] ?? '', /resourceSpans\[0\]\.scopeSpans\[0\]\.spans\[1\]: traceId is 'abcd'/)
})

test('a bad data point is left out and named, and the rest of its metric is kept', () => {
  const points = [{ timeUnixNano: '1', asInt: '2' }, { asInt: 'two' }, { timeUnixNano: '4294967296000000000' }]
  const request = {
    resourceMetrics: [
      { scopeMetrics: [{ metrics: [{ name: 'm', gauge: { dataPoints: points } }, { name: 'none' }] }] },
    ],
  }
  const decoded = metrics.json(json(request))
  assert.deepEqual([decoded.accepted, decoded.rejected], [1, 3])
  const at = 'resourceMetrics[0].scopeMetrics[0].metrics'
  assert.deepEqual(decoded.problems, [
    `${at}[0].gauge.dataPoints[1]: asInt is "two", wanted a whole number`,
    `${at}[0].gauge.dataPoints[2]: timeUnixNano is 4294967296000000000, wanted 0 to 4294967295999999999`,
    `${at}[1]: it has data of no known kind: wanted gauge, sum, histogram, exponentialHistogram or summary`,
  ])
})

test('what is no id makes a log record belong to no trace, and is no reason to refuse it', () => {
  const logRecords = [
    { traceId: '0'.repeat(32), spanId: 'ab' },
    { traceId: 'AB'.repeat(16), spanId: 'cd'.repeat(8) },
  ]
  const request = { resourceLogs: [{ scopeLogs: [{ logRecords }] }] }
  for (const rows of [logs.json(json(request)), logs.protobuf(encode('Logs', request))]) {
    assert.deepEqual(
      linesOf(rows).map(({ TraceId, SpanId }) => [TraceId, SpanId]),
      [
        ['', ''],
        ['ab'.repeat(16), 'cd'.repeat(8)],
      ],
    )
  }
})

test('captured content goes to its own table, and every other event to the logs', () => {
  const events = ['', 'gen_ai.evaluation.result', 'gen_ai.client.inference.operation.details', 'other']
  const logRecords = events.map((eventName) => ({ timeUnixNano: '1', eventName }))
  const { tables } = logs.json(json({ resourceLogs: [{ scopeLogs: [{ logRecords }] }] }))
  assert.deepEqual(
    tables.map(({ table, count }) => [table, count]),
    [
      ['otel.otel_logs', 3],
      ['otel.payload_events', 1],
    ],
  )
})

test('numbers in a list may be packed or not', () => {
  const bucket = (count: number) => [0x31, count, 0, 0, 0, 0, 0, 0, 0]
  const packed = [0x32, 16, ...bucket(1).slice(1), ...bucket(2).slice(1)]
  const inMessage = (field: number, body: number[]): number[] => [(field << 3) | 2, body.length, ...body]
  const request = (point: number[]) => {
    const metric = inMessage(9, inMessage(1, point))
    return Buffer.from(inMessage(1, inMessage(2, inMessage(2, metric))))
  }
  for (const point of [
    packed,
    [...bucket(1), ...bucket(2)],
    [...bucket(1), ...packed.with(1, 8).slice(0, 2), ...bucket(2).slice(1)],
  ]) {
    assert.deepEqual(linesOf(metrics.protobuf(request(point)))[0]?.BucketCounts, [1, 2])
  }
  assert.equal(metrics.protobuf(request([0x32, 9, 1, 0, 0, 0, 0, 0, 0, 0, 0])).rejected, 1)
})

test('an attribute may nest to a limit, and a bomb of brackets is refused', () => {
  const nested = (depth: number): unknown => {
    let value: unknown = { stringValue: 'x' }
    for (let level = 0; level < depth; level++) value = { arrayValue: { values: [value] } }
    return jsonSpan({ attributes: [{ key: 'deep', value }] })
  }
  const within = jsonRequest(nested(valueDepthMax))
  const beyond = jsonRequest(nested(valueDepthMax + 1))
  for (const read of [
    (body: string) => traces.json(json(body)),
    (body: string) => traces.protobuf(encode('Traces', JSON.parse(body))),
  ]) {
    assert.deepEqual([read(within).accepted, read(within).rejected], [1, 0])
    assert.deepEqual([read(beyond).accepted, read(beyond).rejected], [0, 1])
  }
  assert.throws(() => traces.json(Buffer.from('['.repeat(1_000_000))), OtlpError)
})

test('a broken frame is refused whole', () => {
  for (const body of ['', '{', 'null', '[]', '{"resourceSpans":{}}', '{"resourceSpans":[1]}', '\xff']) {
    assert.throws(() => traces.json(Buffer.from(body, 'latin1')), { code: 'otlp-invalid' })
  }
  const whole = encode('Traces', JSON.parse(jsonRequest(jsonSpan())))
  assert.throws(() => traces.protobuf(whole.subarray(0, whole.length - 1)), { code: 'otlp-invalid' })
  for (const name of names) assert.deepEqual(signals[name].protobuf(new Uint8Array()).tables, [])
})
