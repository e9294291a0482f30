// Takes personal data and credentials out of texts and JSON before they leave the router. What is found becomes a mark:
// `<email>`, or `<email:…>` with letters that are the same for the same value of the same tenant, so that a conversation stays
// linked. Marks are never looked into, and looking goes on until nothing is found, so redacting twice changes nothing.
import { createHmac } from 'node:crypto'
import { type Detector, type Found, folded } from './detectors.ts'
import { isCredentialName } from './secrets.ts'

/** Rounds of looking; a text in which there is still something is given up as a whole. */
const passesMax = 8
/** JSON within a text within JSON, as in the arguments of a tool call that carries another. */
const nestingMax = 4
/** From this many digits on a JSON number may be a card, and may not be a double. */
const longNumber = /\d{13}/
const markLetters = 16
/** Stands for a text that could not be redacted piece by piece. */
const wholeText = 'text'

/** Writes the mark for a value. */
export type Marker = (kind: string, value: string) => string
export type Redactor = { readonly detectors: readonly Detector[]; readonly marker: Marker; readonly marks: RegExp }

/** What looks with these detectors, in their order, and marks what it finds. Their kinds are lower-case words. */
export const redactorOf = (detectors: readonly Detector[], marker: Marker): Redactor => {
  const kinds = new Set([...detectors.map(({ kind }) => kind), wholeText])
  return { detectors, marker, marks: new RegExp(`(<(?:${[...kinds].join('|')})(?::[a-p]{${markLetters}})?>)`) }
}

/** The mark that tells only what was there. */
export const plainMark: Marker = (kind) => `<${kind}>`

/**
 * Marks that are the same for the same value under the same key: 64 bits of HMAC-SHA256(key, kind|value), written in the
 * letters a to p, in which nothing can be found again.
 */
export const keyedMark =
  (key: Buffer): Marker =>
  (kind, value) => {
    const digest = createHmac('sha256', key).update(`${kind}|${value}`).digest('hex').slice(0, markLetters)
    return `<${kind}:${digest.replaceAll(/./g, (hex) => String.fromCharCode(97 + Number.parseInt(hex, 16)))}>`
  }

/** The text without what the detectors find. */
export const redactText = (text: string, redactor: Redactor): string => {
  let current = text
  for (let pass = 0; pass < passesMax; pass += 1) {
    const before = current
    for (const detector of redactor.detectors) current = redactWith(current, detector, redactor)
    if (current === before) return current
  }
  return redactor.marker(wholeText, text)
}

const redactWith = (text: string, { kind, find }: Detector, { marker, marks }: Redactor): string => {
  const replaced = (part: string): string => {
    const found = find(folded(part))
    return found.length === 0 ? part : splice(part, found, ({ value }) => marker(kind, value))
  }
  if (!text.includes('<')) return replaced(text)
  return text
    .split(marks)
    .map((part, at) => (at % 2 === 1 ? part : replaced(part)))
    .join('')
}

const splice = (text: string, found: readonly Found[], written: (found: Found) => string): string => {
  let [out, from] = ['', 0]
  for (const each of found) {
    out += text.slice(from, each.start) + written(each)
    from = each.end
  }
  return out + text.slice(from)
}

type RawNumber = { readonly rawJSON: string }
type ExactJson = {
  readonly parse: (text: string, revive: (key: string, value: unknown, at: { source?: string }) => unknown) => unknown
  readonly rawJSON: (text: string) => RawNumber
  readonly isRawJSON: (value: unknown) => value is RawNumber
}
/** Source text of numbers (ES2026), which the type library does not have yet. */
const exact = JSON as unknown as ExactJson

/** Parses JSON; integers that a double cannot hold keep their digits. */
const parseExact = (text: string): unknown =>
  longNumber.test(text)
    ? exact.parse(text, (_, value, { source }) =>
        typeof value === 'number' && source && longNumber.test(source) ? exact.rawJSON(source) : value,
      )
    : JSON.parse(text)

/** JSON text in which every string, number and name is redacted. Throws a SyntaxError when it is not JSON. */
export const redactJson = (text: string, redactor: Redactor, depth = 0): string =>
  JSON.stringify(redactValue(parseExact(text), redactor, depth))

const redactValue = (value: unknown, redactor: Redactor, depth: number): unknown => {
  if (typeof value === 'string') return redactString(value, redactor, depth)
  if (exact.isRawJSON(value)) return redactNumber(value.rawJSON, value, redactor)
  if (Array.isArray(value)) return value.map((each) => redactValue(each, redactor, depth))
  if (value === null || typeof value !== 'object') return value
  const names = new Set<string>()
  return Object.fromEntries(
    Object.entries(value).map(([name, inner]) => [
      unused(redactText(name, redactor), names),
      redactProperty(name, inner, redactor, depth),
    ]),
  )
}

const redactProperty = (name: string, value: unknown, redactor: Redactor, depth: number): unknown => {
  // Log probabilities spell the text again, token by token, where no pattern finds anything.
  if (name === 'logprobs' && typeof value === 'object') return null
  if (isCredentialName(name)) {
    if (Array.isArray(value)) return value.map((each) => redactProperty(name, each, redactor, depth))
    const text = exact.isRawJSON(value) ? value.rawJSON : value
    if (typeof text === 'number' || (typeof text === 'string' && text.replace(redactor.marks, '') !== ''))
      return redactor.marker('key', String(text))
  }
  return redactValue(value, redactor, depth)
}

/** Two names may become one mark; both stay. */
const unused = (name: string, names: Set<string>): string => {
  let free = name
  for (let count = 2; names.has(free); count += 1) free = `${name} ${count}`
  names.add(free)
  return free
}

const redactNumber = (digits: string, value: unknown, redactor: Redactor): unknown => {
  if (!/^-?\d+$/.test(digits)) return value
  const redacted = redactText(digits, redactor)
  return redacted === digits ? value : redacted
}

/** A text that is JSON itself (a tool's arguments or its result) stays JSON. */
const redactString = (text: string, redactor: Redactor, depth: number): string => {
  if (depth < nestingMax && /^\s*[[{]/.test(text)) {
    try {
      const redacted = redactJson(text, redactor, depth + 1)
      return redacted === JSON.stringify(parseExact(text)) ? text : redacted
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error
    }
  }
  return redactText(text, redactor)
}
