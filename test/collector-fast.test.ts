// The fast decoders against the careful ones, in the table itself: for whatever body, the same rows, or the fast one gives up.
import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import fc from 'fast-check'
import { openEngine } from '../collector/engine.ts'
import { migrate } from '../collector/migrate.ts'
import { blockOfJson } from '../collector/otlp-json-fast.ts'
import { blockOfProtobuf } from '../collector/otlp-protobuf-fast.ts'
import type { ExportRows } from '../collector/otlp-signal.ts'
import { carefulTraces } from '../collector/otlp-traces.ts'
import { embeddedStore, type Store } from '../collector/store.ts'
import { jsonRequest, jsonSpan, otlpAttributes, temporaryFolder } from './collector-fixtures.ts'
import { encode, requestsOf } from './otlp-oracle.ts'

const seed = Number(process.env.SEED ?? 7)
let folder: Awaited<ReturnType<typeof temporaryFolder>>
let store: Store
before(async () => {
  folder = await temporaryFolder()
  store = embeddedStore(await openEngine(join(folder.path, 'data')))
  await migrate(store)
  for (const name of ['carefully', 'fast']) {
    await store.command(`CREATE TABLE otel.${name} AS otel.otel_traces ENGINE = Memory`)
  }
})
after(async () => {
  await store.close()
  await folder.remove()
})

type Decoders = {
  readonly fast: (body: Buffer) => { readonly rows: Buffer; readonly count: number } | null
  readonly careful: (body: Buffer) => ExportRows
}
const json: Decoders = { fast: blockOfJson, careful: carefulTraces.json }
const protobuf: Decoders = { fast: blockOfProtobuf, careful: carefulTraces.protobuf }

/** Compares what both make of the bodies; gives how many of them were read fast. */
const compare = async ({ fast, careful }: Decoders, bodies: readonly Buffer[]): Promise<number> => {
  const [blocks, lines] = [[] as Buffer[], [] as Buffer[]]
  for (const body of bodies) {
    const block = fast(body)
    if (block === null) continue
    const { accepted, rejected, tables } = careful(body)
    assert.deepEqual([rejected, accepted], [0, block.count], body.toString())
    if (block.count === 0) continue
    blocks.push(block.rows)
    for (const { rows } of tables) lines.push(rows)
  }
  for (const name of ['carefully', 'fast']) await store.command(`TRUNCATE TABLE otel.${name}`)
  const file = join(folder.path, 'fast.rows')
  await writeFile(file, Buffer.concat(blocks))
  await store.insertFile('otel.fast', file, 'Native', '')
  await store.insert('otel.carefully', Buffer.concat(lines), '')
  const rowsOf = (name: string) => store.query<object>(`SELECT * FROM otel.${name} ORDER BY TraceId, SpanId LIMIT 5000`)
  assert.deepEqual(await rowsOf('fast'), await rowsOf('carefully'))
  return blocks.length
}

type Scopes = {
  resourceSpans: { scopeSpans: { scope: { attributes?: unknown; droppedAttributesCount?: unknown } }[] }[]
}
/** Requests of every shape, most of them without the attributes of a scope, for which the fast ones give up. */
const samples = fc.sample(requestsOf.Traces, { seed, numRuns: 1000 }).map((sample, index) => {
  for (const { scopeSpans } of index % 10 === 0 ? [] : (sample as Scopes).resourceSpans) {
    for (const { scope } of scopeSpans)
      for (const name of ['attributes', 'droppedAttributesCount'] as const) delete scope[name]
  }
  return sample
})
const jsonBodies = samples.map((sample) => Buffer.from(JSON.stringify(sample)))
const protobufBodies = samples.map((sample) => Buffer.from(encode('Traces', sample)))

describe('a fast decoder', () => {
  test('gives the rows of the careful one, for JSON', async () => {
    assert.ok((await compare(json, jsonBodies)) > 300)
  })

  test('gives the rows of the careful one, for protobuf', async () => {
    assert.ok((await compare(protobuf, protobufBodies)) > 300)
  })

  test('gives up on damaged bodies, or reads what the careful one reads', async () => {
    const random = fc.sample(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { seed, numRuns: 1000 })
    const damaged = (bodies: readonly Buffer[]): Buffer[] =>
      bodies.map((body, index) => {
        const copy = Buffer.from(body)
        const [at, byte] = random[index] as [number, number]
        if (copy.length > 0) copy[at % copy.length] = byte
        return copy
      })
    await compare(json, damaged(jsonBodies))
    await compare(protobuf, damaged(protobufBodies))
  })

  test('reads what SDKs write, and no body that breaks a rule', async () => {
    const attributes = otlpAttributes({ b: 1, a: 'ä"\\\n', ok: true, d: 0.1, big: 12345678901, list: ['x', 'y'] })
    const numbers = ['1.50', '1e3', '-0', '0.000001', '1e-7', '123456789012345680000', '0.1234567890123456', '-5', '0']
    const doubles = numbers.map((number, index) => `{"key":"n${index}","value":{"doubleValue":${number}}}`)
    const texts = numbers.slice(7).map((number, index) => `{"key":"i${index}","value":{"intValue":"${number}"}}`)
    const escaped = `{"key":"\\u0061\\ud800","value":{"stringValue":"\\ud83d\\ude00\\udc00"}}`
    const usual = [
      jsonRequest(jsonSpan({ attributes, parentSpanId: '', events: [{ name: 'e', timeUnixNano: 12, attributes }] })),
      jsonRequest(jsonSpan({ attributes: [] })).replace('[]', `[${[...doubles, ...texts, escaped].join(',')}]`),
      jsonRequest(jsonSpan({ startTimeUnixNano: '9223372035999999999', endTimeUnixNano: '5', status: {} })),
      JSON.stringify(JSON.parse(jsonRequest(jsonSpan(), jsonSpan({ kind: 2, status: { code: 2, message: 'no' } })))),
    ].map((body) => Buffer.from(body))
    assert.equal(await compare(json, usual), usual.length)

    const [id, other] = ['0'.repeat(32), 'g'.repeat(32)]
    const broken = [{ traceId: id }, { traceId: other }, { spanId: '' }, { name: 5 }, { startTimeUnixNano: '-1' }]
    for (const fields of [...broken, { kind: 'SPAN_KIND_SERVER' }, { endTimeUnixNano: '9223372036854775808' }]) {
      assert.equal(blockOfJson(Buffer.from(jsonRequest(jsonSpan(fields)))), null, JSON.stringify(fields))
    }
    for (const text of ['', '{', '{"resourceSpans":[]}x', '{"resourceSpans":[],}', '[]', '{"a":01}', '\ufeff{}']) {
      assert.equal(blockOfJson(Buffer.from(text)), null, text)
    }
    assert.equal(blockOfJson(Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d])), null)
  })
})
