// Waiting lines: the closed forms against published figures, and the simulated station against the closed forms.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { agendaOf } from '../replay/whatif/agenda.ts'
import { erlangC, noLimits, stationOf, tighter, waitMg1, waitMmc } from '../replay/whatif/queue.ts'
import { seeded } from './replay-truth.ts'
import { arrivalGaps } from './whatif-log.ts'

/** The mean wait of customers at a station, in mean service times of 1; `interval` and `service` draw times. */
const meanWait = (servers: number, customers: number, interval: () => number, service: () => number): number => {
  const agenda = agendaOf<number | null>()
  const station = stationOf<number>({ ...noLimits, concurrency: servers })
  let [arrivals, waits, nowMs] = [0, 0, 0]
  const begin = (arrivedMs: number): void => {
    waits += nowMs - arrivedMs
    agenda.put(nowMs + service(), null)
  }
  agenda.put(interval(), 0)
  for (let entry = agenda.next(); entry; entry = agenda.next()) {
    nowMs = entry.atMs
    if (entry.event === null) {
      const next = station.leave()
      if (next !== undefined) begin(next)
    } else {
      if (station.offer(nowMs, 0, nowMs) === 'start') begin(nowMs)
      if (++arrivals < customers) agenda.put(nowMs + interval(), 0)
    }
  }
  return waits / customers
}
const exponential = (random: () => number, mean: number) => () => -mean * Math.log(1 - random())

describe('closed forms', () => {
  test('give the published waits and probabilities of waiting', () => {
    const shown = (value: number) => value.toFixed(6)
    assert.equal(shown(waitMmc(1, 0.8)), '4.000000')
    assert.deepEqual([erlangC(2, 1.6), waitMmc(2, 1.6)].map(shown), ['0.711111', '1.777778'])
    assert.deepEqual([erlangC(10, 8), waitMmc(10, 8)].map(shown), ['0.409180', '0.204590'])
    assert.deepEqual([erlangC(50, 45), waitMmc(50, 45)].map(shown), ['0.363864', '0.072773'])
    // Exponential service has E[S²] = 2, constant service 1: half the wait.
    assert.equal(shown(waitMg1(0.8, 1, 2)), '4.000000')
    assert.equal(shown(waitMg1(0.8, 1, 1)), '2.000000')
  })

  test('refuse a load that would grow without end', () => {
    assert.throws(() => waitMmc(2, 2), /2 servers offered 2: wanted .* a load below their number/)
    assert.throws(() => waitMg1(1, 1, 2), /wanted a load from 0 to below 1/)
  })
})

describe('a simulated station', () => {
  // One run each with a fixed seed, so it cannot fail by chance; the longest has a standard error of about 0.4 %.
  for (const [servers, load, customers] of [
    [2, 1.6, 12_000_000],
    [10, 8, 1_000_000],
    [50, 45, 1_000_000],
  ] as const)
    test(`of ${servers} servers offered ${load} waits as Erlang says, within 1 %`, () => {
      const random = seeded(7)
      const wait = meanWait(servers, customers, exponential(random, 1 / load), exponential(random, 1))
      assert.ok(Math.abs(wait / waitMmc(servers, load) - 1) < 0.01, `${wait} for ${waitMmc(servers, load)}`)
    })

  test('of one server with constant service waits as Pollaczek and Khinchine say, within 1 %', () => {
    const wait = meanWait(1, 2_000_000, exponential(seeded(7), 1 / 0.7), () => 1)
    assert.ok(Math.abs(wait / waitMg1(0.7, 1, 1) - 1) < 0.01, `${wait} for ${waitMg1(0.7, 1, 1)}`)
  })

  test('fed with Azure’s real arrivals waits longer than Erlang says, because they come in bursts', () => {
    const meanGapMs = arrivalGaps.reduce((sum, { gapMs }) => sum + gapMs, 0) / arrivalGaps.length
    const load = 8
    let at = 0
    const interval = () => (arrivalGaps[at++]?.gapMs ?? 0) / meanGapMs / load
    const wait = meanWait(10, arrivalGaps.length, interval, exponential(seeded(7), 1))
    // Measured: 6.2 service times where Erlang has 0.2.
    assert.ok(wait > 10 * waitMmc(10, load), `${wait} for ${waitMmc(10, load)}`)
  })

  test('never serves more at once than it may, serves in order, and forgets who left the line', () => {
    const station = stationOf<string>({ ...noLimits, concurrency: 1 })
    assert.deepEqual(
      ['a', 'b', 'c', 'd'].map((job) => station.offer(job, 0, 0)),
      ['start', 'wait', 'wait', 'wait'],
    )
    assert.equal(station.withdraw('b'), true)
    assert.equal(station.withdraw('b'), false)
    assert.deepEqual([station.leave(), station.leave(), station.leave()], ['c', 'd', undefined])
    assert.equal(station.offer('e', 0, 0), 'start')
  })

  test('lets through at most a minute’s worth at once and a minute’s worth a minute', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 50 }), fc.array(fc.integer({ min: 0, max: 20_000 })), (rpm, gaps) => {
        const station = stationOf<number>({ ...noLimits, requestsPerMinute: rpm })
        let [nowMs, let_] = [0, 0]
        for (const gap of gaps) {
          nowMs += gap
          if (station.offer(nowMs, 0, nowMs) === 'start') let_++
          assert.ok(let_ <= rpm + (rpm * (nowMs - (gaps[0] ?? 0))) / 60_000 + 1e-6)
        }
      }),
    )
    const tokens = stationOf<number>({ ...noLimits, tokensPerMinute: 1000 })
    assert.deepEqual(
      [600, 600, 400].map((amount) => tokens.offer(0, amount, 0)),
      ['start', 'refuse', 'start'],
    )
    assert.equal(tokens.offer(0, 500, 30_000), 'start')
  })

  test('takes the tighter of two limits, each for itself', () => {
    const [a, b] = [
      { ...noLimits, concurrency: 3 },
      { ...noLimits, concurrency: 5, requestsPerMinute: 60 },
    ]
    assert.deepEqual(tighter(a, b), { ...noLimits, concurrency: 3, requestsPerMinute: 60 })
  })
})

test('an agenda gives back what was put down by time, and equal times in the order they came', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: 20 })), (times) => {
      const agenda = agendaOf<number>()
      for (const [event, atMs] of times.entries()) agenda.put(atMs, event)
      const expected = times
        .map((atMs, event) => ({ atMs, event }))
        .sort((a, b) => a.atMs - b.atMs || a.event - b.event)
      const given = expected.map(() => agenda.next()).map((entry) => ({ atMs: entry?.atMs, event: entry?.event }))
      assert.deepEqual(given, expected)
      assert.equal(agenda.next(), undefined)
    }),
  )
})
