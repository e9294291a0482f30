// A biased judge made honest by a few people: the interval must hold the truth that the judge alone misses, and be shorter than
// the people's alone.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { estimate, logged, type Ratio, type Row, snips, sumsOfRows } from '../replay/estimate/estimators.ts'
import { addJudged, judgeSums, mergeJudged, rectified, rectifierOf } from '../replay/estimate/prediction-powered.ts'
import { seeded } from './replay-truth.ts'

const seed = Number(process.env.SEED ?? 7)
const goodShare = 0.6
const humanShare = 0.1
const rows = 3000

type Scored = { readonly judge: number; readonly human: number; readonly weight: number }

/** People say 1 for 60 % of answers; the judge sees most of these, and lets half of the bad ones pass. Good ones weigh more. */
const drawScores = (random: () => number): Scored[] =>
  Array.from({ length: rows }, () => {
    const good = random() < goodShare
    const judge = good ? 0.9 - 0.2 * random() : random() < 0.5 ? 0.8 : 0.1
    return { judge, human: random() < humanShare ? Number(good) : Number.NaN, weight: random() < 0.5 ? 1.5 : 0.5 }
  })

const rowOf = (reward: number, weight: number, cluster: number): Row => ({
  cluster,
  keepWeight: 1,
  reward,
  weight,
  fitted: 0,
  fittedCandidate: 0,
  fittedProduction: 0,
  unsupported: 0,
  fittedUnsupported: 0,
})
const meanOf = (scores: readonly Scored[], read: (score: Scored) => number, ratio: Ratio = logged) => {
  const rows = scores.map((score, at) => rowOf(read(score), score.weight, at))
  return estimate(sumsOfRows(rows.filter(({ reward }) => !Number.isNaN(reward))), ratio)
}

const rectifierFor = (scores: readonly Scored[]) => {
  const sums = judgeSums()
  for (const { judge, human } of scores) addJudged(sums, judge, human)
  return rectifierOf(sums)
}

// A share of 400 intervals outside 92…98 % has probability 0.9 % when the true coverage is 95 %.
test(`corrected by people, a biased judge's intervals hold the truth, shorter than people's alone (seed ${seed})`, (t) => {
  const random = seeded(seed)
  const kinds = ['powered', 'weighted', 'judge', 'people'] as const
  const held = { powered: 0, weighted: 0, judge: 0, people: 0 }
  const width = { powered: 0, weighted: 0, judge: 0, people: 0 }
  for (let repetition = 0; repetition < 400; repetition++) {
    const scores = drawScores(random)
    const rectifier = rectifierFor(scores)
    const reward = ({ judge, human }: Scored) => rectified(rectifier, judge, human)
    const estimates = {
      powered: meanOf(scores, reward),
      weighted: meanOf(scores, reward, snips),
      judge: meanOf(scores, ({ judge }) => judge),
      people: meanOf(scores, ({ human }) => human),
    }
    for (const kind of kinds) {
      const { low, high } = estimates[kind]
      held[kind] += Number(low <= goodShare && goodShare <= high) / 400
      width[kind] += (high - low) / 400
    }
  }
  t.diagnostic(`held ${JSON.stringify(held)}, width ${JSON.stringify(width)}`)
  assert.ok(held.powered >= 0.92 && held.powered <= 0.98, `${held.powered}`)
  assert.ok(held.weighted >= 0.92 && held.weighted <= 0.98, `${held.weighted}`)
  assert.ok(held.judge < 0.05, 'the judge alone would have done')
  assert.ok(width.powered < 0.85 * width.people, 'the judge adds nothing')
})

test('the mean of the corrected rewards is the sum of the two parts, by hand', () => {
  const scores = [
    [0.9, 1],
    [0.8, 0],
    [0.2, 0],
    [0.5, Number.NaN],
    [0.7, Number.NaN],
  ] as const
  const sums = judgeSums()
  for (const [judge, human] of scores) addJudged(sums, judge, human)
  const rectifier = rectifierOf(sums)
  const [judgeMean, humanMean] = [1.9 / 3, 1 / 3]
  const covariance = 0.9 - 3 * judgeMean * humanMean
  const variance = 0.81 + 0.64 + 0.04 - 3 * judgeMean ** 2
  assert.ok(Math.abs(rectifier.lambda - Math.min(1, covariance / variance)) < 1e-12)
  assert.equal(rectifier.share, 0.6)
  const mean = scores.reduce((sum, [judge, human]) => sum + rectified(rectifier, judge, human), 0) / 5
  const { lambda } = rectifier
  assert.ok(Math.abs(mean - (lambda * (3.1 / 5) + humanMean - lambda * judgeMean)) < 1e-12)
})

test('a judge that knows nothing is ignored, sums merge, and one label is refused', () => {
  const random = seeded(seed)
  const [sums, other, whole] = [judgeSums(), judgeSums(), judgeSums()]
  for (let row = 0; row < 400; row++) {
    const [judge, human] = [0.25 + 0.5 * Number(row % 4 < 2), Number(row % 2)]
    addJudged(row < 100 ? sums : other, judge, human)
    addJudged(whole, judge, human)
  }
  mergeJudged(sums, other)
  assert.deepEqual(sums, whole)
  assert.equal(rectifierOf(sums).lambda, 0)
  const few = judgeSums()
  addJudged(few, 0.5, 1)
  for (let row = 0; row < 9; row++) addJudged(few, random(), Number.NaN)
  assert.throws(() => rectifierOf(few), /1 of 10 rows; it takes at least 2/)
})

test('a judge that is always wrong by the same amount is as good as people on every row', () => {
  const sums = judgeSums()
  for (let row = 0; row < 100; row++) addJudged(sums, row / 200, row % 10 === 0 ? row / 200 + 0.5 : Number.NaN)
  const rectifier = rectifierOf(sums)
  for (let row = 0; row < 100; row++) {
    const reward = rectified(rectifier, row / 200, row % 10 === 0 ? row / 200 + 0.5 : Number.NaN)
    assert.ok(Math.abs(reward - (row / 200 + 0.5)) < 1e-9, `row ${row}: ${reward}`)
  }
})
