// How values are spelled in the columns of otel_traces, otel_logs and otel_metrics_*: as the official OpenTelemetry
// Collector's clickhouseexporter spells them, in JSONEachRow. Rows are written out by hand because times are 64-bit
// integers, which JSON.stringify cannot print and which ClickHouse reads exactly as DateTime64 ticks.
import type { KeyValue, Value } from './otlp.ts'

/** A JSON string; ClickHouse refuses half a surrogate pair, so that becomes U+FFFD. */
export const quote = (text: string): string => JSON.stringify(text.isWellFormed() ? text : text.toWellFormed())

/** A Float64; only in quotes does ClickHouse take what is not finite. */
export const spellDouble = (value: number): string => (Number.isFinite(value) ? double(value) : `"${value}"`)

export const asList = <Item>(items: readonly Item[], print: (item: Item) => string): string =>
  `[${items.map(print).join(',')}]`

/** Attributes as a Map column, in the order of their keys' bytes, as the exporter's driver writes them. */
export const asMap = (attributes: readonly KeyValue[]): string =>
  `{${inKeyOrder(attributes)
    .map(([key, value]) => `${quote(key)}:${quote(asString(value))}`)
    .join(',')}}`

/** The columns of a resource: who sent the item, and all that is said of them. */
export const resourceColumns = (attributes: readonly KeyValue[]): string => {
  const service = attributes.find(([key]) => key === 'service.name')?.[1] ?? null
  return `"ServiceName":${quote(asString(service))},"ResourceAttributes":${asMap(attributes)}`
}

const beyondBmp = /[\ud800-\udfff]/
const byBytes = ([a]: KeyValue, [b]: KeyValue): number => Buffer.compare(Buffer.from(a), Buffer.from(b))
const byUnits = ([a]: KeyValue, [b]: KeyValue): number => (a < b ? -1 : a > b ? 1 : 0)

/** UTF-16 units are in the order of UTF-8 bytes, but for characters that need two units. */
const inKeyOrder = (pairs: readonly KeyValue[]): readonly KeyValue[] =>
  pairs.length < 2 ? pairs : pairs.toSorted(pairs.some(([key]) => beyondBmp.test(key)) ? byBytes : byUnits)

/** An attribute's value as text: the collector's `pcommon.Value.AsString` (pdata v1.67). */
export const asString = (value: Value): string => {
  if (typeof value === 'string') return value
  if (value === null) return ''
  if (typeof value === 'number') return double(value)
  if (typeof value === 'bigint' || typeof value === 'boolean') return String(value)
  if (value instanceof Uint8Array) return base64(value)
  return asJson(value) ?? ''
}

/** Compact JSON with sorted keys; null where it holds a number that JSON does not have, which Go refuses to print. */
const asJson = (value: Value): string | null => {
  if (value === null) return 'null'
  if (typeof value === 'string') return goQuote(value)
  if (typeof value === 'bigint' || typeof value === 'boolean') return String(value)
  if (typeof value === 'number') return Number.isFinite(value) ? double(value) : null
  // Go's decoder keeps no bytes as nil, which it prints as null.
  if (value instanceof Uint8Array) return value.length === 0 ? 'null' : `"${base64(value)}"`
  if ('list' in value) return joined('[', value.list.map(asJson), ']')
  const members = inKeyOrder([...new Map(value.map)]).map(([key, member]) => {
    const json = asJson(member)
    return json === null ? null : `${goQuote(key)}:${json}`
  })
  return joined('{', members, '}')
}

const joined = (open: string, parts: readonly (string | null)[], close: string): string | null =>
  parts.includes(null) ? null : open + parts.join(',') + close

/** Go escapes the two line separators that JavaScript leaves as they are. */
const goQuote = (text: string): string =>
  quote(text).replace(/[\u2028\u2029]/g, (found) => (found === '\u2028' ? '\\u2028' : '\\u2029'))

const base64 = (bytes: Uint8Array): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('base64')

/** Go prints a double as JavaScript does, but keeps the sign of zero. */
const double = (value: number): string => (Object.is(value, -0) ? '-0' : String(value))
