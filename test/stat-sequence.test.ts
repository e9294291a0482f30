// Intervals under repeated looks, as laws of a fold and by counting how often the truth is left out at some look, on weights of
// the kind that exploration at 10 % leaves behind. A published half-width is in the self-test.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { RatioSum } from '../replay/estimate/estimators.ts'
import {
  addBet,
  asymptoticInterval,
  bettingInterval,
  mergeBets,
  startBetting,
  type Wager,
} from '../replay/estimate/sequence.ts'
import { seeded } from './replay-truth.ts'

const seed = Number(process.env.SEED ?? 7)
fc.configureGlobal({ seed })
const alpha = 0.05

test('a confidence sequence is infinite below two observations and refuses an alpha outside 0 to 1', () => {
  const look = { count: 1, mean: 0, variance: 1, tuning: 100, alpha }
  assert.deepEqual(asymptoticInterval(look), { low: -Infinity, high: Infinity })
  assert.throws(() => asymptoticInterval({ ...look, alpha: 5 }), /alpha 5, .* between 0 and 1/)
})

const betAll = (wager: Wager, rows: readonly (readonly [number, number])[]) => {
  const betting = startBetting(wager)
  for (const [weight, reward] of rows) addBet(betting, weight, reward)
  return betting
}
const rowsArbitrary = fc.array(
  fc.tuple(fc.double({ min: 0, max: 50, noNaN: true }), fc.double({ min: 0, max: 1, noNaN: true })),
  { maxLength: 60 },
)

/** A log of ε-greedy traffic: the candidate's arm, better than the rest, was chosen with `probability`. */
const drawRow = (random: () => number, probability: number): [weight: number, reward: number] =>
  random() < probability ? [1 / probability, Number(random() < 0.7)] : [0, Number(random() < 0.5)]
const probability = 0.1
const truth = { value: 0.7, difference: 0.7 - (probability * 0.7 + (1 - probability) * 0.5) }

test('merging two bettings equals betting on both streams, in either order', () => {
  fc.assert(
    fc.property(fc.nat(), fc.nat(150), fc.nat(150), fc.constantFrom('value', 'difference'), (start, a, b, wager) => {
      const random = seeded(start)
      const rows = Array.from({ length: 200 + a + b }, () => drawRow(random, probability))
      const [some, more] = [rows.slice(0, 100 + a), rows.slice(100 + a)]
      const whole = bettingInterval(betAll(wager, rows), alpha)
      for (const [first, second] of [
        [some, more],
        [more, some],
      ] as const) {
        const merged = betAll(wager, first)
        mergeBets(merged, betAll(wager, second))
        assert.equal(merged.count, rows.length)
        assert.deepEqual(bettingInterval(merged, alpha), whole)
      }
    }),
    { numRuns: 20 },
  )
})

test('swapping good and bad mirrors the betting interval of a value', () => {
  fc.assert(
    fc.property(rowsArbitrary, (rows) => {
      const { low, high } = bettingInterval(betAll('value', rows), alpha)
      const mirrored = bettingInterval(
        betAll(
          'value',
          rows.map(([weight, reward]) => [weight, 1 - reward]),
        ),
        alpha,
      )
      assert.ok(Math.abs(mirrored.low - (1 - high)) < 0.006 && Math.abs(mirrored.high - (1 - low)) < 0.006)
    }),
    { numRuns: 30 },
  )
})

test('a bet on a reward outside 0 to 1 or a weight that is not a number is refused in words', () => {
  assert.throws(() => addBet(startBetting('value'), 1, 1.5), /reward 1.5; .* a reward in 0…1/)
  assert.throws(() => addBet(startBetting('value'), Number.NaN, 1), /weight NaN/)
})

// If the true rate of leaving the truth out were the nominal 5 %, 120 repetitions would show more than 10 % with probability 0.9 %.
test(`at every look of 20, betting leaves the truth out in at most 5 % of runs, the t interval in far more (seed ${seed})`, (t) => {
  const [repetitions, looks, step] = [120, 20, 50]
  const random = seeded(seed)
  const missed = { value: 0, difference: 0, fixed: 0 }
  let width = 0
  for (let repetition = 0; repetition < repetitions; repetition++) {
    const bets = { value: startBetting('value'), difference: startBetting('difference') }
    const fixed = new RatioSum()
    const out = { value: false, difference: false, fixed: false }
    for (let look = 0; look < looks; look++) {
      for (let row = 0; row < step; row++) {
        const [weight, reward] = drawRow(random, probability)
        addBet(bets.value, weight, reward)
        addBet(bets.difference, weight, reward)
        fixed.add(weight * reward, 1)
      }
      for (const wager of ['value', 'difference'] as const) {
        const { low, high } = bettingInterval(bets[wager], alpha)
        if (!(low <= truth[wager] && truth[wager] <= high)) out[wager] = true
        if (look === looks - 1 && wager === 'value') width += (high - low) / repetitions
      }
      const { low, high } = fixed.close()
      if (!(low <= truth.value && truth.value <= high)) out.fixed = true
    }
    for (const kind of ['value', 'difference', 'fixed'] as const) missed[kind] += Number(out[kind]) / repetitions
  }
  t.diagnostic(`left out: ${JSON.stringify(missed)}; mean width of the value's interval at the end ${width.toFixed(3)}`)
  assert.ok(missed.value <= 0.1 && missed.difference <= 0.1, JSON.stringify(missed))
  assert.ok(missed.fixed > 0.12, 'looking often with a fixed-sample interval would be harmless')
  assert.ok(width < 0.5, 'the interval never becomes useful')
})

// As above: more than 8 % in 400 repetitions has probability 0.5 % when the true rate is 5 %.
test(`from an effective 260 rows on, the asymptotic sequence holds at every look (seed ${seed})`, (t) => {
  const [repetitions, rows, step] = [400, 8000, 200]
  const random = seeded(seed + 1)
  let missed = 0
  for (let repetition = 0; repetition < repetitions; repetition++) {
    const sum = new RatioSum()
    let out = false
    for (let row = 1; row <= rows; row++) {
      const [weight, reward] = drawRow(random, probability)
      sum.add(weight * reward, 1)
      if (row % step !== 0 || row * probability < 260) continue
      const { value, se } = sum.close()
      const { low, high } = asymptoticInterval({
        count: row,
        mean: value,
        variance: se ** 2 * row,
        tuning: 3000,
        alpha,
      })
      if (!(low <= truth.value && truth.value <= high)) out = true
    }
    missed += Number(out) / repetitions
  }
  t.diagnostic(`left out in ${missed}`)
  assert.ok(missed <= 0.08, `${missed}`)
})
