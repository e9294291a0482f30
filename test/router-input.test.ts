// What a client may send by mistake or on purpose: a clear error, an intact record, a router that lives.
import assert from 'node:assert/strict'
import { request } from 'node:http'
import { describe, test } from 'node:test'
import { decisionRecordSchema } from '../router/policy/record.ts'
import { chat, client, decisionOf, idOf, pick, post, providers, router, scripts, start } from './router-stage.ts'
import { chunk, json, type Script } from './scripted-provider.ts'

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
