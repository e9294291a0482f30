// A provider that does as it is told: a real HTTP server, scripted per request. It speaks OpenAI's chat API, or fails in
// any of the ways that providers do.
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

export type Asked = {
  readonly body: Record<string, unknown>
  readonly raw: string
  readonly headers: IncomingMessage['headers']
}
export type Script = (response: ServerResponse, asked: Asked) => void | Promise<void>

export type ScriptedProvider = {
  readonly url: string
  readonly asked: Asked[]
  /** Resolves when the n-th response (from 1) was closed by the other side. */
  readonly closed: (n: number) => Promise<void>
  script: Script
  readonly close: () => Promise<void>
}

export const startProvider = async (script: Script): Promise<ScriptedProvider> => {
  const asked: Asked[] = []
  const closings: Promise<void>[] = []
  const waiting: (() => void)[] = []
  const server = createServer(async (request, response) => {
    closings.push(new Promise((resolve) => response.on('close', resolve)))
    for (const wake of waiting.splice(0)) wake()
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    const raw = Buffer.concat(chunks).toString()
    const one = { raw, body: JSON.parse(raw) as Record<string, unknown>, headers: request.headers }
    asked.push(one)
    await provider.script(response, one)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const provider: ScriptedProvider = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    asked,
    script,
    closed: async (n) => {
      while (closings.length < n) await new Promise<void>((resolve) => waiting.push(resolve))
      await closings[n - 1]
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
  return provider
}

const usageOf = (input: number, output: number) => ({
  prompt_tokens: input,
  completion_tokens: output,
  total_tokens: input + output,
  prompt_tokens_details: { cached_tokens: 0 },
})

/** A whole JSON answer; `usage: null` leaves the usage out. */
export const json =
  (text: string, { input = 10, output = 5, usage = true } = {}): Script =>
  (response, { body }) => {
    response.writeHead(200, { 'content-type': 'application/json', 'x-request-id': 'req-1' })
    response.end(
      JSON.stringify({
        id: 'chatcmpl-1',
        object: 'chat.completion',
        created: 1,
        model: `${body.model}-0101`,
        choices: [{ index: 0, message: { role: 'assistant', content: text, refusal: null }, finish_reason: 'stop' }],
        ...(usage ? { usage: usageOf(input, output) } : {}),
      }),
    )
  }

export const chunk = (model: unknown, delta: object, finish: string | null = null) =>
  `data: ${JSON.stringify({ id: 'chatcmpl-1', object: 'chat.completion.chunk', created: 1, model, choices: [{ index: 0, delta, finish_reason: finish }] })}\n\n`

/** Ends the connection in the middle, once what was written is on its way. */
const cut = (response: ServerResponse): void => void response.write(': cut\n\n', () => response.destroy())

/** A stream; `cutAfter` destroys the connection after that many pieces, `usage` is sent when it was asked for. */
export const sse =
  (
    pieces: readonly string[],
    options: { input?: number; output?: number; usage?: boolean; cutAfter?: number; gapMs?: number } = {},
  ): Script =>
  async (response, { body }) => {
    const { input = 10, output = pieces.length, usage = true, cutAfter, gapMs = 0 } = options
    response.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8' })
    response.write(chunk(body.model, { role: 'assistant', content: '' }))
    for (const [at, piece] of pieces.entries()) {
      if (gapMs > 0) await new Promise((resolve) => setTimeout(resolve, gapMs))
      if (at === cutAfter) return cut(response)
      if (response.destroyed) return
      response.write(chunk(body.model, { content: piece }))
    }
    if (cutAfter !== undefined && cutAfter >= pieces.length) return cut(response)
    response.write(chunk(body.model, {}, 'stop'))
    const asked = (body.stream_options as { include_usage?: boolean } | undefined)?.include_usage
    if (asked && usage)
      response.write(
        `data: ${JSON.stringify({ id: 'chatcmpl-1', object: 'chat.completion.chunk', created: 1, model: body.model, choices: [], usage: usageOf(input, output) })}\n\n`,
      )
    response.end('data: [DONE]\n\n')
  }

/** An error answer as OpenAI words it. */
export const fails =
  (status: number, headers: Record<string, string> = {}): Script =>
  (response) => {
    response.writeHead(status, { 'content-type': 'application/json', ...headers })
    response.end(
      JSON.stringify({ error: { message: `scripted ${status}`, type: 'scripted', code: null, param: null } }),
    )
  }

/** Takes the request and never answers. */
export const silent: Script = () => {}
