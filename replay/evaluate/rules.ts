// Rules: what can be said of an answer without asking anybody. Each is a pure function from the answer's text to a score, 1
// where the rule holds and 0 where not, or null where it has nothing to say.
import { z } from 'zod'
import type { LinearPattern } from '../../router/capture/pattern.ts'
import type { Payload } from '../reexec/payloads.ts'

/** How much of an answer is looked at for a refusal: those begin with it. */
const openingLength = 300
const fencePattern = /^```\w*\s*([\s\S]*?)\s*```$/

const text = z.string().min(1).max(10_000)

/** The rules as a file spells them; an evaluator has one. */
export const ruleSchemas = {
  /** The answer, trimmed, is this text, or what the request's metadata holds under a name. */
  exact: z.union([z.string().max(10_000), z.strictObject({ metadata: text })]).optional(),
  /** One text or several, all of which it contains, in whatever case. */
  contains: z.union([text, z.array(text).min(1).max(100)]).optional(),
  /** A pattern in RE2's syntax that it matches somewhere. */
  regex: text.optional(),
  /** It is JSON, in a fence or without, that this JSON Schema takes. */
  json_schema: z.record(z.string(), z.unknown()).optional(),
  /** Its length, in characters. */
  length: z.strictObject({ min: z.int().min(0).default(0), max: z.int().min(0).default(1_000_000) }).optional(),
  /** It does not begin as refusals do. */
  refusal: z.literal(true).optional(),
} as const
type RuleFile = { readonly [Kind in keyof typeof ruleSchemas]?: z.infer<(typeof ruleSchemas)[Kind]> }

/** What a rule says of an answer, as a score. */
export type Rule = (answer: string, asked: Payload['body']) => number | null

/** A refusal in the words that models use for it. */
const refusals = [
  "i can't help with",
  'i cannot help with',
  "i can't assist",
  'i cannot assist',
  "i'm unable to",
  'i am unable to',
  "i'm not able to help",
  "i won't be able to",
  "i can't provide",
  'i cannot provide',
  "i can't comply",
  'i cannot comply',
  'as an ai language model, i can',
]

const exact =
  (wanted: NonNullable<RuleFile['exact']>): Rule =>
  (answer, asked) => {
    if (typeof wanted === 'string') return Number(answer.trim() === wanted.trim())
    const { metadata } = asked as { metadata?: Readonly<Record<string, unknown>> | null }
    const expected = metadata && Object.hasOwn(metadata, wanted.metadata) ? metadata[wanted.metadata] : undefined
    return typeof expected === 'string' ? Number(answer.trim() === expected.trim()) : null
  }

const contains = (wanted: string | readonly string[]): Rule => {
  const parts = [wanted].flat().map((part) => part.toLowerCase())
  return (answer) => Number(parts.every((part) => answer.toLowerCase().includes(part)))
}

const jsonSchema = (wanted: Readonly<Record<string, unknown>>): Rule => {
  const schema = z.fromJSONSchema(wanted)
  return (answer) => {
    const bare = answer.trim()
    try {
      return Number(schema.safeParse(JSON.parse(fencePattern.exec(bare)?.[1] ?? bare)).success)
    } catch {
      return 0
    }
  }
}

const isRefusal = (answer: string): boolean => {
  const opening = answer.slice(0, openingLength).toLowerCase().replaceAll('’', "'")
  return refusals.some((words) => opening.includes(words))
}

/** The rule of an evaluator. Throws an Error that says what is wrong with its pattern or schema. */
export const ruleOf = (file: RuleFile, patternOf: (source: string) => LinearPattern): Rule => {
  if (file.exact !== undefined) return exact(file.exact)
  if (file.contains !== undefined) return contains(file.contains)
  if (file.json_schema !== undefined) return jsonSchema(file.json_schema)
  if (file.regex !== undefined) {
    const pattern = patternOf(file.regex)
    return (answer) => Number(pattern.test(answer))
  }
  if (file.length !== undefined) {
    const { min, max } = file.length
    return (answer) => Number(answer.length >= min && answer.length <= max)
  }
  return (answer) => Number(!isRefusal(answer))
}
