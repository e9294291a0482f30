// A canary that is bet on: the interval must hold at every look from the first session on, where the asymptotic one is not yet
// valid, on outcomes as rare and as skewed as failures and costs are; and ClickHouse must hand over what the sessions came to.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { addBet, addBets, asymptoticInterval, bettingInterval, startBetting } from '../replay/estimate/sequence.ts'
import { type Arm, type ArmSum, lookAt } from '../replay/promote/canary.ts'
import { GateError, parseGate, withCanary } from '../replay/promote/gate-file.ts'
import { openLedger } from '../replay/promote/ledger.ts'
import type { Promotion } from '../replay/promote/promotion.ts'
import { type ArmBet, rewardSteps, strictDifference } from '../replay/promote/strict.ts'
import { rowsOf, temporaryCollector } from './collector-fixtures.ts'
import { seeded } from './replay-truth.ts'

const seed = Number(process.env.SEED ?? 7)
const share = 0.2
const alpha = 0.05

test('betting on rows that are alike is betting on them one by one', () => {
  const row = fc.tuple(fc.constantFrom(0, 5), fc.constantFrom(0, 0.25, 1), fc.integer({ min: 1, max: 40 }))
  fc.assert(
    fc.property(fc.array(row, { maxLength: 6 }), (rows) => {
      const [together, single] = [startBetting('difference'), startBetting('difference')]
      for (const [weight, reward, count] of rows) {
        addBets(together, weight, reward, count)
        for (let at = 0; at < count; at++) addBet(single, weight, reward)
      }
      assert.equal(together.count, single.count)
      assert.deepEqual(bettingInterval(together, alpha), bettingInterval(single, alpha))
    }),
    { seed, numRuns: 30 },
  )
})

/** Sessions of either arm, by what they came to in steps of the bound. */
const tallying = () => {
  const counts: Record<Arm, Map<number, number>> = { production: new Map(), candidate: new Map() }
  return {
    add: (arm: Arm, value: number): void => {
      const reward = Math.round(value * rewardSteps) / rewardSteps
      counts[arm].set(reward, (counts[arm].get(reward) ?? 0) + 1)
    },
    bets: (arm: Arm): ArmBet[] =>
      Array.from(counts[arm], ([reward, clusters]) => ({
        ...({ arm, metric: 'failed', fill: 'known' } as const),
        ...{ reward, clusters, beyond: 0 },
      })),
  }
}
const clustersOf = (bets: readonly ArmBet[]) => bets.reduce((sum, { clusters }) => sum + clusters, 0)

/** The same arms by the asymptotic sequence, as if it were valid from two sessions an arm on. */
const asymptotic = (candidate: readonly ArmBet[], production: readonly ArmBet[]) => {
  const { candidate: after, production: before, se } = strictDifference(candidate, production, share, 1, alpha)
  const count = clustersOf(candidate) + clustersOf(production)
  return asymptoticInterval({ count, mean: after - before, variance: count * se * se, tuning: 250 / share, alpha })
}

const worlds: Readonly<Record<string, (random: () => number) => number>> = {
  'failures of one in fifty': (random) => Number(random() < 0.02),
  'costs with a long tail': (random) => Math.round(8 * Math.min(1, 0.02 * Math.exp(4 * (random() + random() - 1)))) / 8,
}

// If the true rate were 5 %, 8 or more of 50 runs would miss with probability 0.1 %. Looks grow by 30 %, from 5 sessions on.
for (const [name, draw] of Object.entries(worlds))
  test(`of ${name} the strict interval misses at some look in at most 7 of 50 canaries of up to 900 sessions (seed ${seed})`, (t) => {
    const random = seeded(seed)
    const missed = { strict: 0, asymptotic: 0 }
    for (let run = 0; run < 50; run++) {
      const arms = tallying()
      const has = { strict: false, asymptotic: false }
      let next = 5
      for (let sessions = 1; sessions <= 900; sessions++) {
        arms.add(random() < share ? 'candidate' : 'production', draw(random))
        if (sessions < next) continue
        next = Math.ceil(next * 1.3)
        const [candidate, production] = [arms.bets('candidate'), arms.bets('production')]
        const { low, high } = strictDifference(candidate, production, share, 1, alpha).interval
        has.strict ||= low > 0 || high < 0
        const rough = asymptotic(candidate, production)
        has.asymptotic ||= rough.low > 0 || rough.high < 0
      }
      missed.strict += Number(has.strict)
      missed.asymptotic += Number(has.asymptotic)
    }
    t.diagnostic(`missed ${JSON.stringify(missed)} of 50`)
    assert.ok(missed.strict <= 7, `${missed.strict} of 50`)
  })

const gateOf = (canary: string) =>
  parseGate(`goal: cost_usd\nmargins: { quality: 0.2, failed: 0.1, abandoned: 0.1 }\ncanary: ${canary}`)
const strict = gateOf('{ strict: true, bounds: { cost_usd: 0.01 } }')

/** A canary in which each session is one request: sums and bets of the same sessions. */
const canary = (sessions: number, candidate: (random: () => number) => Partial<Record<'failed' | 'cost', number>>) => {
  const random = seeded(seed)
  const [sums, bets]: [Map<string, ArmSum>, Map<string, ArmBet>] = [new Map(), new Map()]
  const add = (arm: Arm, metric: ArmSum['metric'], fill: ArmSum['fill'], value: number, bound = 1): void => {
    const key = `${arm} ${metric} ${fill}`
    const zero = { clusters: 0, total: 0, rows: 0, totalSquared: 0, totalRows: 0, rowsSquared: 0 }
    const { clusters, total, rows, totalSquared, totalRows } = sums.get(key) ?? zero
    const more = { total: total + value, totalSquared: totalSquared + value * value, totalRows: totalRows + value }
    sums.set(key, { arm, metric, fill, clusters: clusters + 1, rows: rows + 1, rowsSquared: rows + 1, ...more })
    const reward = Math.round(Math.min(1, value / bound) * rewardSteps) / rewardSteps
    const bet = bets.get(`${key} ${reward}`) ?? { arm, metric, fill, reward, clusters: 0, beyond: 0 }
    const beyond = bet.beyond + Number(value > bound)
    bets.set(`${key} ${reward}`, { ...bet, clusters: bet.clusters + 1, beyond })
  }
  for (let session = 0; session < sessions; session++) {
    const arm: Arm = random() < share ? 'candidate' : 'production'
    const { failed = 0, cost = 0.004 } = arm === 'candidate' ? candidate(random) : {}
    add(arm, 'failed', 'known', failed)
    add(arm, 'abandoned', 'known', 0)
    add(arm, 'cost_usd', 'known', cost, 0.01)
    for (const fill of ['known', 'zero', 'one'] as const) add(arm, 'quality', fill, 1)
  }
  return { sums: [...sums.values()], bets: [...bets.values()] }
}

test('a strict canary shows great harm long before the other may speak, and promotes what is better in time', () => {
  const failing = canary(60, () => ({ failed: 1 }))
  assert.equal(lookAt(failing.sums, strict, share).verdict, 'open', 'too early for an asymptotic sequence')
  assert.equal(lookAt(failing.sums, strict, share, failing.bets).verdict, 'harm')
  const cheaper = canary(3000, () => ({ cost: 0.002 }))
  const look = lookAt(cheaper.sums, strict, share, cheaper.bets)
  assert.equal(look.verdict, 'shown')
  const cost = look.findings.find(({ metric }) => metric === 'cost_usd')
  assert.ok(cost && cost.low < -0.002 && -0.002 < cost.high, JSON.stringify(cost))
  const [wide, narrow] = [lookAt(cheaper.sums, strict, share, cheaper.bets), lookAt(cheaper.sums, strict, share)].map(
    ({ findings: [first] }) => (first?.high ?? 0) - (first?.low ?? 0),
  ) as [number, number]
  assert.ok(wide > narrow, 'and is surer of less')
})

test('a session beyond the stated bound leaves its metric open, whatever the rest shows', () => {
  const dear = canary(3000, (random) => ({ cost: random() < 0.01 ? 0.02 : 0.001 }))
  const look = lookAt(dear.sums, strict, share, dear.bets)
  assert.deepEqual([look.beyond, look.verdict], [['cost_usd'], 'open'])
})

test('a gate that is to be strict must state its bounds, whether it says so or the command does', () => {
  const wanted = /canary\.bounds: found .*; wanted the most that a session's mean of cost_usd can be/
  assert.throws(
    () => gateOf('{ strict: true }'),
    (error: GateError) => error instanceof GateError && wanted.test(error.message),
  )
  assert.throws(() => withCanary(gateOf('{}'), { strict: true }), wanted)
  assert.equal(withCanary(gateOf('{ bounds: { cost_usd: 1 } }'), { strict: true }).canary.strict, true)
  assert.equal(
    parseGate('goal: quality\ncanary: { strict: true }').canary.strict,
    true,
    'shares have bounds of their own',
  )
})

test('ClickHouse sums sessions for bets as for means, and counts what is beyond the bound', async () => {
  const collector = await temporaryCollector()
  const ledger = openLedger(collector.otlpUrl, collector.clickhouseUrl)
  try {
    const row = (arm: Arm, at: number, session: string, cost: number, outcome = 'ok') =>
      `(generateUUIDv4(), '2026-11-01 08:00:${String(at).padStart(2, '0')}', 'canary', ['arm:${arm}'], '${session}', '${outcome}', ${cost}, 100, 10, 1)`
    const rows = [
      row('candidate', 1, 'a', 0.002),
      row('candidate', 2, 'a', 0.004),
      row('candidate', 3, 'b', 0.02, 'error'),
      row('production', 4, 'c', 0.005),
      row('production', 5, '', 0.005),
    ]
    await rowsOf(
      collector,
      `INSERT INTO otel.routing_decisions (decision_id, decision_time, policy_hash, path, session, outcome, cost_usd, latency_ms, ttft_ms, keep_probability) VALUES ${rows.join(', ')}`,
    )
    const promotion = { canary: { hash: 'canary' }, started_at: '2026-11-01T00:00:00.000Z', gate: strict } as Promotion
    const settledMs = Date.parse('2026-11-02T00:00:00Z')
    const [bets, sums] = [await ledger.bets(promotion, settledMs), await ledger.sums(promotion, settledMs)]
    const of = (arm: Arm, metric: ArmBet['metric'], fill: ArmBet['fill'] = 'known') =>
      bets
        .filter((bet) => bet.arm === arm && bet.metric === metric && bet.fill === fill)
        .map(({ reward, clusters, beyond }) => [reward, clusters, beyond])
        .sort()
    assert.deepEqual(of('candidate', 'cost_usd'), [
      [Math.round(0.3 * rewardSteps) / rewardSteps, 1, 0],
      [1, 1, 1],
    ])
    assert.deepEqual(of('production', 'cost_usd'), [[0.5, 2, 0]])
    assert.deepEqual(of('candidate', 'failed'), [
      [0, 1, 0],
      [1, 1, 0],
    ])
    assert.deepEqual(of('candidate', 'quality'), [], 'nobody was asked')
    assert.deepEqual(of('candidate', 'quality', 'one'), [[1, 2, 0]])
    const cost = sums.find(({ arm, metric }) => arm === 'candidate' && metric === 'cost_usd')
    assert.deepEqual([cost?.clusters, cost?.rows], [2, 3])
  } finally {
    await ledger.close()
    await collector.close()
  }
})
