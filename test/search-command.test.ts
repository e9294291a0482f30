// `signalbox replay search` as it is typed: a file of decisions and a template in, a front, a page and policies out.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import type { Search } from '../replay/search/search.ts'
import { parsePolicy } from '../router/policy/policy.ts'
import { logOf, seeded, truthFeatures } from './replay-truth.ts'

const module = new URL('../replay/search/command.ts', import.meta.url).href
const code = `const { searchCommand } = await import(${JSON.stringify(module)}); await searchCommand().parseAsync(process.argv.slice(1), { from: 'user' })`
const production = parsePolicy('name: p\nscore: candidate.rank\nchoose: {kind: softmax, temperature: 2}', truthFeatures)
const template = `name: tuned
score: candidate.rank - \${weight} * candidate.cost_usd
choose: {kind: softmax, temperature: 1}
`
let folder: string
const at = (name: string) => join(folder, name)
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'signalbox-test-'))
  const log = logOf(production, 1600, seeded(7))
  await writeFile(at('log.ndjson'), log.map((record) => `${JSON.stringify(record)}\n`).join(''))
  await writeFile(at('production.json'), production.source)
  await writeFile(at('template.yaml'), template)
})
after(() => rm(folder, { recursive: true }))

const typed = (...args: readonly string[]) => {
  const fixed = ['--source', at('log.ndjson'), '--policy', at('template.yaml'), '--points', '6', '--replicates', '200']
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    ['--input-type=module', '-e', code, '--', ...fixed, ...args],
    { encoding: 'utf8' },
  )
  return { code: status, output: stdout, problem: stderr }
}

test('a search prints JSON, writes a page that holds the same, and each certified policy with where it comes from', async () => {
  const { code: exit, output } = typed(
    ...['--vary', 'weight=1000..9000', '--margin', '0.1', '--json', '--logged-policy', at('production.json')],
    ...['--html', at('search.html'), '--output', at('found')],
  )
  const found = JSON.parse(output) as Search
  assert.equal(exit, 0)
  assert.deepEqual([found.selection.rows, found.holdOut.rows, found.tried.length], [800, 800, 6])
  const better = found.finalists.filter(({ finding }) => finding === 'better')
  assert.ok(better.length > 0 && better.some(({ isOnFront }) => isOnFront))
  for (const { axes } of better) assert.ok(axes[0].high < 0 && axes[0].low < axes[0].alone.low)
  const page = await readFile(at('search.html'), 'utf8')
  const data = /<script type="application\/json" id="replay">(.*?)<\/script>/s.exec(page)?.[1] ?? ''
  assert.deepEqual(JSON.parse(data), found)
  assert.ok(page.includes(`data-path="finalists.0.axes.0.alone.value"`) && page.includes('<svg'))
  assert.ok(
    page.includes('signalbox replay search --vary weight=1000..9000 --source '),
    'the page says how to make it again',
  )
  assert.ok(page.includes(' --hold-out 0.5 --logged-policy '))
  const files = await readdir(at('found'))
  assert.equal(files.length, better.length)
  for (const file of files) {
    const text = await readFile(join(at('found'), file), 'utf8')
    const policy = parsePolicy(text, truthFeatures)
    const finalist = better.find(({ hash }) => hash === policy.hash)
    assert.ok(
      finalist && text.includes(`# Found by signalbox replay search: weight=${finalist.parameters.weight}, one of 6`),
    )
    assert.ok(file.startsWith('tuned-') && policy.hash.includes(file.slice(6, 14)))
  }
})

test('the text says what was found first, then how, and every finalist with both axes', () => {
  const cut = ['--select-until', '2026-11-01T10:00:00Z', '--finalists', '2']
  const { code: exit, output } = typed('--vary', 'weight=10,4000', '--margin', '0.1', '--trust-propensities', ...cut)
  assert.equal(exit, 0)
  assert.match(
    output,
    /^1 of 2 policies tried is certified better on cost with every guardrail within 0\.1, the best by −/,
  )
  assert.match(output, /chosen on +600 decisions, 2026-11-01 00:00 UTC to 2026-11-01 10:00 UTC/)
  assert.match(output, /certified on +1,000 decisions, 2026-11-01 10:00 UTC to /)
  assert.match(output, /✓ weight=4000: certified better, on the front\n +cost.*\n +quality/)
  assert.match(output, /Winner's curse: /)
})

test('unverified decisions exit 3 with the reason, and mistakes exit 64 with a line that says what was wanted', async () => {
  const refused = typed('--vary', 'weight=10,4000')
  assert.equal(refused.code, 3)
  assert.match(refused.output, /None of 2 policies tried can be certified: the evidence of every finalist is refused/)
  assert.match(refused.output, /· 1?,?800 of 800 decisions cannot be verified/)
  const mistyped = typed('--vary', 'speed=1..2')
  assert.equal(mistyped.code, 64)
  assert.match(mistyped.problem, /template\.yaml:2: \$\{weight\} is not varied/)
  assert.match(typed('--vary', 'weight=5..1').problem, /wanted the lower end first, as in weight=1\.\.5/)
  const both = typed('--vary', 'weight=1,2', '--hold-out', '0.3', '--select-until', '2026-11-01')
  assert.match(both.problem, /cannot be used with option/)
})
