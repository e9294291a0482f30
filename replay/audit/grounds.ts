// What the audit of a log finds that no figure of a replay would show, and that forbids one: weights average 1, bits agree, and
// still the estimate is of something else. A replay listens to its own first reading for it; where the server surveys the log by
// itself, a few stretches of time are read instead, whole, because what is doubled lies close together.

import type { DecisionRecord } from '../../router/policy/record.ts'
import type { ReadFeatures } from '../read/candidates.ts'
import type { Source } from '../read/source.ts'
import { hashSet } from '../redecide/hash-set.ts'
import { idHash, type Survey } from '../redecide/survey.ts'
import { featuresRead } from '../redecide/verify.ts'
import { startContract } from './contract.ts'
import type { AuditFinding } from './finding.ts'
import { doubledRows } from './rows.ts'
import { censoredFeedback, fallbackAsChoice, leakage } from './suspicions.ts'

/** Of a larger log, about so many rows are read, in so many stretches of time. */
const sampleRows = 40_000
const stretches = 8

/** The candidate's text, and what was vouched for: what is unread, or allowed for by bounds, forbids nothing. */
type Asker = { readonly source: string; readonly missingAtRandom: boolean }
export type Grounds = (asker: Asker) => readonly AuditFinding[]

/** Folds records into what may forbid a figure; repeated ids are left out, as everywhere. */
const startGrounds = () => {
  const ids = hashSet()
  const [leaks, censored] = [leakage(), censoredFeedback()]
  const contract = startContract(['choice-not-first'])
  const always = [fallbackAsChoice(), doubledRows()]
  const questions = [contract, ...always, leaks, censored]
  return {
    add: (record: DecisionRecord): void => {
      if (ids.add(idHash(record))) for (const { add } of questions) add(record)
    },
    close: (): Grounds => (asker) =>
      [
        ...contract.close(),
        ...always.map(({ close }) => close()),
        leaks.close(new Set(featuresRead(asker.source))),
        asker.missingAtRandom ? censored.close() : null,
      ].flatMap((finding) => (finding?.gravity === 'bad' ? [finding] : [])),
  }
}

export const groundsOf = (records: Iterable<DecisionRecord>): Grounds => {
  const grounds = startGrounds()
  for (const record of records) grounds.add(record)
  return grounds.close()
}

/**
 * A source that is listened to when it is first gone through, and what is known once it is surveyed. Of a table only `features` need
 * to be read: those that the candidates look at.
 */
export const listeningTo = (
  source: Source,
): { readonly source: Source; readonly grounds: (survey: Survey, features?: ReadFeatures) => Promise<Grounds> } => {
  const { find } = source
  if (find) return { source, grounds: async (survey, features) => groundsOf(await find(stretchesOf(survey), features)) }
  const heard = startGrounds()
  let isFirst = true
  const batches: Source['batches'] = async function* (onProgress) {
    const isHeard = isFirst
    isFirst = false
    for await (const batch of source.batches(onProgress)) {
      if (isHeard) batch.forEach(heard.add)
      yield batch
    }
  }
  return { source: { ...source, batches }, grounds: async () => heard.close() }
}

/** Rows of as many stretches, evenly over the window, as a condition in SQL. */
const stretchesOf = ({ rows, fromMs, toMs }: Survey): string => {
  const span = toMs - fromMs + 1
  if (!(rows > sampleRows)) return 'true'
  const width = (span * sampleRows) / rows / stretches
  const moment = (ms: number) => `fromUnixTimestamp64Milli(toInt64(${Math.round(ms)}))`
  const within = Array.from({ length: stretches }, (_, at) => {
    const startMs = fromMs + (span * at) / stretches
    return `(decision_time >= ${moment(startMs)} AND decision_time < ${moment(startMs + width)})`
  })
  return `(${within.join(' OR ')})`
}
