// Hands one encoded batch to the collector, by the official exporter's own transport with its settings: addresses, headers,
// certificates and compression from OTEL_EXPORTER_OTLP_*. Its serializer and its five retries are left out: the batches are
// bytes already, and how long to go on trying is delivery.ts's affair.
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http'

/** The longest wait that a collector may ask for, so that a wrong clock or a slip does not silence it for a year. */
const retryAfterMsMax = 600_000
/** Statuses that say this batch will never be taken. */
const refusals = new Set([400, 413, 415, 422])

/** What became of a batch that was sent. */
export type Sent =
  | { readonly kind: 'taken'; readonly rejected: number; readonly message: string }
  | { readonly kind: 'refused'; readonly message: string }
  /** To be sent again, after `waitMs` when the collector said how long. */
  | { readonly kind: 'later'; readonly message: string; readonly waitMs?: number }

export type Transport = {
  /** Sends `body` once, under the name that makes a repetition known. Never rejects. */
  readonly send: (name: string, body: Uint8Array) => Promise<Sent>
  /** Cuts off what is being sent. */
  readonly close: () => void
}

type Answer =
  | { readonly status: 'success'; readonly data?: Uint8Array }
  | { readonly status: 'retryable'; readonly retryInMillis?: number; readonly error?: Error }
  | { readonly status: 'failure'; readonly error?: Error & { readonly code?: unknown } }
type Inner = {
  readonly send: (body: Uint8Array, timeoutMs: number) => Promise<Answer>
  readonly _utils?: { readonly agent: { readonly destroy: () => void } } | null
}
type Exporter = { readonly _delegate?: { readonly _transport?: { readonly _transport?: Inner }; _timeout?: number } }

type Response = {
  readonly partialSuccess?: {
    readonly rejectedSpans?: number | string
    readonly rejectedLogRecords?: number | string
    readonly errorMessage?: string
  }
}

const responseOf = (data: Uint8Array | undefined): Response => {
  try {
    return (JSON.parse(Buffer.from(data ?? []).toString() || '{}') ?? {}) as Response
  } catch {
    return {}
  }
}

const sentOf = (answer: Answer): Sent => {
  if (answer.status === 'success') {
    const { rejectedSpans, rejectedLogRecords, errorMessage = '' } = responseOf(answer.data).partialSuccess ?? {}
    return { kind: 'taken', rejected: Number(rejectedSpans ?? rejectedLogRecords ?? 0) || 0, message: errorMessage }
  }
  const message = answer.error?.message || 'it answered that it is overloaded or away'
  if (answer.status === 'failure') {
    const { code } = answer.error ?? {}
    if (typeof code !== 'number') return { kind: 'later', message }
    return { kind: refusals.has(code) ? 'refused' : 'later', message: `${code} ${message}` }
  }
  const { retryInMillis = -1 } = answer
  return { kind: 'later', message, ...(retryInMillis > 0 ? { waitMs: Math.min(retryAfterMsMax, retryInMillis) } : {}) }
}

/**
 * A way to `url`, the collector's path for one signal; `token`, when there is one, is shown as a bearer token.
 * Throws a TypeError when the exporter's inside is not as it was in the version that package.json pins.
 */
export const transportTo = (url: string, token: string | null): Transport => {
  let batch = ''
  const authorization = token === null ? {} : { authorization: `Bearer ${token}` }
  const exporter = new OTLPTraceExporter({
    url,
    headers: async () => ({ ...authorization, 'x-signalbox-batch': batch }),
  })
  const { _delegate } = exporter as unknown as Exporter
  const inner = _delegate?._transport?._transport
  const timeoutMs = _delegate?._timeout
  if (!inner || timeoutMs === undefined)
    throw new TypeError('this version of the OTLP exporter keeps its transport elsewhere')
  return {
    send: async (name, body) => {
      batch = name
      try {
        return sentOf(await inner.send(body, timeoutMs))
      } catch (error) {
        return { kind: 'later', message: (error as Error).message }
      }
    },
    close: () => inner._utils?.agent.destroy(),
  }
}
