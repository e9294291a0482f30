// Going through a log the second time: every record is decided again by its own policy, for proof, and by every candidate.
// The same function serves records in memory, a worker thread, and one thread alone.
import { draw } from '../../router/policy/chance.ts'
import { judge } from '../../router/policy/decide.ts'
import type { Policy } from '../../router/policy/policy.ts'
import type { DecisionRecord } from '../../router/policy/record.ts'
import { spreadMetrics } from '../estimate/metrics.ts'
import type { Reexecuted } from '../reexec/answers.ts'
import { addRow, fitOf, hasRoom, type Redecided, rowsByGroup, startChunk } from './chunk.ts'
import { addSpread, startSpread } from './spread.ts'
import { deduplication, impossibility, type Survey } from './survey.ts'
import {
  type CandidateTally,
  isSampled,
  keepSampled,
  type LogTally,
  mergeLogTallies,
  mergeTallies,
  startLogTally,
  startTally,
} from './tallies.ts'
import { startRow, tallyRow } from './tally.ts'
import { tallyLog } from './tally-log.ts'
import {
  mergeVerifications,
  type PolicyShelf,
  startVerification,
  type VerificationFold,
  verifyRecord,
} from './verify.ts'

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
  const spreads = spreadMetrics.map(() => startSpread(1 + candidates.length))
  const verification = startVerification()
  const [chunk, row] = [startChunk(candidates.length), startRow()]
  const flush = (): void => {
    const order = rowsByGroup(chunk, survey.clusters.groupCount)
    tallyLog(fit, chunk, order, log)
    for (const at of order)
      for (let place = 0; place < tallies.length; place++)
        tallyRow(fit, chunk, at, chunk.redecided[place] as Redecided, row, tallies[place] as CandidateTally, reexecuted)
    addSpread(fit, chunk, order, spreads)
    chunk.rows = 0
  }
  return {
    add: (record: DecisionRecord): void => {
      verifyRecord(verification, record, shelf)
      if (!isNew(record) || impossibility(record)) return
      if (!hasRoom(chunk, record.candidates.length)) flush()
      // A record holds its context; to copy it out, or to put the decision into words, would cost as much as to decide.
      const decided = candidates.map(({ root, hash }) => judge(root, hash, record))
      addRow(fit, chunk, record, decided)
      sampleChanged(record, candidates, tallies)
    },
    close: (): Gathered => {
      flush()
      const binsOf = (column: number) => spreads.map((spread) => spread.column(column))
      return {
        log: { ...log, bins: binsOf(0) },
        tallies: tallies.map((tally, at) => ({ ...tally, bins: binsOf(at + 1) })),
        verification,
      }
    },
  }
}

/** Keeps the record for candidates that decide it otherwise, if its lot, which is the same for all of them, is among the first. */
const sampleChanged = (
  record: DecisionRecord,
  candidates: readonly Policy[],
  tallies: readonly CandidateTally[],
): void => {
  const rank = draw(record.id, 'replay', 'sample')
  for (let at = 0; at < candidates.length; at++) {
    const tally = tallies[at] as CandidateTally
    if (!isSampled(tally, rank)) continue
    const decision = (candidates[at] as Policy).decide(record)
    if (decision.chosen !== record.chosen) keepSampled(tally, { rank, record, decision })
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
