// The columns of otel_traces while a request is decoded into them, spelled as the official clickhouseexporter spells them
// (rows.ts holds the same rules for rows). A decoder writes a span's fields in whatever order they come, and `endSpan` fills
// in what did not. What is not as usual throws `irregular`: the body is then left to the careful decoder, which can say why.
import { Bytes, blockOf, type Column, column, TextMap } from './native-block.ts'

/** Thrown where a body is not of the usual shape; it carries nothing, because the careful decoder finds the reason again. */
export const irregular = new Error('the body is not of the usual shape')

const kinds = ['Unspecified', 'Internal', 'Server', 'Client', 'Producer', 'Consumer']
const statusCodes = ['Unset', 'Ok', 'Error']
const nanosPerSecond = 1_000_000_000
const half = 0x10000
/** The last whole second that DateTime64(9) can hold all of. */
const secondsMax = 9_223_372_035
/** Bytes copied from resources and scopes to their spans, and events or links of one request; more are left to the careful decoder. */
const copiedBytesMax = 128 * 1024 * 1024
const nestedMax = 1_000_000

/** An instant in two parts that doubles hold exactly. */
export type Instant = { seconds: number; nanos: number }

const textNames = {
  traceId: 'TraceId',
  spanId: 'SpanId',
  parentSpanId: 'ParentSpanId',
  traceState: 'TraceState',
  name: 'SpanName',
  kind: 'SpanKind',
  service: 'ServiceName',
  scopeName: 'ScopeName',
  scopeVersion: 'ScopeVersion',
  statusCode: 'StatusCode',
  statusMessage: 'StatusMessage',
} as const
type TextName = keyof typeof textNames
const optional = ['parentSpanId', 'traceState', 'name', 'kind', 'statusCode', 'statusMessage'] as const

/** One set of columns serves all requests, one after another, because decoding never waits for anything. */
export class SpanColumns {
  readonly text = Object.fromEntries(Object.keys(textNames).map((name) => [name, new Bytes()])) as Readonly<
    Record<TextName, Bytes>
  >
  readonly start: Instant = { seconds: 0, nanos: 0 }
  readonly end: Instant = { seconds: 0, nanos: 0 }
  readonly attributes = new TextMap()
  readonly events = { times: new Bytes(), names: new Bytes(), attributes: new TextMap(), count: 0 }
  readonly links = {
    traceIds: new Bytes(),
    spanIds: new Bytes(),
    states: new Bytes(),
    attributes: new TextMap(),
    count: 0,
  }
  /** What resource and scope say of each of their spans, set before the spans. */
  readonly resource = { attributes: new TextMap(), service: new Bytes() }
  readonly scope = { name: new Bytes(), version: new Bytes() }
  /** Where text is read to that is checked and not stored. */
  readonly unused = new Bytes()
  rows = 0
  readonly #timestamp = new Bytes()
  readonly #duration = new Bytes()
  readonly #resourceAttributes = new TextMap()
  readonly #eventOffsets = new Bytes()
  readonly #linkOffsets = new Bytes()
  #serviceKnown = false
  #copiedBytes = 0
  readonly #written = new Set<TextName>()
  readonly #columns: readonly Column[]

  constructor() {
    const { text, events, links } = this
    const map = 'Map(String, String)'
    const eventOffsets = this.#eventOffsets
    const linkOffsets = this.#linkOffsets
    this.#columns = [
      column('Timestamp', 'DateTime64(9)', this.#timestamp),
      ...Object.entries(textNames).map(([name, header]) => column(header, 'String', text[name as TextName])),
      column('ResourceAttributes', map, ...this.#resourceAttributes.parts),
      column('SpanAttributes', map, ...this.attributes.parts),
      column('Duration', 'UInt64', this.#duration),
      column('Events.Timestamp', 'Array(DateTime64(9))', eventOffsets, events.times),
      column('Events.Name', 'Array(String)', eventOffsets, events.names),
      column('Events.Attributes', `Array(${map})`, eventOffsets, ...events.attributes.parts),
      column('Links.TraceId', 'Array(String)', linkOffsets, links.traceIds),
      column('Links.SpanId', 'Array(String)', linkOffsets, links.spanIds),
      column('Links.TraceState', 'Array(String)', linkOffsets, links.states),
      column('Links.Attributes', `Array(${map})`, linkOffsets, ...links.attributes.parts),
    ]
  }

  /** The column of a field that a span may have once. */
  field(name: TextName): Bytes {
    if (this.#written.has(name)) throw irregular
    this.#written.add(name)
    return this.text[name]
  }

  kind(kind: number): void {
    this.field('kind').string(kinds[kind] ?? '')
  }

  statusCode(code: number): void {
    this.field('statusCode').string(statusCodes[code] ?? '')
  }

  /** Names the service by a String cell; the first name stands. */
  service(cell: Uint8Array, start: number, end: number): void {
    if (this.#serviceKnown) return
    this.#serviceKnown = true
    this.resource.service.clear()
    this.resource.service.raw(cell, start, end)
  }

  endEvent(time: Instant): void {
    writeInstant(this.events.times, time)
    this.events.attributes.endRow()
    this.events.count += 1
  }

  endLink(): void {
    this.links.attributes.endRow()
    this.links.count += 1
  }

  /** Ends the span's row. Its ids must have been written. */
  endSpan(): void {
    const { text, start, end, resource, scope } = this
    if (!this.#written.has('traceId') || !this.#written.has('spanId')) throw irregular
    for (const name of optional) if (!this.#written.has(name)) text[name].string(defaults[name])
    this.#written.clear()
    const { keys, values } = resource.attributes
    this.#copiedBytes += keys.at + values.at + resource.service.at + scope.name.at + scope.version.at
    if (this.#copiedBytes > copiedBytesMax || this.events.count + this.links.count > nestedMax) throw irregular
    text.service.raw(resource.service.buffer, 0, resource.service.at)
    text.scopeName.raw(scope.name.buffer, 0, scope.name.at)
    text.scopeVersion.raw(scope.version.buffer, 0, scope.version.at)
    this.#resourceAttributes.copyRow(resource.attributes)
    this.attributes.endRow()
    writeInstant(this.#timestamp, start)
    const seconds = end.seconds - start.seconds - (end.nanos < start.nanos ? 1 : 0)
    const nanos = end.nanos - start.nanos + (end.nanos < start.nanos ? nanosPerSecond : 0)
    if (end.seconds > secondsMax) throw irregular
    if (seconds < 0) this.#duration.nanoseconds(0, 0)
    else this.#duration.nanoseconds(seconds, nanos)
    this.#eventOffsets.count(this.events.count)
    this.#linkOffsets.count(this.links.count)
    Object.assign(start, epoch)
    Object.assign(end, epoch)
    this.rows += 1
  }

  /** The spans so far as one block of Native format, after which the columns are empty. */
  block(): Buffer {
    const block = blockOf(this.#columns, this.rows)
    this.clear()
    return block
  }

  /** Forgets everything, also a span that was begun. */
  clear(): void {
    for (const { parts } of this.#columns) for (const bytes of parts) bytes.clear()
    for (const map of [this.attributes, this.#resourceAttributes, this.events.attributes, this.links.attributes]) {
      map.clear()
    }
    this.#written.clear()
    this.events.count = 0
    this.links.count = 0
    this.rows = 0
    this.#copiedBytes = 0
    Object.assign(this.start, epoch)
    Object.assign(this.end, epoch)
    this.beginResource()
  }

  beginResource(): void {
    this.#serviceKnown = false
    this.resource.attributes.clear()
    this.resource.service.clear()
    this.resource.service.string('')
    this.beginScope()
  }

  beginScope(): void {
    this.unused.clear()
    for (const bytes of [this.scope.name, this.scope.version]) {
      bytes.clear()
      bytes.string('')
    }
  }
}

const epoch: Instant = { seconds: 0, nanos: 0 }
const defaults = {
  parentSpanId: '',
  traceState: '',
  name: '',
  kind: 'Unspecified',
  statusCode: 'Unset',
  statusMessage: '',
} as const

const writeInstant = (bytes: Bytes, { seconds, nanos }: Instant): void => {
  if (seconds > secondsMax) throw irregular
  bytes.nanoseconds(seconds, nanos)
}

const digits = Buffer.from('0123456789abcdef')

/** An id of so many bytes as lower-case hex. */
export const writeHex = (bytes: Bytes, source: Uint8Array, start: number, end: number): void => {
  bytes.varint((end - start) * 2)
  bytes.reserve((end - start) * 2)
  for (let at = start; at < end; at++) {
    const value = source[at] as number
    bytes.buffer[bytes.at++] = digits[value >>> 4] as number
    bytes.buffer[bytes.at++] = digits[value & 0xf] as number
  }
}

/** Takes nanoseconds apart in parts that doubles hold: 2^32 are 4.294967296 s, 2^48 are 65536 times as much. */
export const setInstant = (into: Instant, low: number, high: number): void => {
  const [upper, lower] = [Math.floor(high / half), high % half]
  const nanos = upper * 976_710_656 + lower * 294_967_296 + low
  into.seconds = high * 4 + upper * 19_330 + Math.floor(nanos / nanosPerSecond)
  into.nanos = nanos % nanosPerSecond
}
