// A thread that goes through slices of a log: bytes come in, and when told to end it hands back what it added up.
import { parentPort, workerData } from 'node:worker_threads'
import { parsePolicy } from '../../router/policy/policy.ts'
import type { ReadFeatures } from '../read/candidates.ts'
import { recordsOf } from '../read/rows.ts'
import type { Reexecuted } from '../reexec/answers.ts'
import { buffersOf, type Gathered, startGathering } from './gather.ts'
import type { Survey } from './survey.ts'
import { type LoggedPolicy, shelve } from './verify.ts'

export type WorkerInput = {
  readonly survey: Survey
  readonly policies: readonly LoggedPolicy[]
  /** Their sources; they are known to be sound. */
  readonly candidates: readonly string[]
  readonly reexecuted: Reexecuted | null
  /** What the slices hold of candidates. */
  readonly features: ReadFeatures
}
/** Bytes of a slice, or the end. */
export type WorkerTask = { readonly bytes: ArrayBuffer } | 'end'
/** It is there; a slice is done; what was added up; what went wrong. */
export type WorkerAnswer =
  | { readonly kind: 'ready' }
  | { readonly kind: 'done' }
  | { readonly kind: 'gathered'; readonly gathered: Gathered }
  | { readonly kind: 'failed'; readonly code: string; readonly message: string }

const { survey, policies, candidates, reexecuted, features } = workerData as WorkerInput
const gathering = startGathering(
  survey,
  shelve(policies, survey.features),
  candidates.map((source) => parsePolicy(source, survey.features)),
  reexecuted,
)
const port = parentPort
const answer = (message: WorkerAnswer): void =>
  port?.postMessage(message, message.kind === 'gathered' ? buffersOf(message.gathered) : [])

port?.on('message', (task: WorkerTask) => {
  try {
    if (task === 'end') answer({ kind: 'gathered', gathered: gathering.close() })
    else {
      for (const record of recordsOf(task.bytes, features)) gathering.add(record)
      answer({ kind: 'done' })
    }
  } catch (error) {
    const { code = 'source-unreadable', message } = error as Error & { code?: string }
    answer({ kind: 'failed', code, message })
  }
})
answer({ kind: 'ready' })
