// CityHash128 as of version 1.0.2, the checksum over every compressed block that ClickHouse sends or reads. Its own code froze this version,
// which differs from later ones. Sums and products are cut to 64 bits at once, which lets the compiler keep them in machine words.

const k0 = 0xc3a5c85c97cb3127n
const k1 = 0xb492b66fbe98f273n
const k2 = 0x9ae16a3b2f90404fn
const k3 = 0xc949d7c7509e6557n
const kMul = 0x9ddfea08eb382d69n

const u64 = (x: bigint): bigint => BigInt.asUintN(64, x)
const rotate = (x: bigint, by: bigint): bigint => (by === 0n ? x : (x >> by) | u64(x << (64n - by)))
const shiftMix = (x: bigint): bigint => x ^ (x >> 47n)

/** Two halves, low first. */
type Pair = readonly [bigint, bigint]

const hash16 = (u: bigint, v: bigint): bigint => {
  const a = shiftMix(u64((u ^ v) * kMul))
  return u64(shiftMix(u64((v ^ a) * kMul)) * kMul)
}

const hashUpTo16 = (view: DataView, from: number, length: number): bigint => {
  if (length > 8) {
    const [a, b] = [view.getBigUint64(from, true), view.getBigUint64(from + length - 8, true)]
    return hash16(a, rotate(u64(b + BigInt(length)), BigInt(length))) ^ b
  }
  if (length >= 4) {
    const a = BigInt(view.getUint32(from, true))
    return hash16(u64(BigInt(length) + (a << 3n)), BigInt(view.getUint32(from + length - 4, true)))
  }
  if (length === 0) return k2
  const y = BigInt(view.getUint8(from) + (view.getUint8(from + (length >> 1)) << 8))
  const z = BigInt(length + (view.getUint8(from + length - 1) << 2))
  return u64(shiftMix(u64(y * k2) ^ u64(z * k3)) * k2)
}

/** A hash of 32 bytes with two seeds. */
const weak32 = (view: DataView, at: number, seedA: bigint, seedB: bigint): Pair => {
  const w = view.getBigUint64(at, true)
  const z = view.getBigUint64(at + 24, true)
  const a = u64(seedA + w)
  const b = rotate(u64(seedB + a + z), 21n)
  const sum = u64(a + view.getBigUint64(at + 8, true) + view.getBigUint64(at + 16, true))
  return [u64(sum + z), u64(b + rotate(sum, 44n) + a)]
}

const murmur = (view: DataView, from: number, length: number, seed: Pair): Pair => {
  let [a, b] = seed
  let c: bigint
  let d: bigint
  if (length <= 16) {
    a = u64(shiftMix(u64(a * k1)) * k1)
    c = u64(b * k1 + hashUpTo16(view, from, length))
    d = shiftMix(u64(a + (length >= 8 ? view.getBigUint64(from, true) : c)))
  } else {
    c = hash16(u64(view.getBigUint64(from + length - 8, true) + k1), a)
    d = hash16(u64(b + BigInt(length)), u64(c + view.getBigUint64(from + length - 16, true)))
    a = u64(a + d)
    for (let at = from; at < from + length - 16; at += 16) {
      a = u64((a ^ u64(shiftMix(u64(view.getBigUint64(at, true) * k1)) * k1)) * k1)
      b ^= a
      c = u64((c ^ u64(shiftMix(u64(view.getBigUint64(at + 8, true) * k1)) * k1)) * k1)
      d ^= c
    }
  }
  a = hash16(a, c)
  b = hash16(d, b)
  return [a ^ b, hash16(b, a)]
}

const seeded = (view: DataView, from: number, length: number, seed: Pair): Pair => {
  if (length < 128) return murmur(view, from, length, seed)
  let at = from
  let left = length
  let [x, y] = seed
  let z = u64(BigInt(length) * k1)
  const v0 = u64(rotate(y ^ k1, 49n) * k1 + view.getBigUint64(at, true))
  let v: Pair = [v0, u64(rotate(v0, 42n) * k1 + view.getBigUint64(at + 8, true))]
  let w: Pair = [
    u64(rotate(u64(y + z), 35n) * k1 + x),
    u64(rotate(u64(x + view.getBigUint64(at + 88, true)), 53n) * k1),
  ]
  for (; left >= 128; left -= 128) {
    for (const end = at + 128; at < end; at += 64) {
      x = u64(rotate(u64(x + y + v[0] + view.getBigUint64(at + 16, true)), 37n) * k1) ^ w[1]
      y = u64(rotate(u64(y + v[1] + view.getBigUint64(at + 48, true)), 42n) * k1) ^ v[0]
      z = rotate(z ^ w[0], 33n)
      v = weak32(view, at, u64(v[1] * k1), u64(x + w[0]))
      w = weak32(view, at + 32, u64(z + w[1]), y)
      ;[z, x] = [x, z]
    }
  }
  y = u64(y + rotate(w[0], 37n) * k0 + z)
  x = u64(x + rotate(u64(v[0] + z), 49n) * k0)
  for (let done = 0; done < left; ) {
    done += 32
    const tail = at + left - done
    y = u64(rotate(u64(y - x), 42n) * k0 + v[1])
    w = [u64(w[0] + view.getBigUint64(tail + 16, true)), w[1]]
    x = u64(rotate(x, 49n) * k0 + w[0])
    w = [u64(w[0] + v[0]), w[1]]
    v = weak32(view, tail, v[0], v[1])
  }
  x = hash16(x, v[0])
  y = hash16(y, w[0])
  return [u64(hash16(u64(x + v[1]), w[1]) + y), hash16(u64(x + w[1]), u64(y + v[1]))]
}

/** CityHash128 1.0.2 of the bytes, as the 16 bytes that ClickHouse writes: low half first, each little-endian. */
export const cityHash128 = (bytes: Uint8Array): Buffer => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const { length } = bytes
  const low = (at: number): bigint => view.getBigUint64(at, true)
  const [first, second] =
    length >= 16
      ? seeded(view, 16, length - 16, [low(0) ^ k3, low(8)])
      : length >= 8
        ? seeded(view, 0, 0, [low(0) ^ u64(BigInt(length) * k0), low(length - 8) ^ k1])
        : seeded(view, 0, length, [k0, k1])
  const hash = Buffer.alloc(16)
  hash.writeBigUInt64LE(first, 0)
  hash.writeBigUInt64LE(second, 8)
  return hash
}
