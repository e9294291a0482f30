// A chat-completions request as it comes in: parsed once, forwarded as nearly byte for byte as the target allows. Only
// the model's name is replaced in the raw text, and streams are made to report their usage.
import { z } from 'zod'
import { tagsMax, textMax } from './policy/record.ts'
import { issueText } from './policy/yaml.ts'

const messagesMax = 10_000
const charactersPerToken = 4
/** What a message costs beside its text, in OpenAI's chat format. */
const tokensPerMessage = 4

const tokenLimit = z.int().min(1).max(100_000_000).nullish()
const bodySchema = z.looseObject({
  model: z.string().min(1).max(textMax.model),
  messages: z
    .array(z.looseObject({ role: z.string() }))
    .min(1)
    .max(messagesMax),
  stream: z.boolean().nullish(),
  stream_options: z.looseObject({ include_usage: z.boolean().nullish() }).nullish(),
  max_tokens: tokenLimit,
  max_completion_tokens: tokenLimit,
  user: z.string().max(textMax.user).nullish(),
  metadata: z
    .record(z.string().max(64), z.string().max(textMax.tag))
    .refine((tags) => Object.keys(tags).length <= tagsMax, { error: `wanted at most ${tagsMax} entries` })
    .nullish(),
})
type Body = z.infer<typeof bodySchema>

/** A parsed request together with its raw text. */
export type ChatRequest = {
  readonly raw: string
  readonly body: Body
  readonly stream: boolean
  /** Whether the client asked for the usage chunk of a stream itself. */
  readonly wantsUsage: boolean
  readonly inputTokens: number
  readonly outputTokensMax: number | null
}

export type Rejection = {
  readonly status: number
  readonly code: string
  readonly message: string
  readonly param: string | null
}

/** Parses a body; a mistake is a value, because it is the client's. */
export const parseChat = (raw: string): ChatRequest | Rejection => {
  let json: unknown
  try {
    json = JSON.parse(raw)
  } catch (error) {
    return {
      status: 400,
      code: 'invalid_json',
      message: `the body is not JSON: ${(error as Error).message}`,
      param: null,
    }
  }
  const parsed = bodySchema.safeParse(json)
  if (!parsed.success) {
    const [issue] = parsed.error.issues
    const message = parsed.error.issues.map((each) => issueText(each, json)).join('; ')
    return { status: 400, code: 'invalid_body', message, param: issue ? issue.path.join('.') : null }
  }
  const body = parsed.data
  return {
    raw,
    body,
    stream: body.stream === true,
    wantsUsage: body.stream_options?.include_usage === true,
    inputTokens: estimateTokens(body.messages),
    outputTokensMax: body.max_completion_tokens ?? body.max_tokens ?? null,
  }
}

/** Tokens in a text of this many characters: about four characters each, which is what English averages. */
export const tokensOf = (characters: number): number => Math.ceil(characters / charactersPerToken)

const estimateTokens = (messages: Body['messages']): number =>
  messages.reduce((sum, message) => sum + tokensPerMessage + tokensOf(charactersOf(message)), 0)

const charactersOf = ({ content, tool_calls }: Record<string, unknown>): number => {
  const calls = tool_calls === undefined ? 0 : JSON.stringify(tool_calls).length
  if (typeof content === 'string') return content.length + calls
  if (!Array.isArray(content)) return calls
  return content.reduce(
    (sum: number, part: { text?: unknown } | null) => sum + (typeof part?.text === 'string' ? part.text.length : 0),
    calls,
  )
}

const modelKey = /"model"\s*:\s*("[^"\\]{0,200}")/g
/** An escaped letter of `model`: the word may then stand where the pattern does not see it. */
const escapedLetter = /\\u006/i

/**
 * The body to send to a target: the client's own text with the model's name replaced, and for streams with
 * `stream_options.include_usage`. The quoted word `"model"` cannot occur inside a JSON string, so a single hit that
 * holds the requested name is the right place; in any other case the body is written anew.
 */
export const bodyFor = ({ raw, body, stream, wantsUsage }: ChatRequest, upstreamModel: string): string => {
  const hits = [...raw.matchAll(modelKey)]
  const [hit] = hits
  const askUsage = stream && !wantsUsage
  if (
    hits.length !== 1 ||
    escapedLetter.test(raw) ||
    !hit?.[1] ||
    JSON.parse(hit[1]) !== body.model ||
    (askUsage && body.stream_options !== undefined)
  )
    return JSON.stringify({
      ...body,
      model: upstreamModel,
      ...(askUsage ? { stream_options: { ...body.stream_options, include_usage: true } } : {}),
    })
  const end = hit.index + hit[0].length
  const usage = askUsage ? ',"stream_options":{"include_usage":true}' : ''
  return `${raw.slice(0, end - hit[1].length)}${JSON.stringify(upstreamModel)}${usage}${raw.slice(end)}`
}
