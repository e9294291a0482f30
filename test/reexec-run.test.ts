// Re-execution against a provider on a real socket: what is asked, what it may cost, and what is left after a kill.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { appendFile, readFile, truncate, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import fc from 'fast-check'
import { pino } from 'pino'
import { type Answered, type ReexecResult, readJournal, readResults } from '../replay/reexec/result.ts'
import { parseConfig } from '../router/config.ts'
import { startRouter } from '../router/server.ts'
import { judgeFor, logFor, provide, runOn, type Stage, stageFor } from './reexec-stage.ts'
import { seeded } from './replay-truth.ts'
import { fails, json, type Script, silent, sse } from './scripted-provider.ts'

const seed = Number(process.env.SEED ?? 7)

/** What does not depend on the clock. */
const timeless = (results: ReadonlyMap<string, ReexecResult>) =>
  [...results.values()]
    .map((result) => ({ ...result, latency_ms: null, ttft_ms: null }))
    .sort((a, b) => (a.id < b.id ? -1 : 1))
const answered = (results: ReadonlyMap<string, ReexecResult>): Answered[] =>
  [...results.values()].filter((result): result is Answered => result.status !== 'unasked')

const charging =
  (usd: () => number, script: Script = json('an answer')): Script =>
  (response, asked) => {
    response.setHeader('x-signalbox-cost-usd', String(usd()))
    return script(response, asked)
  }

test('asks only what the candidate decides otherwise, with the model pinned, and prices it by header, then by usage', async (t) => {
  const records = logFor(6)
  const same = records.map((record, at) => (at < 2 ? { ...record, chosen: 'B' } : record))
  const stage = await stageFor(t, same)
  let calls = 0
  const provider = await provide(t, (response, asked) =>
    calls++ === 0
      ? charging(() => 0.0005)(response, asked)
      : json('an answer', { usage: calls !== 2 })(response, asked),
  )
  const { summary, output } = await runOn(stage, provider.url, { concurrency: 1, key: 'secret' })
  assert.deepEqual(
    provider.asked.map(({ body, headers }) => [body.model, headers.authorization]),
    Array.from({ length: 4 }, () => ['B', 'Bearer secret']),
  )
  const costs = answered(await readResults(output)).map(({ cost_usd }) => cost_usd)
  assert.deepEqual(costs, [0.0005, null, 0.00006, 0.00006], 'header; neither; usage: 10 in at $1, 5 out at $10')
  assert.deepEqual([summary.stop, summary.asked, summary.unpriced], ['done', 4, 1])
  assert.ok(summary.spentUsd > 0.001, 'an unknown cost counts with what was set aside')
  assert.doesNotMatch(await readFile(output, 'utf8'), /secret/)
})

test('the budget holds whatever is charged up to what was set aside, in every order of answers', async (t) => {
  const stage = await stageFor(t, logFor(40))
  let capped = 0
  await fc.assert(
    fc.asyncProperty(
      fc.record({
        budgetUsd: fc.double({ min: 0.0005, max: 0.05, noNaN: true }),
        concurrency: fc.integer({ min: 1, max: 8 }),
        chargeSeed: fc.nat(),
      }),
      fc.boolean(),
      async ({ budgetUsd, concurrency, chargeSeed }, isAlwaysMost) => {
        const random = seeded(chargeSeed)
        let charged = 0
        const provider = await provide(t, async (response, asked) => {
          // The most of this body: its bytes at $1 and 100 tokens at $10 per million; the payload line is longer than the body.
          const most = (asked.raw.length + 1000) / 1e6
          const usd = isAlwaysMost ? most : most * random()
          charged += usd
          await new Promise((resolve) => setTimeout(resolve, random() * 3))
          return charging(() => usd)(response, asked)
        })
        const output = join(stage.folder, `${chargeSeed}-${budgetUsd}-${isAlwaysMost}.ndjson`)
        await writeFile(output, '')
        const { summary } = await runOn(stage, provider.url, { budgetUsd, concurrency, output })
        assert.ok(charged <= budgetUsd + 1e-12, `charged ${charged} of ${budgetUsd}`)
        assert.ok(Math.abs(summary.spentUsd - charged) < 1e-12)
        capped += Number(summary.stop === 'budget')
        await runOn(stage, provider.url, { budgetUsd, concurrency, output, outputTokensMax: 101 })
        assert.ok(charged <= budgetUsd + 1e-12, `started again, charged ${charged} of ${budgetUsd}`)
        await provider.close()
      },
    ),
    { numRuns: 15, seed },
  )
  assert.ok(capped > 0, 'the cap was never reached, so nothing was shown')
})

test('stops at the cap on calls and on time, keeps what was done, and goes on from there', async (t) => {
  const stage = await stageFor(t, logFor(30))
  const provider = await provide(t)
  const capped = await runOn(stage, provider.url, { callsMax: 20, concurrency: 3 })
  // Of 30 planned, calls left for 20: the plan draws fewer, or the cap cuts it off.
  assert.ok(capped.summary.calls <= 20)
  assert.equal((await readResults(capped.output)).size, capped.summary.asked)
  provider.script = silent
  const late = await runOn(stage, provider.url, { minutesMax: 0.2 / 60, output: capped.output })
  assert.equal(late.summary.stop, 'minutes')
  assert.equal(late.summary.errors, 0, 'what the clock cut off is no failure of the candidate')
  assert.ok((await readJournal(capped.output)).lostUsd > 0, 'it may have been charged')
  provider.script = json('an answer')
  const whole = await runOn(stage, provider.url, { output: capped.output })
  assert.deepEqual([whole.summary.stop, whole.summary.asked], ['done', 30])
  assert.ok([...(await readResults(whole.output)).values()].every((result) => result.inclusion_probability === 1))
})

test('the time is up also while the last of the budget is set aside for calls that do not come back', async (t) => {
  const stage = await stageFor(t, logFor(20, 1, 0.0001))
  const provider = await provide(t, silent)
  const { summary } = await runOn(stage, provider.url, { budgetUsd: 0.0015, minutesMax: 0.2 / 60 })
  assert.deepEqual([summary.stop, summary.asked, provider.asked.length], ['minutes', 0, 1])
})

test('a file cut off in the middle of a line is taken up again, and comes out as if nothing had happened', async (t) => {
  const stage = await stageFor(t, logFor(25), 'the logged answer')
  const provider = await provide(t, (response, asked) =>
    json(asked.body.model === 'judge' ? '{"better":"tie"}' : `answer ${String(asked.raw.length)}`)(response, asked),
  )
  const options = { judge: judgeFor(0.5), concurrency: 1 }
  const { output } = await runOn(stage, provider.url, { ...options, output: join(stage.folder, 'whole.ndjson') })
  const whole = timeless(await readResults(output))
  const text = await readFile(output, 'utf8')
  const random = seeded(seed)
  for (let cut = 0; cut < 6; cut++) {
    const path = join(stage.folder, `cut-${cut}.ndjson`)
    await writeFile(path, text.slice(0, Math.floor(random() * text.length)))
    await runOn(stage, provider.url, { ...options, output: path })
    assert.deepEqual(timeless(await readResults(path)), whole)
  }
  await appendFile(output, '{"v":1,"sta')
  assert.deepEqual(timeless(await readResults(output)), whole, 'reading leaves a half-written line out')
})

test('what a file says holds as far as everything before it was answered; calls that a kill cut off stay paid for', async (t) => {
  const { folder } = await stageFor(t, [])
  const path = join(folder, 'journal.ndjson')
  const plan = { v: 1, status: 'plan', policy: 'p', frame: 'f', judge: null, tenant_share: 0.5 }
  const started = (id: string, priority: number) => ({
    ...{ v: 1, status: 'started', id, priority, next_priority: priority + 0.1 },
    ...{ reserved_usd: 0.25, reserved_calls: 3 },
  })
  const result = (id: string, priority: number) => ({
    ...{
      v: 1,
      status: 'ok',
      id,
      model: 'B',
      from: 'A',
      inclusion_probability: 1,
      importance: 2,
      priority,
      error: null,
    },
    ...{ cost_usd: 0.1, latency_ms: 1, ttft_ms: null, output_tokens: 1, quality: 1, quality_logged: 1, judge: null },
    ...{ spent_usd: 0.1, calls: 1 },
  })
  const write = (...lines: readonly unknown[]) =>
    writeFile(path, lines.map((line) => `${JSON.stringify(line)}\n`).join(''))
  const lines = [plan, started('a', 0.1), started('b', 0.2), started('c', 0.3), result('a', 0.1), result('c', 0.3)]
  await write(...lines)
  const known = [...(await readResults(path)).values()].map(({ id, inclusion_probability: p }) => [id, p])
  assert.deepEqual(known, [['a', 0.2 * 2 * 0.5]], 'b is open, so c, which comes after it, does not count yet')
  await write(...lines, started('b', 0.2))
  const { lostUsd, spentUsd, calls, threshold } = await readJournal(path)
  assert.deepEqual([lostUsd, spentUsd, calls, threshold], [0.5, 0.2, 8, 0.2])
  await write(...lines, started('b', 0.2), result('b', 0.2))
  const whole = await readJournal(path)
  assert.deepEqual([whole.lostUsd, (await readResults(path)).size], [0.25, 3])
  assert.ok(Math.abs(whole.threshold - 0.4) < 1e-12)
})

test('a request without a limit is given one, because without it no cost is bounded', async (t) => {
  const stage = await stageFor(t, logFor(2))
  const text = (await readFile(stage.payloadPath, 'utf8')).split('\n')
  await writeFile(stage.payloadPath, `${text[0]?.replace(',"max_tokens":100', '')}\n${text[1]}\n`)
  const provider = await provide(t)
  await runOn(stage, provider.url, { outputTokensMax: 77 })
  assert.deepEqual(provider.asked.map(({ body }) => body.max_tokens).sort(), [100, 77])
})

test('the router itself may be asked: it takes the pinned model and says what it cost', async (t) => {
  const stage = await stageFor(t, logFor(3))
  const provider = await provide(t)
  const model = (name: string, usd: number) =>
    `{ name: ${name}, provider: p, price: { input_usd_per_mtok: ${usd}, output_usd_per_mtok: ${usd} } }`
  const collector = createServer((request, response) => request.resume().on('end', () => response.end('{}')))
  await once(collector.listen(0, '127.0.0.1'), 'listening')
  const config = `listen: { port: 0 }
telemetry: { endpoint: "http://127.0.0.1:${(collector.address() as AddressInfo).port}" }
policy: { name: all-a, choose: { kind: weighted, weights: { A: 1 } } }
providers: [{ name: p, kind: openai, base_url: "${provider.url}/v1" }]
models: [${model('A', 1)}, ${model('B', 3)}]
`
  const router = await startRouter(parseConfig(config, stage.folder), { log: pino({ level: 'silent' }) })
  t.after(async () => {
    await router.close()
    collector.close()
  })
  const { summary, output } = await runOn(stage, router.url)
  assert.deepEqual([summary.ok, provider.asked.map(({ body }) => body.model)], [3, ['B', 'B', 'B']])
  for (const { cost_usd } of answered(await readResults(output))) assert.equal(cost_usd, (15 * 3) / 1e6)
})

test('a file of another plan is not gone on with, and a bad line in its middle is named', async (t) => {
  const stage = await stageFor(t, logFor(5))
  const provider = await provide(t)
  const { output } = await runOn(stage, provider.url)
  await assert.rejects(runOn(stage, provider.url, { seed: 8 }), {
    code: 'output-mismatch',
    message: /another policy, log/,
  })
  const lines = (await readFile(output, 'utf8')).split('\n')
  await writeFile(output, [...lines.slice(0, 2), '{"v":1}', ...lines.slice(2)].join('\n'))
  await assert.rejects(readResults(output), { code: 'output-invalid', message: /line 3: / })
})

test('the same body is paid for once: answers are kept beside the results', async (t) => {
  const stage = await stageFor(t, logFor(5))
  const provider = await provide(t)
  const { output } = await runOn(stage, provider.url)
  await truncate(output)
  const { summary } = await runOn(stage, provider.url)
  assert.deepEqual([provider.asked.length, summary.asked, summary.spentUsd, summary.calls], [5, 5, 0, 0])
  assert.ok(answered(await readResults(output)).every(({ cost_usd }) => cost_usd === 0.00006))
})

test('waits as long as a 429 says, tries 5xx again, and takes a 400 for an answer', async (t) => {
  const stage = await stageFor(t, logFor(2))
  const times: number[] = []
  const scripts: Script[] = [fails(429, { 'retry-after': '1' }), fails(503), json('an answer'), fails(400)]
  const provider = await provide(t, (response, asked) => {
    times.push(performance.now())
    return (scripts[times.length - 1] ?? json('an answer'))(response, asked)
  })
  const { summary, output } = await runOn(stage, provider.url, { concurrency: 1 })
  assert.ok((times[1] ?? 0) - (times[0] ?? 0) >= 990, 'a second was asked for')
  assert.deepEqual([summary.ok, summary.errors, summary.spentUsd], [1, 1, 0.00006])
  const failed = answered(await readResults(output)).find(({ status }) => status === 'error')
  assert.match(failed?.error ?? '', /^HTTP 400: .*scripted 400/)
})

test('streams when the client did, and so knows the time to the first token', async (t) => {
  const stage = await stageFor(t, logFor(1))
  await writeFile(
    stage.payloadPath,
    (await readFile(stage.payloadPath, 'utf8')).replace('"max_tokens"', '"stream":true,"max_tokens"'),
  )
  const provider = await provide(t, sse(['a', 'b', 'c'], { gapMs: 20 }))
  const { output } = await runOn(stage, provider.url)
  const [result] = answered(await readResults(output))
  assert.ok(result?.ttft_ms && result.latency_ms && result.ttft_ms < result.latency_ms - 30)
  assert.deepEqual([result.output_tokens, result.cost_usd], [3, 0.00004])
})

test('an answer that is no chat completion, one of another model, and one cut in the middle are failures that are counted', async (t) => {
  const stage = await stageFor(t, logFor(3))
  let calls = 0
  const odd: Script[] = [
    (response) => void response.end('<html>'),
    (response, asked) => {
      response.setHeader('x-signalbox-model', 'A')
      return json('from A')(response, asked)
    },
    (response) => void response.write('{"choices', () => response.destroy()),
  ]
  const provider = await provide(t, (response, asked) => odd[calls++]?.(response, asked))
  const { summary, output } = await runOn(stage, provider.url, { concurrency: 1 })
  assert.deepEqual([summary.ok, summary.errors, provider.asked.length], [0, 3, 3])
  const errors = answered(await readResults(output)).map(({ error }) => error)
  assert.match(errors.join(' | '), /not a chat completion: <html> \| answered by 'A', not 'B' \| \S+/)
})

test('stops early once the difference in quality is known closely enough', async (t) => {
  const stage = await stageFor(t, logFor(400), 'the logged answer')
  const provider = await provide(t, (response, asked) =>
    json(asked.body.model === 'judge' ? '{"better":"tie"}' : 'an answer')(response, asked),
  )
  const { summary } = await runOn(stage, provider.url, { judge: judgeFor(), margin: 0.05 })
  assert.equal(summary.stop, 'precise')
  assert.ok(summary.asked < 100, `asked ${summary.asked}`)
  assert.deepEqual([summary.effect?.difference, (summary.effect?.halfWidth ?? 1) <= 0.05], [0, true])
})

const command = `import { reexecCommand } from ${JSON.stringify(fileURLToPath(new URL('../replay/reexec/command.ts', import.meta.url)))}
await reexecCommand().exitOverride().parseAsync()`
const start = (stage: Stage, url: string, more: readonly string[] = []) => {
  const child = spawn(process.execPath, [
    ...['--input-type=module', '-e', command, '--', '--policy', stage.policyPath, '--source', stage.logPath],
    ...['--payloads', stage.payloadPath, '--url', `${url}/v1`, '--budget-usd', '10', '--concurrency', '3', ...more],
  ])
  const output = { out: '', err: '' }
  child.stdout.on('data', (chunk) => {
    output.out += chunk
  })
  child.stderr.on('data', (chunk) => {
    output.err += chunk
  })
  return { child, output, exit: once(child, 'close') }
}

test('kill -9 in the middle loses no more than what was in flight, and the next start finishes the rest', async (t) => {
  const stage = await stageFor(t, logFor(60))
  const output = join(stage.folder, 'results.ndjson')
  const provider = await provide(t, async (response, asked) => {
    await new Promise((resolve) => setTimeout(resolve, 10))
    return json('an answer')(response, asked)
  })
  const first = start(stage, provider.url, ['--output', output])
  while (provider.asked.length < 20) await new Promise((resolve) => setTimeout(resolve, 5))
  first.child.kill('SIGKILL')
  await first.exit
  const journal = await readJournal(output)
  const asked = provider.asked.length
  assert.ok(asked - journal.answered.size <= 3, `${asked} asked, ${journal.answered.size} kept`)
  assert.ok(journal.lostUsd >= 0)
  const second = start(stage, provider.url, ['--output', output, '--json'])
  const [code] = await second.exit
  assert.equal(code, 0, second.output.err)
  const { plan, result } = JSON.parse(second.output.out)
  assert.deepEqual([plan.changed, result.asked, result.ok], [60, 60, 60])
  assert.ok(provider.asked.length <= 63, 'nothing was asked twice but what was in flight')
  assert.equal((await readResults(output)).size, 60)
})

test('the command says what it will take before it asks, asks nothing in a dry run, and exits 4 at a cap', async (t) => {
  // Predicted to cost a tenth of what they do.
  const stage = await stageFor(t, logFor(10, 1, 0.0001))
  const provider = await provide(
    t,
    charging(() => 0.001),
  )
  const dry = start(stage, provider.url, ['--dry-run'])
  assert.deepEqual(await dry.exit, [0, null])
  assert.match(
    dry.output.out,
    /plan: 10 of 10 decisions change \(100\.0 %\)\n +10 {2}A → B\nexpected: 10 answers, 10 calls, \$0\.0010 of \$10\.00; quality's difference known within ±0\.\d+/,
  )
  assert.equal(provider.asked.length, 0)
  const capped = start(stage, provider.url, ['--budget-usd', '0.0045', '--output', join(stage.folder, 'capped.ndjson')])
  assert.deepEqual(await capped.exit, [4, null], capped.output.err)
  assert.match(capped.output.out, /^plan: [\s\S]*stopped: the rest of the budget could not pay/)
  for (const [more, message] of [
    [['--judge', 'nobody'], /the log has no price of 'nobody'.*--price nobody=input,output/],
    [['--key-env', 'NO_SUCH_KEY'], /the environment has no NO_SUCH_KEY/],
    [['--payloads', 'none.ndjson'], /cannot open none\.ndjson/],
  ] as const) {
    const wrong = start(stage, provider.url, more)
    assert.deepEqual(await wrong.exit, [64, null])
    assert.match(wrong.output.err, message)
  }
})
