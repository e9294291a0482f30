// The numbers of others: each comes out as they have it, and the table says whose it is and whether somebody printed it.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { figure } from '../replay/selftest/figure.ts'
import { selfTest, selfTestText } from '../replay/selftest.ts'

const startedMs = performance.now()
const figures = selfTest()
const elapsedMs = performance.now() - startedMs

for (const [group, count] of [
  ['OBP', 21],
  ['RouteLLM', 8],
  ['RouterArena', 3],
  ['AsympCS', 1],
  ['BCa', 3],
  ['queues', 8],
  ['Mooncake', 1],
] as const)
  test(`all ${count} figures of ${group} come out`, () => {
    const members = figures.filter((one) => one.group === group)
    assert.equal(members.length, count)
    for (const { name, expected, ours, decimals, tolerance, ok } of members) {
      if (tolerance === 0) assert.equal(ours.toFixed(decimals), expected.toFixed(decimals), name)
      else assert.ok(Math.abs(ours - expected) <= tolerance, `${name}: ${ours} instead of ${expected}`)
      assert.ok(ok, name)
    }
  })

test('twelve figures of the Open Bandit Pipeline are published, nine were only computed', () => {
  const sources = figures.filter(({ group }) => group === 'OBP').map(({ source }) => source)
  assert.equal(sources.filter((source) => source === 'published').length, 12)
  assert.equal(sources.filter((source) => source === 'computed').length, 9)
})

test('the self-test takes less than ten seconds', (t) => {
  t.diagnostic(`${elapsedMs.toFixed(0)} ms`)
  assert.ok(elapsedMs < 10_000)
})

test('a figure that differs is marked, and is missing from the tally', () => {
  const parts = { group: 'OBP', name: 'made up', source: 'published', decimals: 2 } as const
  const [right, wrong, near, far] = [
    figure({ ...parts, expected: 1.234, ours: 1.2301 }),
    figure({ ...parts, expected: 1.23, ours: 1.24 }),
    figure({ ...parts, expected: 50, ours: 51, tolerance: 1 }),
    figure({ ...parts, expected: 50, ours: 51.1, tolerance: 1 }),
  ] as const
  assert.deepEqual(
    [right, wrong, near, far].map(({ ok }) => ok),
    [true, false, true, false],
  )
  const text = selfTestText([right, wrong, near, far])
  assert.match(text, /OBP 2\/4\n2 of 4 published, 0 of 0 computed figures reproduced/)
  assert.match(text, /✗ made up +published +1\.23 {3}ours +1\.24/)
  assert.match(text, /✓ made up .* within 1\n/)
})

test('the table groups figures and ends with the tally', () => {
  const text = selfTestText(figures)
  assert.match(text, /^OBP\n {2}✓ IPW-LR true value/)
  assert.match(
    text,
    /\nOBP 21\/21, RouteLLM 8\/8, RouterArena 3\/3, AsympCS 1\/1, BCa 3\/3, queues 8\/8, Mooncake 1\/1\n/,
  )
})
