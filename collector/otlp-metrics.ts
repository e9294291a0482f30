// Metrics: the five kinds of data point as OTLP's schema has them, and each kind's row in the table that the exporter has
// for it. The item is the data point: a bad one is left out and the rest of its metric is kept.
import { checkTime, idOr, OtlpError } from './otlp.ts'
import {
  attempted,
  attributes,
  double,
  enumeration,
  fixed64,
  flag,
  id,
  type Message,
  message,
  numbers,
  optional,
  repeated,
  type Schema,
  sfixed64,
  sint32,
  text,
  uint32,
  uint64,
} from './otlp-schema.ts'
import { createSignal, type Origin } from './otlp-signal.ts'
import { asList, asMap, quote, resourceColumns, spellDouble } from './rows.ts'

/** The last instant that DateTime can hold, 2106-02-07; the exporter's metrics have whole seconds. */
const metricNanosecondsMax = 4_294_967_295_999_999_999n
const nanosecondsPerSecond = 1_000_000_000n
const [noTraceId, noSpanId] = ['0'.repeat(32), '0'.repeat(16)]

const exemplars = (number: number) =>
  repeated(number, {
    timeUnixNano: fixed64(2),
    asDouble: double(3),
    spanId: id(4),
    traceId: id(5),
    asInt: sfixed64(6),
    filteredAttributes: attributes(7),
  })
const times = { startTimeUnixNano: fixed64(2), timeUnixNano: fixed64(3) }
const totals = { ...times, count: fixed64(4), sum: double(5) }
const buckets = { offset: sint32(1), bucketCounts: numbers(uint64(2)) }

const numberPoint = {
  ...times,
  asDouble: double(4),
  exemplars: exemplars(5),
  asInt: sfixed64(6),
  attributes: attributes(7),
  flags: uint32(8),
}
const histogramPoint = {
  ...totals,
  bucketCounts: numbers(fixed64(6)),
  explicitBounds: numbers(double(7)),
  exemplars: exemplars(8),
  attributes: attributes(9),
  flags: uint32(10),
  min: double(11),
  max: double(12),
}
const exponentialPoint = {
  ...totals,
  attributes: attributes(1),
  scale: sint32(6),
  zeroCount: fixed64(7),
  positive: message(8, buckets),
  negative: message(9, buckets),
  flags: uint32(10),
  exemplars: exemplars(11),
  min: double(12),
  max: double(13),
}
const summaryPoint = {
  ...totals,
  quantileValues: repeated(6, { quantile: double(1), value: double(2) }),
  attributes: attributes(7),
  flags: uint32(8),
}

const points = <Point extends Schema>(point: Point) => ({ dataPoints: attempted(1, point) })
const aggregated = <Point extends Schema>(point: Point) => ({
  ...points(point),
  aggregationTemporality: enumeration(2),
})
const metricSchema = {
  name: text(1),
  description: text(2),
  unit: text(3),
  gauge: optional(message(5, points(numberPoint))),
  sum: optional(message(7, { ...aggregated(numberPoint), isMonotonic: flag(3) })),
  histogram: optional(message(9, aggregated(histogramPoint))),
  exponentialHistogram: optional(message(10, aggregated(exponentialPoint))),
  summary: optional(message(11, points(summaryPoint))),
}
type Metric = Message<typeof metricSchema>
type NumberPoint = Message<typeof numberPoint>
type ExponentialPoint = Message<typeof exponentialPoint>

/** What every kind of point has. */
type Point = Pick<NumberPoint, 'startTimeUnixNano' | 'timeUnixNano' | 'attributes' | 'flags'>
/** A data point on its way to its kind's table; `columns` spells those that only its kind has. */
type Item = { readonly table: string; readonly metric: Metric; readonly point: Point; readonly columns: () => string }

const shared = ({ resource, resourceSchemaUrl, scope, scopeSchemaUrl }: Origin): string =>
  `${resourceColumns(resource.attributes)},"ResourceSchemaUrl":${quote(resourceSchemaUrl)}` +
  `,"ScopeName":${quote(scope.name)},"ScopeVersion":${quote(scope.version)}` +
  `,"ScopeAttributes":${asMap(scope.attributes)},"ScopeDroppedAttrCount":${scope.droppedAttributesCount}` +
  `,"ScopeSchemaUrl":${quote(scopeSchemaUrl)}`

const row = ({ metric, point, columns }: Item, head: string): string =>
  `{${head},"MetricName":${quote(metric.name)},"MetricDescription":${quote(metric.description)}` +
  `,"MetricUnit":${quote(metric.unit)},"Attributes":${asMap(point.attributes)}` +
  `,"StartTimeUnix":${seconds('startTimeUnixNano', point.startTimeUnixNano)}` +
  `,"TimeUnix":${seconds('timeUnixNano', point.timeUnixNano)},"Flags":${point.flags}${columns()}}\n`

const seconds = (name: string, time: bigint): bigint => {
  checkTime(name, time, metricNanosecondsMax)
  return time / nanosecondsPerSecond
}

type EitherNumber = Pick<NumberPoint, 'asDouble' | 'asInt'>
/** The columns hold doubles, so an integer beyond 2^53 is rounded. */
const number = ({ asDouble, asInt }: EitherNumber): string => spellDouble(asInt === 0n ? asDouble : Number(asInt))

const exemplarColumns = (list: NumberPoint['exemplars']): string =>
  list.length === 0
    ? ''
    : `,"Exemplars.FilteredAttributes":${asList(list, ({ filteredAttributes }) => asMap(filteredAttributes))}` +
      `,"Exemplars.TimeUnix":${asList(list, (one) => String(seconds('exemplars.timeUnixNano', one.timeUnixNano)))}` +
      `,"Exemplars.Value":${asList(list, number)}` +
      `,"Exemplars.SpanId":${asList(list, ({ spanId }) => quote(idOr(noSpanId, spanId, 16)))}` +
      `,"Exemplars.TraceId":${asList(list, ({ traceId }) => quote(idOr(noTraceId, traceId, 32)))}`

const numberColumns = (point: NumberPoint): string => `,"Value":${number(point)}${exemplarColumns(point.exemplars)}`

const totalColumns = ({ count, sum }: { readonly count: bigint; readonly sum: number }): string =>
  `,"Count":${count},"Sum":${spellDouble(sum)}`

const rangeColumns = ({ min, max, exemplars: list }: Pick<ExponentialPoint, 'min' | 'max' | 'exemplars'>): string =>
  `,"Min":${spellDouble(min)},"Max":${spellDouble(max)}${exemplarColumns(list)}`

const histogramColumns = (point: Message<typeof histogramPoint>): string =>
  `${totalColumns(point)},"BucketCounts":${asList(point.bucketCounts, String)}` +
  `,"ExplicitBounds":${asList(point.explicitBounds, spellDouble)}${rangeColumns(point)}`

const exponentialColumns = (point: ExponentialPoint): string =>
  `${totalColumns(point)},"Scale":${point.scale},"ZeroCount":${point.zeroCount}` +
  `,"PositiveOffset":${point.positive.offset},"PositiveBucketCounts":${asList(point.positive.bucketCounts, String)}` +
  `,"NegativeOffset":${point.negative.offset},"NegativeBucketCounts":${asList(point.negative.bucketCounts, String)}` +
  rangeColumns(point)

const summaryColumns = (point: Message<typeof summaryPoint>): string =>
  `${totalColumns(point)},"ValueAtQuantiles.Quantile":${asList(point.quantileValues, ({ quantile }) => spellDouble(quantile))}` +
  `,"ValueAtQuantiles.Value":${asList(point.quantileValues, (one) => spellDouble(one.value))}`

const temporality = (data: { readonly aggregationTemporality: number }): string =>
  `,"AggregationTemporality":${data.aggregationTemporality}`

/** The points of one kind of data, each with its path in the metric. */
const pointsOf = <OfPoint extends Point>(
  metric: Metric,
  kind: keyof Metric,
  table: string,
  { dataPoints }: { readonly dataPoints: readonly (OfPoint | Error)[] },
  columns: (point: OfPoint) => string,
) =>
  dataPoints.map((point, at): readonly [path: string, item: Item | Error] => [
    `.${kind}.dataPoints[${at}]`,
    point instanceof Error ? point : { table, metric, point, columns: () => columns(point) },
  ])

const items = (metric: Metric): ReturnType<typeof pointsOf> => {
  const { gauge, sum, histogram, exponentialHistogram: exponential, summary } = metric
  const kinds = [
    gauge && pointsOf(metric, 'gauge', 'otel.otel_metrics_gauge', gauge, numberColumns),
    sum &&
      pointsOf(metric, 'sum', 'otel.otel_metrics_sum', sum, (point) => {
        return `${numberColumns(point)}${temporality(sum)},"IsMonotonic":${sum.isMonotonic}`
      }),
    histogram &&
      pointsOf(metric, 'histogram', 'otel.otel_metrics_histogram', histogram, (point) => {
        return histogramColumns(point) + temporality(histogram)
      }),
    exponential &&
      pointsOf(metric, 'exponentialHistogram', 'otel.otel_metrics_exponential_histogram', exponential, (point) => {
        return exponentialColumns(point) + temporality(exponential)
      }),
    summary && pointsOf(metric, 'summary', 'otel.otel_metrics_summary', summary, summaryColumns),
  ].filter((kind) => kind !== null)
  if (kinds.length > 0) return kinds.flat()
  throw new OtlpError('it has data of no known kind: wanted gauge, sum, histogram, exponentialHistogram or summary')
}

export const metrics = createSignal({
  path: '/v1/metrics',
  rejectedField: 'rejectedDataPoints',
  levels: ['resourceMetrics', 'scopeMetrics', 'metrics'],
  entry: metricSchema,
  items,
  table: ({ table }) => table,
  shared,
  row,
})
