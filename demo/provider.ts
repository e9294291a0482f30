// A provider of models, as a local server that speaks the OpenAI protocol over real HTTP: it answers each question with
// the model's recorded outcome, at the recorded pace, and fails as the recorded calls failed. Chunks go out by deadline,
// not by interval, so that a late timer delays one chunk and not the whole answer.
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { z } from 'zod'
import { answerOf, charsPerToken, durationOf, type Potential, type Question, questionIn, tokensOf } from './world.ts'

const bodyBytesMax = 4 << 20
const messagesMax = 1000
/** Tokens are sent together until this much time has passed: timers are not finer. */
const chunkMsMin = 10

const bodySchema = z.object({
  model: z.string(),
  messages: z
    .array(z.object({ role: z.string(), content: z.string() }))
    .min(1)
    .max(messagesMax),
  stream: z.boolean().default(false),
  stream_options: z.object({ include_usage: z.boolean().default(false) }).nullish(),
})
type Body = z.infer<typeof bodySchema>

export type Provider = { readonly url: string; readonly close: () => Promise<void> }
type ProviderOptions = {
  /** By the exact name that requests must ask for: what that model makes of a question. */
  readonly models: ReadonlyMap<string, (question: Question) => Potential>
  readonly questions: ReadonlyMap<string, Question>
  /** Wall milliseconds per recorded millisecond. */
  readonly timeScale: number
}

/** Starts a provider on a free local port. `url` is its OpenAI base URL. */
export const startProvider = async (options: ProviderOptions): Promise<Provider> => {
  const server = createServer((request, response) => {
    answer(options, request, response).catch((error: unknown) => {
      if (!response.headersSent) refuse(response, 400, `the request cannot be read: ${String(error)}`)
      else response.destroy()
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  return {
    url: `http://127.0.0.1:${port}/v1`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

const send = (response: ServerResponse, status: number, body: object): void => {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
}

const refuse = (response: ServerResponse, status: number, message: string): void =>
  send(response, status, { error: { message, type: status === 429 ? 'rate_limit_error' : 'api_error', code: null } })

const readBody = async (request: IncomingMessage): Promise<Body> => {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length
    if (bytes > bodyBytesMax) throw new RangeError(`a request body may have ${bodyBytesMax} bytes`)
    chunks.push(chunk)
  }
  return bodySchema.parse(JSON.parse(Buffer.concat(chunks).toString('utf8')))
}

const answer = async (options: ProviderOptions, request: IncomingMessage, response: ServerResponse): Promise<void> => {
  const startedAt = performance.now()
  if (request.method !== 'POST' || request.url !== '/v1/chat/completions')
    return refuse(response, 404, `no such endpoint: ${request.method} ${request.url}`)
  const body = await readBody(request)
  const model = options.models.get(body.model)
  if (!model)
    return refuse(response, 404, `no model '${body.model}' here; there are: ${[...options.models.keys()].join(', ')}`)
  const prompt = body.messages.at(-1)?.content ?? ''
  const question = options.questions.get(questionIn(prompt) ?? '')
  if (!question) return refuse(response, 400, 'the last message names no recorded question')
  const outcome = model(question)
  const left = new AbortController()
  response.once('close', () => left.abort())
  /** Waits until `ms` recorded milliseconds after the request came; false when the client has gone. */
  const until = async (ms: number): Promise<boolean> => {
    const waitMs = startedAt + ms * options.timeScale - performance.now()
    if (waitMs > 0) await sleep(waitMs, undefined, { signal: left.signal }).catch(() => {})
    return !left.signal.aborted
  }
  const { timeScale } = options
  const call: Call = { body, promptTokens: tokensOf(prompt), question, outcome, response, until, timeScale }
  if (outcome.failure === '429' || outcome.failure === '500') {
    if (await until(durationOf(outcome))) refuse(response, Number(outcome.failure), `recorded as ${outcome.failure}`)
  } else if (body.stream) await answerStream(call)
  else await answerWhole(call)
}

type Call = {
  readonly body: Body
  readonly promptTokens: number
  readonly question: Question
  readonly outcome: Potential
  readonly response: ServerResponse
  readonly until: (ms: number) => Promise<boolean>
  readonly timeScale: number
}

const usageOf = ({ promptTokens, outcome }: Call) => ({
  prompt_tokens: promptTokens,
  completion_tokens: outcome.outputTokens,
  total_tokens: promptTokens + outcome.outputTokens,
})

const headOf = ({ body, question }: Call, object: string) => ({
  id: `chatcmpl-${question.id}`,
  object,
  created: Math.floor(Date.now() / 1000),
  model: body.model,
})

const answerWhole = async (call: Call): Promise<void> => {
  const { question, outcome, response, until } = call
  if (!(await until(durationOf(outcome)))) return
  if (outcome.failure === 'cut') {
    response.destroy()
    return
  }
  const message = { role: 'assistant', content: answerOf(question, outcome) }
  send(response, 200, {
    ...headOf(call, 'chat.completion'),
    choices: [{ index: 0, message, finish_reason: 'stop' }],
    usage: usageOf(call),
  })
}

const answerStream = async (call: Call): Promise<void> => {
  const { body, question, outcome, response, until } = call
  const head = headOf(call, 'chat.completion.chunk')
  const event = (payload: object) => response.write(`data: ${JSON.stringify({ ...head, ...payload })}\n\n`)
  const choice = (delta: object, finish_reason: string | null) => ({ choices: [{ index: 0, delta, finish_reason }] })
  const text = answerOf(question, outcome)
  const tokensPerChunk = Math.max(1, Math.ceil(chunkMsMin / Math.max(outcome.tokenMs * call.timeScale, 0.001)))
  if (!(await until(outcome.ttftMs))) return
  response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache' })
  event(choice({ role: 'assistant', content: '' }, null))
  for (let token = 0, next = 1; token < outcome.outputTokens; token = next, next += tokensPerChunk) {
    const end = Math.min(next, outcome.outputTokens)
    if (!(await until(outcome.ttftMs + outcome.tokenMs * (end - 1)))) return
    event(choice({ content: text.slice(token * charsPerToken, end * charsPerToken) }, null))
  }
  if (outcome.failure === 'cut') {
    // What was sent must be on its way before the connection goes, or it would go with it.
    response.write(': cut\n\n', () => response.destroy())
    return
  }
  event(choice({}, 'stop'))
  if (body.stream_options?.include_usage) event({ choices: [], usage: usageOf(call) })
  response.end('data: [DONE]\n\n')
}
