// The engine: a source of any size is gone through twice, once to survey it and once to decide it again, and only
// sums stay. A source that comes as slices of bytes is dealt to worker threads; one that comes as lines is decided here. A
// source that is small is kept in between, so that it is read once.
import { availableParallelism } from 'node:os'
import type { Policy } from '../../router/policy/policy.ts'
import type { DecisionRecord } from '../../router/policy/record.ts'
import { SqlDeclined } from '../../router/policy/sql-text.ts'
import type { Objective } from '../estimate/metrics.ts'
import { SourceError } from '../read/parse.ts'
import { recordsOf } from '../read/rows.ts'
import type { Slice, Source } from '../read/source.ts'
import type { Reexecuted } from '../reexec/answers.ts'
import { type Checkpoint, checkpointAt } from './checkpoint.ts'
import { gatherInThreads } from './crew.ts'
import { type Gathered, mergeGathered, startGathering } from './gather.ts'
import { gatherSql } from './gather-sql.ts'
import { completeSamples, featuresNeeded } from './needed.ts'
import { isToldRight, noneArm, type Survey, startRetelling, startSurvey } from './survey.ts'
import { surveySql } from './survey-sql.ts'
import { type LoggedPolicy, shelve } from './verify.ts'
import type { WorkerInput } from './worker.ts'

/** Records of a source of lines that are kept between the passes. */
const keptRecordsMax = 100_000
export const threadsMax = 64
/** Every pair of models has its sums; a log with more holds something else where the model should be. */
const modelsMax = 1000
const unusual =
  "a log with repeated ids, impossible probabilities, rows that only their records say in full, draws by user or tenant, a judge model's scores, or a horizon of feedback"
/**
 * Below so many rows `auto` decides here: a query takes a second to be planned, and what is decided here is proved to the bit, in
 * SQL to 1e-12.
 */
const sqlFromRowsDefault = 500_000
/** Slices gathered before what was added up is kept: about a million rows. */
const roundSlicesDefault = 32

/** `pass` is 1 or 2 of `passes`; `done` is in the unit of the source's size. */
export type Progress = (progress: { readonly pass: 'survey' | 'decide'; readonly rows: number }) => void

export const engines = ['auto', 'sql', 'js'] as const
export type Engine = (typeof engines)[number]

export type EngineOptions = {
  readonly objective: Objective
  /** Where sums are made: `sql` in ClickHouse or not at all, `auto` there if that can be, `js` (by default) here. */
  readonly engine?: Engine
  /** Logs of fewer rows are decided here by `auto`; half a million by default. */
  readonly sqlFromRows?: number
  /** Told why `auto` turned to JavaScript. */
  readonly onDeclined?: (because: string) => void
  /** How many threads decide; by default as many as there are cores. */
  readonly threads?: number
  /** Answers asked anew for the candidate's own choices; rows are then looked up by their ids, which SQL declines. */
  readonly reexecuted?: Reexecuted | null
  /** A file that keeps what was added up, so that a replay that was stopped can be gone on with. */
  readonly checkpoint?: string
  /** How many slices are gathered before that is written; about a million rows by default. */
  readonly roundSlices?: number
  readonly onProgress?: Progress
}

/** A log that is known and can be decided again. */
export type Log = {
  readonly survey: Survey
  readonly policies: readonly LoggedPolicy[]
  readonly gather: (candidates: readonly Policy[]) => Promise<Gathered>
}

type Records = AsyncIterable<Iterable<DecisionRecord>>
type Reread = (untilMs?: number) => Records

/** Surveys a source. `policies` are those that decided, as far as their texts are known. */
export const surveyLog = async (
  source: Source,
  policies: readonly LoggedPolicy[],
  options: EngineOptions,
): Promise<Log> => {
  const read = rereadable(source)
  const asked = (source.ask && (await surveySql(source.ask, policies, options.objective))) ?? null
  const survey = asked ?? (await surveyRecords(read, policies, options))
  const models = survey.armNames.filter((name) => name !== noneArm)
  if (models.length > modelsMax)
    throw new SourceError(
      'record-invalid',
      `reading decision records: ${source.name} names ${models.length} models, such as '${models[0]}'; a replay compares up to ${modelsMax}`,
    )
  const threads = Math.min(threadsMax, options.threads ?? availableParallelism())
  const gather = async (candidates: readonly Policy[]): Promise<Gathered> => {
    const inSql = await gatherWhereDataIs(source, asked, policies, candidates, options)
    if (inSql) return inSql
    const { slices } = source
    const { reexecuted = null } = options
    // The first of two records with one id counts, and only one thread knows which that is.
    if (slices && survey.duplicates === 0) {
      const sources = candidates.map((policy) => policy.source)
      const file = options.checkpoint
      const made = reexecuted ? [...sources, reexecuted.digest] : sources
      const checkpoint = file === undefined ? null : checkpointAt(file, source.name, survey, made)
      const features = featuresNeeded([...policies, ...candidates])
      const input = { survey, policies, candidates: sources, reexecuted, features }
      const gathered = await gatherInRounds(input, slices(survey.toMs, features), threads, checkpoint, options)
      await completeSamples(gathered, candidates, source)
      return gathered
    }
    const gathering = startGathering(survey, shelve(policies, survey.features), candidates, reexecuted)
    await each(read(survey.toMs), gathering.add, 'decide', options.onProgress)
    return gathering.close()
  }
  return { survey, policies, gather }
}

/** The sums by the SQL engine; null where it is not wanted, or declines. Throws SqlDeclined where nothing else is wanted. */
const gatherWhereDataIs = async (
  source: Source,
  survey: Survey | null,
  policies: readonly LoggedPolicy[],
  candidates: readonly Policy[],
  { engine = 'js', sqlFromRows = sqlFromRowsDefault, reexecuted = null, onDeclined }: EngineOptions,
): Promise<Gathered | null> => {
  if (engine === 'js' || (engine === 'auto' && (survey?.rows ?? 0) < sqlFromRows)) return null
  try {
    if (reexecuted) throw new SqlDeclined('answers asked anew, which are known by the ids of their rows')
    if (!survey)
      throw new SqlDeclined(source.ask ? unusual : 'a log that is not in ClickHouse, or only the first turns of one')
    return await gatherSql(source, survey, policies, candidates)
  } catch (error) {
    if (!(error instanceof SqlDeclined)) throw error
    if (engine === 'sql') throw new SqlDeclined(`deciding again in SQL: it declines ${error.message}`)
    if (source.ask) onDeclined?.(error.message)
    return null
  }
}

const surveyRecords = async (
  read: Reread,
  policies: readonly LoggedPolicy[],
  { objective, onProgress }: EngineOptions,
): Promise<Survey> => {
  const first = startSurvey(policies, objective)
  await each(read(), first.add, 'survey', onProgress)
  const survey = first.close()
  if (isToldRight(survey)) return survey
  const again = startRetelling(survey)
  await each(read(survey.toMs), again.add, 'survey', onProgress)
  return again.close()
}

const each = async (
  batches: Records,
  add: (record: DecisionRecord) => void,
  pass: 'survey' | 'decide',
  onProgress: Progress | undefined,
): Promise<void> => {
  let rows = 0
  for await (const batch of batches) {
    for (const record of batch) {
      add(record)
      rows++
    }
    onProgress?.({ pass, rows })
  }
}

/** A source that can be read again, without what was decided after the time given; lines are kept while they are few. */
const rereadable = (source: Source): Reread => {
  const { slices } = source
  if (slices)
    return async function* (untilMs) {
      for await (const { bytes } of slices(untilMs)) yield recordsOf(bytes)
    }
  let kept: (readonly DecisionRecord[])[] | null = null
  return async function* () {
    if (kept) {
      yield* kept
      return
    }
    let keeping: (readonly DecisionRecord[])[] | null = []
    let rows = 0
    for await (const batch of source.batches()) {
      rows += batch.length
      if (rows > keptRecordsMax) keeping = null
      keeping?.push(batch)
      yield batch
    }
    kept = keeping
  }
}

/** Gathers some slices at a time, so that what is added up can be kept in between. */
const gatherInRounds = async (
  input: WorkerInput,
  slices: AsyncIterable<Slice>,
  threads: number,
  checkpoint: Checkpoint | null,
  { onProgress, roundSlices = roundSlicesDefault }: EngineOptions,
): Promise<Gathered> => {
  const { ends: before, gathered: kept } = (await checkpoint?.load()) ?? { ends: [], gathered: null }
  let [gathered, rows] = [kept, 0]
  const ends: string[] = []
  const iterator = slices[Symbol.asyncIterator]()
  for (let isOver = false; !isOver; ) {
    const round = async function* (): AsyncGenerator<Slice> {
      for (let count = 0; count < roundSlices; count++) {
        const next = await iterator.next()
        if (next.done) {
          isOver = true
          return
        }
        rows += next.value.rows
        onProgress?.({ pass: 'decide', rows })
        const known = before[ends.length]
        ends.push(next.value.end)
        if (known === undefined) yield next.value
        else if (known !== next.value.end) throw checkpoint?.changed()
      }
    }
    const more = await gatherInThreads(input, round(), threads)
    gathered = gathered ? mergeGathered(gathered, more) : more
    if (!isOver && ends.length > before.length) await checkpoint?.save(ends, gathered)
  }
  if (ends.length < before.length) throw checkpoint?.changed()
  await checkpoint?.clear()
  return gathered as Gathered
}
