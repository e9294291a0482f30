// One call to one target. What the world did is a value: a provider cannot make our code throw.
import type { NumberSource, StreamEnd } from './record.ts'

/** Why an attempt did not end in a whole answer. */
export type AttemptError =
  | { readonly kind: 'connect'; readonly code: string }
  | { readonly kind: 'timeout'; readonly phase: 'connect' | 'first-byte' | 'idle' | 'total' }
  | { readonly kind: 'status'; readonly status: number; readonly retryAfterMs: number | null }
  | { readonly kind: 'upstream-cut' }
  | { readonly kind: 'malformed' }
  | { readonly kind: 'too-large' }
  | { readonly kind: 'client-abort' }

/** Tokens as billed: `inputTokens` includes cached ones. Null is unknown. */
export type Usage = {
  readonly inputTokens: number | null
  readonly outputTokens: number | null
  readonly cachedInputTokens: number | null
  readonly reasoningTokens: number | null
  readonly source: NumberSource
}

/** What happened when one target was asked. */
export type Attempt = {
  /** 1 for the first choice. */
  readonly number: number
  /** `choice`, or what the attempt before it ended in: `429`, `connect`, `timeout`, … */
  readonly cause: string
  readonly model: string
  readonly provider: string
  /** The exact model name asked of the provider. */
  readonly upstreamModel: string
  readonly serverAddress: string
  readonly serverPort: number
  readonly stream: boolean
  /** Milliseconds since the epoch. */
  readonly startedAtMs: number
  readonly durationMs: number
  /** Until the request had a connection; null when it got none. */
  readonly connectMs: number | null
  /** Until the response's head arrived; null when it never did. */
  readonly headersMs: number | null
  /** Until the first content byte; null when none came. */
  readonly ttftMs: number | null
  /** The HTTP status of the provider; null when there was no response. */
  readonly status: number | null
  readonly error: AttemptError | null
  readonly streamEnd: StreamEnd | null
  readonly usage: Usage
  readonly costUsd: number | null
  readonly costSource: NumberSource
  readonly responseId: string
  readonly responseModel: string
  readonly finishReasons: readonly string[]
}

/** The low-cardinality name of an error: what `error.type` and the cause of the next attempt say. */
export const errorType = (error: AttemptError): string => {
  switch (error.kind) {
    case 'status':
      return String(error.status)
    case 'timeout':
      return `timeout-${error.phase}`
    case 'connect':
    case 'upstream-cut':
    case 'malformed':
    case 'too-large':
    case 'client-abort':
      return error.kind
  }
}

/**
 * Whether the target is to blame, so that another may do better and this one's health suffers. What a provider refuses
 * with another 4xx, any would; a client that left says nothing.
 */
export const isTargetsFault = (error: AttemptError): boolean => {
  switch (error.kind) {
    case 'status':
      return error.status === 408 || error.status === 429 || error.status >= 500
    case 'client-abort':
      return false
    case 'connect':
    case 'timeout':
    case 'upstream-cut':
    case 'malformed':
    case 'too-large':
      return true
  }
}
