// Fidelity as laws: every policy's traffic comes out as logged to the bit, and whatever was changed is named.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type LoggedPolicy, shelve, verify } from '../replay/redecide/verify.ts'
import { replay, replayDefaults } from '../replay/run.ts'
import { type DecisionRecord, decisionRecordSchema, recordOf } from '../router/policy/record.ts'
import { contexts, featureTypes, outcomes, policies } from './arbitraries.ts'

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
      const { groups, reproduced } = verify(records, shelf(policy))
      assert.deepEqual(groups, [])
      assert.equal(reproduced, records.length)
    }),
  )
})

test('traffic replayed under the policy that captured it comes out unchanged, and every difference is exactly 0', () => {
  fc.assert(
    fc.property(traffic, ({ policy, records }) => {
      const { shares, moves, metrics, verdict, diagnostics } = replay(records, [policy], policy, replayDefaults)
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
      const { differing, groups } = verify([tamper(first), ...rest], shelf(policy))
      assert.equal(differing, 1)
      assert.deepEqual(groups[0]?.cause, { kind: 'field', field })
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
