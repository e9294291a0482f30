// The demo's client: it asks the questions over real HTTP at the pace of the recorded hour, reads answers as any client
// of the OpenAI protocol would, judges them, and sends the judgement back as feedback. It counts what it saw, so that
// what the router stored can be reconciled with it.
import { setTimeout as sleep } from 'node:timers/promises'
import { type Dispatcher, Pool } from 'undici'
import { type Asked, isRight, promptOf } from './world.ts'

const inFlightMax = 256
const connectionsMax = 256
const answerBytesMax = 1 << 20
const answerTimeoutMs = 60_000

/** What the client saw of one request. */
export type Seen = {
  readonly asked: Asked
  /** The decision's id from the response header; null when there was none. */
  readonly decisionId: string | null
  /** 0 when there was no response. */
  readonly status: number
  readonly servedModel: string | null
  /** Whether there was a response that ended before its answer did. */
  readonly aborted: boolean
  readonly right: boolean
  /** Whether the router took the judgement. */
  readonly judged: boolean
}

type DriveOptions = {
  readonly routerUrl: string
  readonly asked: readonly Asked[]
  /** Wall milliseconds per recorded millisecond. */
  readonly timeScale: number
  readonly progress: (at: { readonly done: number; readonly total: number }) => void
}

/** Drives the requests through the router, each at its time, and resolves when every answer was read and judged. */
export const drive = async ({ routerUrl, asked, timeScale, progress }: DriveOptions): Promise<Seen[]> => {
  const pool = new Pool(routerUrl, {
    connections: connectionsMax,
    headersTimeout: answerTimeoutMs,
    bodyTimeout: answerTimeoutMs,
  })
  const startedAt = performance.now()
  const flying = new Set<Promise<void>>()
  const seen: Seen[] = []
  for (const one of asked) {
    const waitMs = startedAt + one.dueMs * timeScale - performance.now()
    if (waitMs > 0) await sleep(waitMs)
    while (flying.size >= inFlightMax) await Promise.race(flying)
    const flight: Promise<void> = exchange(pool, one).then((result) => {
      seen.push(result)
      flying.delete(flight)
      progress({ done: seen.length, total: asked.length })
    })
    flying.add(flight)
  }
  await Promise.all(flying)
  await pool.close()
  return seen.sort((a, b) => a.asked.index - b.asked.index)
}

const exchange = async (pool: Pool, asked: Asked): Promise<Seen> => {
  const nothing = { asked, decisionId: null, status: 0, servedModel: null, aborted: false, right: false, judged: false }
  const response = await ask(pool, asked).catch(() => null)
  if (!response) return nothing
  const decisionId = header(response, 'x-signalbox-decision-id')
  const answer = await readAnswer(response, asked.stream).catch(() => null)
  const right = answer !== null && isRight(asked.question, answer)
  const aborted = answer === null && response.statusCode === 200
  const judged = decisionId !== null && (await judge(pool, decisionId, right))
  const servedModel = header(response, 'x-signalbox-model')
  return { asked, decisionId, status: response.statusCode, servedModel, aborted, right, judged }
}

const header = ({ headers }: Dispatcher.ResponseData, name: string): string | null => {
  const value = headers[name]
  return typeof value === 'string' && value ? value : null
}

const ask = (pool: Pool, asked: Asked): Promise<Dispatcher.ResponseData> =>
  pool.request({
    path: '/v1/chat/completions',
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      'x-signalbox-session': asked.session,
      'x-signalbox-tags': `category=${asked.question.category}`,
    },
    body: JSON.stringify({
      model: 'auto',
      stream: asked.stream,
      user: asked.user,
      messages: [{ role: 'user', content: promptOf(asked) }],
    }),
  })

type Choices = { choices?: { message?: { content?: string }; delta?: { content?: string } }[] }

/** The answer's text; null when there is none or its end is missing. Throws when it breaks off or cannot be read. */
const readAnswer = async (response: Dispatcher.ResponseData, stream: boolean): Promise<string | null> => {
  const text = await readText(response.body)
  if (response.statusCode !== 200) return null
  if (!stream) return (JSON.parse(text) as Choices).choices?.[0]?.message?.content ?? null
  const events = text.split('\n\n').flatMap((event) => (event.startsWith('data: ') ? [event.slice(6)] : []))
  if (events.pop() !== '[DONE]') return null
  return events.map((event) => (JSON.parse(event) as Choices).choices?.[0]?.delta?.content ?? '').join('')
}

const readText = async (body: Dispatcher.ResponseData['body']): Promise<string> => {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of body as AsyncIterable<Buffer>) {
    bytes += chunk.length
    if (bytes > answerBytesMax) throw new RangeError(`an answer may have ${answerBytesMax} bytes`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

/** An answer that is wrong, broke off or never came is worth nothing; a right one is worth everything. */
const judge = async (pool: Pool, decisionId: string, right: boolean): Promise<boolean> => {
  const response = await pool
    .request({
      path: '/v1/feedback',
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ decision_id: decisionId, score: right ? 1 : 0 }),
    })
    .catch(() => null)
  await response?.body.dump()
  return response?.statusCode === 202
}
