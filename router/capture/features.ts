// What can be said of a request or an answer without saying any of it: sizes, counts, and keyed hashes by which equal texts are
// known again within one tenant. Nothing here depends on a language or can be turned back into text.
import { createHmac } from 'node:crypto'

/** Messages described one by one; what exceeds them is only counted. */
const messagesMax = 256
const hashLetters = 24

type Json = Record<string, unknown>
const object = (value: unknown): Json => (value !== null && typeof value === 'object' ? (value as Json) : {})
const list = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : [])

export type TextFeatures = {
  readonly characters: number
  readonly bytes: number
  readonly words: number
  readonly lines: number
  readonly digits: number
  readonly code_blocks: number
  readonly question_marks: number
  /** HMAC-SHA256 with the tenant's key, 96 bits. */
  readonly hash: string
}

const countOf = (text: string, pattern: RegExp): number => text.match(pattern)?.length ?? 0

const textFeatures = (text: string, key: Buffer): TextFeatures => ({
  characters: text.length,
  bytes: Buffer.byteLength(text),
  words: countOf(text, /\S+/g),
  lines: countOf(text, /\n/g) + (text === '' ? 0 : 1),
  digits: countOf(text, /\p{Nd}/gu),
  code_blocks: Math.floor(countOf(text, /```/g) / 2),
  question_marks: countOf(text, /[?؟？]/g),
  hash: createHmac('sha256', key).update(text).digest('hex').slice(0, hashLetters),
})

const textOf = (content: unknown): string =>
  typeof content === 'string'
    ? content
    : list(content)
        .map((part) => object(part).text)
        .filter((text) => typeof text === 'string')
        .join('\n')

const messageFeatures = (message: unknown, key: Buffer) => {
  const { role, content, tool_calls: calls } = object(message)
  return {
    role: typeof role === 'string' && /^[a-z_]{1,20}$/.test(role) ? role : '',
    ...textFeatures(textOf(content), key),
    parts: list(content).length,
    other_parts: list(content).filter((part) => object(part).type !== 'text').length,
    tool_calls: list(calls).length,
  }
}

const number = (value: unknown): number | null => (typeof value === 'number' ? value : null)

/** Of a chat-completions request. */
export const requestFeatures = (request: unknown, key: Buffer) => {
  const body = object(request)
  const messages = list(body.messages)
  return {
    messages: messages.slice(0, messagesMax).map((message) => messageFeatures(message, key)),
    messages_count: messages.length,
    tools: list(body.tools).length,
    response_format: body.response_format !== undefined,
    temperature: number(body.temperature),
    top_p: number(body.top_p),
    choices: number(body.n) ?? 1,
  }
}

/** Of a chat completion. */
export const responseFeatures = (response: unknown, key: Buffer) => {
  const choices = list(object(response).choices)
  return {
    choices: choices.slice(0, messagesMax).map((choice) => {
      const { message, finish_reason: reason } = object(choice)
      return {
        ...messageFeatures(message, key),
        finish_reason: typeof reason === 'string' && /^[a-z_]{1,40}$/.test(reason) ? reason : null,
      }
    }),
    choices_count: choices.length,
  }
}
