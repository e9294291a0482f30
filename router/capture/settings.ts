// The part `capture:` of signalbox.yaml: how much of requests and answers is kept, of whose, what is taken out of it before, and
// with which key it is locked. Off unless somebody asks for it; what would be unwise is a warning, what cannot work an error.
import { hkdfSync } from 'node:crypto'
import { z } from 'zod'
import type { Path } from '../policy/yaml.ts'
import { type Detector, personalDetectors, personalKinds } from './detectors.ts'
import { linearPattern, PatternError } from './pattern.ts'
import { type Encoding, encodings, type Key, keyBytes, parseKey, payloadBytesMax } from './sealed.ts'
import { knownSecrets, markedSecrets, randomSecrets } from './secrets.ts'

const rulesMax = 100
const patternsMax = 50
const keysMax = 100
const ttlDaysMax = 3650
const secretLengthMin = 32
const dayMs = 86_400_000

/**
 * `features`: sizes, counts and keyed hashes. `pseudonymised`: the texts, where equal values of a tenant become equal marks.
 * `full`: the texts, where values become marks that say only what they were.
 */
export const captureModes = ['off', 'features', 'pseudonymised', 'full'] as const
export const captureModeSchema = z.enum(captureModes)
export type CaptureMode = z.infer<typeof captureModeSchema>

const variable = z.string().min(1).max(200)
const share = z.number().gt(0).max(1)
const label = z
  .string()
  .max(40)
  .regex(/^[a-z][a-z_]*$/, 'wanted a name of lower-case letters')

export const captureSchema = z.strictObject({
  mode: captureModeSchema.default('off'),
  /** The probability with which a request is kept; it is recorded with it. */
  share: share.default(1),
  /** Whether chance decides each request by itself or once for a session. */
  per: z.enum(['request', 'session']).default('request'),
  /** For some routes and ways through the policy; the first that fits holds. A client key's own mode comes before. */
  rules: z
    .array(
      z.strictObject({
        route: z.string().startsWith('/').max(200).optional(),
        /** A rule or arm of the policy that the decision passed, as `arm:canary`. */
        path: z.string().min(1).max(250).optional(),
        mode: captureModeSchema,
        share: share.default(1),
      }),
    )
    .max(rulesMax)
    .default([]),
  bytes_max: z.int().min(1).max(payloadBytesMax).default(262_144),
  ttl_days: z.number().gt(0).max(ttlDaysMax).default(14),
  compression: z.enum(encodings).default('zstd'),
  /** The variable that holds the secret behind pseudonyms and hashes. */
  secret_env: variable.optional(),
  keys: z
    .array(z.strictObject({ id: z.string().regex(/^[\w.-]{1,100}$/, 'wanted letters, digits, . _ -'), env: variable }))
    .max(keysMax)
    .default([]),
  /** The key for new payloads; without it they are not encrypted. */
  active: z.string().optional(),
  redact: z.array(z.enum(personalKinds)).default([...personalKinds]),
  patterns: z
    .array(z.strictObject({ name: label, pattern: z.string().min(1) }))
    .max(patternsMax)
    .default([]),
})
export type CaptureFile = z.infer<typeof captureSchema>

export type CaptureRule = CaptureFile['rules'][number]
export type CaptureSettings = Pick<CaptureFile, 'mode' | 'share' | 'per' | 'rules'> & {
  /** All that may come about, of any client. */
  readonly modes: ReadonlySet<CaptureMode>
  readonly bytesMax: number
  readonly ttlMs: number
  readonly encoding: Encoding
  readonly detectors: readonly Detector[]
  /** Empty where no mode needs it. */
  readonly secret: Buffer
  /** Null when payloads are not encrypted. */
  readonly key: Key | null
}

type Report = (path: Path, message: string) => void

/** The tenant's own key, from the one secret (HKDF-SHA256, RFC 5869). */
export const tenantKey = (secret: Buffer, tenant: string): Buffer =>
  Buffer.from(hkdfSync('sha256', secret, '', `signalbox pseudonyms of ${tenant}`, keyBytes))

const patternsOf = ({ patterns }: CaptureFile, report: Report): Detector[] =>
  patterns.flatMap(({ name: kind, pattern }, at) => {
    try {
      const { find } = linearPattern(pattern)
      return [
        {
          kind,
          find: (text: string) => find(text).map((span) => ({ ...span, value: text.slice(span.start, span.end) })),
        },
      ]
    } catch (error) {
      if (!(error instanceof PatternError)) throw error
      report(['capture', 'patterns', at, 'pattern'], error.message)
      return []
    }
  })

const keyOf = ({ keys, active }: CaptureFile, env: NodeJS.ProcessEnv, report: Report): Key | null => {
  if (active === undefined) {
    if (keys.length > 0)
      report(['capture', 'keys'], 'there are keys, but `active` does not say which one new payloads get')
    return null
  }
  const at = keys.findIndex(({ id }) => id === active)
  const found = keys[at]
  if (!found) {
    report(
      ['capture', 'active'],
      `'${active}' is not among the keys: ${keys.map(({ id }) => id).join(', ') || 'there are none'}`,
    )
    return null
  }
  const secret = parseKey(env[found.env] ?? '')
  if (!secret)
    report(
      ['capture', 'keys', at, 'env'],
      `${found.env} ${env[found.env] ? 'is no key' : 'is not in the environment'}; wanted ${keyBytes} bytes in base64 or hexadecimal (openssl rand -base64 ${keyBytes})`,
    )
  return secret && { id: active, secret }
}

/** What is to be captured, or null when nothing is. `keyModes` are the modes that client keys ask for, `providerKeys` what no payload may hold. */
export const captureOf = (
  file: CaptureFile,
  keyModes: readonly (CaptureMode | undefined)[],
  env: NodeJS.ProcessEnv,
  report: Report,
  providerKeys: readonly string[] = [],
): CaptureSettings | null => {
  const modes = new Set([file.mode, ...file.rules.map(({ mode }) => mode), ...keyModes.map((mode) => mode ?? 'off')])
  const detectors = [
    ...knownSecrets(providerKeys),
    ...patternsOf(file, report),
    ...markedSecrets,
    ...personalDetectors.filter(({ kind }) => file.redact.includes(kind)),
    randomSecrets,
  ]
  const key = keyOf(file, env, report)
  if (!modes.has('full') && !modes.has('features') && !modes.has('pseudonymised')) return null
  const secret = (file.secret_env && env[file.secret_env]) || ''
  if (modes.has('features') || modes.has('pseudonymised')) {
    if (!file.secret_env)
      report(
        ['capture', 'secret_env'],
        'found nothing; `features` and `pseudonymised` want the variable that holds a secret',
      )
    else if (secret.length < secretLengthMin)
      report(['capture', 'secret_env'], `${file.secret_env} is unset or shorter than ${secretLengthMin} characters`)
  }
  return {
    mode: file.mode,
    share: file.share,
    per: file.per,
    rules: file.rules,
    modes,
    bytesMax: file.bytes_max,
    ttlMs: file.ttl_days * dayMs,
    encoding: file.compression,
    detectors,
    secret: Buffer.from(secret),
    key,
  }
}

/** What works and that a person should know. `isLocal` tells whether clients and the collector are on this machine. */
export const captureWarnings = (settings: CaptureSettings | null, isLocal: boolean): string[] => {
  const modes = (['pseudonymised', 'full'] as const).filter((mode) => settings?.modes.has(mode))
  if (!settings || modes.length === 0) return []
  const what = `texts of requests and answers are captured (${modes.join(', ')})`
  const kindsLeft = personalDetectors.filter(
    ({ kind }) => !settings.detectors.some((detector) => detector.kind === kind),
  )
  return [
    ...(settings.key ? [] : [`${what} and stored without encryption; set capture.keys and capture.active`]),
    ...(isLocal
      ? []
      : [`${what}, and clients or the collector are on other machines: tell the people whose texts they are`]),
    ...(kindsLeft.length === 0
      ? []
      : [`${what}, with every ${kindsLeft.map(({ kind }) => kind).join(', ')} left in them (capture.redact)`]),
  ]
}
