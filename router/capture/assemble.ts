// Puts the events of a stream together into the chat completion they amount to. Redaction needs whole texts, because an address
// may begin in one event and end in the next; and whoever reads answers later then finds one shape.

/** Choices and tool calls of one answer; what names a higher index is left out. */
const indexMax = 128

type Json = Record<string, unknown>
const object = (value: unknown): Json | null => (value !== null && typeof value === 'object' ? (value as Json) : null)
const indexOf = (value: unknown): number => (Number.isInteger(value) ? (value as number) : 0)

/** Texts grow piece by piece: their pieces are kept until the end, so that a long answer costs no copies. */
type Part = { readonly texts: Map<string, string[]>; readonly calls: Part[]; readonly plain: Json }
const emptyPart = (): Part => ({ texts: new Map(), calls: [], plain: {} })

const at = (parts: Part[], index: unknown): Part | null => {
  const place = indexOf(index)
  if (place < 0 || place >= indexMax) return null
  while (parts.length <= place) parts.push(emptyPart())
  return parts[place] as Part
}

const add = (part: Part, name: string, text: unknown): void => {
  if (typeof text !== 'string') return
  const pieces = part.texts.get(name)
  if (pieces) pieces.push(text)
  else part.texts.set(name, [text])
}

const textsOf = ({ texts }: Part, names: readonly string[]): Json =>
  Object.fromEntries(names.filter((name) => texts.has(name)).map((name) => [name, texts.get(name)?.join('')]))

const spoken = ['content', 'reasoning_content', 'reasoning', 'refusal'] as const

const foldCall = (calls: Part[], value: unknown): void => {
  const call = object(value)
  const part = at(calls, call?.index)
  const named = object(call?.function)
  if (!part) return
  for (const name of ['id', 'type'] as const) part.plain[name] ??= call?.[name]
  add(part, 'name', named?.name)
  add(part, 'arguments', named?.arguments)
}

const foldChoice = (choices: Part[], value: unknown): void => {
  const choice = object(value)
  const part = at(choices, choice?.index)
  if (!part) return
  const delta = object(choice?.delta) ?? object(choice?.message) ?? {}
  part.plain.role ??= delta.role
  part.plain.finish_reason = choice?.finish_reason ?? part.plain.finish_reason
  for (const name of spoken) add(part, name, delta[name])
  for (const call of Array.isArray(delta.tool_calls) ? delta.tool_calls : []) foldCall(part.calls, call)
}

const messageOf = (choice: Part, index: number) => ({
  index,
  message: {
    role: choice.plain.role ?? 'assistant',
    content: null,
    ...textsOf(choice, spoken),
    ...(choice.calls.length === 0
      ? {}
      : {
          tool_calls: choice.calls.map((call) => ({
            ...call.plain,
            function: { name: '', arguments: '', ...textsOf(call, ['name', 'arguments']) },
          })),
        }),
  },
  finish_reason: choice.plain.finish_reason ?? null,
})

/** The chat completion of a stream of server-sent events, as far as it came; what is not JSON in it is left out. */
export const assembleStream = (stream: string): Json => {
  const head: Json = {}
  const choices: Part[] = []
  for (const line of stream.split('\n')) {
    if (!line.startsWith('data:')) continue
    let event: Json | null
    try {
      event = object(JSON.parse(line.slice(5)))
    } catch {
      continue
    }
    for (const name of ['id', 'created', 'model'] as const) head[name] ??= event?.[name]
    if (event?.usage) head.usage = event.usage
    if (event?.error) head.error = event.error
    for (const choice of Array.isArray(event?.choices) ? event.choices : []) foldChoice(choices, choice)
  }
  return { object: 'chat.completion', ...head, choices: choices.map(messageOf) }
}
