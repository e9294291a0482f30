// Ridge regression from sums: it must find what a dense solver finds, whichever way the sums were made, and on real latencies
// predict better than the mean of each model.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  addToRidge,
  dimensionMax,
  type Features,
  featuresOf,
  fitRidge,
  mergeRidge,
  predictRidge,
  type RidgeStatistics,
  ridgeLayout,
  ridgeStatistics,
  solveRidge,
  squaredError,
} from '../replay/estimate/ridge.ts'
import { prompts, seeded } from './replay-truth.ts'

const seed = Number(process.env.SEED ?? 7)
fc.configureGlobal({ seed })

type Sample = { readonly features: Features; readonly y: number; readonly weight: number }
const value = fc.double({ min: -2, max: 2, noNaN: true })
const sampleArbitrary = fc.record({
  features: fc
    .tuple(value, value, value)
    .map((values): Features => ({ indices: [0, 1, 2, 3], values: [1, ...values] })),
  y: value,
  weight: fc.double({ min: 0.1, max: 4, noNaN: true }),
})
const samplesArbitrary = fc.array(sampleArbitrary, { minLength: 1, maxLength: 30 })
const sumsOf = (samples: readonly Sample[], dimension = 4): RidgeStatistics => {
  const sums = ridgeStatistics(dimension)
  for (const { features, y, weight } of samples) addToRidge(sums, features, y, weight)
  return sums
}

test('the gradient of the penalised squares vanishes at the solution', () => {
  fc.assert(
    fc.property(samplesArbitrary, fc.constantFrom(0.1, 1, 100), (samples, lambda) => {
      const beta = solveRidge(sumsOf(samples), lambda)
      for (let j = 0; j < 4; j++) {
        let gradient = j === 0 ? 0 : lambda * (beta[j] ?? 0)
        for (const { features, y, weight } of samples)
          gradient -= weight * (features.values[j] ?? 0) * (y - predictRidge(beta, features))
        assert.ok(Math.abs(gradient) < 1e-8, `${gradient}`)
      }
    }),
  )
})

test('the squared error from sums is that of the rows, and merging, and taking away, equals adding all', () => {
  fc.assert(
    fc.property(samplesArbitrary, samplesArbitrary, (some, more) => {
      const merged = sumsOf(some)
      mergeRidge(merged, sumsOf(more))
      const beta = solveRidge(merged, 1)
      for (const [at, coefficient] of solveRidge(sumsOf([...some, ...more]), 1).entries())
        assert.ok(Math.abs(coefficient - (beta[at] ?? 0)) < 1e-9)
      const error = [...some, ...more].reduce(
        (sum, { features, y, weight }) => sum + weight * (y - predictRidge(beta, features)) ** 2,
        0,
      )
      assert.ok(Math.abs(squaredError(merged, beta) - error) < 1e-8)
      mergeRidge(merged, sumsOf(more), -1)
      for (const [at, coefficient] of solveRidge(sumsOf(some), 1).entries())
        assert.ok(Math.abs(coefficient - (solveRidge(merged, 1)[at] ?? 0)) < 1e-8)
    }),
  )
})

test('a feature that never varied gets no coefficient, and too many features are refused', () => {
  const samples = [1, 2, 3].map((y): Sample => ({ features: { indices: [0, 2], values: [1, y] }, y, weight: 1 }))
  const beta = solveRidge(sumsOf(samples, 3), 0)
  assert.equal(beta[1], 0)
  assert.ok(Math.abs(predictRidge(beta, { indices: [0, 2], values: [1, 5] }) - 5) < 1e-9)
  assert.throws(() => ridgeStatistics(201), /201 features; it takes 1 to 200/)
  assert.equal(ridgeLayout(90, [10, 20, 5]).segmentsFrom.length, 1)
  assert.ok(ridgeLayout(90, [10, 20, 5]).dimension <= dimensionMax)
})

test('on MMLU-Pro it predicts latency and quality of prompts it was not shown better than the mean of each model', (t) => {
  const categories = [...new Set(prompts.map(({ category }) => category))]
  const models = [...(prompts[0]?.outcomes.keys() ?? [])]
  const errorsOf = (counts: readonly number[], hasLength: boolean, read: 'latency_ms' | 'quality') => {
    const random = seeded(seed)
    const layout = ridgeLayout(models.length, counts)
    const folds = Array.from({ length: 5 }, () => ridgeStatistics(layout.dimension))
    for (const [row, prompt] of prompts.entries()) {
      const arm = Math.floor(random() * models.length)
      const y = prompt.outcomes.get(models[arm] ?? '')?.[read] ?? 0
      const features = featuresOf(layout, arm, hasLength ? prompt.tokens : 400, [categories.indexOf(prompt.category)])
      addToRidge(folds[row % 5] as RidgeStatistics, features, y, 1)
    }
    return fitRidge(folds)
  }
  for (const read of ['latency_ms', 'quality'] as const) {
    const [plain, full] = [errorsOf([], false, read), errorsOf([categories.length], true, read)]
    t.diagnostic(
      `${read}: mean squared error ${full.meanSquaredError.toPrecision(4)} at λ ${full.lambda}, of models' means ${plain.meanSquaredError.toPrecision(4)}`,
    )
    assert.ok(full.meanSquaredError < 0.97 * plain.meanSquaredError)
  }
})

test('λ grows when the features are noise, and a strong signal is kept', () => {
  const random = seeded(seed)
  const fit = (signal: number) => {
    const folds = Array.from({ length: 5 }, () => ridgeStatistics(21))
    for (let row = 0; row < 200; row++) {
      const values = [1, ...Array.from({ length: 20 }, () => random() * 2 - 1)]
      const features = { indices: values.map((_, at) => at), values }
      addToRidge(folds[row % 5] as RidgeStatistics, features, signal * (values[1] ?? 0) + random(), 1)
    }
    return fitRidge(folds)
  }
  const [noise, strong] = [fit(0), fit(3)]
  assert.ok(noise.lambda >= 100, `λ ${noise.lambda}`)
  assert.ok(strong.lambda <= 1 && Math.abs((strong.coefficients[0]?.[1] ?? 0) - 3) < 0.2, `λ ${strong.lambda}`)
})
