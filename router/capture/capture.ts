// Keeps what a client asked and what it was answered, as far as signalbox.yaml says so. While a request runs, only references to
// its bytes are held; redacting, compressing and encrypting wait until the client has its answer, one payload after another.
// Where anything goes wrong nothing is sent: a payload that could not be redacted does not leave the router.
import { randomFillSync } from 'node:crypto'
import type { Logger } from 'pino'
import type { Client } from '../client.ts'
import type { Exchange } from '../dispatch.ts'
import type { LogEvent } from '../log-event.ts'
import { eventNames, attributeNames as n } from '../policy/attributes.ts'
import { draw } from '../policy/chance.ts'
import type { Context, Decision } from '../policy/record.ts'
import type { Trace } from '../trace.ts'
import { assembleStream } from './assemble.ts'
import { requestFeatures, responseFeatures } from './features.ts'
import { keyedMark, plainMark, type Redactor, redactJson, redactorOf, redactText } from './redact.ts'
import { nonceBytes, type Place, seal } from './sealed.ts'
import { type CaptureMode, type CaptureSettings, tenantKey } from './settings.ts'

/** Bytes of payloads held at once, of running requests and of those waiting to be sealed; more are not captured, and counted. */
const heldBytesMax = 67_108_864
/** Tenants whose key is remembered. */
const tenantsMax = 1000
/** OpenTelemetry's DEBUG. */
const debugSeverity = 5
/** The name under which chance is asked, so that capturing is independent of every choice of a policy. */
const stream = 'capture'
const featuresType = 'application/vnd.signalbox.features+json'
const jsonType = 'application/json'
const textType = 'text/plain; charset=utf-8'

export type Asked = {
  readonly route: string
  readonly raw: string
  readonly context: Context
  readonly decision: Decision
  /** What the client's key says; null when it says nothing. */
  readonly mode: CaptureMode | null
  readonly trace: Trace
}

export type CaptureCounts = {
  readonly captured: number
  /** Not captured because too much was waiting. */
  readonly dropped: number
  /** Not captured because it could not be redacted or sealed. */
  readonly failed: number
}

export type Capture = {
  /** Begins to hold what the client gets; null when this request is not captured. Call what it gives when all is over. */
  readonly begin: (asked: Asked, client: Client) => ((exchange: Exchange) => void) | null
  readonly counts: () => CaptureCounts
  /** Resolves when everything that was answered has been handed on. */
  readonly settled: () => Promise<void>
}

type Kept = { readonly mode: Exclude<CaptureMode, 'off'>; readonly keepProbability: number }

/** The mode for a request, and the probability with which it was drawn; null when it is not to be kept. */
export const keptOf = (
  settings: CaptureSettings,
  { route, context, decision, mode }: Omit<Asked, 'raw'>,
): Kept | null => {
  const rule = settings.rules.find(
    ({ route: of = route, path }) => of === route && (path === undefined || decision.path.includes(path)),
  )
  const chosen = mode === null ? (rule ?? settings) : { mode, share: settings.share }
  if (chosen.mode === 'off') return null
  const key = settings.per === 'session' ? context.session || context.id : context.id
  const isKept = draw(key, decision.policy.hash, stream) < chosen.share
  return isKept ? { mode: chosen.mode, keepProbability: chosen.share } : null
}

/** One payload on its way out; its pieces are joined when its turn comes. */
type Job = {
  /** Without its text, which may be larger than what may wait. */
  readonly asked: Omit<Asked, 'raw'>
  readonly kept: Kept
  readonly kind: Place['kind']
  readonly attempt: number
  /** What there was of it, of which no more than the limit is in the pieces. */
  readonly bytes: number
  readonly isStream: boolean
  readonly text: () => string
}

type Content = { readonly type: string; readonly text: string; readonly redaction: string }

/** Starts capturing; what is ready to leave is handed to `send`. */
export const startCapture = (settings: CaptureSettings, send: (event: LogEvent) => void, log: Logger): Capture => {
  const redactors = redactorsOf(settings)
  let heldBytes = 0
  let [captured, dropped, failed] = [0, 0, 0]
  let last: Promise<void> = Promise.resolve()

  const work = async (job: Job, bytes: number): Promise<void> => {
    // The next client's bytes come before the next payload.
    await new Promise((resolve) => setImmediate(resolve))
    try {
      send(eventOf(job, settings, redactors))
      captured += 1
    } catch (error) {
      failed += 1
      // The message of a failure may quote what failed, so the log has its name.
      const { name } = error as Error
      log.error({ decision: job.asked.context.id, kind: job.kind, error: name }, 'a payload was not captured')
    } finally {
      heldBytes -= bytes
    }
  }
  const enqueue = (job: Job): void => {
    const bytes = Math.min(job.bytes, settings.bytesMax)
    if (heldBytes + bytes > heldBytesMax) {
      if (dropped === 0) log.error({ heldBytesMax }, 'payloads are not captured: too much waits already')
      dropped += 1
      return
    }
    heldBytes += bytes
    last = last.then(() => work(job, bytes))
  }

  const begin: Capture['begin'] = ({ raw, ...asked }, client) => {
    const kept = keptOf(settings, asked)
    if (!kept) return null
    const pieces: Buffer[] = []
    let streamed = 0
    client.tap = (piece) => {
      streamed += piece.length
      if (streamed <= settings.bytesMax) pieces.push(piece)
    }
    return ({ last: answer }) => {
      client.tap = null
      const requestBytes = Buffer.byteLength(raw)
      const request = requestBytes > settings.bytesMax ? '' : raw
      enqueue({ asked, kept, kind: 'request', attempt: 0, bytes: requestBytes, isStream: false, text: () => request })
      const bytes = streamed || (answer?.body.length ?? 0)
      if (!answer || bytes === 0) return
      const all = streamed > 0 ? pieces : bytes > settings.bytesMax ? [] : [answer.body]
      const { number: attempt, streamEnd } = answer.attempt
      const text = () => Buffer.concat(all).toString('utf8')
      enqueue({ asked, kept, kind: 'response', attempt, bytes, isStream: streamEnd !== null, text })
    }
  }
  return { begin, counts: () => ({ captured, dropped, failed }), settled: () => last }
}

type Redactors = (mode: CaptureMode, tenant: string) => { readonly redactor: Redactor; readonly key: Buffer }

/** What redacts for a tenant, and the tenant's key. */
const redactorsOf = ({ detectors, secret }: CaptureSettings): Redactors => {
  const plain = redactorOf(detectors, plainMark)
  const byTenant = new Map<string, ReturnType<Redactors>>()
  return (mode, tenant) => {
    if (mode === 'full') return { redactor: plain, key: secret }
    let found = byTenant.get(tenant)
    if (!found) {
      const key = tenantKey(secret, tenant)
      found = { redactor: redactorOf(detectors, keyedMark(key)), key }
      if (byTenant.size >= tenantsMax) byTenant.clear()
      byTenant.set(tenant, found)
    }
    return found
  }
}

const contentOf = (job: Job, { bytesMax }: CaptureSettings, redactors: Redactors): Content => {
  const { kind, kept, isStream, asked } = job
  if (job.bytes > bytesMax) return { type: '', text: '', redaction: 'too-large' }
  const { redactor, key } = redactors(kept.mode, asked.context.request.tenant)
  const text = isStream ? JSON.stringify(assembleStream(job.text())) : job.text()
  const json = isJson(text)
  if (kept.mode === 'features') {
    const features = kind === 'request' ? requestFeatures : responseFeatures
    return {
      type: featuresType,
      text: JSON.stringify(features(json ? JSON.parse(text) : null, key)),
      redaction: kept.mode,
    }
  }
  return json
    ? { type: jsonType, text: redactJson(text, redactor), redaction: kept.mode }
    : { type: textType, text: redactText(text, redactor), redaction: kept.mode }
}

const isJson = (text: string): boolean => {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

const eventOf = (job: Job, settings: CaptureSettings, redactors: Redactors): LogEvent => {
  const { asked, kept, kind, attempt } = job
  const { context, trace } = asked
  const { type, text, redaction } = contentOf(job, settings, redactors)
  const plain = Buffer.from(text)
  const place = { decisionId: context.id, kind, attempt }
  const nonce = randomFillSync(Buffer.alloc(nonceBytes))
  const { body, encoding, keyId, sha256 } = seal(plain, place, settings.encoding, settings.key, nonce)
  const timeMs = Date.parse(context.time)
  return {
    name: eventNames.payload,
    timeMs,
    severity: debugSeverity,
    attributes: {
      [n.decisionId]: context.id,
      [n.tenant]: context.request.tenant,
      [n.captureKeepProbability]: kept.keepProbability,
      [n.payloadKind]: kind,
      [n.payloadAttempt]: attempt,
      [n.payloadContentType]: type,
      [n.payloadSha256]: sha256,
      // Of a payload that was too large this is all that is known.
      [n.payloadBytes]: redaction === 'too-large' ? job.bytes : plain.length,
      [n.payloadRedaction]: redaction,
      [n.payloadKeyId]: keyId,
      [n.payloadNonce]: keyId === '' ? '' : nonce.toString('base64'),
      [n.payloadEncoding]: encoding,
      [n.payloadExpiresAt]: new Date(timeMs + settings.ttlMs).toISOString(),
    },
    body: body.toString('base64'),
    trace: { traceId: trace.traceId, spanId: '' },
  }
}
