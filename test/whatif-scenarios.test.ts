// Each kind of scenario by what it must do to traffic that real measurements made, and how a scenario is read.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { type Part, parseScenario } from '../replay/whatif/scenario.ts'
import type { WhatIf } from '../replay/whatif/whatif.ts'
import { contextOf, type DecisionRecord, recordOf } from '../router/policy/record.ts'
import { liveliestPolicy, policyOf, weightedPolicy, whatIfLog } from './whatif-log.ts'
import { dearer, liveliest, ofWeighted, outage, run, time, weighted } from './whatif-stage.ts'

const servedBy = ({ requests }: ReturnType<typeof run>, model: string) =>
  requests.filter(({ target, status }) => target === model && status === 'ok')
const hops = ({ cascade }: WhatIf, cause: string) => cascade.filter((hop) => hop.cause === cause)
const total = (list: readonly { readonly count: number }[]) => list.reduce((sum, { count }) => sum + count, 0)

describe('an outage', () => {
  const result = ofWeighted(outage(weighted))
  const [from, to] = [Date.parse(time(weighted, 0.3)), Date.parse(time(weighted, 0.6))]
  const hit = weighted.filter(
    ({ chosen, time: at }) => chosen === 'large' && Date.parse(at) >= from && Date.parse(at) < to,
  )

  test('fails all that was sent there when nobody reroutes', () => {
    const { firstOrder, production } = result.whatIf
    assert.equal(Math.round(firstOrder.failedShare * weighted.length), hit.length)
    assert.equal(production.failedShare, 0)
  })

  test('is survived by falling back and by the breaker, which spares most of them the failed attempt', () => {
    assert.equal(result.whatIf.simulated.failedShare, 0)
    assert.ok(servedBy(result, 'large').every(({ startMs }) => startMs < from || startMs >= to))
    const fellBack = total(hops(result.whatIf, 'outage'))
    assert.ok(fellBack >= 5 && fellBack < hit.length / 2, `${fellBack} of ${hit.length}`)
    assert.ok(total(result.whatIf.moves) > hit.length / 3)
  })

  test('is noticed by a policy that reads error rates, after the breaker has closed too', () => {
    const { moves } = run(liveliest, liveliestPolicy, [outage(liveliest)]).whatIf
    assert.ok(moves.some(({ from: was }) => was === 'large'))
  })
})

describe('other scenarios', () => {
  test('a retired model serves nobody; its successor takes its place at its own price', () => {
    const without = ofWeighted({ kind: 'retire', model: 'large' })
    assert.equal(servedBy(without, 'large').length, 0)
    assert.equal(without.whatIf.simulated.failedShare, 0)
    assert.ok(without.whatIf.firstOrder.failedShare > 0.2)
    const replaced = ofWeighted({ kind: 'retire', model: 'large', successor: 'small' })
    assert.ok(
      replaced.requests
        .filter(({ route }) => route.chosen === 'large')
        .every(({ target }) => target === 'small' || target === 'medium'),
    )
    assert.ok(replaced.whatIf.simulated.costUsd < 0.7 * replaced.whatIf.production.costUsd)
    assert.equal(replaced.whatIf.firstOrder.failedShare, 0)
  })

  test('a client that asks for a retired model by name is refused, unless it has a successor', () => {
    const pinned = weighted.map((record, at): DecisionRecord => {
      if (at % 5 !== 0) return record
      const context = { ...contextOf(record), request: { ...record.request, model: 'large' } }
      return recordOf(context, weightedPolicy.decide(context), record.outcome)
    })
    const gone = run(pinned, weightedPolicy, [{ kind: 'retire', model: 'large' }]).whatIf.simulated
    assert.equal(gone.failedShare, 0.2)
    const replaced = run(pinned, weightedPolicy, [{ kind: 'retire', model: 'large', successor: 'small' }]).whatIf
    assert.equal(replaced.simulated.failedShare, 0)
  })

  test('requests beyond a limit per minute are refused and go elsewhere', () => {
    const { whatIf: result } = ofWeighted({ kind: 'ratelimit', model: 'small', rpm: 20 })
    const minutes = (Date.parse(time(weighted, 1)) - Date.parse(time(weighted, 0))) / 60_000
    assert.ok(total(hops(result, '429')) > 0)
    assert.ok(
      servedBy(ofWeighted({ kind: 'ratelimit', model: 'small', rpm: 20 }), 'small').length <= 20 * (minutes + 2),
    )
    assert.ok(hops(result, '429').every(({ from: was, to: next }) => was === 'small' && next !== 'small'))
  })

  test('requests beyond a limit at once wait in line, and are later for it', () => {
    const { simulated, production } = ofWeighted({ kind: 'ratelimit', model: 'small', concurrency: 2 }).whatIf
    assert.ok((simulated.ttftMs.p95 ?? 0) > 2 * (production.ttftMs.p95 ?? 0))
    assert.ok((simulated.sloMissShare ?? 0) > (production.sloMissShare ?? 0))
  })

  test('of two limits the tighter one holds, whichever comes last', () => {
    const limits: Part[] = [20, 1000].map((rpm) => ({ kind: 'ratelimit', model: 'small', rpm }))
    const alone = ofWeighted(limits[0] as Part).whatIf.simulated
    assert.deepEqual(ofWeighted(...limits).whatIf.simulated, alone)
    assert.deepEqual(ofWeighted(...limits.toReversed()).whatIf.simulated, alone)
  })

  test('a target that gets more traffic fails as often as it did, nearby in time', () => {
    const all = policyOf('name: all\nscore: \'candidate.model == "medium" ? 1.0 : 0.0\'\nchoose: {kind: highest}')
    const { simulated } = run(weighted, weightedPolicy, [], { policy: all }).whatIf
    // Three percent of the logged calls failed; between one and six covers five standard deviations of both draws.
    assert.ok(simulated.fellBackShare > 0.01 && simulated.fellBackShare < 0.06, `${simulated.fellBackShare}`)
  })

  test('tokens beyond a limit per minute are refused too', () => {
    const { whatIf: result } = ofWeighted({ kind: 'ratelimit', model: 'small', tpm: 20_000 })
    assert.ok(total(hops(result, '429')) > 0)
    const loose = ofWeighted({ kind: 'ratelimit', model: 'small', tpm: 1e9 })
    assert.equal(total(hops(loose.whatIf, '429')), 0)
  })

  test('nobody waits in line longer than the router’s limit for a first byte; who does is sent on', () => {
    const slow = ofWeighted({ kind: 'ratelimit', model: 'small', concurrency: 1 })
    assert.ok(total(hops(slow.whatIf, 'timeout-first-byte')) > 0)
    assert.ok(slow.requests.every(({ latencyMs }) => latencyMs < 200_000))
  })

  test('an answer of another model is as long, among its answers, as the logged one was among its own', () => {
    const tokens = (of: string) =>
      weighted
        .flatMap(({ outcome }) => (outcome?.served === of ? [outcome.output_tokens ?? 0] : []))
        .sort((a, b) => a - b)
    const [small, large] = [tokens('small'), tokens('large')]
    const { requests } = run(weighted, weightedPolicy, [], {
      policy: policyOf('name: all\ncandidates: [large]\nchoose: {kind: weighted, weights: {large: 1}}'),
    })
    const longest = requests.find(
      ({ arrival: { record } }) => record.outcome?.served === 'small' && record.outcome.output_tokens === small.at(-1),
    )
    const price = 8 / 1e6
    const expected = ((longest?.inputTokens ?? 0) * 2) / 1e6 + (large.at(-1) as number) * price
    assert.ok(Math.abs((longest?.costUsd ?? 0) - expected) < 5 * price, `${longest?.costUsd} for ${expected}`)
  })

  test('a cache makes sessions cheaper, and a policy that scatters them less so', () => {
    const cache: Part = { kind: 'cache', discount: 0.9 }
    const sticky = policyOf(
      'name: sticky\nchoose: {kind: weighted, weights: {small: 2, medium: 1, large: 1}, per: session}',
    )
    const share = ({ simulated: { cachedTokens, inputTokens } }: WhatIf) => cachedTokens / inputTokens
    const scattered = ofWeighted(cache).whatIf
    const kept = run(weighted, weightedPolicy, [cache], { policy: sticky }).whatIf
    assert.ok(scattered.simulated.costUsd < scattered.production.costUsd)
    assert.ok(
      (kept.simulated.ttftMs.p50 ?? 0) <
        (run(weighted, weightedPolicy, [], { policy: sticky }).whatIf.simulated.ttftMs.p50 ?? 0),
    )
    assert.ok(share(kept) > 1.3 * share(scattered) && share(scattered) > 0, `${share(kept)} and ${share(scattered)}`)
    assert.ok(share(ofWeighted({ ...cache, ttl_s: 0.1 }).whatIf) < share(scattered) / 2)
  })

  test('traffic is scaled by hash, so that more contains less, and mixed to the share that is wanted', () => {
    const ids = (scale: number) =>
      new Set(ofWeighted({ kind: 'traffic', scale, mix: {} }).requests.map(({ arrival }) => arrival.id))
    const [half, whole, twice] = [ids(0.5), ids(1), ids(2)]
    assert.ok([...half].every((id) => whole.has(id)) && [...whole].every((id) => twice.has(id)))
    assert.deepEqual([whole.size, twice.size], [1500, 3000])
    const copies = ofWeighted({ kind: 'traffic', scale: 2, mix: {} }).requests.filter(
      ({ arrival }) => arrival.id !== arrival.record.id,
    )
    const away = copies.map(({ arrival }) => Math.abs(arrival.atMs - Date.parse(arrival.record.time)))
    assert.ok(away.every((ms) => ms <= 30_000) && away.filter((ms) => ms > 100).length > 1400)
    assert.ok(copies.every(({ arrival }) => arrival.session !== arrival.record.session))
    // Binomial: five standard deviations of 1,500 draws at one half, one error in two million.
    assert.ok(Math.abs(half.size - 750) < 97)
    const { requests } = ofWeighted({ kind: 'traffic', scale: 1, mix: { 'tag:category=math': 0.5 } })
    const math = requests.filter(({ arrival }) => arrival.record.request.tags.category === 'math').length
    assert.ok(Math.abs(math / requests.length - 0.5) < 0.065, `${math} of ${requests.length}`)
  })

  test('a record that sampling kept half of the time stands for two requests', () => {
    const sampled = weighted.map((record) => ({ ...record, keep_probability: 0.5 }))
    const { whatIf: result } = run(sampled, weightedPolicy, [])
    assert.deepEqual([result.logged.requests, result.production.requests], [3000, 3000])
    const whole = ofWeighted().whatIf
    assert.ok(Math.abs(result.simulated.costUsd / whole.simulated.costUsd - 2) < 0.05)
    assert.ok(result.calibration.calibrated)
  })

  test('a client that left is seen to leave at the same time, unless it is answered before', () => {
    const impatient = weighted.map(
      (record, at): DecisionRecord =>
        at % 10 === 0 && record.outcome
          ? {
              ...record,
              outcome: {
                ...record.outcome,
                status: 'client-abort',
                served: null,
                latency_ms: 300,
                output_tokens: null,
              },
            }
          : record,
    )
    const { requests } = run(impatient, weightedPolicy, [])
    const left = requests.filter(({ status }) => status === 'left')
    assert.ok(
      left.length > 100 &&
        left.every(({ latencyMs, arrival }) => latencyMs === 300 && arrival.record.outcome?.status === 'client-abort'),
    )
    assert.ok(requests.every(({ arrival, status }) => status === 'left' || arrival.record.outcome?.status === 'ok'))
  })

  test('a new price moves a policy that reads prices, and the first-order effect is what it would have cost', () => {
    const thrifty = policyOf(
      'name: thrifty\nscore: candidate.quality - 50.0 * candidate.cost_usd\nchoose: {kind: highest}',
    )
    const { whatIf: result } = run(whatIfLog(thrifty, 600), thrifty, [dearer({ large: 4, medium: 4, small: 4 })])
    assert.ok(Math.abs(result.firstOrder.costUsd / result.production.costUsd - 4) < 1e-9)
    assert.ok(result.simulated.costUsd < result.firstOrder.costUsd)
    assert.ok(total(result.moves) > 0)
  })
})

describe('a scenario', () => {
  test('that contradicts itself or the log is refused, saying what was found and wanted', () => {
    const wrong = (parts: Part[], message: RegExp) =>
      assert.throws(() => ofWeighted(...parts), { code: 'scenario-invalid', message })
    wrong([{ kind: 'retire', model: 'huge' }], /names the model 'huge', .* they have: large, medium, small/)
    wrong(
      [
        { kind: 'retire', model: 'small', successor: 'large' },
        { kind: 'retire', model: 'large', successor: 'small' },
      ],
      /circle/,
    )
    wrong(
      [
        { kind: 'cache', discount: 0.9 },
        { kind: 'cache', discount: 0.5 },
      ],
      /two caches/,
    )
    wrong(
      [{ kind: 'outage', model: 'small', from: time(weighted, 0.5), to: time(weighted, 0.1), fail_after_ms: 1 }],
      /wanted an end after/,
    )
    wrong([{ kind: 'traffic', scale: 1, mix: { 'tag:category=law': 0.1 } }], /no requests with tag:category=law/)
    wrong(
      [{ kind: 'traffic', scale: 1, mix: { 'tier=free': 0.7, 'tier=premium': 0.7 } }],
      /sum to 1\.4; wanted at most 1/,
    )
  })

  test('is read from YAML with every mistake at once', () => {
    assert.deepEqual(parseScenario('- {kind: price, factors: {large: 1.1}}', 's.yaml'), [dearer({ large: 1.1 })])
    assert.throws(() => parseScenario('- {kind: outage, model: m}\n- {kind: traffic, scale: 0}', 's.yaml'), {
      message: /s\.yaml:1: \[0\]\.from[\s\S]*s\.yaml:2: \[1\]\.scale/,
    })
  })
})
