// An hour of traffic as the spans a router would send, varied enough that every panel has something to show: two
// policies, three tenants, fallbacks, exclusions, exploration, failures, requests nobody could take, and one model whose
// price nobody knows. Attributes are spelled by the router's own code and rows by the collector's.
import { createHash } from 'node:crypto'
import { carefulTraces } from '../collector/otlp-traces.ts'
import type { Attempt, AttemptError } from '../router/policy/attempt.ts'
import { errorType } from '../router/policy/attempt.ts'
import {
  type Attributes,
  attemptToAttributes,
  attributeNames,
  phaseAttributes,
  phases,
  toAttributes,
} from '../router/policy/attributes.ts'
import { type Candidate, type DecisionRecord, decisionRecordSchema, type Exclusion } from '../router/policy/record.ts'
import { jsonRequest, otlpAttributes } from './collector-fixtures.ts'

export const decisionsCount = 360
const spacingMs = 10_000
/** Its price is unknown. */
export const unpriced = 'llama-local'
const models = ['gpt-5-mini', 'claude-haiku', unpriced] as const
const tenants = ['', 'acme', "o'neill"] as const
const exclusions: readonly Exclusion[] = [
  { kind: 'rule', name: 'affordable' },
  { kind: 'breaker-open' },
  { kind: 'context-window', needed_tokens: 9000, tokens_max: 8000 },
]
const errors: readonly AttemptError[] = [
  { kind: 'status', status: 429, retryAfterMs: 1000 },
  { kind: 'timeout', phase: 'first-byte' },
  { kind: 'connect', code: 'ECONNREFUSED' },
]

const hex = (text: string, length: number): string => createHash('sha256').update(text).digest('hex').slice(0, length)
const at = <T>(list: readonly T[], index: number): T => list[index % list.length] as T
const every = (n: number, i: number): boolean => i % n === n - 1
const uuid = (i: number): string => `018f0000-0000-7000-8000-${i.toString(16).padStart(12, '0')}`
const costOf = (model: string): number | null => (model === unpriced ? null : model === 'gpt-5-mini' ? 0.0004 : 0.003)

const attemptOf = (
  model: string,
  number: number,
  before: AttemptError | null,
  error: AttemptError | null,
): Attempt => ({
  number,
  cause: before ? errorType(before) : 'choice',
  model,
  provider: `${model}-provider`,
  upstreamModel: model,
  serverAddress: `${model}.example`,
  serverPort: 443,
  stream: true,
  startedAtMs: 0,
  durationMs: error ? 120 : 900,
  connectMs: 1.5,
  headersMs: error ? null : 80,
  ttftMs: error ? null : 150 + 10 * number,
  status: error ? (error.kind === 'status' ? error.status : null) : 200,
  error,
  streamEnd: error ? null : 'complete',
  usage: {
    inputTokens: error ? 0 : 500,
    outputTokens: error ? 0 : 120,
    cachedInputTokens: null,
    reasoningTokens: null,
    source: model === unpriced ? 'estimated' : 'measured',
  },
  costUsd: error ? 0 : costOf(model),
  costSource: costOf(model) === null ? 'unknown' : 'measured',
  responseId: `r-${number}`,
  responseModel: model,
  finishReasons: error ? [] : ['stop'],
})

/** The plan of decision `i`: the chosen model first. Every 60th finds no model at all. */
const planOf = (i: number): string[] => (every(60, i) ? [] : [at(models, i), at(models, i + 1)])

/** Every 6th decision's first attempt fails, and every 18th's second too. */
const attemptsOf = (i: number): Attempt[] => {
  const [first, second] = planOf(i)
  if (first === undefined || second === undefined) return []
  const error = every(6, i) ? at(errors, Math.floor(i / 6)) : null
  const attempt = attemptOf(first, 1, null, error)
  return error ? [attempt, attemptOf(second, 2, error, every(18, i) ? at(errors, 1) : null)] : [attempt]
}

const candidatesOf = (i: number): Candidate[] => {
  const [chosen] = planOf(i)
  const excluded = every(4, i) ? models.find((model) => model !== chosen) : undefined
  return models.map((model) => {
    const eligible = chosen !== undefined && model !== excluded
    const share = excluded === undefined ? 0.05 : 0.1
    return {
      model,
      eligible,
      exclusion: eligible ? null : at(exclusions, i),
      score: eligible ? 0.5 : null,
      probability: eligible ? (model === chosen ? 0.9 : share) : 0,
      features: { cost_usd: costOf(model), quality: 0.7, ttft_ms: 160 },
    }
  })
}

const recordOf = (i: number, timeMs: number): DecisionRecord => {
  const [chosen = null] = planOf(i)
  const attempts = attemptsOf(i)
  const last = attempts.at(-1)
  const answered = last?.error === null
  return decisionRecordSchema.parse({
    v: 1,
    id: uuid(i),
    time: new Date(timeMs).toISOString(),
    session: `s-${i % 20}`,
    engine: '1',
    policy: { name: at(['balanced', 'frugal'], i >> 3), hash: 'sha256:00' },
    request: {
      model: 'auto',
      input_tokens: 500,
      stream: true,
      tenant: at(tenants, i >> 4),
      tags: { category: 'math' },
    },
    candidates: candidatesOf(i),
    chosen,
    reason: chosen === null ? 'none-eligible' : every(10, i) ? 'explore' : 'highest',
    explored: every(10, i),
    plan: planOf(i),
    outcome: {
      status: chosen === null ? 'no-candidate' : answered ? 'ok' : 'error',
      served: answered ? last.model : null,
      attempts: attempts.length,
      http_status: chosen === null ? 503 : answered ? 200 : 502,
      error_type: last?.error ? errorType(last.error) : null,
      cost_usd: attempts.some((a) => a.costUsd === null)
        ? null
        : attempts.reduce((sum, a) => sum + (a.costUsd ?? 0), 0),
      latency_ms: attempts.length === 0 ? null : attempts.reduce((sum, a) => sum + a.durationMs, 1),
      ttft_ms: last?.ttftMs ?? null,
      stream_end: answered ? 'complete' : null,
    },
  })
}

const nanoseconds = (ms: number): bigint => BigInt(Math.round(ms * 1000)) * 1000n

const spanOf = (
  {
    startMs,
    durationMs,
    attributes,
    ...span
  }: {
    readonly traceId: string
    readonly spanId: string
    readonly parentSpanId: string
    readonly name: string
    readonly kind: number
    readonly startMs: number
    readonly durationMs: number
    readonly attributes: Attributes
  },
  failed: boolean,
): object => ({
  ...span,
  startTimeUnixNano: String(nanoseconds(startMs)),
  endTimeUnixNano: String(nanoseconds(startMs) + nanoseconds(durationMs)),
  attributes: otlpAttributes(attributes),
  status: { code: failed ? 2 : 0 },
})

/** The spans of decision `i`: the SERVER span, then one CLIENT span for each attempt. */
const spansOf = (i: number, startMs: number): object[] => {
  const record = recordOf(i, startMs)
  const { outcome } = record
  const traceId = hex(`trace ${i}`, 32)
  const parentSpanId = hex(`server ${i}`, 16)
  const attributes = {
    ...toAttributes(record),
    [attributeNames.epoch]: 'e1',
    [attributeNames.seq]: i,
    [attributeNames.httpStatus]: outcome?.http_status ?? 0,
    [attributeNames.overheadMs]: 1.5,
    ...Object.fromEntries(phases.map((phase, index) => [phaseAttributes[phase], (index + 1) / 2])),
  }
  const name = 'POST /v1/chat/completions'
  const server = { traceId, spanId: parentSpanId, parentSpanId: '', name, kind: 2, startMs, attributes }
  return [
    spanOf({ ...server, durationMs: outcome?.latency_ms ?? 1 }, outcome?.status !== 'ok'),
    ...attemptsOf(i).map((attempt) => {
      const spanId = hex(`attempt ${i} ${attempt.number}`, 16)
      const client = { traceId, spanId, parentSpanId, name: `chat ${attempt.upstreamModel}`, kind: 3 }
      const attributes = attemptToAttributes(attempt, record.id)
      return spanOf(
        { ...client, startMs: startMs + 1, durationMs: attempt.durationMs, attributes },
        attempt.error !== null,
      )
    }),
  ]
}

/** The spans of the hour of traffic that ends at `endMs`, or of its first `count` decisions, in OTLP's JSON shape. */
export const demoSpans = (endMs: number, count = decisionsCount): object[] =>
  Array.from({ length: count }, (_, i) => spansOf(i, endMs - (decisionsCount - i) * spacingMs)).flat()

/** The same as rows of otel_traces in JSONEachRow. */
export const demoRows = (endMs: number, count = decisionsCount): Buffer => {
  const [table] = carefulTraces.json(Buffer.from(jsonRequest(...demoSpans(endMs, count)))).tables
  return table?.rows ?? Buffer.alloc(0)
}
