// What a credential looks like in a text: keys and tokens by the marks their issuers give them, values behind a label such as
// `password:`, and, last, whatever looks as if it had been drawn at random. Pictures and other files count as well, because
// nothing can be redacted inside them. Unlike personal data this is never switched off.
import { byPattern, type Detector } from './detectors.ts'

const media = byPattern('media', /data:[\w.+-]{1,60}\/[\w.+-]{1,60}(?:;[\w=.+-]{1,60}){0,5};base64,[A-Za-z0-9+/_=-]*/gi)

const marked = new RegExp(
  [
    '-----BEGIN [A-Z ]{0,30}PRIVATE KEY(?: BLOCK)?-----[^-]{1,10000}(?:-----END [A-Z ]{0,30}PRIVATE KEY(?: BLOCK)?-----)?',
    String.raw`\bsk-[\w-]{16,200}`, // OpenAI, Anthropic, OpenRouter
    String.raw`\b[rs]k_(?:live|test)_\w{10,200}`, // Stripe
    String.raw`\bgh[opsur]_\w{20,255}`, // GitHub
    String.raw`\bgithub_pat_\w{20,255}`,
    String.raw`\bglpat-[\w-]{16,200}`, // GitLab
    String.raw`\b(?-i:AKIA|ASIA)(?-i:[A-Z0-9]{16})`, // AWS
    String.raw`\bAIza[\w-]{30,60}`, // Google
    String.raw`\bya29\.[\w-]{10,2000}`,
    String.raw`\bxox[a-z]-[\w-]{10,250}`, // Slack
    String.raw`\bhf_[A-Za-z0-9]{20,100}`, // Hugging Face
    String.raw`\bnpm_[A-Za-z0-9]{30,60}`,
    String.raw`\beyJ[\w-]{5,8000}\.[\w-]{5,8000}\.[\w-]{0,8000}`, // JSON Web Token
    String.raw`(?<=\bauthorization["']?\s?[:=]\s?["']?(?:bearer|basic|token)\s)[\w.~+/=-]{4,8000}`,
    String.raw`(?<=\bbearer\s)(?=[^\s\d]{0,20}\d|[^\s]{20})[\w.~+/=-]{8,8000}`,
    String.raw`(?<=\bcookie\s?:\s?)[^\s"'<>][^\r\n"'<>]{3,4000}`,
    String.raw`(?<=:\/\/[^\s/:@]{0,200}:)[^\s/@]{1,200}(?=@)`, // a password in an address
    String.raw`(?<=(?<![A-Za-z0-9])(?:password|passwd|passphrase|passwort|pwd|secret|(?:api|private|access)[ _-]?key|(?:access|auth|refresh)[_-]?token|client[_-]?secret)\\?["']?\s{0,8}(?:=>|[:=])\s{0,8}\\?["']?)[^\s"'<>,;&\\]{4,200}`,
  ].join('|'),
  'gi',
)
const credentials = byPattern('key', marked)

const credentialNames =
  /(?:^|[ ._-])(?:password|passwd|passphrase|passwort|pwd|secret|(?:api|private|access)[_-]?key|(?:access|auth|refresh|id)[_-]?token|client[_-]?secret|authorization|cookie)$|^token$/

/** Whether a JSON property of that name is a credential, whatever it looks like: `password`, `db_password`, `x-api-key`, `authToken`. */
export const isCredentialName = (name: string): boolean =>
  credentialNames.test(name.replaceAll(/(?<=[a-z0-9])(?=[A-Z])/g, '_').toLowerCase())

const randomLengthMin = 24
const hexLengthMin = 32
const entropyMin = 3.5
const hexEntropyMin = 3
/** Of the neighbours in a text, more than this share changes between upper case, lower case and digits. */
const changesMin = 0.25
const runPattern = /[A-Za-z0-9+/_=-]{24,}/g
const uuidPattern = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i
/** Names that APIs give to calls, messages and files: random, and no secret. */
const idPattern = /^(?:call|chatcmpl|cmpl|resp|msg|run|file|fp|toolu|req|item|rs|fc)(?:-tool)?[-_][A-Za-z0-9]{8,64}$/

/** Shannon's entropy of the characters of a text, bits each. */
const entropyOf = (text: string): number => {
  const counts = new Map<string, number>()
  for (const character of text) counts.set(character, (counts.get(character) ?? 0) + 1)
  let bits = 0
  for (const count of counts.values()) bits -= (count / text.length) * Math.log2(count / text.length)
  return bits
}

const changeShare = (text: string): number => {
  const kinds = text.replaceAll(/[a-z]/g, 'a').replaceAll(/[A-Z]/g, 'A').replaceAll(/[0-9]/g, '0')
  let changes = 0
  for (let at = 1; at < kinds.length; at += 1) if (kinds[at] !== kinds[at - 1]) changes += 1
  return changes / Math.max(1, kinds.length - 1)
}

/**
 * Whether a run of base64 characters looks drawn at random: 24 or more (32 if hexadecimal) with letters and digits, where more
 * than a quarter of the neighbours differ in kind, and 3.5 bits of entropy a character (hexadecimal: 3). UUIDs and the ids of
 * chat APIs (`call_…`, `chatcmpl-…`) are random too and are let pass.
 */
export const looksRandom = (run: string): boolean => {
  if (uuidPattern.test(run) || idPattern.test(run)) return false
  const text = run.replaceAll(/[^A-Za-z0-9]/g, '')
  if (!/\d/.test(text) || !/[A-Za-z]/.test(text)) return false
  const isHex = /^(?:[0-9a-f]+|[0-9A-F]+)$/.test(text)
  if (text.length < (isHex ? hexLengthMin : randomLengthMin)) return false
  return changeShare(text) > changesMin && entropyOf(text) >= (isHex ? hexEntropyMin : entropyMin)
}

const random: Detector = {
  kind: 'key',
  find: (text) =>
    Array.from(text.matchAll(runPattern)).flatMap(({ 0: run, index }) =>
      looksRandom(run) ? [{ start: index, end: index + run.length, value: run }] : [],
    ),
}

/** The router's own keys, of whatever shape: a provider that refuses one may say it again in its answer. */
export const knownSecrets = (values: readonly string[]): readonly Detector[] => {
  const escaped = values.map((value) => value.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&'))
  return escaped.length === 0 ? [] : [byPattern('key', new RegExp(escaped.join('|'), 'g'))]
}

/** Look before personal data, because a key may hold what looks like a number; what only looks random comes last. */
export const markedSecrets: readonly Detector[] = [media, credentials]
export const randomSecrets: Detector = random
