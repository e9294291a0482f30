// What both HTTP sides of the collector share: reading a body within limits, and starting and stopping a server. There is
// no login here, so both serve loopback only and refuse what a browser was led to send by some other page.
import type { IncomingMessage, RequestListener, Server } from 'node:http'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { promisify } from 'node:util'
import { gunzip, inflate } from 'node:zlib'

/** The largest body, also after decompression. */
export const bodyBytesMax = 64 * 1024 * 1024
/** How long a request may take to arrive whole. */
const requestMsMax = 120_000
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
  const decompress = decompressorOf(request)
  const chunks: Buffer[] = []
  let bytes = 0
  // A request refused half-way is left open, or its answer could not be sent.
  for await (const chunk of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    bytes += chunk.length
    if (bytes > bodyBytesMax) throw tooLarge()
    lease.take(chunk.length)
    chunks.push(chunk)
  }
  const body = Buffer.concat(chunks)
  if (decompress === null) return body
  try {
    const whole = await decompress(body, { maxOutputLength: bodyBytesMax })
    lease.take(whole.length)
    return whole
  } catch (error) {
    if (error instanceof HttpError) throw error
    if ((error as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE') throw tooLarge()
    throw new HttpError(400, `the body cannot be decompressed: ${(error as Error).message}`)
  }
}

const tooLarge = (): HttpError => new HttpError(413, `the body is larger than ${bodyBytesMax} bytes`)

const decompressorOf = (request: IncomingMessage) => {
  const encoding = (request.headers['content-encoding'] ?? 'identity').trim().toLowerCase()
  if (encoding === 'identity' || encoding === '') return null
  if (encoding === 'gzip' || encoding === 'x-gzip') return promisify(gunzip)
  if (encoding === 'deflate') return promisify(inflate)
  throw new HttpError(
    415,
    `content encoding '${encoding.slice(0, 64)}' is not read here; it reads gzip, deflate, identity`,
  )
}

/** Refuses requests that a web page made a browser send: they name an origin, their site, or a host that is not this one. */
export const refuseBrowsers = (request: IncomingMessage): void => {
  const { origin, host, 'sec-fetch-site': site } = request.headers
  if (site !== undefined && site !== 'none') throw new HttpError(403, 'requests from web pages are refused')
  if (origin !== undefined) throw new HttpError(403, `requests from web pages (${origin.slice(0, 200)}) are refused`)
  if (host !== undefined && !isLoopback(host.replace(/:\d+$/, ''))) {
    throw new HttpError(403, `host '${host.slice(0, 200)}' is not this server, which is at localhost`)
  }
}

export const isLoopback = (host: string): boolean => /^(?:localhost|127(?:\.\d{1,3}){3}|\[?::1\]?)$/i.test(host)

/** A listening server: where it is, and how to stop it once running requests have ended. */
export type Listening = { readonly url: string; readonly close: () => Promise<void> }

export const listen = async (handler: RequestListener, host: string, port: number): Promise<Listening> => {
  const server = createServer({ requestTimeout: requestMsMax }, handler)
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
