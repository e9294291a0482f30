// The life of a request, from its first byte to its span. Read `answerChat` from top to bottom: read, parse, freeze the
// context, decide, walk the plan, tell the client, record. Everything it calls is a leaf.
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http'
import type { Logger } from 'pino'
import type { Policies } from './admin.ts'
import type { Capture } from './capture/capture.ts'
import { parseChat, type Rejection } from './chat.ts'
import { Client } from './client.ts'
import type { Config } from './config.ts'
import { costOf, dispatch, type Exchange, outcomeOf, type Send } from './dispatch.ts'
import { callerOf, readBody, statedBy } from './intake.ts'
import type { Phase } from './policy/attributes.ts'
import { type Health, observe } from './policy/health.ts'
import { type Decision, recordOf } from './policy/record.ts'
import { errorBody, finalReply, forwardedHeaders } from './reply.ts'
import { contextFor } from './snapshot.ts'
import type { Target } from './target.ts'
import type { Telemetry } from './telemetry.ts'
import { joinTrace, type Trace } from './trace.ts'
import type { Call, Upstream } from './upstream.ts'

const route = '/v1/chat/completions'
const modelsNamedMax = 50

/** What the router knows and changes while it runs. */
export type Core = {
  readonly config: Config
  readonly targets: ReadonlyMap<string, Target>
  readonly upstream: Upstream
  readonly telemetry: Telemetry
  /** Null when no text is kept of anybody. */
  readonly capture: Capture | null
  readonly log: Logger
  readonly inFlight: Map<string, number>
  health: Health
  policies: Policies
  /** Runs out when the policy in force is to go unless it is put again. */
  lease: NodeJS.Timeout | undefined
}

export const answerChat = async (core: Core, request: IncomingMessage, response: ServerResponse): Promise<void> => {
  const client = new Client(response)
  const caller = callerOf(request.headers, core.config.keys)
  if ('status' in caller) return reject(core, client, caller)
  const raw = await readBody(request)
  if (typeof raw !== 'string') return reject(core, client, raw)
  const chat = parseChat(raw)
  if ('status' in chat) return reject(core, client, chat)
  const unknown = unknownModel(core, chat.body.model)
  if (unknown) return reject(core, client, unknown)
  const parsedMs = client.elapsedMs()

  const stated = statedBy(chat, request.headers, caller)
  const context = contextFor(stated, core.config.targets, core.health, core.inFlight, client.startedAtMs)
  const decision = core.policies[0].policy.decide(context)
  const decidedMs = client.elapsedMs()

  const trace = joinTrace(request.headers.traceparent as string | undefined)
  const captured = core.capture?.begin({ route, raw, context, decision, mode: caller.capture, trace }, client)
  const exchange = await dispatch(context, decision, sendWith(core, { chat, client, trace }, context.id))
  const answeredMs = client.elapsedMs()
  const reply = finalReply(exchange, client)
  if (!client.begun) client.begin(reply.status, { ...reply.headers, ...ownHeaders(exchange, client) })
  reply.end()

  finish(core, client, exchange, reply.status, trace, {
    parse: parsedMs,
    decide: decidedMs - parsedMs,
    ...attemptPhases(exchange),
    finish: client.elapsedMs() - answeredMs,
  })
  captured?.(exchange)
}

/**
 * `auto` and a policy's name let the policy choose; any other name must be that of a model. A client that asks by the name
 * of a policy is not to fail when another takes its place.
 */
const unknownModel = ({ policies, targets }: Core, model: string): Rejection | null => {
  if (model === 'auto' || targets.has(model) || policies.some(({ policy }) => policy.name === model)) return null
  const known = ['auto', ...targets.keys()].slice(0, modelsNamedMax).join(', ')
  const message = `model '${model}' is not in signalbox.yaml; it has: ${known}`
  return { status: 404, code: 'model_not_found', message, param: 'model' }
}

const reject = ({ telemetry, log }: Core, client: Client, rejection: Rejection): void => {
  const { status, code, message, param } = rejection
  telemetry.rejected(status, code, client.startedAtMs)
  // The message may quote what the client sent, so the log has only what kind of mistake it was, and where.
  log.warn({ status, code, param }, 'a request was refused')
  if (client.begun) return
  client.begin(status, { 'content-type': 'application/json', connection: 'close' })
  client.end(JSON.stringify(errorBody(message, 'invalid_request_error', code, param)))
}

/** Asks one target, keeping count of what is in flight and folding the result into its health. */
const sendWith =
  (core: Core, asked: Pick<Call, 'chat' | 'client' | 'trace'>, decisionId: string): Send =>
  async (model, number, cause) => {
    const target = core.targets.get(model) as Target
    core.inFlight.set(model, (core.inFlight.get(model) ?? 0) + 1)
    const begin = (headers: IncomingHttpHeaders) =>
      asked.client.begin(200, {
        ...forwardedHeaders(headers),
        'x-signalbox-decision-id': decisionId,
        'x-signalbox-model': model,
        'x-signalbox-attempts': String(number),
      })
    const call = { ...asked, number, cause, target, begin }
    const answer = await core.upstream
      .call(call)
      .finally(() => core.inFlight.set(model, (core.inFlight.get(model) ?? 1) - 1))
    core.health = observe(core.health, answer.attempt)
    const { error, serverAddress, serverPort } = answer.attempt
    if (error && error.kind !== 'client-abort')
      core.log.warn({ decision: decisionId, model, error, serverAddress, serverPort }, 'an attempt failed')
    return answer
  }

const upstreamMs = ({ attempts }: Exchange): number => attempts.reduce((sum, { durationMs }) => sum + durationMs, 0)

const ownHeaders = (exchange: Exchange, client: Client): Record<string, string> => {
  const { context, attempts } = exchange
  const cost = costOf(attempts)
  return {
    'x-signalbox-decision-id': context.id,
    'x-signalbox-model': attempts.at(-1)?.model ?? '',
    'x-signalbox-attempts': String(attempts.length),
    'x-signalbox-overhead-ms': (client.elapsedMs() - upstreamMs(exchange)).toFixed(2),
    ...(cost === null ? {} : { 'x-signalbox-cost-usd': String(cost) }),
  }
}

/** Time spent on targets: those that failed and the last one's wait for a connection, its first byte, and the rest. */
const attemptPhases = ({ attempts }: Exchange): Partial<Record<Phase, number>> => {
  const last = attempts.at(-1)
  if (!last) return {}
  const firstByteMs = last.ttftMs ?? last.headersMs ?? last.durationMs
  const before = attempts.slice(0, -1).reduce((sum, { durationMs }) => sum + durationMs, 0)
  const connectMs = last.connectMs ?? 0
  return { connect: connectMs, first_byte: before + firstByteMs - connectMs, stream: last.durationMs - firstByteMs }
}

const finish = (
  { telemetry, log }: Core,
  client: Client,
  exchange: Exchange,
  httpStatus: number,
  trace: Trace,
  phasesMs: Partial<Record<Phase, number>>,
): void => {
  const { context, decision, attempts } = exchange
  const latencyMs = client.elapsedMs()
  const overheadMs = latencyMs - upstreamMs(exchange)
  const outcome = outcomeOf(exchange, { latencyMs, ttftMs: client.ttftMs, httpStatus })
  const record = recordOf(context, decision, outcome)
  telemetry.finished({
    record,
    attempts,
    startedAtMs: client.startedAtMs,
    latencyMs,
    overheadMs,
    phasesMs,
    httpStatus,
    trace,
  })
  log.info(logLine(context.id, decision, record.request.model, outcome, overheadMs), 'routed')
}

const logLine = (
  id: string,
  decision: Decision,
  requested: string,
  outcome: ReturnType<typeof outcomeOf>,
  overheadMs: number,
) => ({
  decision: id,
  requested,
  chosen: decision.chosen,
  reason: decision.reason,
  probability: decision.probability,
  served: outcome.served,
  attempts: outcome.attempts,
  outcome: outcome.status,
  status: outcome.http_status,
  cost_usd: outcome.cost_usd,
  latency_ms: outcome.latency_ms,
  overhead_ms: overheadMs,
})
