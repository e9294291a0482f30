// What a person types: parts joined by a plus, options anywhere, and the answer as text and as JSON.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { parseWords } from '../replay/whatif/arguments.ts'
import type { WhatIf } from '../replay/whatif/whatif.ts'
import { parsePolicy } from '../router/policy/policy.ts'
import { logOf, seeded, truthFeatures } from './replay-truth.ts'

const policyText = 'name: production\nscore: candidate.rank\nchoose: {kind: highest}\nexplore: {rate: 0.9}'
const production = parsePolicy(policyText, truthFeatures)
const records = logOf(production, 800, seeded(7))
const models = [...new Set(records.map(({ chosen }) => chosen as string))].sort()
const [dear] = ['gemini-1.5-pro-002']

const program = `
import { Command } from ${JSON.stringify(import.meta.resolve('commander'))}
import { whatifCommand } from ${JSON.stringify(new URL('../replay/whatif/command.ts', import.meta.url).href)}
const program = new Command('signalbox').addCommand(new Command('replay').addCommand(whatifCommand()))
const every = (command) => [command, ...command.commands.flatMap(every)]
for (const command of every(program)) command.exitOverride()
try {
  await program.parseAsync(['node', 'signalbox', 'replay', 'whatif', ...process.argv.slice(1)])
} catch (error) {
  if (!String(error.code).startsWith('commander.')) throw error
  process.exitCode = error.exitCode === 0 ? 0 : 64
}`
let folder: string
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'signalbox-whatif-'))
  await writeFile(join(folder, 'log.ndjson'), records.map((record) => `${JSON.stringify(record)}\n`).join(''))
  await writeFile(join(folder, 'production.yaml'), policyText)
  await writeFile(join(folder, 'prices.yaml'), `${dear}: {input_usd_per_mtok: 0, output_usd_per_mtok: 50}`)
  await writeFile(join(folder, 'scenario.yaml'), '- {kind: traffic, scale: 0.5}')
})
after(() => rm(folder, { recursive: true }))
const command = (...words: readonly string[]) =>
  spawnSync(process.execPath, ['--input-type=module', '-e', program, '--', ...words], {
    cwd: folder,
    encoding: 'utf8',
    timeout: 30_000,
  })
const log = ['--source', 'log.ndjson', '--logged-policy', 'production.yaml']

test('parts are joined by a plus, and what no part knows is handed back', () => {
  const typed = `price --model x=+10% --model y=-50% --seed 3 + outage --model y --from 2026-11-01 --to 2026-11-02T00:00:00Z
    + ratelimit --model z --rpm 5 --from 2026-01-01 + retire --model x --successor y + cache --ttl 300 --size 5000
    + traffic --scale 2 --mix tag:a=b=0.5`
  assert.deepEqual(parseWords(typed.split(/\s+/)), {
    parts: [
      { kind: 'price', prices: {}, factors: { x: 1.1, y: 0.5 } },
      {
        kind: 'outage',
        model: 'y',
        from: '2026-11-01T00:00:00.000Z',
        to: '2026-11-02T00:00:00.000Z',
        fail_after_ms: 1000,
      },
      { kind: 'ratelimit', model: 'z', rpm: 5 },
      { kind: 'retire', model: 'x', successor: 'y' },
      { kind: 'cache', ttl_s: 300, size_tokens: 5000, discount: 0.9 },
      { kind: 'traffic', scale: 2, mix: { 'tag:a=b': 0.5 } },
    ],
    rest: ['--seed', '3', '--from', '2026-01-01'],
  })
})

test('a part that cannot be read says what was found and wanted', () => {
  const wrong = (words: string, message: RegExp) =>
    assert.throws(() => parseWords(words.split(' ')), { code: 'scenario-invalid', message })
  wrong('price --model x', /price: .*found 'x'; wanted MODEL=\+10%/)
  wrong('price --model x=+1% + nope', /found 'nope'; wanted one of price, outage/)
  wrong('outage --model m', /outage: from: /)
  wrong('traffic --mix math=0.5', /wanted SEGMENT=VALUE=SHARE/)
  wrong('ratelimit --model m --concurrency 0', /concurrency: /)
})

test('prints production beside the scenario, says that it is simulated and whether it is calibrated', () => {
  const { status, stdout, stderr } = command('price', '--model', `${dear}=+10%`, ...log, '--slo-ms', '2000')
  assert.equal(stderr, '')
  assert.equal(status, 0, stdout)
  assert.match(
    stdout,
    /^SIMULATED, not observed: 800 recorded decisions, if\n {2}· price of gemini-1\.5-pro-002 × 1\.1/,
  )
  assert.match(stdout, /✓ calibrated: production simulated by itself is within 5\.0 % of the log/)
  assert.match(stdout, /logged +production +first order +simulated +change/)
  assert.match(stdout, /later than 2000 ms or failed/)
  assert.match(stdout, /seed 1; /)
})

test('gives all figures as JSON: a price file, an outage and a scenario file compose; and every request as a line', async () => {
  const from = records[200]?.time as string
  const to = records[500]?.time as string
  const words = ['price', '--file', 'prices.yaml', '+', 'outage', '--model', dear, '--from', from, '--to', to]
  const { status, stdout, stderr } = command('--scenario', 'scenario.yaml', ...words, '--json', ...log, '--seed', 'x')
  assert.equal(stderr, '')
  const result = JSON.parse(stdout) as WhatIf
  assert.equal(status, result.calibration.calibrated ? 0 : 3)
  assert.deepEqual([result.evidence, result.seed, result.records], ['simulated', 'x', 800])
  assert.deepEqual(
    result.scenario.map(({ kind }) => kind),
    ['traffic', 'price', 'outage'],
  )
  assert.ok(result.simulated.requests > 300 && result.simulated.requests < 500)
  assert.ok(result.cascade.some(({ from: was, cause }) => was === dear && cause === 'outage'))
  assert.ok(result.firstOrder.failedShare > 0 && result.simulated.failedShare === 0)
  assert.equal(command('cache', ...log, '--requests', 'requests.ndjson').stderr, '')
  const lines = (await readFile(join(folder, 'requests.ndjson'), 'utf8')).trimEnd().split('\n')
  const first = JSON.parse(lines[0] as string) as Record<string, unknown>
  assert.deepEqual([lines.length, first.evidence, first.status], [800, 'simulated', 'ok'])
  const again = command('--scenario', 'scenario.yaml', ...words, '--json', ...log, '--seed', 'x')
  assert.equal(again.stdout, stdout)
})

test('selects by time, and simulates a candidate without the policy that decided', async () => {
  await writeFile(
    join(folder, 'candidate.yaml'),
    `name: candidate\ncandidates: [${models[0]}]\n${policyText.split('\n').slice(1).join('\n')}`,
  )
  const words = ['--to', records[500]?.time as string, 'cache', '--ttl', '60', '--policy', 'candidate.yaml', '--json']
  const { stdout, stderr } = command(...words, '--source', 'log.ndjson')
  assert.equal(stderr, '')
  const { records: count, moves, policy } = JSON.parse(stdout) as WhatIf
  assert.deepEqual([count, policy?.name], [500, 'candidate'])
  assert.ok(moves.every(({ to }) => to === models[0]) && moves.length > 1)
})

test('wrong words, models, files and missing policies are one line and a usage error; no records is no evidence', () => {
  const fails = (exitCode: number, message: RegExp, ...words: string[]) => {
    const { status, stdout, stderr } = command(...words)
    assert.deepEqual([status, stdout], [exitCode, ''], stderr)
    assert.match(stderr, message)
  }
  fails(64, /names the model 'huge'/, 'retire', '--model', 'huge', ...log)
  fails(64, /cannot be decided again .*--logged-policy FILE/, 'retire', '--model', dear, '--source', 'log.ndjson')
  fails(64, /cannot open absent/, 'cache', '--source', 'absent')
  fails(3, /has none that match/, 'cache', '--against', 'other', ...log)
  fails(64, /wanted a number of milliseconds/, 'cache', '--slo-ms', 'x', ...log)
  fails(64, /unknown option '--nope'/, 'cache', '--nope', ...log)
  fails(64, /unknown part 'prize'/, 'prize', '--model', 'x=+10%', ...log)
  fails(64, /wanted a time such as/, '--from', 'yesterday', 'cache', ...log)
})

test('help shows every part with its options and an example', () => {
  const { status, stdout } = command('--help')
  assert.equal(status, 0)
  for (const word of ['price', 'outage', 'ratelimit', 'retire', 'cache', 'traffic', '--fail-after-ms', '--successor'])
    assert.match(stdout, new RegExp(`\\b${word.replace(/^--/, '')}\\b`))
  assert.match(stdout, /Examples:\n {2}signalbox replay whatif /)
})
