// Which outcome model is used is decided by how well each predicts what it was not shown: where few rows must say much, the
// linear one; where models differ from segment to segment, the means. The choice shortens intervals and keeps their promise.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { metricNames } from '../replay/estimate/metrics.ts'
import { startCells } from '../replay/estimate/outcome-cells.ts'
import { fitLinear, fitMeans, fitOutcome, predictorOf } from '../replay/estimate/outcome-model.ts'
import { startGathering } from '../replay/redecide/gather.ts'
import type { Survey } from '../replay/redecide/survey.ts'
import { shelve } from '../replay/redecide/verify.ts'
import { appraise, replay, replayDefaults, surveyOf } from '../replay/run.ts'
import { parsePolicy } from '../router/policy/policy.ts'
import { type Context, type DecisionRecord, recordOf } from '../router/policy/record.ts'
import { seeded } from './replay-truth.ts'

const seed = Number(process.env.SEED ?? 7)
const quick = { ...replayDefaults, replicates: 0 }
const models = ['a', 'b', 'c', 'd']
const categories = 24
const features = { rank: 'double' } as const
const production = parsePolicy(
  'name: p\nscore: candidate.rank\nchoose: {kind: highest}\nexplore: {rate: 0.8}',
  features,
)
const candidate = parsePolicy("name: c\nscore: 'candidate.rank == 1.0 ? 1.0 : 0.0'\nchoose: {kind: highest}", features)

/** What a model's answer costs, before noise, in thousandths of a dollar. */
type World = (rank: number, tokens: number, category: number) => number
/** Every model has a price per octave of input, and every category its own length of answers. */
const linear: World = (rank, tokens, category) => 2 + (rank + 1) * Math.log1p(tokens) + 3 * Math.sin(7 * category)
/** Every model has categories of its own at which it is dear. */
const crossed: World = (rank, _, category) => 10 + 6 * ((category * (rank + 2)) % 4)

const logOf = (world: World, rows: number, random: () => number): DecisionRecord[] =>
  Array.from({ length: rows }, (_, at) => {
    const tokens = Math.round(8 * 2 ** (8 * random()))
    const category = Math.floor(categories * random())
    const context: Context = {
      id: `d-${at}-${random()}`,
      time: new Date(Date.UTC(2026, 10, 1, 0, at)).toISOString(),
      session: '',
      request: {
        model: 'auto',
        input_tokens: tokens,
        output_tokens_max: null,
        stream: false,
        tier: '',
        tenant: '',
        user: '',
        tags: { category: `c${category}` },
      },
      candidates: models.map((model, rank) => ({ model, features: { rank } })),
    }
    const decision = production.decide(context)
    const usd = (world(models.indexOf(decision.chosen ?? ''), tokens, category) + 2 * random()) / 1000
    return recordOf(context, decision, {
      status: 'ok',
      served: decision.chosen,
      attempts: 1,
      http_status: 200,
      error_type: null,
      cost_usd: usd,
      cost_source: 'measured',
      latency_ms: 900,
      ttft_ms: null,
      input_tokens: null,
      output_tokens: null,
      tokens_source: 'measured',
      stream_end: null,
      quality: null,
    })
  })

const cost = metricNames.indexOf('cost_usd')

/** The width of the interval of the difference in cost, had one of the two models been used. */
const widthWith = (survey: Survey, records: readonly DecisionRecord[], fit: typeof fitMeans): number => {
  const extent = survey.outcomeFits[cost]?.extent
  assert.ok(extent)
  const outcomeFits = survey.outcomeFits.map((of, metric) => (metric === cost ? fit(survey.cells, cost, extent) : of))
  const forced = { ...survey, outcomeFits }
  const gathering = startGathering(forced, shelve([production], survey.features), [candidate])
  for (const record of records) gathering.add(record)
  const { low, high } = appraise(forced, gathering.close(), 0, candidate, quick).metrics[cost]?.difference ?? {
    low: Number.NaN,
    high: Number.NaN,
  }
  return high - low
}

test('where models are linear in length, ridge is chosen, says how well it predicts, and the interval is shorter', () => {
  const records = logOf(linear, 600, seeded(seed))
  const survey = surveyOf(records, [production], quick)
  const { outcomeModels } = replay(records, [production], candidate, quick)
  const chosen = outcomeModels.cost_usd
  assert.equal(chosen?.kind, 'ridge')
  assert.ok((chosen.r2 ?? 0) > 0.9, `R² ${chosen.r2}`)
  assert.equal(outcomeModels.quality, null)
  assert.deepEqual(outcomeModels.latency_ms, { kind: 'means', r2: null }, 'every latency is the same')
  const linearFit = (...given: Parameters<typeof fitMeans>) => fitLinear(...given) as ReturnType<typeof fitMeans>
  const [means, ridge] = [fitMeans, linearFit].map((fit) => widthWith(survey, records, fit)) as [number, number]
  assert.ok(ridge < 0.85 * means, `ridge ${ridge}, means ${means}`)
})

test('where models differ from segment to segment, the means are chosen', () => {
  const records = logOf(crossed, 3000, seeded(seed))
  const { outcomeModels } = replay(records, [production], candidate, quick)
  assert.equal(outcomeModels.cost_usd?.kind, 'means')
  assert.ok((outcomeModels.cost_usd?.r2 ?? 0) > 0.8, `R² ${outcomeModels.cost_usd?.r2}`)
})

test('an R² is that of predicting each fold without it, row by row', () => {
  const random = seeded(seed)
  const cells = startCells(1)
  const extent = { arms: 2, octaves: 8, kinds: 3 }
  const rows = Array.from({ length: 400 }, () => {
    const [fold, arm, octave, kind] = [5, 2, 8, 3].map((count) => Math.floor(count * random()))
    const cell = { fold: fold ?? 0, arm: arm ?? 0, octave: octave ?? 0, kind: kind ?? 0 }
    return { cell, k: 1 + random(), r: cell.arm * cell.octave + cell.kind + random() }
  })
  for (const { cell, k, r } of rows) cells.add(cell, k, Float64Array.of(r))
  const table = cells.close()
  const total = rows.reduce((sum, { k }) => sum + k, 0)
  const mean = rows.reduce((sum, { k, r }) => sum + k * r, 0) / total
  for (const fit of [fitMeans(table, 0, extent), fitLinear(table, 0, extent)]) {
    assert.ok(fit)
    const q = predictorOf(fit)
    let [error, spread] = [0, 0]
    for (const { cell, k, r } of rows) {
      error += k * (r - q(cell.fold, cell.arm, cell.octave, cell.kind)) ** 2
      spread += k * (r - mean) ** 2
    }
    assert.ok(Math.abs((fit.r2 ?? 0) - (1 - error / spread)) < 1e-9, `${fit.kind}: ${fit.r2}`)
  }
})

test('a model that was never drawn is expected to be like the rest, whichever way it is fitted', () => {
  const random = seeded(seed)
  const cells = startCells(1)
  let sum = 0
  for (let row = 0; row < 1000; row++) {
    const octave = 4 + Math.floor(4 * random())
    sum += octave
    cells.add({ fold: row % 5, arm: 0, octave, kind: 0 }, 1, Float64Array.of(octave))
  }
  const table = cells.close()
  const extent = { arms: 2, octaves: 8, kinds: 1 }
  for (const fit of [fitMeans(table, 0, extent), fitLinear(table, 0, extent)]) {
    assert.ok(fit)
    const q = predictorOf(fit)
    assert.ok(Math.abs(q(0, 1, 7, 0) - sum / 1000) < 0.1, `${fit.kind}: ${q(0, 1, 7, 0)}, mean ${sum / 1000}`)
  }
})

test('a log of more models than a regression can tell apart is modelled by means', () => {
  const cells = startCells(1)
  for (let row = 0; row < 500; row++)
    cells.add({ fold: row % 5, arm: row % 120, octave: row % 7, kind: 0 }, 1, Float64Array.of((row % 120) * (row % 7)))
  assert.equal(fitOutcome(cells.close(), 0, { arms: 120, octaves: 8, kinds: 1 })?.kind, 'means')
})

// With true coverage 95 %, fewer than 70 of 80 repetitions hold with probability 0.3 % (binomial).
test(`with the chosen model the interval holds the true difference in at least 70 of 80 logs (seed ${seed})`, () => {
  const random = seeded(seed)
  const expected = (rank: number): number => {
    let sum = 0
    const steps = 4000
    for (let step = 0; step < steps; step++)
      for (let category = 0; category < categories; category++)
        sum += linear(rank, Math.round(8 * 2 ** ((8 * (step + 0.5)) / steps)), category) / 1000
    return sum / steps / categories
  }
  const values = models.map((_, rank) => expected(rank))
  const { candidates } = production.decide(logOf(linear, 1, random)[0] as DecisionRecord)
  const logged = candidates.reduce((sum, { probability }, rank) => sum + probability * (values[rank] as number), 0)
  const truth = (values[1] as number) - logged
  let held = 0
  for (let repetition = 0; repetition < 80; repetition++) {
    const { metrics, outcomeModels } = replay(logOf(linear, 400, random), [], candidate, quick)
    assert.equal(outcomeModels.cost_usd?.kind, 'ridge')
    const { low, high } = metrics[cost]?.difference ?? { low: Number.NaN, high: Number.NaN }
    held += Number(low <= truth && truth <= high)
  }
  assert.ok(held >= 70, `held ${held} of 80`)
})
