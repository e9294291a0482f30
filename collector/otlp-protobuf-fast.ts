// Protobuf trace export requests straight into columns, as otlp-json-fast.ts does it for JSON: strings are copied from the
// body to their column once, and only numbers become text. Unknown fields are skipped by their wire type; what is not as
// usual makes it give up, and the careful decoder reads the body again. A test holds the two to equal rows.
import { isUtf8 } from 'node:buffer'
import { BinaryReader } from '@bufbuild/protobuf/wire'
import type { Bytes, TextMap } from './native-block.ts'
import { readValue } from './otlp-values.ts'
import { asString } from './rows.ts'
import { type Instant, irregular, SpanColumns, setInstant, writeHex } from './span-columns.ts'

const varintBytesMax = 10
/** A field number and wire type: 0 varint, 1 eight bytes, 2 with a length, 5 four bytes. */
const tag = (field: number, type: number): number => field * 8 + type
const [bytes1, bytes2, bytes3, bytes4, bytes5] = [1, 2, 3, 4, 5].map((field) => tag(field, 2))
const [bytes9, bytes11, bytes13, bytes15] = [9, 11, 13, 15].map((field) => tag(field, 2))
const [varint2, varint3, varint6, eight1, eight4, eight7, eight8] = [
  16,
  24,
  48,
  tag(1, 1),
  tag(4, 1),
  tag(7, 1),
  tag(8, 1),
]
/** Tags of the first and the last field number that protobuf has. */
const fieldMin = 8
const fieldMax = 0xffff_ffff
/** The first byte that is not ASCII. */
const ascii = 0x80
const serviceName = Buffer.from('service.name')

const spans = new SpanColumns()
let body: Buffer = Buffer.alloc(0)
let at = 0

/** The body's spans as a block for otel_traces; null when the body is not of the usual shape. */
export const blockOfProtobuf = (bytes: Uint8Array): { readonly rows: Buffer; readonly count: number } | null => {
  body = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
  at = 0
  spans.clear()
  try {
    fields(body.length, (field) => field === bytes1 && message(resourceSpans))
    const count = spans.rows
    return { count, rows: spans.block() }
  } catch {
    return null
  } finally {
    body = Buffer.alloc(0)
  }
}

/** Visits every field up to `end`; a visit that returns false leaves the field to be skipped. */
const fields = (end: number, visit: (field: number) => boolean): void => {
  while (at < end) {
    const field = varint()
    if (field < fieldMin || field > fieldMax) throw irregular
    if (!visit(field)) skip(field % 8)
  }
  if (at !== end) throw irregular
}

const message = (read: (end: number) => void): true => {
  read(lengthEnd())
  return true
}

/** Where the field that starts here with its length ends. */
const lengthEnd = (): number => {
  const length = varint()
  const end = at + length
  if (end > body.length) throw irregular
  return end
}

const resourceSpans = (end: number): void => {
  spans.beginResource()
  const before = spans.rows
  let seen = false
  fields(end, (field) => {
    if (field === bytes2) return message(scopeSpans)
    if (field === bytes3) return string(spans.unused)
    if (field !== bytes1) return false
    if (seen || spans.rows !== before) throw irregular
    seen = true
    fields(lengthEnd(), (inner) => inner === bytes1 && resourceAttribute())
    spans.resource.attributes.endRow()
    return true
  })
}

const resourceAttribute = (): boolean => {
  const { keys, values } = spans.resource.attributes
  const [keyAt, valueAt] = [keys.at + 1, values.at]
  attribute(spans.resource.attributes)
  if (keys.buffer.subarray(keyAt, keys.at).equals(serviceName)) spans.service(values.buffer, valueAt, values.at)
  return true
}

const scopeSpans = (end: number): void => {
  spans.beginScope()
  const before = spans.rows
  let seen = false
  fields(end, (field) => {
    if (field === bytes2) return message(span)
    if (field === bytes3) return string(spans.unused)
    if (field !== bytes1) return false
    if (seen || spans.rows !== before) throw irregular
    seen = true
    fields(lengthEnd(), (inner) => {
      // Attributes of a scope are seldom set, and not stored.
      if (inner !== bytes1 && inner !== bytes2) throw irregular
      const into = inner === bytes1 ? spans.scope.name : spans.scope.version
      into.clear()
      return string(into)
    })
    return true
  })
}

const span = (end: number): void => {
  fields(end, spanField)
  spans.endSpan()
}

const spanField = (field: number): boolean => {
  switch (field) {
    case bytes1:
      return id(spans.field('traceId'), 16)
    case bytes2:
      return id(spans.field('spanId'), 8)
    case bytes3:
      return string(spans.field('traceState'))
    case bytes4:
      return body[at] === 0 ? string(spans.field('parentSpanId')) : id(spans.field('parentSpanId'), 8)
    case bytes5:
      return string(spans.field('name'))
    case varint6:
      spans.kind(varint() | 0)
      return true
    case eight7:
      return instant(spans.start)
    case eight8:
      return instant(spans.end)
    case bytes9:
      return attribute(spans.attributes)
    case bytes11:
      return event()
    case bytes13:
      return link()
    case bytes15:
      fields(lengthEnd(), statusField)
      return true
    default:
      return false
  }
}

const statusField = (field: number): boolean => {
  if (field === bytes2) return string(spans.field('statusMessage'))
  if (field !== varint3) return false
  spans.statusCode(varint() | 0)
  return true
}

const event = (): true => {
  const time = { seconds: 0, nanos: 0 }
  const { names, attributes } = spans.events
  let named = false
  fields(lengthEnd(), (field) => {
    if (field === eight1) return instant(time)
    if (field === bytes3) return attribute(attributes)
    if (field !== bytes2) return false
    if (named) throw irregular
    named = true
    return string(names)
  })
  if (!named) names.string('')
  spans.endEvent(time)
  return true
}

const link = (): true => {
  const { traceIds, spanIds, states, attributes } = spans.links
  const [traceAt, spanAt, stateAt] = [traceIds.at, spanIds.at, states.at]
  fields(lengthEnd(), (field) => {
    if (field === bytes1 && traceIds.at === traceAt) return id(traceIds, 16)
    if (field === bytes2 && spanIds.at === spanAt) return id(spanIds, 8)
    if (field === bytes3 && states.at === stateAt) return string(states)
    if (field === bytes4) return attribute(attributes)
    if (field < tag(4, 2)) throw irregular
    return false
  })
  if (traceIds.at === traceAt || spanIds.at === spanAt) throw irregular
  if (states.at === stateAt) states.string('')
  spans.endLink()
  return true
}

/** A KeyValue, its key first; an empty key is not written. */
const attribute = (map: TextMap): true => {
  const end = lengthEnd()
  let field = at < end ? varint() : 0
  if (field === bytes1) {
    string(map.keys)
    field = at < end ? varint() : 0
  } else map.keys.string('')
  if (field === bytes2) value(map.values)
  else if (field === 0) map.values.string('')
  else throw irregular
  if (at !== end) throw irregular
  map.endEntry()
  return true
}

const value = (values: Bytes): void => {
  const start = at
  const end = lengthEnd()
  const field = at === end ? 0 : varint()
  if (field === bytes1) string(values)
  else if (field === varint2) values.string(varint() === 0 ? 'false' : 'true')
  else if (field === varint3) int(values)
  else if (field === eight4 && end - at === 8) {
    values.string(asString(body.readDoubleLE(at)))
    at = end
  } else {
    values.string(asString(readValue(new BinaryReader(body.subarray(start, end)))).toWellFormed())
    at = end
  }
  if (at !== end) throw irregular
}

/** An int64, which most often is small and not negative. */
const int = (values: Bytes): void => {
  let number = 0
  let scale = 1
  const start = at
  for (;;) {
    const byte = body[at++]
    if (byte === undefined || at - start > varintBytesMax) throw irregular
    number += (byte & 0x7f) * scale
    if (byte < 0x80) break
    scale *= 0x80
  }
  if (Number.isSafeInteger(number)) values.string(String(number))
  else values.string(String(BigInt(new BinaryReader(body.subarray(start, at)).int64())))
}

/** An id of so many bytes, not all zero. */
const id = (into: Bytes, length: number): true => {
  const end = lengthEnd()
  let any = 0
  for (let from = at; from < end; from++) any |= body[from] as number
  if (end - at !== length || any === 0) throw irregular
  writeHex(into, body, at, end)
  at = end
  return true
}

const string = (into: Bytes): true => {
  const end = lengthEnd()
  let any = 0
  for (let from = at; from < end; from++) any |= body[from] as number
  if (any >= ascii && !isUtf8(body.subarray(at, end))) throw irregular
  into.text(body, at, end)
  at = end
  return true
}

const instant = (into: Instant): true => {
  if (at + 8 > body.length) throw irregular
  setInstant(into, body.readUInt32LE(at), body.readUInt32LE(at + 4))
  at += 8
  return true
}

/** A varint that fits a double exactly; longer ones are left to the careful decoder. */
const varint = (): number => {
  let number = 0
  let scale = 1
  for (let count = 0; count < 7; count++) {
    const byte = body[at++]
    if (byte === undefined) throw irregular
    number += (byte & 0x7f) * scale
    if (byte < 0x80) return number
    scale *= 0x80
  }
  throw irregular
}

const skip = (type: number): void => {
  if (type === 0) {
    while ((body[at++] ?? 0) >= 0x80);
  } else if (type === 1) at += 8
  else if (type === 2) at = lengthEnd()
  else if (type === 5) at += 4
  else throw irregular
  if (at > body.length) throw irregular
}
