// A promotion whose surroundings are tampered with: the candidate's file edited after the gate was passed, rows in the ledger that
// anybody could have written, and decisions that arrive twice, late, or before their feedback.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import type { Collector } from '../collector/server.ts'
import { lookAt } from '../replay/promote/canary.ts'
import { parseGate } from '../replay/promote/gate-file.ts'
import { type Ledger, openLedger } from '../replay/promote/ledger.ts'
import { canaryOf, type Promotion, plan } from '../replay/promote/promotion.ts'
import { attributeNames, spanNames, toAttributes } from '../router/policy/attributes.ts'
import { parsePolicy, policyText } from '../router/policy/policy.ts'
import { promotionNames as n, promotionSpans } from '../router/policy/promotion.ts'
import { recordOf } from '../router/policy/record.ts'
import { jsonRequest, jsonSpan, otlpAttributes, post, temporaryCollector } from './collector-fixtures.ts'
import { two } from './replay-two-models.ts'

const policyOf = (name: string, a: number, b: number) =>
  policyText(`name: ${name}\nchoose: {kind: weighted, weights: {A: ${a}, B: ${b}}}`)
const [production, candidate] = [policyOf('prod', 1, 1), policyOf('cheap', 0, 1)]
const canary = canaryOf(production, candidate, 0.5)
const evidence = {
  ...{ id: 'run-1', candidate: { name: 'cheap', hash: candidate.hash }, metrics: [] },
  gate: parseGate('goal: cost_usd\ncanary: { share: 0.5, settle_minutes: 0 }'),
} as unknown as Parameters<typeof plan>[0]
const planned = (id: string): Promotion => plan(evidence, { production, candidate, canary }, id, Date.now() - 3_600_000)

let collector: Collector
let ledger: Ledger
before(async () => {
  collector = await temporaryCollector()
  ledger = openLedger(collector.otlpUrl, collector.clickhouseUrl)
})
after(async () => {
  await ledger.close()
  await collector.close()
})

test('a candidate whose text changed after its gate is not promoted', () => {
  const edited = policyOf('cheap', 0.5, 1)
  assert.throws(
    () => plan(evidence, { production, candidate: edited, canary: canaryOf(production, edited, 0.5) }, 'p', 0),
    { code: 'evidence-of-another-policy', message: /'cheap': the gate was passed by sha256:.*has become sha256:/ },
  )
})

test('a row of the ledger that is no promotion, or another one, is named and not followed', async () => {
  const forge = (id: string, text: string) =>
    post(
      collector,
      jsonRequest(
        jsonSpan({
          name: promotionSpans.promotion,
          attributes: otlpAttributes({ [n.promotionId]: id, [n.promotionSeq]: '9', [n.promotion]: text }),
        }),
      ),
    )
  await ledger.record(planned('good'))
  assert.equal((await ledger.load('good')).state, 'planned')
  for (const [id, text, wanted] of [
    ['garbage', '{"v":1', /promotion 'garbage'.*not JSON/],
    ['partial', '{"v":1,"id":"partial"}', /promotion 'partial'.*seq: found nothing/],
    ['swapped', JSON.stringify(planned('another')), /promotion 'swapped'.*it is promotion 'another'/],
  ] as const) {
    assert.equal((await forge(id, text)).status, 200)
    await assert.rejects(ledger.load(id), { code: 'promotion-invalid', message: wanted })
    await assert.rejects(ledger.all(), { code: 'promotion-invalid' })
  }
  await assert.rejects(ledger.load("x' OR 1 = 1 --"), { code: 'promotion-not-found' })
})

test('decisions of a canary that arrive twice, late, or after their feedback count once', async () => {
  const policy = parsePolicy(canary.source, {})
  const startMs = Date.now() - 1_800_000
  const spans = Array.from({ length: 40 }, (_, at) => {
    const id = `019ab0c4-0000-7000-8000-${at.toString(16).padStart(12, '0')}`
    const context = {
      ...{ id, time: new Date(startMs + at * 1000).toISOString(), session: `s-${at}`, candidates: two },
      request: {
        ...{ model: 'auto', input_tokens: 1, output_tokens_max: null, stream: false },
        ...{ tier: '', tenant: '', user: '', tags: {} },
      },
    }
    const attributes = toAttributes(recordOf(context, policy.decide(context)))
    const decision = jsonSpan({
      ...{ kind: 2, startTimeUnixNano: `${startMs + at * 1000}000000` },
      attributes: otlpAttributes({ ...attributes, [attributeNames.httpStatus]: 200 }),
    })
    const judged = { [attributeNames.decisionId]: id, [attributeNames.evaluationName]: 'quality' }
    const feedback = jsonSpan({
      name: spanNames.evaluation,
      attributes: otlpAttributes({ ...judged, [attributeNames.evaluationScore]: 0.5 }),
    })
    return { decision, feedback }
  })
  const send = (batch: readonly unknown[]) => post(collector, jsonRequest(...batch))
  await send(spans.map(({ feedback }) => feedback))
  await send(spans.slice(20).map(({ decision }) => decision))
  await send(spans.slice(0, 30).map(({ decision }) => decision))
  await send(spans.slice(0, 5).map(({ feedback }) => feedback))
  const sums = await ledger.sums(planned('late'), Date.now())
  const total = (metric: string) =>
    sums.filter((sum) => sum.metric === metric && sum.fill === 'known').reduce((rows, sum) => rows + sum.rows, 0)
  assert.deepEqual([total('failed'), total('quality')], [40, 40])
  const look = lookAt(sums, evidence.gate, 0.5)
  assert.equal(look.clusters.production + look.clusters.candidate, 40)
  assert.equal(look.verdict, 'open')
})
