// Fidelity as laws: every policy's traffic comes out as logged to the bit, and whatever was changed is named.
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { after, test } from 'node:test'
import { Worker } from 'node:worker_threads'
import fc from 'fast-check'
import { digestSql } from '../replay/redecide/digest.ts'
import {
  closeVerification,
  type LoggedPolicy,
  mergeVerifications,
  shelve,
  startVerification,
  type VerificationFold,
  verify,
  verifyRecord,
} from '../replay/redecide/verify.ts'
import { replay, replayDefaults } from '../replay/run.ts'
import { toAttributes } from '../router/policy/attributes.ts'
import { featureTypesOf, parsePolicy } from '../router/policy/policy.ts'
import { type DecisionRecord, decisionRecordSchema, recordOf } from '../router/policy/record.ts'
import { contexts, featureTypes, outcomes, policies } from './arbitraries.ts'
import { jsonRequest, jsonSpan, otlpAttributes, post, rowsOf, temporaryCollector } from './collector-fixtures.ts'
import { logOf, seeded, truthFeatures } from './replay-truth.ts'

/** Traffic of one policy, written out and read back as a file would. */
const traffic = fc
  .tuple(policies, fc.uniqueArray(contexts, { minLength: 1, maxLength: 12, selector: ({ id }) => id }), outcomes)
  .map(([policy, asked, outcome]) => ({
    policy,
    records: asked.map((context) =>
      decisionRecordSchema.parse(JSON.parse(JSON.stringify(recordOf(context, policy.decide(context), outcome)))),
    ),
  }))

const shelf = (...logged: LoggedPolicy[]) => shelve(logged, featureTypes)

test('traffic verified against the policy that captured it comes out as logged, to the bit', () => {
  fc.assert(
    fc.property(traffic, ({ policy, records }) => {
      const { groups, reproduced, digest } = verify(records, shelf(policy))
      assert.deepEqual(groups, [])
      assert.equal(reproduced, records.length)
      assert.equal(digest.redecided, digest.logged)
    }),
  )
})

test('traffic replayed under the policy that captured it comes out unchanged, and every difference is exactly 0', () => {
  fc.assert(
    fc.property(traffic, ({ policy, records }) => {
      const { shares, moves, metrics, verdict, diagnostics } = replay(records, [policy], policy, {
        ...replayDefaults,
        replicates: 0,
      })
      assert.deepEqual(moves, [])
      assert.equal(shares.observed, 1)
      assert.equal(diagnostics.weightMax, 1)
      assert.equal(verdict.unchanged, true)
      for (const { rows, difference, production, candidate } of metrics) {
        if (rows === 0) continue
        assert.equal(difference.value, 0)
        assert.equal(candidate.value, production.value)
      }
    }),
    { numRuns: 30 },
  )
})

type Tampering = { readonly field: string; readonly tamper: (record: DecisionRecord) => DecisionRecord }
const inFirst = (change: (candidate: DecisionRecord['candidates'][number]) => object) => (record: DecisionRecord) => ({
  ...record,
  candidates: record.candidates.map((candidate, at) => (at === 0 ? { ...candidate, ...change(candidate) } : candidate)),
})
/** The same number with its last bit flipped. */
const otherBits = (value: number): number => {
  const view = new DataView(new ArrayBuffer(8))
  view.setFloat64(0, value)
  view.setUint8(7, view.getUint8(7) ^ 1)
  return view.getFloat64(0)
}
const tamperings: readonly Tampering[] = [
  { field: 'path', tamper: (record) => ({ ...record, path: [...record.path, 'arm:other'] }) },
  { field: 'candidates.eligible', tamper: inFirst(({ eligible }) => ({ eligible: !eligible })) },
  { field: 'candidates.exclusion', tamper: inFirst(() => ({ exclusion: { kind: 'rule', name: 'other' } })) },
  {
    field: 'candidates.score',
    tamper: inFirst(({ score }) => ({ score: otherBits(score ?? 0) })),
  },
  {
    field: 'candidates.probability',
    tamper: inFirst(({ probability }) => ({ probability: otherBits(probability) })),
  },
  { field: 'reason', tamper: (record) => ({ ...record, reason: record.reason === 'pinned' ? 'softmax' : 'pinned' }) },
  { field: 'explored', tamper: (record) => ({ ...record, explored: !record.explored }) },
  { field: 'plan', tamper: (record) => ({ ...record, plan: [...record.plan, 'other'] }) },
]

test('a record that was tampered with in one field is found, and the field is named', () => {
  fc.assert(
    fc.property(traffic, fc.constantFrom(...tamperings), ({ policy, records }, { field, tamper }) => {
      const [first, ...rest] = records as [DecisionRecord, ...DecisionRecord[]]
      const { differing, groups, digest } = verify([tamper(first), ...rest], shelf(policy))
      assert.equal(differing, 1)
      assert.deepEqual(groups[0]?.cause, { kind: 'field', field })
      assert.notEqual(digest.redecided, digest.logged)
      assert.equal(groups[0]?.examples[0]?.id, first.id)
    }),
  )
})

test('decisions of a policy that is not at hand, of another engine, or without either are named as such', () => {
  fc.assert(
    fc.property(traffic, ({ policy, records }) => {
      const [record] = records as [DecisionRecord]
      const causeOf = (changed: DecisionRecord, ...logged: LoggedPolicy[]) =>
        verify([changed], shelf(...logged)).groups[0]?.cause.kind
      assert.equal(causeOf(record), 'policy-missing')
      assert.equal(causeOf({ ...record, engine: '0' }, policy), 'engine-version')
      assert.equal(causeOf({ ...record, policy: { name: 'theirs', hash: '' } }, policy), 'no-identity')
      assert.equal(
        causeOf(record, { ...policy, source: policy.source.replace('random', 'another') }),
        'policy-unreadable',
      )
    }),
    { numRuns: 20 },
  )
})

const priced = parsePolicy(
  `name: priced
score: candidate.rank - 1000.0 * candidate.cost_usd
choose: {kind: softmax, temperature: 2}
explore: {rate: 0.1}`,
  truthFeatures,
)
const log = logOf(priced, 2000, seeded(7))
const withFeatures = (
  record: DecisionRecord,
  change: (features: DecisionRecord['candidates'][number]['features']) => object,
): DecisionRecord =>
  decisionRecordSchema.parse({
    ...record,
    candidates: record.candidates.map((candidate) => ({ ...candidate, features: change(candidate.features) })),
  })

test('a record without a feature that the policy reads is a missing snapshot, which names the feature', () => {
  const [first, ...rest] = log as [DecisionRecord, ...DecisionRecord[]]
  const cut = (record: DecisionRecord) => withFeatures(record, ({ rank: _, ...others }) => others)
  const one = verify([cut(first), ...rest], shelve([priced], truthFeatures))
  assert.deepEqual(
    one.groups.map(({ cause, count }) => ({ cause, count })),
    [{ cause: { kind: 'missing-snapshot', features: ['rank'] }, count: 1 }],
  )
  assert.deepEqual([one.differing, one.unverifiable], [0, 1])
  const none = log.slice(0, 5).map(cut)
  const all = verify(none, shelve([priced], featureTypesOf(none)))
  assert.deepEqual(all.groups[0]?.cause, { kind: 'missing-snapshot', features: ['rank'] })
  assert.equal(all.unverifiable, 5)
})

test('a feature that is recorded as unknown is no missing snapshot: a score beside it is a difference', () => {
  const [first] = log as [DecisionRecord]
  const unknown = withFeatures(first, (features) => ({ ...features, rank: null }))
  const { groups, differing } = verify([unknown], shelve([priced], truthFeatures))
  assert.deepEqual(groups[0]?.cause, { kind: 'field', field: 'candidates.eligible' })
  assert.equal(differing, 1)
})

test('scores that come out otherwise under recorded prices point to the price table', () => {
  const dearer = log.map((record) =>
    withFeatures(record, (features) => ({ ...features, cost_usd: 1.1 * (features.cost_usd as number) })),
  )
  const { groups, differing } = verify(dearer, shelve([priced], truthFeatures))
  assert.deepEqual(groups[0]?.cause, { kind: 'price-table', features: ['cost_usd'] })
  assert.equal(differing, log.length)
})

/** Every seventh decision is changed in one of three ways. */
const mixed = log.map((record, at): DecisionRecord => {
  if (at % 7 > 0) return record
  if (at % 3 === 0) return { ...record, explored: !record.explored }
  return at % 3 === 1 ? { ...record, engine: '0' } : withFeatures(record, ({ rank: _, ...others }) => others)
})
const shuffled = <T>(items: readonly T[], random: () => number): T[] =>
  items
    .map((item) => ({ item, lot: random() }))
    .sort((a, b) => a.lot - b.lot)
    .map(({ item }) => item)

/** A part of a log verified in a thread of its own. */
const inWorker = (records: readonly DecisionRecord[]): Promise<VerificationFold> =>
  new Promise((resolve, reject) => {
    const code = `
      const { parentPort, workerData } = require('node:worker_threads')
      import(workerData.module).then(({ shelve, startVerification, verifyRecord }) => {
        const [fold, shelf] = [startVerification(), shelve([workerData.policy], workerData.features)]
        for (const record of workerData.records) verifyRecord(fold, record, shelf)
        parentPort.postMessage(fold)
      })`
    const workerData = {
      module: new URL('../replay/redecide/verify.ts', import.meta.url).href,
      policy: { name: priced.name, hash: priced.hash, source: priced.source },
      features: truthFeatures,
      records,
    }
    new Worker(code, { eval: true, workerData }).once('message', resolve).once('error', reject)
  })

test('shuffled records, and 1 or 8 worker threads, give the same verification and the same digest', async () => {
  const whole = verify(mixed, shelve([priced], truthFeatures))
  assert.ok(whole.groups.length === 3 && whole.digest.logged !== whole.digest.redecided)
  const random = seeded(11)
  for (const threads of [1, 8]) {
    const order = shuffled(mixed, random)
    const parts = Array.from({ length: threads }, (_, part) => order.filter((_record, at) => at % threads === part))
    const folds = await Promise.all(parts.map(inWorker))
    assert.deepEqual(closeVerification(folds.reduce(mergeVerifications)), whole)
  }
})

test('merging two folds equals one fold over both, however the log is cut', () => {
  const [records, policiesAtHand] = [mixed.slice(0, 60), shelve([priced], truthFeatures)]
  const foldOf = (part: readonly DecisionRecord[]) => {
    const fold = startVerification()
    for (const record of part) verifyRecord(fold, record, policiesAtHand)
    return fold
  }
  fc.assert(
    fc.property(fc.nat(60), fc.integer(), (cut, seed) => {
      const order = shuffled(records, seeded(seed))
      const merged = mergeVerifications(foldOf(order.slice(0, cut)), foldOf(order.slice(cut)))
      assert.deepEqual(closeVerification(merged), verify(records, policiesAtHand))
    }),
    { numRuns: 30 },
  )
})

test('the digest of records equals the one ClickHouse computes from the columns of the same rows', async () => {
  const collector = await temporaryCollector()
  after(collector.close)
  const sample = fc.sample(fc.tuple(policies, contexts, outcomes), { numRuns: 60, seed: 7 })
  const odd = sample.map(([policy, context, outcome]) => recordOf(context, policy.decide(context), outcome))
  const stored = [...log.slice(0, 100), ...odd].map((record, at) => ({
    ...record,
    id: at % 10 === 0 ? `not a UUID ${at}` : randomUUID(),
  }))
  const spans = stored.map((record) =>
    jsonSpan({ kind: 2, name: 'POST', attributes: otlpAttributes(toAttributes(record)) }),
  )
  assert.equal((await post(collector, jsonRequest(...spans))).status, 200)
  const [row] = await rowsOf<{ rows: string; digest: string }>(
    collector,
    `SELECT toString(count()) AS rows, ${digestSql} AS digest FROM otel.routing_decisions FINAL WHERE record != ''`,
  )
  assert.deepEqual(row, { rows: '160', digest: verify(stored, new Map()).digest.logged })
})
