// The gate's nouns: the evidence it looks at, its limits, its conditions, and how it refuses. What follows from them is in
// verdict.ts, what would mend them in remedy.ts, and how to say it in words.ts.
import type { AuditFinding } from '../audit/finding.ts'
import type { Diagnostics } from '../estimate/diagnostics.ts'
import type { MetricResult } from '../estimate/evaluate.ts'
import type { Feedback } from '../estimate/feedback.ts'
import { type MetricName, metrics } from '../estimate/metrics.ts'
import type { ReexecutedSummary } from '../estimate/reexecuted.ts'
import type { Impossible } from '../redecide/survey.ts'
import type { CauseGroup, Verification } from '../redecide/verify.ts'
import type { Conversations } from './conversations.ts'

/**
 * Effective sample sizes: below the first no estimate is shown as evidence; below the second, of all rows or of those that
 * speak for the change, none can decide. On MMLU-Pro 95 % intervals of cost and latency held the truth in 88 to 91 % of logs
 * with 150 rows for the change, in 92 to 93 % with 200, and from 250 on in 95 %, 92 to 97 % by design (bench/coverage.ts).
 */
export const essRefusedBelow = 100
export const essDecidesFrom = 250
export const unsupportedMassMax = 0.01
/** Changed decisions asked anew, of known probability, from which a metric may be judged. */
export const answersDecideFrom = 100
/**
 * In units of the standard error of the gap itself: by the normal law an honest metric exceeds it once in 370 times, where two
 * would be exceeded once in 22.
 */
export const disagreementSeMax = 3
/** … unless it is smaller than this part of the margin, or of production's value: a gap nobody would act on. */
export const immaterialShare = 0.01
/** Missing amounts have no bounds: beyond this share they are not judged. */
export const missingAmountsMax = 0.01
export type Goal = 'cost_usd' | 'latency_ms' | 'quality'

/** Why the evidence may not be used. */
export type Refusal =
  | { readonly kind: 'no-rows' }
  | {
      readonly kind: 'fidelity'
      readonly differing: number
      readonly records: number
      readonly groups: readonly CauseGroup[]
    }
  | {
      readonly kind: 'unverifiable'
      readonly count: number
      readonly records: number
      readonly groups: readonly CauseGroup[]
    }
  | {
      readonly kind: 'impossible-probabilities'
      readonly count: number
      readonly example: Impossible
    }
  /** Later turns of conversations that the candidate decides otherwise; `share` is of the rows in sessions. */
  | { readonly kind: 'conversations'; readonly laterTurns: number; readonly share: number }
  /** Answers asked anew that are no evidence on this candidate, or on this log. */
  | { readonly kind: 'answers'; readonly reexecuted: ReexecutedSummary; readonly candidate: string }
  | { readonly kind: 'no-outcomes'; readonly metric: MetricName }
  /** An amount that is unknown for too many rows; `share` is that under the policy with more of them. */
  | { readonly kind: 'missing-outcomes'; readonly metric: MetricName; readonly share: number }
  /** An amount that is not even predicted for what production never tried. */
  | { readonly kind: 'unpredicted'; readonly metric: MetricName; readonly mass: number }
  | {
      readonly kind: 'zero-support'
      readonly mass: number
      readonly arms: readonly { readonly arm: string; readonly mass: number }[]
    }
  | {
      readonly kind: 'weight-audit'
      readonly metric: MetricName | null
      readonly arm: string | null
      readonly mean: number
      readonly se: number
    }
  /** What an audit of the records finds, and that forbids every figure. */
  | { readonly kind: 'contract'; readonly finding: AuditFinding }
  | { readonly kind: 'sample-size'; readonly metric: MetricName; readonly ess: number }
  | {
      readonly kind: 'disagreement'
      readonly metric: MetricName
      readonly se: number
      readonly dr: number
      readonly snips: number
    }

/** What the evidence shows about one condition of the gate. `tolerated` is how much worse would still do. */
export type Finding = {
  readonly metric: MetricName
  readonly role: 'goal' | 'guardrail'
  readonly result: 'held' | 'harm' | 'open'
  readonly tolerated: number
}

/** All that the rule looks at. */
export type Evidence = {
  /** The candidate policy's hash. */
  readonly candidate: string
  readonly goal: Goal
  readonly margin: number
  readonly rows: number
  readonly conversations: Conversations
  readonly rowsPerDay: number | null
  readonly verification: Verification
  /** Set by a person who vouches for probabilities that cannot be verified. */
  readonly trustPropensities: boolean
  /** Set by a person who vouches that requests without an outcome are like those with one. */
  readonly missingAtRandom: boolean
  readonly impossible: { readonly count: number; readonly examples: readonly Impossible[] }
  /** What the audit of the records finds that no figure would show. */
  readonly grounds: readonly AuditFinding[]
  readonly feedback: Feedback | null
  readonly diagnostics: Diagnostics
  readonly metrics: readonly MetricResult[]
  /** The share of rows that the candidate decides otherwise, and what such a choice is predicted to cost. */
  readonly churn: number
  /** What was asked anew; null where nothing was. */
  readonly reexecuted: ReexecutedSummary | null
  /** How many rows that is, before any weighting. */
  readonly changedChoices: number
  readonly changedCostUsd: number | null
  /** How many models a request could have gone to, on average. */
  readonly eligibleMean: number
}

export type GatePart = { readonly role: Finding['role']; readonly result: MetricResult }

/** The goal, and the guardrails: quality, and the shares of requests that fail or are given up. */
export const gateOf = ({ goal, metrics: results }: Pick<Evidence, 'goal' | 'metrics'>): GatePart[] =>
  results.flatMap((result): GatePart[] => {
    if (result.metric === goal) return [{ role: 'goal', result }]
    return metrics[result.metric].guards && !isBeyondAnswers(result, results) ? [{ role: 'guardrail', result }] : []
  })

/** Whether a metric is judged by answers asked anew, and not by logged probabilities. */
export const isAsked = ({ evidence }: Pick<MetricResult, 'evidence'>): boolean => evidence === 're-executed'

/** Whether the log cannot judge what answers asked anew cannot show: nobody waits for them, so nobody gives them up. */
export const isBeyondAnswers = ({ metric, diagnostics }: MetricResult, all: readonly MetricResult[]): boolean => {
  if (metric !== 'abandoned' || !all.some(isAsked)) return false
  const { unsupported, effective, change, changedRows } = diagnostics
  const ess = Math.min(effective.ess, changedRows > 0 ? change.ess : Infinity)
  return !(unsupported.mass <= unsupportedMassMax && ess >= essDecidesFrom)
}

/**
 * The smallest effective sizes over the gate: of all rows, and of those that speak for what changes. Of answers asked anew it
 * is their number that speaks, and each row is evidence in full.
 */
export const essOf = (gate: readonly GatePart[]): number =>
  Math.min(...gate.map(({ result }) => (isAsked(result) ? result.rows : result.diagnostics.effective.ess)))
export const changeEssOf = (gate: readonly GatePart[]): number =>
  Math.min(...gate.map(({ result }) => changeEss(result)))

const changeEss = (result: MetricResult): number => {
  if (isAsked(result)) return result.answers
  const { changedRows, change } = result.diagnostics
  return changedRows > 0 ? change.ess : Infinity
}

/** The parts of a gate that are judged by logged probabilities, and those judged by answers asked anew. */
export const byLog = (gate: readonly GatePart[]): GatePart[] => gate.filter(({ result }) => !isAsked(result))
export const byAnswers = (gate: readonly GatePart[]): GatePart[] => gate.filter(({ result }) => isAsked(result))

/** Whether DR and SNIPS differ by more than chance explains and than anybody would overlook. */
export const disagrees = ({ role, result }: GatePart, margin: number): boolean => {
  const scale = role === 'guardrail' ? margin : Math.abs(result.production.value)
  return result.disagreement > immaterialShare * scale && result.disagreementSe > disagreementSeMax
}

/** A difference as a gain, positive when the candidate is better. */
export const gainOf = ({ metric, difference: { value, low, high } }: MetricResult) =>
  metrics[metric].better === 'higher' ? { value, low, high } : { value: -value, low: -high, high: -low }
