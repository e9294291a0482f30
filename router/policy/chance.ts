// Chance without dice: a draw is a hash of who asks (request, session, user or tenant), the policy, and the name of the
// draw. The same question always gets the same answer, in any order, on any machine, and in SQL: ClickHouse's xxHash64
// is the same function.
import xxhash from 'xxhash-wasm'

const { h64 } = await xxhash()

/**
 * A uniform draw in [0, 1): the top 53 bits of `xxHash64(key|policyHash|stream)` over 2^53. In ClickHouse:
 * `bitShiftRight(xxHash64(concat(key, '|', hash, '|', stream)), 11) / 9007199254740992`.
 * (All 64 bits over 2^64, as one would first write it, rounds to exactly 1 once in 2^54 draws.)
 */
export const draw = (key: string, policyHash: string, stream: string): number =>
  Number(h64(`${key}|${policyHash}|${stream}`) >> 11n) / 2 ** 53
