// Records read as columns: on the real engine, what comes back through ClickHouse's Native format is what was sent, and bytes
// that are not that format end in an error.
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import fc from 'fast-check'
import type { Collector } from '../collector/server.ts'
import { recordsOf } from '../replay/read/rows.ts'
import { openSource, type Slice, SourceError } from '../replay/read/source.ts'
import { attributeNames, spanNames, toAttributes } from '../router/policy/attributes.ts'
import type { DecisionRecord } from '../router/policy/record.ts'
import { snapshotTypes } from '../router/snapshot.ts'
import * as arbitraries from './arbitraries.ts'
import { jsonRequest, jsonSpan, otlpAttributes, post, rowsOf, temporaryCollector } from './collector-fixtures.ts'

const startMs = Date.now() - 3_600_000
const number = fc.option(fc.double({ noNaN: true, min: 0, max: 1e9 }))
const features = fc.record({
  ...Object.fromEntries(Object.keys(snapshotTypes).map((name) => [name, number])),
  provider: fc.constantFrom('openai', 'Ollama "local"', '日本'),
  breaker: fc.constantFrom('closed', 'half-open'),
})
const extra = fc.dictionary(
  fc.constantFrom('region', 'rank', 'löcal "x"'),
  fc.constantFrom('eu', 0.1, true, null, '{"'),
  {
    noNullPrototype: true,
  },
)

/** Records as the router makes them: every feature of the snapshot is there, and quality comes later. */
const routerMade = fc
  .sample(fc.tuple(arbitraries.records, fc.infiniteStream(features), fc.infiniteStream(extra)), 120)
  .map(([record, known, more], at): DecisionRecord => {
    const candidates = record.candidates.map((candidate) => {
      const context_tokens_max = candidate.features.context_tokens_max as number
      return { ...candidate, features: { ...more.next().value, ...known.next().value, context_tokens_max } }
    })
    const { outcome, ...rest } = record
    assert.ok(outcome)
    const time = new Date(startMs + at * 1000).toISOString()
    const made = { ...rest, id: randomUUID(), time, candidates, outcome: { ...outcome, quality: null } }
    return JSON.parse(JSON.stringify(made)) as DecisionRecord
  })
/** Records from elsewhere: an id and a time of another kind, fewer features, a quality of their own. */
const imported = fc.sample(arbitraries.records, 20).map((record, at): DecisionRecord => {
  const time = `2026-11-01T09:00:0${at % 10}+01:00`
  return { ...(JSON.parse(JSON.stringify(record)) as DecisionRecord), id: at % 2 ? `d-${at}` : randomUUID(), time }
})

const spanOf = (record: DecisionRecord, atMs: number) =>
  jsonSpan({
    kind: 2,
    startTimeUnixNano: `${atMs}000000`,
    attributes: otlpAttributes({
      ...toAttributes(record),
      [attributeNames.httpStatus]: record.outcome?.http_status ?? 0,
    }),
  })

const all = async <Item>(items: AsyncIterable<Item>): Promise<Item[]> => {
  const found: Item[] = []
  for await (const item of items) found.push(item)
  return found
}

let collector: Collector
let slices: Slice[]
before(async () => {
  collector = await temporaryCollector()
  const judgement = {
    [attributeNames.decisionId]: routerMade[0]?.id ?? '',
    [attributeNames.evaluationName]: 'quality',
    [attributeNames.evaluationScore]: 0.25,
  }
  const spans = [
    ...routerMade.map((record) => spanOf(record, Date.parse(record.time))),
    ...imported.map((record, at) => spanOf(record, startMs + 500 + at * 1000)),
    jsonSpan({ kind: 2, attributes: otlpAttributes({ [attributeNames.decisionId]: randomUUID() }) }),
    jsonSpan({ name: spanNames.evaluation, attributes: otlpAttributes(judgement) }),
  ]
  assert.equal((await post(collector, jsonRequest(...spans))).status, 200)
  const source = openSource(collector.clickhouseUrl)
  slices = source.slices ? await all(source.slices()) : []
  await source.close()
})
after(() => collector.close())

const judged = (record: DecisionRecord): DecisionRecord =>
  record.id === routerMade[0]?.id && record.outcome
    ? { ...record, outcome: { ...record.outcome, quality: 0.25 } }
    : record
const sent = () => {
  const all = [
    ...routerMade.map((record) => ({ record: judged(record), atMs: Date.parse(record.time) })),
    ...imported.map((record, at) => ({ record, atMs: startMs + 500 + at * 1000 })),
  ]
  return all.sort((a, b) => a.atMs - b.atMs).map(({ record }) => record)
}

test('what the router made and what others made comes back in order, equal to the bit, feedback joined', () => {
  const read = slices.flatMap(({ bytes }) => [...recordsOf(bytes)])
  assert.equal(read.length, routerMade.length + imported.length)
  for (const [at, record] of sent().entries()) assert.deepStrictEqual(read[at], record)
})

test('the columns say all of what the router made: its records are not read, others are kept beside', async () => {
  const [row] = await rowsOf<{ regular: number; kept: number; none: number }>(
    collector,
    `SELECT toFloat64(countIf(irregular IS NULL)) AS regular, toFloat64(countIf(irregular = record AND record != '')) AS kept,
      toFloat64(countIf(irregular = '')) AS none FROM otel.routing_decisions`,
  )
  assert.deepEqual(row, { regular: routerMade.length, kept: imported.length, none: 1 })
  await rowsOf(collector, "ALTER TABLE otel.routing_decisions UPDATE record = '' WHERE 1 SETTINGS mutations_sync = 1")
  const source = openSource(collector.clickhouseUrl)
  assert.deepStrictEqual(await all(source.records()), sent())
  assert.equal(await source.size(), sent().length)
  await source.close()
})

test('a slice can be handed to another thread: its bytes are its own', () => {
  const [slice] = slices as [Slice]
  const copy = slice.bytes.slice(0)
  const moved = structuredClone(copy, { transfer: [copy] })
  assert.equal(copy.byteLength, 0)
  assert.deepStrictEqual([...recordsOf(moved)], [...recordsOf(slice.bytes)])
})

const readOrRefuse = (bytes: ArrayBuffer): boolean => {
  try {
    for (const record of recordsOf(bytes)) assert.ok(record)
    return true
  } catch (error) {
    assert.ok(error instanceof SourceError, String((error as Error).stack))
    return false
  }
}

test('bytes cut short or changed anywhere are read or refused, never more', () => {
  const [{ bytes }] = slices as [Slice]
  fc.assert(
    fc.property(fc.nat(bytes.byteLength - 1), fc.nat(255), fc.boolean(), (at, value, cut) => {
      const changed = new Uint8Array(bytes.slice(0, cut ? at : undefined))
      if (!cut) changed[at] = value
      const read = readOrRefuse(changed.buffer)
      if (cut && at > 0) assert.equal(read, false)
    }),
    { numRuns: 300 },
  )
})

test('an error page and a count beyond the bytes are refused with the byte where reading stopped', () => {
  const bytesOf = (...parts: (string | number)[]) =>
    new Uint8Array(Buffer.concat(parts.map((part) => Buffer.from(typeof part === 'string' ? part : [part])))).buffer
  assert.throws(() => [...recordsOf(bytesOf('Code: 241. DB::Exception: Memory limit'))], {
    code: 'source-unreadable',
    message: /Native format: byte \d+ of 38: .*/,
  })
  assert.throws(() => [...recordsOf(bytesOf(1, 0xff, 0xff, 0xff, 0xff, 0x7f))], {
    message: /found 34359738367 rows, more than/,
  })
  assert.throws(() => [...recordsOf(bytesOf(1, 1, 1, 'a', 4, 'Date', 0))], {
    message: /a column of type Date is not read here/,
  })
})

test('a file and ClickHouse give the same records in batches, and say how far they are', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'signalbox-batches-'))
  const path = join(folder, 'decisions.ndjson')
  const [line] = routerMade.map((record) => JSON.stringify(record))
  await writeFile(path, `${line}\n`.repeat(515))
  const done: number[] = []
  const file = openSource(path)
  const batches = await all(file.batches((bytes) => done.push(bytes)))
  assert.deepEqual([batches.map((batch) => batch.length), file.slices], [[512, 3], null])
  assert.ok((done[0] ?? 0) > 0)
  await rm(folder, { recursive: true })
  const source = openSource(collector.clickhouseUrl)
  assert.deepStrictEqual((await all(source.batches((rows) => done.push(rows)))).flat(), sent())
  assert.equal(done.at(-1), sent().length + 1)
  await source.close()
})
