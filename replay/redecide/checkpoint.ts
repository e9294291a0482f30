// A long replay can be stopped and gone on with: every million rows what was added up is written to a file, whole or not at
// all, with a key that says of which log and which candidates. A file of another run is left alone and not used.
import { createHash } from 'node:crypto'
import { readFile, rename, rm, writeFile } from 'node:fs/promises'
import { deserialize, serialize } from 'node:v8'
import { engineVersion } from '../../router/policy/record.ts'
import { SourceError } from '../read/parse.ts'
import type { Gathered } from './gather.ts'
import type { Survey } from './survey.ts'

export type Checkpoint = {
  /** How many slices are in what was gathered; 0 and null at the start. */
  readonly load: () => Promise<{ readonly slices: number; readonly gathered: Gathered | null }>
  readonly save: (slices: number, gathered: Gathered) => Promise<void>
  readonly clear: () => Promise<void>
}

/** The run that a file belongs to: the same rows of the same source, decided by the same candidates. */
const keyOf = (source: string, { rows, fromMs, toMs, policies, objective }: Survey, candidates: readonly string[]) =>
  createHash('sha256')
    .update(JSON.stringify([source, rows, fromMs, toMs, policies, objective, candidates, engineVersion]))
    .digest('hex')

type Stored = { readonly key: string; readonly slices: number; readonly gathered: Gathered }

const storedOf = (bytes: Buffer): Stored | null => {
  try {
    const value = deserialize(bytes) as Partial<Stored> | null
    return typeof value?.key === 'string' && typeof value.slices === 'number' ? (value as Stored) : null
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
  const load: Checkpoint['load'] = async () => {
    const bytes = await readFile(path).catch(() => null)
    if (!bytes) return { slices: 0, gathered: null }
    const stored = storedOf(bytes)
    if (stored?.key === key) return stored
    throw new SourceError(
      'source-unreadable',
      `going on with the replay kept in ${path}: found ${stored ? 'the progress of another log or another candidate' : 'something else'}; wanted a file that is not there yet, or this replay's own`,
    )
  }
  const save: Checkpoint['save'] = async (slices, gathered) => {
    try {
      await writeFile(`${path}.part`, serialize({ key, slices, gathered } satisfies Stored))
      await rename(`${path}.part`, path)
    } catch (error) {
      throw new SourceError(
        'source-unreadable',
        `keeping the replay's progress in ${path}: ${(error as Error).message}`,
      )
    }
  }
  return { load, save, clear: () => rm(path, { force: true }) }
}
