// Quality told by a judge model and corrected by a few people: the judge favours one model and people look at one more often
// than at the other, and still the interval must hold what people would say of all answers.
import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { candidateTexts, fill, productionOf } from '../bench/replay-log.ts'
import type { MetricResult } from '../replay/estimate/evaluate.ts'
import { openSource } from '../replay/read/source.ts'
import { surveySql } from '../replay/redecide/survey-sql.ts'
import { checksOf } from '../replay/report/checks.ts'
import { type Replay, replay, replayDefaults, replaySource, surveyOf } from '../replay/run.ts'
import { parsePolicy } from '../router/policy/policy.ts'
import type { DecisionRecord, Outcome } from '../router/policy/record.ts'
import { snapshotTypes } from '../router/snapshot.ts'
import { temporaryCollector } from './collector-fixtures.ts'
import { repeatedLogs, seeded, truthFeatures, truthOf } from './replay-truth.ts'

const seed = Number(process.env.SEED ?? 7)
const quick = { ...replayDefaults, replicates: 0, missingAtRandom: true }
const production = parsePolicy(
  'name: p\nscore: candidate.rank\nchoose: {kind: highest}\nexplore: {rate: 0.8}',
  truthFeatures,
)
const favoured = 'Meta-Llama-3_1-70B-Instruct'
const policy = parsePolicy(
  "name: c\nscore: 'candidate.rank == 3.0 ? 1.0 : 0.0'\nchoose: {kind: highest}",
  truthFeatures,
)

/** What is true counts 1. The judge sees that through noise, and half of the favoured model's wrong answers pass with it. */
const judgedBy = (outcome: Outcome, random: () => number): number => {
  const isGood = outcome.quality === 1 || (outcome.served === favoured && random() < 0.5)
  return isGood ? 1 - 0.2 * random() : 0.3 * random()
}

/** Rows with both opinions: people's of a third of the favoured model's answers, and of every sixth of the others'. */
const judged = (records: readonly DecisionRecord[], random: () => number): DecisionRecord[] =>
  records.map(({ outcome, ...record }) => {
    assert.ok(outcome)
    const isLabelled = random() < (outcome.served === favoured ? 1 / 3 : 1 / 6)
    const quality = isLabelled ? outcome.quality : null
    return { ...record, outcome: { ...outcome, quality, quality_judge: judgedBy(outcome, random) } }
  })
const withoutJudge = (records: readonly DecisionRecord[]): DecisionRecord[] =>
  records.map((record) => ({ ...record, outcome: { ...(record.outcome as Outcome), quality_judge: null } }))
const withoutPeople = (records: readonly DecisionRecord[]): DecisionRecord[] =>
  records.map((record) => ({ ...record, outcome: { ...(record.outcome as Outcome), quality: null } }))

const qualityOf = ({ metrics }: Replay): MetricResult =>
  metrics.find(({ metric }) => metric === 'quality') as MetricResult

// With true coverage 95 %, fewer than 34 of 40 intervals hold with probability 0.3 % (binomial).
test(`with people's part the interval holds the truth in at least 34 of 40 logs, shorter than theirs alone; the judge's in almost none (seed ${seed})`, (t) => {
  const random = seeded(seed)
  const [before, after] = [production, policy].map((of) => truthOf(of, ({ quality }) => quality ?? 0)) as [
    number,
    number,
  ]
  const truth = after - before
  const { log, candidate } = repeatedLogs(production, policy, random)
  const held = { both: 0, judge: 0 }
  const width = { both: 0, people: 0 }
  for (let repetition = 0; repetition < 40; repetition++) {
    const records = judged(log(1000, `${repetition}`), random)
    const both = qualityOf(replay(records, [], candidate, quick))
    held.both += Number(both.difference.low <= truth && truth <= both.difference.high)
    if (repetition >= 5) continue
    const judge = qualityOf(replay(withoutPeople(records), [], candidate, { ...quick, trustJudge: true }))
    held.judge += Number(judge.difference.low <= truth && truth <= judge.difference.high)
    const people = qualityOf(replay(withoutJudge(records), [], candidate, quick))
    width.both += both.difference.high - both.difference.low
    width.people += people.difference.high - people.difference.low
  }
  t.diagnostic(`held ${JSON.stringify(held)}, width ${JSON.stringify(width)}`)
  assert.ok(held.both >= 34, `held ${held.both} of 40`)
  assert.ok(held.judge <= 1, `the judge alone held ${held.judge} of 5`)
  assert.ok(width.both < 0.9 * width.people, 'the judge adds nothing')
})

test('the report says whose word the quality is; a judge nobody corrects is believed only on your word', () => {
  const random = seeded(seed)
  const { log, candidate } = repeatedLogs(production, policy, random)
  const records = judged(log(1800, 'r'), random)
  const labelled = records.filter(({ outcome }) => outcome?.quality !== null).length
  const both = replay(records, [], candidate, quick)
  assert.equal(both.judging?.byPeople, labelled)
  assert.equal(both.judging?.corrected, records.length - labelled)
  assert.equal(qualityOf(both).missing, 0)
  const { mean = 0, se = 0 } = both.judging?.bias ?? {}
  assert.ok(mean > 3 * se, 'the judge is seen to be too kind')
  const line = (of: Replay) => checksOf(of).find(({ name }) => name === 'judge')
  assert.match(line(both)?.found ?? '', /by a judge model, corrected by people's scores.*more than people do/)
  assert.equal(line(both)?.state, 'good')

  const alone = withoutPeople(records)
  const doubted = replay(alone, [], candidate, quick)
  assert.equal(qualityOf(doubted).rows, 0, 'nobody vouches for the judge')
  assert.match(line(doubted)?.found ?? '', /--trust-judge takes its word/)
  assert.equal(doubted.verdict.kind, 'refused')
  const trusted = replay(alone, [], candidate, { ...quick, trustJudge: true })
  assert.equal(qualityOf(trusted).rows, records.length)
  assert.match(line(trusted)?.found ?? '', /by the judge alone, on your word/)
  assert.equal(line(trusted)?.state, 'warning')
  assert.equal(line(replay(withoutJudge(records), [], candidate, quick)), undefined)
})

test('of a model that people hardly scored, only their own scores count', () => {
  const random = seeded(seed)
  const { log, candidate } = repeatedLogs(production, policy, random)
  let seen = 0
  const records = judged(log(1800, 'r'), random).map((record): DecisionRecord => {
    const outcome = record.outcome as Outcome
    if (outcome.served !== favoured || outcome.quality === null || ++seen <= 19) return record
    return { ...record, outcome: { ...outcome, quality: null } }
  })
  const { judging, ...result } = replay(records, [], candidate, quick)
  const ofFavoured = records.filter(({ chosen }) => chosen === favoured).length
  assert.equal(judging?.alone, ofFavoured - 19)
  assert.equal(qualityOf({ judging, ...result }).missing, ofFavoured - 19)
})

test('memory, a file and ClickHouse on two threads give one estimate from both opinions', async () => {
  const collector = await temporaryCollector()
  const folder = await mkdtemp(join(tmpdir(), 'signalbox-test-'))
  try {
    await fill(collector.clickhouseUrl, 0, 1500)
    const score = 'least(1, greatest(0, 0.2 + 0.5 * (xxHash64(toString(decision_id)) % 1000) / 1000))'
    const query = `INSERT INTO otel.feedback (time, decision_id, name, score)
      SELECT decision_time, decision_id, 'quality_judge', ${score} FROM otel.routing_decisions`
    const answer = await fetch(collector.clickhouseUrl, { method: 'POST', body: query })
    assert.ok(answer.ok, await answer.text())
    const source = openSource(collector.clickhouseUrl)
    const records: DecisionRecord[] = []
    for await (const record of source.records()) records.push(record)
    assert.ok(records.every(({ outcome }) => typeof outcome?.quality_judge === 'number'))
    const logged = productionOf()
    const candidate = parsePolicy(candidateTexts[2] as string, snapshotTypes)
    const file = join(folder, 'decisions.ndjson')
    await writeFile(file, records.map((record) => `${JSON.stringify(record)}\n`).join(''))
    assert.ok(source.ask)
    assert.equal(await surveySql(source.ask, [logged], { slowAboveMs: null }), null, 'SQL leaves this to the reader')
    const [ofFile] = await replaySource(openSource(file), [logged], () => [candidate], quick)
    const [ofTable] = await replaySource(source, await source.policies(), () => [candidate], quick, { threads: 2 })
    const survey = surveyOf(records, [logged], quick)
    assert.equal(survey.judging?.corrected, records.filter(({ outcome }) => outcome?.quality === null).length)
    const expected = qualityOf(replay(records, [logged], candidate, quick)).difference
    for (const result of [ofFile, ofTable]) {
      const { value, low, high } = qualityOf(result as Replay).difference
      for (const [found, wanted] of [
        [value, expected.value],
        [low, expected.low],
        [high, expected.high],
      ] as const)
        assert.ok(Math.abs(found - wanted) < 1e-9, `${found} is not ${wanted}`)
    }
    await source.close()
  } finally {
    await rm(folder, { recursive: true })
    await collector.close()
  }
})
