// Chance without dice: a draw is a hash of who asks (request, session, user or tenant), the policy, and the name of the
// draw. The same question always gets the same answer, in any order, on any machine, and in SQL: ClickHouse's xxHash64
// is the same function.
import xxhash from 'xxhash-wasm'

const { h64, h64Raw } = await xxhash()

/** Texts up to this many bytes are hashed where they are written; they are nearly all. */
const writtenMax = 1024
const bytesPerCharacter = 3
const tailsMax = 1000
const written = Buffer.alloc(writtenMax)
/** The key that is written there, and where it ends: most draws of a request, under any number of policies, have the same. */
let [writtenKey, writtenEnd] = ['', 0]
/** The first so many bytes of it, for each length. */
const beginnings = Array.from({ length: writtenMax + 1 }, (_, length) => written.subarray(0, length))
/** What comes after the key, by policy and stream: the same for every request. */
const tails = new Map<string, Map<string, Buffer>>()

const tailOf = (policyHash: string, stream: string): Buffer => {
  const known = tails.get(policyHash)?.get(stream)
  if (known) return known
  const streams = tails.get(policyHash) ?? new Map<string, Buffer>()
  if (tails.size >= tailsMax) tails.clear()
  if (streams.size >= tailsMax) streams.clear()
  const tail = Buffer.from(`|${policyHash}|${stream}`)
  streams.set(stream, tail)
  tails.set(policyHash, streams)
  return tail
}

const hash = (key: string, policyHash: string, stream: string): bigint => {
  const tail = tailOf(policyHash, stream)
  if (key.length * bytesPerCharacter + tail.length > writtenMax) return h64(`${key}|${policyHash}|${stream}`)
  if (key !== writtenKey) {
    writtenEnd = written.write(key, 0)
    writtenKey = key
  }
  written.set(tail, writtenEnd)
  return h64Raw(beginnings[writtenEnd + tail.length] as Buffer)
}

/** Where a hash is taken apart, least half first: arithmetic with whole 64 bits would make two more objects for each draw. */
const bits = new BigUint64Array(1)
const halves = new Uint32Array(bits.buffer)

/**
 * A uniform draw in [0, 1): the top 53 bits of `xxHash64(key|policyHash|stream)` over 2^53. In ClickHouse:
 * `bitShiftRight(xxHash64(concat(key, '|', hash, '|', stream)), 11) / 9007199254740992`.
 * (All 64 bits over 2^64, as one would first write it, rounds to exactly 1 once in 2^54 draws.)
 */
export const draw = (key: string, policyHash: string, stream: string): number => {
  bits[0] = hash(key, policyHash, stream)
  return ((halves[1] as number) * 2 ** 21 + ((halves[0] as number) >>> 11)) / 2 ** 53
}
