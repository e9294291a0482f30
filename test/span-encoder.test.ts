// Our encoder against the official one: the same JSON, for every kind of attribute, parent, status and text.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ROOT_CONTEXT, SpanKind, trace } from '@opentelemetry/api'
import { JsonTraceSerializer } from '@opentelemetry/otlp-transformer'
import { AlwaysOnSampler, type ReadableSpan, type SpanProcessor, TracerProvider } from '@opentelemetry/sdk-trace'
import fc from 'fast-check'
import { SpanBatch } from '../router/span-encoder.ts'
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
  const batch = new SpanBatch()
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
      for (const span of ended) batch.add(span)
      assert.equal(batch.spans, list.length)
      const official = JsonTraceSerializer.serializeRequest(ended) as Uint8Array
      assert.deepEqual(JSON.parse(Buffer.from(batch.take()).toString()), JSON.parse(Buffer.from(official).toString()))
    }),
    { numRuns: 300 },
  )
})
