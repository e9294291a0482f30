// What lies between router and collector: a proxy that hands each request on as its weather says, late, several times, or
// with the answer lost on the way back. The router knows only this address, so a collector may come back on any port.
import { request as ask, createServer, type IncomingHttpHeaders } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

/** How long the collector may take for one request before the proxy gives it up. */
const answerMsMax = 120_000

/** What becomes of one request. */
export type Fate = {
  /** How long it is on its way. */
  readonly delayMs?: number
  /** Whether it never arrives. */
  readonly lost?: boolean
  /** Whether the answer never does. */
  readonly answerLost?: boolean
  /** When copies of it arrive, counted from when it does. */
  readonly copiesAfterMs?: readonly number[]
}

export type Weather = {
  readonly url: string
  /** Where requests go. */
  collectorUrl: string
  /** Asked for each request. */
  fate: () => Fate
  /** Requests and copies that were handed on, and answers that were 200. */
  readonly counts: { sent: number; copies: number; taken: number }
  /** Ends when all copies have arrived, or found nobody. */
  readonly settled: () => Promise<void>
  readonly close: () => void
}

type Letter = { readonly path: string; readonly headers: IncomingHttpHeaders; readonly body: Buffer }
type Answer = { readonly status: number; readonly headers: IncomingHttpHeaders; readonly body: Buffer }

const deliver = (base: string, { path, headers, body }: Letter): Promise<Answer> =>
  new Promise((resolve, reject) => {
    const { host: _host, ...rest } = headers
    const sent = ask(new URL(path, base), { method: 'POST', headers: rest, agent: false, timeout: answerMsMax })
    sent.on('timeout', () => sent.destroy(new Error('no answer')))
    sent.on('error', reject)
    sent.on('response', async (response) => {
      try {
        const chunks: Buffer[] = []
        for await (const chunk of response) chunks.push(chunk as Buffer)
        resolve({ status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(chunks) })
      } catch (error) {
        reject(error)
      }
    })
    sent.end(body)
  })

export const openWeather = async (): Promise<Weather> => {
  const copies = new Set<Promise<void>>()
  const counts = { sent: 0, copies: 0, taken: 0 }
  const copy = async (letter: Letter, afterMs: number): Promise<void> => {
    await sleep(afterMs)
    counts.copies += 1
    await deliver(weather.collectorUrl, letter).catch(() => {})
  }
  const server = createServer(async (request, response) => {
    try {
      const chunks: Buffer[] = []
      for await (const chunk of request) chunks.push(chunk as Buffer)
      const letter = { path: request.url ?? '/', headers: request.headers, body: Buffer.concat(chunks) }
      const { delayMs = 0, lost = false, answerLost = false, copiesAfterMs = [] } = weather.fate()
      await sleep(delayMs)
      if (lost) return response.destroy()
      for (const afterMs of copiesAfterMs) {
        const copied = copy(letter, afterMs).finally(() => copies.delete(copied))
        copies.add(copied)
      }
      counts.sent += 1
      const answer = await deliver(weather.collectorUrl, letter)
      if (answer.status === 200) counts.taken += 1
      if (answerLost) return response.destroy()
      return response.writeHead(answer.status, answer.headers).end(answer.body)
    } catch {
      return response.destroy()
    }
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const weather: Weather = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    collectorUrl: 'http://127.0.0.1:1',
    fate: () => ({}),
    counts,
    settled: async () => {
      while (copies.size > 0) await Promise.all(copies)
    },
    close: () => {
      server.close()
      server.closeAllConnections()
    },
  }
  return weather
}
