// What the router is measured against: express and undici passing a request on, deciding and recording nothing.
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import express from 'express'
import { type Dispatcher, Pool } from 'undici'

const [, , upstream = ''] = process.argv
const pool = new Pool(upstream, { connections: 1024 })
const app = express()
app.disable('x-powered-by')
app.disable('etag')
app.post('/v1/chat/completions', (request, response) => {
  const chunks: Buffer[] = []
  request.on('data', (chunk: Buffer) => chunks.push(chunk))
  request.on('end', () => {
    const handler: Dispatcher.DispatchHandler = {
      onRequestStart: () => {},
      onResponseStart: (_, status, headers) =>
        void response.writeHead(status, { 'content-type': String(headers['content-type']) }),
      onResponseData: (_, chunk) => void response.write(chunk),
      onResponseEnd: () => void response.end(),
      onResponseError: () => void response.destroy(),
    }
    pool.dispatch(
      {
        path: '/v1/chat/completions',
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: Buffer.concat(chunks),
      },
      handler,
    )
  })
})
const server = createServer({ keepAliveTimeout: 600_000 }, app)
server.listen(0, '127.0.0.1', () =>
  process.send?.({ routerUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}` }),
)
for (const end of ['SIGTERM', 'disconnect'] as const) process.once(end, () => process.exit(0))
