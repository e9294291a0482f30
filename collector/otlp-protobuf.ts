// Trace export requests in protobuf, decoded by hand on a wire reader: no generated code, and unknown fields are skipped
// by their wire type as protobuf intends. Each `case` is a tag, field number and wire type together, so a known
// field of an unexpected type counts as unknown. Gives the form of otlp.ts.
import { BinaryReader, WireType } from '@bufbuild/protobuf/wire'
import {
  type KeyValue,
  OtlpError,
  type ResourceSpans,
  type ScopeSpans,
  type Span,
  SpanCount,
  type SpanEvent,
  type SpanLink,
  type TraceRequest,
  type Value,
  valueDepthMax,
} from './otlp.ts'

const varint = (field: number): number => (field << 3) | WireType.Varint
const fixed64 = (field: number): number => (field << 3) | WireType.Bit64
const bytes = (field: number): number => (field << 3) | WireType.LengthDelimited
const [varint2, varint3, varint6] = [varint(2), varint(3), varint(6)]
const [fixed1, fixed4, fixed7, fixed8] = [fixed64(1), fixed64(4), fixed64(7), fixed64(8)]
const [bytes1, bytes2, bytes3, bytes4, bytes5, bytes6, bytes7] = [1, 2, 3, 4, 5, 6, 7].map(bytes)
const [bytes9, bytes11, bytes13, bytes15] = [9, 11, 13, 15].map(bytes)

/** Decodes a protobuf trace export request. Throws OtlpError when its frame is broken. */
export const decodeProtobuf = (body: Uint8Array): TraceRequest => {
  const reader = new BinaryReader(body)
  const count = new SpanCount()
  const resources: ResourceSpans[] = []
  try {
    fields(reader, reader.len, (tag) => {
      if (tag !== bytes1) return false
      resources.push(resourceSpans(reader, `resourceSpans[${resources.length}]`, count))
      return true
    })
  } catch (error) {
    throw new OtlpError(`the body is not a trace export request in protobuf: ${(error as Error).message}`)
  }
  return { resources, accepted: count.accepted, rejected: count.rejected, problems: count.problems }
}

/** Visits every field up to `end`; a visit that returns false leaves the field to be skipped. */
const fields = (reader: BinaryReader, end: number, visit: (tag: number) => boolean): void => {
  while (reader.pos < end) {
    const [field, type] = reader.tag()
    if (!visit((field << 3) | type)) reader.skip(type, field)
  }
  if (reader.pos !== end) throw new OtlpError('a field runs past the end of its message')
}

/** Visits the fields of the message that starts here with its length. */
const message = (reader: BinaryReader, visit: (tag: number) => boolean): void => fields(reader, endOf(reader), visit)

const endOf = (reader: BinaryReader): number => {
  const end = reader.uint32() + reader.pos
  if (end > reader.len) throw new OtlpError('a message is longer than the body')
  return end
}

const resourceSpans = (reader: BinaryReader, path: string, count: SpanCount): ResourceSpans => {
  const attributes: KeyValue[] = []
  const scopes: ScopeSpans[] = []
  message(reader, (tag) => {
    if (tag === bytes2) scopes.push(scopeSpans(reader, `${path}.scopeSpans[${scopes.length}]`, count))
    else if (tag === bytes1) message(reader, (inner) => inner === bytes1 && attributes.push(keyValue(reader, 0)) > 0)
    else return false
    return true
  })
  return { attributes, scopes }
}

const scopeSpans = (reader: BinaryReader, path: string, count: SpanCount): ScopeSpans => {
  const scope = { name: '', version: '', spans: [] as Span[] }
  let index = 0
  message(reader, (tag) => {
    if (tag === bytes2) {
      const end = endOf(reader)
      const at = index++
      const span = count.take(
        () => `${path}.spans[${at}]`,
        () => readSpan(reader, end),
      )
      if (span) scope.spans.push(span)
      reader.pos = end
    } else if (tag === bytes1) {
      message(reader, (inner) => {
        if (inner === bytes1) scope.name = reader.string()
        else if (inner === bytes2) scope.version = reader.string()
        else return false
        return true
      })
    } else return false
    return true
  })
  return scope
}

const readSpan = (reader: BinaryReader, end: number): Span => {
  const attributes: KeyValue[] = []
  const events: SpanEvent[] = []
  const links: SpanLink[] = []
  const span = { traceId: '', spanId: '', parentSpanId: '', traceState: '', name: '', kind: 0, start: 0n, end: 0n }
  const status = { statusCode: 0, statusMessage: '' }
  fields(reader, end, (tag) => {
    switch (tag) {
      case bytes1:
        span.traceId = hex(reader)
        return true
      case bytes2:
        span.spanId = hex(reader)
        return true
      case bytes3:
        span.traceState = reader.string()
        return true
      case bytes4:
        span.parentSpanId = hex(reader)
        return true
      case bytes5:
        span.name = reader.string()
        return true
      case varint6:
        span.kind = reader.int32()
        return true
      case fixed7:
        span.start = time(reader)
        return true
      case fixed8:
        span.end = time(reader)
        return true
      case bytes9:
        return attributes.push(keyValue(reader, 0)) > 0
      case bytes11:
        return events.push(readEvent(reader)) > 0
      case bytes13:
        return links.push(readLink(reader)) > 0
      case bytes15:
        message(reader, (inner) => {
          if (inner === bytes2) status.statusMessage = reader.string()
          else if (inner === varint3) status.statusCode = reader.int32()
          else return false
          return true
        })
        return true
      default:
        return false
    }
  })
  return { ...span, ...status, attributes, events, links }
}

const readEvent = (reader: BinaryReader): SpanEvent => {
  const event = { time: 0n, name: '', attributes: [] as KeyValue[] }
  message(reader, (tag) => {
    if (tag === fixed1) event.time = time(reader)
    else if (tag === bytes2) event.name = reader.string()
    else if (tag === bytes3) event.attributes.push(keyValue(reader, 0))
    else return false
    return true
  })
  return event
}

const readLink = (reader: BinaryReader): SpanLink => {
  const link = { traceId: '', spanId: '', traceState: '', attributes: [] as KeyValue[] }
  message(reader, (tag) => {
    if (tag === bytes1) link.traceId = hex(reader)
    else if (tag === bytes2) link.spanId = hex(reader)
    else if (tag === bytes3) link.traceState = reader.string()
    else if (tag === bytes4) link.attributes.push(keyValue(reader, 0))
    else return false
    return true
  })
  return link
}

const keyValue = (reader: BinaryReader, depth: number): KeyValue => {
  let key = ''
  let value: Value = null
  message(reader, (tag) => {
    if (tag === bytes1) key = reader.string()
    else if (tag === bytes2) value = anyValue(reader, depth)
    else return false
    return true
  })
  return [key, value]
}

const anyValue = (reader: BinaryReader, depth: number): Value => {
  if (depth > valueDepthMax) throw new OtlpError(`an attribute nests deeper than ${valueDepthMax}`)
  let value: Value = null
  message(reader, (tag) => {
    if (tag === bytes1) value = reader.string()
    else if (tag === varint2) value = reader.bool()
    else if (tag === varint3) value = BigInt(reader.int64())
    else if (tag === fixed4) value = reader.double()
    else if (tag === bytes5) value = { list: repeated(reader, () => anyValue(reader, depth + 1)) }
    else if (tag === bytes6) value = { map: repeated(reader, () => keyValue(reader, depth + 1)) }
    else if (tag === bytes7) value = reader.bytes()
    else return false
    return true
  })
  return value
}

/** The message that holds nothing but a repeated field 1. */
const repeated = <Item>(reader: BinaryReader, read: () => Item): Item[] => {
  const items: Item[] = []
  message(reader, (tag) => tag === bytes1 && items.push(read()) > 0)
  return items
}

const hex = (reader: BinaryReader): string => {
  const id = reader.bytes()
  return Buffer.from(id.buffer, id.byteOffset, id.byteLength).toString('hex')
}
const time = (reader: BinaryReader): bigint => BigInt(reader.fixed64())
