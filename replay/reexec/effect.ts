// What the answers so far say about quality, while they come in: the mean difference over the decisions that change, how sure that
// is, and how far the judge itself may be trusted. It tells when to stop; the verdict is made by `replay run`.
import { normalQuantile } from '../estimate/estimators.ts'
import type { Answered } from './result.ts'

/** Before so many answers a small spread may be luck (Chow & Robbins 1965 ask for a first look that is not too early). */
const answersMin = 50

/** A mean over all requests, with its 95 % interval's half-width; null while too few answers are known. */
export type Effect = { readonly answers: number; readonly difference: number; readonly halfWidth: number }

/**
 * Δ = f · Σ w d / Σ w over the answers so far, with w = 1 / ρ at the `threshold` reached, d = quality − logged quality and f the
 * share of requests that change; half-width 1.96 f √(Σ w² (d − Δ/f)²) / Σ w (Hájek 1971; linearised: Särndal, Swensson &
 * Wretman 1992, ch. 5). Stopping when the half-width falls to a fixed size keeps the interval's coverage (Chow & Robbins 1965).
 */
export const effectOf = (results: Iterable<Answered>, threshold: number, changedShare: number): Effect | null => {
  const known: { weight: number; d: number }[] = []
  for (const { quality, quality_logged: before, importance } of results)
    if (quality !== null && before !== null)
      known.push({ weight: 1 / Math.min(1, threshold * importance), d: quality - before })
  if (known.length < answersMin) return null
  const total = known.reduce((sum, { weight }) => sum + weight, 0)
  const mean = known.reduce((sum, { weight, d }) => sum + weight * d, 0) / total
  const variance = known.reduce((sum, { weight, d }) => sum + (weight * (d - mean)) ** 2, 0)
  const halfWidth = (changedShare * normalQuantile * Math.sqrt(variance)) / total
  return { answers: known.length, difference: changedShare * mean, halfWidth }
}

export type JudgeError = {
  readonly judged: number
  readonly failed: number
  /** The judge preferred a name, not an answer. */
  readonly abstained: number
  readonly repeats: number
  /** Of the repeats, the share with another judgement; and √(Σ (first − second)² / 2n), the error of one judgement. */
  readonly disagreement: number | null
  readonly sd: number | null
}

/** The judge measured against itself: two judgements of one answer differ by √2 times the error of one (Dahlberg 1940). */
export const judgeErrorOf = (results: Iterable<Answered>): JudgeError | null => {
  let [judged, failed, abstained, repeats, differing, squares] = [0, 0, 0, 0, 0, 0]
  for (const { judge, quality } of results) {
    if (!judge) continue
    judged++
    failed += Number(judge.status === 'failed')
    abstained += Number(judge.status === 'abstained')
    if (judge.repeat_quality === null || quality === null) continue
    repeats++
    differing += Number(judge.repeat_quality !== quality)
    squares += (judge.repeat_quality - quality) ** 2
  }
  if (judged === 0) return null
  const measured = repeats > 0 ? { disagreement: differing / repeats, sd: Math.sqrt(squares / (2 * repeats)) } : null
  return { judged, failed, abstained, repeats, disagreement: measured?.disagreement ?? null, sd: measured?.sd ?? null }
}
