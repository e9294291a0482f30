// ClickHouse's own compression (`compress=1`, `decompress=1`): blocks of checksum, method, both sizes, and the bytes in LZ4 or ZSTD.
// What clickhouse-go and clickhouse-client speak; a block is checked before it is believed.
import { Transform, type TransformCallback } from 'node:stream'
import { zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { cityHash128 } from './city-hash.ts'
import { refusal } from './engine-error.ts'
import { lz4Compress, lz4Decompress } from './lz4.ts'

/** Bytes of one block once it is decompressed; clickhouse-go sends a whole insert as one. */
const blockBytesMax = 64 * 1024 * 1024
/** Bytes of one block sent, before compression: some milliseconds of this thread. */
const sentBytesMax = 256 * 1024
const checksumBytes = 16
const headerBytes = 9

/** The byte that names a method. */
const methods = { none: 0x02, lz4: 0x82, zstd: 0x90 } as const
/** How blocks are compressed. */
export type BlockMethod = keyof typeof methods

/** One block of ClickHouse's compressed format. */
export const blockOf = (bytes: Uint8Array, method: BlockMethod): Buffer => {
  const compressed = method === 'lz4' ? lz4Compress(bytes) : method === 'zstd' ? zstdCompressSync(bytes) : bytes
  const block = Buffer.allocUnsafe(headerBytes + compressed.length)
  block[0] = methods[method]
  block.writeUInt32LE(block.length, 1)
  block.writeUInt32LE(bytes.length, 5)
  block.set(compressed, headerBytes)
  return Buffer.concat([cityHash128(block), block])
}

/** The bytes in blocks. */
export async function* inBlocks(chunks: AsyncIterable<Uint8Array>, method: BlockMethod): AsyncGenerator<Buffer> {
  for await (const chunk of chunks) {
    for (let at = 0; at < chunk.length; at += sentBytesMax) yield blockOf(chunk.subarray(at, at + sentBytesMax), method)
  }
}

const decompressed = (block: Buffer): Buffer => {
  const body = block.subarray(checksumBytes)
  const bytes = body.readUInt32LE(5)
  const payload = body.subarray(headerBytes)
  if (!cityHash128(body).equals(block.subarray(0, checksumBytes))) {
    throw refusal(
      40,
      'Checksum of a compressed block does not match: its bytes changed on the way. (CHECKSUM_DOESNT_MATCH)',
    )
  }
  try {
    if (body[0] === methods.lz4) return lz4Decompress(payload, bytes)
    if (body[0] === methods.none && payload.length === bytes) return payload
    const whole = body[0] === methods.zstd ? zstdDecompressSync(payload, { maxOutputLength: bytes + 1 }) : null
    if (whole?.length === bytes) return whole
  } catch (error) {
    throw refusal(271, `Cannot decompress a block: ${(error as Error).message}. (CANNOT_DECOMPRESS)`)
  }
  const wanted = 'none (0x02), LZ4 (0x82) or ZSTD (0x90)'
  throw refusal(
    89,
    `Compression method 0x${body[0]?.toString(16)} of a block is none of ${wanted}. (UNKNOWN_COMPRESSION_METHOD)`,
  )
}

/** Decompresses the blocks that pass; a block that is damaged, cut or too large ends the stream with a refusal. */
export const decompressBlocks = (): Transform => {
  let waiting: Buffer[] = []
  let bytes = 0
  let needed = checksumBytes + headerBytes
  const take = (): Buffer => {
    const all = waiting.length === 1 ? (waiting[0] as Buffer) : Buffer.concat(waiting)
    waiting = [all]
    return all
  }
  const sizeOf = (all: Buffer): number => {
    const sizes = [all.readUInt32LE(checksumBytes + 1), all.readUInt32LE(checksumBytes + 5)] as const
    if (sizes[0] < headerBytes || Math.max(...sizes) > blockBytesMax) {
      throw refusal(
        186,
        `A compressed block of ${Math.max(...sizes)} bytes; up to ${blockBytesMax} are read. (TOO_LARGE_SIZE_COMPRESSED)`,
      )
    }
    return checksumBytes + sizes[0]
  }
  const blocksOf = function* (): Generator<Buffer> {
    while (bytes >= needed) {
      const all = take()
      needed = sizeOf(all)
      if (bytes < needed) return
      yield decompressed(all.subarray(0, needed))
      waiting = [all.subarray(needed)]
      bytes -= needed
      needed = checksumBytes + headerBytes
    }
  }
  return new Transform({
    transform(chunk: Buffer, _encoding, done: TransformCallback) {
      waiting.push(chunk)
      bytes += chunk.length
      try {
        for (const block of blocksOf()) this.push(block)
        done()
      } catch (error) {
        done(error as Error)
      }
    },
    flush(done: TransformCallback) {
      done(
        bytes === 0
          ? null
          : refusal(33, `The last compressed block is cut: ${bytes} bytes of ${needed}. (CANNOT_READ_ALL_DATA)`),
      )
    },
  })
}
