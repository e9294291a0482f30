// What comes in with a request, read within limits: its body, the key it shows, and the features it states in headers.
import { createHash, randomFillSync, timingSafeEqual } from 'node:crypto'
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http'
import type { ChatRequest, Rejection } from './chat.ts'
import type { ClientKey } from './config.ts'
import { type Context, tagsMax, textMax } from './policy/record.ts'

const bodyBytesMax = 33_554_432
const headerLengthMax = 4000

const rejection = (status: number, code: string, message: string): Rejection => ({ status, code, message, param: null })

/** The body as text, or the reason why not. */
export const readBody = (request: IncomingMessage): Promise<string | Rejection> => {
  const { promise, resolve } = Promise.withResolvers<string | Rejection>()
  const chunks: Buffer[] = []
  let bytes = 0
  const tooLarge = () => resolve(rejection(413, 'body_too_large', `the body has more than ${bodyBytesMax} bytes`))
  if (Number(request.headers['content-length']) > bodyBytesMax) tooLarge()
  request.on('data', (chunk: Buffer) => {
    bytes += chunk.length
    if (bytes > bodyBytesMax) tooLarge()
    else chunks.push(chunk)
  })
  request.on('end', () =>
    resolve((chunks.length === 1 ? (chunks[0] as Buffer) : Buffer.concat(chunks)).toString('utf8')),
  )
  request.on('error', () => resolve(rejection(400, 'body_incomplete', 'the body ended early')))
  request.on('close', () => resolve(rejection(400, 'body_incomplete', 'the body ended early')))
  return promise
}

/** Who is asking. Without configured keys everybody on this machine may, and says its own tenant and tier. */
export type Caller = Pick<ClientKey, 'tenant' | 'tier' | 'capture'>

export const callerOf = (headers: IncomingHttpHeaders, keys: readonly ClientKey[]): Caller | Rejection => {
  if (keys.length === 0) {
    const browser = browserIn(headers)
    if (browser)
      return rejection(403, 'browser_refused', `${browser}; without client keys only programs of this machine may ask`)
    return { tenant: header(headers, 'tenant'), tier: header(headers, 'tier'), capture: null }
  }
  const shown = /^Bearer (.+)$/i.exec(headers.authorization ?? '')?.[1] ?? ''
  const digest = createHash('sha256').update(shown).digest()
  // Every key is compared, in constant time, so that the answer's delay tells nothing.
  const matching = keys.filter(({ sha256 }) => timingSafeEqual(digest, Buffer.from(sha256, 'hex')))
  const [key] = matching
  if (key) return key
  return rejection(
    401,
    'invalid_api_key',
    shown ? 'this key is not known here' : 'no key was shown: send Authorization: Bearer …',
  )
}

const loopbackHost = /^(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?$/i

/** What shows that a web page is asking, from its own address or under a name that it made point here; null when nothing does. */
const browserIn = (headers: IncomingHttpHeaders): string | null => {
  if (headers.origin !== undefined) return `the request comes from the page ${headers.origin.slice(0, headerLengthMax)}`
  const site = headers['sec-fetch-site']
  if (site !== undefined && site !== 'none') return 'the request comes from a page in a browser'
  return loopbackHost.test(headers.host ?? '') ? null : 'the request names another host'
}

const header = (headers: IncomingHttpHeaders, name: 'tenant' | 'tier' | 'session'): string =>
  String(headers[`x-signalbox-${name}`] ?? '')
    .slice(0, textMax[name])
    .toWellFormed()

/** `category=math,region=eu` */
const tagsOf = (text: string): Record<string, string> =>
  Object.fromEntries(
    text
      .slice(0, headerLengthMax)
      .split(',')
      .slice(0, tagsMax)
      .flatMap((pair) => {
        const [name, ...value] = pair.split('=')
        return name?.trim() ? [[name.trim(), value.join('=').trim().slice(0, textMax.tag)]] : []
      }),
  )

/** Without lone surrogates, which no UTF-8 text can hold and on which a database would give up. */
const wellFormed = (tags: Record<string, string>): Record<string, string> =>
  Object.fromEntries(Object.entries(tags).map(([name, value]) => [name.toWellFormed(), value.toWellFormed()]))

/** The part of a decision's context that the request itself states. */
export const statedBy = (
  chat: ChatRequest,
  headers: IncomingHttpHeaders,
  caller: Caller,
): Pick<Context, 'id' | 'session' | 'request'> => {
  const stated = headers['x-signalbox-tags']
  return {
    id: uuidV7(Date.now()),
    session: header(headers, 'session'),
    request: {
      model: chat.body.model.toWellFormed(),
      input_tokens: chat.inputTokens,
      output_tokens_max: chat.outputTokensMax,
      stream: chat.stream,
      tier: caller.tier,
      tenant: caller.tenant,
      user: (chat.body.user ?? '').toWellFormed(),
      tags: wellFormed({ ...chat.body.metadata, ...(stated ? tagsOf(String(stated)) : {}) }),
    },
  }
}

const idBytes = 16
/** Random bytes for a few hundred ids at a time: asking the system for each costs more than the rest of the id. */
const pool = Buffer.alloc(idBytes * 256)
let used = pool.length

/** A UUID of version 7 (RFC 9562): sorts by time. */
const uuidV7 = (nowMs: number): string => {
  if (used === pool.length) {
    randomFillSync(pool)
    used = 0
  }
  const bytes = pool.subarray(used, used + idBytes)
  used += idBytes
  bytes.writeUIntBE(nowMs, 0, 6)
  bytes[6] = ((bytes[6] as number) & 0x0f) | 0x70
  bytes[8] = ((bytes[8] as number) & 0x3f) | 0x80
  const hex = bytes.toString('hex')
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`
}
