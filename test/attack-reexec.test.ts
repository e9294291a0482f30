// Re-execution against a provider that lies about money, a disk that is full, two runs at once and an output that is somebody
// else's file: caps must hold, what was paid for must be kept, and nobody's file may be lost.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { openPayloads } from '../replay/reexec/payloads.ts'
import { type Answered, readJournal, readResults } from '../replay/reexec/result.ts'
import { logFor, provide, runOn, stageFor } from './reexec-stage.ts'
import { chunk, fails, json, type Script } from './scripted-provider.ts'

const commandPath = fileURLToPath(new URL('../cli/main.ts', import.meta.url))
const answersOf = async (output: string): Promise<Answered[]> =>
  [...(await readResults(output)).values()].filter((result): result is Answered => result.status !== 'unasked')

test('a price header that is no amount of money is not believed, and the caps hold', async (t) => {
  const stage = await stageFor(t, logFor(12))
  const lies = ['NaN', '-5', '', 'Infinity', '1e999', '0x10', 'free', '-0', ' ', '1,5', 'null', '-1e-9']
  let call = 0
  const provider = await provide(t, (response, asked) => {
    response.setHeader('x-signalbox-cost-usd', lies[call++ % lies.length] as string)
    return json('an answer')(response, asked)
  })
  const { summary, output } = await runOn(stage, provider.url, { concurrency: 1 })
  assert.equal(summary.stop, 'done')
  const usage = 0.00006
  for (const { cost_usd, spent_usd } of await answersOf(output)) {
    assert.equal(cost_usd, usage, 'by usage instead')
    assert.equal(spent_usd, usage)
  }
  assert.ok(Math.abs(summary.spentUsd - 12 * usage) < 1e-12)
})

test('usage beyond all numbers counts as unknown, in full', async (t) => {
  const stage = await stageFor(t, logFor(4))
  const provider = await provide(t, json('an answer', { input: 1e308, output: 1e308 }))
  const { summary, output } = await runOn(stage, provider.url, { concurrency: 1 })
  assert.equal(summary.unpriced, 4)
  assert.ok(Number.isFinite(summary.spentUsd) && summary.spentUsd > 0)
  assert.equal((await answersOf(output)).length, 4, 'the file can be read again')
})

test('equal bodies in flight at once are paid for once, and none of them breaks the run', async (t) => {
  const stage = await stageFor(t, logFor(40))
  const payloads = stage.records.map(({ id }) => ({
    id,
    body: { messages: [{ role: 'user', content: 'hello' }], max_tokens: 100 },
  }))
  await writeFile(stage.payloadPath, payloads.map((payload) => `${JSON.stringify(payload)}\n`).join(''))
  const provider = await provide(t)
  const { summary } = await runOn(stage, provider.url, { concurrency: 16 })
  assert.deepEqual([summary.asked, summary.ok, summary.calls, provider.asked.length], [40, 40, 1, 1])
})

test('an answer that cannot be kept for another time still counts', async (t) => {
  const stage = await stageFor(t, logFor(5))
  const output = join(stage.folder, 'results.ndjson')
  const provider = await provide(t, async (response, asked) => {
    // The folder of kept answers goes away under the run, as a full disk or a tidy colleague would have it.
    await rm(`${output}.cache`, { recursive: true, force: true })
    return json('an answer')(response, asked)
  })
  const { summary } = await runOn(stage, provider.url, { output })
  assert.deepEqual([summary.stop, summary.ok], ['done', 5])
})

test('a stream that ends in an error event is a failure, whatever came before it', async (t) => {
  const stage = await stageFor(t, logFor(2))
  const streaming = stage.records.map(({ id }) => ({
    id,
    body: { messages: [{ role: 'user', content: id }], max_tokens: 100, stream: true },
  }))
  await writeFile(stage.payloadPath, streaming.map((payload) => `${JSON.stringify(payload)}\n`).join(''))
  const cutOff: Script = (response, { body }) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    response.write(chunk(body.model, { content: 'half an ans' }))
    response.end('data: {"error":{"message":"the provider cut the answer off","type":"upstream_error"}}\n\n')
  }
  const provider = await provide(t, cutOff)
  const { summary, output } = await runOn(stage, provider.url)
  assert.deepEqual([summary.ok, summary.errors], [0, 2])
  assert.match((await answersOf(output))[0]?.error ?? '', /the provider cut the answer off/)
})

test('usage in a last line without a line break counts', async (t) => {
  const stage = await stageFor(t, logFor(1))
  const provider = await provide(t, (response, { body }) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    response.write(chunk(body.model, { content: 'an answer' }))
    response.end('data: {"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":5}}')
  })
  const { output } = await runOn(stage, provider.url)
  assert.deepEqual(
    (await answersOf(output)).map(({ cost_usd }) => cost_usd),
    [0.00006],
  )
})

test("somebody else's file is refused and left as it was, whole lines or not", async (t) => {
  const stage = await stageFor(t, logFor(3))
  const provider = await provide(t)
  for (const [at, notes] of ['my notes, all in one line', 'first\nsecond', '{"v":1}', '{"a":1}\n{"b"'].entries()) {
    const output = join(stage.folder, `notes-${at}`)
    await writeFile(output, notes)
    await assert.rejects(runOn(stage, provider.url, { output }), { code: 'output-invalid' })
    assert.equal(await readFile(output, 'utf8'), notes)
  }
  await mkdir(join(stage.folder, 'a-folder'))
  await assert.rejects(runOn(stage, provider.url, { output: join(stage.folder, 'a-folder') }), {
    code: 'output-invalid',
  })
  assert.equal(provider.asked.length, 0)
})

test('two runs cannot write one file, and the lock of a run that was killed does not stand in the way', async (t) => {
  const stage = await stageFor(t, logFor(6))
  const output = join(stage.folder, 'results.ndjson')
  const provider = await provide(t)
  const other = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)'])
  t.after(() => other.kill())
  await writeFile(`${output}.lock`, String(other.pid))
  await assert.rejects(runOn(stage, provider.url, { output }), {
    code: 'output-mismatch',
    message: /results\.ndjson: another run \(process \d+\) is at it; wait for it, or remove .*results\.ndjson\.lock/,
  })
  assert.equal(provider.asked.length, 0)
  other.kill('SIGKILL')
  await once(other, 'exit')
  const { summary } = await runOn(stage, provider.url, { output })
  assert.equal(summary.asked, 6)
  assert.ok(!(await readdir(stage.folder)).includes('results.ndjson.lock'))
})

test('a file that can no longer be written stops the run with its name, and what was written before is good', async (t) => {
  const stage = await stageFor(t, logFor(30))
  const output = join(stage.folder, 'results.ndjson')
  const provider = await provide(t)
  const files = ['--source', stage.logPath, '--policy', stage.policyPath, '--payloads', stage.payloadPath]
  const command = [process.execPath, commandPath, 'replay', 'reexec', ...files, '--url', `${provider.url}/v1`]
  // Files may not grow beyond 4 KiB: to the process that is a disk that is full.
  const child = spawn('sh', [
    '-c',
    'ulimit -f 8; exec "$@"',
    'sh',
    ...command,
    '--budget-usd',
    '10',
    '--output',
    output,
  ])
  let told = ''
  child.stderr.on('data', (data) => {
    told += data
  })
  assert.deepEqual(await once(child, 'close'), [70, null], told)
  assert.match(told, /writing results to .*results\.ndjson: EFBIG/)
  const before = provider.asked.length
  assert.ok(before > 0 && before < 30)
  const [plan = ''] = (await readFile(output, 'utf8')).split('\n')
  const { policy: policyHash } = JSON.parse(plan) as { policy: string }
  const { summary } = await runOn(stage, provider.url, { output, policyHash })
  assert.deepEqual([summary.stop, summary.asked], ['done', 30])
  await assert.rejects(runOn(stage, provider.url, { output: join(stage.folder, 'no', 'folder') }), {
    code: 'output-unwritable',
    message: /no\/folder: ENOENT/,
  })
})

test('a payload file that changes under the run is noticed before a wrong question is asked', async (t) => {
  const stage = await stageFor(t, logFor(2))
  const payloads = await openPayloads(stage.payloadPath)
  t.after(() => payloads.close())
  const [a = '', b = ''] = (await readFile(stage.payloadPath, 'utf8')).split('\n')
  await writeFile(stage.payloadPath, `${b}\n${a}\n`)
  await assert.rejects(payloads.read(stage.records[0]?.id ?? ''), { code: 'payload-invalid', message: /changed while/ })
})

test('a name in the log that means something to a terminal is only a name', async (t) => {
  const name = 'B\u001b]0;owned\u0007\u202e\nplan: 0 of 0'
  const records = logFor(2).map((record) => ({
    ...record,
    candidates: record.candidates.map((candidate) =>
      candidate.model === 'B' ? { ...candidate, model: name } : candidate,
    ),
  }))
  const stage = await stageFor(t, records)
  await writeFile(
    stage.policyPath,
    JSON.stringify({ name: 'b', choose: { kind: 'weighted', weights: { A: 0, [name]: 1 } } }),
  )
  const files = ['--source', stage.logPath, '--policy', stage.policyPath, '--payloads', stage.payloadPath]
  const dry = ['--url', 'http://127.0.0.1:1/v1', '--budget-usd', '1', '--dry-run']
  const child = spawn(process.execPath, [commandPath, 'replay', 'reexec', ...files, ...dry])
  let told = ''
  child.stdout.on('data', (data) => {
    told += data
  })
  assert.deepEqual(await once(child, 'close'), [0, null])
  assert.match(told, /A → B ]0;owned +plan: 0 of 0$/m)
  assert.doesNotMatch(told.replaceAll('\n', ''), /[\p{Cc}\p{Cf}]/u)
})

test('requests that are sent again count, and the cap on requests holds for them too', async (t) => {
  const stage = await stageFor(t, logFor(3))
  const provider = await provide(t, fails(503, { 'retry-after': '0' }))
  const { summary, output } = await runOn(stage, provider.url, { callsMax: 4, concurrency: 1 })
  assert.equal(provider.asked.length, 4)
  assert.equal(summary.calls, 4)
  assert.equal((await readJournal(output)).calls, 4, 'also for whoever goes on with it')
})
