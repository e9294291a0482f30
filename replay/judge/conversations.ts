// Conversations: a different answer changes what is asked next, and that no log shows. Later turns are therefore used with a
// mark, left out, or a reason to give no verdict, as the person who asks prefers.
import type { Survey } from '../redecide/survey.ts'
import { type CandidateTally, scalarAt } from '../redecide/tallies.ts'

/** Use all turns and mark what rests on them, use first turns only, or give no verdict. */
export const conversationModes = ['keep', 'first-turn', 'decline'] as const
export type ConversationMode = (typeof conversationModes)[number]

/** Beyond this share of later turns, estimates are marked. */
const laterTurnsMax = 0.01

export type Conversations = {
  /** Rows that are not the first of their session. */
  readonly laterTurns: number
  /** Of the rows that belong to a session, the share that the candidate decides otherwise. */
  readonly share: number
  /** `first-divergence`: the requests are held fixed, which is right up to the first turn that is decided otherwise. */
  readonly mark: 'none' | 'first-divergence'
  /** Whether a verdict is refused for it. */
  readonly declined: boolean
}

export const conversationsOf = (
  { rows, clusters: { laterTurns } }: Survey,
  { scalars }: CandidateTally,
  mode: ConversationMode,
): Conversations => {
  const [turns, changed] = [scalars[scalarAt.turns] ?? 0, scalars[scalarAt.changedTurns] ?? 0]
  const mark = laterTurns > laterTurnsMax * rows && changed > 0 ? 'first-divergence' : 'none'
  const declined = mode === 'decline' && mark === 'first-divergence'
  return { laterTurns, share: turns > 0 ? changed / turns : 0, mark, declined }
}
