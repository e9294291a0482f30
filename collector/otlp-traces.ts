// Traces: a span as OTLP's schema has it, and as a row of otel_traces. The exporter stores neither schema addresses nor
// flags nor counts of what was dropped, so they are not read.
import { beginCounting, checkId, checkTime } from './otlp.ts'
import { blockOfJson } from './otlp-json-fast.ts'
import { blockOfProtobuf } from './otlp-protobuf-fast.ts'
import { attributes, enumeration, fixed64, id, type Message, message, repeated, text } from './otlp-schema.ts'
import { checkRowsLength, createSignal, type ExportRows, type Origin, type Signal } from './otlp-signal.ts'
import { asList, asMap, quote, resourceColumns } from './rows.ts'

const spanSchema = {
  traceId: id(1),
  spanId: id(2),
  traceState: text(3),
  parentSpanId: id(4),
  name: text(5),
  kind: enumeration(6),
  startTimeUnixNano: fixed64(7),
  endTimeUnixNano: fixed64(8),
  attributes: attributes(9),
  events: repeated(11, { timeUnixNano: fixed64(1), name: text(2), attributes: attributes(3) }),
  links: repeated(13, { traceId: id(1), spanId: id(2), traceState: text(3), attributes: attributes(4) }),
  status: message(15, { message: text(2), code: enumeration(3) }),
}
type Span = Message<typeof spanSchema>

const kinds = ['Unspecified', 'Internal', 'Server', 'Client', 'Producer', 'Consumer']
const statusCodes = ['Unset', 'Ok', 'Error']

const check = (span: Span): void => {
  checkId('traceId', span.traceId, 32)
  checkId('spanId', span.spanId, 16)
  if (span.parentSpanId !== '') checkId('parentSpanId', span.parentSpanId, 16)
  checkTime('startTimeUnixNano', span.startTimeUnixNano)
  checkTime('endTimeUnixNano', span.endTimeUnixNano)
  for (const event of span.events) checkTime('events.timeUnixNano', event.timeUnixNano)
}

const shared = ({ resource, scope }: Origin): string =>
  `${resourceColumns(resource.attributes)},"ScopeName":${quote(scope.name)},"ScopeVersion":${quote(scope.version)}`

const row = (span: Span, head: string): string => {
  check(span)
  const { startTimeUnixNano: start, endTimeUnixNano: end, status, events, links } = span
  return (
    `{${head},"Timestamp":${start},"TraceId":"${span.traceId}","SpanId":"${span.spanId}"` +
    `,"ParentSpanId":"${span.parentSpanId}","TraceState":${quote(span.traceState)},"SpanName":${quote(span.name)}` +
    `,"SpanKind":"${kinds[span.kind] ?? ''}","SpanAttributes":${asMap(span.attributes)}` +
    // The exporter lets a span that ends before it starts last 584 years.
    `,"Duration":${end > start ? end - start : 0n}` +
    `,"StatusCode":"${statusCodes[status.code] ?? ''}","StatusMessage":${quote(status.message)}` +
    `${events.length > 0 ? eventColumns(events) : ''}${links.length > 0 ? linkColumns(links) : ''}}\n`
  )
}

const eventColumns = (events: Span['events']): string =>
  `,"Events.Timestamp":${asList(events, (event) => String(event.timeUnixNano))}` +
  `,"Events.Name":${asList(events, (event) => quote(event.name))}` +
  `,"Events.Attributes":${asList(events, (event) => asMap(event.attributes))}`

const linkColumns = (links: Span['links']): string =>
  `,"Links.TraceId":${asList(links, (link) => quote(link.traceId))}` +
  `,"Links.SpanId":${asList(links, (link) => quote(link.spanId))}` +
  `,"Links.TraceState":${asList(links, (link) => quote(link.traceState))}` +
  `,"Links.Attributes":${asList(links, (link) => asMap(link.attributes))}`

/** Traces read with all care: every rule is checked, and what is wrong is named. */
export const carefulTraces = createSignal({
  path: '/v1/traces',
  rejectedField: 'rejectedSpans',
  levels: ['resourceSpans', 'scopeSpans', 'spans'],
  entry: spanSchema,
  items: (span) => [['', span]],
  table: () => 'otel.otel_traces',
  shared,
  row,
})

const asRows = (block: { readonly rows: Buffer; readonly count: number } | null): ExportRows | null => {
  if (block === null || block.count === 0) return null
  checkRowsLength(block.rows.length)
  const table = { table: 'otel.otel_traces', ...block, format: 'Native' as const }
  return { tables: [table], accepted: block.count, rejected: 0, problems: [] }
}

/** Bodies of the usual shape go straight into columns, for a third of the cost; all others are read with care. */
export const traces: Signal = {
  ...carefulTraces,
  json: (body) => {
    beginCounting()
    return asRows(blockOfJson(body)) ?? carefulTraces.json(body)
  },
  protobuf: (body) => {
    beginCounting()
    return asRows(blockOfProtobuf(body)) ?? carefulTraces.protobuf(body)
  },
}
