// Judgements from their senders to every reader: by decision or by trace, late, repeated and in any order, of one tenant about
// another's, from the router and from anybody's logger. All through the real router, collector and ClickHouse.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { loadDecision } from '../cli/explain.ts'
import { openSource } from '../replay/read/source.ts'
import type { Attributes } from '../router/policy/attributes.ts'
import { jsonRequest, jsonSpan, otlpAttributes, post as send } from './collector-fixtures.ts'
import { encode } from './otlp-oracle.ts'
import { seeded } from './replay-truth.ts'
import { chat, collector, decisionOf, idOf, post, query, router, scripts, start } from './router-stage.ts'
import { json } from './scripted-provider.ts'

const seed = Number(process.env.SEED ?? 7)
const evaluation = 'gen_ai.evaluation.result'

const idFor = (number: number): string => `019ab0c5-0000-7000-8000-${number.toString(16).padStart(12, '0')}`
const traceFor = (number: number): string => `7ace${number.toString(16).padStart(28, '0')}`

const decision = (number: number, fields: Attributes = {}, traceId = traceFor(number)) =>
  jsonSpan({
    kind: 2,
    traceId,
    attributes: otlpAttributes({ 'signalbox.decision.id': idFor(number), ...fields }),
  })
const event = (atMs: number, attributes: Attributes, place: { traceId?: string; spanId?: string } = {}) => ({
  timeUnixNano: `${atMs}000000`,
  severityNumber: 9,
  eventName: evaluation,
  attributes: otlpAttributes({ 'gen_ai.evaluation.name': 'quality', ...attributes }),
  ...place,
})
const sendEvents = async (...logRecords: unknown[]): Promise<void> => {
  const body = JSON.stringify({ resourceLogs: [{ scopeLogs: [{ logRecords }] }] })
  const { status, text } = await send(collector, body, {}, '/v1/logs')
  assert.equal(status, 200, text)
}
const sendSpans = async (...spans: unknown[]): Promise<void> => {
  const { status, text } = await send(collector, jsonRequest(...spans))
  assert.equal(status, 200, text)
}

type Standing = Readonly<Record<'name' | 'label' | 'comment' | 'source', string>> & { readonly score: number }
const standing = (id: string): Promise<Standing[]> =>
  query<Standing>(
    `SELECT name, score, label, comment, source FROM otel.feedback_by_decision WHERE decision_id = {id:UUID} ORDER BY name`,
    id,
  )
const scoresOf = async (id: string) => (await standing(id)).map(({ score }) => score)

const give = (body: unknown, key?: string): Promise<Response> =>
  fetch(`${router.url}/v1/feedback`, {
    method: 'POST',
    body: JSON.stringify(body),
    headers: { 'content-type': 'application/json', ...(key ? { authorization: `Bearer ${key}` } : {}) },
  })

test('what was given last stands, in whatever order, batches and repetitions it arrives, by decision, trace or span', async () => {
  await start()
  const random = seeded(seed)
  const cases = fc.sample(
    fc.uniqueArray(
      fc.record({
        atMs: fc.integer({ min: 0, max: 1_000_000 }),
        score: fc.integer({ min: 0, max: 100 }).map((percent) => percent / 100),
        how: fc.constantFrom('decision', 'trace', 'span', 'old'),
      }),
      { minLength: 1, maxLength: 6, selector: ({ atMs }) => atMs },
    ),
    { numRuns: 60, seed },
  )
  const base = Date.now() - 2_000_000
  const decisions = cases.map((_, at) => decision(at))
  const said = cases.flatMap((judgements, at) =>
    judgements.map(({ atMs, score, how }) => {
      const [byTrace, time] = [how === 'trace' || how === 'span', base + atMs]
      const attributes = {
        'gen_ai.evaluation.score.value': score,
        ...(byTrace ? {} : { 'signalbox.decision.id': idFor(at) }),
      }
      if (how === 'old') {
        const nano = `${time}000000`
        const named = otlpAttributes({ 'gen_ai.evaluation.name': 'quality', ...attributes })
        return {
          how,
          item: jsonSpan({ name: evaluation, startTimeUnixNano: nano, endTimeUnixNano: nano, attributes: named }),
        }
      }
      const spanId = how === 'span' ? { spanId: String(decisions[at]?.spanId) } : {}
      return { how, item: event(time, attributes, byTrace ? { traceId: traceFor(at), ...spanId } : {}) }
    }),
  )
  // Some arrive before their decisions and some twice.
  const arrivals = [...said, ...said.filter(() => random() < 0.3)]
    .map((one) => ({ ...one, turn: random() }))
    .sort((a, b) => a.turn - b.turn)
  for (let from = 0; from < arrivals.length; from += 60) {
    const batch = arrivals.slice(from, from + 60)
    await sendEvents(...batch.filter(({ how }) => how !== 'old').map(({ item }) => item))
    await sendSpans(...batch.filter(({ how }) => how === 'old').map(({ item }) => item))
    if (from === 60) await sendSpans(...decisions)
  }
  const rows = await query<{ id: string; score: number }>(
    `SELECT toString(decision_id) AS id, score FROM otel.feedback_by_decision WHERE startsWith(toString(decision_id), '019ab0c5-0000')`,
    idFor(0),
  )
  const found = new Map(rows.map(({ id, score }) => [id, score]))
  assert.equal(rows.length, cases.length)
  for (const [at, judgements] of cases.entries())
    assert.equal(
      found.get(idFor(at)),
      judgements.toSorted((a, b) => b.atMs - a.atMs)[0]?.score,
      JSON.stringify(judgements),
    )
})

describe('a judgement by trace', () => {
  test('counts for every decision of the trace, or for the one whose span, or attempt, it names', async () => {
    await start()
    const trace = traceFor(7_000)
    const [first, second] = [decision(7_001, {}, trace), decision(7_002, {}, trace)]
    const attempt = jsonSpan({
      kind: 3,
      traceId: trace,
      parentSpanId: second.spanId,
      attributes: otlpAttributes({ 'signalbox.decision.id': idFor(7_002), 'signalbox.attempt.number': 1 }),
    })
    await sendSpans(first, second, attempt)
    const score = (value: number, name: string, spanId?: unknown) =>
      event(
        Date.now(),
        { 'gen_ai.evaluation.name': name, 'gen_ai.evaluation.score.value': value },
        { traceId: trace, ...(spanId ? { spanId: String(spanId) } : {}) },
      )
    await sendEvents(
      score(0.1, 'all'),
      score(0.2, 'request', first.spanId),
      score(0.3, 'attempt', attempt.spanId),
      score(0.4, 'elsewhere', 'e'.repeat(16)),
      score(0.5, 'each', first.spanId),
      score(0.6, 'each', second.spanId),
    )
    const named = async (number: number) =>
      Object.fromEntries((await standing(idFor(number))).map(({ name, score: value }) => [name, value]))
    assert.deepEqual(await named(7_001), { all: 0.1, request: 0.2, elsewhere: 0.4, each: 0.5 })
    assert.deepEqual(await named(7_002), { all: 0.1, attempt: 0.3, elsewhere: 0.4, each: 0.6 })
  })

  test('reaches replay and explain as one by decision does', async () => {
    await start()
    scripts(json('x'))
    const ids = [idOf(await post(chat())), idOf(await post(chat()))] as const
    const rows = await Promise.all(ids.map(decisionOf))
    assert.equal((await give({ trace_id: rows[0]?.trace_id, score: 0.25 })).status, 202)
    assert.equal((await give({ trace_id: rows[1]?.trace_id, span_id: rows[1]?.span_id, score: 0.75 })).status, 202)
    await router.telemetry.flush()
    for (const [at, id] of ids.entries()) {
      const { record } = await loadDecision(collector.clickhouseUrl, id)
      assert.equal(record.outcome?.quality, [0.25, 0.75][at])
    }
    const qualities = await qualitiesOf(ids)
    assert.deepEqual(qualities, [0.25, 0.75])
  })
})

/** What replay reads of these decisions, record by record. */
const qualitiesOf = async (ids: readonly string[]): Promise<(number | null | undefined)[]> => {
  const source = openSource(collector.clickhouseUrl)
  try {
    const found = new Map<string, number | null | undefined>()
    for await (const { id, outcome } of source.records()) found.set(id, outcome?.quality)
    return ids.map((id) => found.get(id))
  } finally {
    await source.close()
  }
}

test('a keyed caller judges its own tenant alone, and no other can take its judgement away', async () => {
  process.env.KEY_A = 'sk-acme'
  process.env.KEY_B = 'sk-bolt'
  await start(
    'keys: [{ name: a, key_env: KEY_A, tenant: acme }, { name: b, key_env: KEY_B, tenant: bolt }, { name: c, sha256: "aa77520fd3cb8af1f1ec04e7a23b0ee8e4a2f6d5d9f4fa0c4b4d8b4a8bd5b5c1" }]',
  )
  scripts(json('x'))
  const asAcme = { headers: { authorization: 'Bearer sk-acme' } }
  const id = idOf(await post(chat(), asAcme))
  const other = idOf(await post(chat(), asAcme))
  const { trace_id: trace } = await decisionOf(id)
  assert.equal((await give({ decision_id: id, score: 1 })).status, 401)
  assert.equal((await give({ decision_id: id, score: 0.75 }, 'sk-acme')).status, 202)
  // The other tenant comes later, by decision and by trace, and is taken: the router does not know whose a decision is.
  for (const body of [
    { decision_id: id, score: 0 },
    { trace_id: trace, score: 0 },
    { decision_id: other, score: 0 },
  ])
    assert.equal((await give(body, 'sk-bolt')).status, 202)
  assert.deepEqual(await scoresOf(id), [0.75])
  assert.deepEqual(await scoresOf(other), [])
  assert.deepEqual(await qualitiesOf([id, other]), [0.75, null])
  assert.equal((await give({ trace_id: trace, score: 0.5 }, 'sk-acme')).status, 202)
  assert.deepEqual(await scoresOf(id), [0.5])
  assert.deepEqual(await qualitiesOf([id]), [0.5])
})

describe('POST /v1/feedback', () => {
  test('takes a list, times of its own, labels and sources; of two at one moment the later in the list stands', async () => {
    await start()
    scripts(json('x'))
    const id = idOf(await post(chat()))
    const time = new Date(Date.now() - 60_000).toISOString()
    const answer = await give([
      { decision_id: id, score: 0.5, time, source: 'human' },
      { decision_id: id, score: 0.75, time, source: 'rule', comment: 'later in the list' },
      { decision_id: id, score: 0, time: new Date(Date.now() - 120_000).toISOString() },
      { decision_id: id, label: 'Pass', name: 'polite' },
      { decision_id: id, label: 'verbose', score: 0.25, name: 'length' },
    ])
    assert.deepEqual([answer.status, await answer.json()], [202, { accepted: true, count: 5 }])
    assert.deepEqual(await standing(id), [
      { name: 'length', score: 0.25, label: 'verbose', comment: '', source: '' },
      { name: 'polite', score: 1, label: 'Pass', comment: '', source: '' },
      { name: 'quality', score: 0.75, label: '', comment: 'later in the list', source: 'rule' },
    ])
  })

  test('refuses what it cannot mean, all of the list or nothing, and says where', async () => {
    await start()
    const id = idFor(8_000)
    const wrong: readonly [unknown, RegExp][] = [
      [[], /wanted|>=1/],
      [[{ decision_id: id, score: 1 }, { decision_id: id }], /1.*score: .*wanted a score from 0 to 1, or the label/],
      [{ score: 1 }, /either a decision_id or a trace_id/],
      [{ decision_id: id, trace_id: traceFor(1), score: 1 }, /either a decision_id or a trace_id/],
      [{ decision_id: id, span_id: 'a'.repeat(16), score: 1 }, /span_id: .*with a trace_id only/],
      [{ trace_id: '0'.repeat(32), score: 1 }, /trace_id: found .*wanted 32 hex digits/],
      [{ decision_id: id, score: 1, time: '2999-01-01T00:00:00Z' }, /time: found 2999.*not yet to come/],
      [{ decision_id: id, score: 1, time: 'yesterday' }, /time: found/],
      [Array.from({ length: 1001 }, () => ({ decision_id: id, score: 1 })), /1000/],
    ]
    for (const [body, message] of wrong) {
      const answer = await give(body)
      assert.equal(answer.status, 400, JSON.stringify(body).slice(0, 200))
      assert.match(await answer.text(), message)
    }
    assert.deepEqual(await standing(id), [])
  })
})

test("anybody's logger is heard: protobuf, an older event.name, labels; what is no judgement makes no row", async () => {
  await start()
  const [ours, old] = [idFor(9_000), idFor(9_001)]
  await sendSpans(decision(9_000), decision(9_001))
  const relevance = { 'gen_ai.evaluation.name': 'relevance', 'signalbox.decision.id': ours }
  const logRecords = [
    event(Date.now(), { ...relevance, 'gen_ai.evaluation.score.value': 0.8 }),
    { ...event(Date.now(), { ...relevance, 'gen_ai.evaluation.score.value': 0.1 }), eventName: 'other' },
  ]
  const bytes = new Uint8Array(encode('Logs', { resourceLogs: [{ scopeLogs: [{ logRecords }] }] }))
  const sent = await send(collector, bytes, { 'content-type': 'application/x-protobuf' }, '/v1/logs')
  assert.equal(sent.status, 200)
  const bare = { 'gen_ai.evaluation.name': 'quality', 'signalbox.decision.id': old }
  const now = Date.now()
  await sendEvents(
    { ...event(now, { ...bare, 'gen_ai.evaluation.score.label': 'FAIL', 'event.name': evaluation }), eventName: '' },
    event(now + 1, { ...bare, 'gen_ai.evaluation.score.label': 'so-so' }),
    event(now + 2, { ...bare, 'gen_ai.evaluation.score.value': 'NaN' }),
    event(now + 3, { ...bare, 'gen_ai.evaluation.score.value': 'inf' }),
    event(now + 4, { 'gen_ai.evaluation.score.value': 1 }),
    event(
      now + 5,
      { 'signalbox.decision.id': 'nonsense', 'gen_ai.evaluation.score.value': 1 },
      { traceId: traceFor(9_001) },
    ),
    event(now + 6, { ...bare, 'gen_ai.evaluation.name': '', 'gen_ai.evaluation.score.value': 1 }),
  )
  assert.deepEqual(await standing(ours), [{ name: 'relevance', score: 0.8, label: '', comment: '', source: '' }])
  assert.deepEqual(await standing(old), [{ name: 'quality', score: 0, label: 'FAIL', comment: '', source: '' }])
})
