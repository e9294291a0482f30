// The truth that the demo prints: equal to a plain average over every request, model and fallback.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { type Driven, type Known, overheadMsOf, truthOf, worthNames, worthOfPlan } from '../demo/truth.ts'
import { askedOf, durationOf, loadWorld, potential, targets } from '../demo/world.ts'
import { parsePolicy } from '../router/policy/policy.ts'
import { type Context, type DecisionRecord, decisionRecordSchema, recordOf } from '../router/policy/record.ts'

const seed = 3
const drawsPerRequest = 400
const world = await loadWorld()
const models = new Map(targets.map((target) => [target.model, target]))
const known: Known = {
  outcome: ({ question }, model) => potential(world, seed, question, models.get(model) as (typeof targets)[number]),
  costUsd: (_asked, _model, { outputTokens }) => outputTokens / 1e6,
  timeScale: 0.1,
  overheadMs: 0,
}
const types = { quality: 'double', cost_usd: 'double', error_rate: 'double' } as const
const read = (name: string) =>
  parsePolicy(readFileSync(new URL(`../demo/policies/${name}.yaml`, import.meta.url), 'utf8'), types, name)
const production = read('production')

const contextOfAsked = (asked: Driven['asked'], id: string): Context => ({
  id,
  time: '2026-11-01T08:00:00.000Z',
  session: asked.session,
  request: {
    model: 'auto',
    input_tokens: asked.contextTokens,
    output_tokens_max: null,
    stream: asked.stream,
    tier: '',
    tenant: '',
    user: id,
    tags: { category: asked.question.category },
  },
  candidates: targets.map(({ model, quality }, index) => ({
    model,
    features: {
      quality,
      cost_usd: 0.001 + index * 0.0003,
      error_rate: 0.1,
      breaker: asked.index % 7 === index ? 'open' : 'closed',
    },
  })),
})
const driven: Driven[] = askedOf(world, seed, 60).map((asked) => {
  const context = contextOfAsked(asked, `request-${asked.index}`)
  return { asked, record: decisionRecordSchema.parse(recordOf(context, production.decide(context))) }
})

test('the truth of a policy is the average of what its own draws come to', () => {
  for (const name of ['production', 'candidate-better', 'candidate-worse']) {
    const policy = read(name)
    const total = { cost_usd: 0, latency_ms: 0, quality: 0 }
    for (const { asked } of driven)
      for (let draw = 0; draw < drawsPerRequest; draw++) {
        const worth = worthOfPlan(
          known,
          asked,
          policy.decide(contextOfAsked(asked, `draw-${draw}-${asked.index}`)).plan,
        )
        for (const each of worthNames) total[each] += worth[each] / (driven.length * drawsPerRequest)
      }
    const truth = truthOf(known, driven, policy)
    for (const each of worthNames)
      assert.ok(
        Math.abs(truth[each] - total[each]) < 0.02 * truth[each],
        `${name} ${each}: ${truth[each]} by probabilities, ${total[each]} by draws`,
      )
  }
})

test('the policy in force needs no second decision: its recorded probabilities give the same truth', () => {
  assert.deepEqual(truthOf(known, driven, null), truthOf(known, driven, production))
})

test('walks the plan past failed calls, adds up their time and cost, and stops at a stream that broke off', () => {
  const bedrock = 'llama-3.1-70b-bedrock'
  const cuts = askedOf(world, seed, 2000).filter((asked) => {
    const { failure, outputTokens } = known.outcome(asked, bedrock)
    return failure === 'cut' && outputTokens > 0
  })
  const streamed = cuts.find(({ stream }) => stream) as Driven['asked']
  const whole = cuts.find(({ stream }) => !stream) as Driven['asked']
  const broken = worthOfPlan(known, streamed, [bedrock, 'llama-3.1-8b'])
  assert.deepEqual(broken, { ...worthOfPlan(known, streamed, [bedrock]), quality: 0 })
  const repaired = worthOfPlan(known, whole, [bedrock, 'llama-3.1-8b'])
  const second = known.outcome(whole, 'llama-3.1-8b')
  assert.equal(repaired.quality, second.correct ? 1 : 0)
  assert.equal(repaired.latency_ms, durationOf(known.outcome(whole, bedrock)) * 0.1 + durationOf(second) * 0.1)
  assert.deepEqual(worthOfPlan(known, whole, []), { cost_usd: 0, latency_ms: 0, quality: 0 })
})

test('the overhead is what was measured beyond the recorded delays', () => {
  const measured = driven.map(({ asked, record }): Driven => {
    const latency_ms = worthOfPlan(known, asked, record.plan).latency_ms + 3
    return { asked, record: { ...record, outcome: { latency_ms } as DecisionRecord['outcome'] } as DecisionRecord }
  })
  assert.ok(Math.abs(overheadMsOf(known, measured) - 3) < 1e-9)
})
