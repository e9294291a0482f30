// One log, looked at in every way there is — records in memory, lines of a file, slices of ClickHouse on one thread or three,
// a survey by reading or by SQL — must give one result.
import assert from 'node:assert/strict'
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { candidateTexts, fill, productionOf } from '../bench/replay-log.ts'
import type { Collector } from '../collector/server.ts'
import { openSource, type Source } from '../replay/read/source.ts'
import { surveyLog } from '../replay/redecide/engine.ts'
import { surveySql } from '../replay/redecide/survey-sql.ts'
import { type Replay, replay, replayDefaults, replaySource, surveyOf } from '../replay/run.ts'
import { parsePolicy } from '../router/policy/policy.ts'
import type { DecisionRecord } from '../router/policy/record.ts'
import { snapshotTypes } from '../router/snapshot.ts'
import { temporaryCollector } from './collector-fixtures.ts'
import { seeded } from './replay-truth.ts'

const rows = 3000
const production = productionOf()
const candidate = parsePolicy(candidateTexts[2] as string, snapshotTypes)
const quick = { ...replayDefaults, replicates: 100, slowAboveMs: 3000 }
let collector: Collector
let source: Source
let records: DecisionRecord[]
before(async () => {
  collector = await temporaryCollector()
  await fill(collector.clickhouseUrl, 0, rows)
  source = openSource(collector.clickhouseUrl)
  records = []
  for await (const record of source.records()) records.push(record)
})
after(async () => {
  await source.close()
  await collector.close()
})

/** Equal but for rounding: numbers agree to nine digits, everything else exactly. */
const assertAlike = (a: unknown, b: unknown, path = ''): void => {
  if (typeof a === 'number' && typeof b === 'number') {
    const near = Object.is(a, b) || Math.abs(a - b) <= 1e-9 * (Math.abs(a) + Math.abs(b)) + 1e-12
    assert.ok(near, `${path}: ${a} is not ${b}`)
  } else if (a !== null && b !== null && typeof a === 'object' && typeof b === 'object') {
    assert.deepEqual(Object.keys(a).sort(), Object.keys(b).sort(), path)
    for (const key of Object.keys(a))
      assertAlike((a as Record<string, unknown>)[key], (b as Record<string, unknown>)[key], `${path}.${key}`)
  } else assert.equal(a, b, path)
}

const whole = (): Replay => replay(records, [production], candidate, quick)

test('every decision comes out as logged, and the estimate is the same on one thread, on three, and in memory', async () => {
  const expected = whole()
  assert.equal(expected.verification.reproduced, rows)
  assert.equal(expected.rows, rows)
  for (const threads of [1, 3]) {
    const [result] = await replaySource(source, await source.policies(), () => [candidate], quick, { threads })
    assertAlike(result, expected, `${threads} threads`)
  }
})

test('shuffled records give the same estimate', () => {
  const random = seeded(5)
  const shuffled = records
    .map((record) => ({ record, lot: random() }))
    .sort((a, b) => a.lot - b.lot)
    .map(({ record }) => record)
  assertAlike(replay(shuffled, [production], candidate, quick), whole())
})

test('a file of the same records gives the same estimate', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'signalbox-test-'))
  const file = join(folder, 'decisions.ndjson')
  await writeFile(file, records.map((record) => `${JSON.stringify(record)}\n`).join(''))
  const lines = openSource(file)
  const [result] = await replaySource(lines, [production], () => [candidate], quick)
  assertAlike(result, whole())
  await rm(folder, { recursive: true })
})

test('the first turns in ClickHouse are those of memory', async () => {
  const options = { ...quick, conversations: 'first-turn' } as const
  const [result] = await replaySource(source, await source.policies(), () => [candidate], options)
  assert.equal(result?.rows, rows / 2)
  assertAlike(result, replay(records, [production], candidate, options))
})

test('what SQL surveys is what reading every record surveys', async () => {
  assert.ok(source.ask)
  const asked = await surveySql(source.ask, await source.policies(), { slowAboveMs: 3000, trustJudge: false })
  assert.ok(asked, 'nothing about this log is out of the ordinary')
  const read = surveyOf(records, [production], quick)
  const { cells, armNames, features, clusters, ...facts } = asked
  const { cells: readCells, armNames: readArms, features: _, clusters: readClusters, ...readFacts } = read
  assertAlike(facts, readFacts)
  assert.deepEqual(armNames, readArms)
  assert.deepEqual(clusters.groupOf, readClusters.groupOf)
  assert.equal(clusters.count, readClusters.count)
  assert.equal(clusters.laterTurns, rows / 2, 'every session has two turns')
  assert.equal(readClusters.laterTurns, rows / 2)
  const byName = (table: typeof cells, names: readonly string[]) =>
    Object.fromEntries(
      Array.from({ length: table.count }, (_, cell) => {
        const stride = table.sums.length / table.count
        const place = [table.fold[cell], names[table.arm[cell] as number], table.octave[cell], table.kind[cell]]
        return [place.join(' '), [table.keep[cell], ...table.sums.slice(cell * stride, (cell + 1) * stride)]]
      }),
    )
  assertAlike(byName(cells, armNames), byName(readCells, readArms))
})

test('a replay that was cut off goes on where it was, and the file of another run is left alone', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'signalbox-test-'))
  const checkpoint = join(folder, 'progress')
  const times = records.map(({ time }) => time)
  const windows = [0, 500, 1000, 1500, 2000, 2500].map((at) => ({
    from: times[at] as string,
    ...(times[at + 500] ? { to: times[at + 500] as string } : {}),
  }))
  let read = 0
  const inSlices = (cutAfter: number): Source => ({
    ...source,
    slices: async function* () {
      for (const [at, window] of windows.entries()) {
        if (at === cutAfter) throw new Error('the connection was cut')
        const part = openSource(collector.clickhouseUrl, window)
        if (part.slices) for await (const slice of part.slices()) yield slice
        await part.close()
        read++
      }
    },
  })
  const policies = await source.policies()
  const run = (from: Source, candidates = [candidate]) =>
    replaySource(from, policies, () => candidates, quick, { threads: 2, roundSlices: 2, checkpoint })
  await assert.rejects(run(inSlices(5)), /the connection was cut/)
  await assert.rejects(run(inSlices(9), [candidate, candidate]), /the progress of another log or another candidate/)
  read = 0
  const [result] = await run(inSlices(9))
  assert.equal(read, windows.length)
  assertAlike(result, whole())
  assert.deepEqual(await readdir(folder), [], 'what is finished leaves nothing behind')
  await writeFile(checkpoint, 'my notes')
  await assert.rejects(run(inSlices(9)), /something else; wanted/)
  await rm(folder, { recursive: true })
})

test('a repeated decision makes the log be read, and counts once', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'signalbox-test-'))
  const file = join(folder, 'decisions.ndjson')
  const twice = [...records.slice(0, 200), ...records.slice(100, 150)]
  await writeFile(file, twice.map((record) => `${JSON.stringify(record)}\n`).join(''))
  const log = await surveyLog(openSource(file), [production], { objective: { slowAboveMs: null } })
  assert.equal(log.survey.rows, 200)
  assert.equal(log.survey.duplicates, 50)
  const { tallies } = await log.gather([candidate])
  assert.equal(
    tallies[0]?.moves.reduce((sum, count) => sum + count, 0),
    200,
  )
  await rm(folder, { recursive: true })
})
