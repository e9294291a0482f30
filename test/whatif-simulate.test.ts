// The simulation by its laws, whatever the scenario, and by how production comes out when nothing is different.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import type { Part } from '../replay/whatif/scenario.ts'
import { calibrate } from '../replay/whatif/summary.ts'
import { whatIf } from '../replay/whatif/whatif.ts'
import type { DecisionRecord } from '../router/policy/record.ts'
import { liveliestPolicy, weightedPolicy } from './whatif-log.ts'
import { dearer, liveliest, ofWeighted, outage, run, weighted } from './whatif-stage.ts'

const anyPart: fc.Arbitrary<Part> = fc.oneof(
  fc.constantFrom('small', 'medium', 'large').map((model) => outage(weighted, model)),
  fc.record({ small: fc.double({ min: 0, max: 4, noNaN: true }) }).map(dearer),
  fc.record({
    kind: fc.constant('ratelimit' as const),
    model: fc.constant('small'),
    rpm: fc.integer({ min: 1, max: 300 }),
  }),
  fc.record({
    kind: fc.constant('ratelimit' as const),
    model: fc.constant('medium'),
    concurrency: fc.integer({ min: 1, max: 5 }),
  }),
  fc.record({ kind: fc.constant('retire' as const), model: fc.constant('medium') }),
  fc.constant<Part>({ kind: 'retire', model: 'large', successor: 'small' }),
  fc.record({
    kind: fc.constant('traffic' as const),
    scale: fc.double({ min: 0.2, max: 2, noNaN: true }),
    mix: fc.constant({}),
  }),
)
const fewParts = fc.uniqueArray(anyPart, {
  maxLength: 4,
  selector: (part) => JSON.stringify([part.kind, 'model' in part && part.model]),
})
const few = weighted.slice(0, 200)

describe('the laws', () => {
  test('every arrival leaves once, no sooner than it came, by a target of its plan', () => {
    fc.assert(
      fc.property(fewParts, fc.string(), (parts, seed) => {
        const { requests, whatIf: result } = run(few, weightedPolicy, parts, { seed })
        assert.equal(new Set(requests.map(({ arrival }) => arrival.id)).size, requests.length)
        assert.equal(result.firstOrder.requests, requests.length)
        assert.equal(result.production.requests, few.length)
        for (const { arrival, startMs, latencyMs, ttftMs, attempts, route, status, target } of requests) {
          assert.ok(startMs === arrival.atMs && latencyMs >= 0 && (ttftMs ?? 0) <= latencyMs + 1e-6)
          assert.ok(attempts <= route.plan.length)
          assert.equal(target === null, status === 'no-candidate')
        }
      }),
      { numRuns: 25 },
    )
  })

  test('with nothing different and no state read, every decision comes out as logged', () => {
    const { requests } = ofWeighted()
    assert.equal(requests.length, weighted.length)
    for (const { arrival, route } of requests) {
      assert.equal(route.chosen, arrival.record.chosen)
      assert.deepEqual(route.plan, arrival.record.plan)
    }
  })

  test('with nothing different, a request fails as it failed and costs to the cent what it cost', () => {
    const { requests } = ofWeighted()
    for (const { arrival, costUsd, target, attempts } of requests) {
      const { outcome } = arrival.record
      assert.deepEqual([target, attempts], [outcome?.served, outcome?.attempts])
      assert.ok(Math.abs((costUsd ?? 0) - (outcome?.cost_usd ?? 0)) < 1e-12)
    }
  })

  test('a dearer model never makes unchanged routing cheaper', () => {
    fc.assert(
      fc.property(
        fc.constantFrom('small', 'medium', 'large'),
        fc.double({ min: 1, max: 5, noNaN: true }),
        (model, factor) => {
          const { firstOrder, production } = run(few, weightedPolicy, [dearer({ [model]: factor })]).whatIf
          assert.ok(firstOrder.costUsd >= production.costUsd - 1e-12)
        },
      ),
      { numRuns: 15 },
    )
  })

  test('the order of parts does not matter', () => {
    fc.assert(
      fc.property(fewParts, (parts) => {
        const { scenario: _, ...there } = run(few, weightedPolicy, parts).whatIf
        const { scenario: __, ...back } = run(few, weightedPolicy, parts.toReversed()).whatIf
        assert.deepEqual(there, back)
      }),
      { numRuns: 15 },
    )
  })

  test('the same seed gives the same bytes, another seed others', () => {
    const bytes = (seed: string) => JSON.stringify(run(few, weightedPolicy, [outage(few)], { seed }).whatIf.simulated)
    assert.equal(bytes('1'), bytes('1'))
    assert.notEqual(bytes('1'), bytes('2'))
  })
})

describe('calibration', () => {
  test('production simulated by itself comes out as logged, with and without state in the policy', () => {
    for (const [records, policy] of [
      [weighted, weightedPolicy],
      [liveliest, liveliestPolicy],
    ] as const) {
      const { calibration, production, logged } = run(records, policy, []).whatIf
      assert.ok(calibration.calibrated, JSON.stringify(calibration.checks))
      assert.equal(calibration.checks.length, 6)
      assert.ok(calibration.sameChoiceShare > 0.95)
      assert.ok(Math.abs(production.costUsd / logged.costUsd - 1) < 0.02)
    }
  })

  test('says uncalibrated when a quantile is more than 5 % off, or too few requests were answered', () => {
    const { requests, whatIf: result } = ofWeighted()
    const { p95, ...others } = result.logged.latencyMs
    const { calibrated, checks } = calibrate(
      { ...result.logged, latencyMs: { ...others, p95: (p95 ?? 0) * 1.07 } },
      requests,
    )
    assert.equal(calibrated, false)
    assert.deepEqual(
      checks.filter(({ ok }) => !ok).map(({ figure }) => figure),
      ['latency p95'],
    )
    assert.equal(run(weighted.slice(0, 90), weightedPolicy, []).whatIf.calibration.calibrated, false)
  })

  test('refuses records that do not reproduce, and asks for a policy it does not have', () => {
    const [first, ...rest] = weighted as [DecisionRecord, ...DecisionRecord[]]
    const other = first.candidates.find(({ model }) => model !== first.chosen)?.model as string
    assert.throws(() => run([{ ...first, chosen: other }, ...rest], weightedPolicy, []), {
      code: 'record-invalid',
      message: /1 of 1500 come out differently/,
    })
    assert.throws(() => whatIf(weighted, [], { parts: [], policy: null, seed: '1', sloMs: null }), {
      message: /1500 of 1500 .*policy-missing: weighted.*--logged-policy/,
    })
    const candidate = { parts: [], policy: liveliestPolicy, seed: '1', sloMs: null }
    assert.equal(
      whatIf(weighted, [], candidate).whatIf.calibration.sameChoiceShare,
      1,
      'as logged, when a candidate is given',
    )
  })
})
