// The rule of the gate on real outcomes: when it promotes, rejects, leaves open and refuses, and what it says would help.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { checksOf } from '../replay/report/checks.ts'
import { type Replay, type ReplayOptions, replay, replayDefaults } from '../replay/run.ts'
import { parsePolicy } from '../router/policy/policy.ts'
import { type DecisionRecord, decisionRecordSchema } from '../router/policy/record.ts'
import { drawPrompt, logOf, prompts, recordFor, seeded, truthFeatures } from './replay-truth.ts'

const policy = (name: string, body: string) => parsePolicy(`name: ${name}\n${body}`, truthFeatures)
const only = (rank: number) => `score: 'candidate.rank == ${rank}.0 ? 1.0 : 0.0'\nchoose: {kind: highest}`
const production = policy('production', 'score: candidate.rank\nchoose: {kind: highest}\nexplore: {rate: 0.9}')
const cheaperAndAsGood = policy('cheaper', only(3))
const cheaperAndWorse = policy('worse', only(1))
const log = logOf(production, 4000, seeded(3))

const judged = (
  records: readonly DecisionRecord[],
  candidate = cheaperAndAsGood,
  options: Partial<ReplayOptions> = {},
): Replay => replay(records, [production], candidate, { ...replayDefaults, ...options })
const refusals = ({ verdict }: Replay) => verdict.refusals.map(({ kind }) => kind)
const remedies = ({ verdict }: Replay) => verdict.remedies.map(({ kind }) => kind)

test('a cheaper policy that answers as well is promoted', () => {
  const { verdict } = judged(log)
  assert.equal(verdict.kind, 'promote')
  assert.equal(verdict.exitCode, 0)
})

test('a policy that saves money by answering worse is rejected for quality', () => {
  const { verdict } = judged(log, cheaperAndWorse)
  assert.equal(verdict.exitCode, 1)
  assert.deepEqual(
    verdict.findings.filter(({ result }) => result === 'harm').map(({ metric }) => metric),
    ['quality'],
  )
})

test('a goal that gets worse is harm too', () => {
  const { verdict } = judged(log, cheaperAndAsGood, { goal: 'latency_ms' })
  assert.equal(verdict.exitCode, 1)
  assert.equal(verdict.findings.find(({ role }) => role === 'goal')?.result, 'harm')
})

test('too few rows leave the verdict open and say how many more it takes', () => {
  const result = judged(log.slice(0, 1000))
  assert.equal(result.verdict.exitCode, 2)
  assert.equal(result.verdict.thin?.of, 'all')
  const [remedy] = result.verdict.remedies
  assert.ok(remedy?.kind === 'rows' && remedy.rows > 500 && remedy.rows < 10_000 && remedy.days !== null)
})

test('far too few rows are refused with the rows that would do', () => {
  const result = judged(log.slice(0, 500))
  assert.equal(result.verdict.exitCode, 3)
  assert.deepEqual(refusals(result), ['sample-size'])
  assert.deepEqual(remedies(result), ['rows', 'reexecute'])
})

test('where production never explored, another policy cannot be judged, and the remedies are exploration or asking anew', () => {
  const fixed = policy('fixed', only(4))
  const result = replay(logOf(fixed, 1000, seeded(1)), [fixed], cheaperAndAsGood, replayDefaults)
  assert.equal(result.verdict.exitCode, 3)
  assert.deepEqual(refusals(result), ['zero-support', 'sample-size'])
  assert.deepEqual(remedies(result), ['explore', 'reexecute'])
  assert.equal(result.shares.unsupported, 1)
  const bounds = result.metrics.find(({ metric }) => metric === 'quality')?.bounds
  assert.ok(bounds && bounds.low < 0.01 && bounds.high > 0.99, 'without evidence quality may be anything')
})

test('probabilities logged 20 % too low for one arm are found out', () => {
  const arm = 'gemini-1.5-pro-002'
  const wrong = log.map((record) => {
    const off = (record.candidates.find(({ model }) => model === arm)?.probability ?? 0) * 0.2
    const others = record.candidates.length - 1
    const candidates = record.candidates.map((c) => ({
      ...c,
      probability: c.model === arm ? c.probability - off : c.probability + off / others,
    }))
    return { ...record, candidates }
  })
  const result = replay(wrong, [production], cheaperAndAsGood, { ...replayDefaults, trustPropensities: true })
  assert.ok(refusals(result).includes('weight-audit'))
  assert.ok(refusals(result).includes('fidelity'))
})

test('an arm that is likely on paper but never drawn is not evidence', () => {
  const half = policy('half', 'choose: {kind: weighted, weights: {gemma-7b: 1, gemini-1.5-pro-002: 1}}')
  const rare = policy('rare', 'choose: {kind: weighted, weights: {gemma-7b: 1, gemini-1.5-pro-002: 9999}}')
  const records = logOf(rare, 2000, seeded(5)).filter(({ chosen }) => chosen !== 'gemma-7b')
  const result = replay(records, [rare], half, replayDefaults)
  assert.ok(result.diagnostics.effective.seen > 1900)
  assert.ok(result.diagnostics.effective.ess < 10)
  assert.deepEqual(refusals(result), ['sample-size'])
})

test('a difference that hangs on a handful of rows is not decided by the size of the rest', () => {
  const mostly = policy('mostly', 'score: candidate.rank\nchoose: {kind: highest}\nexplore: {rate: 0.02}')
  const math = policy(
    'math',
    `rules:\n  - {name: math, when: 'request.tags["category"] == "math"', use: {score: 'candidate.rank == 3.0 ? 1.0 : 0.0', choose: {kind: highest}}}\n  - {name: rest, use: {score: candidate.rank, choose: {kind: highest}, explore: {rate: 0.02}}}`,
  )
  const result = replay(logOf(mostly, 12_000, seeded(2)), [mostly], math, replayDefaults)
  assert.ok(result.diagnostics.effective.ess > 250)
  assert.equal(result.verdict.exitCode, 2)
  assert.equal(result.verdict.thin?.of, 'change')
})

test('rows kept by sampling count for those that were not', () => {
  const random = seeded(11)
  const sampled = log.flatMap((record) => {
    const keep = record.outcome?.quality === 1 ? 0.5 : 1
    return random() < keep ? [{ ...record, keep_probability: keep }] : []
  })
  const quality = ({ metrics }: Replay) => metrics.find(({ metric }) => metric === 'quality')?.logged.value ?? 0
  assert.ok(Math.abs(quality(judged(sampled)) - quality(judged(log))) < 0.02)
})

test('feedback that is missing is counted, and models whose users answer rarely keep their weight', () => {
  const random = seeded(13)
  const rarely = log.map((record) => {
    const answers = random() < (record.chosen === 'gemini-1.5-pro-002' ? 0.5 : 0.9)
    return record.outcome && !answers ? { ...record, outcome: { ...record.outcome, quality: null } } : record
  })
  const [whole, part] = [judged(log), judged(rarely)].map(({ metrics }) =>
    metrics.find(({ metric }) => metric === 'quality'),
  )
  assert.ok(part && whole && part.missingShare > 0.1 && part.rows + part.missing === log.length)
  assert.ok(Math.abs(part.difference.value - whole.difference.value) < 0.03)
  assert.ok(part.difference.se > whole.difference.se)
})

test('without any feedback quality cannot be guarded, and that is said', () => {
  const silent = log.map((record) =>
    record.outcome ? { ...record, outcome: { ...record.outcome, quality: null } } : record,
  )
  const result = judged(silent)
  assert.deepEqual(refusals(result), ['no-outcomes'])
  assert.deepEqual(remedies(result), ['feedback'])
})

test('two requests of one session count as one when one draw decided both', () => {
  const sticky = policy('sticky', 'score: candidate.rank\nchoose: {kind: highest}\nexplore: {rate: 0.5, per: session}')
  const random = seeded(17)
  const records = Array.from({ length: 4000 }, (_, at) =>
    recordFor(drawPrompt(random), sticky, `d-${at}`, `s-${at >> 3}`),
  )
  const { diagnostics, verdict } = replay(records, [sticky], cheaperAndAsGood, replayDefaults)
  assert.ok(diagnostics.effective.ess < 100, `${diagnostics.effective.ess}`)
  assert.equal(verdict.exitCode, 3)
})

test('the same decision twice counts once; probabilities that cannot be true refuse', () => {
  assert.equal(judged([...log, ...log.slice(0, 10)]).duplicates, 10)
  const [first, ...rest] = log as [DecisionRecord, ...DecisionRecord[]]
  const broken = { ...first, candidates: first.candidates.map((c) => ({ ...c, probability: 0.5 })) }
  assert.ok(refusals(judged([broken, ...rest])).includes('impossible-probabilities'))
})

test("another system's log without hashes is used only on someone's word, and the report carries it", () => {
  const foreign = log.map(({ engine, reason, plan, ...record }) =>
    decisionRecordSchema.parse({ ...record, policy: { name: 'theirs' } }),
  )
  const doubted = judged(foreign)
  assert.deepEqual(refusals(doubted), ['unverifiable'])
  assert.deepEqual(remedies(doubted), ['trust'])
  const trusted = judged(foreign, cheaperAndAsGood, { trustPropensities: true })
  assert.equal(trusted.verdict.exitCode, 0)
  assert.equal(trusted.options.trustPropensities, true)
})

test('an empty log is refused, not divided by', () => {
  const result = judged([])
  assert.equal(result.verdict.exitCode, 3)
  assert.deepEqual(refusals(result), ['no-rows'])
  assert.ok(prompts.length > 12_000)
})

test('a stated bound on weights gives an interval that no distribution breaks, and a weight beyond it is found out', () => {
  // The least probability that production gives a model is 0.9 / 5.
  const stated = judged(log, cheaperAndAsGood, { weightBound: 1 / 0.18 })
  const quality = stated.metrics.find(({ metric }) => metric === 'quality')
  const { ips } = quality?.estimators ?? {}
  assert.ok(quality?.bernstein && ips)
  assert.ok(quality.bernstein.low < ips.low && quality.bernstein.high > ips.high)
  assert.ok(quality.bernstein.high - quality.bernstein.low < 0.5, 'wide, and still of use')
  assert.equal(checksOf(stated).find(({ name }) => name === 'weight bound')?.state, 'good')
  const wrong = judged(log, cheaperAndAsGood, { weightBound: 2 })
  assert.equal(checksOf(wrong).find(({ name }) => name === 'weight bound')?.state, 'bad')
  assert.ok(wrong.metrics.every(({ bernstein }) => bernstein === null))
})
