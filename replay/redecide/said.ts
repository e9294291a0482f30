// Whether a record says what is judged now, to the bit: asked of every record before anything is put into words, because nearly all
// do. Where it does not, or this quick look is in doubt, verify.ts finds the first field that differs.
import { isDeepStrictEqual } from 'node:util'
import { type Judged, planOf } from '../../router/policy/decide.ts'
import type { Candidate, DecisionRecord, Exclusion } from '../../router/policy/record.ts'

/** Whether choice, plan, path, eligibility, exclusions, scores and probabilities are the same. */
export const isSaid = (record: DecisionRecord, judged: Judged): boolean => {
  const { candidates, reason } = record
  const { exclusions, scores, probabilities, chosen } = judged
  for (let place = 0; place < candidates.length; place++) {
    const logged = candidates[place] as Candidate
    const exclusion = exclusions[place] as Exclusion | null
    if (logged.score !== scores[place] || logged.probability !== probabilities[place]) return false
    if (logged.eligible !== (exclusion === null) || !isSameExclusion(logged.exclusion, exclusion)) return false
  }
  return (
    record.chosen === (candidates[chosen]?.model ?? null) &&
    (reason === undefined || reason === judged.reason) &&
    record.explored === (judged.reason === 'explore') &&
    isSameList(record.path, judged.path) &&
    isSameList(record.plan, planOf(judged, candidates))
  )
}

const isSameExclusion = (a: Exclusion | null, b: Exclusion | null): boolean => {
  if (a === null || b === null) return a === b
  if (a.kind === 'rule') return b.kind === 'rule' && a.name === b.name
  return a.kind === b.kind && isDeepStrictEqual(a, b)
}

const isSameList = (a: readonly string[], b: readonly string[]): boolean => {
  if (a.length !== b.length) return false
  for (let at = 0; at < a.length; at++) if (a[at] !== b[at]) return false
  return true
}
