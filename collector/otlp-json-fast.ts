// JSON trace export requests straight into columns: one walk over the bytes, in which every field is copied once and
// nothing becomes an object. It takes the shape that SDKs write, strictly; whatever is spelled another way, or breaks a
// rule, makes it give up, and the careful decoder reads the body again and says what is wrong. A test holds the two to equal rows.
import { isUtf8 } from 'node:buffer'
import { bytesOf, JsonScan, namesByShape } from './json-scan.ts'
import type { Bytes, TextMap } from './native-block.ts'
import { jsonValue } from './otlp-values.ts'
import { asString } from './rows.ts'
import { irregular, SpanColumns } from './span-columns.ts'

/** Whole numbers of no more digits are exact in 64 bits, and as doubles. */
const int64DigitsMax = 18
const doubleDigitsMax = 15
/** A number that JSON.parse could round. */
const inexact = /[:[,]\s*-?\d{16}/
const [quote, closeObject, minus, zero] = [0x22, 0x7d, 0x2d, 0x30]
const [letterS, letterI, letterD] = [0x73, 0x69, 0x64]

const names = [
  ...(['resourceSpans', 'resource', 'scopeSpans', 'scope', 'spans', 'attributes', 'events', 'links'] as const),
  ...(['traceId', 'spanId', 'parentSpanId', 'traceState', 'name', 'kind', 'version', 'status', 'code'] as const),
  ...(['message', 'startTimeUnixNano', 'endTimeUnixNano', 'timeUnixNano', 'schemaUrl'] as const),
]
type Name = (typeof names)[number] | null

const keyOpening = bytesOf('{"key":')
const valueOpening = bytesOf(',"value":{')
const stringValue = bytesOf('"stringValue":')
const intValue = bytesOf('"intValue":')
const doubleValue = bytesOf('"doubleValue":')
const boolValue = bytesOf('"boolValue":')
const closing = bytesOf('}}')
const yes = bytesOf('true')
const no = bytesOf('false')
const serviceName = bytesOf('service.name')

const spans = new SpanColumns()
const scan = new JsonScan<(typeof names)[number]>(namesByShape(names))

/** The body's spans as a block for otel_traces; null when the body is not of the usual shape. */
export const blockOfJson = (body: Uint8Array): { readonly rows: Buffer; readonly count: number } | null => {
  if (!isUtf8(body)) return null
  scan.open(body)
  spans.clear()
  try {
    scan.members((name) => (name === 'resourceSpans' ? scan.list(resourceSpans) : scan.skip()))
    scan.end()
    const count = spans.rows
    return { count, rows: spans.block() }
  } catch {
    return null
  } finally {
    scan.open(Buffer.alloc(0))
  }
}

const resourceSpans = (): void => {
  spans.beginResource()
  const before = spans.rows
  scan.members((name) => {
    if (name === 'scopeSpans') return scan.list(scopeSpans)
    if (name === 'schemaUrl') return scan.string(spans.unused)
    if (name !== 'resource') return scan.skip()
    if (spans.rows !== before) throw irregular
    scan.members((inner) => (inner === 'attributes' ? scan.list(resourceAttribute) : scan.skip()))
    return spans.resource.attributes.endRow()
  })
}

const resourceAttribute = (): void => {
  const { keys, values } = spans.resource.attributes
  const [keyAt, valueAt] = [keys.at + 1, values.at]
  attribute(spans.resource.attributes)
  if (keys.buffer.subarray(keyAt, keys.at).equals(serviceName)) spans.service(values.buffer, valueAt, values.at)
}

const scopeSpans = (): void => {
  spans.beginScope()
  const before = spans.rows
  scan.members((name) => {
    if (name === 'spans') return scan.list(span)
    if (name === 'schemaUrl') return scan.string(spans.unused)
    if (name !== 'scope') return scan.skip()
    if (spans.rows !== before) throw irregular
    return scan.members((inner) => {
      // Attributes of a scope are seldom set, and not stored.
      if (inner !== 'name' && inner !== 'version') throw irregular
      spans.scope[inner].clear()
      return scan.string(spans.scope[inner])
    })
  })
}

const span = (): void => {
  scan.members(spanMember)
  spans.endSpan()
}

const spanMember = (name: Name) => {
  switch (name) {
    case 'traceId':
      return scan.id(spans.field(name), 32)
    case 'spanId':
      return scan.id(spans.field(name), 16)
    case 'parentSpanId':
      return scan.isEmptyString() ? scan.string(spans.field(name)) : scan.id(spans.field(name), 16)
    case 'traceState':
    case 'name':
      return scan.string(spans.field(name))
    case 'kind':
      return spans.kind(scan.digit())
    case 'startTimeUnixNano':
      return scan.instant(spans.start)
    case 'endTimeUnixNano':
      return scan.instant(spans.end)
    case 'attributes':
      return scan.list(spanAttribute)
    case 'events':
      return scan.list(event)
    case 'links':
      return scan.list(link)
    case 'status':
      return scan.members(statusMember)
    default:
      return scan.skip()
  }
}

const statusMember = (name: Name): void => {
  if (name === 'code') spans.statusCode(scan.digit())
  else if (name === 'message') scan.string(spans.field('statusMessage'))
  else scan.skip()
}

const spanAttribute = (): void => attribute(spans.attributes)
const eventAttribute = (): void => attribute(spans.events.attributes)
const linkAttribute = (): void => attribute(spans.links.attributes)

const event = (): void => {
  const time = { seconds: 0, nanos: 0 }
  const namesAt = spans.events.names.at
  scan.members((name) => {
    if (name === 'timeUnixNano') scan.instant(time)
    else if (name === 'name') scan.string(spans.events.names)
    else if (name === 'attributes') scan.list(eventAttribute)
    else scan.skip()
  })
  if (spans.events.names.at === namesAt) spans.events.names.string('')
  spans.endEvent(time)
}

const link = (): void => {
  const { traceIds, spanIds, states } = spans.links
  const [traceAt, spanAt, stateAt] = [traceIds.at, spanIds.at, states.at]
  scan.members((name) => {
    if (name === 'traceId') scan.id(traceIds, 32)
    else if (name === 'spanId') scan.id(spanIds, 16)
    else if (name === 'traceState') scan.string(states)
    else if (name === 'attributes') scan.list(linkAttribute)
    else scan.skip()
  })
  if (traceIds.at === traceAt || spanIds.at === spanAt) throw irregular
  if (states.at === stateAt) states.string('')
  spans.endLink()
}

/** `{"key":"…","value":{"stringValue":"…"}}`, the inmost and by far the most frequent thing. */
const attribute = (map: TextMap): void => {
  scan.expect(keyOpening)
  scan.string(map.keys)
  scan.expect(valueOpening)
  const start = scan.at
  const written = usualValue(map.values, scan.bytes[start + 1])
  if (!written) {
    scan.at = start - 1
    rareValue(map.values)
  } else scan.expect(closing)
  map.endEntry()
}

/** Writes a plain value; false, and nothing written, where it is anything else. */
const usualValue = (values: Bytes, letter: number | undefined): boolean => {
  if (letter === letterI) return int(values)
  if (letter === letterD) return double(values)
  if (letter !== letterS) return bool(values)
  if (!scan.matches(stringValue) || scan.bytes[scan.at] !== quote) return false
  scan.string(values)
  return true
}

/** Any other value, by way of objects. */
const rareValue = (values: Bytes): void => {
  const start = scan.at
  scan.skip()
  const text = scan.slice(start)
  if (inexact.test(text)) throw irregular
  values.string(asString(jsonValue(JSON.parse(text), '')))
  if (scan.bytes[scan.at++] !== closeObject) throw irregular
}

const int = (values: Bytes): boolean => {
  if (!scan.matches(intValue)) return false
  const quoted = scan.bytes[scan.at] === quote
  if (quoted) scan.at += 1
  const start = scan.at
  if (scan.bytes[start] === minus) scan.at += 1
  const first = scan.at
  const digits = scan.digits()
  const leadingZero = scan.bytes[first] === zero && (digits > 1 || first > start)
  if (digits === 0 || leadingZero || digits > (quoted ? int64DigitsMax : doubleDigitsMax)) return false
  const end = scan.at
  if (quoted && scan.bytes[scan.at++] !== quote) return false
  if (scan.bytes[scan.at] !== closeObject) return false
  values.text(scan.bytes, start, end)
  return true
}

const double = (values: Bytes): boolean => {
  if (!scan.matches(doubleValue) || scan.bytes[scan.at] === quote) return false
  const start = scan.at
  const asWritten = scan.number()
  if (scan.bytes[scan.at] !== closeObject) return false
  if (asWritten) values.text(scan.bytes, start, scan.at)
  else values.string(asString(Number(scan.slice(start))))
  return true
}

const bool = (values: Bytes): boolean => {
  if (!scan.matches(boolValue)) return false
  const start = scan.at
  if ((!scan.matches(yes) && !scan.matches(no)) || scan.bytes[scan.at] !== closeObject) return false
  values.text(scan.bytes, start, scan.at)
  return true
}
