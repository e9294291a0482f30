// Trace export requests as OTLP/HTTP carries them, brought to one internal form; this file holds that form, its rules and
// the JSON decoder, otlp-protobuf.ts the binary one. A span that breaks a rule is left out and named, so that a mixed
// batch keeps its good spans; a body whose frame is broken is refused whole.

/** How deep lists and maps may nest in an attribute. */
export const valueDepthMax = 32
/** How many refused spans an answer names. */
const problemsNamedMax = 10
/** The last instant that DateTime64(9) can hold, 2262-04-11. */
const nanosecondsMax = 9_223_372_036_854_775_807n

/** An attribute's value: ints are bigint, doubles number, null is an empty value. */
export type Value =
  | null
  | string
  | boolean
  | bigint
  | number
  | Uint8Array
  | { readonly list: readonly Value[] }
  | { readonly map: readonly KeyValue[] }
export type KeyValue = readonly [key: string, value: Value]

export type SpanEvent = { readonly time: bigint; readonly name: string; readonly attributes: readonly KeyValue[] }
export type SpanLink = {
  readonly traceId: string
  readonly spanId: string
  readonly traceState: string
  readonly attributes: readonly KeyValue[]
}
/** One span; ids are lower-case hex, times nanoseconds since the epoch, kind and status code OTLP's integers. */
export type Span = {
  readonly traceId: string
  readonly spanId: string
  readonly parentSpanId: string
  readonly traceState: string
  readonly name: string
  readonly kind: number
  readonly start: bigint
  readonly end: bigint
  readonly attributes: readonly KeyValue[]
  readonly events: readonly SpanEvent[]
  readonly links: readonly SpanLink[]
  readonly statusCode: number
  readonly statusMessage: string
}
export type ScopeSpans = { readonly name: string; readonly version: string; readonly spans: readonly Span[] }
export type ResourceSpans = { readonly attributes: readonly KeyValue[]; readonly scopes: readonly ScopeSpans[] }
/** A decoded request: the good spans, and what was wrong with the others. */
export type TraceRequest = {
  readonly resources: readonly ResourceSpans[]
  readonly accepted: number
  readonly rejected: number
  readonly problems: readonly string[]
}

/** The body, or one span of it, is not what OTLP says it should be. */
export class OtlpError extends Error {
  readonly code = 'otlp-invalid'
}

/** Counts the spans of one request while they are decoded. */
export class SpanCount {
  accepted = 0
  rejected = 0
  readonly problems: string[] = []

  /** The span that `decode` makes, or null when it breaks a rule; `path` says which one it is. */
  take(path: () => string, decode: () => Span): Span | null {
    try {
      const span = decode()
      checkSpan(span)
      this.accepted += 1
      return span
    } catch (error) {
      this.rejected += 1
      if (this.problems.length < problemsNamedMax) this.problems.push(`${path()}: ${(error as Error).message}`)
      return null
    }
  }
}

const checkSpan = (span: Span): void => {
  checkId('traceId', span.traceId, 32)
  checkId('spanId', span.spanId, 16)
  if (span.parentSpanId !== '') checkId('parentSpanId', span.parentSpanId, 16)
  checkTime('startTimeUnixNano', span.start)
  checkTime('endTimeUnixNano', span.end)
  for (const event of span.events) checkTime('events.timeUnixNano', event.time)
}

const checkId = (name: string, id: string, digits: number): void => {
  if (id.length !== digits || !/^[0-9a-f]+$/.test(id) || /^0+$/.test(id)) {
    throw new OtlpError(`${name} is '${id.slice(0, 64)}', wanted ${digits} hex digits, not all zero`)
  }
}

const checkTime = (name: string, time: bigint): void => {
  if (time < 0n || time > nanosecondsMax) throw new OtlpError(`${name} is ${time}, wanted 0 to ${nanosecondsMax}`)
}

/** Decodes a JSON trace export request. Throws OtlpError when its frame is broken. */
export const decodeJson = (body: Uint8Array): TraceRequest => {
  const count = new SpanCount()
  const request = object(parse(body), 'the body')
  const resources = list(request.resourceSpans, 'resourceSpans').map((item, index) => {
    const path = `resourceSpans[${index}]`
    const resourceSpans = object(item, path)
    const resource = optionalObject(resourceSpans.resource, `${path}.resource`)
    return {
      attributes: keyValues(resource.attributes, `${path}.resource.attributes`),
      scopes: list(resourceSpans.scopeSpans, `${path}.scopeSpans`).map((scope, at) =>
        scopeSpans(scope, `${path}.scopeSpans[${at}]`, count),
      ),
    }
  })
  return { resources, accepted: count.accepted, rejected: count.rejected, problems: count.problems }
}

const parse = (body: Uint8Array): unknown => {
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(body)
    // 64-bit fields may be bare numbers, which a double cannot hold; the slower parse is for bodies that have any.
    return /[:[,]\s*-?\d{16}/.test(text) ? JSON.parse(text, exactIntegers) : JSON.parse(text)
  } catch (error) {
    throw new OtlpError(`the body is not JSON: ${(error as Error).message}`)
  }
}

const exactIntegers = (_key: string, value: unknown, context?: { readonly source?: string }): unknown =>
  typeof value === 'number' && context?.source && /^-?\d{16,}$/.test(context.source) ? context.source : value

const scopeSpans = (item: unknown, path: string, count: SpanCount): ScopeSpans => {
  const raw = object(item, path)
  const scope = optionalObject(raw.scope, `${path}.scope`)
  const spans: Span[] = []
  list(raw.spans, `${path}.spans`).forEach((rawSpan, index) => {
    const span = count.take(
      () => `${path}.spans[${index}]`,
      () => jsonSpan(object(rawSpan, 'the span')),
    )
    if (span) spans.push(span)
  })
  return { name: text(scope.name, 'scope.name'), version: text(scope.version, 'scope.version'), spans }
}

const jsonSpan = (raw: Json): Span => {
  const status = optionalObject(raw.status, 'status')
  return {
    traceId: text(raw.traceId, 'traceId').toLowerCase(),
    spanId: text(raw.spanId, 'spanId').toLowerCase(),
    parentSpanId: text(raw.parentSpanId, 'parentSpanId').toLowerCase(),
    traceState: text(raw.traceState, 'traceState'),
    name: text(raw.name, 'name'),
    kind: enumeration(raw.kind, 'kind'),
    start: integer(raw.startTimeUnixNano, 'startTimeUnixNano'),
    end: integer(raw.endTimeUnixNano, 'endTimeUnixNano'),
    attributes: keyValues(raw.attributes, 'attributes'),
    events: list(raw.events, 'events').map((item) => {
      const event = object(item, 'an event')
      return {
        time: integer(event.timeUnixNano, 'events.timeUnixNano'),
        name: text(event.name, 'events.name'),
        attributes: keyValues(event.attributes, 'events.attributes'),
      }
    }),
    links: list(raw.links, 'links').map((item) => {
      const link = object(item, 'a link')
      return {
        traceId: text(link.traceId, 'links.traceId').toLowerCase(),
        spanId: text(link.spanId, 'links.spanId').toLowerCase(),
        traceState: text(link.traceState, 'links.traceState'),
        attributes: keyValues(link.attributes, 'links.attributes'),
      }
    }),
    statusCode: enumeration(status.code, 'status.code'),
    statusMessage: text(status.message, 'status.message'),
  }
}

const keyValues = (raw: unknown, path: string, depth = 0): KeyValue[] =>
  list(raw, path).map((item) => {
    const pair = object(item, `an entry of ${path}`)
    const key = text(pair.key, `a key of ${path}`)
    return [key, anyValue(optionalObject(pair.value, `${path} '${key}'`), key, depth)]
  })

const anyValue = (raw: Json, path: string, depth: number): Value => {
  if (depth > valueDepthMax) throw new OtlpError(`attribute '${path}' nests deeper than ${valueDepthMax}`)
  if (given(raw.stringValue)) return text(raw.stringValue, path)
  if (given(raw.intValue)) return int64(raw.intValue, path)
  if (given(raw.doubleValue)) return double(raw.doubleValue, path)
  if (given(raw.boolValue)) return raw.boolValue === true
  if (given(raw.arrayValue)) {
    const values = list(object(raw.arrayValue, path).values, path)
    return { list: values.map((value) => anyValue(optionalObject(value, path), path, depth + 1)) }
  }
  if (given(raw.kvlistValue)) {
    return { map: keyValues(object(raw.kvlistValue, path).values, path, depth + 1) }
  }
  if (given(raw.bytesValue)) return Buffer.from(text(raw.bytesValue, path), 'base64')
  return null
}

type Json = { readonly [key: string]: unknown }
const given = (value: unknown): boolean => value !== undefined && value !== null
const kindOf = (value: unknown): string => (value === null ? 'null' : Array.isArray(value) ? 'a list' : typeof value)

const object = (value: unknown, path: string): Json => {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new OtlpError(`${path} is ${kindOf(value)}, wanted an object`)
  }
  return value as Json
}
const nothing: Json = {}
const optionalObject = (value: unknown, path: string): Json => (given(value) ? object(value, path) : nothing)

const list = (value: unknown, path: string): readonly unknown[] => {
  if (!given(value)) return []
  if (!Array.isArray(value)) throw new OtlpError(`${path} is ${kindOf(value)}, wanted a list`)
  return value
}

const text = (value: unknown, path: string): string => {
  if (!given(value)) return ''
  if (typeof value !== 'string') throw new OtlpError(`${path} is ${kindOf(value)}, wanted a string`)
  return value
}

const integer = (value: unknown, path: string): bigint => {
  if (!given(value)) return 0n
  if (typeof value === 'number' && Number.isSafeInteger(value)) return BigInt(value)
  if (typeof value === 'string' && /^-?\d{1,20}$/.test(value)) return BigInt(value)
  throw new OtlpError(`${path} is ${JSON.stringify(value).slice(0, 64)}, wanted a whole number`)
}

const int64 = (value: unknown, path: string): bigint => {
  const int = integer(value, path)
  if (BigInt.asIntN(64, int) !== int) throw new OtlpError(`${path} is ${int}, wanted a whole number of 64 bits`)
  return int
}

const enumeration = (value: unknown, path: string): number => {
  if (!given(value)) return 0
  if (!Number.isInteger(value))
    throw new OtlpError(`${path} is ${JSON.stringify(value).slice(0, 64)}, wanted an integer`)
  return value as number
}

const double = (value: unknown, path: string): number => {
  const number = typeof value === 'string' ? Number(value) : value
  if (typeof number !== 'number' || (Number.isNaN(number) && value !== 'NaN')) {
    throw new OtlpError(`${path} is ${JSON.stringify(value).slice(0, 64)}, wanted a number`)
  }
  return number
}
