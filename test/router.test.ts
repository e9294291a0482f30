// The router through its front door: real sockets, scripted providers, the real collector and ClickHouse behind it. What
// is asserted is what the client got, and what the rows say of it.
import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, before, describe, test } from 'node:test'
import { createClient } from '@clickhouse/client'
import OpenAI from 'openai'
import { pino } from 'pino'
import { type Collector, startCollector } from '../collector/server.ts'
import { parseConfig } from '../router/config.ts'
import { decisionRecordSchema } from '../router/policy/record.ts'
import { type Router, startRouter } from '../router/server.ts'
import {
  chunk,
  fails,
  json,
  type Script,
  type ScriptedProvider,
  silent,
  sse,
  startProvider,
} from './scripted-provider.ts'

const log = pino({ level: 'silent' })
let folder: string
let collector: Collector
let router: Router
let providers: Record<'a' | 'b' | 'c', ScriptedProvider>
let client: OpenAI
const unreachable = 'http://127.0.0.1:1'

const configText = (overrides = '') => `
listen: { port: 0 }
telemetry: { endpoint: "${collector.otlpUrl}" }
policy: { name: test, score: candidate.quality, choose: { kind: highest }, fallback: { attempts_max: 3 } }
providers:
${(['a', 'b', 'c'] as const).map((name) => `  - { name: ${name}, kind: openai, base_url: "${providers[name].url}/v1", timeouts_ms: { connect: 300, first_byte: 300, idle: 300, total: 1500 } }`).join('\n')}
  - { name: gone, kind: openai, base_url: "${unreachable}/v1" }
models:
  - { name: first, provider: a, price: { input_usd_per_mtok: 1, output_usd_per_mtok: 10 }, features: { quality: 0.9 } }
  - { name: second, provider: b, price: { input_usd_per_mtok: 2, output_usd_per_mtok: 20 }, features: { quality: 0.8 } }
  - { name: third, provider: c, features: { quality: 0.7 } }
  - { name: dead, provider: gone, features: { quality: 0.1 } }
${overrides}`

const scripts = (a: Script, b: Script = json('from b'), c: Script = json('from c')) => {
  providers.a.script = a
  providers.b.script = b
  providers.c.script = c
}

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'signalbox-'))
  collector = await startCollector({ otlpPort: 0, clickhousePort: 0, dataFolder: folder, log })
  const [a, b, c] = await Promise.all([startProvider(json('a')), startProvider(json('b')), startProvider(json('c'))])
  providers = { a, b, c }
})
after(async () => {
  for (const provider of Object.values(providers)) await provider.close()
  await collector.close()
  await rm(folder, { recursive: true, force: true })
})
// A router of its own for each test, so that no breaker or latency is carried over.
const start = async (overrides = '') => {
  router = await startRouter(parseConfig(configText(overrides), folder), { log })
  client = new OpenAI({ baseURL: `${router.url}/v1`, apiKey: 'none', maxRetries: 0 })
}
afterEach(() => router?.close())

const messages = [{ role: 'user' as const, content: 'Hi' }]
const chat = <Extra extends object = object>(extra?: Extra) => ({ model: 'auto', messages, ...(extra as Extra) })
const post = (body: unknown, init: RequestInit = {}) =>
  fetch(`${router.url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...(init.headers as Record<string, string>) },
    body: typeof body === 'string' ? body : JSON.stringify(body),
    signal: init.signal ?? null,
  })

const query = async <Row>(sql: string, id: string): Promise<Row[]> => {
  await router.telemetry.flush()
  const clickhouse = createClient({ url: collector.clickhouseUrl })
  try {
    return (await (await clickhouse.query({ query: sql, query_params: { id }, format: 'JSONEachRow' })).json()) as Row[]
  } finally {
    await clickhouse.close()
  }
}
type DecisionRow = Record<string, unknown>
const decisionOf = async (id: string): Promise<DecisionRow> => {
  const [row] = await query<DecisionRow>('SELECT * FROM otel.routing_decisions FINAL WHERE decision_id = {id:UUID}', id)
  return row ?? assert.fail(`decision ${id} is not stored`)
}
const attemptsOf = (id: string) =>
  query<DecisionRow>(
    'SELECT number, cause, model, http_status, error_type, stream_end, cost_usd, cost_source, input_tokens, output_tokens FROM otel.routing_attempts FINAL WHERE decision_id = {id:UUID} ORDER BY number',
    id,
  )
const pick = (row: DecisionRow | undefined, ...names: string[]) => names.map((name) => row?.[name])
const idOf = (response: Response): string =>
  response.headers.get('x-signalbox-decision-id') ?? assert.fail('no decision id')

describe('an answer', () => {
  test('comes back unchanged to the official SDK, and its decision is one typed row', async () => {
    await start()
    scripts(json('Hello there', { input: 100, output: 20 }))
    const { data, response } = await client.chat.completions
      .create(chat({ user: 'u-1', metadata: { category: 'math' } }))
      .withResponse()
    assert.equal(data.choices[0]?.message.content, 'Hello there')
    assert.equal(data.model, 'first-0101')
    assert.equal(response.headers.get('x-signalbox-model'), 'first')
    assert.equal(response.headers.get('x-signalbox-attempts'), '1')
    assert.equal(Number(response.headers.get('x-signalbox-cost-usd')), 0.0003)
    assert.equal(response.headers.get('x-request-id'), 'req-1')
    const row = await decisionOf(idOf(response))
    assert.deepEqual(pick(row, 'chosen_model', 'served_model', 'reason', 'outcome', 'http_status', 'fell_back'), [
      'first',
      'first',
      'highest',
      'ok',
      200,
      false,
    ])
    assert.deepEqual(pick(row, 'cost_usd', 'cost_source', 'input_tokens', 'output_tokens', 'tokens_source'), [
      0.0003,
      'measured',
      100,
      20,
      'measured',
    ])
    assert.deepEqual(pick(row, 'tags', 'user', 'probability', 'requested_model'), [
      { category: 'math' },
      'u-1',
      1,
      'auto',
    ])
    assert.ok(Number(row.latency_ms) >= Number(row.overhead_ms))
  })

  test('is asked for byte for byte but for the model’s name, and the provider sees no header of ours', async () => {
    await start()
    scripts(json('ok'))
    const body =
      '{ "messages":[{"role":"user","content":"a \\"model\\": b"}],\n "unknown_field": {"x": 1.50}, "model" : "auto"}'
    assert.equal((await post(body, { headers: { 'x-signalbox-tags': 'secret=1' } })).status, 200)
    const asked = providers.a.asked.at(-1)
    assert.equal(asked?.raw, body.replace('"auto"', '"first"'))
    assert.deepEqual(
      Object.keys(asked?.headers ?? {}).filter((name) => name.startsWith('x-')),
      [],
    )
  })

  test('streams to the official SDK as it arrives; usage is measured although the client did not ask, and it gets no usage chunk', async () => {
    await start()
    scripts(sse(['Hel', 'lo'], { input: 100, output: 2 }))
    const { data: stream, response } = await client.chat.completions
      .create(chat({ stream: true as const }))
      .withResponse()
    const pieces: string[] = []
    for await (const piece of stream) {
      assert.equal(piece.usage ?? null, null)
      pieces.push(piece.choices[0]?.delta.content ?? '')
    }
    assert.equal(pieces.join(''), 'Hello')
    assert.deepEqual(providers.a.asked.at(-1)?.body.stream_options, { include_usage: true })
    const row = await decisionOf(idOf(response))
    assert.deepEqual(pick(row, 'outcome', 'stream_end', 'tokens_source', 'output_tokens', 'stream'), [
      'ok',
      'complete',
      'measured',
      2,
      true,
    ])
    assert.equal(row.cost_usd, (100 + 2 * 10) / 1e6)
    assert.ok(Number(row.ttft_ms) > 0)
  })

  test('carries the usage chunk to a client that asked for it', async () => {
    await start()
    scripts(sse(['x'], { input: 7, output: 1 }))
    const stream = await client.chat.completions.create(
      chat({ stream: true as const, stream_options: { include_usage: true } }),
    )
    const usages = []
    for await (const piece of stream) if (piece.usage) usages.push(piece.usage.prompt_tokens)
    assert.deepEqual(usages, [7])
  })

  test('without usage from the provider is estimated, and says so', async () => {
    await start()
    scripts(json('12345678', { usage: false }))
    const answer = await post(chat())
    const row = await decisionOf(idOf(answer))
    assert.deepEqual(pick(row, 'tokens_source', 'cost_source', 'output_tokens'), ['estimated', 'estimated', 2])
    scripts(sse(['1234', '5678'], { usage: false }))
    const streamed = await post(chat({ stream: true }))
    await streamed.text()
    assert.deepEqual(pick(await decisionOf(idOf(streamed)), 'tokens_source', 'output_tokens'), ['estimated', 2])
  })

  test('of a model without a known price has an unknown cost, not zero', async () => {
    await start()
    scripts(json('x'))
    const answer = await post(chat({ model: 'third' }))
    assert.equal(answer.headers.get('x-signalbox-cost-usd'), null)
    assert.deepEqual(pick(await decisionOf(idOf(answer)), 'cost_usd', 'cost_source', 'reason'), [
      null,
      'unknown',
      'pinned',
    ])
  })

  test('joins the trace that the client is in', async () => {
    await start()
    scripts(json('x'))
    const traceId = '4bf92f3577b34da6a3ce929d0e0e4736'
    const answer = await post(chat(), { headers: { traceparent: `00-${traceId}-00f067aa0ba902b7-00` } })
    assert.equal((await decisionOf(idOf(answer))).trace_id, traceId)
  })

  test('continues its trace at a provider that is to know it: each call names the span of its attempt', async () => {
    await start()
    const text = configText().replace('name: a, kind: openai,', 'name: a, kind: openai, pass_traceparent: true,')
    await router.close()
    router = await startRouter(parseConfig(text, folder), { log })
    scripts(json('x'))
    const traceId = '4bf92f3577b34da6a3ce929d0e0e4737'
    for (const headers of [{ traceparent: `00-${traceId}-00f067aa0ba902b7-01` }, {}]) {
      const id = idOf(await post(chat(), { headers: headers as Record<string, string> }))
      const [attempt] = await query<DecisionRow>(
        'SELECT trace_id, span_id FROM otel.routing_attempts WHERE decision_id = {id:UUID}',
        id,
      )
      assert.equal(providers.a.asked.at(-1)?.headers.traceparent, `00-${attempt?.trace_id}-${attempt?.span_id}-01`)
      assert.equal((await decisionOf(id)).trace_id, attempt?.trace_id)
      if ('traceparent' in headers) assert.equal(attempt?.trace_id, traceId)
    }
  })
})

describe('when a target fails', () => {
  const repaired: [string, Script, string, number][] = [
    ['429', fails(429, { 'retry-after': '1' }), '429', 429],
    ['500', fails(500), '500', 500],
    ['529', fails(529), '529', 529],
    ['408', fails(408), '408', 408],
    ['silence', silent, 'timeout-first-byte', 0],
    ['a reset', (response) => void response.destroy(), 'upstream-cut', 0],
    [
      'HTML in place of JSON',
      (response) => void response.writeHead(200, { 'content-type': 'text/html' }).end('<html>'),
      'malformed',
      200,
    ],
    [
      'truncated JSON',
      (response) => void response.writeHead(200, { 'content-type': 'application/json' }).end('{"choices":['),
      'malformed',
      200,
    ],
  ]
  for (const [name, script, error, status] of repaired)
    test(`with ${name}, the next one answers, and the span says why`, async () => {
      await start()
      scripts(script, json('from b', { input: 10, output: 1 }))
      const stream = error.startsWith('timeout')
      if (stream) providers.b.script = sse(['from b'], { input: 10, output: 1 })
      const answer = await post(chat({ stream }))
      assert.equal(answer.status, 200)
      assert.match(await answer.text(), /from b/)
      assert.equal(answer.headers.get('x-signalbox-model'), 'second')
      const id = idOf(answer)
      const attempts = await attemptsOf(id)
      assert.deepEqual(
        attempts.map((row) => pick(row, 'number', 'cause', 'model', 'error_type', 'http_status')),
        [
          [1, 'choice', 'first', error, status],
          [2, error, 'second', '', 200],
        ],
      )
      const row = await decisionOf(id)
      assert.deepEqual(pick(row, 'chosen_model', 'served_model', 'fell_back', 'outcome', 'attempts', 'error_type'), [
        'first',
        'second',
        true,
        'ok',
        2,
        '',
      ])
    })

  test('a stream that fails before its first content is repaired unseen', async () => {
    await start()
    scripts(sse(['never'], { cutAfter: 0 }), sse(['from b']))
    const text = await (await post(chat({ stream: true }))).text()
    assert.match(text, /from b/)
    assert.doesNotMatch(text, /first/)
  })

  test('a stream cut after its first content is told to the client and recorded as upstream-cut', async () => {
    await start()
    scripts(sse(['some', 'more', 'never'], { cutAfter: 2, gapMs: 5 }), json('must not be asked'))
    const { data: stream, response } = await client.chat.completions
      .create(chat({ stream: true as const }))
      .withResponse()
    const pieces: string[] = []
    await assert.rejects(async () => {
      for await (const piece of stream) pieces.push(piece.choices[0]?.delta.content ?? '')
    }, OpenAI.APIError)
    assert.equal(pieces.join(''), 'somemore')
    const id = idOf(response)
    assert.deepEqual(pick(await decisionOf(id), 'outcome', 'stream_end', 'served_model', 'tokens_source', 'attempts'), [
      'upstream-cut',
      'upstream-cut',
      'first',
      'estimated',
      1,
    ])
    assert.deepEqual(
      (await attemptsOf(id)).map((row) => row.error_type),
      ['upstream-cut'],
    )
  })

  test('a stream that stalls is cut after the idle timeout', async () => {
    await start()
    scripts(
      (response, { body }) =>
        void response
          .writeHead(200, { 'content-type': 'text/event-stream' })
          .write(chunk(body.model, { content: 'x' })),
    )
    const answer = await post(chat({ stream: true }))
    assert.match(await answer.text(), /"code":"timeout-idle"/)
    assert.deepEqual(pick(await decisionOf(idOf(answer)), 'outcome', 'stream_end'), ['upstream-cut', 'stalled'])
  })

  test('a malformed event ends the stream with an error the client can read', async () => {
    await start()
    scripts((response, { body }) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' }).write(chunk(body.model, { content: 'x' }))
      setTimeout(() => response.end('data: {oops\n\n'), 20)
    })
    const answer = await post(chat({ stream: true }))
    assert.match(await answer.text(), /"code":"malformed"/)
    assert.deepEqual(pick(await decisionOf(idOf(answer)), 'outcome', 'stream_end'), ['upstream-cut', 'malformed'])
  })

  test('the total timeout ends a slow drip', async () => {
    await start()
    scripts(
      sse(
        Array.from({ length: 100 }, (_, at) => `t${at} `),
        { gapMs: 50 },
      ),
    )
    const answer = await post(chat({ stream: true }))
    assert.match(await answer.text(), /"code":"timeout-total"/)
    assert.equal((await decisionOf(idOf(answer))).outcome, 'upstream-cut')
  })

  test('what the provider refuses is passed on, not tried elsewhere', async () => {
    await start()
    scripts(fails(400))
    const answer = await post(chat())
    assert.equal(answer.status, 400)
    assert.match(await answer.text(), /scripted 400/)
    assert.deepEqual(pick(await decisionOf(idOf(answer)), 'outcome', 'attempts', 'http_status', 'error_type'), [
      'rejected',
      1,
      400,
      '400',
    ])
  })

  test('when all fail, the client is told in its API’s shape what was tried', async () => {
    await start()
    scripts(fails(500), fails(503), fails(429, { 'retry-after': '7' }))
    await assert.rejects(client.chat.completions.create(chat()), (error) => {
      assert.ok(error instanceof OpenAI.RateLimitError)
      assert.match(
        error.message,
        /no target could answer \(first: 500, second: 503, third: 429\); the last one said: scripted 429/,
      )
      assert.equal(error.headers?.get('retry-after'), '7')
      return true
    })
  })

  test('a target that cannot be reached is a connect error', async () => {
    await start()
    const answer = await post(chat({ model: 'dead' }))
    assert.equal(answer.status, 502)
    const id = idOf(answer)
    assert.deepEqual(
      (await attemptsOf(id)).map((row) => pick(row, 'error_type', 'http_status', 'cost_usd')),
      [['connect', 0, 0]],
    )
    assert.equal((await decisionOf(id)).outcome, 'error')
  })

  test('five failures in a row open its breaker; then it is excluded, and after all are, the answer is 503 with reasons', async () => {
    await start()
    scripts(fails(500))
    for (let at = 0; at < 5; at += 1) await (await post(chat())).text()
    const answer = await post(chat())
    assert.equal(answer.headers.get('x-signalbox-attempts'), '1')
    const row = await decisionOf(idOf(answer))
    assert.equal(row.chosen_model, 'second')
    assert.deepEqual(row['candidates.exclusion'], ['', 'breaker-open', '', ''])
    const pinned = await post(chat({ model: 'first' }))
    assert.equal(pinned.status, 503)
    assert.match(await pinned.text(), /first: breaker-open/)
    assert.deepEqual(pick(await decisionOf(idOf(pinned)), 'outcome', 'reason', 'chosen_model'), [
      'no-candidate',
      'none-eligible',
      '',
    ])
  })
})

describe('a client that goes away', () => {
  test('cancels the call upstream, and the decision is recorded as aborted, not failed', async () => {
    await start()
    scripts(
      sse(
        Array.from({ length: 1000 }, () => 'x'),
        { gapMs: 20 },
      ),
    )
    const seen = providers.a.asked.length
    const controller = new AbortController()
    const answer = await post(chat({ stream: true }), { signal: controller.signal })
    const reader = answer.body?.getReader()
    await reader?.read()
    controller.abort()
    await reader?.read().catch(() => {})
    await providers.a.closed(seen + 1)
    const id = idOf(answer)
    while (router.telemetry.counts().decisions < 1) await new Promise((resolve) => setTimeout(resolve, 5))
    assert.deepEqual(pick(await decisionOf(id), 'outcome', 'stream_end', 'http_status'), [
      'client-abort',
      'client-abort',
      499,
    ])
    assert.deepEqual(
      (await attemptsOf(id)).map((row) => row.error_type),
      [''],
    )
  })

  test('and one that reads slowly slows the provider down instead of filling the router’s memory', async () => {
    await start('')
    let sent = 0
    const piece = 'y'.repeat(64 * 1024)
    scripts((response, { body }) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      const event = chunk(body.model, { content: piece })
      const pump = () => {
        while (sent < 2000 && response.write(event)) sent += 1
      }
      response.on('drain', pump)
      pump()
    })
    const controller = new AbortController()
    const answer = await post(chat({ stream: true }), { signal: controller.signal })
    await answer.body?.getReader().read()
    await new Promise((resolve) => setTimeout(resolve, 250))
    assert.ok(sent < 1000, `${sent} pieces of 64 KiB were taken from the provider although nobody read them`)
    controller.abort()
  })
})

describe('bad input', () => {
  const cases: [string, string, number, RegExp][] = [
    ['no JSON', '{"model":', 400, /the body is not JSON/],
    ['no messages', '{"model":"auto"}', 400, /messages: found nothing; wanted array/],
    [
      'a model of the wrong type',
      '{"model":1,"messages":[{"role":"user","content":"x"}]}',
      400,
      /model: found 1; wanted string/,
    ],
    [
      'a limit below one',
      '{"model":"auto","max_tokens":0,"messages":[{"role":"user","content":"x"}]}',
      400,
      /max_tokens: found 0/,
    ],
    ['nothing', '', 400, /not JSON/],
  ]
  for (const [name, body, status, message] of cases)
    test(`is answered with a clear error: ${name}`, async () => {
      await start()
      const answer = await post(body)
      assert.equal(answer.status, status)
      const { error } = (await answer.json()) as { error: { message: string; type: string } }
      assert.match(error.message, message)
      assert.equal(error.type, 'invalid_request_error')
      assert.equal((await fetch(`${router.url}/healthz`)).status, 200)
    })

  test('too much of it is refused', async () => {
    await start()
    const answer = await post(
      `{"model":"auto","messages":[{"role":"user","content":"${'x'.repeat(34_000_000)}"}]}`,
    ).catch(() => null)
    if (answer) assert.equal(answer.status, 413)
    assert.equal((await fetch(`${router.url}/healthz`)).status, 200)
  })

  test('an unknown path says what there is', async () => {
    await start()
    const answer = await fetch(`${router.url}/v1/nope`)
    assert.equal(answer.status, 404)
    assert.match(await answer.text(), /there is no GET \/v1\/nope; there are: POST \/v1\/chat\/completions/)
  })
})

describe('what an attacker or bad luck may send', () => {
  const recordOf = async (id: string) => decisionRecordSchema.parse(JSON.parse(String((await decisionOf(id)).record)))

  test('a web page cannot use a router without keys, nor can a name that was made to point at it', async () => {
    await start()
    for (const headers of [{ origin: 'https://page.example' }, { 'sec-fetch-site': 'cross-site' }])
      assert.equal((await post(chat(), { headers: headers as Record<string, string> })).status, 403)
    const { hostname, port } = new URL(router.url)
    const status = await new Promise((resolve) => {
      const options = {
        hostname,
        port,
        method: 'POST',
        path: '/v1/chat/completions',
        headers: { host: 'page.example' },
      }
      request(options, (response) => resolve(response.resume().statusCode)).end('{}')
    })
    assert.equal(status, 403)
  })

  test('the longest tags and the oddest texts still make a record that replay reads', async () => {
    await start()
    scripts(json('x'))
    const odd = 'a\ud800b'
    const metadata = { long: 'x'.repeat(512), [odd]: odd }
    const tags = Array.from({ length: 20 }, (_, at) => `k${at}=${'y'.repeat(300)}`).join(',')
    const headers = {
      'x-signalbox-tags': tags,
      'x-signalbox-tier': 't'.repeat(900),
      'x-signalbox-session': 's'.repeat(900),
    }
    const id = idOf(await post(chat({ metadata, user: odd }), { headers }))
    const row = await decisionOf(id)
    assert.equal((row['candidates.model'] as string[]).length, 4)
    assert.equal((await recordOf(id)).request.user, 'a\ufffdb')
    const many = Object.fromEntries(Array.from({ length: 17 }, (_, at) => [`k${at}`, 'v']))
    const refused = await post(chat({ metadata: many }))
    assert.equal(refused.status, 400)
    assert.match(await refused.text(), /metadata: .*wanted at most 16 entries/)
  })

  test('a key spelled with escapes cannot slip another model past the decision', async () => {
    await start()
    scripts(json('x'))
    for (const body of [
      '{"mod\\u0065l":"auto","messages":[{"role":"user","content":"x"}],"metadata":{"model":"auto"}}',
      '{"model":"second","mod\\u0065l":"auto","messages":[{"role":"user","content":"x"}]}',
    ]) {
      assert.equal((await post(body)).status, 200)
      assert.equal(providers.a.asked.at(-1)?.body.model, 'first')
    }
    const deep = `{"model":"auto","messages":[{"role":"user","content":"x","model":"${'y'.repeat(12_000_000)}"}]}`
    assert.equal((await post(deep)).status, 200)
    assert.deepEqual(
      (await recordOf(idOf(await post(chat())))).candidates.map(({ features }) => features.in_flight),
      [0, 0, 0, 0],
    )
  })

  test('a model that is not there is named, with those that are', async () => {
    await start()
    await assert.rejects(client.chat.completions.create(chat({ model: 'gpt-typo' })), {
      status: 404,
      message: "404 model 'gpt-typo' is not in signalbox.yaml; it has: auto, dead, first, second, third",
    })
  })

  test('usage that cannot be true is not recorded as measured, and a price that cannot take it is unknown, not a hang', async () => {
    await start('  - { name: tiered, provider: a, price: { book: google/gemini-2.5-pro } }')
    const usage =
      (input: number, cached: number): Script =>
      (response) => {
        const body = {
          choices: [{ message: { content: 'x' }, finish_reason: 'stop' }],
          usage: { prompt_tokens: input, completion_tokens: 1, prompt_tokens_details: { cached_tokens: cached } },
        }
        response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(body))
      }
    scripts(usage(1e22, 0))
    assert.equal((await decisionOf(idOf(await post(chat())))).tokens_source, 'estimated')
    scripts(usage(10, 500))
    const row = await decisionOf(idOf(await post(chat({ model: 'tiered' }))))
    assert.deepEqual(pick(row, 'cost_source', 'outcome'), ['measured', 'ok'])
  })

  test('a redirect or an empty answer is a failure of the target', async () => {
    await start()
    for (const status of [204, 301]) {
      scripts((response) => void response.writeHead(status, { location: '/elsewhere' }).end())
      const answer = await post(chat())
      assert.deepEqual([answer.status, answer.headers.get('x-signalbox-model')], [200, 'second'])
    }
  })

  test('a stream’s last event needs no blank line, and content before an error is not lost', async () => {
    await start()
    scripts(
      (response, { body }) =>
        void response
          .writeHead(200, { 'content-type': 'text/event-stream' })
          .end(`${chunk(body.model, { content: 'x' }, 'stop')}data: [DONE]\n`),
    )
    assert.match(await (await post(chat({ stream: true }))).text(), /"x".*\ndata: \[DONE\]\n\n$/s)
    scripts(
      (response, { body }) =>
        void response
          .writeHead(200, { 'content-type': 'text/event-stream' })
          .end(`${chunk(body.model, { content: 'kept' })}data: {"error":{"message":"boom"}}\n\n`),
    )
    const text = await (await post(chat({ stream: true }))).text()
    assert.match(text, /kept[\s\S]*"code":"upstream-cut"/)
    assert.doesNotMatch(text, /DONE/)
  })

  test('closing waits for the request in flight and not for its connection', async () => {
    await start()
    scripts((response, asked) => void setTimeout(() => json('late')(response, asked), 200))
    const seen = providers.a.asked.length
    const answer = post(chat())
    while (providers.a.asked.length === seen) await new Promise((resolve) => setTimeout(resolve, 5))
    const startedAt = performance.now()
    await router.close()
    assert.equal((await answer).status, 200)
    assert.ok(performance.now() - startedAt < 5000, 'the idle connection was waited for')
  })
})

describe('the other routes', () => {
  test('models, health and readiness', async () => {
    await start()
    const models = await client.models.list()
    assert.deepEqual(
      models.data.map((model) => model.id),
      ['auto', 'dead', 'first', 'second', 'third'],
    )
    const ready = (await (await fetch(`${router.url}/readyz`)).json()) as { ready: boolean; policy: { name: string } }
    assert.deepEqual([ready.ready, ready.policy.name], [true, 'test'])
  })

  test('feedback joins its decision; the last of a name wins; a bad one is refused', async () => {
    await start()
    scripts(json('x'))
    const id = idOf(await post(chat()))
    const give = (body: object) =>
      fetch(`${router.url}/v1/feedback`, {
        method: 'POST',
        body: JSON.stringify(body),
        headers: { 'content-type': 'application/json' },
      })
    assert.equal((await give({ decision_id: id, score: false })).status, 202)
    assert.equal((await give({ decision_id: id, score: 0.25, comment: 'meh' })).status, 202)
    assert.equal((await give({ decision_id: id, score: true, name: 'polite' })).status, 202)
    const rows = await query<DecisionRow>(
      'SELECT name, score, comment FROM otel.feedback FINAL WHERE decision_id = {id:UUID} ORDER BY name',
      id,
    )
    assert.deepEqual(rows, [
      { name: 'polite', score: 1, comment: '' },
      { name: 'quality', score: 0.25, comment: 'meh' },
    ])
    const bad = await give({ decision_id: 'x', score: 2 })
    assert.equal(bad.status, 400)
    assert.match(await bad.text(), /decision_id: found .*x.*score: found 2/)
  })

  test('the policy in force is stored with its source, so that replay can make the decision again', async () => {
    await start()
    const [row] = await query<DecisionRow>(
      'SELECT name, hash, source FROM otel.policies FINAL WHERE name = {id:String}',
      'test',
    )
    assert.match(String(row?.hash), /^sha256:/)
    assert.equal(JSON.parse(String(row?.source)).score, 'candidate.quality')
  })

  test('with client keys, a request without the right one is refused before anything is read of it', async () => {
    process.env.TEST_KEY = 'sk-test'
    await start('keys: [{ name: ci, key_env: TEST_KEY, tenant: acme, tier: premium }]')
    scripts(json('x'))
    assert.equal((await post(chat())).status, 401)
    assert.equal((await post(chat(), { headers: { authorization: 'Bearer sk-nope' } })).status, 401)
    const answer = await post(chat(), { headers: { authorization: 'Bearer sk-test', 'x-signalbox-tenant': 'other' } })
    assert.deepEqual(pick(await decisionOf(idOf(answer)), 'tenant', 'tier'), ['acme', 'premium'])
  })
})
