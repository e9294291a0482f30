// Reads a provider's answer for what must be recorded: usage, first content, finish reasons, errors. A JSON body is
// read whole; a stream is read event by event while its bytes pass through, so that nothing is recomputed afterwards.
import { tokensOf } from './chat.ts'
import type { Usage } from './policy/attempt.ts'

/** A stream that sends this much without finishing one event is not a stream of events. */
const eventBytesMax = 1_048_576

/** What an answer has told so far. */
export type Reading = {
  usage: Usage | null
  responseId: string
  responseModel: string
  finishReasons: string[]
  /** Characters of generated text, tool calls and reasoning. */
  outputCharacters: number
  done: boolean
}
export const emptyReading = (): Reading => ({
  usage: null,
  responseId: '',
  responseModel: '',
  finishReasons: [],
  outputCharacters: 0,
  done: false,
})

type Json = Record<string, unknown>
const object = (value: unknown): Json | null => (value !== null && typeof value === 'object' ? (value as Json) : null)
/** More tokens than this are a mistake of the provider, and not known is better than absurd. */
const tokensMax = 2 ** 32 - 1

const count = (value: unknown): number | null =>
  typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= tokensMax ? value : null

const usageOf = (value: unknown): Usage | null => {
  const usage = object(value)
  const [inputTokens, outputTokens] = [count(usage?.prompt_tokens), count(usage?.completion_tokens)]
  if (inputTokens === null || outputTokens === null) return null
  return {
    inputTokens,
    outputTokens,
    cachedInputTokens: count(object(usage?.prompt_tokens_details)?.cached_tokens),
    reasoningTokens: count(object(usage?.completion_tokens_details)?.reasoning_tokens),
    source: 'measured',
  }
}

/** Usage as the provider measured it, or an estimate from characters that says so. */
export const usageFrom = (reading: Reading, inputTokensEstimated: number): Usage =>
  reading.usage ?? {
    inputTokens: inputTokensEstimated,
    outputTokens: tokensOf(reading.outputCharacters),
    cachedInputTokens: null,
    reasoningTokens: null,
    source: 'estimated',
  }

/** Folds one JSON object of an answer, whole or chunk, into the reading. Returns whether it carried generated content. */
const fold = (reading: Reading, json: Json): boolean => {
  if (typeof json.id === 'string') reading.responseId = json.id
  if (typeof json.model === 'string') reading.responseModel = json.model
  reading.usage = usageOf(json.usage) ?? reading.usage
  let content = 0
  for (const choice of Array.isArray(json.choices) ? json.choices : []) {
    const { delta, message, finish_reason } = object(choice) ?? {}
    const part = object(delta) ?? object(message)
    for (const text of [part?.content, part?.reasoning_content, part?.reasoning, part?.refusal])
      if (typeof text === 'string') content += text.length
    for (const call of [part?.tool_calls, part?.function_call]) if (call) content += JSON.stringify(call).length
    if (typeof finish_reason === 'string') {
      reading.finishReasons.push(finish_reason)
      reading.done = true
    }
  }
  reading.outputCharacters += content
  return content > 0
}

/** Reads a whole JSON answer. False when it is not one. */
export const readAnswer = (reading: Reading, body: Buffer): boolean => {
  try {
    const json = object(JSON.parse(body.toString('utf8')))
    if (!json || !Array.isArray(json.choices)) return false
    fold(reading, json)
    reading.done = true
    return true
  } catch {
    return false
  }
}

/** What a piece of a stream held. `forward` is what the client gets of it: whole events, as they came. */
export type StreamPiece =
  | { readonly kind: 'events'; readonly forward: Buffer; readonly content: boolean }
  | { readonly kind: 'error' | 'malformed'; readonly forward: Buffer; readonly content: boolean }

const empty = Buffer.alloc(0)

/**
 * Splits a byte stream into server-sent events at blank lines and reads each. Incomplete events wait for their rest, so
 * that an event to be left out (the usage chunk of a client that did not ask) can be.
 */
export class EventReader {
  readonly reading = emptyReading()
  readonly #keepUsage: boolean
  #rest: Buffer = empty

  constructor(keepUsage: boolean) {
    this.#keepUsage = keepUsage
  }

  push(chunk: Buffer): StreamPiece {
    const bytes = this.#rest.length > 0 ? Buffer.concat([this.#rest, chunk]) : chunk
    const kept: Buffer[] = []
    let [start, content] = [0, false]
    for (let end = boundaryAfter(bytes, start); end > 0; end = boundaryAfter(bytes, start)) {
      const event = bytes.subarray(start, end)
      const read = this.#read(event)
      if (read === 'malformed' || read === 'error') return { kind: read, forward: Buffer.concat(kept), content }
      content ||= read === 'content'
      if (read !== 'usage' || this.#keepUsage) kept.push(event)
      start = end
    }
    this.#rest = bytes.subarray(start)
    if (this.#rest.length > eventBytesMax) return { kind: 'malformed', forward: Buffer.concat(kept), content }
    return { kind: 'events', forward: kept.length === 1 ? (kept[0] as Buffer) : Buffer.concat(kept), content }
  }

  /** The last event, when the stream ended without the blank line after it. */
  end(): StreamPiece {
    return this.push(Buffer.from(this.#rest.length > 0 ? '\n\n' : ''))
  }

  #read(event: Buffer): 'content' | 'usage' | 'other' | 'malformed' | 'error' {
    const data = dataOf(event.toString('utf8'))
    if (data === '') return 'other'
    if (data === '[DONE]') {
      this.reading.done = true
      return 'other'
    }
    try {
      const json = object(JSON.parse(data))
      if (!json) return 'malformed'
      if (json.error) return 'error'
      if (fold(this.reading, json)) return 'content'
      return json.usage && Array.isArray(json.choices) && json.choices.length === 0 ? 'usage' : 'other'
    } catch {
      return 'malformed'
    }
  }
}

/** The index just after the next blank line, or 0 when there is none. */
const boundaryAfter = (bytes: Buffer, from: number): number => {
  const lf = bytes.indexOf('\n\n', from)
  const crlf = (lf < 0 ? bytes : bytes.subarray(0, lf)).indexOf('\r\n\r\n', from)
  if (crlf >= 0) return crlf + 4
  return lf < 0 ? 0 : lf + 2
}

const dataOf = (event: string): string =>
  event
    .split('\n')
    .filter((line) => line.startsWith('data:'))
    .map((line) => line.slice(5).trim())
    .join('\n')
