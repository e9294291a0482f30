// Quantiles of weighted, grouped amounts: exact where they can be, within the stated resolution elsewhere, and with intervals
// that hold the true p50 and p95 of a policy on traffic where every model's latency is known.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  addTo,
  type Bins,
  binOf,
  curveOf,
  differenceOf,
  distributionOf,
  emptyBins,
  mergeBins,
  missShare,
  quantile,
  quantileGroups,
  tailMean,
} from '../replay/estimate/quantiles.ts'
import { parsePolicy } from '../router/policy/policy.ts'
import { contextFor, prompts, seeded, truthFeatures } from './replay-truth.ts'

const seed = Number(process.env.SEED ?? 7)
fc.configureGlobal({ seed })

const binsOf = (
  values: readonly number[],
  masses?: readonly number[],
  cutShort: ReadonlySet<number> = new Set(),
): Bins => {
  const bins = emptyBins()
  for (const [at, value] of values.entries())
    addTo(bins, at % quantileGroups, value, masses?.[at] ?? 1, cutShort.has(at))
  return bins
}
const exactQuantile = (values: readonly number[], p: number): number =>
  values.toSorted((a, b) => a - b)[Math.max(0, Math.ceil(p * values.length) - 1)] ?? Number.NaN

test('a quantile lies within 1 % of the exact one, whatever the values', () => {
  const values = fc.array(fc.double({ min: 0.1, max: 1e6, noNaN: true }), { minLength: 3, maxLength: 200 })
  fc.assert(
    fc.property(values, fc.constantFrom(0.5, 0.95, 0.99), (all, p) => {
      const { value, low, high } = quantile(curveOf(binsOf(all)), p).estimate
      const exact = exactQuantile(all, p)
      assert.ok(Math.abs(value / exact - 1) <= 0.0101, `${value} instead of ${exact}`)
      assert.ok(low <= value && value <= high)
    }),
    { numRuns: 40 },
  )
})

test('values that are all alike have a quantile within 1 % of them, and that very tail mean', () => {
  for (const value of [0, 0.1, 200, 12_345.6]) {
    const curve = curveOf(binsOf(Array.from({ length: 500 }, () => value)))
    for (const p of [0.01, 0.5, 0.99]) assert.ok(Math.abs(quantile(curve, p).estimate.value - value) <= 0.01 * value)
    assert.ok(Math.abs(tailMean(curve, 0.05) - value) <= 1e-9 * value)
    assert.equal(missShare(curve, value * 1.03).estimate.value, 0)
    assert.equal(missShare(curve, value * 0.97).estimate.value, value === 0 ? 0 : 1)
  }
})

test('bins cover zero, the whole scale and what lies beyond', () => {
  assert.equal(binOf(0), 0)
  assert.equal(binOf(0.1), 1)
  assert.ok(binOf(1e7 * 0.99) < binOf(1e8))
  assert.equal(binOf(1e8), binOf(Infinity))
  assert.ok(emptyBins().mass.byteLength < 3e6)
  const { estimate } = quantile(curveOf(binsOf([1, 2, 3, 1e9, 1e9])), 0.9)
  assert.deepEqual([estimate.value, estimate.high, estimate.se], [Infinity, Infinity, Infinity])
})

test('merging two histograms equals filling one', () => {
  const [some, more] = [
    [1, 2, 300, 4e6],
    [2, 2, 0, 17, 1e8],
  ]
  const merged = binsOf(some ?? [])
  mergeBins(merged, binsOf(more ?? [], undefined, new Set([1])))
  const whole = binsOf(some ?? [])
  for (const [at, value] of (more ?? []).entries()) addTo(whole, at, value, 1, at === 1)
  assert.deepEqual(merged, whole)
})

test('what was cut short leaves the quantiles below it exact and bounds those above', () => {
  const values = Array.from({ length: 1000 }, (_, at) => 10 + at)
  const whole = curveOf(binsOf(values))
  // The slowest fifth was cut off at 700 ms: nobody knows how long it would have taken.
  const late = new Set(values.flatMap((value, at) => (value >= 810 ? [at] : [])))
  const cut = curveOf(
    binsOf(
      values.map((value) => Math.min(value, 810)),
      undefined,
      late,
    ),
  )
  const exact = (p: number) => quantile(whole, p).estimate
  const bounded = (p: number) => quantile(cut, p).estimate
  assert.ok(Math.abs(bounded(0.5).value - exact(0.5).value) < 1e-9)
  assert.ok(Math.abs(bounded(0.5).high - exact(0.5).high) < 1e-9)
  assert.equal(bounded(0.95).value, Infinity)
  assert.equal(bounded(0.95).high, Infinity)
  assert.ok(bounded(0.95).low > 700 && bounded(0.95).low < exact(0.95).low)
  assert.ok(Math.abs(missShare(cut, 500).estimate.value - missShare(whole, 500).estimate.value) < 1e-9)
  assert.ok(tailMean(cut, 0.05) <= tailMean(whole, 0.05))
  // Cut early instead, the lower end must allow for the rows having ended just then.
  const early = curveOf(
    binsOf(
      values.map((value, at) => (late.has(at) ? 20 : value)),
      undefined,
      late,
    ),
  )
  const reading = quantile(early, 0.5)
  assert.ok(reading.estimate.low < exact(0.3).value && reading.atLeast < reading.estimate.value)
})

test('the same rows under the same weights differ by exactly nothing', () => {
  const random = seeded(seed)
  const values = Array.from({ length: 2000 }, () => 1000 * random() ** 3)
  const [one, other] = [curveOf(binsOf(values)), curveOf(binsOf(values))]
  for (const p of [0.5, 0.95]) {
    const { value, low, high } = differenceOf(quantile(one, p), quantile(other, p))
    assert.deepEqual([value, low, high], [0, 0, 0])
  }
})

test('the tail mean is that of the sorted values, and the distribution ascends in at most 60 points', () => {
  const random = seeded(seed)
  const values = Array.from({ length: 4000 }, () => 50 * (1 - random()) ** -0.5)
  const worst = values.toSorted((a, b) => b - a).slice(0, 200)
  const curve = curveOf(binsOf(values))
  const exact = worst.reduce((sum, value) => sum + value, 0) / worst.length
  assert.ok(Math.abs(tailMean(curve, 0.05) / exact - 1) < 0.002)
  const points = distributionOf(curve, curveOf(binsOf(values.map((value) => value * 2))))
  assert.ok(points.length > 40 && points.length <= 60, `${points.length} points`)
  for (const [at, point] of points.entries()) {
    const next = points[at + 1]
    assert.ok(point.candidate <= point.production)
    if (next) assert.ok(next.value > point.value && next.production >= point.production)
    const below = values.filter((value) => value <= point.value).length / values.length
    assert.ok(Math.abs(point.production - below) < 1e-9)
  }
})

test('one group says nothing about its own error, and no misses among few are not a proof of none', () => {
  const bins = emptyBins()
  for (let row = 0; row < 50; row++) addTo(bins, 3, row, 1, false)
  const { low, high } = quantile(curveOf(bins), 0.5).estimate
  assert.deepEqual([low, high], [-Infinity, Infinity])
  const none = missShare(curveOf(binsOf(Array.from({ length: 100 }, () => 5))), 1000).estimate
  assert.equal(none.value, 0)
  assert.ok(none.high > 0.03 && none.high < 0.04, `${none.high}`)
})

const designs = [
  {
    name: 'ε-greedy 50 %, all to one other model',
    explore: 0.5,
    rows: 3000,
    candidate: 'candidate.rank == 3.0 ? 1.0 : 0.0',
  },
  { name: 'ε-greedy 80 %, the second best', explore: 0.8, rows: 1800, candidate: 'candidate.rank == 1.0 ? 1.0 : 0.0' },
] as const
const quantiles = [0.5, 0.95] as const
const limitMs = 4000

/** Every prompt's models with their latency and both policies' probabilities. */
const tableOf = (explore: number, score: string) => {
  const production = parsePolicy(
    `name: production\nscore: candidate.rank\nchoose: {kind: highest}\nexplore: {rate: ${explore}}`,
    truthFeatures,
  )
  const candidate = parsePolicy(`name: c\nscore: '${score}'\nchoose: {kind: highest}`, truthFeatures)
  return prompts.map((prompt) => {
    const context = contextFor(prompt, 'prompt')
    const redecided = candidate.decide(context).candidates
    const decided = production.decide(context).candidates
    return decided.map(({ model, probability }, at) => ({
      logged: probability,
      upTo: decided.slice(0, at + 1).reduce((sum, { probability: earlier }) => sum + earlier, 0),
      redecided: redecided.find((other) => other.model === model)?.probability ?? 0,
      latencyMs: prompt.outcomes.get(model)?.latency_ms ?? 0,
    }))
  })
}
type Table = ReturnType<typeof tableOf>

const truthOf = (table: Table, policy: 'logged' | 'redecided') => {
  const all = table.flat().toSorted((a, b) => a.latencyMs - b.latencyMs)
  const at = (p: number): number => {
    let sum = 0
    for (const cell of all) {
      sum += cell[policy] / table.length
      if (sum >= p - 1e-12) return cell.latencyMs
    }
    return Infinity
  }
  const missed = all.reduce((sum, cell) => sum + (cell.latencyMs > limitMs ? cell[policy] : 0), 0) / table.length
  return { at, missed }
}

const logged = (table: Table, rows: number, random: () => number) => {
  const [production, candidate] = [emptyBins(), emptyBins()]
  for (let row = 0; row < rows; row++) {
    const cells = table[Math.floor(random() * table.length)] ?? []
    const lot = random()
    const cell = cells.find(({ upTo }) => lot < upTo) ?? cells[0]
    if (!cell) continue
    const group = Math.floor(random() * quantileGroups)
    addTo(production, group, cell.latencyMs, 1, false)
    addTo(candidate, group, cell.latencyMs, cell.redecided / cell.logged, false)
  }
  return { production: curveOf(production), candidate: curveOf(candidate) }
}

// With true coverage 95 %, a share of 400 logs falls outside 92…98 % with probability 0.9 %; there are seven shares.
test(`on MMLU-Pro, intervals hold the true p50, p95 and misses in 92 to 98 % of 400 logs (seed ${seed})`, (t) => {
  const repetitions = 200
  const random = seeded(seed)
  const held = new Map<string, number>()
  const count = (what: string, { low, high }: { low: number; high: number }, truth: number) =>
    held.set(what, (held.get(what) ?? 0) + Number(low <= truth && truth <= high) / (repetitions * designs.length))
  for (const { explore, candidate: score, rows } of designs) {
    const table = tableOf(explore, score)
    const [before, after] = [truthOf(table, 'logged'), truthOf(table, 'redecided')]
    for (let repetition = 0; repetition < repetitions; repetition++) {
      const { production, candidate } = logged(table, rows, random)
      for (const p of quantiles) {
        const [was, will] = [quantile(production, p), quantile(candidate, p)]
        count(`p${100 * p} production`, was.estimate, before.at(p))
        count(`p${100 * p} candidate`, will.estimate, after.at(p))
        count(`p${100 * p} difference`, differenceOf(will, was), after.at(p) - before.at(p))
      }
      const [was, will] = [missShare(production, limitMs), missShare(candidate, limitMs)]
      count('misses', will.estimate, after.missed)
      count('misses difference', differenceOf(will, was), after.missed - before.missed)
    }
  }
  for (const [what, share] of held) t.diagnostic(`${what} ${share.toFixed(3)}`)
  for (const [what, share] of held) assert.ok(share >= 0.92 && share <= 0.98, `${what} is held in ${share}`)
})
