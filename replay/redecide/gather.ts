// Going through a log the second time: every record is decided again by its own policy, for proof, and by every candidate.
// The same function serves records in memory, a worker thread, and one thread alone.
import type { Policy } from '../../router/policy/policy.ts'
import type { DecisionRecord } from '../../router/policy/record.ts'
import type { Reexecuted } from '../reexec/answers.ts'
import { chunkOf, fitOf } from './chunk.ts'
import { deduplication, type Survey } from './survey.ts'
import {
  type CandidateTally,
  type LogTally,
  mergeLogTallies,
  mergeTallies,
  startLogTally,
  startTally,
} from './tallies.ts'
import { tallyCandidate } from './tally.ts'
import { tallyLog } from './tally-log.ts'
import {
  mergeVerifications,
  type PolicyShelf,
  startVerification,
  type VerificationFold,
  verifyRecord,
} from './verify.ts'

/** Rows decided again at a time: enough to be worth the columns, few enough to stay in the processor's cache. */
const chunkRecords = 512

/** What has been added up so far; plain data. */
export type Gathered = {
  readonly log: LogTally
  /** In the order of the candidates. */
  readonly tallies: readonly CandidateTally[]
  readonly verification: VerificationFold
}

/** Goes through records of a surveyed log. The first record of a repeated id counts, so such a log takes one gatherer. */
export const startGathering = (
  survey: Survey,
  shelf: PolicyShelf,
  candidates: readonly Policy[],
  reexecuted: Reexecuted | null = null,
) => {
  const fit = fitOf(survey)
  const isNew = deduplication(survey)
  const log = startLogTally(survey)
  const tallies = candidates.map(() => startTally(survey))
  const verification = startVerification()
  let waiting: DecisionRecord[] = []
  const flush = (): void => {
    const chunk = chunkOf(fit, waiting)
    waiting = []
    tallyLog(fit, chunk, log)
    for (const [at, candidate] of candidates.entries())
      tallyCandidate(fit, chunk, candidate, tallies[at] as CandidateTally, reexecuted)
  }
  return {
    add: (record: DecisionRecord): void => {
      verifyRecord(verification, record, shelf)
      if (!isNew(record)) return
      waiting.push(record)
      if (waiting.length === chunkRecords) flush()
    },
    close: (): Gathered => {
      flush()
      return { log, tallies, verification }
    },
  }
}

/** The memory behind the sums, for a thread to give away instead of copying it. */
export const buffersOf = (gathered: Gathered): ArrayBuffer[] => {
  const found = new Set<ArrayBuffer>()
  const visit = (value: unknown): void => {
    if (ArrayBuffer.isView(value)) found.add(value.buffer as ArrayBuffer)
    else if (Array.isArray(value)) for (const item of value) visit(item)
    else if (value !== null && typeof value === 'object') for (const item of Object.values(value)) visit(item)
  }
  for (const { sample, movers, ...sums } of gathered.tallies) visit(sums)
  visit(gathered.log)
  return [...found]
}

/** What two gatherers of one survey found of different records, together; the first is changed. */
export const mergeGathered = (to: Gathered, from: Gathered): Gathered => {
  mergeLogTallies(to.log, from.log)
  for (const [at, tally] of to.tallies.entries()) mergeTallies(tally, from.tallies[at] as CandidateTally)
  return { ...to, verification: mergeVerifications(to.verification, from.verification) }
}
