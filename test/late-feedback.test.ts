// Feedback that takes its time: what a horizon counts, what it leaves to the bounds, and that the same decisions are told the same
// however late one looks. Those who are displeased take days here and those who are pleased minutes, as people do.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import fc from 'fast-check'
import { candidateTexts, fill, productionOf } from '../bench/replay-log.ts'
import { durationMsOf, qualityWithin } from '../replay/estimate/feedback.ts'
import { power, withOpinions } from '../replay/power/plan.ts'
import { openSource } from '../replay/read/source.ts'
import { checksOf } from '../replay/report/checks.ts'
import { remedyText } from '../replay/report/remedies.ts'
import { type Replay, replay, replayDefaults, replaySource } from '../replay/run.ts'
import { parsePolicy } from '../router/policy/policy.ts'
import { type DecisionRecord, decisionRecordSchema, type Outcome } from '../router/policy/record.ts'
import { snapshotTypes } from '../router/snapshot.ts'
import { temporaryCollector } from './collector-fixtures.ts'
import { seeded } from './replay-truth.ts'
import { allB, judged, logged, of, weighted } from './replay-two-models.ts'

const seed = Number(process.env.SEED ?? 7)
const half = weighted('half', 0.5, 0.5)
const [minuteMs, hourMs] = [60_000, 3_600_000]
const day = { feedbackWithinMs: 24 * hourMs, replicates: 0 }

const scored = (record: DecisionRecord, quality: number | null, delayMs: number | null): DecisionRecord => ({
  ...record,
  outcome: {
    ...(record.outcome as Outcome),
    quality,
    quality_time: delayMs === null ? null : new Date(Date.parse(record.time) + delayMs).toISOString(),
  },
})

/** A decision a minute for some days; the pleased answer within an hour, the displeased within three days, and all in the end. */
const peopleOf = (rows: number, share: (model: string) => number) => {
  const random = seeded(seed)
  return logged(half, rows, () => ({})).map((record) => {
    const isPleased = random() < share(record.chosen ?? '')
    return scored(record, Number(isPleased), random() * (isPleased ? hourMs : 72 * hourMs))
  })
}
/** The log as it stood at a moment: what was decided by then, with the feedback that had come. */
const asOf = (records: readonly DecisionRecord[], untilMs: number): DecisionRecord[] =>
  records
    .filter(({ time }) => Date.parse(time) <= untilMs)
    .map((record) => {
      const has = Date.parse(record.outcome?.quality_time ?? '') <= untilMs
      return has ? record : scored(record, null, null)
    })
const feedbackOf = (of: Replay) => of.feedback ?? assert.fail('nothing is said of feedback')

test('feedback counts up to its horizon; what is late and what is too young are told apart from what never came', () => {
  const records = logged(half, 4000, () => ({})).map((record, at) => {
    if (at % 4 === 3) return scored(record, null, null)
    return scored(record, 1, at % 4 === 2 ? 30 * hourMs : 10 * minuteMs)
  })
  const [last] = records.slice(-1)
  const untilMs = Date.parse(last?.time ?? '') + 10 * minuteMs
  const result = judged(asOf(records, untilMs), [half], allB, day)
  const { told, late, pending, never, untimed, horizon, delay } = feedbackOf(result)
  const settled = records.filter(({ time }) => time <= (horizon?.settled ?? '')).length
  assert.equal(pending, 4000 - settled)
  assert.equal(told, records.slice(0, settled).filter((_, at) => at % 4 < 2).length)
  assert.equal(late + never, settled - told)
  assert.ok(late > 0 && never > 0 && untimed === 0)
  assert.equal(of(result, 'quality').rows, told)
  assert.equal(of(result, 'quality').missing, late + never + pending)
  const seenMs = Date.parse(horizon?.until ?? '')
  assert.ok(seenMs >= untilMs - 2 * minuteMs && seenMs <= untilMs, 'the last feedback that had come')
  assert.equal(seenMs - Date.parse(horizon?.settled ?? ''), day.feedbackWithinMs)
  assert.equal(Date.parse(horizon?.knownAt ?? ''), Date.parse(last?.time ?? '') + day.feedbackWithinMs)
  assert.ok(Math.abs((delay?.p50Ms ?? 0) / (10 * minuteMs) - 1) < 0.01)
  assert.ok(Math.abs((delay?.p95Ms ?? 0) / (30 * hourMs) - 1) < 0.01, 'late ones are part of how long it takes')
  assert.equal(of(judged(records, [half], allB, { replicates: 0 }), 'quality').rows, 3000, 'without one all counts')
})

test('a score without a time counts as in time, and the report says how many those are', () => {
  const records = logged(half, 3000, (_, at) => ({ quality: at % 2 }))
  const result = judged(records, [half], allB, day)
  assert.equal(feedbackOf(result).untimed, feedbackOf(result).told)
  assert.equal(feedbackOf(result).delay, null)
  const line = checksOf(result).find(({ name }) => name === 'feedback')
  assert.match(line?.found ?? '', /do not say when they came and are taken to be in time; nothing tells how long/)
  assert.equal(judged(records, [half], allB, { replicates: 0 }).feedback, null)
})

test('what is told of a decision never changes afterwards, however much later one looks', () => {
  const record = logged(half, 1, () => ({ quality: 0.5 }))[0] as DecisionRecord
  const decidedMs = Date.parse(record.time)
  const amount = fc.integer({ min: 0, max: 10_000_000 })
  fc.assert(
    fc.property(amount, amount, amount, amount, (delayMs, withinMs, ageMs, laterMs) => {
      const at = (untilMs: number) => {
        const [seen] = asOf([scored(record, 0.5, delayMs)], untilMs)
        return qualityWithin(seen as DecisionRecord, { withinMs, untilMs })
      }
      const first = at(decidedMs + ageMs)
      const isSettled = ageMs >= withinMs
      if (isSettled) assert.equal(at(decidedMs + ageMs + laterMs), first)
      else assert.equal(first, Number.NaN, 'too young, whatever has come')
      if (isSettled) assert.equal(Number.isNaN(first), delayMs > withinMs)
    }),
    { seed },
  )
})

// The half-width of a mean of 0 and 1 over 8,640 rows is 0.01, of the difference of two halves about 0.02; the bias below is 0.2.
test(`without a horizon the last days look better than they were, and with one no better than the first (seed ${seed})`, () => {
  const all = peopleOf(6 * 1440, () => 0.6)
  const seen = asOf(all, Date.parse(all.at(-1)?.time ?? ''))
  const random = { missingAtRandom: true, trustPropensities: true, replicates: 0 }
  const believed = of(judged(seen, [half], allB, random), 'quality').production
  assert.ok(believed.low > 0.65, `the pleased answer first, so quality seems ${believed.value}`)
  const bounded = of(judged(seen, [half], allB, day), 'quality')
  assert.ok(bounded.production.low < 0.6 && 0.6 < bounded.production.high, 'the bounds hold the truth')
  const told = judged(seen, [half], allB, { ...day, ...random, feedbackWithinMs: 72 * hourMs })
  const { low, high } = of(told, 'quality').production
  assert.ok(low < 0.6 && 0.6 < high, `with a horizon that all meet it is ${low} to ${high}`)
})

test('where young decisions keep quality open, the remedy says when theirs will be known, and up to when all is', () => {
  const records = logged(half, 3000, () => ({})).map((record) => scored(record, 1, minuteMs))
  const result = judged(records, [half], allB, { ...day, feedbackWithinMs: 10 * hourMs })
  assert.equal(result.verdict.kind, 'inconclusive')
  const found = result.verdict.remedies.filter(({ kind }) => kind === 'wait' || kind === 'feedback')
  assert.deepEqual(
    found.map(({ kind }) => kind),
    ['wait'],
    'nothing else is missing',
  )
  assert.match(
    remedyText(found[0] as (typeof found)[number]),
    /^599 decisions are younger than the 10 hours .* wait until the log has reached 2026-11-03 11:59 UTC, .* with --to 2026-11-02T16:00:00.000Z\.$/,
  )
  const settled = records.filter(({ time }) => time < '2026-11-02T16:00:00.000Z')
  const untilMs = Date.parse(records.at(-1)?.time ?? '') + minuteMs
  const known = settled.filter((record) => !Number.isNaN(qualityWithin(record, { withinMs: 10 * hourMs, untilMs })))
  assert.equal(known.length, settled.length, 'the window that it names has none that is too young')
})

test('power plans with the feedback that counts, and with a judge’s word where it is trusted', () => {
  const records = peopleOf(3000, (model) => (model === 'A' ? 0.9 : 0.5)).map((record, at) => ({
    ...record,
    outcome: { ...(record.outcome as Outcome), quality_judge: at % 2 },
  }))
  const horizon = { withinMs: hourMs, untilMs: Date.parse(records.at(-1)?.time ?? '') }
  const [all, told, trusted] = [
    { horizon: null, trustJudge: false },
    { horizon, trustJudge: false },
    { horizon, trustJudge: true },
  ].map((how) => withOpinions(records, how))
  const known = (some: readonly DecisionRecord[] = []) => some.filter(({ outcome }) => outcome?.quality !== null).length
  assert.equal(known(all), 3000)
  assert.ok(known(told) < 2300 && known(told) > 1500, `${known(told)} are told within the hour`)
  assert.equal(known(trusted), 3000)
  const options = { goal: 'cost_usd', margin: 0.02, rowsPerDay: null, seed, prices: new Map(), judge: null } as const
  const widths = [all, told, trusted].map((some = []) => power(some, allB, options).rates[0]?.halfWidth ?? 0)
  assert.equal(new Set(widths).size, 3, `${widths}`)
})

test('durations are read as people write them, and a record’s time of feedback is checked', () => {
  const wanted: [string, number | null][] = [
    ['24h', 24 * hourMs],
    ['90s', 90_000],
    ['1.5d', 36 * hourMs],
    ['30 m', 30 * minuteMs],
    ['0s', null],
    ['500d', null],
    ['24', null],
    ['1w', null],
  ]
  for (const [text, ms] of wanted) assert.equal(durationMsOf(text), ms, text)
  const record = scored(logged(half, 1, () => ({}))[0] as DecisionRecord, 1, minuteMs)
  assert.deepEqual(decisionRecordSchema.parse(record), record)
  const wrong = { ...record, outcome: { ...record.outcome, quality_time: 'yesterday' } }
  assert.equal(decisionRecordSchema.safeParse(wrong).success, false)
})

test('a file and ClickHouse tell the same, by the command too, and an export carries the times', async () => {
  const collector = await temporaryCollector()
  const folder = await mkdtemp(join(tmpdir(), 'signalbox-test-'))
  const main = fileURLToPath(new URL('../cli/main.ts', import.meta.url))
  const run = (...args: string[]) =>
    new Promise<{ status: unknown; stdout: string; stderr: string }>((resolve) => {
      const options = { maxBuffer: 1 << 28 }
      execFile(process.execPath, [main, ...args], options, (error, stdout, stderr) =>
        resolve({ status: error?.code ?? 0, stdout, stderr }),
      )
    })
  try {
    await fill(collector.clickhouseUrl, 0, 1500)
    const delayed = `INSERT INTO otel.feedback (time, decision_id, name, score)
      SELECT decision_time + toIntervalSecond(xxHash64(toString(decision_id)) % 7200) AS came, decision_id, 'quality', 0.5
      FROM otel.routing_decisions WHERE came < (SELECT min(decision_time) + toIntervalMinute(65) FROM otel.routing_decisions)`
    const answer = await fetch(collector.clickhouseUrl, { method: 'POST', body: delayed })
    assert.ok(answer.ok, await answer.text())
    const file = join(folder, 'decisions.ndjson')
    const exported = await run('replay', 'export', '--source', collector.clickhouseUrl, '--output', file)
    assert.equal(exported.status, 0, exported.stderr)
    const candidate = parsePolicy(candidateTexts[2] as string, snapshotTypes)
    await writeFile(join(folder, 'candidate.yaml'), candidateTexts[2] as string)
    const options = { ...replayDefaults, replicates: 0, feedbackWithinMs: hourMs }
    const [table, lines] = [openSource(collector.clickhouseUrl, { feedbackTimes: true }), openSource(file)]
    const [ofTable] = await replaySource(table, await table.policies(), () => [candidate], options, { threads: 2 })
    const [ofFile] = await replaySource(lines, [productionOf()], () => [candidate], options)
    assert.deepEqual(ofTable?.feedback, ofFile?.feedback)
    const { late = 0, pending = 0, told = 0, untimed = 0 } = ofTable?.feedback ?? {}
    assert.ok(late > 0 && pending > 0 && told > 0 && untimed === 0, JSON.stringify(ofTable?.feedback))
    assert.equal(of(ofTable as Replay, 'quality').rows, told)
    const records: DecisionRecord[] = []
    for await (const record of lines.records()) records.push(record)
    assert.deepEqual(replay(records, [productionOf()], candidate, options).feedback, ofFile?.feedback)
    const printed = await run(
      ...['replay', 'run', '--source', collector.clickhouseUrl, '--policy', join(folder, 'candidate.yaml')],
      ...['--feedback-within', '1h', '--replicates', '0', '--json'],
    )
    assert.deepEqual((JSON.parse(printed.stdout) as Replay).feedback, ofTable?.feedback)
    const wrong = await run('replay', 'run', '--source', file, '--policy', 'x', '--feedback-within', 'soon')
    assert.equal(wrong.status, 64)
    assert.match(wrong.stderr, /found 'soon'; wanted a duration from 1s to 365d, such as 90s, 30m, 24h or 7d/)
    await table.close()
  } finally {
    await rm(folder, { recursive: true })
    await collector.close()
  }
})
