// Our encoder against the official one: the same JSON, for every kind of attribute, parent, status and text, of spans and of log
// events.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ROOT_CONTEXT, SpanKind, trace } from '@opentelemetry/api'
import { JsonLogsSerializer, JsonTraceSerializer } from '@opentelemetry/otlp-transformer'
import { AlwaysOnSampler, type ReadableSpan, type SpanProcessor, TracerProvider } from '@opentelemetry/sdk-trace'
import fc from 'fast-check'
import { Batch } from '../router/batch.ts'
import { eventEncoding, type LogEvent } from '../router/log-event.ts'
import { spanEncoding } from '../router/span-encoder.ts'
import './arbitraries.ts' // the seed of all laws

const ended: ReadableSpan[] = []
const collect: SpanProcessor = {
  onStart: () => {},
  onEnd: (span) => void ended.push(span),
  forceFlush: async () => {},
  shutdown: async () => {},
}
const tracer = new TracerProvider({ spanProcessors: [collect], sampler: new AlwaysOnSampler() }).getTracer('signalbox')

const text = fc.oneof(fc.string({ unit: 'binary' }), fc.constantFrom('', 'ü"\\\n\u2028', '\ud800', '日本'.repeat(3000)))
const value = fc.oneof(
  text,
  fc.integer(),
  fc.double(),
  fc.boolean(),
  fc.array(fc.string(), { maxLength: 3 }),
  fc.array(fc.integer(), { maxLength: 3 }),
)
const spans = fc.array(
  fc.record({
    name: text.filter((name) => name !== ''),
    kind: fc.constantFrom(SpanKind.CLIENT, SpanKind.SERVER, SpanKind.INTERNAL),
    attributes: fc.dictionary(fc.string({ minLength: 1 }), value, { maxKeys: 20 }),
    start: fc.nat({ max: 2 ** 40 }),
    duration: fc.double({ min: 0, max: 1e6, noNaN: true }),
    remoteParent: fc.boolean(),
    status: fc.option(fc.record({ code: fc.constantFrom(0, 1, 2), message: fc.string() })),
  }),
  { minLength: 1, maxLength: 8 },
)

test('writes what the official serializer writes, batch after batch', () => {
  fc.assert(
    fc.property(spans, (list) => {
      ended.length = 0
      for (const { name, kind, attributes, start, duration, remoteParent, status } of list) {
        const parent = { traceId: '1'.repeat(32), spanId: '2'.repeat(16), traceFlags: 0, isRemote: true }
        const context = remoteParent ? trace.setSpanContext(ROOT_CONTEXT, parent) : ROOT_CONTEXT
        const startTime = 1_700_000_000_000 + start
        const span = tracer.startSpan(name, { kind, startTime }, context)
        span.setAttributes(attributes)
        if (status) span.setStatus(status)
        span.end(startTime + duration)
      }
      const batch = new Batch()
      for (const span of ended) batch.add(spanEncoding, span)
      assert.equal(batch.items, list.length)
      const official = JsonTraceSerializer.serializeRequest(ended) as Uint8Array
      assert.deepEqual(JSON.parse(Buffer.from(batch.close()).toString()), JSON.parse(Buffer.from(official).toString()))
    }),
    { numRuns: 300 },
  )
})

const resource = { attributes: { 'service.name': 's' } }
const instrumentationScope = { name: 'signalbox' }
/** A log event as the official SDK would hold it. */
const recordOf = ({ name, timeMs, severity, attributes, body, trace: within }: LogEvent, severityText: string) => {
  const hrTime = [Math.floor(timeMs / 1000), (timeMs % 1000) * 1_000_000]
  return {
    hrTime,
    hrTimeObserved: hrTime,
    severityNumber: severity,
    severityText,
    eventName: name,
    body,
    attributes,
    droppedAttributesCount: 0,
    ...(within ? { spanContext: { ...within, traceFlags: 0 } } : {}),
    resource,
    instrumentationScope,
  }
}
/** A request without what ours need not say: when each was observed, flags, and a body that is none. */
const comparable = (request: Uint8Array): unknown =>
  JSON.parse(Buffer.from(request).toString(), (key, each) =>
    key === 'observedTimeUnixNano' || key === 'flags' || (key === 'body' && !('stringValue' in each))
      ? undefined
      : each,
  )

test('writes log events as the official serializer does', () => {
  const events = fc.record(
    {
      name: text,
      timeMs: fc.nat({ max: 2_000_000_000_000 }),
      severity: fc.constantFrom(5, 9, 13, 17),
      attributes: fc.dictionary(fc.string({ minLength: 1 }), fc.oneof(text, fc.integer(), fc.boolean()), {
        maxKeys: 9,
      }),
      body: text.filter((body) => body !== ''),
      trace: fc.constant({ traceId: 'a'.repeat(32), spanId: 'b'.repeat(16) }),
    },
    { requiredKeys: ['name', 'timeMs', 'severity', 'attributes'] },
  )
  fc.assert(
    fc.property(fc.array(events, { minLength: 1, maxLength: 5 }), (list) => {
      const batch = new Batch()
      for (const event of list) batch.add(eventEncoding('s'), event)
      const names = new Map([
        [5, 'DEBUG'],
        [9, 'INFO'],
        [13, 'WARN'],
        [17, 'ERROR'],
      ])
      const records = list.map((event) => recordOf(event, names.get(event.severity) as string))
      const official = JsonLogsSerializer.serializeRequest(records as never) as Uint8Array
      assert.deepEqual(comparable(batch.close()), comparable(official))
    }),
  )
})
