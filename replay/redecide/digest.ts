// One number for all decisions of a log: the sum, modulo 2^64, of a hash of each. A sum does not care for order, so that
// shuffled input, any number of workers and ClickHouse itself come to the same digest, or decisions differ somewhere.
// What is hashed is a text that both can write, with numbers by their bits: equal digests mean equal to the last digit.
import xxhash from 'xxhash-wasm'
import type { DecisionRecord, Exclusion } from '../../router/policy/record.ts'

const { h64Raw } = await xxhash()

const bytesAtFirst = 1 << 14
const bytesPerCharacter = 3
const digitsPerNumber = 16
/** After any text there is room for as much: two numbers and what stands between. */
const bytesSpare = 64
const [tab, newline] = [9, 10]

/** What a decision says, in a record as in a decision made again. */
export type Decided = Pick<DecisionRecord, 'candidates' | 'chosen' | 'reason' | 'explored' | 'path' | 'plan'>

const hexDigits = Buffer.from('0123456789ABCDEF')
const bits = new Float64Array(1)
const octets = new Uint8Array(bits.buffer)
/** Used again for every record: a buffer of its own for each would cost more than the hash. */
let bytes = Buffer.allocUnsafe(bytesAtFirst)

/** Room up to there, and for two numbers more. */
const makeRoom = (end: number): void => {
  if (end + bytesSpare > bytes.length) bytes = Buffer.concat([bytes], (end + bytesSpare) * 2)
}

const write = (text: string, at: number): number => {
  makeRoom(at + text.length * bytesPerCharacter)
  return at + bytes.write(text, at)
}

/** The eight bytes of a number from the least, as ClickHouse's `hex` gives them; JSON knows no negative zero. */
const writeBits = (value: number, at: number): number => {
  bits[0] = value + 0
  for (let byte = 0; byte < 8; byte++) {
    const octet = octets[byte] as number
    bytes[at + 2 * byte] = hexDigits[octet >> 4] as number
    bytes[at + 2 * byte + 1] = hexDigits[octet & 15] as number
  }
  return at + digitsPerNumber
}

const exclusionText = (exclusion: Exclusion | null): string => {
  if (exclusion === null) return ''
  if (exclusion.kind === 'rule') return `rule:${exclusion.name}`
  return exclusion.kind === 'feature-unknown' ? `feature-unknown:${exclusion.feature}` : exclusion.kind
}

/** How the line of a candidate that is eligible begins, by its model: most lines begin in one of a few ways. */
const beginnings = new Map<string, Buffer>()
const beginningsMax = 1000

const beginningOf = (model: string): Buffer => {
  const known = beginnings.get(model)
  if (known) return known
  const made = Buffer.from(`${model}\t1\t\t`)
  if (beginnings.size < beginningsMax) beginnings.set(model, made)
  return made
}

const writeBeginning = (model: string, eligible: boolean, exclusion: Exclusion | null, at: number): number => {
  if (!eligible || exclusion !== null) return write(`${model}\t${eligible ? 1 : 0}\t${exclusionText(exclusion)}\t`, at)
  const beginning = beginningOf(model)
  makeRoom(at + beginning.length)
  for (let place = 0; place < beginning.length; place++) bytes[at + place] = beginning[place] as number
  return at + beginning.length
}

/** The part of one decision in the digest. */
export const digestOf = (id: string, decided: Decided): bigint => {
  const { chosen, reason, explored, path, plan, candidates } = decided
  const lists = `${path.join('\t')}\n${plan.join('\t')}`
  let at = write(`${id}\n${chosen ?? ''}\n${reason ?? ''}\n${explored ? 1 : 0}\n${lists}\n`, 0)
  for (const { model, eligible, exclusion, score, probability } of candidates) {
    at = writeBeginning(model, eligible, exclusion, at)
    if (score !== null) at = writeBits(score, at)
    bytes[at++] = tab
    at = writeBits(probability, at)
    bytes[at++] = newline
  }
  return h64Raw(bytes.subarray(0, at))
}

/** Digests of two parts of a log make the digest of both. */
export const addDigests = (a: bigint, b: bigint): bigint => BigInt.asUintN(64, a + b)

/** A digest as people compare it: 16 hexadecimal digits. */
export const digestText = (digest: bigint): string => digest.toString(16).padStart(digitsPerNumber, '0')

/**
 * The digest of the selected rows of `otel.routing_decisions` as an aggregate in ClickHouse's SQL: the same 16 digits as
 * `digestText` of the sum of `digestOf` over their records.
 */
export const digestSql = `lower(leftPad(hex(sum(xxHash64(concat(
  if(irregular IS NULL, toString(decision_id), JSONExtractString(ifNull(irregular, ''), 'id')), '\\n',
  chosen_model, '\\n', reason, '\\n', if(explored, '1', '0'), '\\n',
  arrayStringConcat(path, '\\t'), '\\n', arrayStringConcat(plan, '\\t'), '\\n',
  arrayStringConcat(arrayMap(
    (model, eligible, exclusion, feature, score, probability) -> concat(
      model, '\\t', if(eligible, '1', '0'), '\\t', exclusion, if(feature = '', '', concat(':', feature)), '\\t',
      ifNull(hex(score + 0), ''), '\\t', hex(probability + 0), '\\n'),
    candidates.model, candidates.eligible, candidates.exclusion, candidates.unknown, candidates.score,
    candidates.probability))
)))), 16, '0'))`
