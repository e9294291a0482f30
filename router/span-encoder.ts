// Encodes each span once, when it ends, as OTLP/JSON. The official serializer keeps every span and
// builds four objects per attribute until its batch is sent, which the garbage collector pays for with requests waiting;
// the result here is the same (a test holds it to the official one), but lives outside the heap at once.
import type { ReadableSpan } from '@opentelemetry/sdk-trace'
import type { Encoding } from './batch.ts'

const nanosPerSecond = 1_000_000_000n
const hasRemoteFlag = 0x100
const isRemoteFlag = 0x200

/** `{"key":"…","value":{"stringValue":` and its kin; the keys of our spans are few. */
const keyTexts = { stringValue: new Map(), intValue: new Map(), doubleValue: new Map(), boolValue: new Map() } as const

const keyText = (kind: keyof typeof keyTexts, key: string): string => {
  const texts: Map<string, string> = keyTexts[kind]
  let text = texts.get(key)
  if (text === undefined) {
    text = `{"key":${JSON.stringify(key)},"value":{"${kind}":`
    texts.set(key, text)
  }
  return text
}

const numberText = (value: number): string => (Number.isFinite(value) ? String(value) : 'null')

const attributeText = (key: string, value: unknown): string => {
  if (typeof value === 'string') return `${keyText('stringValue', key)}${JSON.stringify(value)}}}`
  if (typeof value === 'number')
    return `${keyText(Number.isInteger(value) ? 'intValue' : 'doubleValue', key)}${numberText(value)}}}`
  if (typeof value === 'boolean') return `${keyText('boolValue', key)}${value}}}`
  return `{"key":${JSON.stringify(key)},"value":${JSON.stringify(anyValue(value))}}`
}

/** OTLP's AnyValue of an attribute. */
const anyValue = (value: unknown): object => {
  if (Array.isArray(value)) return { arrayValue: { values: value.map(anyValue) } }
  if (typeof value === 'number') return Number.isInteger(value) ? { intValue: value } : { doubleValue: value }
  if (typeof value === 'boolean') return { boolValue: value }
  return { stringValue: String(value) }
}

/** The inside of OTLP's list of attributes. */
export const attributesText = (attributes: Readonly<Record<string, unknown>>): string => {
  let text = ''
  for (const key of Object.keys(attributes)) text += `${text === '' ? '' : ','}${attributeText(key, attributes[key])}`
  return text
}

const nanosText = ([seconds, nanos]: readonly [number, number]): string =>
  String(BigInt(Math.trunc(seconds)) * nanosPerSecond + BigInt(Math.trunc(nanos)))

const spanText = (span: ReadableSpan): string => {
  const { traceId, spanId, traceState, traceFlags } = span.spanContext()
  const { status, parentSpanContext: parent } = span
  const flags = (traceFlags & 0xff) | hasRemoteFlag | (parent?.isRemote ? isRemoteFlag : 0)
  const above = parent?.spanId ? `,"parentSpanId":"${parent.spanId}"` : ''
  const state = traceState ? `,"traceState":${JSON.stringify(traceState.serialize())}` : ''
  const message = status.message === undefined ? '' : `,"message":${JSON.stringify(status.message)}`
  return (
    `{"traceId":"${traceId}","spanId":"${spanId}"${above}${state},"name":${JSON.stringify(span.name)},"kind":${span.kind + 1}` +
    `,"startTimeUnixNano":"${nanosText(span.startTime)}","endTimeUnixNano":"${nanosText(span.endTime)}"` +
    `,"attributes":[${attributesText(span.attributes)}],"droppedAttributesCount":${span.droppedAttributesCount}` +
    `,"events":[],"droppedEventsCount":0,"status":{"code":${status.code}${message}},"links":[],"droppedLinksCount":0,"flags":${flags}}`
  )
}

const headText = ({ resource, instrumentationScope: { name, version } }: ReadableSpan): string =>
  `{"resourceSpans":[{"resource":{"attributes":[${attributesText(resource.attributes)}],"droppedAttributesCount":0}` +
  `,"scopeSpans":[{"scope":${JSON.stringify({ name, version })},"spans":[`

/** How spans of one resource and scope, without events or links, are written. */
export const spanEncoding: Encoding<ReadableSpan> = { head: headText, text: spanText }
