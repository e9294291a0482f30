// Whether a canary may be watched: simulated canaries with a known difference, looked at 196 times each. A candidate that is
// exactly as bad as the gate forbids must be promoted in at most 5 % of runs, however often one looks; a better one mostly.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import type { MetricName } from '../replay/estimate/metrics.ts'
import { type Arm, type ArmSum, arms, type Fill, type Look, lookAt } from '../replay/promote/canary.ts'
import { parseGate } from '../replay/promote/gate-file.ts'
import { seeded } from './replay-truth.ts'

const seed = Number(process.env.SEED ?? 7)
const share = 0.2
const looks = 196
const gate = parseGate('goal: cost_usd\nmargins: { quality: 0.05, failed: 0.03, abandoned: 0.03 }\n')

type Truth = { readonly quality: number; readonly failed: number; readonly costUsd: number }
type Known = { -readonly [Key in keyof ArmSum]: ArmSum[Key] }

/** Folds clusters into the sums that ClickHouse would give. */
const emptySums = () => {
  const sums = new Map<string, Known>()
  const add = (arm: Arm, metric: MetricName, total: number, rows: number, fill: Fill = 'known'): void => {
    const key = `${arm} ${metric} ${fill}`
    const zero = { clusters: 0, total: 0, rows: 0, totalSquared: 0, totalRows: 0, rowsSquared: 0 }
    const sum: Known = sums.get(key) ?? { arm, metric, fill, ...zero }
    sum.clusters += 1
    sum.total += total
    sum.rows += rows
    sum.totalSquared += total * total
    sum.totalRows += total * rows
    sum.rowsSquared += rows * rows
    sums.set(key, sum)
  }
  return { add, all: (): ArmSum[] => [...sums.values()] }
}

/** A session of one to four requests, which share whether they go well. */
const addSession = (add: ReturnType<typeof emptySums>['add'], arm: Arm, truth: Truth, random: () => number): void => {
  const rows = 1 + Math.floor(random() * 4)
  const easy = random() < 0.5
  let [quality, failed, cost] = [0, 0, 0]
  for (let row = 0; row < rows; row++) {
    quality += Number(random() < truth.quality + (easy ? 0.15 : -0.15))
    failed += Number(random() < truth.failed)
    cost += -Math.log(1 - random()) * truth.costUsd
  }
  for (const fill of ['known', 'zero', 'one'] as const) add(arm, 'quality', quality, rows, fill)
  add(arm, 'failed', failed, rows)
  add(arm, 'abandoned', 0, rows)
  add(arm, 'cost_usd', cost, rows)
}

/** Runs one canary to its end, looking after every 80 sessions; what the eager would conclude from 95 % intervals beside it. */
const runCanary = (
  truths: Record<Arm, Truth>,
  random: () => number,
  everyLook = 80,
): { look: Look; eager: boolean } => {
  const { add, all } = emptySums()
  let eager = false
  let look: Look | undefined
  for (let at = 0; at < looks; at++) {
    for (let session = 0; session < everyLook; session++) {
      const arm: Arm = random() < share ? 'candidate' : 'production'
      addSession(add, arm, truths[arm], random)
    }
    const seen = lookAt(all(), gate, share)
    const isEnough = seen.clusters.candidate >= 250
    eager ||=
      isEnough &&
      seen.findings.every(({ metric, value, se, tolerated }) => {
        const gain = metric === 'quality' ? value : -value
        return gain - 1.96 * se > -tolerated
      })
    if (look === undefined || look.verdict === 'open') look = seen
  }
  return { look: look as Look, eager }
}

const production: Truth = { quality: 0.7, failed: 0.02, costUsd: 0.004 }
const cheaper = { ...production, costUsd: 0.002 }
const shareOf = (count: number, runs: number): string =>
  `${count} of ${runs} runs (${((100 * count) / runs).toFixed(1)} %)`

/** Of `runs` canaries: how many were promoted, rolled back, and promoted by whoever looks with fixed-n intervals. */
const outcomes = (candidate: Truth, runs: number) => {
  const random = seeded(seed)
  let [promoted, harmed, eagerly] = [0, 0, 0]
  for (let run = 0; run < runs; run++) {
    const { look, eager } = runCanary({ production, candidate }, random)
    promoted += Number(look.verdict === 'shown')
    harmed += Number(look.verdict === 'harm')
    eagerly += Number(eager)
  }
  return { promoted, harmed, eagerly }
}

describe('a canary that is looked at 196 times', () => {
  // Each law is tested on 150 runs. If the true rate were at the allowed 5 %, more than 14 promotions (9.3 %) would come up
  // by chance in 0.8 % of seeds; it is in fact below 2.5 %, where that happens in fewer than one of 10,000. Fixed-n intervals
  // promote some 9 to 18 %; that at most 5 % of 150 runs show it happens in fewer than 5 % of seeds.
  const runs = 150
  const promotedMax = 14

  test('promotes a candidate whose quality is lower by just the margin in at most 5 % of runs; fixed-n intervals do in more', () => {
    const { promoted, eagerly } = outcomes({ ...cheaper, quality: production.quality - gate.margins.quality }, runs)
    assert.ok(promoted <= promotedMax, `promoted in ${shareOf(promoted, runs)}`)
    assert.ok(eagerly > 0.05 * runs, `with fixed-n intervals ${shareOf(eagerly, runs)} were promoted`)
  })

  test('promotes a candidate that is no cheaper in at most 5 % of runs; fixed-n intervals do in more', () => {
    const { promoted, eagerly } = outcomes(production, runs)
    assert.ok(promoted <= promotedMax, `promoted in ${shareOf(promoted, runs)}`)
    assert.ok(eagerly > 0.05 * runs, `with fixed-n intervals ${shareOf(eagerly, runs)} were promoted`)
  })

  test('promotes a candidate that fails more often by just the margin in at most 5 % of runs', () => {
    const { promoted } = outcomes({ ...cheaper, failed: production.failed + gate.margins.failed }, runs)
    assert.ok(promoted <= promotedMax, `promoted in ${shareOf(promoted, runs)}`)
  })

  test('promotes a candidate that is cheaper and as good in more than 90 % of runs', () => {
    const { promoted, harmed } = outcomes(cheaper, 60)
    assert.ok(promoted > 54, `promoted in ${shareOf(promoted, 60)}`)
    assert.ok(harmed <= 1, `the audit of the shares, at 0.1 % a run, fired in ${shareOf(harmed, 60)}`)
  })

  test('finds a candidate out that is clearly worse, in more than 90 % of runs', () => {
    const { promoted, harmed } = outcomes({ ...cheaper, quality: 0.5 }, 60)
    assert.ok(harmed > 54, `found out in ${shareOf(harmed, 60)}`)
    assert.equal(promoted, 0)
  })
})

const lookOf = (
  sessions: (random: () => number, add: ReturnType<typeof emptySums>['add']) => void,
  of = gate,
): Look => {
  const { add, all } = emptySums()
  sessions(seeded(seed), add)
  return lookAt(all(), of, share)
}
const evenly = (random: () => number, count: number, use: (arm: Arm) => void): void => {
  for (let at = 0; at < count; at++) use(random() < share ? 'candidate' : 'production')
}
const resultOf = (look: Look, metric: MetricName) => look.findings.find((finding) => finding.metric === metric)

describe('a look at a canary', () => {
  test('holds the arms to their shares: where requests change arms by themselves, nothing is compared', () => {
    const look = lookOf((random, add) => {
      evenly(random, 6000, (arm) => {
        const served = arm === 'candidate' && random() < 0.3 ? 'production' : arm
        addSession(add, served, cheaper, random)
      })
    })
    assert.deepEqual([look.uneven, look.verdict], [true, 'harm'])
  })

  test('does not take a failure that was never seen for one that cannot happen', () => {
    const strict = { ...gate, margins: { ...gate.margins, failed: 0.01 } }
    const look = (count: number) =>
      lookOf((random, add) => {
        evenly(random, count, (arm) => addSession(add, arm, { ...cheaper, failed: 0 }, random))
      }, strict)
    const few = look(1500)
    assert.ok(few.clusters.candidate > 280)
    assert.equal(resultOf(few, 'failed')?.result, 'open')
    assert.equal(resultOf(look(8000), 'failed')?.result, 'held')
  })

  test('takes missing feedback for the worst, unless the gate says that it is missing at random', () => {
    const sessions = (random: () => number, add: ReturnType<typeof emptySums>['add']) =>
      evenly(random, 8000, (arm) => {
        const good = Number(random() < 0.7)
        const isKnown = random() < 0.5
        add(arm, 'quality', isKnown ? good : 0, Number(isKnown))
        add(arm, 'quality', isKnown ? good : 0, 1, 'zero')
        add(arm, 'quality', isKnown ? good : 1, 1, 'one')
        for (const metric of ['failed', 'abandoned', 'cost_usd'] as const) add(arm, metric, 0, 1)
      })
    assert.equal(resultOf(lookOf(sessions), 'quality')?.result, 'open')
    assert.equal(resultOf(lookOf(sessions, { ...gate, missing_at_random: true }), 'quality')?.result, 'held')
  })

  test('does not judge a cost that is unknown for more than one request in a hundred', () => {
    const look = (known: number) =>
      lookOf((random, add) =>
        evenly(random, 6000, (arm) => {
          for (const metric of ['failed', 'abandoned'] as const) add(arm, metric, 0, 1)
          const isKnown = random() < known
          add(arm, 'cost_usd', isKnown ? (arm === 'candidate' ? 0.001 : 0.002) * (1 + random()) : 0, Number(isKnown))
        }),
      )
    assert.equal(resultOf(look(1), 'cost_usd')?.result, 'held')
    assert.equal(resultOf(look(0.9), 'cost_usd')?.result, 'open')
  })

  test('says nothing of an empty canary', () => {
    const look = lookAt([], gate, share)
    assert.deepEqual(
      [look.verdict, look.uneven, look.findings.map(({ result }) => result)],
      ['open', false, ['open', 'open', 'open', 'open']],
    )
  })

  test('finds the difference of the arms’ means, whatever the sessions are', () => {
    const row = fc.record({
      arm: fc.constantFrom(...arms),
      cost: fc.double({ min: 0, max: 10, noNaN: true }),
      rows: fc.integer({ min: 1, max: 5 }),
    })
    fc.assert(
      fc.property(fc.array(row, { minLength: 1, maxLength: 60 }), (rows) => {
        const { add, all } = emptySums()
        for (const { arm, cost, rows: count } of rows) add(arm, 'cost_usd', cost, count)
        const mean = (of: Arm) => {
          const own = rows.filter(({ arm }) => arm === of)
          return (
            own.reduce((total, { cost }) => total + cost, 0) / own.reduce((total, { rows: count }) => total + count, 0)
          )
        }
        const found = resultOf(lookAt(all(), gate, share), 'cost_usd')
        const wanted = mean('candidate') - mean('production')
        if (Number.isNaN(wanted)) assert.ok(Number.isNaN(found?.value))
        else assert.ok(Math.abs((found?.value ?? Number.NaN) - wanted) < 1e-9)
      }),
      { seed, numRuns: 200 },
    )
  })
})
