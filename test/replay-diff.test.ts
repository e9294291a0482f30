// What changes between two policies, as laws (counts add up, parts merge, order does not matter) and by the front door.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import fc from 'fast-check'
import {
  closeDiff,
  type Diff,
  diffRecord,
  diffRecords,
  mergeDiffs,
  segmentsBy,
  startDiff,
} from '../replay/diff/diff.ts'
import { diffText } from '../replay/diff/text.ts'
import { draw } from '../router/policy/chance.ts'
import { parsePolicy } from '../router/policy/policy.ts'
import { contextOf, type DecisionRecord, recordOf } from '../router/policy/record.ts'
import { contexts, outcomes, policies } from './arbitraries.ts'
import { logOf, seeded, truthFeatures } from './replay-truth.ts'

const policyOf = (text: string) => parsePolicy(text, truthFeatures)
const production = policyOf('name: production\nscore: candidate.rank\nchoose: {kind: highest}\nexplore: {rate: 0.2}')
const longToSmall = policyOf(`
name: long-to-small
score: 'request.input_tokens > 60.0 ? -candidate.rank : candidate.rank'
choose: {kind: highest}
`)
const log = logOf(production, 1500, seeded(7))
const segmentBy = segmentsBy(['category'])
const diff = diffRecords(log, longToSmall, { segmentBy, sampleSize: 4 })
const redecided = log.map((record) => ({ record, decision: longToSmall.decide(contextOf(record)) }))
const sum = (counts: readonly number[]) => counts.reduce((total, count) => total + count, 0)

test('under the policy that decided, nothing changes', () => {
  const same = diffRecords(log, production, { segmentBy, sampleSize: 4 })
  assert.equal(same.changed, 0)
  assert.equal(same.differingShare, 0)
  assert.deepEqual([same.costChanges, same.sample], [[], []])
  assert.ok(same.moves.every(({ from, to }) => from === to))
  assert.match(diffText(same, 'production'), /^0 of 1,500 decisions/)
})

test('counts are those of deciding every record again: in all, by move and by segment', () => {
  const changed = redecided.filter(({ record, decision }) => record.chosen !== decision.chosen)
  assert.equal(diff.changed, changed.length)
  assert.equal(sum(diff.moves.map(({ count }) => count)), log.length)
  assert.equal(sum(diff.segments.map(({ records }) => records)), log.length)
  for (const { name, records, changed: count, moves } of diff.segments) {
    assert.equal(records, log.filter((record) => segmentBy(record) === name).length)
    assert.equal(count, changed.filter(({ record }) => segmentBy(record) === name).length)
    assert.equal(sum(moves.map((move) => move.count)), records)
  }
  const { from, to, count } = diff.moves.find((move) => move.from !== move.to) as Diff['moves'][number]
  assert.equal(count, changed.filter(({ record, decision }) => record.chosen === from && decision.chosen === to).length)
})

test('the largest differences in predicted cost come first, and all of them add up', () => {
  const usdOf = (record: DecisionRecord, model: string | null) =>
    record.candidates.find((candidate) => candidate.model === model)?.features.cost_usd as number
  const differences = redecided
    .map(({ record, decision }) => usdOf(record, decision.chosen) - usdOf(record, record.chosen))
    .sort((a, b) => Math.abs(b) - Math.abs(a))
  assert.deepEqual(
    diff.costChanges.map(({ differenceUsd }) => differenceUsd),
    differences.slice(0, diff.costChanges.length),
  )
  assert.ok(Math.abs(diff.predictedCost.differenceUsd - sum(differences)) < 1e-9)
})

test('the feature by which the candidate decides otherwise sets changed requests apart most', () => {
  const [first] = diff.featureShifts
  assert.equal(first?.feature, 'request.input_tokens')
  assert.ok((first?.standardised ?? 0) > 0.3)
  assert.ok(first && first.changedMean > first.unchangedMean)
})

test('the sample is the changed decisions with the least draws, whatever the order of the log', () => {
  const expected = redecided
    .filter(({ record, decision }) => record.chosen !== decision.chosen)
    .map(({ record }) => record.id)
    .sort((a, b) => draw(a, 'replay', 'diff') - draw(b, 'replay', 'diff'))
    .slice(0, 4)
  for (const records of [log, log.toReversed()]) {
    const { sample } = diffRecords(records, longToSmall, { segmentBy, sampleSize: 4 })
    assert.deepEqual(
      sample.map(({ record }) => record.id),
      expected,
    )
  }
})

/** Sums of doubles depend on their order in the last digits. */
const rounded = (value: unknown): unknown =>
  JSON.parse(
    JSON.stringify(value, (_key, inner: unknown) => (typeof inner === 'number' ? Number(inner.toPrecision(9)) : inner)),
  )

test('two parts of a log, in any order, merge to the diff of the whole', () => {
  const traffic = fc.tuple(
    fc.array(fc.tuple(policies, contexts, outcomes), { minLength: 1, maxLength: 40 }),
    policies,
    fc.nat(40),
  )
  fc.assert(
    fc.property(traffic, ([asked, candidate, cut]) => {
      const records = asked.map(([policy, context, outcome]) => recordOf(context, policy.decide(context), outcome))
      const foldOf = (part: readonly DecisionRecord[]) => {
        const fold = startDiff({ sampleSize: 3 })
        for (const record of part)
          diffRecord(fold, record, candidate.decide(contextOf(record)), segmentsBy(['tier', 'category'])(record))
        return structuredClone(fold)
      }
      const whole = closeDiff(foldOf(records))
      const merged = closeDiff(mergeDiffs(foldOf(records.slice(cut)), foldOf(records.slice(0, cut))))
      assert.deepEqual(rounded(merged), rounded(whole))
      assert.ok(whole.differingShare >= 0 && whole.differingShare <= 1 + 1e-12)
    }),
    { numRuns: 50 },
  )
})

test('features of two parts are set apart as those of the whole are', () => {
  const foldOf = (part: readonly DecisionRecord[]) => {
    const fold = startDiff({ sampleSize: 0 })
    for (const record of part) diffRecord(fold, record, longToSmall.decide(contextOf(record)), '')
    return fold
  }
  const merged = closeDiff(mergeDiffs(foldOf(log.slice(700)), foldOf(log.slice(0, 700))))
  assert.deepEqual(rounded(merged.featureShifts), rounded(diff.featureShifts))
  assert.deepEqual(merged.sample, [])
})

test('segments are named by fields of the request and by tags', () => {
  const [record] = log as [DecisionRecord]
  const request = { ...record.request, tier: 'free', tags: { category: 'math', __proto__: 'x' } }
  assert.equal(segmentsBy(['tier', 'category', 'tenant'])({ ...record, request }), 'tier=free category=math')
  assert.equal(segmentsBy(['toString', 'tenant'])({ ...record, request }), '')
})

test('the text holds the matrix, segments, costs, features and explanations before and after', () => {
  const text = diffText(diff, 'long-to-small')
  assert.match(text, /^[\d,]+ of 1,500 decisions \(\d+ %\) come out otherwise under 'long-to-small'\./)
  assert.match(text, /From each row to each column:\n.*→ gemini-1\.5-pro-002/)
  assert.match(text, /By segment, most changes first:\n {2}category=/)
  assert.match(text, /Predicted cost of [\d,]+ changed decisions: −\$/)
  assert.match(text, /request\.input_tokens {2,}/)
  assert.match(text, /1 of 4 changed decisions, as it was:\n {2}Decision d-\d+ at/)
  assert.match(text, /and as it would be:\n {2}Policy long-to-small considered 5:/)
  assert.ok(text.split('\n').every((line) => line === line.trimEnd()))
})

let folder: string
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'signalbox-diff-'))
})
after(() => rm(folder, { recursive: true }))

/** Runs a sub-command in a process of its own. */
const typed = (command: 'diff' | 'check', ...args: string[]) => {
  const [file, name] = command === 'diff' ? ['diff/command.ts', 'diffCommand'] : ['audit/command.ts', 'checkCommand']
  const module = new URL(`../replay/${file}`, import.meta.url).href
  const code = `const { ${name} } = await import(${JSON.stringify(module)}); await ${name}().parseAsync(process.argv.slice(1), { from: 'user' })`
  const { status, stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', code, '--', ...args], {
    encoding: 'utf8',
  })
  return { code: status, output: stdout, problem: stderr }
}

const files = async (records: readonly DecisionRecord[]) => {
  const [source, policy, logged] = ['log.ndjson', 'candidate.json', 'logged.json'].map((name) => join(folder, name))
  await writeFile(source as string, records.map((record) => `${JSON.stringify(record)}\n`).join(''))
  await writeFile(policy as string, longToSmall.source)
  await writeFile(logged as string, production.source)
  return {
    source: ['--source', source as string],
    policy: ['--policy', policy as string],
    logged: ['--logged-policy', logged as string],
  }
}

test('the diff command tells the same numbers as JSON that the fold gives', async () => {
  const { source, policy, logged } = await files(log.slice(0, 200))
  const { code, output } = typed('diff', ...source, ...policy, ...logged, '--json', '--sample', '2')
  assert.equal(code, 0)
  const told = JSON.parse(output)
  const expected = diffRecords(log.slice(0, 200), longToSmall, {
    segmentBy: segmentsBy(['tier', 'category']),
    sampleSize: 2,
  })
  assert.deepEqual(told.moves, expected.moves)
  assert.deepEqual(told.segments, expected.segments)
  assert.equal(told.sample.length, 2)
  assert.equal(told.candidate.hash, longToSmall.hash)
  assert.equal(told.verification.reproduced, 200)
})

test('the diff command refuses a log that is not verified: on no word when it differs, on none when it cannot be checked', async () => {
  const [first, ...rest] = log.slice(0, 50) as [DecisionRecord, ...DecisionRecord[]]
  const clean = await files([first, ...rest])
  const unverified = typed('diff', ...clean.source, ...clean.policy)
  assert.equal(unverified.code, 3)
  assert.match(unverified.output, /0\.000 % of 50 decisions come out as logged/)
  assert.equal(typed('diff', ...clean.source, ...clean.policy, '--trust-propensities').code, 0)
  const wrong = await files([{ ...first, explored: !first.explored }, ...rest])
  const refused = typed('diff', ...wrong.source, ...wrong.policy, ...wrong.logged, '--trust-propensities')
  assert.equal(refused.code, 3)
  assert.match(refused.output, /the first field that differs is explored/)
})

test('the check command exits 0 where nothing forbids estimates and 3 where something does', async () => {
  const good = await files(log.slice(0, 200))
  const text = typed('check', ...good.source)
  assert.equal(text.code, 0)
  assert.match(text.output, /✓ 200 decisions were checked/)
  const bad = await files(log.slice(0, 200).map((record) => ({ ...record, plan: record.plan.toReversed() })))
  const { code, output } = typed('check', ...bad.source, '--json')
  assert.equal(code, 3)
  assert.deepEqual(JSON.parse(output).findings[0].kind, 'choice-not-first')
})
