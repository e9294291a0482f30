// What the router passes on when all goes well, and what it records of it; and its other routes.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import {
  chat,
  client,
  type DecisionRow,
  decisionOf,
  idOf,
  pick,
  post,
  providers,
  query,
  router,
  scripts,
  start,
} from './router-stage.ts'
import { json, sse } from './scripted-provider.ts'

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
    await start('', ' pass_traceparent: true,')
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
