// LZ4's block format, both ways: the one compression that every ClickHouse client asks for and that Node lacks. Written after the
// format's description (lz4_Block_format.md, v1.6.4): sequences of literals and of matches up to 64 KiB back.

/** A match that is shorter costs more than it saves. */
const matchBytesMin = 4
/** The format's own rules: the last bytes are literals, and the last match begins well before the end. */
const lastLiterals = 5
const matchEndMargin = 12
const distanceMax = 65_535
const tableBits = 14

/** The most bytes that `bytes` can become. */
const compressedMax = (bytes: number): number => bytes + Math.ceil(bytes / 255) + 16

/** Compresses with the fast, greedy search of LZ4's own default level. */
export const lz4Compress = (source: Uint8Array): Buffer => {
  const { length } = source
  const view = new DataView(source.buffer, source.byteOffset, length)
  const target = Buffer.allocUnsafe(compressedMax(length))
  const table = new Int32Array(1 << tableBits).fill(-1)
  let [out, anchor, at, misses] = [0, 0, 0, 0]
  while (at < length - matchEndMargin) {
    const four = view.getUint32(at, true)
    const slot = Math.imul(four, 2_654_435_761) >>> (32 - tableBits)
    const found = table[slot] as number
    table[slot] = at
    if (found < 0 || at - found > distanceMax || view.getUint32(found, true) !== four) {
      // The longer nothing is found, the larger the steps: what cannot be compressed is passed over fast.
      misses += 1
      at += 1 + (misses >> 6)
      continue
    }
    misses = 0
    let end = at + matchBytesMin
    while (end < length - lastLiterals && source[end] === source[found + end - at]) end += 1
    out = writeSequence(target, out, source.subarray(anchor, at), at - found, end - at)
    at = end
    anchor = end
  }
  out = writeSequence(target, out, source.subarray(anchor), 0, 0)
  return target.subarray(0, out)
}

const writeSequence = (
  target: Buffer,
  start: number,
  literals: Uint8Array,
  distance: number,
  bytes: number,
): number => {
  const match = bytes - matchBytesMin
  target[start] = (Math.min(literals.length, 15) << 4) | (bytes === 0 ? 0 : Math.min(match, 15))
  let out = writeLength(target, start + 1, literals.length)
  target.set(literals, out)
  out += literals.length
  if (bytes === 0) return out
  target.writeUInt16LE(distance, out)
  return writeLength(target, out + 2, match)
}

const writeLength = (target: Buffer, start: number, length: number): number => {
  if (length < 15) return start
  let [out, left] = [start, length - 15]
  for (; left >= 255; left -= 255) target[out++] = 255
  target[out++] = left
  return out
}

/** Decompresses to exactly `bytes`; throws a RangeError on anything that is no block of that size. */
export const lz4Decompress = (source: Uint8Array, bytes: number): Buffer => {
  const target = Buffer.allocUnsafe(bytes)
  let [at, out] = [0, 0]
  const lengthFrom = (nibble: number): number => {
    let length = nibble
    for (let more = nibble === 15 ? 255 : 0; more === 255; length += more) {
      if (at >= source.length) throw damaged()
      more = source[at++] as number
    }
    return length
  }
  while (at < source.length) {
    const token = source[at++] as number
    const literals = lengthFrom(token >> 4)
    if (at + literals > source.length || out + literals > bytes) throw damaged()
    target.set(source.subarray(at, at + literals), out)
    at += literals
    out += literals
    if (at === source.length) break
    const distance = (source[at] as number) | ((source[at + 1] ?? 0) << 8)
    at += 2
    const match = lengthFrom(token & 15) + matchBytesMin
    if (distance === 0 || distance > out || out + match > bytes) throw damaged()
    if (distance >= match) target.copyWithin(out, out - distance, out - distance + match)
    else for (let i = 0; i < match; i++) target[out + i] = target[out + i - distance] as number
    out += match
  }
  if (out !== bytes) throw damaged()
  return target
}

const damaged = (): RangeError => new RangeError('the LZ4 block is damaged')
