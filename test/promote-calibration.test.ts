// Predictions beside what came of them, the policy of a canary, and the way back: the small parts of a promotion, each by the
// law it must keep.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { calibrationOf, calibrationText } from '../replay/promote/calibration.ts'
import { calibrationHtml } from '../replay/promote/calibration-page.ts'
import { parseGate } from '../replay/promote/gate-file.ts'
import { canaryOf, enter, type Promotion, promotionSchema, promotionToAttributes } from '../replay/promote/promotion.ts'
import { parsePolicy, policyText } from '../router/policy/policy.ts'
import { promotionNames } from '../router/policy/promotion.ts'
import { seeded } from './replay-truth.ts'

const random = seeded(Number(process.env.SEED ?? 7))
const normal = (): number => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random())

const production = policyText('name: prod\nchoose: { kind: weighted, weights: { a: 3, b: 1 } }', 'prod')
const candidate = policyText('name: cand\nchoose: { kind: weighted, weights: { b: 1, c: 1 } }', 'cand')
const promotion: Promotion = {
  ...{ v: 1, id: 'p-1', seq: 1, state: 'canary', cause: 'gate', reason: 'because' },
  ...{ started_at: '2026-11-01T00:00:00.000Z', changed_at: '2026-11-01T00:00:00.000Z', replay_id: 'r-1' },
  ...{ production, candidate, canary: canaryOf(production, candidate, 0.1), share: 0.1 },
  ...{ gate: parseGate(''), predicted: [], realised: null },
}

/** A promotion of which quality was predicted, and realised, with a normal error around the truth; `bias` is the predictor's own. */
const promoted = (id: number, bias = 0): Promotion => {
  const [se, seRealised, truth] = [0.01 * (1 + random()), 0.01 * (1 + random()), normal() * 0.1]
  const value = truth + bias + normal() * se
  const realised = truth + normal() * seRealised
  return {
    ...promotion,
    id: `p-${id}`,
    predicted: [{ metric: 'quality', value, low: value - 1.96 * se, high: value + 1.96 * se }],
    realised: [{ metric: 'quality', value: realised, low: realised - 0.1, high: realised + 0.1, se: seRealised }],
  }
}

describe('calibration', () => {
  // 2,000 promotions: at a true share of 95 % the observed one leaves 92.5 to 97.5 % in fewer than one seed in a million.
  test('counts 95 % of honest predictions as held, whatever their errors, and fewer of biased ones', () => {
    const honest = calibrationOf(Array.from({ length: 2000 }, (_, at) => promoted(at)))
    const share = honest.held.count / honest.held.of
    assert.ok(share > 0.925 && share < 0.975, `${share}`)
    assert.ok(honest.inside.count < honest.held.count, 'the realised value has an error of its own')
    const biased = calibrationOf(Array.from({ length: 200 }, (_, at) => promoted(at, 0.05)))
    assert.ok(biased.held.high < 0.8, `${biased.held.high}`)
  })

  test('leaves out promotions of which nothing is realised, and says so when there are no others', () => {
    const empty = calibrationOf([promotion])
    assert.deepEqual([empty.promotions, empty.comparisons.length], [0, 0])
    assert.match(calibrationText(empty), /^No promotion has a realised change yet/)
    assert.match(calibrationHtml(empty), /No promotion has a realised change yet/)
  })

  test('draws a page that a policy’s name cannot break', () => {
    const hostile = { ...promoted(1), candidate: { ...candidate, name: '<script>alert(1)</script>' } }
    const html = calibrationHtml(calibrationOf([hostile]))
    assert.doesNotMatch(html, /<script>alert/)
    assert.match(html, /<svg/)
  })
})

describe('the policy of a canary', () => {
  const types = {}
  const canary = parsePolicy(promotion.canary.source, types)
  const [before, after] = [parsePolicy(production.source, types), parsePolicy(candidate.source, types)]
  const contextOf = (id: string, session: string) => ({
    ...{ id, session, time: '2026-11-01T00:00:00.000Z' },
    request: {
      ...{ model: 'auto', input_tokens: 1, output_tokens_max: null, stream: false },
      tier: '',
      tenant: '',
      user: '',
      tags: {},
    },
    candidates: ['a', 'b', 'c'].map((model) => ({ model, features: {} })),
  })

  test('mixes the probabilities of both by their shares, and sends a session one way', () => {
    fc.assert(
      fc.property(fc.uuid(), fc.uuid(), fc.uuid(), (session, id, other) => {
        const decision = canary.decide(contextOf(id, session))
        const [old, young] = [before.decide(contextOf(id, session)), after.decide(contextOf(id, session))]
        for (const [at, { probability }] of decision.candidates.entries()) {
          const mixed = 0.9 * (old.candidates[at]?.probability ?? 0) + 0.1 * (young.candidates[at]?.probability ?? 0)
          assert.ok(Math.abs(probability - mixed) < 1e-12)
        }
        assert.equal(canary.decide(contextOf(other, session)).path[0], decision.path[0])
      }),
    )
  })

  test('has the hash that the router will find', () => {
    assert.deepEqual([canary.hash, canary.name], [promotion.canary.hash, 'prod-canary-cand'])
  })
})

describe('a promotion’s state', () => {
  test('goes through its span unchanged, and the next one counts on', () => {
    const next = enter(promotion, 'completing', { cause: 'shown', reason: 'all is shown' }, 1)
    assert.equal(next.seq, promotion.seq + 1)
    const { [promotionNames.promotion]: json, [promotionNames.promotionSeq]: seq } = promotionToAttributes(next)
    assert.deepEqual(promotionSchema.parse(JSON.parse(String(json))), next)
    assert.equal(seq, 2)
  })
})
