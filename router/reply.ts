// What the client is told when the plan has been walked: the provider's answer, the provider's refusal, or our own error
// in the caller's API shape, with what was tried.
import type { IncomingHttpHeaders } from 'node:http'
import type { Client, ErrorBody } from './client.ts'
import type { Exchange } from './dispatch.ts'
import { type AttemptError, errorType, isTargetsFault } from './policy/attempt.ts'

export const errorBody = (
  message: string,
  type: string,
  code: string,
  param: string | null = null,
  signalbox?: unknown,
): ErrorBody => ({
  error: { message, type, code, param, ...(signalbox === undefined ? {} : { signalbox }) },
})

const forwarded = /^(content-type|retry-after|x-request-id|x-ratelimit-.*|openai-.*)$/

/** The provider's headers that concern the client; lengths, encodings and connections are ours. */
export const forwardedHeaders = (headers: IncomingHttpHeaders): Record<string, string | string[]> =>
  Object.fromEntries(
    Object.entries(headers).filter(
      (entry): entry is [string, string | string[]] => forwarded.test(entry[0]) && entry[1] !== undefined,
    ),
  )

export type Reply = {
  readonly status: number
  readonly headers: Record<string, string | string[]>
  /** Ends the response; its head has been sent by then. */
  readonly end: () => void
}

const json = { 'content-type': 'application/json' }
const clientGoneStatus = 499
const retryAfterS = '5'

/** The rest of the response to an exchange. */
export const finalReply = (exchange: Exchange, client: Client): Reply => {
  const { last } = exchange
  if (!last) {
    const body = errorBody(noCandidateMessage(exchange), 'service_unavailable', 'no_candidate', null, tried(exchange))
    return {
      status: 503,
      headers: { ...json, 'retry-after': retryAfterS },
      end: () => client.end(JSON.stringify(body)),
    }
  }
  const { error, status } = last.attempt
  if (error?.kind === 'client-abort') return { status: clientGoneStatus, headers: {}, end: () => {} }
  if (client.begun)
    return { status: 200, headers: {}, end: () => (error ? client.cut(failure(exchange, error)) : client.end()) }
  const ownHeaders = forwardedHeaders(last.headers)
  if (!error) return { status: status ?? 200, headers: ownHeaders, end: () => client.end(last.body) }
  if (error.kind === 'status' && !isTargetsFault(error))
    return { status: error.status, headers: ownHeaders, end: () => client.end(last.body) }
  const retryAfter = last.headers['retry-after']
  return {
    status: statusFor(error),
    headers: { ...json, ...(retryAfter ? { 'retry-after': retryAfter } : {}) },
    end: () => client.end(JSON.stringify(failure(exchange, error))),
  }
}

const statusFor = (error: AttemptError): number => {
  switch (error.kind) {
    case 'status':
      return error.status === 408 ? 504 : error.status
    case 'timeout':
      return 504
    case 'connect':
    case 'upstream-cut':
    case 'malformed':
    case 'too-large':
    case 'client-abort':
      return 502
  }
}

const tried = ({ context, attempts }: Exchange) => ({
  decision_id: context.id,
  attempts: attempts.map(({ model, error }) => ({ model, error: error ? errorType(error) : null })),
})

const failure = (exchange: Exchange, error: AttemptError): ErrorBody => {
  const { attempts, last } = exchange
  const list = attempts.map(({ model, error: each }) => `${model}: ${each ? errorType(each) : 'ok'}`).join(', ')
  const said = error.kind === 'status' ? providerMessage(last?.body) : ''
  const message = `no target could answer (${list})${said ? `; the last one said: ${said}` : ''}`
  return errorBody(message, 'upstream_error', errorType(error), null, tried(exchange))
}

const saidLengthMax = 500

const providerMessage = (body: Buffer | undefined): string => {
  try {
    const { error } = JSON.parse(body?.toString('utf8') ?? '') as { error?: { message?: unknown } }
    return String(error?.message ?? '').slice(0, saidLengthMax)
  } catch {
    return ''
  }
}

const noCandidateMessage = ({ decision }: Exchange): string => {
  const list = decision.candidates.map(({ model, exclusion }) => {
    const rule = exclusion?.kind === 'rule' ? ` '${exclusion.name}'` : ''
    return `${model}: ${exclusion?.kind ?? 'eligible'}${rule}`
  })
  return `no model can take this request under policy '${decision.policy.name}' (${list.join(', ')})`
}
