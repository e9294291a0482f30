// What must not slip through: outcomes that stay away, draws that are shared, choices that were never tried, events too rare
// to be seen. Each is a small simulated log with a truth that is known, on which an earlier rule promoted or misled.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { disagrees, gateOf } from '../replay/judge/gate.ts'
import { checksOf } from '../replay/report/checks.ts'
import { remedyText } from '../replay/report/remedies.ts'
import { reportText } from '../replay/report/text.ts'
import { verdictSentence } from '../replay/report/words.ts'
import { seeded } from './replay-truth.ts'
import {
  allB,
  type Candidates,
  finding,
  judged,
  kinds,
  logged,
  of,
  policy,
  ruled,
  two,
  weighted,
} from './replay-two-models.ts'

test('feedback that stays away when the answer was wrong cannot promote; that it is random must be said', () => {
  const random = seeded(12345)
  const mostly = weighted('production', 0.9, 0.1)
  const records = logged(mostly, 6000, (model) => {
    const right = random() < (model === 'A' ? 0.8 : 0.5)
    return { quality: model === 'B' && !right ? null : Number(right) }
  })
  const result = judged(records, [mostly])
  assert.equal(result.verdict.kind, 'inconclusive')
  const { difference } = of(result, 'quality')
  assert.ok(difference.low < -0.3 && difference.high > -0.3, 'the truth, −0.27, is inside')
  const [remedy] = result.verdict.remedies
  assert.ok(remedy?.kind === 'feedback' && remedy.share !== null && Math.abs(remedy.share - 0.5) < 0.1)
  assert.match(remedyText(remedy), /missing for 5\d % .*--missing-at-random/)
  const assumed = judged(records, [mostly], allB, { missingAtRandom: true })
  assert.notEqual(finding(assumed, 'quality'), 'open')
  assert.match(reportText(assumed, { colour: false }), /missing at random/)
})

test('a cost that is unknown for more than one percent of the candidate’s traffic is not judged', () => {
  const random = seeded(4)
  const half = weighted('production', 0.5, 0.5)
  const records = logged(half, 3000, (model) => ({
    quality: Number(random() < 0.8),
    ...(model === 'B' && random() < 0.05 ? { cost_usd: null } : {}),
  }))
  assert.deepEqual(kinds(judged(records, [half])), ['missing-outcomes'])
  assert.ok(!kinds(judged(records, [half], allB, { missingAtRandom: true })).includes('missing-outcomes'))
})

test('rows whose draw is shared by user or by tenant count as one', () => {
  for (const per of ['user', 'tenant'] as const) {
    const shared = weighted('production', 0.5, 0.5, per)
    const random = seeded(8)
    const taste = Array.from({ length: 200 }, random)
    const quality = (at: number) => Number(random() < (taste[at % 200] ?? 0))
    const records = logged(
      shared,
      4000,
      (_, at) => ({ quality: quality(at) }),
      (at) => ({ [per]: `k-${at % 200}` }),
    )
    const result = judged(records, [shared])
    assert.equal(result.clusters, 200)
    assert.ok(result.diagnostics.effective.ess < 200)
    const effective = checksOf(result).find(({ name }) => name === 'effective sample')
    assert.match(effective?.found ?? '', new RegExp(`200 groups that share a session or ${per}`))
    const { difference } = of(result, 'quality')
    assert.ok(difference.low < 0 && difference.high > 0, 'the truth, 0, is inside')
  }
})

test('sessions and users that overlap are one cluster; without a policy text, users count together', () => {
  const half = weighted('production', 0.5, 0.5)
  const ask = (at: number) => ({ session: `s-${at >> 1}`, user: `u-${(at + 1) >> 1}` })
  const records = logged(half, 100, () => ({ quality: 1 }), ask)
  assert.equal(judged(records, []).clusters, 1)
  assert.equal(judged(records, [half]).clusters, 50)
})

test('the change must be shown on the rows with feedback, not on all', () => {
  const mostly = weighted('production', 0.9, 0.1)
  const some = ruled('some', '{A: 0, B: 1}', '{A: 0.9, B: 0.1}')
  const random = seeded(1)
  const records = logged(
    mostly,
    12_000,
    () => ({ quality: random() < 0.1 ? Number(random() < 0.8) : null }),
    (at) => ({ category: at % 10 === 0 ? 'x' : 'y' }),
  )
  const result = judged(records, [mostly], some, { missingAtRandom: true })
  assert.ok(result.diagnostics.change.ess > 100)
  assert.equal(result.verdict.thin?.of, 'change')
  assert.ok((result.verdict.thin?.ess ?? 0) < 30)
})

test('what was never tried costs what the router predicted, and is refused where it predicted nothing', () => {
  const tries = weighted('production', 0.7, 0.3)
  const withZ = (usd: number | null): Candidates => [...two, { model: 'Z', features: { cost_usd: usd } }]
  const some = ruled('some', '{Z: 1}', '{B: 1}')
  const log = (usd: number | null) => {
    const random = seeded(3)
    return logged(
      tries,
      5000,
      () => ({ quality: Number(random() < 0.8) }),
      (at) => ({ candidates: withZ(usd), category: at % 120 === 0 ? 'x' : 'y' }),
    )
  }
  const dear = judged(log(5), [tries], some)
  assert.equal(dear.verdict.kind, 'reject')
  assert.ok(Math.abs(of(dear, 'cost_usd').candidate.value - (5 / 120 + 0.001)) < 0.002)
  assert.ok(of(dear, 'failed').difference.high > 1 / 120, 'the untried may all fail')
  assert.deepEqual(kinds(judged(log(null), [tries], some)), ['unpredicted'])
})

test('clients that give up are guarded like failures, and are not printed where there are none', () => {
  const half = weighted('production', 0.5, 0.5)
  const random = seeded(6)
  const leaving = logged(half, 3000, (model) => ({
    quality: Number(random() < 0.8),
    status: model === 'B' && random() < 0.3 ? 'client-abort' : 'ok',
  }))
  const result = judged(leaving, [half])
  assert.equal(result.verdict.kind, 'reject')
  assert.equal(finding(result, 'abandoned'), 'harm')
  assert.match(reportText(result, { colour: false }), /given up by the client, %/)
  const staying = judged(
    logged(half, 3000, () => ({ quality: Number(random() < 0.8) })),
    [half],
  )
  assert.doesNotMatch(reportText(staying, { colour: false }), /given up by/)
})

test('DR and SNIPS are held apart by the error of their gap, which scatters as it says, and one rule judges it', () => {
  const mostly = weighted('production', 0.8, 0.2)
  const scores: number[] = []
  for (let seed = 1; seed <= 40; seed++) {
    const random = seeded(seed)
    const outcome = (model: string) => ({ quality: Number(random() < (model === 'A' ? 0.7 : 0.75)) })
    const result = judged(logged(mostly, 800, outcome, undefined, `s${seed}`), [mostly])
    const quality = of(result, 'quality')
    scores.push(quality.disagreementSe)
    const bad = gateOf({ goal: 'cost_usd', metrics: result.metrics }).filter((part) => disagrees(part, 0.02))
    assert.equal(
      checksOf(result).filter(({ name, state }) => name.startsWith('DR') && state === 'bad').length,
      bad.length,
    )
    assert.equal(kinds(result).filter((kind) => kind === 'disagreement').length, bad.length)
  }
  const meanSquare = scores.reduce((sum, score) => sum + score * score, 0) / scores.length
  assert.ok(meanSquare > 0.1 && meanSquare < 2, `a unit of its own has a mean square near 1, found ${meanSquare}`)
})

test('following the advice to explore leads to a verdict', () => {
  const fixed = weighted('fixed', 1, 0)
  const some = ruled('some', '{A: 0, B: 1}', '{A: 1, B: 0}')
  const random = seeded(2)
  const outcome = () => ({ quality: Number(random() < 0.8) })
  const ask = (at: number) => ({ category: at % 2 === 0 ? 'x' : 'y' })
  const refused = judged(logged(fixed, 2000, outcome, ask), [fixed], some)
  assert.ok(!kinds(refused).includes('disagreement'), 'DR and SNIPS speak of different traffic')
  const remedy = refused.verdict.remedies.find(({ kind }) => kind === 'explore')
  assert.ok(remedy?.kind === 'explore')
  const exploring = policy(
    'exploring',
    `choose: {kind: weighted, weights: {A: 1, B: 0}}\nexplore: {rate: ${remedy.rate}, floor: ${remedy.floor}}`,
  )
  const followed = judged(logged(exploring, Math.round(remedy.rows * 1.1), outcome, ask), [exploring], some)
  assert.ok(followed.diagnostics.change.ess > 90, `${followed.diagnostics.change.ess} of ${remedy.rows} rows`)
  assert.equal(followed.verdict.thin, null)
})

test('asking anew counts the changed rows, and is not an instruction', () => {
  const fixed = weighted('fixed', 1, 0)
  const some = ruled('some', '{A: 0, B: 1}', '{A: 1, B: 0}')
  const records = logged(
    fixed,
    1000,
    () => ({ quality: 1 }),
    (at) => ({ category: at % 50 === 0 ? 'x' : 'y' }),
  )
  const remedy = judged(records, [fixed], some).verdict.remedies.find(({ kind }) => kind === 'reexecute')
  assert.ok(remedy?.kind === 'reexecute')
  assert.equal(remedy.calls, 20)
  assert.match(remedyText(remedy), /it would take/)
})

test('two alike are never told apart, and it is said that no rows will do it', () => {
  const mostly = weighted('production', 0.9, 0.1)
  for (const cost of [0, 0.01]) {
    const records = logged(mostly, 3000, () => ({ cost_usd: cost, quality: 1 }))
    const result = judged(records, [mostly], weighted('half', 0.5, 0.5))
    assert.equal(of(result, 'cost_usd').difference.value, 0)
    const [remedy] = result.verdict.remedies
    assert.match(remedy ? remedyText(remedy) : '', /^No number of rows/)
    assert.doesNotMatch(reportText(result, { colour: false }), /NaN|0\.00000/)
  }
})

test('the bound on what was never seen falls with the rows, not with their root', () => {
  const half = weighted('production', 0.5, 0.5)
  const random = seeded(5)
  const records = logged(half, 600, (model) => ({ quality: Number(random() < (model === 'A' ? 0.5 : 0.8)) }))
  const result = judged(records, [half], allB, { margin: 0.005 })
  assert.equal(finding(result, 'failed'), 'open')
  const [remedy] = result.verdict.remedies
  const wanted = 600 * (3.689 / result.diagnostics.change.ess / 0.005 - 1)
  assert.ok(remedy?.kind === 'rows' && Math.abs(remedy.rows - wanted) < 5, `${JSON.stringify(remedy)} ${wanted}`)
})

test('failures that only the rare choice lacks are not proof of none', () => {
  const mostly = weighted('production', 0.95, 0.05)
  const random = seeded(9)
  const records = logged(mostly, 6000, (model) => ({
    quality: 1,
    status: model === 'A' && random() < 0.003 ? 'error' : 'ok',
  }))
  const result = judged(records, [mostly], allB, { margin: 0.005 })
  const { difference, diagnostics } = of(result, 'failed')
  assert.ok(difference.se > 0)
  assert.ok(difference.high >= 3.6 / diagnostics.change.ess - 0.005)
  assert.notEqual(result.verdict.kind, 'promote')
})

test('several logged policies are pointed out, and the verdict says once what it is against', () => {
  const [one, other] = [weighted('one', 0.8, 0.2), weighted('other', 0.3, 0.7)]
  const random = seeded(10)
  const outcome = () => ({ quality: Number(random() < 0.8) })
  const records = [...logged(one, 1500, outcome), ...logged(other, 1500, outcome, undefined, 'e')]
  const result = judged(records, [one, other])
  const check = checksOf(result).find(({ name }) => name === 'logged policies')
  assert.match(check?.found ?? '', /^2 policies decided these; .*--against HASH/)
  assert.equal(verdictSentence(result).split('against production').length, 2)
})

test('probabilities that were rounded are named as that', () => {
  const half = weighted('production', 0.5, 0.5)
  const records = logged(half, 300, () => ({ quality: 1 })).map((record) => ({
    ...record,
    candidates: record.candidates.map((c) => ({ ...c, probability: 0.4995 })),
  }))
  const { verdict } = judged(records, [], allB, { trustPropensities: true })
  assert.ok(verdict.remedies.some(({ kind }) => kind === 'unrounded-propensities'))
})
