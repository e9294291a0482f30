// Decoded spans as rows of otel_traces, spelled as the official OpenTelemetry Collector's clickhouseexporter spells them,
// in JSONEachRow bytes. Rows are written out by hand because times are 64-bit integers, which JSON.stringify cannot
// print and which ClickHouse reads exactly as DateTime64 ticks; each resource is spelled once for all its spans.
import type { KeyValue, ResourceSpans, Span, Value } from './otlp.ts'

const kinds = ['Unspecified', 'Internal', 'Server', 'Client', 'Producer', 'Consumer']
const statusCodes = ['Unset', 'Ok', 'Error']

/** The spans as one JSONEachRow row a line. */
export const toRows = (resources: readonly ResourceSpans[]): Buffer => {
  const lines: string[] = []
  for (const resource of resources) {
    const service = resource.attributes.find(([key]) => key === 'service.name')?.[1] ?? null
    const shared = `,"ServiceName":${quote(asString(service))},"ResourceAttributes":${asMap(resource.attributes)}`
    for (const scope of resource.scopes) {
      const head = `${shared},"ScopeName":${quote(scope.name)},"ScopeVersion":${quote(scope.version)}`
      for (const span of scope.spans) lines.push(row(span, head))
    }
  }
  return Buffer.from(lines.join(''))
}

const row = (span: Span, head: string): string =>
  `{"Timestamp":${span.start},"TraceId":"${span.traceId}","SpanId":"${span.spanId}"` +
  `,"ParentSpanId":"${span.parentSpanId}","TraceState":${quote(span.traceState)},"SpanName":${quote(span.name)}` +
  `,"SpanKind":"${kinds[span.kind] ?? 'Unspecified'}"${head},"SpanAttributes":${asMap(span.attributes)}` +
  `,"Duration":${span.end > span.start ? span.end - span.start : 0n}` +
  `,"StatusCode":"${statusCodes[span.statusCode] ?? 'Unset'}","StatusMessage":${quote(span.statusMessage)}` +
  (span.events.length > 0 ? eventColumns(span.events) : '') +
  `${span.links.length > 0 ? linkColumns(span.links) : ''}}\n`

const eventColumns = (events: Span['events']): string =>
  `,"Events.Timestamp":${column(events, (event) => String(event.time))}` +
  `,"Events.Name":${column(events, (event) => quote(event.name))}` +
  `,"Events.Attributes":${column(events, (event) => asMap(event.attributes))}`

const linkColumns = (links: Span['links']): string =>
  `,"Links.TraceId":${column(links, (link) => quote(link.traceId))}` +
  `,"Links.SpanId":${column(links, (link) => quote(link.spanId))}` +
  `,"Links.TraceState":${column(links, (link) => quote(link.traceState))}` +
  `,"Links.Attributes":${column(links, (link) => asMap(link.attributes))}`

const column = <Item>(items: readonly Item[], print: (item: Item) => string): string =>
  `[${items.map(print).join(',')}]`

/** A JSON string; ClickHouse refuses half a surrogate pair, so that becomes U+FFFD. */
const quote = (text: string): string => JSON.stringify(text.isWellFormed() ? text : text.toWellFormed())

const asMap = (attributes: readonly KeyValue[]): string =>
  `{${attributes.map(([key, value]) => `${quote(key)}:${quote(asString(value))}`).join(',')}}`

/** An attribute's value as text: the collector's `pcommon.Value.AsString`. */
export const asString = (value: Value): string => {
  if (typeof value === 'string') return value
  if (value === null) return ''
  if (typeof value === 'bigint' || typeof value === 'boolean') return String(value)
  if (typeof value === 'number')
    return Number.isFinite(value) ? double(value) : `json: unsupported value: ${notFinite(value)}`
  if (value instanceof Uint8Array) return base64(value)
  return asJson(value) ?? ''
}

/** Compact JSON with sorted keys; null where it holds a number that JSON does not have, which Go refuses to print. */
const asJson = (value: Value): string | null => {
  if (value === null) return 'null'
  if (typeof value === 'string') return quote(value)
  if (typeof value === 'bigint' || typeof value === 'boolean') return String(value)
  if (typeof value === 'number') return Number.isFinite(value) ? double(value) : null
  if (value instanceof Uint8Array) return `"${base64(value)}"`
  if ('list' in value) return joined('[', value.list.map(asJson), ']')
  const lastByKey = [...new Map(value.map)].sort(([a], [b]) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
  const members = lastByKey.map(([key, member]) => {
    const json = asJson(member)
    return json === null ? null : `${quote(key)}:${json}`
  })
  return joined('{', members, '}')
}

const joined = (open: string, parts: readonly (string | null)[], close: string): string | null =>
  parts.includes(null) ? null : open + parts.join(',') + close

const base64 = (bytes: Uint8Array): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('base64')

/** Go prints a double as JavaScript does, but keeps the sign of zero. */
const double = (value: number): string => (Object.is(value, -0) ? '-0' : String(value))
const notFinite = (value: number): string => (Number.isNaN(value) ? 'NaN' : value > 0 ? '+Inf' : '-Inf')
