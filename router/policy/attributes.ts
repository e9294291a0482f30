// The one file that spells span attributes, in both directions. Flat attributes are for people, panels and other tools;
// `signalbox.decision` is the whole record as JSON and is what replay reads back. Standard names come first: HTTP and
// GenAI conventions v1.41, then our own namespace.
import type { Attempt, AttemptError, Usage } from './attempt.ts'
import { errorType } from './attempt.ts'
import { type DecisionRecord, decisionRecordSchema, type NumberSource, propensityOf, type StreamEnd } from './record.ts'

export type AttributeValue = string | number | boolean | string[]
export type Attributes = Record<string, AttributeValue>

export const attributeNames = {
  decision: 'signalbox.decision',
  decisionId: 'signalbox.decision.id',
  epoch: 'signalbox.epoch',
  seq: 'signalbox.seq',
  epochDecisions: 'signalbox.epoch.decisions',
  epochSpansDropped: 'signalbox.epoch.spans_dropped',
  epochSpansRefused: 'signalbox.epoch.spans_refused',
  epochEnded: 'signalbox.epoch.ended',
  policyName: 'signalbox.policy.name',
  policyHash: 'signalbox.policy.hash',
  policySource: 'signalbox.policy.source',
  policyEngine: 'signalbox.policy.engine',
  modelRequested: 'signalbox.model.requested',
  modelChosen: 'signalbox.model.chosen',
  modelServed: 'signalbox.model.served',
  reason: 'signalbox.reason',
  probability: 'signalbox.probability',
  explored: 'signalbox.explored',
  candidatesCount: 'signalbox.candidates.count',
  excludedCount: 'signalbox.excluded.count',
  attempts: 'signalbox.attempts',
  fellBack: 'signalbox.fell_back',
  outcome: 'signalbox.outcome',
  costUsd: 'signalbox.cost.usd',
  costSource: 'signalbox.cost.source',
  tokensSource: 'signalbox.tokens.source',
  cache: 'signalbox.cache',
  streamEnd: 'signalbox.stream.end',
  tenant: 'signalbox.tenant',
  tier: 'signalbox.tier',
  session: 'signalbox.session',
  user: 'signalbox.user',
  overheadMs: 'signalbox.overhead_ms',
  attemptNumber: 'signalbox.attempt.number',
  attemptCause: 'signalbox.attempt.cause',
  attemptError: 'signalbox.attempt.error',
  attemptModel: 'signalbox.attempt.model',
  attemptConnectMs: 'signalbox.attempt.connect_ms',
  attemptHeadersMs: 'signalbox.attempt.headers_ms',
  attemptTtftMs: 'signalbox.attempt.ttft_ms',
  attemptDurationMs: 'signalbox.attempt.duration_ms',
  attemptStartedAtMs: 'signalbox.attempt.started_at_ms',
  ttftMs: 'signalbox.ttft_ms',
  latencyMs: 'signalbox.latency_ms',
  errorType: 'error.type',
  httpMethod: 'http.request.method',
  httpRoute: 'http.route',
  httpStatus: 'http.response.status_code',
  urlPath: 'url.path',
  urlScheme: 'url.scheme',
  serverAddress: 'server.address',
  serverPort: 'server.port',
  operation: 'gen_ai.operation.name',
  providerName: 'gen_ai.provider.name',
  requestModel: 'gen_ai.request.model',
  requestStream: 'gen_ai.request.stream',
  requestMaxTokens: 'gen_ai.request.max_tokens',
  conversationId: 'gen_ai.conversation.id',
  responseId: 'gen_ai.response.id',
  responseModel: 'gen_ai.response.model',
  finishReasons: 'gen_ai.response.finish_reasons',
  timeToFirstChunk: 'gen_ai.response.time_to_first_chunk',
  inputTokens: 'gen_ai.usage.input_tokens',
  outputTokens: 'gen_ai.usage.output_tokens',
  cachedInputTokens: 'gen_ai.usage.cache_read.input_tokens',
  reasoningTokens: 'gen_ai.usage.reasoning.output_tokens',
  evaluationName: 'gen_ai.evaluation.name',
  evaluationScore: 'gen_ai.evaluation.score.value',
  evaluationLabel: 'gen_ai.evaluation.score.label',
  evaluationExplanation: 'gen_ai.evaluation.explanation',
  evaluationSource: 'signalbox.evaluation.source',
  evaluationKeepProbability: 'signalbox.evaluation.keep_probability',
  evaluationCostUsd: 'signalbox.evaluation.cost_usd',
  captureKeepProbability: 'signalbox.capture.keep_probability',
  payloadKind: 'signalbox.payload.kind',
  payloadAttempt: 'signalbox.payload.attempt',
  payloadContentType: 'signalbox.payload.content_type',
  payloadSha256: 'signalbox.payload.sha256',
  payloadBytes: 'signalbox.payload.bytes',
  payloadRedaction: 'signalbox.payload.redaction',
  payloadKeyId: 'signalbox.payload.key_id',
  payloadNonce: 'signalbox.payload.nonce',
  payloadEncoding: 'signalbox.payload.encoding',
  payloadExpiresAt: 'signalbox.payload.expires_at',
} as const
const n = attributeNames

export const phases = [
  'queue',
  'parse',
  'admit',
  'cache',
  'decide',
  'connect',
  'first_byte',
  'stream',
  'finish',
] as const
export type Phase = (typeof phases)[number]
/** The attribute that holds a phase's milliseconds. */
export const phaseAttributes = Object.fromEntries(
  phases.map((phase) => [phase, `signalbox.phase.${phase}_ms`]),
) as Readonly<Record<Phase, string>>

/** Span names that are not made from the request: the policy in force, and a judgement of an answer as older routers sent it. */
export const spanNames = { policy: 'signalbox.policy', evaluation: 'gen_ai.evaluation.result' } as const

/** Names of log events: what was asked and answered, where that is captured; a judgement; how many decisions a router has made. */
export const eventNames = {
  payload: 'gen_ai.client.inference.operation.details',
  evaluation: 'gen_ai.evaluation.result',
  epoch: 'signalbox.epoch',
} as const

/** The decision's attributes of the SERVER span. */
export const toAttributes = (record: DecisionRecord): Attributes => {
  const { outcome } = record
  const attributes: Attributes = {
    [n.decisionId]: record.id,
    [n.policyName]: record.policy.name,
    [n.policyHash]: record.policy.hash,
    [n.modelRequested]: record.request.model,
    [n.modelChosen]: record.chosen ?? '',
    [n.reason]: record.reason ?? '',
    [n.probability]: propensityOf(record),
    [n.explored]: record.explored,
    [n.candidatesCount]: record.candidates.length,
    [n.excludedCount]: record.candidates.reduce((count, c) => count + (c.eligible ? 0 : 1), 0),
    [n.cache]: 'off',
    [n.operation]: 'chat',
    [n.requestModel]: record.request.model,
    [n.decision]: JSON.stringify(record),
  }
  if (record.request.tenant) attributes[n.tenant] = record.request.tenant
  if (record.request.tier) attributes[n.tier] = record.request.tier
  if (record.request.user) attributes[n.user] = record.request.user
  if (record.session) {
    attributes[n.session] = record.session
    attributes[n.conversationId] = record.session
  }
  if (record.request.stream) attributes[n.requestStream] = true
  if (record.request.output_tokens_max !== null) attributes[n.requestMaxTokens] = record.request.output_tokens_max
  if (outcome) {
    attributes[n.outcome] = outcome.status
    attributes[n.attempts] = outcome.attempts
    attributes[n.fellBack] = outcome.served !== null && outcome.served !== record.chosen
    attributes[n.modelServed] = outcome.served ?? ''
    attributes[n.costSource] = outcome.cost_source
    attributes[n.tokensSource] = outcome.tokens_source
    if (outcome.cost_usd !== null) attributes[n.costUsd] = outcome.cost_usd
    if (outcome.latency_ms !== null) attributes[n.latencyMs] = outcome.latency_ms
    if (outcome.ttft_ms !== null) attributes[n.ttftMs] = outcome.ttft_ms
    if (outcome.input_tokens !== null) attributes[n.inputTokens] = outcome.input_tokens
    if (outcome.output_tokens !== null) attributes[n.outputTokens] = outcome.output_tokens
    if (outcome.stream_end !== null) attributes[n.streamEnd] = outcome.stream_end
    if (outcome.error_type !== null) attributes[n.errorType] = outcome.error_type
  }
  return attributes
}

/** The record that a SERVER span carries. Throws a ZodError or SyntaxError when the attribute is not a record. */
export const fromAttributes = (attributes: Attributes): DecisionRecord =>
  decisionRecordSchema.parse(JSON.parse(String(attributes[n.decision])))

/** The attributes of one attempt's CLIENT span. */
export const attemptToAttributes = (attempt: Attempt, decisionId: string): Attributes => {
  const { usage } = attempt
  const attributes: Attributes = {
    [n.decisionId]: decisionId,
    [n.attemptNumber]: attempt.number,
    [n.attemptCause]: attempt.cause,
    [n.attemptModel]: attempt.model,
    [n.attemptStartedAtMs]: attempt.startedAtMs,
    [n.attemptDurationMs]: attempt.durationMs,
    [n.operation]: 'chat',
    [n.providerName]: attempt.provider,
    [n.requestModel]: attempt.upstreamModel,
    [n.serverAddress]: attempt.serverAddress,
    [n.serverPort]: attempt.serverPort,
    [n.costSource]: attempt.costSource,
    [n.tokensSource]: usage.source,
  }
  if (attempt.stream) attributes[n.requestStream] = true
  if (attempt.connectMs !== null) attributes[n.attemptConnectMs] = attempt.connectMs
  if (attempt.headersMs !== null) attributes[n.attemptHeadersMs] = attempt.headersMs
  if (attempt.ttftMs !== null) {
    attributes[n.attemptTtftMs] = attempt.ttftMs
    if (attempt.stream) attributes[n.timeToFirstChunk] = attempt.ttftMs / 1000
  }
  if (attempt.status !== null) attributes[n.httpStatus] = attempt.status
  if (attempt.error) {
    // A client that went away is not an error of the call (HTTP semantic conventions).
    if (attempt.error.kind !== 'client-abort') attributes[n.errorType] = errorType(attempt.error)
    attributes[n.attemptError] = JSON.stringify(attempt.error)
  }
  if (attempt.streamEnd) attributes[n.streamEnd] = attempt.streamEnd
  if (usage.inputTokens !== null) attributes[n.inputTokens] = usage.inputTokens
  if (usage.outputTokens !== null) attributes[n.outputTokens] = usage.outputTokens
  if (usage.cachedInputTokens !== null) attributes[n.cachedInputTokens] = usage.cachedInputTokens
  if (usage.reasoningTokens !== null) attributes[n.reasoningTokens] = usage.reasoningTokens
  if (attempt.costUsd !== null) attributes[n.costUsd] = attempt.costUsd
  if (attempt.responseId) attributes[n.responseId] = attempt.responseId
  if (attempt.responseModel) attributes[n.responseModel] = attempt.responseModel
  if (attempt.finishReasons.length > 0) attributes[n.finishReasons] = [...attempt.finishReasons]
  return attributes
}

const numberOrNull = (value: AttributeValue | undefined): number | null => (value === undefined ? null : Number(value))
const textOf = (value: AttributeValue | undefined): string => (value === undefined ? '' : String(value))

/** The attempt that a CLIENT span carries. */
export const attemptFromAttributes = (a: Attributes): Attempt => {
  const usage: Usage = {
    inputTokens: numberOrNull(a[n.inputTokens]),
    outputTokens: numberOrNull(a[n.outputTokens]),
    cachedInputTokens: numberOrNull(a[n.cachedInputTokens]),
    reasoningTokens: numberOrNull(a[n.reasoningTokens]),
    source: textOf(a[n.tokensSource]) as NumberSource,
  }
  return {
    number: Number(a[n.attemptNumber]),
    cause: textOf(a[n.attemptCause]),
    model: textOf(a[n.attemptModel]),
    provider: textOf(a[n.providerName]),
    upstreamModel: textOf(a[n.requestModel]),
    serverAddress: textOf(a[n.serverAddress]),
    serverPort: Number(a[n.serverPort]),
    stream: a[n.requestStream] === true,
    startedAtMs: Number(a[n.attemptStartedAtMs]),
    durationMs: Number(a[n.attemptDurationMs]),
    connectMs: numberOrNull(a[n.attemptConnectMs]),
    headersMs: numberOrNull(a[n.attemptHeadersMs]),
    ttftMs: numberOrNull(a[n.attemptTtftMs]),
    status: numberOrNull(a[n.httpStatus]),
    error: a[n.attemptError] === undefined ? null : (JSON.parse(textOf(a[n.attemptError])) as AttemptError),
    streamEnd: a[n.streamEnd] === undefined ? null : (textOf(a[n.streamEnd]) as StreamEnd),
    usage,
    costUsd: numberOrNull(a[n.costUsd]),
    costSource: textOf(a[n.costSource]) as NumberSource,
    responseId: textOf(a[n.responseId]),
    responseModel: textOf(a[n.responseModel]),
    finishReasons: Array.isArray(a[n.finishReasons]) ? (a[n.finishReasons] as string[]) : [],
  }
}
