// The trace that a request belongs to (W3C Trace Context). Spans are made when an exchange is over, but a provider that is to
// continue the trace must hear the id of its caller's span before; so ids can be promised, and kept.
import { type Context as OtelContext, ROOT_CONTEXT, trace } from '@opentelemetry/api'
import { type IdGenerator, RandomIdGenerator } from '@opentelemetry/sdk-trace'

const headerLengthMax = 200
const traceparentPattern = /^(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-|$)/

const ids = new RandomIdGenerator()

export type Trace = {
  /** The span that the client named, or the root. */
  readonly parent: OtelContext
  readonly traceId: string
  /** By attempt number, the span ids that were promised. */
  readonly spanIds: Map<number, string>
}

/** Joins the trace that a `traceparent` header names, or starts one. */
export const joinTrace = (traceparent: string | undefined): Trace => {
  const match = traceparent && traceparent.length < headerLengthMax ? traceparentPattern.exec(traceparent) : null
  if (!match) return { parent: ROOT_CONTEXT, traceId: ids.generateTraceId(), spanIds: new Map() }
  const [, traceId, spanId, flags] = match as unknown as [string, string, string, string]
  const context = { traceId, spanId, traceFlags: Number.parseInt(flags, 16), isRemote: true }
  return { parent: trace.setSpanContext(ROOT_CONTEXT, context), traceId, spanIds: new Map() }
}

/** The `traceparent` for a provider: it names the span of this attempt, sampled because all are. */
export const traceparentFor = ({ traceId, spanIds }: Trace, attempt: number): string => {
  const spanId = ids.generateSpanId()
  spanIds.set(attempt, spanId)
  return `00-${traceId}-${spanId}-01`
}

/** Gives the next trace and the next span the ids that were promised, and others random ones. */
export class PromisedIds implements IdGenerator {
  traceId: string | undefined
  spanId: string | undefined

  generateTraceId(): string {
    return this.traceId ?? ids.generateTraceId()
  }

  generateSpanId(): string {
    const id = this.spanId ?? ids.generateSpanId()
    this.spanId = undefined
    return id
  }
}
