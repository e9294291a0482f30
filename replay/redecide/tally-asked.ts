// Adds one row to what answers asked anew say: where the candidate chooses as production did its outcome is the logged one, and where
// it chooses otherwise an answer stands for 1/ρ such rows. The scores are those of two-phase.ts, and become more terms of the sums.
import { type MetricName, metricCount, metricNames } from '../estimate/metrics.ts'
import { add, addAsked, addAskedBounds, termCount } from '../estimate/terms.ts'
import { type Reexecuted, rewardOf } from '../reexec/answers.ts'
import type { Answered, ReexecResult } from '../reexec/result.ts'
import { type SecondPhase, score } from '../reexec/two-phase.ts'
import type { Chunk, Fit } from './chunk.ts'
import { answeredAt, answeredCount, askedAt, type CandidateTally, frameAt, frameCount } from './tallies.ts'

/** What the candidate makes of a row: the entry it chooses, whether that is production's, and Σ_a π_e q by metric. */
export type Redecided = {
  readonly redecided: number
  readonly isSame: boolean
  readonly expected: Float64Array
}

/** Adds the chunk's row `at`, for each metric that is measured. */
export const tallyAsked = (
  fit: Fit,
  chunk: Chunk,
  at: number,
  row: Redecided,
  { results }: Reexecuted,
  tally: CandidateTally,
): void => {
  const result = results.get(chunk.ids[at] as string)
  const chosen = fit.survey.armNames[chunk.entryArm[row.redecided] as number] || null
  if (result && (row.isSame || result.model !== chosen)) add(tally.asked, askedAt.strangers, 1)
  if (!row.isSame) addFrame(chunk, at, row, result, tally)
  const answer = result && result.status !== 'unasked' ? result : null
  for (const metric of fit.measured) addScores(fit, chunk, at, metric, row, result, answer, tally)
}

/** Which changed decisions were asked: what does not depend on their answers. */
const addFrame = (
  chunk: Chunk,
  at: number,
  { redecided }: Redecided,
  result: ReexecResult | undefined,
  { asked, frame }: CandidateTally,
): void => {
  const k = chunk.keep[at] as number
  const place = (chunk.group[at] as number) * frameCount
  if (result?.status === 'unasked') {
    add(asked, askedAt.unasked, 1)
    if (chunk.production[redecided] === 0) add(asked, askedAt.untried, k)
    return
  }
  add(frame, place + frameAt.n, k)
  if (!result) return
  const probability = result.inclusion_probability
  add(frame, place + frameAt.asked, k / probability)
  add(asked, askedAt.asked, 1)
  add(asked, askedAt.paid, k)
  add(asked, askedAt.variance, (k * k * (1 - probability)) / probability ** 2)
}

const addScores = (
  fit: Fit,
  chunk: Chunk,
  at: number,
  metric: number,
  row: Redecided,
  result: ReexecResult | undefined,
  answer: Answered | null,
  tally: CandidateTally,
): void => {
  const raw = chunk.keep[at] as number
  const r = chunk.outcomes[at * metricCount + metric] as number
  const fitted = chunk.expected[row.redecided * metricCount + metric] as number
  const reward = row.isSame
    ? r
    : answer
      ? rewardOf(answer, metricNames[metric] as MetricName, r, fit.survey.objective)
      : Number.NaN
  const second: SecondPhase = {
    probability: row.isSame ? 1 : (result?.inclusion_probability ?? 1),
    included: row.isSame || answer !== null,
    reward,
    fitted,
  }
  if (!row.isSame && answer && !Number.isNaN(reward)) addAnswer(metric, raw, second, tally)
  const scoreAt = (unknown: number | null) => score(second, row.expected[metric] as number, unknown)
  const scores = { score: scoreAt(null), low: scoreAt(0), high: scoreAt(1) }
  const base = ((chunk.group[at] as number) * metricCount + metric) * termCount
  const q = chunk.expected[(chunk.chosen[at] as number) * metricCount + metric] as number
  const qb = chunk.expectedProduction[at * metricCount + metric] as number
  if (fit.isPartial[metric]) addAskedBounds(tally.sums, base, scores, raw, r, q, qb, row.isSame)
  if (Number.isNaN(r)) return
  const arms = fit.survey.armNames.length
  const k = raw * (fit.keepRatio[metric * arms + (chunk.arm[at] as number)] as number)
  addAsked(tally.sums, base, scores, k)
}

const addAnswer = (metric: number, k: number, { reward, probability }: SecondPhase, tally: CandidateTally): void => {
  const place = metric * answeredCount
  add(tally.answered, place + answeredAt.count, 1)
  add(tally.answered, place + answeredAt.weight, k / probability)
  add(tally.answered, place + answeredAt.squares, (k / probability) ** 2)
  tally.answerLeast[metric] = Math.min(tally.answerLeast[metric] as number, reward)
  tally.answerMost[metric] = Math.max(tally.answerMost[metric] as number, reward)
}
