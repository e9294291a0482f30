// The life of a request after the decision: walk the plan until something is final. Decide once; what happens then is
// outcome, recorded attempt by attempt with its cause.
import { type Attempt, errorType, isTargetsFault } from './policy/attempt.ts'
import type { Context, Decision, NumberSource, Outcome, OutcomeStatus } from './policy/record.ts'
import type { Answer } from './upstream.ts'

/** Asks one target; `cause` is why. */
export type Send = (model: string, number: number, cause: string) => Promise<Answer>

/** What happened to one request, start to finish. */
export type Exchange = {
  readonly context: Context
  readonly decision: Decision
  readonly attempts: readonly Attempt[]
  /** The last answer; null when nobody could be asked. */
  readonly last: Answer | null
}

export const dispatch = async (context: Context, decision: Decision, send: Send): Promise<Exchange> => {
  const attempts: Attempt[] = []
  let last: Answer | null = null
  for (const model of decision.plan) {
    const before = last?.attempt.error
    last = await send(model, attempts.length + 1, before ? errorType(before) : 'choice')
    attempts.push(last.attempt)
    if (isFinal(last.attempt)) break
  }
  return { context, decision, attempts, last }
}

/** Another target is tried unless the client has its answer, part of it, or has gone. */
const isFinal = ({ error, ttftMs }: Attempt): boolean => error === null || ttftMs !== null || !isTargetsFault(error)

/** What the router measured around the attempts, milliseconds. */
export type Times = { readonly latencyMs: number; readonly ttftMs: number | null; readonly httpStatus: number }

/** What all attempts cost together, US dollars; null as soon as one of them is not known. */
export const costOf = (attempts: readonly Attempt[]): number | null =>
  attempts.reduce<number | null>((sum, { costUsd }) => (sum === null || costUsd === null ? null : sum + costUsd), 0)

/** Sums an exchange up. Tokens are those of the answer that was served; the cost is that of every attempt. */
export const outcomeOf = ({ attempts, last }: Exchange, times: Times): Outcome => {
  const final = last?.attempt
  const served = final && final.error === null ? final.model : null
  return {
    status: statusOf(final),
    served: served ?? (final?.ttftMs != null ? final.model : null),
    attempts: attempts.length,
    http_status: times.httpStatus,
    error_type: final ? (final.error ? errorType(final.error) : null) : 'no-candidate',
    cost_usd: costOf(attempts),
    cost_source: worst(attempts.map(({ costSource }) => costSource)),
    latency_ms: times.latencyMs,
    ttft_ms: times.ttftMs,
    input_tokens: final?.usage.inputTokens ?? null,
    output_tokens: final?.usage.outputTokens ?? null,
    tokens_source: final?.usage.source ?? 'unknown',
    stream_end: final?.streamEnd ?? null,
    quality: null,
  }
}

const statusOf = (final: Attempt | undefined): OutcomeStatus => {
  if (!final) return 'no-candidate'
  if (!final.error) return 'ok'
  if (final.error.kind === 'client-abort') return 'client-abort'
  if (final.ttftMs !== null) return 'upstream-cut'
  return isTargetsFault(final.error) ? 'error' : 'rejected'
}

const worst = (sources: readonly NumberSource[]): NumberSource =>
  sources.includes('unknown') ? 'unknown' : sources.includes('estimated') ? 'estimated' : 'measured'
