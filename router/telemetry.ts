// Exchanges become spans: one SERVER span for the request with the decision on it, one CLIENT span per attempt. They are
// made when the exchange is over, with the times at which things happened, so that a request pays for telemetry once.
import { randomUUID } from 'node:crypto'
import { ROOT_CONTEXT, type Span, SpanKind, SpanStatusCode, type Tracer, trace } from '@opentelemetry/api'
import { NodeSDK } from '@opentelemetry/sdk-node'
import { AlwaysOnSampler } from '@opentelemetry/sdk-trace'
import type { Logger } from 'pino'
import { type DeliveryCounts, DeliveryProcessor } from './delivery.ts'
import { type Attempt, errorType } from './policy/attempt.ts'
import {
  type Attributes,
  attemptToAttributes,
  attributeNames as n,
  type Phase,
  phaseAttributes,
  phases,
  spanNames,
  toAttributes,
} from './policy/attributes.ts'
import type { Policy } from './policy/policy.ts'
import { changeToAttributes, type PolicyChange, promotionSpans } from './policy/promotion.ts'
import { type DecisionRecord, engineVersion } from './policy/record.ts'
import { PromisedIds, type Trace } from './trace.ts'

const attributesMax = 512

/** A finished request as telemetry needs it. */
export type Finished = {
  readonly record: DecisionRecord
  readonly attempts: readonly Attempt[]
  readonly startedAtMs: number
  readonly latencyMs: number
  readonly overheadMs: number
  readonly phasesMs: Partial<Record<Phase, number>>
  readonly httpStatus: number
  readonly trace: Trace
}
export type Feedback = {
  readonly decisionId: string
  readonly name: string
  readonly score: number
  readonly comment: string
}

export type Telemetry = {
  readonly finished: (exchange: Finished) => void
  readonly rejected: (status: number, code: string, startedAtMs: number) => void
  readonly feedback: (feedback: Feedback) => void
  readonly policy: (policy: Policy) => void
  readonly policyChanged: (change: PolicyChange) => void
  readonly counts: () => DeliveryCounts & { readonly decisions: number }
  readonly flush: () => Promise<void>
  readonly close: () => Promise<void>
}

const route = '/v1/chat/completions'
const spanName = `POST ${route}`
const http = { [n.httpMethod]: 'POST', [n.httpRoute]: route, [n.urlPath]: route, [n.urlScheme]: 'http' } as const

/** `off` spans cost nothing and count nothing but decisions. */
const silent = (): Telemetry => {
  let decisions = 0
  const nothing = async (): Promise<void> => {}
  return {
    finished: () => {
      decisions += 1
    },
    rejected: () => {},
    feedback: () => {},
    policy: () => {},
    policyChanged: () => {},
    counts: () => ({ queued: 0, delivered: 0, dropped: 0, refused: 0, decisions }),
    flush: nothing,
    close: nothing,
  }
}

/** Where spans are made, and the ids that the next ones were promised. */
type Source = { readonly tracer: Tracer; readonly promised: PromisedIds }

const sourceOf = (serviceName: string, processor: DeliveryProcessor): Source & { readonly sdk: NodeSDK } => {
  const promised = new PromisedIds()
  const sdk = new NodeSDK({
    serviceName,
    autoDetectResources: false,
    sampler: new AlwaysOnSampler(),
    spanLimits: { attributeCountLimit: attributesMax },
    spanProcessors: [processor],
    idGenerator: promised,
    metricReaders: [],
    logRecordProcessors: [],
    instrumentations: [],
    textMapPropagator: null,
  })
  // The SDK registers itself for the whole process; we take our tracer and give the place back, so that two routers
  // (or a user's own instrumentation) can live in one process.
  trace.disable()
  sdk.start()
  const tracer = trace.getTracerProvider().getTracer('signalbox')
  trace.disable()
  return { sdk, tracer, promised }
}

/**
 * Gives a span its attributes as they are. `setAttributes` would check each one anew and copy them one by one, which costs
 * as much as encoding them; ours are typed, and counted below the limit.
 */
const fill = (span: Span, attributes: Attributes): void => {
  ;(span as { attributes?: Attributes }).attributes = attributes
}

const emitAttempt = (
  { tracer, promised }: Source,
  { parent, spanIds }: Pick<Trace, 'parent' | 'spanIds'>,
  attempt: Attempt,
  decisionId: string,
): void => {
  promised.spanId = spanIds.get(attempt.number)
  const span = tracer.startSpan(
    `chat ${attempt.upstreamModel}`,
    { kind: SpanKind.CLIENT, startTime: attempt.startedAtMs },
    parent,
  )
  fill(span, attemptToAttributes(attempt, decisionId))
  if (attempt.error && attempt.error.kind !== 'client-abort')
    span.setStatus({ code: SpanStatusCode.ERROR, message: errorType(attempt.error) })
  span.end(attempt.startedAtMs + attempt.durationMs)
}

const emitFinished = (source: Source, exchange: Finished, epoch: string, seq: number): void => {
  const { record, attempts, startedAtMs, latencyMs, httpStatus } = exchange
  const attributes = toAttributes(record)
  Object.assign(attributes, http)
  attributes[n.httpStatus] = httpStatus
  attributes[n.epoch] = epoch
  attributes[n.seq] = seq
  attributes[n.overheadMs] = exchange.overheadMs
  for (const phase of phases) {
    const ms = exchange.phasesMs[phase]
    if (ms !== undefined) attributes[phaseAttributes[phase]] = ms
  }
  const { parent, traceId, spanIds } = exchange.trace
  const { tracer, promised } = source
  promised.traceId = traceId
  const span = tracer.startSpan(spanName, { kind: SpanKind.SERVER, startTime: startedAtMs }, parent)
  fill(span, attributes)
  // A failure that a fallback repaired marks the attempt, not the request; a 4xx is the caller's.
  if (httpStatus >= 500 || record.outcome?.status === 'upstream-cut')
    span.setStatus({ code: SpanStatusCode.ERROR, message: record.outcome?.error_type ?? '' })
  const within = trace.setSpan(parent, span)
  promised.traceId = undefined
  for (const attempt of attempts) emitAttempt(source, { parent: within, spanIds }, attempt, record.id)
  span.end(startedAtMs + latencyMs)
}

/** Starts telemetry to an OTLP/HTTP endpoint, or none at all. */
export const startTelemetry = (options: { endpoint: string; serviceName: string } | false, log: Logger): Telemetry => {
  if (!options) return silent()
  const processor = new DeliveryProcessor(new URL('/v1/traces', options.endpoint).href, log)
  const source = sourceOf(options.serviceName, processor)
  const { sdk, tracer } = source
  const epoch = randomUUID()
  let seq = 0
  const instant = (name: string, attributes: Attributes): void =>
    tracer.startSpan(name, { kind: SpanKind.INTERNAL, attributes }, ROOT_CONTEXT).end()
  return {
    finished: (exchange) => {
      seq += 1
      try {
        emitFinished(source, exchange, epoch, seq)
      } catch (error) {
        // The client has its answer; the number it was given shows as a gap.
        log.error({ err: error, decision: exchange.record.id, seq }, 'a decision could not be recorded')
      }
    },
    rejected: (status, code, startedAtMs) => {
      const attributes = { ...http, [n.httpStatus]: status, [n.errorType]: code }
      tracer.startSpan(spanName, { kind: SpanKind.SERVER, startTime: startedAtMs, attributes }, ROOT_CONTEXT).end()
    },
    feedback: ({ decisionId, name, score, comment }) =>
      instant(spanNames.evaluation, {
        [n.decisionId]: decisionId,
        [n.evaluationName]: name,
        [n.evaluationScore]: score,
        [n.evaluationExplanation]: comment,
      }),
    policy: ({ name, hash, source }) =>
      instant(spanNames.policy, {
        [n.policyName]: name,
        [n.policyHash]: hash,
        [n.policySource]: source,
        [n.policyEngine]: engineVersion,
      }),
    policyChanged: (change) => instant(promotionSpans.change, changeToAttributes(change)),
    counts: () => ({ ...processor.counts, decisions: seq }),
    flush: () => processor.forceFlush(),
    close: () => sdk.shutdown(),
  }
}
