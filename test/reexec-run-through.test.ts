// From answers asked anew to a verdict, on MMLU-Pro traffic with known truth (replay-truth.ts): production explores nothing, so that
// the log alone says nothing about the candidate, and a sample of what it would change, of known probability, must say it all.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { candidateTexts, fill, productionOf } from '../bench/replay-log.ts'
import { judgeGate } from '../replay/promote/gate.ts'
import { judged, loadGate } from '../replay/promote/gate-command.ts'
import { parseGate } from '../replay/promote/gate-file.ts'
import { openSource } from '../replay/read/source.ts'
import { type Reexecuted, readReexecuted } from '../replay/reexec/answers.ts'
import type { Answered, Line, ReexecResult } from '../replay/reexec/result.ts'
import { twoPhase } from '../replay/reexec/two-phase.ts'
import { checksOf } from '../replay/report/checks.ts'
import { reportHtml } from '../replay/report/html.ts'
import { remedyText } from '../replay/report/remedies.ts'
import { reportText } from '../replay/report/text.ts'
import { refusalText } from '../replay/report/words.ts'
import { type ReplayOptions, replay, replayDefaults, replaySource } from '../replay/run.ts'
import { type Policy, parsePolicy } from '../router/policy/policy.ts'
import type { DecisionRecord, Outcome } from '../router/policy/record.ts'
import { snapshotTypes } from '../router/snapshot.ts'
import { temporaryCollector } from './collector-fixtures.ts'
import { drawPrompt, type Prompt, recordFor, seeded, truthFeatures, truthOf } from './replay-truth.ts'
import { finding, kinds, of } from './replay-two-models.ts'

const seed = Number(process.env.SEED ?? 7)
const repetitions = 40
const quick: ReplayOptions = { ...replayDefaults, replicates: 0, margin: 0.05 }
const production = parsePolicy('name: p\nscore: candidate.rank\nchoose: {kind: highest}', truthFeatures)
const moved = (when: string, rank = 3): Policy =>
  parsePolicy(
    `name: c\nrules:\n  - {name: moved, when: '${when}', use: {score: 'candidate.rank == ${rank}.0 ? 1.0 : 0.0', choose: {kind: highest}}}\n  - {name: rest, use: {score: candidate.rank, choose: {kind: highest}}}`,
    truthFeatures,
  )
const category = (name: string) => `request.tags["category"] == "${name}"`
// Quality falls by 0.012, and cost by 7 %; and with all traffic moved by 0.074, and cost by two thirds.
const careful = moved([category('psychology'), category('biology'), category('health')].join(' || '))
const bold = moved('true')
const qualityOf = ({ quality }: Outcome) => quality ?? 0

const drawn = (rows: number, random: () => number, policy = production) => {
  const prompts = Array.from({ length: rows }, () => drawPrompt(random))
  return { prompts, records: prompts.map((prompt, at) => recordFor(prompt, policy, `d-${at}`, '', at)) }
}

const answerOf = ({ id, chosen }: DecisionRecord, model: string, { outcomes }: Prompt, share: number): Answered => {
  const outcome = outcomes.get(model) as Outcome
  return {
    v: 1,
    status: 'ok',
    id,
    model,
    from: chosen,
    inclusion_probability: share,
    importance: share,
    priority: 0,
    error: null,
    cost_usd: outcome.cost_usd,
    latency_ms: outcome.latency_ms,
    ttft_ms: outcome.ttft_ms,
    output_tokens: outcome.output_tokens,
    quality: outcome.quality,
    quality_logged: null,
    judge: null,
    spent_usd: outcome.cost_usd ?? 0,
    calls: 1,
  }
}

/** Asks each changed decision with probability `shareOf`; 0 stands for one that could not be asked. */
const asking = (
  { prompts, records }: ReturnType<typeof drawn>,
  candidate: Policy,
  shareOf: (record: DecisionRecord) => number,
  random: () => number,
): Reexecuted => {
  const results = new Map<string, ReexecResult>()
  for (const [at, record] of records.entries()) {
    const { chosen } = candidate.decide(record)
    if (chosen === null || chosen === record.chosen) continue
    const share = shareOf(record)
    if (share === 0)
      results.set(record.id, {
        v: 1,
        status: 'unasked',
        id: record.id,
        model: chosen,
        inclusion_probability: 0,
        reason: 'no-payload',
      })
    else if (random() < share) results.set(record.id, answerOf(record, chosen, prompts[at] as Prompt, share))
  }
  return { policy: candidate.hash, tenantShare: 1, results, digest: 'sha256:test' }
}

const uneven = ({ request }: DecisionRecord) => (request.input_tokens < 60 ? 0.3 : 0.6)

test('production explores nothing: answers asked anew promote what is good and reject what is bad, and nothing else can', () => {
  const random = seeded(seed)
  const log = drawn(2500, random)
  const alone = replay(log.records, [production], careful, quick)
  assert.ok(kinds(alone).includes('zero-support'))
  const good = replay(log.records, [production], careful, quick, asking(log, careful, uneven, random))
  assert.equal(good.verdict.kind, 'promote', JSON.stringify(good.verdict))
  const unjudged = asking(log, careful, uneven, random)
  const silent = [...unjudged.results].map(([id, answer]) => [id, { ...(answer as Answered), quality: null }] as const)
  const half = replay(log.records, [production], careful, quick, { ...unjudged, results: new Map(silent) })
  assert.deepEqual([of(half, 'cost_usd').evidence, of(half, 'quality').evidence], ['re-executed', 'estimated'])
  assert.deepEqual(kinds(half), ['zero-support'], 'what no judge has told is left to the log')
  assert.match(half.verdict.remedies.map(remedyText).join(), /--judge/)
  const bad = replay(log.records, [production], bold, { ...quick, margin: 0.02 }, asking(log, bold, uneven, random))
  assert.equal(bad.verdict.kind, 'reject', JSON.stringify(bad.verdict))
  assert.equal(finding(bad, 'quality'), 'harm')
  assert.equal(finding(bad, 'cost_usd'), 'held')
  for (const { metrics, shares } of [good, bad]) {
    assert.deepEqual(
      metrics.filter(({ evidence }) => evidence === 're-executed').map(({ metric }) => metric),
      ['cost_usd', 'latency_ms', 'ttft_ms', 'quality', 'failed'],
    )
    assert.ok(Math.abs(shares.observed + shares.estimated + shares.reexecuted + shares.unsupported - 1) < 1e-12)
    assert.equal(shares.unsupported, 0)
  }
})

// With intervals that cover 93 % fewer than 32 of 40 hold the truth for 1 seed in 1,000.
for (const [name, policy] of [
  ['nothing', production],
  [
    'a fifth',
    parsePolicy('name: e\nscore: candidate.rank\nchoose: {kind: highest}\nexplore: {rate: 0.2}', truthFeatures),
  ],
] as const)
  test(`intervals from answers asked anew hold the truth where production explores ${name} (seed ${seed})`, (t) => {
    const random = seeded(seed * 31)
    const truth = truthOf(bold, qualityOf) - truthOf(policy, qualityOf)
    let held = 0
    for (let at = 0; at < repetitions; at++) {
      const log = drawn(300, random, policy)
      const { difference } = of(
        replay(log.records, [policy], bold, quick, asking(log, bold, uneven, random)),
        'quality',
      )
      held += Number(difference.low <= truth && truth <= difference.high)
    }
    t.diagnostic(`covered ${held} of ${repetitions}`)
    assert.ok(held >= 0.78 * repetitions, `covered ${held} of ${repetitions}`)
  })

test('the sums give what the rows give: one score for both', () => {
  const random = seeded(seed)
  const log = drawn(600, random)
  const answers = asking(log, careful, () => 1, random)
  const { difference } = of(replay(log.records, [production], careful, quick, answers), 'quality')
  // Nothing is drawn twice and every answer is there, so whatever the outcome model says cancels.
  const rows = log.records.map(({ id, outcome }, cluster) => {
    const reward = outcome?.quality ?? Number.NaN
    const answer = answers.results.get(id) as Answered | undefined
    return {
      cluster,
      keepWeight: 1,
      reward,
      weight: 1,
      fitted: 0,
      fittedCandidate: 0,
      fittedProduction: 0,
      unsupported: 0,
      fittedUnsupported: 0,
      second: { probability: 1, included: true, reward: answer ? (answer.quality ?? Number.NaN) : reward, fitted: 0 },
    }
  })
  const expected = twoPhase(rows).difference
  assert.ok(Math.abs(difference.value - expected.value) < 1e-12 && expected.value !== 0)
  assert.ok(Math.abs(difference.se - expected.se) < 1e-12)
})

test('what could not be asked may have been anything, and what is half unknown is refused as an amount', () => {
  const random = seeded(seed)
  const log = drawn(1500, random)
  const shareOf = (record: DecisionRecord) => (Number(record.id.slice(2)) % 4 === 0 ? 0 : 1)
  const result = replay(log.records, [production], careful, quick, asking(log, careful, shareOf, random))
  const { doubt, difference, differenceAtRandom } = of(result, 'quality')
  const unasked = result.shares.unsupported
  assert.ok(unasked > 0.03)
  assert.ok(Math.abs(doubt.low + doubt.high - unasked) < 1e-9, 'an outcome between 0 and 1 for each of them')
  assert.ok(difference.low < differenceAtRandom.low && difference.high > differenceAtRandom.high)
  assert.ok(kinds(result).includes('missing-outcomes'), 'their cost has no bounds')
})

test('a judge that finds every answer as good as the logged one leaves quality as it was', () => {
  const random = seeded(seed)
  const log = drawn(1000, random)
  const given = asking(log, careful, uneven, random)
  const judge = { model: 'judge', mode: 'pair', status: 'ok', repeat_quality: null, failures: 0, calls: 2 } as const
  const prefer = (quality: number): Reexecuted => {
    const pairs = [...given.results].map(
      ([id, answer]) => [id, { ...(answer as Answered), quality, quality_logged: 0.5, judge }] as const,
    )
    return { ...given, results: new Map(pairs) }
  }
  // Only the part that was not asked is filled in by the outcome model, and its mean error is within the interval.
  const indifferent = of(replay(log.records, [production], careful, quick, prefer(0.5)), 'quality').difference
  assert.ok(indifferent.low < 0 && indifferent.high > 0 && Math.abs(indifferent.value) < 0.02)
  const better = of(replay(log.records, [production], careful, quick, prefer(1)), 'quality').difference
  const weights = [...given.results.values()].reduce((sum, answer) => sum + 1 / answer.inclusion_probability, 0)
  assert.ok(Math.abs(better.value - indifferent.value - weights / 2 / 1000) < 1e-9)
})

test('a logged outcome that is missing may have been anything where the choice changes, and cancels where it does not', () => {
  const random = seeded(seed)
  const log = drawn(1500, random)
  const given = asking(log, careful, () => 1, random)
  const records = log.records.map((record, at) =>
    at % 3 ? record : { ...record, outcome: { ...(record.outcome as Outcome), quality: null } },
  )
  const { difference, doubt } = of(replay(records, [production], careful, quick, given), 'quality')
  const endOf = (unknown: number) =>
    records.reduce((sum, { id, outcome }) => {
      const answer = given.results.get(id) as Answered | undefined
      return answer ? sum + (answer.quality as number) - (outcome?.quality ?? unknown) : sum
    }, 0) / records.length
  assert.ok(Math.abs(difference.value - doubt.low - endOf(1)) < 1e-9, `${difference.value - doubt.low} ${endOf(1)}`)
  assert.ok(Math.abs(difference.value + doubt.high - endOf(0)) < 1e-9, `${difference.value + doubt.high} ${endOf(0)}`)
})

test('few answers do not decide, and fewer are not shown; the report says how many more it takes', () => {
  const random = seeded(seed)
  const log = drawn(2000, random)
  const some = asking(log, careful, () => 1, random)
  const first = (count: number): Reexecuted => {
    const share = count / some.results.size
    const results = [...some.results].slice(0, count) as [string, Answered][]
    return {
      ...some,
      results: new Map(results.map(([id, answer]) => [id, { ...answer, inclusion_probability: share }])),
    }
  }
  const thin = replay(log.records, [production], careful, quick, first(60))
  assert.deepEqual([thin.verdict.kind, thin.verdict.thin], ['inconclusive', { of: 'answers', ess: 60 }])
  assert.match(thin.verdict.remedies.map(remedyText).join(), /more of the changed requests anew/)
  assert.ok(judgeGate(thin, parseGate('goal: cost_usd')).kind === 'inconclusive', 'nor for a gate')
  const fewer = replay(log.records, [production], careful, quick, first(20))
  assert.ok(fewer.metrics.every(({ evidence }) => evidence === 'estimated'))
  assert.ok(kinds(fewer).includes('zero-support'))
})

test('answers of another candidate, of another log, or of a few tenants are refused by name', () => {
  const random = seeded(seed)
  const log = drawn(1500, random)
  const given = asking(log, careful, () => 1, random)
  const problemOf = (reexecuted: Reexecuted, records = log.records) => {
    const result = replay(records, [production], careful, quick, reexecuted)
    assert.equal(result.verdict.exitCode, 3)
    assert.ok(result.metrics.every(({ evidence }) => evidence === 'estimated'))
    const found = result.verdict.refusals.find(({ kind }) => kind === 'answers')
    return found ? refusalText(found) : ''
  }
  assert.match(problemOf({ ...given, policy: bold.hash }), /results of another candidate: they were made for policy/)
  const elsewhere = [...given.results].map(([id, answer]) => [id, { ...answer, model: 'gemma-7b' }] as const)
  assert.match(problemOf({ ...given, results: new Map(elsewhere) }), /another model than was asked/)
  assert.match(problemOf({ ...given, tenantShare: 0.5 }), /50 % of the tenants/)
  const later = drawn(1500, random).records.map((record) => ({ ...record, id: `later-${record.id}` }))
  assert.match(problemOf(given, [...log.records, ...later]), /not a sample of this log.*inclusion weight is 0\.[45]/)
})

test('text and page show what was paid for, and which figures rest on it', () => {
  const random = seeded(seed)
  const log = drawn(2000, random)
  const result = replay(log.records, [production], careful, quick, asking(log, careful, uneven, random))
  const text = reportText(result, { colour: false })
  assert.match(text, /▒ [\d.]+ % re-executed/)
  assert.match(text, /✓ answers asked anew +\d+ of \d+ changed decisions were asked anew; they tell cost/)
  assert.ok(checksOf(result).every(({ state, name }) => state === 'good' || name === 'given up'))
  const page = reportHtml(result, 'signalbox replay run')
  assert.match(page, /class="reexecuted"/)
  assert.match(page, /data-path="shares.reexecuted"|shares\.reexecuted/)
  assert.match(page, /asked anew<\/small>/)
})

const lines = (values: readonly unknown[]) => values.map((value) => `${JSON.stringify(value)}\n`).join('')

/** The file that asking would have left: every answer's place below the threshold that was reached, 1. */
const resultLines = ({ policy, results }: Reexecuted): Line[] => {
  const answered = [...results.values()].filter((result): result is Answered => result.status !== 'unasked')
  return [
    { v: 1, status: 'plan', policy, frame: 'sha256:frame', judge: null, tenant_share: 1 },
    ...answered.flatMap((answer): Line[] => [
      { v: 1, status: 'started', id: answer.id, priority: 0, next_priority: 1, reserved_usd: 1, reserved_calls: 1 },
      answer,
    ]),
  ]
}

test('the command reads the file of answers, and says what it rests on', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'signalbox-'))
  t.after(() => rm(folder, { recursive: true }))
  const path = (name: string) => join(folder, name)
  const random = seeded(seed)
  const log = drawn(2500, random)
  await writeFile(path('log.ndjson'), lines(log.records))
  await writeFile(path('results.ndjson'), lines(resultLines(asking(log, careful, uneven, random))))
  await writeFile(path('candidate.yaml'), careful.source)
  await writeFile(path('production.yaml'), production.source)
  await writeFile(path('gate.yaml'), 'goal: cost_usd\nmargins: {quality: 0.05}\n')
  const files = {
    policy: path('candidate.yaml'),
    source: path('log.ndjson'),
    loggedPolicy: [path('production.yaml')],
    reexecuted: path('results.ndjson'),
  }
  const cli = new URL('../cli/main.ts', import.meta.url).pathname
  const words = ['--policy', files.policy, '--source', files.source, '--logged-policy', path('production.yaml')]
  const more = ['--reexecuted', files.reexecuted, '--margin', '0.05', '--replicates', '0', '--json']
  const { stdout } = await promisify(execFile)(process.execPath, [cli, 'replay', 'run', ...words, ...more], {
    maxBuffer: 1 << 26,
  })
  const shown = JSON.parse(stdout)
  const answers = await readReexecuted(path('results.ndjson'))
  const inMemory = replay(log.records, [production], careful, quick, answers)
  assert.equal(shown.verdict.kind, 'promote')
  assert.deepEqual(shown.reexecuted, JSON.parse(JSON.stringify(inMemory.reexecuted)))
  assert.deepEqual(
    shown.metrics.map(({ difference }: { difference: unknown }) => difference),
    JSON.parse(JSON.stringify(inMemory.metrics.map(({ difference }) => difference))),
  )
  assert.equal((await judged(files, await loadGate(path('gate.yaml')))).kind, 'promote')
})

test('memory, ClickHouse on one thread and on three give the same figures', async (t) => {
  const collector = await temporaryCollector()
  t.after(() => collector.close())
  await fill(collector.clickhouseUrl, 0, 1500)
  const source = openSource(collector.clickhouseUrl)
  t.after(() => source.close())
  const records: DecisionRecord[] = []
  for await (const record of source.records()) records.push(record)
  const candidate = parsePolicy(candidateTexts[2] as string, snapshotTypes)
  const random = seeded(seed)
  const results = new Map<string, ReexecResult>()
  for (const record of records) {
    const { chosen } = candidate.decide(record)
    if (chosen === null || chosen === record.chosen || random() > 0.5) continue
    const outcome: Outcome = { ...(record.outcome as Outcome), cost_usd: random() / 100, quality: random() }
    const prompt: Prompt = { category: '', tokens: 0, outcomes: new Map([[chosen, outcome]]) }
    results.set(record.id, answerOf(record, chosen, prompt, 0.5))
  }
  const reexecuted: Reexecuted = { policy: candidate.hash, tenantShare: 1, results, digest: 'sha256:test' }
  const expected = replay(records, [productionOf()], candidate, quick, reexecuted)
  assert.equal(of(expected, 'cost_usd').evidence, 're-executed')
  const inSql = { reexecuted, engine: 'sql' } as const
  await assert.rejects(
    async () => replaySource(source, await source.policies(), () => [candidate], quick, inSql),
    /answers asked anew/,
  )
  for (const threads of [1, 3]) {
    const options = { threads, reexecuted, engine: 'auto' } as const
    const [result] = await replaySource(source, await source.policies(), () => [candidate], quick, options)
    assert.deepEqual(result?.reexecuted?.asked, expected.reexecuted?.asked)
    for (const [at, { difference, metric }] of expected.metrics.entries()) {
      const found = result?.metrics[at]?.difference
      for (const key of ['value', 'low', 'high'] as const) {
        const [a, b] = [found?.[key] ?? 0, difference[key]]
        assert.ok(Object.is(a, b) || Math.abs(a - b) <= 1e-9 * Math.abs(b) + 1e-12, `${metric}.${key}: ${a}, ${b}`)
      }
    }
  }
})

test('a judge that contradicts itself widens the interval of quality, by what repeats show and no other figure', () => {
  const random = seeded(seed)
  const log = drawn(2500, random)
  const asked = asking(log, careful, () => 0.5, random)
  const judgedTwice = (slips: (at: number) => boolean): Reexecuted => {
    const results = [...asked.results].map(([id, answer], at): [string, ReexecResult] => {
      if (answer.status === 'unasked' || answer.quality === null) return [id, answer]
      const repeat = at % 4 > 0 ? null : slips(at) ? 1 - answer.quality : answer.quality
      const judge = { model: 'j', mode: 'score', status: 'ok', repeat_quality: repeat, failures: 0, calls: 1 } as const
      return [id, { ...answer, judge }]
    })
    return { ...asked, results: new Map(results) }
  }
  const judgedBy = (given: Reexecuted) => replay(log.records, [production], careful, quick, given)
  const plain = judgedBy(asked)
  const [steady, fickle] = [judgedBy(judgedTwice(() => false)), judgedBy(judgedTwice((at) => at % 8 === 0))]
  const widthOf = (result: typeof plain) => of(result, 'quality').difference.high - of(result, 'quality').difference.low
  assert.equal(widthOf(steady), widthOf(plain), 'a judge that agrees with itself adds nothing')
  assert.deepEqual(of(fickle, 'cost_usd').difference, of(plain, 'cost_usd').difference)
  const { repeats, disagreement, sd } = fickle.reexecuted?.judge ?? {}
  assert.ok(Math.abs((disagreement ?? 0) - 0.5) < 0.1, `${disagreement} of ${repeats}`)
  assert.ok(Math.abs((sd ?? 0) - Math.sqrt((disagreement ?? 0) / 2)) < 1e-12)
  const slip = ((sd ?? 0) * Math.sqrt(asked.results.size * 4)) / log.records.length
  const { se } = of(plain, 'quality').difference
  assert.ok(Math.abs(widthOf(fickle) / widthOf(plain) / (Math.hypot(se, slip) / se) - 1) < 1e-9)
  const line = (result: typeof plain) => checksOf(result).find(({ name }) => name === 'judge of answers')
  assert.match(line(fickle)?.found ?? '', /judged twice it judged \d+ % otherwise .* wider for it/)
})
