// The gate's nouns: the evidence it looks at, its limits, its conditions, and how it refuses. What follows from them is in
// verdict.ts, what would mend them in remedy.ts, and how to say it in words.ts.
import type { Diagnostics } from './diagnostics.ts'
import type { MetricResult } from './evaluate.ts'
import { type MetricName, metrics } from './metrics.ts'
import type { CauseGroup, Verification } from './verify.ts'

/** Effective sample sizes: below the first no estimate is shown as evidence, below the second none can decide. */
export const essRefusedBelow = 100
export const essDecidesFrom = 250
export const unsupportedMassMax = 0.01
export const disagreementSeMax = 2
/** … unless it is smaller than this part of the margin, or of production's value: a gap nobody would act on. */
export const immaterialShare = 0.01
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
      readonly example: { readonly id: string; readonly problem: string }
    }
  | { readonly kind: 'no-outcomes'; readonly metric: MetricName }
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
  readonly goal: Goal
  readonly margin: number
  readonly rows: number
  readonly rowsPerDay: number | null
  readonly verification: Verification
  /** Set by a person who vouches for probabilities that cannot be verified. */
  readonly trustPropensities: boolean
  readonly impossible: readonly { readonly id: string; readonly problem: string }[]
  readonly diagnostics: Diagnostics
  readonly metrics: readonly MetricResult[]
  /** The share of rows that the candidate decides otherwise, and what such a choice is predicted to cost. */
  readonly churn: number
  readonly changedCostUsd: number | null
  /** How many models a request could have gone to, on average. */
  readonly eligibleMean: number
}

export type GatePart = { readonly role: Finding['role']; readonly result: MetricResult }

/** The goal, and the guardrails: quality, and the share of requests that fail. */
export const gateOf = ({ goal, metrics: results }: Evidence): GatePart[] =>
  results.flatMap((result): GatePart[] => {
    if (result.metric === goal) return [{ role: 'goal', result }]
    return result.metric === 'quality' || result.metric === 'failed' ? [{ role: 'guardrail', result }] : []
  })

/** A difference as a gain, positive when the candidate is better. */
export const gainOf = ({ metric, difference: { value, low, high } }: MetricResult) =>
  metrics[metric].better === 'higher' ? { value, low, high } : { value: -value, low: -high, high: -low }
