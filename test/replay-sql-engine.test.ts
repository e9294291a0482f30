// The SQL engine against the JavaScript engine on one log: every figure of a replay must be the same, for policies of every kind,
// with outcomes missing, requests that fail or are given up, choices never tried, and decisions that cannot be reproduced.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { candidateTexts, fill } from '../bench/replay-log.ts'
import type { Collector } from '../collector/server.ts'
import { openSource, type Source } from '../replay/read/source.ts'
import { surveyLog } from '../replay/redecide/engine.ts'
import { type Replay, replayDefaults, replaySource } from '../replay/run.ts'
import { toAttributes } from '../router/policy/attributes.ts'
import { type Policy, parsePolicy } from '../router/policy/policy.ts'
import { contextOf, type DecisionRecord, type Outcome, recordOf } from '../router/policy/record.ts'
import { SqlDeclined } from '../router/policy/sql-text.ts'
import { snapshotTypes } from '../router/snapshot.ts'
import { jsonRequest, jsonSpan, otlpAttributes, post, rowsOf, temporaryCollector } from './collector-fixtures.ts'
import { seeded } from './replay-truth.ts'

const filled = 1500
const decided = 400
const quick = { ...replayDefaults, replicates: 50, slowAboveMs: 3000 }
const policyOf = (text: string): Policy => parsePolicy(text, snapshotTypes)

/** Rules with weights; it never tries some models. */
const rules = policyOf(`name: rules
rules:
  - name: paid
    when: request.tier == "pro"
    use: {candidates: [large, medium], choose: {kind: weighted, weights: {large: 3, medium: 1}, per: session}}
  - name: others
    use: {filter: {quick: candidate.ttft_ms < 400.0}, score: candidate.quality - 30.0 * candidate.cost_usd, choose: {kind: highest}, explore: {rate: 0.2}}`)
/** A split, one of whose arms now and then has nothing to serve with. */
const split = policyOf(`name: split
split:
  per: session
  arms:
    - {name: old, share: 0.7, use: {choose: {kind: weighted, weights: {nano: 1, mini: 2, local: 1}}}}
    - {name: new, share: 0.3, use: {filter: {short: request.input_tokens < 1000.0}, score: candidate.quality, choose: {kind: softmax, temperature: 0.2}}}`)
const nothing = policyOf(`name: nothing
filter: {short: request.input_tokens < 300.0}
choose: {kind: lowest}
score: candidate.cost_usd
explore: {rate: 0.3, per: session}`)
const softmax = policyOf(candidateTexts[2] as string)

let collector: Collector
let source: Source

/** The same requests decided by another policy, through real spans. */
const decideBy = async (policy: Policy, from: readonly DecisionRecord[], first: number): Promise<void> => {
  const random = seeded(first)
  const spans = from.map((record, at) => {
    const id = `019ab0c5-0000-7000-8000-${(first + at).toString(16).padStart(12, '0')}`
    const context = { ...contextOf(record), id, session: at % 3 === 0 ? '' : `${policy.name}-${at >> 2}` }
    const decision = policy.decide(context)
    const lot = random()
    const logged = record.outcome as Outcome
    const outcome: Outcome = {
      ...logged,
      quality: null,
      status: decision.chosen === null ? 'no-candidate' : lot < 0.05 ? 'client-abort' : lot < 0.1 ? 'error' : 'ok',
      error_type: lot >= 0.05 && lot < 0.1 ? 'ReadTimeout' : null,
      cost_usd: lot > 0.8 ? null : (logged.cost_usd ?? 0) * (1 + lot),
      ttft_ms: lot < 0.1 ? null : logged.ttft_ms,
    }
    const attributes = otlpAttributes({
      ...toAttributes(recordOf(context, decision, outcome)),
      'http.response.status_code': outcome.http_status,
    })
    const startTimeUnixNano = String(BigInt(Date.parse(record.time)) * 1_000_000n)
    return jsonSpan({ kind: 2, attributes, startTimeUnixNano, endTimeUnixNano: startTimeUnixNano })
  })
  const { status, text } = await post(collector, jsonRequest(...spans))
  assert.equal(status, 200, text)
}

before(async () => {
  collector = await temporaryCollector()
  await fill(collector.clickhouseUrl, 0, filled)
  source = openSource(collector.clickhouseUrl)
  const records: DecisionRecord[] = []
  for await (const record of source.records()) records.push(record)
  await decideBy(rules, records.slice(0, decided), 1)
  await decideBy(split, records.slice(decided, 2 * decided), 100_000)
  await rowsOf(
    collector,
    `INSERT INTO otel.feedback (time, decision_id, name, score) SELECT decision_time, decision_id, 'quality', cityHash64(decision_id) % 3 / 2
      FROM otel.routing_decisions WHERE policy_name != 'production' AND cityHash64(decision_id) % 4 = 0`,
  )
  // Judgements by trace, and what other tenants say, which counts for nothing.
  await rowsOf(
    collector,
    `INSERT INTO otel.feedback (time, decision_id, name, score, tenant, tenant_only, by_trace)
      SELECT decision_time + 1, toUUIDOrZero(toString(trace_id)), 'quality', 0.25, tenant, true, true
      FROM otel.routing_decisions WHERE cityHash64(decision_id) % 7 = 0
      UNION ALL SELECT decision_time + 2, if(number = 0, decision_id, toUUIDOrZero(toString(trace_id))), 'quality', 1, 'another', true, number = 1
      FROM otel.routing_decisions CROSS JOIN numbers(2) AS n WHERE cityHash64(decision_id) % 7 < 3`,
  )
})
after(async () => {
  await source.close()
  await collector.close()
})

const logged = async () => [
  ...(await source.policies()),
  ...[rules, split].map(({ hash, name, source: text }) => ({ hash, name, source: text })),
]

/** Equal but for rounding: numbers agree to nine digits, everything else exactly. */
const assertAlike = (a: unknown, b: unknown, path = ''): void => {
  if (typeof a === 'number' && typeof b === 'number') {
    const near = Object.is(a, b) || Math.abs(a - b) <= 1e-9 * (Math.abs(a) + Math.abs(b)) + 1e-12
    assert.ok(near, `${path}: ${a} is not ${b}`)
  } else if (a !== null && b !== null && typeof a === 'object' && typeof b === 'object') {
    assert.deepEqual(Object.keys(a).sort(), Object.keys(b).sort(), path)
    for (const key of Object.keys(a))
      assertAlike((a as Record<string, unknown>)[key], (b as Record<string, unknown>)[key], `${path}.${key}`)
  } else assert.equal(a, b, path)
}

/** Both engines' replays of these candidates; `how` is the one thing in which they differ. */
const assertSame = async (candidates: readonly Policy[]): Promise<readonly Replay[]> => {
  const policies = await logged()
  const js = await replaySource(source, policies, () => candidates, quick, { engine: 'js', threads: 1 })
  const sql = await replaySource(source, policies, () => candidates, quick, { engine: 'sql' })
  for (const [at, { verification, ...replay }] of sql.entries()) {
    const { verification: expected, ...rest } = js[at] as Replay
    assert.equal(verification.how, 'sql')
    assertAlike(replay, rest, candidates[at]?.name)
    assertAlike({ ...verification, how: 'bits' }, expected, candidates[at]?.name)
  }
  return sql
}

test('every figure of a replay is the same in SQL and in JavaScript, for policies of every kind', async () => {
  const [first, second] = await assertSame([softmax, rules, split, nothing])
  const [quarters] = await rowsOf<{ count: string }>(
    collector,
    "SELECT toString(count()) AS count FROM otel.feedback_by_decision WHERE name = 'quality' AND score = 0.25",
  )
  assert.equal(first?.verification.reproduced, filled + 2 * decided)
  assert.equal(first?.production.length, 3)
  assert.ok((first?.metrics ?? []).some(({ metric, missing }) => metric === 'quality' && missing > 0))
  assert.ok(Number(quarters?.count) > 100, 'judgements by trace count')
  assert.ok((second?.shares.unsupported ?? 0) > 0, 'some choices were never tried')
})

test('candidates share one query with the log, and more than eight take two', async () => {
  let queries = 0
  const ask: Source['ask'] = (sql) => {
    queries += Number(sql('true').includes('_untried_rows'))
    return (source.ask as NonNullable<Source['ask']>)(sql)
  }
  const log = await surveyLog({ ...source, ask }, await logged(), {
    objective: { slowAboveMs: null, trustJudge: false },
    engine: 'sql',
  })
  const nine = [10, 20, 30, 40, 50, 60, 70, 80, 90].map((weight) =>
    policyOf((candidateTexts[0] as string).replace('10.0', `${weight}.0`)),
  )
  const together = await log.gather(nine)
  const shared = queries
  const alone = await log.gather(nine.slice(8))
  assertAlike(together.tallies[8], alone.tallies[0])
  assertAlike(together.log, alone.log)
  assertAlike((await log.gather([])).log, alone.log)
  // Each is asked again, because they choose what was never tried.
  assert.deepEqual([shared, queries - shared], [4, 2])
})

test('only the rows that a report names are read', async () => {
  let read = 0
  const find: Source['find'] = async (condition) => {
    const found = await (source.find as NonNullable<Source['find']>)(condition)
    read += found.length
    return found
  }
  const log = await surveyLog({ ...source, find }, await logged(), {
    objective: { slowAboveMs: null, trustJudge: false },
    engine: 'sql',
  })
  const { tallies } = await log.gather([softmax])
  assert.equal(tallies[0]?.sample.length, 12)
  assert.ok(read >= 12 && read <= 80, `${read} rows were read`)
})

test('decisions that come out otherwise are named by SQL as by JavaScript', async () => {
  await rowsOf(
    collector,
    `INSERT INTO otel.routing_decisions SELECT * REPLACE (arrayMap(c -> c * 1.5, candidates.cost_usd) AS \`candidates.cost_usd\`, ingested_at + 1 AS ingested_at)
      FROM otel.routing_decisions WHERE policy_name = 'production' ORDER BY decision_id LIMIT 7`,
  )
  const [replay] = await assertSame([softmax])
  assert.equal(replay?.verification.differing, 7)
})

test('what SQL cannot say is declined by name, and auto turns to JavaScript', async () => {
  const odd = policyOf('name: odd\nscore: candidate.samples % 7.0\nchoose: {kind: highest}')
  const policies = await logged()
  const because: string[] = []
  const run = (engine: 'auto' | 'sql') =>
    replaySource(source, policies, () => [odd], quick, {
      engine,
      sqlFromRows: 0,
      onDeclined: (reason) => because.push(reason),
    })
  const [replay] = await run('auto')
  assert.equal(replay?.verification.how, 'bits')
  assert.match(because.join(), /^'%'|remainder/)
  await assert.rejects(
    run('sql'),
    (error) => error instanceof SqlDeclined && error.message.endsWith(because[0] as string),
  )
})
