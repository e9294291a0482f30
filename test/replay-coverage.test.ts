// Whether the intervals keep their promise: on traffic whose truth is known, over many logs, ways of logging and candidates,
// whenever a verdict is given. bench/coverage.ts prints the same by design, of ten times as many logs.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { bootstrapRatio, poissonDraws } from '../replay/estimate/bootstrap.ts'
import { estimate, logged, RatioSum } from '../replay/estimate/estimators.ts'
import { asymptoticInterval } from '../replay/estimate/sequence.ts'
import { skewedEstimate } from '../replay/estimate/skewness.ts'
import { combine, type Sums, termAt, termCount } from '../replay/estimate/terms.ts'
import { essDecidesFrom, essRefusedBelow } from '../replay/judge/gate.ts'
import { replay, replayDefaults } from '../replay/run.ts'
import { parsePolicy } from '../router/policy/policy.ts'
import { type Design, designs, type Held, isGiven, judgedLogs, logsOf, watched } from './replay-designs.ts'
import { logOf, seeded, truthFeatures } from './replay-truth.ts'

const seed = Number(process.env.SEED ?? 7)

const share = (results: readonly Held[], holds: (held: Held) => boolean): number =>
  results.filter(holds).length / results.length
const designNamed = (name: string): Design => {
  const found = designs.find((design) => design.name === name)
  assert.ok(found, name)
  return found
}

// The seed is fixed, so the outcome is too. Over seeds: with a true coverage of 95 %, the share over 160 logs of three metrics,
// of which cost and latency nearly always err together, falls outside 92 to 97 % with probability 5 %; of one metric below
// 90 % with 0.3 %. Failures are covered more often than promised, for an event never seen reaches far (unknown.ts).
test(`95 % intervals hold the truth in 92 to 97 % of logs whenever a verdict is given (seed ${seed})`, (t) => {
  const random = seeded(seed)
  const results = designs.flatMap((design) => judgedLogs(design, design.quick, random))
  const given = results.filter(isGiven)
  const byMetric = watched.map((metric) => {
    const of = given.filter((held) => held.metric === metric)
    return {
      metric,
      logs: of.length,
      reported: share(of, ({ reported }) => reported),
      student: share(of, ({ student }) => student),
    }
  })
  t.diagnostic(JSON.stringify(byMetric))
  assert.ok(given.length >= 0.85 * results.length, 'few verdicts are given')
  const overall = share(
    given.filter(({ metric }) => metric !== 'failed'),
    ({ reported }) => reported,
  )
  assert.ok(overall >= 0.92 && overall <= 0.97, `covered ${overall}`)
  for (const { metric, reported } of byMetric) assert.ok(reported >= 0.9, `${metric} covered ${reported}`)
  const isHeld = ({ metric, reported, student }: Held) => metric === 'latency_ms' && reported && !student
  assert.ok(given.some(isHeld), "Student's interval holds whatever the reported one does")
  const direct = share(given, (held) => held.direct)
  assert.ok(direct < 0.6, `the direct method holds the truth in ${direct}, and could be believed`)
  // The mean square of 170 standard normal numbers lies outside 0.7 … 1.3 once in 200 times.
  for (const metric of watched) {
    const gaps = results.filter((held) => held.metric === metric).map(({ gapSe }) => gapSe ** 2)
    const meanSquare = gaps.reduce((sum, square) => sum + square, 0) / gaps.length
    assert.ok(meanSquare > 0.7 && meanSquare < 1.3, `${metric}: DR − SNIPS has a mean square of ${meanSquare} SE²`)
  }
})

/** Sums of one number per group. */
const sumsOfAmounts = (amounts: readonly number[]): Sums => {
  const sums = new Float64Array(amounts.length * termCount)
  for (const [group, amount] of amounts.entries()) {
    sums[group * termCount + termAt.n] = 1
    sums[group * termCount + termAt.r] = amount
  }
  return { groups: amounts.length, sums }
}

test('an interval reaches at least as far as Student’s, at most 5.2 standard errors, and turns with its figure', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: -1000, max: 1000 }), { minLength: 40, maxLength: 80 }), (amounts) => {
      const [sums, turned] = [amounts, amounts.map((amount) => -amount)].map(sumsOfAmounts) as [Sums, Sums]
      const { value, se, low, high } = skewedEstimate(sums, logged)
      const student = estimate(sums, logged)
      assert.ok(low <= student.low && high >= student.high)
      assert.ok(high - value <= 5.2 * se + 1e-9 && value - low <= 5.2 * se + 1e-9)
      assert.ok(Math.abs(skewedEstimate(turned, logged).high + low) < 1e-9 * (1 + Math.abs(low)))
    }),
    { seed },
  )
})

test('on skewed amounts the far end is that of the bootstrap, without a draw', () => {
  const random = seeded(seed)
  const [logs, groups] = [30, 200]
  const draws = poissonDraws(groups, 2000, seed)
  const reach = { bootstrap: 0, ours: 0, student: 0 }
  for (let log = 0; log < logs; log++) {
    const sums = sumsOfAmounts(Array.from({ length: groups }, () => Math.exp(3 * (random() + random() + random()))))
    const [amounts, rows] = logged.map((combination) => combine(sums, combination)) as [Float64Array, Float64Array]
    const { value, se, high } = estimate(sums, logged)
    reach.student += (high - value) / se
    reach.ours += (skewedEstimate(sums, logged).high - value) / se
    reach.bootstrap += (bootstrapRatio(amounts, rows, draws).high - value) / se
  }
  assert.ok(Math.abs(reach.ours / reach.bootstrap - 1) < 0.03, JSON.stringify(reach))
  assert.ok(reach.bootstrap / reach.student > 1.15, JSON.stringify(reach))
})

test('evidence for the change below an effective 250 decides nothing, because there costs and latencies are misjudged', () => {
  const design = { ...designNamed('ε 30 %, overlapping'), rows: 4000 }
  for (const { changeEss, verdict } of judgedLogs(design, 5, seeded(seed))) {
    assert.ok(changeEss > essRefusedBelow && changeEss < essDecidesFrom)
    assert.ok(verdict.exitCode >= 2, verdict.kind)
    assert.equal(verdict.thin?.of, 'change')
  }
})

test('no verdict is given below an effective sample size of 100', () => {
  const production = parsePolicy(
    'name: production\nscore: candidate.rank\nchoose: {kind: highest}\nexplore: {rate: 0.3}',
    truthFeatures,
  )
  const candidate = parsePolicy(
    `name: c\nscore: 'candidate.rank == 3.0 ? 1.0 : 0.0'\nchoose: {kind: highest}`,
    truthFeatures,
  )
  const random = seeded(seed)
  for (let repetition = 0; repetition < 10; repetition++) {
    const rows = 200 + 300 * repetition
    const { verdict, diagnostics } = replay(logOf(production, rows, random), [production], candidate, {
      ...replayDefaults,
      replicates: 0,
    })
    const { ess } = diagnostics.effective
    if (ess < essRefusedBelow) assert.equal(verdict.exitCode, 3, `ESS ${ess} of ${rows} rows`)
    else if (ess < essDecidesFrom) assert.ok(verdict.exitCode >= 2, `ESS ${ess} of ${rows} rows`)
  }
})

// 200 runs: a true 5 % shows as more than 9 % with probability 0.5 %; the fixed interval's share is far from both.
test(`looked at every 100 rows, a fixed interval leaves the truth out sooner or later, a confidence sequence does not (seed ${seed})`, (t) => {
  const [runs, rows, step] = [200, 5000, 100]
  const random = seeded(seed)
  const { candidate, values, draw } = logsOf({ ...designNamed('softmax, nearly disjoint'), rows }, random)
  const truth = values[watched.indexOf('quality')] as number
  const missed = { fixed: 0, sequence: 0 }
  for (let run = 0; run < runs; run++) {
    const sum = new RatioSum()
    const out = { fixed: false, sequence: false }
    let [weights, squares] = [0, 0]
    for (const [at, record] of draw('look').records.entries()) {
      const wanted = candidate.decide(record).candidates.find(({ model }) => model === record.chosen)?.probability ?? 0
      const weight = wanted / (record.candidates.find(({ model }) => model === record.chosen)?.probability ?? 1)
      weights += weight
      squares += weight ** 2
      sum.add(weight * (record.outcome?.quality ?? 0), weight)
      if ((at + 1) % step !== 0) continue
      const { value, se, low, high } = sum.close()
      out.fixed ||= !(low <= truth && truth <= high)
      if (weights ** 2 / squares < essDecidesFrom) continue
      const sequence = asymptoticInterval({
        count: at + 1,
        mean: value,
        variance: (at + 1) * se ** 2,
        tuning: rows / 2,
        alpha: 0.05,
      })
      out.sequence ||= !(sequence.low <= truth && truth <= sequence.high)
    }
    for (const kind of ['fixed', 'sequence'] as const) missed[kind] += Number(out[kind]) / runs
  }
  t.diagnostic(`left out at some look: ${JSON.stringify(missed)}`)
  assert.ok(missed.fixed > 0.2, 'to look often with a fixed interval would be harmless')
  assert.ok(missed.sequence <= 0.09, `the sequence leaves the truth out in ${missed.sequence}`)
})
