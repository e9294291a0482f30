// Decisions in words: every reason, exclusion and outcome has a sentence, and the table shows what was known.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type AttemptLine, exclusionWords, explainDecision, reasonWords } from '../router/policy/explain.ts'
import { type DecisionRecord, decisionRecordSchema, type Exclusion, reasons } from '../router/policy/record.ts'

const candidate = (model: string, score: number | null, probability: number, exclusion: Exclusion | null = null) => ({
  model,
  eligible: exclusion === null,
  exclusion,
  score,
  probability,
  features: { provider: 'acme', cost_usd: 0.00042, ttft_ms: 181.237, breaker: 'closed', error_rate: null },
})

const record = (over: object = {}): DecisionRecord =>
  decisionRecordSchema.parse({
    v: 1,
    id: 'd-1',
    time: '2026-11-01T08:00:00.000Z',
    session: 's-9',
    policy: { name: 'prod', hash: 'sha256:00' },
    path: ['rule:premium'],
    request: { model: 'auto', input_tokens: 812, stream: true, tier: 'free', tags: { category: 'math' } },
    candidates: [candidate('large', 0.8, 1), candidate('small', 0.55, 0)],
    chosen: 'large',
    reason: 'highest',
    plan: ['large', 'small'],
    outcome: { status: 'ok', served: 'large', cost_usd: 0.0004, latency_ms: 912.4, ttft_ms: 171, quality: 1 },
    ...over,
  })

const attempt: AttemptLine = {
  number: 1,
  cause: 'choice',
  model: 'large',
  provider: 'acme',
  status: 200,
  errorType: '',
  durationMs: 905.2,
  ttftMs: 171,
  costUsd: 0.0004,
}

test('explains a decision by score: who asked, who was considered, what was tried, why the winner won', () => {
  assert.equal(
    explainDecision(record(), [attempt]),
    `Decision d-1 at 2026-11-01T08:00:00.000Z
Asked for 'auto', 812 input tokens, streamed, tier free, category=math, session s-9.
Policy prod (rule:premium) considered 2:
     model  score  probability  cost_usd  ttft_ms  breaker
  ▶  large  0.8    1            0.00042   181.2    closed
     small  0.55   0            0.00042   181.2    closed
Attempts:
  1. large at acme (the choice): answered 200 in 905 ms, first content after 171 ms, $0.000400
The client got a whole answer from large after 912 ms, for $0.000400. Feedback on its quality: 1.
large won, with probability 1, because it had the highest score; next was small by a margin of 0.25.`,
  )
})

test('explains a fallback attempt by attempt, with its cause', () => {
  const text = explainDecision(
    record({ outcome: { status: 'ok', served: 'small', attempts: 2, cost_usd: null, latency_ms: 40 } }),
    [
      { ...attempt, status: 429, errorType: '429', ttftMs: null, costUsd: 0 },
      { ...attempt, number: 2, cause: '429', model: 'small' },
    ],
  )
  assert.match(text, /1\. large at acme \(the choice\): failed with '429' after 905 ms/)
  assert.match(text, /2\. small at acme \(after the attempt before it ended in '429'\): answered 200/)
  assert.match(text, /a whole answer from small, a fallback after 40 ms, for unknown cost/)
})

test('explains an explored choice by its probability and what is more likely', () => {
  const candidates = [candidate('large', 0.8, 0.95), candidate('small', 0.55, 0.05)]
  const text = explainDecision(record({ candidates, chosen: 'small', reason: 'explore', explored: true }), [])
  assert.match(
    text,
    /small won, with probability 0\.05, because exploration drew it: .*; large was more likely by a margin of 0\.9\.$/,
  )
  assert.doesNotMatch(text, /Attempts:/)
})

test('explains that nothing was chosen, and why each candidate was excluded', () => {
  const candidates = [
    candidate('large', null, 0, { kind: 'breaker-open' }),
    candidate('small', null, 0, { kind: 'context-window', needed_tokens: 9000, tokens_max: 8192 }),
  ]
  const outcome = { status: 'no-candidate', attempts: 0 }
  const text = explainDecision(record({ candidates, chosen: null, reason: 'none-eligible', plan: [], outcome }), [])
  assert.match(text, /large .* excluded: its breaker was open/)
  assert.match(text, /small .* excluded: the request needs 9000 tokens and it takes 8192/)
  assert.match(text, /Nothing was chosen because no candidate was eligible\.$/)
})

test('has words of its own for every reason and every exclusion', () => {
  const exclusions: Exclusion[] = [
    { kind: 'not-requested' },
    { kind: 'not-in-policy' },
    { kind: 'context-window', needed_tokens: 2, tokens_max: 1 },
    { kind: 'breaker-open' },
    { kind: 'rule', name: 'affordable' },
    { kind: 'feature-unknown', feature: 'quality' },
    { kind: 'score-not-finite' },
  ]
  const words = [...reasons.map(reasonWords), ...exclusions.map(exclusionWords)]
  assert.equal(new Set(words).size, reasons.length + exclusions.length)
  assert.ok(words.every((each) => each.length > 10))
  assert.match(exclusionWords({ kind: 'rule', name: 'affordable' }), /filter 'affordable'/)
  assert.match(exclusionWords({ kind: 'feature-unknown', feature: 'quality' }), /'quality' was not known/)
})

test('says by what margin the lowest score won', () => {
  const candidates = [candidate('large', 3, 0), candidate('small', 1, 1), candidate('tiny', 2, 0)]
  const text = explainDecision(record({ candidates, chosen: 'small', reason: 'lowest' }), [])
  assert.match(text, /because it had the lowest score; next was tiny by a margin of 1\.$/)
})
