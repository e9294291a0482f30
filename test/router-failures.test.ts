// Targets that fail in every way they can, and clients that leave: the answer, the attempts, the outcome.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import OpenAI from 'openai'
import {
  attemptsOf,
  chat,
  client,
  type DecisionRow,
  decisionOf,
  idOf,
  pick,
  post,
  providers,
  router,
  scripts,
  start,
} from './router-stage.ts'
import { chunk, fails, json, type Script, silent, sse } from './scripted-provider.ts'

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
      // An error status generated nothing; what was asked and never answered may have been billed, and is estimated.
      const [failed, repair] = attempts as [DecisionRow, DecisionRow]
      assert.equal(repair.cost_usd, 0.00004)
      assert.equal(row.cost_usd, Number(failed.cost_usd) + 0.00004)
      const billed = status >= 400 ? [0, 'measured'] : [true, 'estimated']
      assert.deepEqual([Number(failed.cost_usd) > 0 || failed.cost_usd, failed.cost_source], billed)
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
    const piecesMax = 4000
    const piece = 'y'.repeat(64 * 1024)
    scripts((response, { body }) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      const event = chunk(body.model, { content: piece })
      const pump = () => {
        while (sent < piecesMax) {
          sent += 1
          if (!response.write(event)) return
        }
      }
      response.on('drain', pump)
      // The stream has long begun when its bulk comes: what holds it back then is the client's pace alone.
      response.write(chunk(body.model, { content: 'begun' }))
      setTimeout(pump, 30)
    })
    const controller = new AbortController()
    const answer = await post(chat({ stream: true }), { signal: controller.signal })
    await answer.body?.getReader().read()
    const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))
    let before = -1
    for (await pause(100); sent > before && sent < piecesMax; await pause(150)) before = sent
    assert.ok(
      sent > 0 && sent < 1000,
      `${sent} pieces of 64 KiB were taken from the provider although nobody read them`,
    )
    controller.abort()
  })
})
