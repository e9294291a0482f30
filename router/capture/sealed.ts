// A payload as it travels and rests: compressed, and encrypted where there is a key. Opening it is here too, so that whoever
// reads payloads back (the command, a replay) agrees with the router that wrote them. Pure: the nonce is handed in.
import { createCipheriv, createDecipheriv, createHash, createHmac, hkdfSync, timingSafeEqual } from 'node:crypto'
import { gunzipSync, gzipSync, zstdCompressSync, zstdDecompressSync } from 'node:zlib'

/** The most that a payload may be once it is open, and hence the most that can be captured. */
export const payloadBytesMax = 2_097_152
export const keyBytes = 32
/** 96 bits, drawn anew for each payload: under one key that is safe for 2^32 payloads (NIST SP 800-38D, 8.3). */
export const nonceBytes = 12
const tagBytes = 16
const cipher = 'aes-256-gcm'

export const encodings = ['zstd', 'gzip'] as const
export type Encoding = (typeof encodings)[number]
export type PayloadKind = 'request' | 'response'
/** Which payload it is; what is encrypted is bound to it and cannot be passed off as another. */
export type Place = { readonly decisionId: string; readonly kind: PayloadKind; readonly attempt: number }
export type Key = { readonly id: string; readonly secret: Buffer }

export type Sealed = {
  readonly body: Buffer
  readonly encoding: Encoding
  /** Empty when it is not encrypted. */
  readonly keyId: string
  readonly nonce: Buffer
  /** Of what was sealed; keyed with the key where there is one, so that without it nobody can test a guess. Hexadecimal. */
  readonly sha256: string
}

export type PayloadErrorCode = 'payload-key-missing' | 'payload-damaged'
/** A payload cannot be opened. */
export class PayloadError extends Error {
  readonly code: PayloadErrorCode
  constructor(code: PayloadErrorCode, message: string) {
    super(message)
    this.code = code
  }
}

/** At once, because handing a few kilobytes to another thread costs three times as much as compressing them. */
const compressors: Readonly<Record<Encoding, (bytes: Buffer) => Buffer>> = { zstd: zstdCompressSync, gzip: gzipSync }

const placeText = ({ decisionId, kind, attempt }: Place): string => `${decisionId}|${kind}|${attempt}`

const digestOf = (plain: Buffer, key: Key | null): string =>
  key
    ? createHmac('sha256', Buffer.from(hkdfSync('sha256', key.secret, '', 'signalbox payload digest', keyBytes)))
        .update(plain)
        .digest('hex')
    : createHash('sha256').update(plain).digest('hex')

/** Compresses, then encrypts with AES-256-GCM (body = ciphertext and its 16-byte tag); without a key it only compresses. */
export const seal = (plain: Buffer, place: Place, encoding: Encoding, key: Key | null, nonce: Buffer): Sealed => {
  const compressed = compressors[encoding](plain)
  const sha256 = digestOf(plain, key)
  if (!key) return { body: compressed, encoding, keyId: '', nonce: Buffer.alloc(0), sha256 }
  const encrypting = createCipheriv(cipher, key.secret, nonce).setAAD(Buffer.from(placeText(place)))
  const body = Buffer.concat([encrypting.update(compressed), encrypting.final(), encrypting.getAuthTag()])
  return { body, encoding, keyId: key.id, nonce, sha256 }
}

/** What was sealed. Throws a PayloadError when the key is not there, or the payload is not what was sealed at this place. */
export const open = (sealed: Sealed, place: Place, keys: ReadonlyMap<string, Buffer>): Buffer => {
  const secret = sealed.keyId === '' ? null : keys.get(sealed.keyId)
  const where = `opening the ${place.kind} of decision ${place.decisionId}, attempt ${place.attempt}`
  if (secret === undefined)
    throw new PayloadError(
      'payload-key-missing',
      `${where}: it is encrypted with key '${sealed.keyId}', which is not at hand; if that key was deleted, the content is gone for good`,
    )
  const damaged = (found: string) =>
    new PayloadError('payload-damaged', `${where}: ${found}; wanted what the router sealed for this decision`)
  let plain: Buffer
  try {
    const compressed = secret ? decrypt(sealed, place, secret) : sealed.body
    const decompress = sealed.encoding === 'gzip' ? gunzipSync : zstdDecompressSync
    plain = decompress(compressed, { maxOutputLength: payloadBytesMax })
  } catch (error) {
    throw damaged(
      secret ? `key '${sealed.keyId}' does not open it` : `it does not decompress (${(error as Error).message})`,
    )
  }
  const digest = digestOf(plain, secret ? { id: sealed.keyId, secret } : null)
  if (sealed.sha256.length !== digest.length || !timingSafeEqual(Buffer.from(sealed.sha256), Buffer.from(digest)))
    throw damaged('its checksum is another')
  return plain
}

const decrypt = ({ body, nonce }: Sealed, place: Place, secret: Buffer): Buffer => {
  if (body.length < tagBytes || nonce.length !== nonceBytes) throw new RangeError('too short to be encrypted')
  const decrypting = createDecipheriv(cipher, secret, nonce, { authTagLength: tagBytes })
    .setAAD(Buffer.from(placeText(place)))
    .setAuthTag(body.subarray(-tagBytes))
  return Buffer.concat([decrypting.update(body.subarray(0, -tagBytes)), decrypting.final()])
}

/** A key as people write it, 64 hexadecimal digits or base64; null when it is not 32 bytes. */
export const parseKey = (text: string): Buffer | null => {
  const trimmed = text.trim()
  const secret = Buffer.from(trimmed, /^[0-9a-f]{64}$/i.test(trimmed) ? 'hex' : 'base64')
  return secret.length === keyBytes ? secret : null
}

/** A key as `id=VARIABLE` names it, from the environment; or what is wrong with it, in words. */
export const parseNamedKey = (
  text: string,
  env: Readonly<Record<string, string | undefined>>,
): readonly [string, Buffer] | string => {
  const [, id, variable] = /^([\w.-]+)=(\w+)$/.exec(text) ?? []
  if (!id || !variable) return `found '${text}'; wanted id=VARIABLE, as in k1=SIGNALBOX_KEY_1`
  const secret = parseKey(env[variable] ?? '')
  return secret
    ? [id, secret]
    : `the environment has no key in ${variable}; wanted ${keyBytes} bytes, base64 or hexadecimal`
}

/** The columns of otel.payloads that opening needs, as they come in JSON. */
export const payloadColumns = `decision_id, kind, attempt, content_type, redaction,
  lower(hex(sha256)) AS sha256, key_id, base64Encode(nonce) AS nonce, encoding, base64Encode(body) AS body`
export type PayloadRow = {
  readonly decision_id: string
  readonly kind: PayloadKind
  readonly attempt: number
  readonly content_type: string
  readonly redaction: string
  readonly sha256: string
  readonly key_id: string
  readonly nonce: string
  readonly encoding: Encoding
  readonly body: string
}

/** Opens a row; throws as `open` does. */
export const openRow = (row: PayloadRow, keys: ReadonlyMap<string, Buffer>): Buffer =>
  open(
    {
      body: Buffer.from(row.body, 'base64'),
      encoding: row.encoding,
      keyId: row.key_id,
      // An unencrypted payload has none, which a column of twelve bytes writes as zeros.
      nonce: Buffer.from(row.nonce, 'base64'),
      sha256: row.sha256,
    },
    { decisionId: row.decision_id, kind: row.kind, attempt: row.attempt },
    keys,
  )
