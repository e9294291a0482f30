// What makes deciding again cheap must not change what is decided: draws hashed where they are written, histograms that stand side
// by side, decisions without their words, and records of which only the named features are read.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import fc from 'fast-check'
import xxhash from 'xxhash-wasm'
import { candidateTexts, fill } from '../bench/replay-log.ts'
import type { Collector } from '../collector/server.ts'
import { addTo, binOf, emptyBins } from '../replay/estimate/quantiles.ts'
import { recordsOf } from '../replay/read/rows.ts'
import { openSource, type Source } from '../replay/read/source.ts'
import { featuresNeeded } from '../replay/redecide/needed.ts'
import { startSpread } from '../replay/redecide/spread.ts'
import { draw } from '../router/policy/chance.ts'
import { decide, judge } from '../router/policy/decide.ts'
import { parsePolicy } from '../router/policy/policy.ts'
import { snapshotTypes } from '../router/snapshot.ts'
import { temporaryCollector } from './collector-fixtures.ts'

const { h64 } = await xxhash()
const candidates = candidateTexts.slice(0, 2).map((text) => parsePolicy(text, snapshotTypes))
let collector: Collector
let source: Source
before(async () => {
  collector = await temporaryCollector()
  await fill(collector.clickhouseUrl, 0, 200)
  source = openSource(collector.clickhouseUrl)
})
after(async () => {
  await source.close()
  await collector.close()
})

const all = async <Item>(items: AsyncIterable<Item>): Promise<Item[]> => {
  const found: Item[] = []
  for await (const item of items) found.push(item)
  return found
}

test('a draw is the hash of its whole text, however long or foreign the key, one after another', () => {
  const text = fc.string({ unit: 'binary', maxLength: 400 })
  fc.assert(
    fc.property(fc.array(fc.tuple(text, text, text), { minLength: 1, maxLength: 5 }), (questions) => {
      for (const [key, hash, stream] of questions)
        assert.equal(draw(key, hash, stream), Number(h64(`${key}|${hash}|${stream}`) >> 11n) / 2 ** 53)
    }),
    { seed: 7 },
  )
})

test('histograms that stand side by side are those that stand alone', () => {
  const row = fc.record({
    group: fc.nat(255),
    value: fc.double({ min: 0, max: 1e8, noNaN: true }),
    weights: fc.tuple(fc.double({ min: 0, max: 9, noNaN: true }), fc.double({ min: 0, max: 9, noNaN: true })),
    isCut: fc.boolean(),
  })
  fc.assert(
    fc.property(fc.array(row, { maxLength: 20 }), (rows) => {
      const spread = startSpread(2)
      const alone = [emptyBins(), emptyBins()]
      const columns = [0, 1].map((column) => Float64Array.from(rows, ({ weights }) => weights[column] as number))
      for (const [at, { group, value, isCut }] of rows.entries()) {
        spread.add(group, binOf(value), value, 1, columns, at, isCut)
        for (const [column, bins] of alone.entries()) addTo(bins, group, value, columns[column]?.[at] as number, isCut)
      }
      for (const [column, bins] of alone.entries()) assert.deepEqual(spread.column(column), bins)
    }),
    { seed: 7, numRuns: 10 },
  )
})

test('a decision without its words has the same probabilities and the same choice', async () => {
  for await (const record of source.records())
    for (const { root, name, hash } of candidates) {
      const [judged, decided] = [judge(root, hash, record), decide(root, { name, hash }, record)]
      assert.deepEqual(
        [...judged.probabilities],
        decided.candidates.map(({ probability }) => probability),
      )
      assert.equal(record.candidates[judged.chosen]?.model ?? null, decided.chosen)
    }
})

test('of candidates only what policies name is read, and it decides the same', async () => {
  assert.ok(source.slices)
  const features = featuresNeeded(candidates)
  assert.ok(features.has('error_rate') && !features.has('in_flight'))
  const whole = (await all(source.slices())).flatMap(({ bytes }) => [...recordsOf(bytes)])
  const slices = await all(source.slices(Number.POSITIVE_INFINITY, features))
  const partly = slices.flatMap(({ bytes }) => [...recordsOf(bytes, features)])
  assert.equal(partly.length, 200)
  assert.equal(partly[0]?.candidates[0]?.features.in_flight, null)
  assert.notEqual(whole[0]?.candidates[0]?.features.in_flight, null)
  for (const [at, record] of partly.entries())
    for (const { root, hash } of candidates)
      assert.deepEqual(judge(root, hash, record), judge(root, hash, whole[at] as (typeof whole)[number]))
})
