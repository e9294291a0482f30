// What a replay is about, counted: its window of time, where the answers come from, and which decisions move from which model to
// which. Nothing here is estimated, so no interval stands beside it.
import type { Survey } from './redecide/survey.ts'
import { askedAt, type CandidateTally, scalarAt, wholeAt, wholeTotal } from './redecide/tallies.ts'

const movesMax = 12
const dayMs = 86_400_000

/** From the first decision to the last, ISO 8601; the rate is null for a window without length. */
export type Window = { readonly from: string; readonly to: string; readonly rowsPerDay: number | null }

/** Where the answer to "what would the candidate have done here?" comes from, as shares of the rows. */
export type Shares = {
  /** It chooses as production did: the outcome is the logged one. */
  readonly observed: number
  /** It chooses otherwise: from rows where production happened to choose so, or from the sample that was asked anew. */
  readonly estimated: number
  /** It chooses otherwise, and its own choice was asked anew and paid for. */
  readonly reexecuted: number
  /** It chooses what production never would, and which could not be asked either: nothing is known. */
  readonly unsupported: number
}

export type Move = { readonly from: string; readonly to: string; readonly count: number }
export const windowOf = ({ fromMs, toMs, rows }: Survey): Window | null => {
  if (fromMs > toMs) return null
  const days = (toMs - fromMs) / dayMs
  return {
    from: new Date(fromMs).toISOString(),
    to: new Date(toMs).toISOString(),
    rowsPerDay: days > 0 ? rows / days : null,
  }
}

export const sharesOf = (tally: CandidateTally, hasAnswers: boolean): Shares => {
  const total = wholeTotal(tally, wholeAt.n)
  const observed = tally.scalars[scalarAt.observed] ?? 0
  const paid = hasAnswers ? (tally.asked[askedAt.paid] ?? 0) : 0
  const untried = (hasAnswers ? tally.asked[askedAt.untried] : tally.scalars[scalarAt.untried]) ?? 0
  if (total === 0) return { observed: 0, estimated: 0, reexecuted: 0, unsupported: 0 }
  return {
    observed: observed / total,
    estimated: (total - observed - paid - untried) / total,
    reexecuted: paid / total,
    unsupported: untried / total,
  }
}

export const movesOf = ({ armNames }: Survey, { moves }: CandidateTally): Move[] => {
  const name = (arm: number) => armNames[arm] ?? ''
  const arms = armNames.length
  return [...moves]
    .map((count, at) => ({ from: name(Math.floor(at / arms)), to: name(at % arms), count }))
    .filter(({ from, to, count }) => count > 0 && from !== to)
    .sort((a, b) => b.count - a.count || (a.from + a.to < b.from + b.to ? -1 : 1))
    .slice(0, movesMax)
}

/** The mean predicted cost of the choices that change; null when none is known. */
export const changedCost = ({ scalars }: CandidateTally): number | null => {
  const known = scalars[scalarAt.changedCosts] ?? 0
  return known > 0 ? (scalars[scalarAt.changedCostUsd] ?? 0) / known : null
}
