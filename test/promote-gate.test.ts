// The gate of a CI job on real outcomes: what its file may say, what it concludes where a replay's single margin would not do,
// and what it writes for CI systems, pull requests and programs.
import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { DOMParser } from 'linkedom'
import { type GateResult, judgeGate } from '../replay/promote/gate.ts'
import { gateCommand } from '../replay/promote/gate-command.ts'
import { GateError, gateOptions, parseGate, toleratedBy } from '../replay/promote/gate-file.ts'
import { gateJunit, gateMarkdown, gateSummary, gateText } from '../replay/promote/gate-report.ts'
import { type Replay, replay, replayDefaults } from '../replay/run.ts'
import { parsePolicy } from '../router/policy/policy.ts'
import type { DecisionRecord } from '../router/policy/record.ts'
import { logOf, seeded, truthFeatures } from './replay-truth.ts'
import { allB, judged, logged, weighted } from './replay-two-models.ts'

const policyText = (name: string, body: string) => `name: ${name}\n${body}`
const only = (rank: number) => `score: 'candidate.rank == ${rank}.0 ? 1.0 : 0.0'\nchoose: {kind: highest}\n`
const production = parsePolicy(
  policyText('production', 'score: candidate.rank\nchoose: {kind: highest}\nexplore: {rate: 0.9}'),
  truthFeatures,
)
const log = logOf(production, 4000, seeded(3))
const fast = { ...replayDefaults, replicates: 0 }

/** Replays once for each candidate and log, as far as the gates ask for the same. */
const replays = new Map<string, Replay>()
const gated = (gateFile = '', body = only(3), records: readonly DecisionRecord[] = log): GateResult => {
  const gate = parseGate(gateFile)
  const options = { ...fast, ...gateOptions(gate) }
  const key = JSON.stringify([body, records.length, records[0]?.policy, options])
  const candidate = parsePolicy(policyText('candidate', body), truthFeatures)
  const of = replays.get(key) ?? replay(records, [production], candidate, options)
  replays.set(key, of)
  return judgeGate(of, gate)
}
const resultOf = ({ conditions }: GateResult, of: string) =>
  conditions.find((condition) => (condition.kind === 'metric' ? condition.metric : condition.name) === of)?.result

describe('a gate file', () => {
  test('is what the example shows, whose unmarked fields are the defaults', async () => {
    const example = parseGate(await readFile(new URL('../examples/gate.yaml', import.meta.url), 'utf8'))
    const { latency_ms: latency, slow, ...margins } = example.margins
    const { slow_above_ms: slowAboveMs, ...rest } = example
    assert.deepEqual(latency, { relative: 0.1 })
    assert.deepEqual([slow, slowAboveMs], [0.01, 10_000])
    assert.deepEqual({ ...rest, margins }, parseGate('{}'))
  })

  test('is refused with every mistake and its line', () => {
    assert.throws(
      () => parseGate('goal: price\nmargins:\n  quality: 2\n  speed: 1\ncanary: { share: 0.9 }\n', 'g.yaml'),
      (error: GateError) =>
        error instanceof GateError &&
        /^g\.yaml:1: goal: found "price"; wanted one of/m.test(error.message) &&
        /^g\.yaml:3: margins\.quality: found 2;/m.test(error.message) &&
        /^g\.yaml:4: margins: does not know 'speed'$/m.test(error.message) &&
        /^g\.yaml:5: canary\.share: found 0\.9;/m.test(error.message),
    )
  })

  test('names each unknown key with its own line, and a guarded latency objective without one', () => {
    const text = 'goal: cost_usd\n\nmargins:\n  slow: 0.01\n\ncolour: red\ncanary:\n  share: 0.1\n  size:\n    of: 3\n'
    const problems = (error: GateError) => error.message.split('\n')
    assert.throws(
      () => parseGate(text, 'g.yaml'),
      (error: GateError) =>
        problems(error).includes("g.yaml:6: (the whole): does not know 'colour'") &&
        problems(error).includes("g.yaml:9: canary: does not know 'size'"),
    )
    assert.throws(
      () => parseGate('goal: cost_usd\nmargins:\n  slow: 0.01\n', 'g.yaml'),
      /g\.yaml:3: margins\.slow: found 0\.01; wanted slow_above_ms beside it/m,
    )
    assert.throws(() => parseGate('feedback_within: soon', 'g.yaml'), /found "soon"; wanted a duration from 1s to 365d/)
  })

  test('says on whose word, how late, and which turns count', () => {
    const text = 'trust_judge: true\nconversations: first-turn\nfeedback_within: 24h\nslow_above_ms: 900'
    const { trustJudge, conversations, feedbackWithinMs, slowAboveMs } = gateOptions(parseGate(text))
    assert.deepEqual([trustJudge, conversations, feedbackWithinMs, slowAboveMs], [true, 'first-turn', 86_400_000, 900])
    const plain = gateOptions(parseGate('{}'))
    assert.deepEqual({ ...replayDefaults, ...plain }, replayDefaults)
  })

  test('takes a margin as an amount or as a part of production’s value', () => {
    const gate = parseGate('margins: { latency_ms: { relative: 0.1 }, cost_usd: 0.5 }\ngoal: quality')
    assert.equal(toleratedBy(gate, 'latency_ms', 800), 80)
    assert.equal(toleratedBy(gate, 'cost_usd', 800), 0.5)
    assert.equal(toleratedBy(gate, 'quality', 0.7), 0, 'the goal has no margin')
  })
})

describe('a gate', () => {
  test('promotes what is cheaper and as good', () => {
    const result = gated()
    assert.deepEqual([result.kind, result.exitCode], ['promote', 0])
    assert.ok(result.conditions.every(({ result: found }) => found === 'held'))
  })

  test('rejects what saves money by answering worse', () => {
    const result = gated('', only(1))
    assert.deepEqual([result.kind, result.exitCode, resultOf(result, 'quality')], ['reject', 1, 'harm'])
  })

  test('judges the share of slow requests where an objective is set, and the candidate misses it', () => {
    const half = weighted('half', 0.5, 0.5)
    const records = logged(half, 2000, (model) => ({ quality: 1, latency_ms: model === 'A' ? 500 : 1500 }))
    const judgedBy = (text: string) => {
      const by = parseGate(text)
      return judgeGate(judged(records, [half], allB, { ...gateOptions(by), replicates: 0 }), by)
    }
    const guarded = judgedBy('slow_above_ms: 1000\nmargins: { slow: 0.1 }')
    assert.equal(guarded.kind, 'reject')
    assert.match(gateText(guarded), /✗ the share beyond the latency objective at most 10.00 percentage points worse/)
    assert.equal(judgedBy('slow_above_ms: 2000\nmargins: { slow: 0.1 }').kind, 'promote')
    assert.equal(judgedBy('slow_above_ms: 1000').kind, 'promote', 'what is not named is not guarded')
  })

  test('guards latency only when it is named, and then by its own margin', () => {
    assert.equal(resultOf(gated(), 'latency_ms'), undefined)
    const found = gated().replay.metrics.find(({ metric }) => metric === 'latency_ms')?.difference
    assert.ok(found && found.low > 0, 'the candidate is slower')
    const loose = gated(`margins: { latency_ms: ${found.high * 1.5} }`)
    assert.deepEqual([loose.kind, resultOf(loose, 'latency_ms')], ['promote', 'held'])
    const tight = gated(`margins: { latency_ms: ${found.low / 2} }`)
    assert.deepEqual([tight.kind, resultOf(tight, 'latency_ms')], ['reject', 'harm'])
  })

  test('stays open where a margin is tighter than the interval, or the evidence less than was asked for', () => {
    const cases = [
      ['margins: { failed: 0.0001 }', 'failed'],
      ['require: { effective_rows: 100000 }', 'effective_rows'],
      ['require: { window_hours: 1000 }', 'window_hours'],
      ['require: { changed_share_max: 0.01 }', 'changed_share_max'],
    ] as const
    for (const [text, condition] of cases) {
      const result = gated(text)
      assert.deepEqual([result.exitCode, resultOf(result, condition)], [2, 'open'], text)
    }
  })

  test('has no conditions where the evidence is refused', () => {
    const result = gated('', only(3), log.slice(0, 300))
    assert.deepEqual([result.kind, result.exitCode, result.conditions.length], ['refused', 3, 0])
  })
})

const xml = (result: GateResult) => new DOMParser().parseFromString(gateJunit(result), 'text/xml')
const every = (result: GateResult, tag: string) => [...xml(result).querySelectorAll(tag)]

describe('what a gate writes', () => {
  test('is JUnit with a case per condition, what is not shown as failures, and a refusal as an error', () => {
    const good = gated()
    assert.equal(every(good, 'testcase').length, good.conditions.length)
    assert.equal(every(good, 'failure').length + every(good, 'error').length, 0)
    const bad = gated('', only(1))
    assert.deepEqual(
      every(bad, 'failure').map((failure) => failure.getAttribute('type')),
      bad.conditions.filter(({ result }) => result !== 'held').map(({ result }) => result),
    )
    assert.equal(every(bad, 'testsuite')[0]?.getAttribute('failures'), String(every(bad, 'failure').length))
    const refused = gated('', only(3), log.slice(0, 300))
    assert.deepEqual(
      every(refused, 'error').map((error) => error.getAttribute('type')),
      ['sample-size'],
    )
  })

  test('is Markdown of six lines and a table with intervals', () => {
    const [lines = '', table = ''] = gateMarkdown(gated()).split('\n\n')
    assert.equal(lines.trim().split('\n').length, 6)
    assert.match(lines, /^\*\*Promote\*\* candidate/)
    const quality = table.split('\n').find((row) => row.startsWith('| quality'))
    const difference = gated().replay.metrics.find(({ metric }) => metric === 'quality')?.difference
    assert.ok(quality?.includes(difference?.low.toFixed(3).replace('-', '−') ?? 'no'), quality ?? 'no such row')
  })

  test('cannot be broken by a policy’s name', () => {
    const name = '"><b>@all</b>|`*_[x](http://y)\u202e\u0007 & co\n# hi'
    const hostile = log.map((record) => ({ ...record, policy: { name, hash: '' } }))
    const result = gated('trust_propensities: true', only(3), hostile)
    assert.equal(result.kind, 'promote')
    const markdown = gateMarkdown(result)
    assert.doesNotMatch(markdown, /<b>|@all|\]\(|http:|\p{Cf}|[^\P{Cc}\n]|^# hi/mu)
    for (const row of markdown.split('\n').filter((line) => line.startsWith('|')))
      assert.ok([4, 6].includes((row.match(/\|/g) ?? []).length), row)
    const named = { ...result.replay, candidate: { name, hash: '' } }
    assert.equal(every({ ...result, replay: named }, 'testcase').length, result.conditions.length)
    assert.doesNotMatch(gateText({ ...result, replay: named }), /[\p{Cf}]|[^\P{Cc}\n]/u)
  })

  test('is JSON that goes through JSON unchanged', () => {
    const summary = gateSummary(gated())
    assert.deepEqual(JSON.parse(JSON.stringify(summary)), summary)
    assert.equal(summary.metrics.find(({ metric }) => metric === 'quality')?.difference.low.constructor, Number)
  })
})

describe('the command', () => {
  test('writes its files and ends with the verdict’s exit code', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'signalbox-gate-'))
    const file = (name: string) => join(folder, name)
    try {
      await writeFile(file('log.ndjson'), log.map((record) => JSON.stringify(record)).join('\n'))
      await writeFile(file('candidate.yaml'), policyText('candidate', only(1)))
      await writeFile(file('production.yaml'), production.source)
      await writeFile(file('gate.yaml'), 'goal: cost_usd\n')
      const flags = {
        source: 'log.ndjson',
        policy: 'candidate.yaml',
        gate: 'gate.yaml',
        junit: 'gate.xml',
        summary: 'summary.md',
        'logged-policy': 'production.yaml',
      }
      await gateCommand().parseAsync(
        Object.entries(flags).flatMap(([flag, name]) => [`--${flag}`, file(name)]),
        {
          from: 'user',
        },
      )
      const { exitCode } = process
      process.exitCode = undefined
      assert.equal(exitCode, 1)
      assert.match(await readFile(file('gate.xml'), 'utf8'), /<failure type="harm"/)
      assert.match(await readFile(file('summary.md'), 'utf8'), /^\*\*Reject\*\*/)
    } finally {
      await rm(folder, { recursive: true })
    }
  })
})
