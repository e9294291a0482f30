// The estimators that are shown for comparison: each becomes a better known one at the end of its parameter, and the trade
// that it makes, bias for variance, is seen on a log where the truth is known.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { bootstrapStatistic, poissonDraws } from '../replay/estimate/bootstrap.ts'
import {
  clipped,
  dr,
  drOs,
  estimate,
  ips,
  matched,
  type Ratio,
  type Row,
  sndr,
  snips,
  subGaussian,
  sumsOfRows,
  switchDr,
} from '../replay/estimate/estimators.ts'
import { combine } from '../replay/estimate/terms.ts'
import { seeded } from './replay-truth.ts'

const seed = Number(process.env.SEED ?? 7)
fc.configureGlobal({ seed })

const number = fc.double({ min: -10, max: 10, noNaN: true })
const rowsArbitrary = fc.array(
  fc.record({
    cluster: fc.nat(),
    keepWeight: fc.double({ min: 1, max: 5, noNaN: true }),
    reward: number,
    weight: fc.oneof(fc.constant(0), fc.double({ min: 0.1, max: 10, noNaN: true })),
    fitted: number,
    fittedCandidate: number,
    fittedProduction: fc.constant(0),
    unsupported: fc.constant(0),
    fittedUnsupported: fc.constant(0),
  }),
  { minLength: 1, maxLength: 40 },
)
test('without an outcome model SNDR is SNIPS, and with weights of 1 it is DR', () => {
  fc.assert(
    fc.property(rowsArbitrary, (rows) => {
      const blind = rows.map((row) => ({ ...row, fitted: 0, fittedCandidate: 0 }))
      const even = rows.map((row) => ({ ...row, weight: 1 }))
      for (const [ours, wanted] of [
        [sndr(sumsOfRows(blind)).value, estimate(sumsOfRows(blind), snips).value],
        [sndr(sumsOfRows(even)).value, estimate(sumsOfRows(even), dr).value],
      ] as const)
        assert.ok(Object.is(ours, wanted) || Math.abs(ours - wanted) <= 1e-9 * (1 + Math.abs(wanted)))
    }),
  )
})

/** Three arms worth 0.2, 0.5 and 0.8; the log chooses them with `probabilities`, the candidate always the last. */
const arms = [0.2, 0.5, 0.8]
const logOf = (rows: number, probabilities: readonly number[], random: () => number): Row[] =>
  Array.from({ length: rows }, (_, cluster) => {
    const lot = random()
    const [first = 0, second = 0, third = 1] = probabilities
    const arm = lot < first ? 0 : lot < first + second ? 1 : 2
    const fittedOf = (at: number) => (arms[at] ?? 0) * 0.6 + 0.1
    return {
      cluster,
      keepWeight: 1,
      reward: Number(random() < (arms[arm] ?? 0)),
      weight: arm === 2 ? 1 / third : 0,
      fitted: fittedOf(arm),
      fittedCandidate: fittedOf(2),
      fittedProduction: 0,
      unsupported: 0,
      fittedUnsupported: 0,
    }
  })
const meanOf = (estimator: Ratio, probabilities: readonly number[]) => {
  const random = seeded(seed)
  const values = Array.from(
    { length: 300 },
    () => estimate(sumsOfRows(logOf(400, probabilities, random)), estimator).value,
  )
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length
  return { mean, sd: Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length) }
}

// Means of 300 logs: their standard error is below 0.009, so each bound is missed by chance once in 1,000 seeds.
test(`what is gained in variance by shrinking weights is paid in bias (seed ${seed})`, () => {
  const rare = [0.9, 0.07, 0.03]
  const [weighted, robust] = [meanOf(ips, rare), meanOf(dr, rare)]
  for (const { mean } of [weighted, robust]) assert.ok(Math.abs(mean - 0.8) < 0.03)
  const pairs = [
    [clipped, weighted],
    [subGaussian, weighted],
    [switchDr, robust],
    [drOs, robust],
  ] as const
  for (const [estimator, exact] of pairs) {
    const { mean, sd } = meanOf(estimator, rare)
    assert.ok(mean < 0.75 && sd < exact.sd, `${mean} ± ${sd} instead of ${exact.mean} ± ${exact.sd}`)
  }
  const even = meanOf(matched, [1 / 3, 1 / 3, 1 / 3])
  assert.ok(Math.abs(even.mean - 0.8) < 0.01, 'matched replay of a uniform log is unbiased')
})

// Nominal 95 %; a share of 200 logs outside 90…99 % has probability 0.5 %.
test(`the bootstrap of SNDR covers the truth (seed ${seed})`, (t) => {
  const random = seeded(seed)
  const draws = poissonDraws(500, 400, seed)
  let [held, heldLinear] = [0, 0]
  for (let repetition = 0; repetition < 200; repetition++) {
    const rows = logOf(500, [0.3, 0.3, 0.4], random)
    const sums = sumsOfRows(rows)
    const terms = [{ qe: 1 }, { n: 1 }, { wr: 1, wq: -1 }, { w: 1 }].map((part) => combine(sums, part))
    const value = ([q = 0, n = 0, rest = 0, w = 0]: Float64Array) => q / n + rest / w
    const { low, high } = bootstrapStatistic(terms, value, draws)
    held += Number(low <= 0.8 && 0.8 <= high) / 200
    const linear = sndr(sums)
    heldLinear += Number(linear.low <= 0.8 && 0.8 <= linear.high) / 200
  }
  t.diagnostic(`bootstrap ${held}, linearised ${heldLinear}`)
  for (const share of [held, heldLinear]) assert.ok(share >= 0.9 && share <= 0.99, `${share}`)
})
