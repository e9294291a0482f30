// clickhouse-go over HTTP, on which Grafana's data source stands, replayed request for request as it was recorded; and the compressed
// blocks that it sends and wants back, to the byte.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { request } from 'node:http'
import { after, before, test } from 'node:test'
import { brotliDecompressSync, gunzipSync, inflateSync } from 'node:zlib'
import fc from 'fast-check'
import { cityHash128 } from '../collector/city-hash.ts'
import { blockOf, decompressBlocks } from '../collector/clickhouse-blocks.ts'
import { lz4Compress, lz4Decompress } from '../collector/lz4.ts'
import type { Collector } from '../collector/server.ts'
import { rowsOf, temporaryCollector } from './collector-fixtures.ts'

const runs = { seed: Number(process.env.SEED ?? 7), numRuns: 200 }

type Recorded = { method: string; url: string; headers: Record<string, string>; body: string }
const recorded = gunzipSync(readFileSync(new URL('data/clickhouse-go.ndjson.gz', import.meta.url)))
  .toString()
  .trim()
  .split('\n')
  .map((line) => JSON.parse(line) as Recorded)

let collector: Collector
before(async () => {
  collector = await temporaryCollector()
})
after(() => collector.close())

type Answer = { status: number; headers: Record<string, unknown>; body: Buffer }
const send = ({ method, url, headers, body }: Recorded): Promise<Answer> =>
  new Promise((resolve, reject) => {
    const sent = request(collector.clickhouseUrl + url, { method, headers }, async (response) => {
      const chunks: Buffer[] = []
      for await (const chunk of response) chunks.push(chunk)
      resolve({ status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(chunks) })
    })
    sent.on('error', reject)
    sent.end(Buffer.from(body, 'base64'))
  })

/** A short string as Native spells it. */
const hexOf = (text: string): string => Buffer.from([text.length, ...Buffer.from(text)]).toString('hex')

const unblocked = async (bytes: Uint8Array): Promise<Buffer> => {
  const stream = decompressBlocks()
  stream.end(bytes)
  return Buffer.concat(await stream.toArray())
}

test('what clickhouse-go sends is answered as it wants it: handshake, batches in every compression, parameters, tables', async () => {
  for (const one of recorded) {
    const answer = await send(one)
    const sql = Buffer.from(one.body, 'base64').toString('latin1')
    assert.equal(answer.status, 200, `${one.url} ${answer.body}`)
    const plain = one.url.includes('compress=1') ? await unblocked(answer.body) : answer.body
    if (sql.includes('displayName()')) {
      // BlockInfo, four columns and one row, a byte after each type, and revision 0.
      const column = (name: string, type: string): string => `${hexOf(name)}${hexOf(type)}00`
      const hex = plain.toString('hex')
      assert.ok(hex.startsWith(`010002ffffffff000401${column('displayName()', 'String')}`))
      assert.ok(
        hex.endsWith(`${column('revision()', 'UInt32')}00000000${column('timezone()', 'String')}${hexOf('UTC')}`),
      )
    } else if (sql.includes('any(w)')) assert.ok(plain.toString('hex').endsWith(hexOf('String') + hexOf('seven')))
    else if (one.url.includes('query=INSERT')) {
      const summary = JSON.parse(String(answer.headers['x-clickhouse-summary']))
      assert.equal(summary.written_rows, '3')
    }
  }
  const rows = await rowsOf(
    collector,
    'SELECT id, count() AS n, any(s) AS s, any(m) AS m FROM default.go GROUP BY id ORDER BY id',
  )
  const same = (id: number) => `row ${id} of the same text, the same text, the same text`
  assert.deepEqual(
    rows,
    [0, 1, 2].map((id) => ({ id, n: 6, s: same(id), m: { k: String(id) } })),
  )
})

test('an error before the result comes in blocks too, where blocks were asked for', async () => {
  for (const url of [
    '/?compress=1',
    '/?compress=1&network_compression_method=ZSTD',
    '/?compress=1&network_compression_method=none',
  ]) {
    const body = Buffer.from('SELECT * FROM nowhere').toString('base64')
    const { status, headers, body: answer } = await send({ method: 'POST', url, headers: {}, body })
    assert.deepEqual([status, headers['x-clickhouse-exception-code']], [404, '60'])
    assert.match((await unblocked(answer)).toString(), /^Code: 60\. DB::Exception: /)
  }
})

test('results and bodies pass through every coding that HTTP names', async () => {
  const decoders = { gzip: gunzipSync, deflate: inflateSync, br: brotliDecompressSync }
  const body = Buffer.from('SELECT number FROM numbers(100000)').toString('base64')
  for (const [name, decode] of Object.entries(decoders)) {
    const asked = { method: 'POST', url: '/?enable_http_compression=1', headers: { 'accept-encoding': name }, body }
    const { headers, body: answer } = await send(asked)
    assert.equal(headers['content-encoding'], name)
    assert.equal(decode(answer).toString().split('\n').length, 100_001)
  }
})

test("the checksum is CityHash128 1.0.2's, for every length at which its code takes another way", () => {
  // From github.com/go-faster/city 1.0.1, over bytes (7 i + ⌊i / 13⌋) mod 256.
  const known: Readonly<Record<number, string>> = {
    0: '2b9ac064fc9df03d291ee592c340b53c',
    1: '2264de61ab714ba07039e237496868f7',
    4: '1c70f36be39d8a6df6841ea386650ec9',
    8: 'b5c979d1e19b8f4fe6407d93197ce37a',
    9: '23562f6e08dd65a23b7d8954ea5a33b1',
    16: '1ec10eeb626c1a3709cb8efb961b395f',
    17: '0e877ba80f213ed0e29381eb9bd691f3',
    31: 'aa429da67b9efd1dda1c405cf387ea55',
    32: '233b99e0db1b331162b4768e8db36cc2',
    64: '5a7c2094cd9ea9ca385388e2419cabc5',
    127: '9d0868af4617e0e6d79a4dab6bdba265',
    128: '3f282e1af9395ee72baf175b54f509e6',
    143: '98e790a2bd57cc4a89f3931451c07de3',
    144: '6291fd6d80f1a22c47c42132db5c4d31',
    145: 'ef32ce9d7e40811c8597ba54495c06ba',
    160: '4a5220563be4045b2b04ef81ce7c0299',
    257: '956ba6022f4930167ada3ce0f86e4700',
    1000: 'b307f6decc968a70ad28e610f781b04b',
    5001: '69419be1588e227822c532a4f86d41ff',
  }
  for (const [length, hash] of Object.entries(known)) {
    const bytes = Uint8Array.from({ length: Number(length) }, (_, i) => (i * 7 + Math.floor(i / 13)) & 255)
    assert.equal(cityHash128(bytes).toString('hex'), hash, length)
  }
})

const compressible = fc
  .array(fc.tuple(fc.uint8Array({ maxLength: 40 }), fc.integer({ min: 1, max: 60 })), { maxLength: 20 })
  .map((parts) => Buffer.concat(parts.flatMap(([bytes, times]) => Array.from({ length: times }, () => bytes))))

test('whatever is compressed comes back, as LZ4 and as blocks cut anywhere', async () => {
  fc.assert(
    fc.property(compressible, (bytes) => assert.ok(lz4Decompress(lz4Compress(bytes), bytes.length).equals(bytes))),
    runs,
  )
  await fc.assert(
    fc.asyncProperty(
      compressible,
      fc.constantFrom('lz4', 'zstd', 'none'),
      fc.integer({ min: 1, max: 50 }),
      async (bytes, method, cut) => {
        const blocks = Buffer.concat([blockOf(bytes, method), blockOf(bytes, method)])
        const stream = decompressBlocks()
        for (let at = 0; at < blocks.length; at += cut) stream.write(blocks.subarray(at, at + cut))
        stream.end()
        assert.ok(Buffer.concat(await stream.toArray()).equals(Buffer.concat([bytes, bytes])))
      },
    ),
    { ...runs, numRuns: 50 },
  )
})

test('a block that is damaged, cut or too large is refused, and garbage never decompresses into more than was said', async () => {
  const block = blockOf(Buffer.from('some text, some text, some text'), 'lz4')
  for (let at = 0; at < block.length; at++) {
    const damaged = Buffer.from(block)
    damaged.writeUInt8((block[at] as number) ^ 1, at)
    await assert.rejects(unblocked(damaged), (error: { clickhouseCode?: number }) =>
      [33, 40, 186].includes(error.clickhouseCode ?? 0),
    )
  }
  await assert.rejects(unblocked(block.subarray(0, -1)), { clickhouseCode: 33 })
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.integer({ min: 0, max: 1000 }), (bytes, length) => {
      try {
        assert.equal(lz4Decompress(bytes, length).length, length)
      } catch (error) {
        assert.ok(error instanceof RangeError, String(error))
      }
    }),
    runs,
  )
})
