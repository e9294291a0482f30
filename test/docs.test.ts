// The documents say what is so: measured numbers as the benchmark left them, commands that exist, files that are there.
import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { test } from 'node:test'
import { benchText, collectorBenchText, replayBenchText } from '../bench/docs-text.ts'
import { phases } from '../router/policy/attributes.ts'
import { parsePolicy } from '../router/policy/policy.ts'
import { snapshotTypes } from '../router/snapshot.ts'

const root = new URL('../', import.meta.url)
const read = (file: string): string => readFileSync(new URL(file, root), 'utf8')
const readme = read('README.md')
const architecture = read('ARCHITECTURE.md')

test('the README’s figures are those that the benchmarks measured last', () => {
  for (const text of [benchText(), replayBenchText(), collectorBenchText()])
    assert.ok(readme.includes(text), 'npm run docs writes them')
})

test('every script that the documents name is in package.json, and every file is there', () => {
  const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> }
  for (const text of [readme, read('CONTRIBUTING.md')])
    for (const [, name = ''] of text.matchAll(/npm run ([\w:]+)/g)) assert.ok(scripts[name], `npm run ${name}`)
  for (const text of [readme, architecture, read('CONTRIBUTING.md'), read('NOTICE')])
    for (const [, file = ''] of text.matchAll(/(?:\]\(|`|^)((?:[\w.-]+\/)*[\w.-]+\.(?:md|yaml|yml|ts|svg|json|gz))/gm))
      if (file.includes('/') && !file.includes('*'))
        assert.ok(
          ['', 'router/', 'replay/'].some((folder) => existsSync(new URL(folder + file, root))),
          file,
        )
})

test('the README’s policy is one, and ARCHITECTURE lists everything that a policy can see', () => {
  const [, policy = ''] = /```yaml\n(name: balanced[\s\S]*?)```/.exec(readme) ?? []
  assert.equal(parsePolicy(policy, snapshotTypes).name, 'balanced')
  for (const feature of Object.keys(snapshotTypes)) assert.ok(architecture.includes(`\`${feature}\``), feature)
  assert.ok(architecture.split('\n').length <= 200)
  assert.equal(phases.length, 9)
})
