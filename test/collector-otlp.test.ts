// Laws and spellings of decoding, without an engine: protobufjs encodes what the hand-written decoder must read.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import protobuf from 'protobufjs'
import { decodeJson, OtlpError, type TraceRequest, valueDepthMax } from '../collector/otlp.ts'
import { decodeProtobuf } from '../collector/otlp-protobuf.ts'
import { asString, toRows } from '../collector/rows.ts'
import { jsonRequest, jsonSpan } from './collector-fixtures.ts'

const oracle = protobuf
  .parse(`syntax = "proto3"; package otlp;
  message Request { repeated ResourceSpans resource_spans = 1; }
  message ResourceSpans { Resource resource = 1; repeated ScopeSpans scope_spans = 2; string schema_url = 3; }
  message Resource { repeated KeyValue attributes = 1; uint32 dropped_attributes_count = 2; }
  message ScopeSpans { Scope scope = 1; repeated Span spans = 2; string schema_url = 3; }
  message Scope { string name = 1; string version = 2; repeated KeyValue attributes = 3; }
  message Span { bytes trace_id = 1; bytes span_id = 2; string trace_state = 3; bytes parent_span_id = 4; string name = 5;
    int32 kind = 6; fixed64 start_time_unix_nano = 7; fixed64 end_time_unix_nano = 8; repeated KeyValue attributes = 9;
    uint32 dropped_attributes_count = 10; repeated Event events = 11; uint32 dropped_events_count = 12;
    repeated Link links = 13; uint32 dropped_links_count = 14; Status status = 15; fixed32 flags = 16; }
  message Event { fixed64 time_unix_nano = 1; string name = 2; repeated KeyValue attributes = 3; }
  message Link { bytes trace_id = 1; bytes span_id = 2; string trace_state = 3; repeated KeyValue attributes = 4; }
  message Status { string message = 2; int32 code = 3; }
  message KeyValue { string key = 1; AnyValue value = 2; }
  message AnyValue { oneof value { string string_value = 1; bool bool_value = 2; int64 int_value = 3;
    double double_value = 4; ArrayValue array_value = 5; KeyValueList kvlist_value = 6; bytes bytes_value = 7; } }
  message ArrayValue { repeated AnyValue values = 1; }
  message KeyValueList { repeated KeyValue values = 1; }`)
  .root.lookupType('otlp.Request')

const idFields = new Set(['traceId', 'spanId', 'parentSpanId'])
/** The request as protobufjs wants it: ids as bytes. */
const encode = (request: object): Uint8Array => {
  const withBytes = JSON.parse(JSON.stringify(request), (key, value) =>
    idFields.has(key) ? Buffer.from(value, 'hex').toString('base64') : value,
  )
  return oracle.encode(oracle.fromObject(withBytes)).finish()
}

const text = fc.string({ unit: 'binary', maxLength: 12 })
const hex = (digits: number) =>
  fc.stringMatching(new RegExp(`^[0-9a-fA-F]{${digits}}$`)).filter((id) => /[1-9a-f]/i.test(id))
const nanoseconds = fc.bigInt(0n, 9_223_372_036_854_775_807n).map(String)
const { keyValues } = fc.letrec((tie) => ({
  anyValue: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    fc.record({ stringValue: text }, { noNullPrototype: true }),
    fc.record({ boolValue: fc.boolean() }, { noNullPrototype: true }),
    fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n).map((int) => ({ intValue: String(int) })),
    fc.double().map((double) => ({ doubleValue: Number.isFinite(double) ? double + 0 : String(double) })),
    fc.uint8Array({ maxLength: 9 }).map((bytes) => ({ bytesValue: Buffer.from(bytes).toString('base64') })),
    fc.constant({}),
    fc.array(tie('anyValue'), { maxLength: 3 }).map((values) => ({ arrayValue: { values } })),
    tie('keyValues').map((values) => ({ kvlistValue: { values } })),
  ),
  keyValues: fc.array(fc.record({ key: text, value: tie('anyValue') }, { noNullPrototype: true }), { maxLength: 4 }),
}))
const record = <T>(model: { [K in keyof T]: fc.Arbitrary<T[K]> }) => fc.record(model, { noNullPrototype: true })
const spanArbitrary = record({
  traceId: hex(32),
  spanId: hex(16),
  parentSpanId: fc.oneof(fc.constant(''), hex(16)),
  traceState: text,
  name: text,
  kind: fc.integer({ min: 0, max: 7 }),
  startTimeUnixNano: nanoseconds,
  endTimeUnixNano: nanoseconds,
  attributes: keyValues,
  droppedAttributesCount: fc.nat(),
  flags: fc.nat(),
  events: fc.array(record({ timeUnixNano: nanoseconds, name: text, attributes: keyValues }), { maxLength: 2 }),
  links: fc.array(record({ traceId: hex(32), spanId: hex(16), traceState: text, attributes: keyValues }), {
    maxLength: 2,
  }),
  status: record({ code: fc.integer({ min: 0, max: 3 }), message: text }),
})
const requestArbitrary = record({
  resourceSpans: fc.array(
    record({
      resource: record({ attributes: keyValues }),
      scopeSpans: fc.array(
        record({ scope: record({ name: text, version: text }), spans: fc.array(spanArbitrary, { maxLength: 3 }) }),
        { maxLength: 2 },
      ),
    }),
    { maxLength: 2 },
  ),
})

const rows = (request: TraceRequest): string => toRows(request.resources).toString()
const json = (value: unknown): Buffer => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value))
const onlySpan = (request: TraceRequest) => {
  const span = request.resources[0]?.scopes[0]?.spans[0]
  assert.ok(span)
  return span
}

test('a request gives the same rows as JSON and as protobuf', () => {
  fc.assert(
    fc.property(requestArbitrary, (request) => {
      const fromJson = decodeJson(json(request))
      const fromProtobuf = decodeProtobuf(encode(request))
      assert.equal(rows(fromProtobuf), rows(fromJson))
      assert.deepEqual([fromJson.rejected, fromProtobuf.rejected], [0, 0])
      for (const line of rows(fromJson).split('\n').slice(0, -1)) JSON.parse(line)
    }),
    { seed: 7, numRuns: 300 },
  )
})

test('random bytes are refused or decoded, and never throw anything but OtlpError', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), requestArbitrary, fc.nat(), (noise, request, at) => {
      const damaged = Buffer.from(encode(request))
      damaged.set(
        noise.subarray(0, Math.max(0, damaged.length - (at % (damaged.length + 1)))),
        at % (damaged.length + 1),
      )
      for (const body of [noise, damaged]) {
        for (const decode of [decodeProtobuf, decodeJson]) {
          try {
            decode(body)
          } catch (error) {
            assert.ok(error instanceof OtlpError, String(error))
          }
        }
      }
    }),
    { seed: 7, numRuns: 300 },
  )
})

test("values are spelled as the official exporter's AsString spells them", () => {
  const cases: [Parameters<typeof asString>[0], string][] = [
    [null, ''],
    ['<a> & ü', '<a> & ü'],
    [true, 'true'],
    [-9_223_372_036_854_775_808n, '-9223372036854775808'],
    [0.1, '0.1'],
    [1, '1'],
    [1e21, '1e+21'],
    [123456789012345680000, '123456789012345680000'],
    [1e-7, '1e-7'],
    [-0, '-0'],
    [Number.NaN, 'json: unsupported value: NaN'],
    [Number.POSITIVE_INFINITY, 'json: unsupported value: +Inf'],
    [new Uint8Array([251, 255]), '+/8='],
    [{ list: ['a', 1n, 2.5, null, false, { list: [] }] }, '["a",1,2.5,null,false,[]]'],
    [
      {
        map: [
          ['b', '<'],
          ['a', new Uint8Array([1])],
          ['b', 9_007_199_254_740_993n],
        ],
      },
      '{"a":"AQ==","b":9007199254740993}',
    ],
    [{ list: [Number.NaN] }, ''],
  ]
  for (const [value, spelling] of cases) assert.equal(asString(value), spelling)
})

test('kinds, statuses, ids and times are spelled as the official exporter spells them', () => {
  const kinds = ['Unspecified', 'Internal', 'Server', 'Client', 'Producer', 'Consumer', 'Unspecified']
  const span = (kind: number) =>
    jsonSpan({
      kind,
      traceId: 'ABCDEF00'.repeat(4),
      startTimeUnixNano: '1763810000123456789',
      status: { code: kind % 3 },
    })
  const parsed = rows(decodeJson(json(jsonRequest(...kinds.map((_, kind) => span(kind))))))
    .split('\n')
    .slice(0, -1)
  assert.deepEqual(
    parsed.map((line) => JSON.parse(line).SpanKind),
    kinds,
  )
  assert.deepEqual(
    parsed.map((line) => JSON.parse(line).StatusCode),
    ['Unset', 'Ok', 'Error', 'Unset', 'Ok', 'Error', 'Unset'],
  )
  assert.match(parsed[0] ?? '', /^\{"Timestamp":1763810000123456789,"TraceId":"(abcdef00){4}",/)
  assert.match(parsed[0] ?? '', /"ServiceName":"signalbox","ResourceAttributes":\{"service.name":"signalbox"\}/)
})

test('64-bit integers keep every digit, as strings and as bare numbers', () => {
  const body = jsonRequest(jsonSpan({ attributes: [{ key: 'n', value: { intValue: '9007199254740993' } }] }))
  const bare = body.replace(/"(\d{16,})"/g, '$1')
  assert.notEqual(bare, body)
  assert.equal(rows(decodeJson(json(bare))), rows(decodeJson(json(body))))
  assert.match(rows(decodeJson(json(bare))), /"n":"9007199254740993"/)
})

test('unknown fields are ignored, in both encodings', () => {
  const span = jsonSpan()
  const plain = JSON.parse(jsonRequest(span))
  const withMore = JSON.parse(jsonRequest({ ...span, future: { deep: [1] } }))
  assert.equal(rows(decodeJson(json({ ...withMore, more: 1 }))), rows(decodeJson(json(plain))))
  const unknownField = Buffer.from([0xfa, 0x3f, 2, 8, 1])
  assert.equal(rows(decodeProtobuf(Buffer.concat([unknownField, encode(plain)]))), rows(decodeJson(json(plain))))
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
    [{ attributes: [{ key: 'n', value: { intValue: '9223372036854775808' } }] }, /wanted a whole number of 64 bits/],
  ]
  for (const [fields, problem] of bad) {
    const decoded = decodeJson(json(jsonRequest(jsonSpan(), jsonSpan(fields), jsonSpan())))
    assert.deepEqual([decoded.accepted, decoded.rejected], [2, 1])
    assert.match(decoded.problems[0] ?? '', problem)
  }
  const binary = decodeProtobuf(encode(JSON.parse(jsonRequest(jsonSpan(), jsonSpan({ traceId: 'abcd' }), jsonSpan()))))
  assert.deepEqual([binary.accepted, binary.rejected], [2, 1])
  assert.match(binary.problems[0] ?? '', /resourceSpans\[0\]\.scopeSpans\[0\]\.spans\[1\]: traceId is 'abcd'/)
})

test('an attribute may nest to a limit, and a bomb of brackets is refused', () => {
  const nested = (depth: number): unknown => {
    let value: unknown = { stringValue: 'x' }
    for (let level = 0; level < depth; level++) value = { arrayValue: { values: [value] } }
    return jsonSpan({ attributes: [{ key: 'deep', value }] })
  }
  const within = jsonRequest(nested(valueDepthMax))
  const beyond = jsonRequest(nested(valueDepthMax + 1))
  for (const decode of [
    (body: string) => decodeJson(json(body)),
    (body: string) => decodeProtobuf(encode(JSON.parse(body))),
  ]) {
    assert.equal(onlySpan(decode(within)).attributes.length, 1)
    assert.deepEqual([decode(beyond).accepted, decode(beyond).rejected], [0, 1])
  }
  assert.throws(() => decodeJson(Buffer.from('['.repeat(1_000_000))), OtlpError)
})

test('a broken frame is refused whole', () => {
  for (const body of ['', '{', 'null', '[]', '{"resourceSpans":{}}', '{"resourceSpans":[1]}', '\xff']) {
    assert.throws(() => decodeJson(Buffer.from(body, 'latin1')), { code: 'otlp-invalid' })
  }
  const whole = encode(JSON.parse(jsonRequest(jsonSpan())))
  assert.throws(() => decodeProtobuf(whole.subarray(0, whole.length - 1)), { code: 'otlp-invalid' })
  assert.equal(decodeProtobuf(new Uint8Array()).accepted, 0)
})
