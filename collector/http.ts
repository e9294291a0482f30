// What both HTTP sides of the collector share: reading a body within limits, who may send, and starting and stopping a
// server. On loopback nobody needs a login, so what a browser was led to send by some other page is refused there; off
// loopback a bearer token says who sends.
import { createHash, timingSafeEqual } from 'node:crypto'
import type { IncomingMessage, RequestListener, Server } from 'node:http'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createGunzip, createInflate } from 'node:zlib'

/** The largest body, also after decompression. */
export const bodyBytesMax = 64 * 1024 * 1024
const inflatedChunkBytes = 256 * 1024
/** How long a request may take to arrive whole. */
const requestMsMax = 120_000
/** Longer than exporters wait between two batches, five seconds by default, so that none meets a connection that is being closed. */
const keepAliveMs = 65_000
/** How long running requests may take to end once the server is closing. */
const closeMsMax = 10_000
const sweepMs = 50

/** A request that is refused; `status` is the HTTP status. */
export class HttpError extends Error {
  readonly code = 'http-refused'
  readonly status: number
  constructor(status: number, message: string) {
    super(message)
    this.status = status
  }
}

/** What one request holds of the memory that all may hold together. */
export type Lease = {
  /** Throws a 503 when all together would hold too much. */
  readonly take: (bytes: number) => void
  readonly release: () => void
}

/** Gives out leases that together hold at most `bytesMax`. */
export const createBudget = (bytesMax: number): (() => Lease) => {
  let allBytes = 0
  return () => {
    let ownBytes = 0
    const take = (bytes: number): void => {
      if (allBytes + bytes > bytesMax) {
        throw new HttpError(503, `requests of ${bytesMax} bytes are being worked on already; send it again later`)
      }
      allBytes += bytes
      ownBytes += bytes
    }
    const release = (): void => {
      allBytes -= ownBytes
      ownBytes = 0
    }
    return { take, release }
  }
}

/** Reads and decompresses a body; every byte held for it is taken on the lease. Throws HttpError. */
export const readBody = async (request: IncomingMessage, lease: Lease): Promise<Buffer> => {
  if (Number(request.headers['content-length'] ?? 0) > bodyBytesMax) throw tooLarge()
  const createDecompressor = decompressorOf(request)
  // A request refused half-way is left open, or its answer could not be sent.
  const body = await gather(request.iterator({ destroyOnReturn: false }), lease)
  if (createDecompressor === null) return body
  const decompressor = createDecompressor({ chunkSize: inflatedChunkBytes })
  decompressor.end(body)
  return gather(decompressor, lease).catch((error: Error) => {
    if (error instanceof HttpError) throw error
    throw new HttpError(400, `the body cannot be decompressed: ${error.message}`)
  })
}

/** All chunks as one, each taken on the lease as it comes, so that nothing is unpacked beyond what may be held. */
const gather = async (source: AsyncIterable<Buffer>, lease: Lease): Promise<Buffer> => {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of source) {
    bytes += chunk.length
    if (bytes > bodyBytesMax) throw tooLarge()
    lease.take(chunk.length)
    chunks.push(chunk)
  }
  return chunks.length === 1 ? (chunks[0] as Buffer) : Buffer.concat(chunks)
}

const tooLarge = (): HttpError => new HttpError(413, `the body is larger than ${bodyBytesMax} bytes`)

const decompressorOf = (request: IncomingMessage): typeof createGunzip | typeof createInflate | null => {
  const encoding = (request.headers['content-encoding'] ?? 'identity').trim().toLowerCase()
  if (encoding === 'identity' || encoding === '') return null
  if (encoding === 'gzip' || encoding === 'x-gzip') return createGunzip
  if (encoding === 'deflate') return createInflate
  throw new HttpError(
    415,
    `content encoding '${encoding.slice(0, 64)}' is not read here; it reads gzip, deflate, identity`,
  )
}

const digestOf = (token: string): Buffer => createHash('sha256').update(token).digest()

/** A check that a request bears the token, by its digest and in constant time; it throws a 401. */
export const bearerCheck = (token: string): ((request: IncomingMessage) => void) => {
  const wanted = digestOf(token)
  return ({ headers }) => {
    const [, given] = /^bearer +(\S+) *$/i.exec(headers.authorization ?? '') ?? []
    if (given === undefined) throw new HttpError(401, "no token was given, wanted a header 'authorization: Bearer …'")
    if (!timingSafeEqual(digestOf(given), wanted)) throw new HttpError(401, "the token given is not this collector's")
  }
}

/** Refuses requests that a web page made a browser send: they name an origin or their site. */
export const refuseWebPages = (request: IncomingMessage): void => {
  const { origin, 'sec-fetch-site': site } = request.headers
  if (site !== undefined && site !== 'none') throw new HttpError(403, 'requests from web pages are refused')
  if (origin !== undefined) throw new HttpError(403, `requests from web pages (${origin.slice(0, 200)}) are refused`)
}

/** The same on loopback, where a name that a web page made to point here shows as a host that is not this one. */
export const refuseBrowsers = (request: IncomingMessage): void => {
  refuseWebPages(request)
  const { host } = request.headers
  if (host !== undefined && !isLoopback(host.replace(/:\d+$/, ''))) {
    throw new HttpError(403, `host '${host.slice(0, 200)}' is not this server, which is at localhost`)
  }
}

export const isLoopback = (host: string): boolean => /^(?:localhost|127(?:\.\d{1,3}){3}|\[?::1\]?)$/i.test(host)

/** A listening server: where it is, and how to stop it once running requests have ended. */
export type Listening = { readonly url: string; readonly close: () => Promise<void> }

export const listen = async (handler: RequestListener, host: string, port: number): Promise<Listening> => {
  const server = createServer({ requestTimeout: requestMsMax, keepAliveTimeout: keepAliveMs }, handler)
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, host, resolve)
  })
  const name = host.includes(':') ? `[${host}]` : host
  return { url: `http://${name}:${(server.address() as AddressInfo).port}`, close: () => closeServer(server) }
}

const closeServer = async (server: Server): Promise<void> => {
  const deadline = setTimeout(() => server.closeAllConnections(), closeMsMax)
  // A connection that was busy when closing began is idle, but kept alive, once it has its answer.
  const sweep = setInterval(() => server.closeIdleConnections(), sweepMs)
  await new Promise((resolve) => server.close(resolve))
  clearInterval(sweep)
  clearTimeout(deadline)
}
