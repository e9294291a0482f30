// A load generator and an upstream that cost next to nothing: prepared bytes over plain sockets, with just enough HTTP
// to find where a message ends. A client library would be busier than the router it measures.

import type { AddressInfo } from 'node:net'
import { connect, createServer, type Socket } from 'node:net'

const headEnd = '\r\n\r\n'
const lastChunk = '0\r\n\r\n'

/** Whether the bytes so far are a whole HTTP/1.1 message. */
const isWhole = (bytes: Buffer): boolean => {
  const end = bytes.indexOf(headEnd)
  if (end < 0) return false
  const head = bytes.toString('latin1', 0, end).toLowerCase()
  const length = /content-length: (\d+)/.exec(head)?.[1]
  if (length !== undefined) return bytes.length >= end + headEnd.length + Number(length)
  return bytes.toString('latin1', bytes.length - lastChunk.length) === lastChunk
}

const onMessages = (socket: Socket, onMessage: (message: Buffer) => void): void => {
  let held: Buffer | null = null
  socket.on('data', (chunk: Buffer) => {
    held = held ? Buffer.concat([held, chunk]) : chunk
    if (!isWhole(held)) return
    const message = held
    held = null
    onMessage(message)
  })
  socket.on('error', () => socket.destroy())
}

/** Answers every request with the same JSON. */
export const startUpstream = async (body: Buffer): Promise<{ url: string; close: () => void }> => {
  const head = `HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ${body.length}${headEnd}`
  const answer = Buffer.concat([Buffer.from(head), body])
  const sockets = new Set<Socket>()
  const server = createServer({ noDelay: true }, (socket) => {
    sockets.add(socket)
    onMessages(socket, () => socket.write(answer))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: () => {
      server.close()
      for (const socket of sockets) socket.destroy()
    },
  }
}

export type Load = { readonly run: (ms: number) => Promise<number[]>; readonly close: () => void }

/** Keeps one request in flight on each of `connections` sockets; `run` returns the latencies, milliseconds. */
export const startLoad = async (url: string, path: string, body: string, connections: number): Promise<Load> => {
  const { hostname, port, host } = new URL(url)
  const request = Buffer.from(
    `POST ${path} HTTP/1.1\r\nhost: ${host}\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}${headEnd}${body}`,
  )
  const sockets = await Promise.all(
    Array.from({ length: connections }, async () => {
      const socket = connect({ host: hostname, port: Number(port), noDelay: true })
      await new Promise((resolve) => socket.once('connect', resolve))
      return socket
    }),
  )
  let answered: (socket: Socket, message: Buffer) => void = () => {}
  for (const socket of sockets) onMessages(socket, (message) => answered(socket, message))
  const run = (ms: number): Promise<number[]> => {
    const { promise, resolve, reject } = Promise.withResolvers<number[]>()
    const end = performance.now() + ms
    const latencies: number[] = []
    const sentAt = new Map<Socket, number>()
    let flying = 0
    const send = (socket: Socket): void => {
      flying += 1
      sentAt.set(socket, performance.now())
      socket.write(request)
    }
    answered = (socket, message) => {
      flying -= 1
      if (message.toString('latin1', 9, 12) !== '200') reject(new Error(message.toString('latin1', 0, 400)))
      latencies.push(performance.now() - (sentAt.get(socket) as number))
      if (performance.now() < end) send(socket)
      else if (flying === 0) resolve(latencies)
    }
    for (const socket of sockets) send(socket)
    return promise
  }
  return {
    run,
    close: () => {
      for (const socket of sockets) socket.destroy()
    },
  }
}
