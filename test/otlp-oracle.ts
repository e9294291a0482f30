// An independent reading of OTLP for the collector's tests: protobufjs on the published .proto messages, which encodes what the
// collector's own decoder must read, and requests of every shape in OTLP's JSON to encode.
import fc from 'fast-check'
import protobuf from 'protobufjs'

const { root } = protobuf.parse(`syntax = "proto3"; package otlp;
  message Traces { repeated ResourceSpans resource_spans = 1; }
  message ResourceSpans { Resource resource = 1; repeated ScopeSpans scope_spans = 2; string schema_url = 3; }
  message Resource { repeated KeyValue attributes = 1; uint32 dropped_attributes_count = 2; }
  message ScopeSpans { Scope scope = 1; repeated Span spans = 2; string schema_url = 3; }
  message Scope { string name = 1; string version = 2; repeated KeyValue attributes = 3;
    uint32 dropped_attributes_count = 4; }
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
  message KeyValueList { repeated KeyValue values = 1; }

  message Logs { repeated ResourceLogs resource_logs = 1; }
  message ResourceLogs { Resource resource = 1; repeated ScopeLogs scope_logs = 2; string schema_url = 3; }
  message ScopeLogs { Scope scope = 1; repeated LogRecord log_records = 2; string schema_url = 3; }
  message LogRecord { fixed64 time_unix_nano = 1; int32 severity_number = 2; string severity_text = 3; AnyValue body = 5;
    repeated KeyValue attributes = 6; uint32 dropped_attributes_count = 7; fixed32 flags = 8; bytes trace_id = 9;
    bytes span_id = 10; fixed64 observed_time_unix_nano = 11; string event_name = 12; }

  message Metrics { repeated ResourceMetrics resource_metrics = 1; }
  message ResourceMetrics { Resource resource = 1; repeated ScopeMetrics scope_metrics = 2; string schema_url = 3; }
  message ScopeMetrics { Scope scope = 1; repeated Metric metrics = 2; string schema_url = 3; }
  message Metric { string name = 1; string description = 2; string unit = 3; oneof data { Gauge gauge = 5; Sum sum = 7;
    Histogram histogram = 9; ExponentialHistogram exponential_histogram = 10; Summary summary = 11; }
    repeated KeyValue metadata = 12; }
  message Gauge { repeated NumberDataPoint data_points = 1; }
  message Sum { repeated NumberDataPoint data_points = 1; int32 aggregation_temporality = 2; bool is_monotonic = 3; }
  message Histogram { repeated HistogramDataPoint data_points = 1; int32 aggregation_temporality = 2; }
  message ExponentialHistogram { repeated ExponentialHistogramDataPoint data_points = 1;
    int32 aggregation_temporality = 2; }
  message Summary { repeated SummaryDataPoint data_points = 1; }
  message NumberDataPoint { repeated KeyValue attributes = 7; fixed64 start_time_unix_nano = 2; fixed64 time_unix_nano = 3;
    oneof value { double as_double = 4; sfixed64 as_int = 6; } repeated Exemplar exemplars = 5; uint32 flags = 8; }
  message HistogramDataPoint { repeated KeyValue attributes = 9; fixed64 start_time_unix_nano = 2;
    fixed64 time_unix_nano = 3; fixed64 count = 4; optional double sum = 5; repeated fixed64 bucket_counts = 6;
    repeated double explicit_bounds = 7; repeated Exemplar exemplars = 8; uint32 flags = 10; optional double min = 11;
    optional double max = 12; }
  message ExponentialHistogramDataPoint { repeated KeyValue attributes = 1; fixed64 start_time_unix_nano = 2;
    fixed64 time_unix_nano = 3; fixed64 count = 4; optional double sum = 5; sint32 scale = 6; fixed64 zero_count = 7;
    Buckets positive = 8; Buckets negative = 9; uint32 flags = 10; repeated Exemplar exemplars = 11;
    optional double min = 12; optional double max = 13; double zero_threshold = 14; }
  message Buckets { sint32 offset = 1; repeated uint64 bucket_counts = 2; }
  message SummaryDataPoint { repeated KeyValue attributes = 7; fixed64 start_time_unix_nano = 2;
    fixed64 time_unix_nano = 3; fixed64 count = 4; double sum = 5; repeated ValueAtQuantile quantile_values = 6;
    uint32 flags = 8; }
  message ValueAtQuantile { double quantile = 1; double value = 2; }
  message Exemplar { repeated KeyValue filtered_attributes = 7; fixed64 time_unix_nano = 2;
    oneof value { double as_double = 3; sfixed64 as_int = 6; } bytes span_id = 4; bytes trace_id = 5; }`)

export type SignalName = 'Traces' | 'Logs' | 'Metrics'
const idFields = new Set(['traceId', 'spanId', 'parentSpanId'])

/** An export request in protobuf; `request` is in OTLP's JSON shape. */
export const encode = (signal: SignalName, request: object): Uint8Array => {
  const withBytes = JSON.parse(JSON.stringify(request), (key, value) =>
    idFields.has(key) ? Buffer.from(value, 'hex').toString('base64') : value,
  )
  const type = root.lookupType(`otlp.${signal}`)
  return type.encode(type.fromObject(withBytes)).finish()
}

const text = fc.string({ unit: 'binary', maxLength: 12 })
const hex = (digits: number) =>
  fc.stringMatching(new RegExp(`^[0-9a-fA-F]{${digits}}$`)).filter((id) => /[1-9a-f]/i.test(id))
const nanoseconds = fc.bigInt(0n, 9_223_372_036_854_775_807n).map(String)
/** What DateTime can hold. */
const metricNanoseconds = fc.bigInt(0n, 4_294_967_295_999_999_999n).map(String)
const { keyValues, anyValue } = fc.letrec((tie) => ({
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
const span = record({
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
const logRecord = record({
  timeUnixNano: nanoseconds,
  observedTimeUnixNano: nanoseconds,
  severityNumber: fc.integer({ min: 0, max: 24 }),
  severityText: text,
  body: anyValue,
  attributes: keyValues,
  droppedAttributesCount: fc.nat(),
  flags: fc.nat(),
  traceId: fc.oneof(fc.constant(''), hex(32)),
  spanId: fc.oneof(fc.constant(''), hex(16)),
  eventName: fc.oneof(text, fc.constant('gen_ai.client.inference.operation.details')),
})

const jsonDouble = fc.double().map((double) => (Number.isFinite(double) ? double : String(double)))
const int = (bits: bigint) => fc.bigInt(-(2n ** (bits - 1n)), 2n ** (bits - 1n) - 1n).map(String)
const unsigned = fc.bigInt(0n, 2n ** 64n - 1n).map(String)
const number = fc.oneof(
  jsonDouble.map((asDouble) => ({ asDouble })),
  int(64n).map((asInt) => ({ asInt })),
)
const exemplar = fc
  .tuple(
    number,
    record({
      timeUnixNano: metricNanoseconds,
      filteredAttributes: keyValues,
      traceId: fc.oneof(fc.constant(''), hex(32)),
      spanId: hex(16),
    }),
  )
  .map(([value, rest]) => ({ ...value, ...rest }))
const point = {
  attributes: keyValues,
  startTimeUnixNano: metricNanoseconds,
  timeUnixNano: metricNanoseconds,
  flags: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
}
const exemplars = fc.array(exemplar, { maxLength: 2 })
const total = { ...point, count: unsigned, sum: jsonDouble }
const few = <Item>(of: fc.Arbitrary<Item>) => fc.array(of, { maxLength: 3 })
const numberPoint = fc.tuple(number, record({ ...point, exemplars })).map(([value, rest]) => ({ ...value, ...rest }))
const range = { min: jsonDouble, max: jsonDouble, exemplars }
const buckets = record({ offset: fc.integer(), bucketCounts: few(unsigned) })
const aggregationTemporality = fc.integer({ min: 0, max: 2 })
const data = fc.oneof(
  record({ gauge: record({ dataPoints: few(numberPoint) }) }),
  record({ sum: record({ dataPoints: few(numberPoint), aggregationTemporality, isMonotonic: fc.boolean() }) }),
  record({
    histogram: record({
      dataPoints: few(record({ ...total, ...range, bucketCounts: few(unsigned), explicitBounds: few(jsonDouble) })),
      aggregationTemporality,
    }),
  }),
  record({
    exponentialHistogram: record({
      dataPoints: few(
        record({ ...total, ...range, scale: fc.integer(), zeroCount: unsigned, positive: buckets, negative: buckets }),
      ),
      aggregationTemporality,
    }),
  }),
  record({
    summary: record({
      dataPoints: few(record({ ...total, quantileValues: few(record({ quantile: jsonDouble, value: jsonDouble })) })),
    }),
  }),
)
const metric = fc
  .tuple(data, record({ name: text, description: text, unit: text }))
  .map(([of, rest]) => ({ ...rest, ...of }))

const requests = (resources: string, scopes: string, entries: string, entry: fc.Arbitrary<object>) =>
  record({
    [resources]: fc.array(
      record({
        resource: record({ attributes: keyValues }),
        [scopes]: fc.array(
          record({
            scope: record({ name: text, version: text, attributes: keyValues, droppedAttributesCount: fc.nat() }),
            [entries]: few(entry),
            schemaUrl: text,
          }),
          { maxLength: 2 },
        ),
        schemaUrl: text,
      }),
      { maxLength: 2 },
    ),
  })

/** Requests that keep every rule, for each signal. */
export const requestsOf: Readonly<Record<SignalName, fc.Arbitrary<object>>> = {
  Traces: requests('resourceSpans', 'scopeSpans', 'spans', span),
  Logs: requests('resourceLogs', 'scopeLogs', 'logRecords', logRecord),
  Metrics: requests('resourceMetrics', 'scopeMetrics', 'metrics', metric),
}
