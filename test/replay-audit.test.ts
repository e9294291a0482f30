// The audit of a log: a clean log passes, and every way in which logs are known to mislead is named with what it forbids.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { auditRecords } from '../replay/audit/audit.ts'
import { auditText } from '../replay/audit/command.ts'
import { parsePolicy } from '../router/policy/policy.ts'
import { type DecisionRecord, decisionRecordSchema, type Outcome } from '../router/policy/record.ts'
import { records } from './arbitraries.ts'
import { drawPrompt, logOf, recordFor, seeded, truthFeatures } from './replay-truth.ts'

const nowMs = Date.parse('2026-12-01T00:00:00Z')
const production = parsePolicy(
  'name: production\nscore: candidate.rank\nchoose: {kind: highest}\nexplore: {rate: 0.3}',
  truthFeatures,
)
const log = logOf(production, 1200, seeded(7))
const audit = (records: readonly DecisionRecord[]) => auditRecords(records, nowMs)
const kinds = (records: readonly DecisionRecord[]) => audit(records).findings.map(({ kind }) => kind)
const findingOf = (records: readonly DecisionRecord[], kind: string) => {
  const found = audit(records).findings.find((finding) => finding.kind === kind)
  return found && { gravity: found.gravity, count: found.count, share: Number(found.share.toFixed(3)) }
}
const withOutcome = (record: DecisionRecord, change: Partial<Outcome>): DecisionRecord => ({
  ...record,
  outcome: { ...(record.outcome as Outcome), ...change },
})
const half = (change: (record: DecisionRecord) => DecisionRecord): DecisionRecord[] =>
  log.map((record, at) => (at % 2 === 0 ? change(record) : record))

test('a log that keeps the contract forbids nothing', () => {
  const { forbidsEstimation, findings, records: audited, passed } = audit(log)
  assert.deepEqual(
    findings.map(({ kind, gravity }) => [kind, gravity]),
    [['no-session', 'note']],
  )
  assert.equal(forbidsEstimation, false)
  assert.equal(audited, log.length)
  assert.ok(passed > 30)
})

test('whatever a policy decides, its records lack nothing that a decision must have', () => {
  const lacks = new Set(['identity', 'no-candidates', 'no-reason', 'no-score', 'choice-not-first', 'leakage'])
  fc.assert(
    fc.property(fc.array(records, { minLength: 1, maxLength: 20 }), (decided) => {
      const found = kinds(decided).filter((kind) => lacks.has(kind) || kind.startsWith('probability'))
      assert.deepEqual(found, [])
    }),
  )
})

test('an empty log forbids estimates', () => {
  assert.equal(audit([]).forbidsEstimation, true)
})

const candidates =
  (change: (candidate: DecisionRecord['candidates'][number], record: DecisionRecord) => object) =>
  (record: DecisionRecord): DecisionRecord => ({
    ...record,
    candidates: record.candidates.map((candidate) => ({ ...candidate, ...change(candidate, record) })),
  })

const lapses: readonly [string, 'bad' | 'warning' | 'note', (record: DecisionRecord) => DecisionRecord][] = [
  ['identity', 'warning', (record) => ({ ...record, engine: '' })],
  ['no-candidates', 'bad', (record) => ({ ...record, candidates: [], chosen: null })],
  ['no-features', 'warning', candidates(() => ({ features: {} }))],
  ['no-reason', 'warning', candidates(() => ({ eligible: false }))],
  ['no-score', 'warning', candidates(() => ({ score: null }))],
  [
    'probability-of-choice-only',
    'bad',
    candidates(({ model }, { chosen }) => ({ probability: model === chosen ? 0.7 : 0 })),
  ],
  ['probability-rounded', 'bad', candidates(({ probability }) => ({ probability: probability * 0.9995 }))],
  ['probability-impossible', 'bad', candidates(({ probability }) => ({ probability: probability / 2 }))],
  ['choice-not-first', 'bad', (record) => ({ ...record, plan: record.plan.toReversed() })],
  ['nothing-eligible', 'note', (record) => ({ ...record, chosen: null })],
  ['sampled', 'note', (record) => ({ ...record, keep_probability: 0.5 })],
  ['no-session', 'note', (record) => ({ ...record, session: '' })],
  ['no-outcome', 'warning', ({ outcome: _, ...record }) => record],
  ['no-cost', 'bad', (record) => withOutcome(record, { cost_usd: null })],
  ['cost-estimated', 'note', (record) => withOutcome(record, { cost_source: 'estimated' })],
  ['tokens-unmeasured', 'warning', (record) => withOutcome(record, { tokens_source: 'unknown' })],
  ['no-latency', 'warning', (record) => withOutcome(record, { latency_ms: null })],
  [
    'no-ttft',
    'note',
    (record) => withOutcome({ ...record, request: { ...record.request, stream: true } }, { ttft_ms: null }),
  ],
  ['no-quality', 'warning', (record) => withOutcome(record, { quality: null })],
  ['cut-short', 'note', (record) => withOutcome(record, { status: 'error', error_type: 'timeout' })],
  ['fallback', 'note', (record) => withOutcome(record, { served: 'another', attempts: 2 })],
  ['future-time', 'warning', (record) => ({ ...record, time: '2027-01-01T00:00:00.000Z' })],
  ['duplicate-id', 'warning', (record) => ({ ...record, id: 'one' })],
]

test('each lapse of a record is found, counted and weighed by what it forbids', () => {
  for (const [kind, gravity, lapse] of lapses) {
    const found = audit(half(lapse)).findings.find((finding) => finding.kind === kind)
    assert.equal(found?.gravity, gravity, kind)
    if (kind !== 'no-score' && kind !== 'no-session')
      assert.equal(found?.count, kind === 'duplicate-id' ? 599 : 600, kind)
    assert.ok(found?.remedy, kind)
  }
})

test('a policy that leaves nothing to chance forbids estimates of choices that were never tried', () => {
  const certain = parsePolicy('name: certain\nscore: candidate.rank\nchoose: {kind: highest}', truthFeatures)
  assert.equal(findingOf(logOf(certain, 50, seeded(1)), 'certain')?.gravity, 'bad')
})

test('feedback that comes for fast answers only is caught, and feedback missing at random is not', () => {
  const late = log.map((record) =>
    (record.outcome?.latency_ms ?? 0) > 2000 ? withOutcome(record, { quality: null }) : record,
  )
  assert.equal(findingOf(late, 'censored-feedback')?.gravity, 'bad')
  const random = seeded(3)
  assert.equal(
    findingOf(
      log.map((record) => (random() < 0.4 ? withOutcome(record, { quality: null }) : record)),
      'censored-feedback',
    ),
    undefined,
  )
})

test('the alarm on censored feedback is false in at most 1 of 200 logs whose feedback is missing at random', () => {
  const random = seeded(5)
  const alarms = Array.from({ length: 200 }, () =>
    kinds(log.slice(0, 300).map((record) => (random() < 0.5 ? withOutcome(record, { quality: null }) : record))),
  ).filter((found) => found.includes('censored-feedback'))
  assert.ok(alarms.length <= 1, `${alarms.length} of 200`)
})

test('a constant token count on nearly every row is caught, and one that varies is not', () => {
  const made = log.map((record, at) => withOutcome(record, { input_tokens: at % 200 === 0 ? 41 : 40 }))
  assert.deepEqual(findingOf(made, 'constant-outcome.input_tokens'), { gravity: 'bad', count: 1194, share: 0.995 })
  const real = log.map((record) => withOutcome(record, { input_tokens: record.request.input_tokens }))
  assert.equal(findingOf(real, 'constant-outcome.input_tokens'), undefined)
})

/** Every candidate is given a feature that looks at the outcome. */
const leaking = (value: (record: DecisionRecord) => number) =>
  log.map((record) => candidates(({ features }) => ({ features: { ...features, hint: value(record) } }))(record))

test('features that equal the outcome or predict it perfectly are leakage, honest predictions are not', () => {
  const random = seeded(9)
  const latency = ({ outcome }: DecisionRecord) => outcome?.latency_ms ?? 0
  assert.equal(findingOf(leaking(latency), 'leakage')?.gravity, 'bad')
  assert.ok(
    findingOf(
      leaking((record) => (random() < 0.6 ? latency(record) : 1)),
      'leakage',
    ),
    'equal on most rows',
  )
  assert.ok(
    findingOf(
      leaking(({ outcome }) => 2 - (outcome?.quality ?? 0)),
      'leakage',
    ),
    'the other way round',
  )
  assert.equal(
    findingOf(
      leaking((record) => latency(record) * (0.8 + 0.4 * random())),
      'leakage',
    ),
    undefined,
  )
  assert.equal(
    findingOf(
      leaking(() => 1),
      'leakage',
    ),
    undefined,
    'mostly right by being constant',
  )
})

test('fallbacks that are logged as the choice are caught, and fallbacks told apart are not', () => {
  const retried = log.map((record, at) => (at % 10 === 0 ? withOutcome(record, { attempts: 2 }) : record))
  assert.deepEqual(findingOf(retried, 'fallback-as-choice'), { gravity: 'bad', count: 120, share: 1 })
  const apart = retried.map((record, at) => (at % 10 === 0 ? withOutcome(record, { served: 'another' }) : record))
  assert.equal(findingOf(apart, 'fallback-as-choice'), undefined)
})

test('two rows of one request are caught within 1 ms in any order, and turns of a session are not', () => {
  const random = seeded(2)
  const turns = Array.from({ length: 100 }, (_, at) =>
    recordFor(drawPrompt(random), production, `t-${at}`, `s-${at % 20}`, at),
  )
  assert.equal(findingOf(turns, 'double-row'), undefined)
  assert.deepEqual(findingOf(turns, 'later-turn'), { gravity: 'note', count: 80, share: 0.8 })
  const shift = (time: string, ms: number) => new Date(Date.parse(time) + ms).toISOString()
  for (const ms of [-1, 0, 1]) {
    const again = turns
      .slice(0, 10)
      .map((record) => ({ ...record, id: `${record.id}-again`, time: shift(record.time, ms) }))
    assert.deepEqual(findingOf([...turns, ...again], 'double-row'), { gravity: 'bad', count: 10, share: 0.091 })
  }
  const later = turns
    .slice(0, 10)
    .map((record) => ({ ...record, id: `${record.id}-later`, time: shift(record.time, 2) }))
  assert.equal(findingOf([...turns, ...later], 'double-row'), undefined)
})

test('unknown features are named with the models that lack them', () => {
  const [first] = log as [DecisionRecord]
  const lacking = log.map(
    candidates(({ model, features }) => ({ features: { ...features, cost_usd: model === 'gemma-7b' ? null : 1 } })),
  )
  const found = audit(lacking).findings.find(({ kind }) => kind === 'unknown-features')
  assert.match(found?.what ?? '', /cost_usd \(gemma-7b 100 %\)/)
  assert.equal(found?.count, log.length)
  assert.equal(first.candidates.length, 5)
})

test('rows out of order are a note', () => {
  assert.equal(findingOf(log.toReversed(), 'out-of-order')?.gravity, 'note')
})

test('the text says first whether estimates may be made, then what forbids what and what to do', () => {
  const bad = auditText(audit(half((record) => withOutcome(record, { cost_usd: null }))), { colour: false })
  assert.match(bad, /^✗ 1,200 decisions were checked .* estimates are forbidden/)
  assert.match(bad, /✗ 600 \(50 %\) have an outcome of unknown cost\n.*forbids estimates of cost\n.*→ Give the router/)
  assert.match(auditText(audit(log), { colour: false }), /^✓ 1,200 decisions were checked/)
  const name = '\u001b[31mred'
  const hostile = log.map((record) =>
    decisionRecordSchema.parse({
      ...record,
      candidates: record.candidates.map((candidate) => ({ ...candidate, features: { [name]: null, rank: 1 } })),
    }),
  )
  const text = auditText(audit(hostile), { colour: false })
  assert.match(text, /red/)
  assert.ok(!text.includes('\u001b'))
})
