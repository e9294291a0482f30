// The statistics of re-execution: that the sample's probabilities are what they are said to be, that its estimates are right on
// traffic with known truth, and that asking goes where it tells most per dollar.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type Ask, affordable, forecast, frameOf, type PlanOptions, precise } from '../replay/reexec/plan.ts'
import { type TwoPhaseRow, twoPhase } from '../replay/reexec/two-phase.ts'
import { parsePolicy } from '../router/policy/policy.ts'
import type { DecisionRecord } from '../router/policy/record.ts'
import { logFor } from './reexec-stage.ts'
import { drawPrompt, type Prompt, recordFor, seeded, truthFeatures, truthOf } from './replay-truth.ts'
import { allB } from './replay-two-models.ts'

const seed = Number(process.env.SEED ?? 7)
const everyPrice = new Map(
  [
    'gemma-7b',
    'Phi-3-mini-4k-instruct',
    'Meta-Llama-3_1-8B-Instruct',
    'Meta-Llama-3_1-70B-Instruct',
    'gemini-1.5-pro-002',
  ].map((model) => [model, { input: 0, output: 1 }] as const),
)
const options: PlanOptions = { seed, prices: everyPrice, judge: null, tenantsMax: Infinity }

const production = parsePolicy('name: p\nscore: candidate.rank\nchoose: {kind: highest}', truthFeatures)
// What production never does: without asking, nothing at all is known.
const candidate = parsePolicy(
  `name: c\nrules:\n  - {name: short, when: request.input_tokens < 60.0, use: {score: 'candidate.rank == 3.0 ? 1.0 : 0.0', choose: {kind: highest}}}\n  - {name: long, when: request.input_tokens > 150.0, use: {score: 'candidate.rank == 0.0 ? 1.0 : 0.0', choose: {kind: highest}}}\n  - {name: rest, use: {score: candidate.rank, choose: {kind: highest}}}`,
  truthFeatures,
)
const quality = (prompt: Prompt | undefined, model: string | null) => prompt?.outcomes.get(model ?? '')?.quality ?? 0

const drawn = (rows: number, random: () => number, policy = production) => {
  const prompts = Array.from({ length: rows }, () => drawPrompt(random))
  return { prompts, records: prompts.map((prompt, at) => recordFor(prompt, policy, `d-${at}`)) }
}
const costs = (asks: readonly Ask[]) => asks.reduce((sum, { costUsd }) => sum + costUsd, 0)
const asked = ({ priority }: Ask, threshold: number) => priority < threshold
const probabilityOf = ({ importance }: Ask, threshold: number) => Math.min(1, threshold * importance)

// Over 400 seeds the mean of the totals lies within 4 standard errors of the truth but for 1 seed in 16,000.
test(`the known probabilities are true: Horvitz–Thompson totals over 400 draws average the total (seed ${seed})`, () => {
  const { prompts, records } = drawn(400, seeded(seed))
  const byId = new Map(records.map(({ id }, at) => [id, prompts[at]]))
  const totals: number[] = []
  let truth = 0
  for (let draw = 0; draw < 400; draw++) {
    const frame = frameOf(records, candidate, null, { ...options, seed: seed * 1000 + draw })
    const { threshold, answers } = affordable(frame, costs(frame.asks) / 3, Infinity)
    assert.ok(answers < frame.asks.length / 1.5)
    const value = (ask: Ask) => quality(byId.get(ask.record.id), ask.model)
    truth = frame.asks.reduce((sum, ask) => sum + value(ask), 0)
    totals.push(
      frame.asks.reduce(
        (sum, ask) => sum + (asked(ask, threshold) ? value(ask) / probabilityOf(ask, threshold) : 0),
        0,
      ),
    )
  }
  const mean = totals.reduce((sum, total) => sum + total, 0) / totals.length
  const sd = Math.sqrt(totals.reduce((sum, total) => sum + (total - mean) ** 2, 0) / totals.length)
  assert.ok(Math.abs(mean - truth) < (4 * sd) / Math.sqrt(totals.length), `${mean} ± ${sd / 20}, truth ${truth}`)
  assert.ok(sd > 0)
})

// A run that stops at the k-th answer knows its probabilities from the next priority (Duffield, Lund & Thorup 2007).
test(`wherever asking stops, the next in order tells the probabilities (400 draws, seed ${seed})`, () => {
  const { records } = drawn(300, seeded(seed + 1))
  const totals: number[] = []
  let count = 0
  for (let draw = 0; draw < 400; draw++) {
    const { asks } = frameOf(records, candidate, null, { ...options, seed: seed * 2000 + draw })
    count = asks.length
    const threshold = asks[40]?.priority ?? 0
    totals.push(asks.slice(0, 40).reduce((sum, ask) => sum + 1 / probabilityOf(ask, threshold), 0))
  }
  const mean = totals.reduce((sum, total) => sum + total, 0) / totals.length
  const sd = Math.sqrt(totals.reduce((sum, total) => sum + (total - mean) ** 2, 0) / totals.length)
  assert.ok(Math.abs(mean - count) < (4 * sd) / Math.sqrt(totals.length), `${mean} ± ${sd / 20}, truth ${count}`)
})

const rowsOf = (
  records: readonly DecisionRecord[],
  prompts: readonly Prompt[],
  budgetShare: number,
  drawSeed: number,
) => {
  const frame = frameOf(records, candidate, null, { ...options, seed: drawSeed })
  const { threshold, halfWidth } = affordable(frame, costs(frame.asks) * budgetShare, Infinity)
  const byId = new Map(frame.asks.map((ask) => [ask.record.id, ask]))
  const rows = records.map(({ id, chosen }, row): TwoPhaseRow => {
    const ask = byId.get(id)
    // Deliberately wrong by a constant: doubly robust means that it must not matter.
    const fitted = 0.5
    const reward = quality(prompts[row], chosen)
    const second = ask
      ? {
          probability: probabilityOf(ask, threshold),
          included: asked(ask, threshold),
          reward: quality(prompts[row], ask.model),
          fitted,
        }
      : { probability: 1, included: true, reward, fitted }
    return {
      cluster: row,
      keepWeight: 1,
      reward,
      weight: Number.NaN,
      fitted,
      fittedCandidate: fitted,
      fittedProduction: fitted,
      unsupported: 0,
      fittedUnsupported: 0,
      second,
    }
  })
  return { rows, halfWidth }
}

const exploring = parsePolicy(
  'name: p\nscore: candidate.rank\nchoose: {kind: highest}\nexplore: {rate: 0.6}',
  truthFeatures,
)

// With true coverage 95 %, the share of 300 lies outside [91.5 %, 98 %] once in 100 seeds; four shares are looked at.
for (const [policy, how] of [
  [production, 'never explored'],
  [exploring, 'explored, and its lucky choices are reused'],
] as const)
  test(`on MMLU-Pro two-phase intervals hold the truth where production ${how} (300 logs, seed ${seed})`, (t) => {
    const truth = truthOf(candidate, ({ quality }) => quality ?? 0)
    const before = truthOf(policy, ({ quality }) => quality ?? 0)
    const random = seeded(seed)
    let [held, heldDifference, width, planned] = [0, 0, 0, 0]
    for (let log = 0; log < 300; log++) {
      const { prompts, records } = drawn(500, random, policy)
      const { rows, halfWidth } = rowsOf(records, prompts, 0.3, seed * 3000 + log)
      const { candidate: value, difference, ends } = twoPhase(rows)
      held += Number(value.low <= truth && truth <= value.high)
      heldDifference += Number(difference.low <= truth - before && truth - before <= difference.high)
      width += (difference.high - difference.low) / 2 / 300
      planned += halfWidth / 300
      assert.deepEqual([ends.low.value, ends.high.value], [difference.value, difference.value])
    }
    t.diagnostic(`value ${held / 300}, difference ${heldDifference / 300}; half-width ${width}, planned ${planned}`)
    for (const coverage of [held / 300, heldDifference / 300])
      assert.ok(coverage >= 0.915 && coverage <= 0.98, `covered ${coverage}`)
    assert.ok(Math.abs(width / planned - 1) < 0.2, `half-width ${width}, planned ${planned}`)
  })

test('what could not be asked or judged may have been anything: the ends of the difference say so', () => {
  const { prompts, records } = drawn(200, seeded(seed))
  const { rows } = rowsOf(records, prompts, 2, seed)
  const unknown = rows.map((row, at) => (at % 10 ? row : { ...row, second: { ...row.second, reward: Number.NaN } }))
  const unasked = rows.map((row, at) =>
    at % 10 ? row : { ...row, second: { ...row.second, probability: 0, included: false } },
  )
  for (const some of [unknown, unasked]) {
    const { ends } = twoPhase(some)
    assert.ok(Math.abs(ends.high.value - ends.low.value - 0.1) < 1e-9)
    const { difference } = twoPhase(rows)
    assert.ok(ends.low.value <= difference.value && difference.value <= ends.high.value)
  }
})

test('asks more where outcomes spread more and where asking is cheap, and never beyond certainty', () => {
  const { records } = drawn(1000, seeded(seed))
  const { asks } = frameOf(records, candidate, null, options)
  for (const { importance, sd, costUsd } of asks) assert.equal(importance, sd / Math.sqrt(costUsd))
  fc.assert(
    fc.property(fc.double({ min: 0.01, max: 2, noNaN: true }), (share) => {
      const frame = frameOf(records, candidate, null, options)
      const plan = affordable(frame, costs(frame.asks) * share, Infinity)
      assert.ok(plan.usd <= 0.9 * costs(frame.asks) * share + 1e-12)
      assert.ok(plan.answers <= asks.length)
      if (share > 1.12) assert.equal(Math.round(plan.answers), asks.length)
    }),
    { seed, numRuns: 20 },
  )
})

test('the plan for a precision keeps it, with as few answers as it takes', () => {
  const { records } = drawn(2000, seeded(seed))
  const frame = frameOf(records, candidate, null, options)
  const least = forecast(frame, Infinity).halfWidth
  const plan = precise(frame, least * 1.5)
  assert.ok(Math.abs(plan.halfWidth / (least * 1.5) - 1) < 1e-6)
  assert.ok(plan.answers < frame.asks.length)
  assert.equal(precise(frame, least / 2).answers, frame.asks.length, 'asking everything is the most there is')
})

test('what has no payload, no price or no eligible model is said to be unasked, and tenants are drawn with known chance', () => {
  const records = logFor(40, 10)
  const bare = records.map((record, at) =>
    at === 1 ? { ...record, candidates: record.candidates.map((c) => ({ ...c, features: { cost_usd: 1 } })) } : record,
  )
  const note = { at: 0, bytes: 1, inputTokensMax: 1, outputTokensMax: 1, hasResponse: false }
  const plan = (tenantsMax: number) =>
    frameOf(bare, allB, (id) => (id === 'd-0' ? undefined : note), { ...options, prices: new Map(), tenantsMax })
  assert.deepEqual(
    plan(Infinity).unasked.map(({ id, reason }) => [id, reason]),
    [
      ['d-0', 'no-payload'],
      ['d-1', 'unpriced'],
    ],
  )
  assert.deepEqual([plan(Infinity).asks.length, plan(Infinity).changed], [38, 40])
  const some = plan(3)
  assert.equal(some.tenantShare, 0.3)
  assert.equal(new Set(some.asks.map(({ record }) => record.request.tenant)).size, 3)
  assert.notEqual(some.digest, plan(4).digest)
})
