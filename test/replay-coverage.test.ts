// Whether the intervals keep their promise: on traffic whose truth is known, over many logs and several logging designs.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { MetricResult } from '../replay/estimate/evaluate.ts'
import { essDecidesFrom, essRefusedBelow } from '../replay/judge/gate.ts'
import { replay, replayDefaults } from '../replay/run.ts'
import { parsePolicy } from '../router/policy/policy.ts'
import { logOf, repeatedLogs, seeded, truthFeatures, truthOf } from './replay-truth.ts'

const seed = Number(process.env.SEED ?? 7)
const repetitions = 200
const quick = { ...replayDefaults, replicates: 0 }
const oneModel = `score: 'candidate.rank == 3.0 ? 1.0 : 0.0'\nchoose: {kind: highest}`

const epsilonGreedy = (rate: number) =>
  `name: production\nscore: candidate.rank\nchoose: {kind: highest}\nexplore: {rate: ${rate}}`
/** Logging policies against candidates, from little overlap to much; each with an effective size above 250. */
const designs = [
  {
    name: 'ε-greedy 50 %, all to one other model',
    rows: 3000,
    production: epsilonGreedy(0.5),
    candidate: `name: c\n${oneModel}`,
  },
  {
    name: 'ε-greedy 80 %, short requests to another model',
    rows: 1800,
    production: epsilonGreedy(0.8),
    candidate: `name: c\nrules:\n  - {name: short, when: request.input_tokens < 60.0, use: {score: 'candidate.rank == 3.0 ? 1.0 : 0.0', choose: {kind: highest}}}\n  - {name: rest, use: {score: candidate.rank, choose: {kind: highest}}}`,
  },
  {
    name: 'softmax, sharper softmax',
    rows: 1200,
    production: 'name: production\nscore: candidate.rank\nchoose: {kind: softmax, temperature: 2}',
    candidate: 'name: c\nscore: candidate.rank\nchoose: {kind: softmax, temperature: 0.8}',
  },
]

// The seed is fixed, so the outcome is too. Over seeds: with true coverage 95 %, the share of 600 repetitions falls outside
// [92 %, 97 %] with probability 1.3 % (binomial); the seed in use is printed.
test(`on MMLU-Pro, 95 % intervals of DR hold the true quality in 92 to 97 % of 600 logs (seed ${seed})`, (t) => {
  const held = { value: 0, difference: 0, dm: 0 }
  const random = seeded(seed)
  for (const design of designs) {
    const production = parsePolicy(design.production, truthFeatures)
    const policy = parsePolicy(design.candidate, truthFeatures)
    const [before, after] = [production, policy].map((p) => truthOf(p, ({ quality }) => quality ?? 0)) as [
      number,
      number,
    ]
    const { log, candidate } = repeatedLogs(production, policy, random)
    for (let repetition = 0; repetition < repetitions; repetition++) {
      const { metrics, diagnostics } = replay(log(design.rows, `${repetition}`), [], candidate, quick)
      assert.ok(diagnostics.effective.ess >= essDecidesFrom * 0.9, `${design.name}: ESS ${diagnostics.effective.ess}`)
      const { estimators, difference } = metrics.find(({ metric }) => metric === 'quality') as MetricResult
      held.value += Number(estimators.dr.low <= after && after <= estimators.dr.high)
      held.difference += Number(difference.low <= after - before && after - before <= difference.high)
      held.dm += Number(estimators.dm.low <= after && after <= estimators.dm.high)
    }
  }
  const share = (hits: number) => hits / (repetitions * designs.length)
  t.diagnostic(`value ${share(held.value)}, difference ${share(held.difference)}, DM ${share(held.dm)}`)
  for (const coverage of [share(held.value), share(held.difference)])
    assert.ok(coverage >= 0.92 && coverage <= 0.97, `covered ${coverage}`)
  assert.ok(share(held.dm) < 0.6, 'the direct method would be believed although its intervals miss the truth')
})

test('no verdict is given below an effective sample size of 100', () => {
  const production = parsePolicy(epsilonGreedy(0.3), truthFeatures)
  const candidate = parsePolicy(`name: c\n${oneModel}`, truthFeatures)
  const random = seeded(seed)
  for (let repetition = 0; repetition < 20; repetition++) {
    const rows = 200 + 150 * repetition
    const { verdict, diagnostics } = replay(logOf(production, rows, random), [production], candidate, replayDefaults)
    const { ess } = diagnostics.effective
    if (ess < essRefusedBelow) assert.equal(verdict.exitCode, 3, `ESS ${ess} of ${rows} rows`)
    else if (ess < essDecidesFrom) assert.ok(verdict.exitCode >= 2, `ESS ${ess} of ${rows} rows`)
  }
})
