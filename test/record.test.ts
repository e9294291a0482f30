// What is written can be read back: spans, attempts, token usage in streams; and health is a fold whose numbers can be
// followed by hand.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { bodyFor, type ChatRequest, parseChat } from '../router/chat.ts'
import { EventReader } from '../router/completion.ts'
import type { Attempt, AttemptError } from '../router/policy/attempt.ts'
import {
  attemptFromAttributes,
  attemptToAttributes,
  fromAttributes,
  toAttributes,
} from '../router/policy/attributes.ts'
import { type Health, healthOf, observe } from '../router/policy/health.ts'
import { numberSources, streamEnds } from '../router/policy/record.ts'
import { bookPrice, configuredPrice } from '../router/prices.ts'
import { records } from './arbitraries.ts'

const amount = fc.double({ min: 0, max: 1e9, noNaN: true })
const count = fc.option(fc.nat())
const error: fc.Arbitrary<AttemptError | null> = fc.oneof(
  fc.constant(null),
  fc.record({ kind: fc.constant('connect' as const), code: fc.string() }),
  fc.record({
    kind: fc.constant('timeout' as const),
    phase: fc.constantFrom('connect', 'first-byte', 'idle', 'total'),
  }),
  fc.record({ kind: fc.constant('status' as const), status: fc.integer({ min: 400, max: 599 }), retryAfterMs: count }),
  fc.constantFrom('upstream-cut', 'malformed', 'too-large', 'client-abort').map((kind) => ({ kind }) as AttemptError),
)
const attempts: fc.Arbitrary<Attempt> = fc.record({
  number: fc.integer({ min: 1, max: 9 }),
  cause: fc.constantFrom('choice', '429', 'connect'),
  model: fc.string(),
  provider: fc.string(),
  upstreamModel: fc.string(),
  serverAddress: fc.string(),
  serverPort: fc.integer({ min: 1, max: 65_535 }),
  stream: fc.boolean(),
  startedAtMs: fc.nat().map((ms) => 1_700_000_000_000 + ms),
  durationMs: amount,
  connectMs: fc.option(amount),
  headersMs: fc.option(amount),
  ttftMs: fc.option(amount),
  status: fc.option(fc.integer({ min: 100, max: 599 })),
  error,
  streamEnd: fc.option(fc.constantFrom(...streamEnds)),
  usage: fc.record({
    inputTokens: count,
    outputTokens: count,
    cachedInputTokens: count,
    reasoningTokens: count,
    source: fc.constantFrom(...numberSources),
  }),
  costUsd: fc.option(amount),
  costSource: fc.constantFrom(...numberSources),
  responseId: fc.string(),
  responseModel: fc.string(),
  finishReasons: fc.array(fc.string()),
})

describe('attributes', () => {
  test('fromAttributes(toAttributes(record)) is the record', () => {
    fc.assert(fc.property(records, (record) => assert.deepEqual(fromAttributes(toAttributes(record)), record)))
  })

  test('attemptFromAttributes(attemptToAttributes(attempt)) is the attempt', () => {
    fc.assert(
      fc.property(attempts, (attempt) =>
        assert.deepEqual(attemptFromAttributes(attemptToAttributes(attempt, 'd-1')), structuredClone(attempt)),
      ),
    )
  })
})

describe('a stream', () => {
  const events = (usage: boolean) =>
    [
      ': comment\r\n\r\n',
      'data: {"id":"c","model":"m","choices":[{"delta":{"role":"assistant","content":""}}]}\n\n',
      'data: {"choices":[{"delta":{"content":"Grüße \\n\\n"}}],"usage":null}\n\n',
      'data: {"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}\r\n\r\n',
      'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n',
      ...(usage ? ['data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}\n\n'] : []),
      'data: [DONE]\n\n',
    ].join('')

  test('reads the same and passes on the same bytes however it is cut into pieces', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(400), { maxLength: 20 }), fc.boolean(), (cuts, keepUsage) => {
        const bytes = Buffer.from(events(true))
        const reader = new EventReader(keepUsage)
        const forwarded: Buffer[] = []
        let from = 0
        for (const cut of [...cuts.filter((at) => at < bytes.length).sort((a, b) => a - b), bytes.length]) {
          const piece = reader.push(bytes.subarray(from, cut))
          assert.equal(piece.kind, 'events')
          if (piece.kind === 'events') forwarded.push(piece.forward)
          from = cut
        }
        assert.equal(Buffer.concat(forwarded).toString(), events(keepUsage))
        const { usage, done, finishReasons, responseId } = reader.reading
        assert.deepEqual(
          [usage?.inputTokens, usage?.outputTokens, done, finishReasons, responseId],
          [7, 3, true, ['stop'], 'c'],
        )
      }),
    )
  })

  test('that never ends an event is given up', () => {
    const reader = new EventReader(true)
    assert.equal(reader.push(Buffer.alloc(2_000_000, 'x')).kind, 'malformed')
  })
})

describe('the body for a target', () => {
  const parsed = (raw: string): ChatRequest => {
    const chat = parseChat(raw)
    assert.ok(!('status' in chat))
    return chat
  }

  test('means the same as the client’s but for model and usage, whatever the client wrote', () => {
    const content = fc.oneof(fc.string(), fc.constantFrom('"model":"auto"', '{"model": "auto"}', '\\"model\\"'))
    fc.assert(
      fc.property(
        fc.record(
          {
            model: fc.constantFrom('auto', 'a"b', 'ü'),
            messages: fc.array(fc.record({ role: fc.constant('user'), content }, { noNullPrototype: true }), {
              minLength: 1,
            }),
            stream: fc.boolean(),
            stream_options: fc.constantFrom({}, { include_usage: true }, { include_usage: false, other: 1 }),
            metadata: fc.constantFrom({ model: 'x' }, { a: 'b' }),
          },
          { requiredKeys: ['model', 'messages'], noNullPrototype: true },
        ),
        fc.constantFrom(0, 2),
        (body, indent) => {
          const sent = JSON.parse(bodyFor(parsed(JSON.stringify(body, null, indent)), 'up"stream')) as object
          const usage = body.stream ? { stream_options: { ...body.stream_options, include_usage: true } } : {}
          assert.deepEqual(sent, { ...body, model: 'up"stream', ...usage })
        },
      ),
    )
  })

  test('counts about four characters a token', () => {
    const { inputTokens } = parsed(
      JSON.stringify({ model: 'm', messages: [{ role: 'user', content: 'x'.repeat(400) }] }),
    )
    assert.equal(inputTokens, 104)
  })
})

describe('prices', () => {
  test('come from the configuration, cached input at its own rate', () => {
    const price = configuredPrice({ input_usd_per_mtok: 2, output_usd_per_mtok: 10, cached_input_usd_per_mtok: 0.5 })
    assert.equal(
      price.costUsd({ inputTokens: 1_000_000, outputTokens: 100_000, cachedInputTokens: 400_000 }),
      1.2 + 0.2 + 1,
    )
    assert.equal(price.costUsd({ inputTokens: null, outputTokens: 1, cachedInputTokens: null }), null)
  })

  test('come from the book, tiers included, and are null where the book does not know the model', () => {
    const usage = (inputTokens: number) => ({ inputTokens, outputTokens: 1000, cachedInputTokens: null })
    assert.equal(bookPrice('openai', 'gpt-4o-mini')?.costUsd(usage(1000)), (1000 * 0.15 + 1000 * 0.6) / 1e6)
    const tiered = bookPrice('google', 'gemini-2.5-pro')
    assert.ok(tiered)
    assert.ok((tiered.costUsd(usage(300_000)) as number) / 300 > (tiered.costUsd(usage(100_000)) as number) / 100)
    assert.equal(bookPrice('openai', 'no-such-model'), null)
    // Perplexity charges for each request beside its tokens.
    assert.ok((bookPrice('perplexity', 'sonar')?.costUsd(usage(1000)) as number) > 0.005)
  })
})

describe('health', () => {
  const attempt = (overrides: Partial<Attempt>): Attempt => ({
    ...(fc.sample(attempts, { numRuns: 1, seed: 1 })[0] as Attempt),
    model: 'm',
    startedAtMs: 0,
    durationMs: 1000,
    ttftMs: 200,
    error: null,
    usage: { inputTokens: 1, outputTokens: 80, cachedInputTokens: null, reasoningTokens: null, source: 'measured' },
    ...overrides,
  })
  const failure = (startedAtMs: number) =>
    attempt({ startedAtMs, error: { kind: 'status', status: 500, retryAfterMs: null } })
  const fold = (list: readonly Attempt[]): Health => list.reduce(observe, new Map() as Health)

  test('starts at stated priors and moves to what is seen, an observation counting half after two minutes', () => {
    const unseen = healthOf(new Map(), 'm', 0, 0)
    assert.deepEqual(
      [unseen.ttftMs, unseen.tokensPerS, unseen.errorRate, unseen.samples, unseen.breaker],
      [500, 50, 0, 0, 'closed'],
    )
    const health = fold([attempt({})])
    // One observation and the prior weigh the same at first; after one half-life the observation weighs 0.5.
    assert.equal(healthOf(health, 'm', 1000, 0).ttftMs, (200 + 500) / 2)
    // 80 tokens in 800 ms beside the prior's 256 in 5,120.
    assert.equal(healthOf(health, 'm', 1000, 0).tokensPerS, (1000 * (80 + 256)) / (800 + 5120))
    assert.ok(Math.abs(healthOf(health, 'm', 121_000, 0).ttftMs - (100 + 500) / 1.5) < 1e-9)
  })

  test('a short burst says little about throughput, a clock that steps back does not keep a breaker open', () => {
    const steady = Array.from({ length: 20 }, (_, at) => attempt({ startedAtMs: at, durationMs: 2200 }))
    const burst = attempt({ startedAtMs: 30, durationMs: 200.02 })
    assert.ok(healthOf(fold([...steady, burst]), 'm', 2300, 0).tokensPerS < 50)
    const open = fold([0, 1, 2, 3, 4].map((at) => failure(86_400_000 + at)))
    assert.equal(healthOf(open, 'm', 86_401_100, 0).breaker, 'open')
    assert.equal(healthOf(open, 'm', 1000, 0).breaker, 'half-open')
    assert.ok(healthOf(open, 'm', 2 * 86_400_000, 0).samples < 0.01)
  })

  test('opens the breaker after five failures in a row, lets one probe through, and closes on success', () => {
    const list = [0, 1, 2, 3, 4].map(failure)
    assert.equal(healthOf(fold(list.slice(0, 4)), 'm', 1100, 0).breaker, 'closed')
    const open = fold(list)
    assert.equal(healthOf(open, 'm', 1100, 0).breaker, 'open')
    assert.equal(healthOf(open, 'm', 6_100, 0).breaker, 'half-open')
    assert.equal(healthOf(open, 'm', 6_100, 1).breaker, 'open', 'while the probe is in flight')
    const again = observe(open, failure(6_100))
    assert.equal(healthOf(again, 'm', 7_100 + 9_999, 0).breaker, 'open', 'twice as long the second time')
    assert.equal(healthOf(again, 'm', 7_100 + 10_000, 0).breaker, 'half-open')
    assert.equal(healthOf(observe(again, attempt({ startedAtMs: 20_000 })), 'm', 21_000, 0).breaker, 'closed')
  })

  test('does not blame a target for a refused request or a client that left', () => {
    const blameless = fold([
      attempt({ error: { kind: 'client-abort' } }),
      attempt({ error: { kind: 'status', status: 400, retryAfterMs: null } }),
    ])
    assert.equal(blameless.size, 0)
    assert.equal(healthOf(fold([failure(0)]), 'm', 1000, 0).errorRate, 0.5)
  })
})
