// Exchanges become spans: one SERVER span for the request with the decision on it, one CLIENT span per attempt. They are
// made when the exchange is over, with the times at which things happened, so that a request pays for telemetry once.
import { randomUUID } from 'node:crypto'
import { ROOT_CONTEXT, type Span, SpanKind, SpanStatusCode, type Tracer, trace } from '@opentelemetry/api'
import { NodeSDK } from '@opentelemetry/sdk-node'
import { AlwaysOnSampler, type ReadableSpan } from '@opentelemetry/sdk-trace'
import type { Logger } from 'pino'
import type { TelemetryConfig } from './config.ts'
import { Delivery, type DeliveryCounts } from './delivery.ts'
import { startEpochReports } from './epoch-report.ts'
import { eventEncoding, type LogEvent } from './log-event.ts'
import { transportTo } from './otlp-transport.ts'
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
import { isRefusing, roomFor } from './room.ts'
import { spanEncoding } from './span-encoder.ts'
import { openSpool } from './spool.ts'
import { PromisedIds, type Trace } from './trace.ts'

const attributesMax = 512
/** Names of batches sort as their numbers do. */
const batchDigits = 9

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
/** Spans by count, beside them log events, and how many decisions this epoch has answered. */
export type TelemetryCounts = DeliveryCounts & {
  readonly epoch: string
  readonly decisions: number
  readonly events: DeliveryCounts
}

export type Telemetry = {
  readonly finished: (exchange: Finished) => void
  readonly rejected: (status: number, code: string, startedAtMs: number) => void
  readonly policy: (policy: Policy) => void
  readonly policyChanged: (change: PolicyChange) => void
  readonly event: (event: LogEvent) => void
  readonly counts: () => TelemetryCounts
  /** Whether new requests are to be refused, because what they would record could not be kept. */
  readonly refusing: () => boolean
  readonly flush: () => Promise<void>
  readonly close: () => Promise<void>
}

const route = '/v1/chat/completions'
const spanName = `POST ${route}`
const http = { [n.httpMethod]: 'POST', [n.httpRoute]: route, [n.urlPath]: route, [n.urlScheme]: 'http' } as const

const none = { queued: 0, delivered: 0, dropped: 0, refused: 0, queuedBytes: 0, oldestMs: 0, diskErrors: 0 }

/** `off` spans cost nothing and count nothing but decisions. */
const silent = (): Telemetry => {
  let decisions = 0
  const nothing = async (): Promise<void> => {}
  return {
    finished: () => {
      decisions += 1
    },
    rejected: () => {},
    policy: () => {},
    policyChanged: () => {},
    event: () => {},
    counts: () => ({ ...none, epoch: '', decisions, events: none }),
    refusing: () => false,
    flush: nothing,
    close: nothing,
  }
}

/** Where spans are made, and the ids that the next ones were promised. */
type Source = { readonly tracer: Tracer; readonly promised: PromisedIds }

const sourceOf = (serviceName: string, spans: Delivery<ReadableSpan>): Source & { readonly sdk: NodeSDK } => {
  const promised = new PromisedIds()
  const sdk = new NodeSDK({
    serviceName,
    autoDetectResources: false,
    sampler: new AlwaysOnSampler(),
    spanLimits: { attributeCountLimit: attributesMax },
    spanProcessors: [
      {
        onStart: () => {},
        onEnd: (span) => spans.add(span),
        forceFlush: () => spans.flush(),
        shutdown: () => spans.close(),
      },
    ],
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

/** A name for this run, of UUID's seventh version: names of later runs sort behind it. */
const newEpoch = (): string => {
  const time = Date.now().toString(16).padStart(12, '0')
  return `${time.slice(0, 8)}-${time.slice(8)}-7${randomUUID().slice(15)}`
}

/** Both signals' way to the collector, over one spool, within one room. */
const deliveriesTo = ({ endpoint, serviceName, token, spool }: TelemetryConfig, epoch: string, log: Logger) => {
  const opened = spool ? openSpool(spool.folder, log) : null
  const room = roomFor(spool)
  let batches = 0
  const nextName = (): string => {
    batches += 1
    return `${epoch}-${String(batches).padStart(batchDigits, '0')}`
  }
  const lane = (path: string) => ({ transport: transportTo(new URL(path, endpoint).href, token), room, nextName, log })
  const spans = new Delivery({
    what: 'spans',
    encoding: spanEncoding,
    folder: opened?.traces ?? null,
    ...lane('/v1/traces'),
  })
  const events = new Delivery({
    what: 'log events',
    encoding: eventEncoding(serviceName),
    folder: opened?.logs ?? null,
    ...lane('/v1/logs'),
  })
  let refused = false
  const refusing = (): boolean => {
    const now = isRefusing(room)
    if (now && !refused) log.error({ bytesMax: room.bytesMax }, 'requests are refused: the spool is full')
    if (!now && refused) log.info('requests are answered again: the spool has room')
    refused = now
    return now
  }
  return { spans, events, refusing, release: () => opened?.release() }
}

/** Starts telemetry, or none at all. Throws a SpoolError when its folder cannot be had. */
export const startTelemetry = (config: TelemetryConfig | false, log: Logger): Telemetry => {
  if (!config) return silent()
  const epoch = newEpoch()
  const { spans, events, refusing, release } = deliveriesTo(config, epoch, log)
  const source = sourceOf(config.serviceName, spans)
  const { sdk, tracer } = source
  let seq = 0
  const instant = (name: string, attributes: Attributes): void =>
    tracer.startSpan(name, { kind: SpanKind.INTERNAL, attributes }, ROOT_CONTEXT).end()
  const counts = (): TelemetryCounts => ({ ...spans.counts, epoch, decisions: seq, events: events.counts })
  const reports = startEpochReports(counts, (event) => events.add(event))
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
      // Where requests are refused for want of room, what says so must not take more of it.
      if (refusing()) return
      const attributes = { ...http, [n.httpStatus]: status, [n.errorType]: code }
      tracer.startSpan(spanName, { kind: SpanKind.SERVER, startTime: startedAtMs, attributes }, ROOT_CONTEXT).end()
    },
    policy: ({ name, hash, source }) =>
      instant(spanNames.policy, {
        [n.policyName]: name,
        [n.policyHash]: hash,
        [n.policySource]: source,
        [n.policyEngine]: engineVersion,
      }),
    policyChanged: (change) => instant(promotionSpans.change, changeToAttributes(change)),
    event: (event) => events.add(event),
    counts,
    refusing,
    flush: async () => {
      await Promise.all([spans.flush(), events.flush()])
    },
    close: async () => {
      reports.end()
      await Promise.all([sdk.shutdown(), events.close()])
      release()
    },
  }
}
