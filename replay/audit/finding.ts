// What the audit of a log finds: how many rows something is true of, what that forbids, and what to do about it. Checks that
// look at one record and folds that look at the whole log both answer in this form, so that one table can show them all.
import type { DecisionRecord } from '../../router/policy/record.ts'

/** `bad` forbids estimation, `warning` forbids something less, `note` is worth knowing. */
export type Gravity = 'bad' | 'warning' | 'note'

export type AuditFinding = {
  /** The name of the check: the same in every version. */
  readonly kind: string
  readonly gravity: Gravity
  /** How many rows, and their share among those that the check is about. */
  readonly count: number
  readonly share: number
  /** What is said of them, as the end of "12 rows …". */
  readonly what: string
  /** What cannot be had from such rows; empty where nothing is lost. */
  readonly forbids: string
  readonly remedy: string
}

/** A question about the log as a whole: shown every record, it answers with a finding, or null where there is none. */
export type Question = { readonly add: (record: DecisionRecord) => void; readonly close: () => AuditFinding | null }

export const findingOf = (
  kind: string,
  gravity: Gravity,
  [count, of]: readonly [number, number],
  words: Pick<AuditFinding, 'what' | 'forbids' | 'remedy'>,
): AuditFinding => ({ kind, gravity, count, share: of > 0 ? count / of : 0, ...words })
