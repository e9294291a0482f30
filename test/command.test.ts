// The command as a person meets it: started, stopped, misused.
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { json, startProvider } from './scripted-provider.ts'

const launcher = fileURLToPath(new URL('../signalbox.js', import.meta.url))
const run = (args: readonly string[], flags: readonly string[] = []) =>
  spawnSync(process.execPath, [...flags, launcher, ...args], { encoding: 'utf8', timeout: 30_000 })

test('an old Node is told in one line what is needed', () => {
  const old = "data:text/javascript,Object.defineProperty(process.versions,'node',{value:'20.20.2'})"
  const { status, stderr } = run(['--version'], ['--import', old])
  assert.equal(status, 64)
  assert.match(stderr, /^signalbox needs Node >= 24, and this is 20\.20\.2; .*\n$/)
})

test('every command shows its help with an example, and a wrong word is a usage error', () => {
  for (const command of [['up'], ['router'], ['collector'], ['migrate'], ['demo'], ['explain'], ['replay', 'run']]) {
    const { status, stdout } = run([...command, '--help'])
    assert.equal(status, 0, command.join(' '))
    assert.match(stdout, /Examples?:\n {2}signalbox /, command.join(' '))
  }
  const wrong = run(['up', '--nope'])
  assert.deepEqual([wrong.status, /unknown option '--nope'/.test(wrong.stderr)], [64, true])
  assert.equal(run(['nope']).status, 64)
})

test('a bad configuration is refused with file, line, path, found and wanted, all at once', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'signalbox-'))
  t.after(() => rm(folder, { recursive: true, force: true }))
  const file = join(folder, 'signalbox.yaml')
  await writeFile(
    file,
    `listen: { port: http }
providers:
  - { name: p, kind: openai, base_url: nowhere }
models: []
policy: missing.yaml
color: blue
`,
  )
  const { status, stderr } = run(['router', '--config', file])
  assert.equal(status, 64)
  assert.match(stderr, /signalbox\.yaml:1: listen\.port: found "http"; wanted number/)
  assert.match(stderr, /signalbox\.yaml:3: providers\[0\]\.base_url: found "nowhere"; /)
  assert.match(stderr, /signalbox\.yaml:4: models: found \[\]; /)
  assert.match(stderr, /signalbox\.yaml:6: \(the whole\): does not know 'color'/)

  await writeFile(
    file,
    `listen: { host: 0.0.0.0 }
providers: [{ name: p, kind: openai, base_url: "http://127.0.0.1:1", api_key_env: NO_SUCH_KEY }]
models:
  - { name: m, provider: q }
  - { name: n, provider: p, price: { book: openai/no-such-model } }
  - { name: n, provider: p, features: { ttft_ms: 1 } }
policy: { name: p, score: candidate.qualty, choose: { kind: highest } }
`,
  )
  const second = run(['router', '--config', file])
  assert.equal(second.status, 64)
  for (const line of [
    /signalbox\.yaml:2: providers\[0\]\.api_key_env: the environment has no NO_SUCH_KEY/,
    /signalbox\.yaml:4: models\[0\]\.provider: 'q' is not among the providers: p/,
    /signalbox\.yaml:5: models\[1\]\.price\.book: the price book has no openai\/no-such-model/,
    /signalbox\.yaml:6: models\[2\]\.name: 'n' is there twice/,
    /signalbox\.yaml:6: models\[2\]\.features\.ttft_ms: 'ttft_ms' is measured by the router/,
    /signalbox\.yaml:1: listen\.host: 0\.0\.0\.0 is not loopback, so client keys are required/,
    /signalbox\.yaml:7: policy: .*score: column 1: candidate has no 'qualty'; it has: .*quality/,
  ])
    assert.match(second.stderr, line)
  const third = run(['router', '--config', join(folder, 'none.yaml')])
  assert.match(third.stderr, /none\.yaml: cannot be read \(ENOENT\); --config names the file/)
})

test('`up` shows its URLs, answers, and Ctrl-C stops all of it with every span stored', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'signalbox-'))
  const provider = await startProvider(json('Hello'))
  t.after(async () => {
    await provider.close()
    await rm(folder, { recursive: true, force: true })
  })
  const file = join(folder, 'signalbox.yaml')
  await writeFile(
    file,
    `listen: { port: 0 }
providers: [{ name: p, kind: openai, base_url: "${provider.url}/v1" }]
models: [{ name: one, provider: p }, { name: two, provider: p }]
policy: { name: half, choose: { kind: weighted, weights: { one: 1, two: 1 } } }
collector: { data: data, otlp_port: 0, clickhouse_port: 0 }
`,
  )
  // A process group of its own, so that the signal reaches all of it, as Ctrl-C at a terminal does.
  const up = spawn(process.execPath, [launcher, 'up', '--config', file], { detached: true })
  t.after(() => {
    if (up.exitCode === null) process.kill(-(up.pid as number), 'SIGKILL')
  })
  let [banner, log] = ['', '']
  up.stdout.on('data', (chunk) => {
    log += chunk
  })
  const ready = new Promise<void>((resolve) =>
    up.stderr.on('data', (chunk) => {
      banner += chunk
      if (banner.includes('Ctrl-C stops it')) resolve()
    }),
  )
  const exit = new Promise<number | null>((resolve) => up.once('exit', resolve))
  await Promise.race([ready, exit])
  const url = /(http:\S+)\/v1 {2,}/.exec(banner)?.[1] ?? assert.fail(banner)
  const clickhouse = /ClickHouse +(http:\S+)/.exec(banner)?.[1] ?? assert.fail(banner)
  const body = JSON.stringify({ model: 'auto', messages: [{ role: 'user', content: 'Hi' }] })
  const answer = await fetch(`${url}/v1/chat/completions`, { method: 'POST', body })
  const id = answer.headers.get('x-signalbox-decision-id') as string
  assert.equal(answer.status, 200)
  await answer.text()
  const explained = async () => {
    for (const deadline = Date.now() + 5000; Date.now() < deadline; ) {
      const { status, stdout } = run(['explain', id, '--source', clickhouse])
      if (status === 0) return stdout
    }
    return assert.fail('the decision was not stored')
  }
  assert.match(
    await explained(),
    /Policy half considered 2:[\s\S]*won, with probability 0\.5, because the draw fell on it/,
  )
  assert.equal(run(['explain', 'xyz', '--source', clickhouse]).status, 64)
  assert.equal(run(['explain', 'f'.repeat(32), '--source', clickhouse]).status, 70)
  process.kill(-(up.pid as number), 'SIGINT')
  assert.equal(await exit, 0)
  const lines = log
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { name: string; msg: string })
  assert.ok(lines.some(({ name, msg }) => name === 'router' && msg === 'routed'))
  assert.deepEqual(
    lines.filter(({ msg }) => msg.endsWith('stopped')).map(({ name }) => name),
    ['router', 'collector'],
  )
})
