// A long replay can be stopped and gone on with: every million rows what was added up is written to a file, whole or not at
// all, with a key that says of which log and which candidates, and with the ends of the slices in it. A file of another run is left
// alone and not used, and so is one of a log that is cut otherwise by now: rows would count twice, or never.
import { createHash } from 'node:crypto'
import { readFile, rename, rm, writeFile } from 'node:fs/promises'
import { deserialize, serialize } from 'node:v8'
import { engineVersion } from '../../router/policy/record.ts'
import { SourceError } from '../read/parse.ts'
import type { Gathered } from './gather.ts'
import type { Survey } from './survey.ts'

export type Checkpoint = {
  /** Where the slices end that are in what was gathered; none and null at the start. */
  readonly load: () => Promise<{ readonly ends: readonly string[]; readonly gathered: Gathered | null }>
  readonly save: (ends: readonly string[], gathered: Gathered) => Promise<void>
  readonly clear: () => Promise<void>
  /** The error of a log that is no longer cut as it was. */
  readonly changed: () => SourceError
}

/** Sums are added by several threads, in any order: more digits than these are not the same every time. */
const digits = 6

/** The run that a file belongs to: the same rows of the same source with the same outcomes, decided by the same candidates. */
const keyOf = (source: string, survey: Survey, candidates: readonly string[]) => {
  const { rows, fromMs, toMs, policies, objective, armNames, clusters, cells } = survey
  const stride = cells.sums.length / Math.max(1, cells.count)
  const totals = new Float64Array(stride)
  for (const [at, sum] of cells.sums.entries()) totals[at % stride] = (totals[at % stride] as number) + sum
  const outcomes = Array.from(totals, (total) => total.toPrecision(digits))
  const log = [source, rows, fromMs, toMs, policies, armNames, clusters.count, outcomes]
  return createHash('sha256')
    .update(JSON.stringify([log, objective, candidates, engineVersion]))
    .digest('hex')
}

type Stored = { readonly key: string; readonly ends: readonly string[]; readonly gathered: Gathered }

const storedOf = (bytes: Buffer): Stored | null => {
  try {
    const value = deserialize(bytes) as Partial<Stored> | null
    return typeof value?.key === 'string' && Array.isArray(value.ends) ? (value as Stored) : null
  } catch {
    return null
  }
}

/** Keeps progress in `path`. Throws a SourceError where the file is something else, or cannot be written. */
export const checkpointAt = (
  path: string,
  source: string,
  survey: Survey,
  candidates: readonly string[],
): Checkpoint => {
  const key = keyOf(source, survey, candidates)
  const refused = (problem: string): SourceError =>
    new SourceError(
      'source-unreadable',
      `going on with the replay kept in ${path}: ${problem}; wanted a file that is not there yet, or this replay's own`,
    )
  const load: Checkpoint['load'] = async () => {
    const bytes = await readFile(path).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return null
      throw refused(`it cannot be read (${error.message})`)
    })
    if (!bytes) return { ends: [], gathered: null }
    const stored = storedOf(bytes)
    if (stored?.key === key) return stored
    throw refused(`found ${stored ? 'the progress of another log or another candidate' : 'something else'}`)
  }
  const save: Checkpoint['save'] = async (ends, gathered) => {
    // A part of one's own, so that two processes on one file do not write into each other's.
    const part = `${path}.${process.pid}.part`
    try {
      await writeFile(part, serialize({ key, ends, gathered } satisfies Stored))
      await rename(part, path)
    } catch (error) {
      await rm(part, { force: true })
      throw new SourceError(
        'source-unreadable',
        `keeping the replay's progress in ${path}: ${(error as Error).message}`,
      )
    }
  }
  const changed = () => refused('the log is no longer cut into the same slices, as rows came or were merged meanwhile')
  return { load, save, clear: () => rm(path, { force: true }), changed }
}
