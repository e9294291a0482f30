// The request bodies to ask anew with, from a file of one `{"id", "body", "response"?}` a line. Only where each line lies and
// what bounds its cost is kept in memory; a body is read when it is asked, so the file may be larger than the machine.
import { open } from 'node:fs/promises'
import { z } from 'zod'
import { issueText } from '../../router/policy/yaml.ts'
import { ReexecError } from './result.ts'

const lineBytesMax = 8 << 20
const chunkBytes = 1 << 20
const newline = 10
/** What a part that is not text (an image, a sound) may cost in tokens at most. */
const partTokensMax = 4000

const messageSchema = z.looseObject({ role: z.string(), content: z.unknown().optional() })
const bodySchema = z.looseObject({
  messages: z.array(messageSchema).min(1),
  stream: z.boolean().nullish(),
  n: z.int().min(1).max(128).nullish(),
  max_tokens: z.int().min(1).nullish(),
  max_completion_tokens: z.int().min(1).nullish(),
})
/** A chat completion request, as OpenAI's API takes it. */
export type Body = z.infer<typeof bodySchema>

export const completionSchema = z.looseObject({
  choices: z.array(z.looseObject({ message: z.unknown().optional() })).min(1),
})
const payloadSchema = z.object({
  id: z.string().min(1),
  body: bodySchema,
  /** The logged answer: its text, or the whole chat completion. */
  response: z.union([z.string(), completionSchema]).optional(),
})
export type Payload = z.infer<typeof payloadSchema>

/** What is known of a payload before it is asked. */
export type PayloadNote = {
  /** More tokens than any tokenizer makes of it: a token is at least one byte. */
  readonly inputTokensMax: number
  /** The client's own limit; null when it set none. */
  readonly outputTokensMax: number | null
  readonly hasResponse: boolean
}

export type Payloads = {
  readonly notes: ReadonlyMap<string, PayloadNote>
  readonly read: (id: string) => Promise<Payload>
  readonly close: () => Promise<void>
}

/** The text of an answer's message: its content, and the tools it calls. */
export const answerText = (message: unknown): string => {
  const { content, tool_calls: tools } = (message ?? {}) as { content?: unknown; tool_calls?: unknown }
  const text = typeof content === 'string' ? content : content ? JSON.stringify(content) : ''
  return tools ? `${text}\n${JSON.stringify(tools)}` : text
}

export const responseText = (response: NonNullable<Payload['response']>): string =>
  typeof response === 'string' ? response : answerText(response.choices[0]?.message)

const parseLine = (text: string, where: string): Payload => {
  try {
    return checkPayload(JSON.parse(text), where)
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error
    throw new ReexecError('payload-invalid', `reading payloads: ${where}: not JSON: ${error.message}`)
  }
}

/** The payload that this is. Throws a ReexecError that says what it lacks, and where it was found. */
export const checkPayload = (input: unknown, where: string): Payload => {
  const result = payloadSchema.safeParse(input)
  if (result.success) return result.data
  const [issue] = result.error.issues
  throw new ReexecError('payload-invalid', `reading payloads: ${where}: ${issue ? issueText(issue, input) : ''}`)
}

/** What is known of a payload of so many bytes. */
export const noteOf = ({ body, response }: Payload, bytes: number): PayloadNote => {
  const parts = body.messages.flatMap(({ content }) => (Array.isArray(content) ? (content as { type?: string }[]) : []))
  const perAnswer = Math.max(body.max_completion_tokens ?? 0, body.max_tokens ?? 0) || null
  return {
    inputTokensMax: bytes + partTokensMax * parts.filter(({ type }) => type !== 'text').length,
    outputTokensMax: perAnswer === null ? null : perAnswer * (body.n ?? 1),
    hasResponse: response !== undefined,
  }
}

/** Opens a payload file and checks every line of it. Throws `ReexecError` with file and line. */
export const openPayloads = async (path: string): Promise<Payloads> => {
  let file: Awaited<ReturnType<typeof open>>
  try {
    file = await open(path)
  } catch (error) {
    throw new ReexecError('payload-invalid', `reading payloads: cannot open ${path}: ${(error as Error).message}`)
  }
  const notes = new Map<string, PayloadNote>()
  const places = new Map<string, { readonly at: number; readonly bytes: number }>()
  const textAt = async (at: number, bytes: number): Promise<string> => {
    const { buffer } = await file.read(Buffer.alloc(bytes), 0, bytes, at)
    return buffer.toString('utf8')
  }
  let number = 0
  for await (const { at, bytes } of linesOf(file, path)) {
    number++
    const text = await textAt(at, bytes)
    if (text.trim() === '') continue
    const payload = parseLine(text, `${path} line ${number}`)
    notes.set(payload.id, noteOf(payload, bytes))
    places.set(payload.id, { at, bytes })
  }
  return {
    notes,
    read: async (id) => {
      const place = places.get(id)
      if (!place) throw new ReexecError('payload-invalid', `reading payloads: ${path} has none for decision ${id}`)
      const payload = parseLine(await textAt(place.at, place.bytes), `${path}, decision ${id}`)
      if (payload.id === id) return payload
      throw new ReexecError('payload-invalid', `reading payloads: ${path} changed while it was read: decision ${id}`)
    },
    close: () => file.close(),
  }
}

/** Where each line lies; none may be longer than the limit. */
async function* linesOf(file: Awaited<ReturnType<typeof open>>, path: string) {
  const chunk = Buffer.alloc(chunkBytes)
  let [start, position] = [0, 0]
  for (;;) {
    const { bytesRead } = await file.read(chunk, 0, chunkBytes, position)
    if (bytesRead === 0) break
    const seen = chunk.subarray(0, bytesRead)
    for (let end = seen.indexOf(newline); end >= 0; end = seen.indexOf(newline, end + 1)) {
      yield { at: start, bytes: position + end - start }
      start = position + end + 1
    }
    position += bytesRead
    if (position - start > lineBytesMax)
      throw new ReexecError('payload-invalid', `reading payloads: ${path} has a line of over ${lineBytesMax} bytes`)
  }
  if (position > start) yield { at: start, bytes: position - start }
}
