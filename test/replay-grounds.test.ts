// What the audit forbids, a replay refuses by itself: in one reading of a file, and from a few stretches of a log that ClickHouse
// surveys, whether threads decide it again or SQL does.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { fill } from '../bench/replay-log.ts'
import { listeningTo } from '../replay/audit/grounds.ts'
import { openSource, type Source } from '../replay/read/source.ts'
import { type Replay, replayDefaults, replaySource } from '../replay/run.ts'
import { parsePolicy } from '../router/policy/policy.ts'
import type { DecisionRecord } from '../router/policy/record.ts'
import { snapshotTypes } from '../router/snapshot.ts'
import { temporaryCollector } from './collector-fixtures.ts'
import { logged, weighted } from './replay-two-models.ts'

const main = fileURLToPath(new URL('../cli/main.ts', import.meta.url))
const run = (...args: string[]) =>
  new Promise<{ status: unknown; stdout: string; stderr: string }>((resolve) => {
    execFile(process.execPath, [main, 'replay', ...args], { maxBuffer: 1 << 28 }, (error, stdout, stderr) =>
      resolve({ status: error?.code ?? 0, stdout, stderr }),
    )
  })
const grounds = ({ verdict }: Replay) =>
  verdict.refusals.flatMap((refusal) => (refusal.kind === 'contract' ? [refusal.finding.kind] : []))

const half = weighted('half', 0.5, 0.5)
const reading = (feature: string) => `name: reader\nscore: -1.0 * candidate.${feature}\nchoose: {kind: highest}\n`
/** The chosen model's predicted latency is what it took: somebody wrote it down afterwards. */
const leaky: readonly DecisionRecord[] = logged(half, 1500, (_, at) => ({ latency_ms: 100 + at, quality: 1 })).map(
  (record) => ({
    ...record,
    candidates: record.candidates.map((candidate) => ({
      ...candidate,
      features: { ...candidate.features, latency_ms: record.outcome?.latency_ms ?? 0 },
    })),
  }),
)

test('run and gate refuse a leak in a file with the words of check, and a candidate that does not read it is judged', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'signalbox-test-'))
  const file = (name: string) => join(folder, name)
  try {
    await writeFile(file('log.ndjson'), leaky.map((record) => `${JSON.stringify(record)}\n`).join(''))
    await writeFile(file('reader.yaml'), reading('latency_ms'))
    await writeFile(file('honest.yaml'), reading('cost_usd'))
    await writeFile(file('half.json'), half.source)
    await writeFile(file('gate.yaml'), 'goal: cost_usd\n')
    const log = ['--source', file('log.ndjson'), '--logged-policy', file('half.json')]
    const [check, ran, gated, honest] = await Promise.all([
      run('check', '--source', file('log.ndjson'), '--json'),
      run('run', ...log, '--policy', file('reader.yaml'), '--replicates', '0'),
      run('gate', ...log, '--policy', file('reader.yaml'), '--gate', file('gate.yaml')),
      run('run', ...log, '--policy', file('honest.yaml'), '--replicates', '0', '--json'),
    ])
    const { findings } = JSON.parse(check.stdout) as { findings: { kind: string; what: string; remedy: string }[] }
    const { what = '', remedy = '' } = findings.find(({ kind }) => kind === 'leakage') ?? {}
    for (const { status, stdout } of [ran, gated]) {
      assert.equal(status, 3)
      const text = stdout.replaceAll(/\s+/g, ' ')
      assert.ok(text.includes(what), text)
      assert.ok(text.includes(remedy), text)
    }
    assert.deepEqual(grounds(JSON.parse(honest.stdout) as Replay), [])
  } finally {
    await rm(folder, { recursive: true })
  }
})

test('a file is read no more often for it', async () => {
  let readings = 0
  const source: Source = {
    ...openSource('nowhere'),
    batches: async function* () {
      readings++
      yield leaky
    },
  }
  const candidate = parsePolicy(reading('latency_ms'), { latency_ms: 'double' })
  const options = { ...replayDefaults, replicates: 0 }
  const [result] = await replaySource(source, [half], () => [candidate], options)
  assert.deepEqual([grounds(result as Replay), readings], [['leakage'], 1])
  const heard = listeningTo(source)
  for (let pass = 0; pass < 2; pass++) for await (const _ of heard.source.batches());
  const survey = {} as Parameters<typeof heard.grounds>[0]
  const [leak] = (await heard.grounds(survey))({ source: candidate.source, missingAtRandom: false })
  assert.equal(leak?.share, 1, 'the second pass is not counted again')
})

test('of a log in ClickHouse some stretches are read, and a leak refuses whoever decides', async () => {
  const collector = await temporaryCollector()
  try {
    await fill(collector.clickhouseUrl, 0, 1200)
    const change = `ALTER TABLE otel.routing_decisions
      UPDATE latency_ms = candidates.latency_ms[indexOf(candidates.model, chosen_model)] WHERE 1 SETTINGS mutations_sync = 1`
    const answer = await fetch(collector.clickhouseUrl, { method: 'POST', body: change })
    assert.ok(answer.ok, await answer.text())
    const asked: string[] = []
    const source = openSource(collector.clickhouseUrl)
    const watched: Source = {
      ...source,
      find: async (condition) => {
        asked.push(condition)
        return source.find?.(condition) ?? []
      },
    }
    const reader = parsePolicy(reading('latency_ms'), snapshotTypes)
    const honest = parsePolicy(reading('cost_usd'), snapshotTypes)
    const options = { ...replayDefaults, replicates: 0 }
    for (const engine of ['js', 'sql'] as const) {
      const results = await replaySource(watched, await source.policies(), () => [reader, honest], options, {
        engine,
        threads: 1,
      })
      assert.deepEqual(results.map(grounds), [['leakage'], []], engine)
    }
    assert.ok(asked.includes('true'), 'all of a small log')
    const fromMs = Date.parse('2026-10-01T00:00:00Z')
    const survey = { rows: 4_000_000, fromMs, toMs: fromMs + 30 * 86_400_000 }
    await listeningTo(watched).grounds(survey as Parameters<ReturnType<typeof listeningTo>['grounds']>[0])
    assert.equal(asked.at(-1)?.match(/decision_time >= /g)?.length, 8)
    await source.close()
  } finally {
    await collector.close()
  }
})
