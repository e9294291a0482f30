// What would mend a refusal or settle an open question: rows, days, exploration, re-executions, or a repair. Plans are
// made from the log itself: its weights, its spread of outcomes, its traffic per day.
import { normalQuantile } from './estimators.ts'
import {
  type Evidence,
  essDecidesFrom,
  essRefusedBelow,
  type Finding,
  type GatePart,
  gainOf,
  type Refusal,
  unsupportedMassMax,
} from './gate.ts'
import type { MetricName } from './metrics.ts'

/** What a remedy proposes where production does not explore: two percent over all arms, half a percent for each. */
const exploreRateProposed = 0.02
const exploreFloorProposed = 0.005
/** Rows are planned for an 80 % chance to settle the question, not for the even chance of the bare interval. */
const powerFactor = (normalQuantile + 0.8416) / normalQuantile
/** Plans beyond this are no plans. */
export const rowsPlannedMax = 1e9

/** What would mend a refusal or settle an open question. */
export type Remedy =
  | {
      readonly kind: 'rows'
      readonly rows: number
      readonly days: number | null
      readonly leaning: 'for' | 'against' | null
    }
  | {
      readonly kind: 'explore'
      readonly arms: readonly string[]
      readonly rate: number
      readonly floor: number
      readonly rows: number
      readonly days: number | null
    }
  | { readonly kind: 'reexecute'; readonly calls: number; readonly usd: number | null }
  | { readonly kind: 'feedback'; readonly metric: MetricName }
  | { readonly kind: 'supply-policies' }
  | { readonly kind: 'trust' }
  | { readonly kind: 'same-engine' }
  | { readonly kind: 'fix-snapshot' }
  | { readonly kind: 'fix-propensities' }
  | { readonly kind: 'check-outcomes'; readonly metric: MetricName }

const daysFor = ({ rowsPerDay }: Evidence, rows: number): number | null => (rowsPerDay ? rows / rowsPerDay : null)

/** How many more rows like these would settle every open condition, and to which side the estimates lean. */
export const settle = (
  evidence: Evidence,
  gate: readonly GatePart[],
  findings: readonly Finding[],
  thin: { readonly of: 'all' | 'change'; readonly ess: number } | null,
): Remedy => {
  let factor = thin ? (thin.of === 'all' ? essDecidesFrom : essRefusedBelow) / thin.ess : 1
  let against = false
  for (const [at, { role, result }] of gate.entries()) {
    if (findings[at]?.result === 'held') continue
    const gain = gainOf(result)
    const distance = gain.value + (role === 'goal' ? 0 : evidence.margin)
    if (distance < 0) against = true
    if (findings[at]?.result === 'harm') continue
    factor = Math.max(factor, ((((gain.high - gain.low) / 2) * powerFactor) / distance) ** 2)
  }
  const rows = Math.min(rowsPlannedMax, Math.ceil(evidence.rows * (factor - 1)))
  return { kind: 'rows', rows, days: daysFor(evidence, rows), leaning: against ? 'against' : 'for' }
}

export const mend = (evidence: Evidence, refusal: Refusal): Remedy[] => {
  switch (refusal.kind) {
    case 'no-rows':
      return []
    case 'fidelity':
      return refusal.groups.some(({ cause }) => cause.kind === 'engine-version')
        ? [{ kind: 'same-engine' }]
        : [{ kind: 'fix-snapshot' }]
    case 'unverifiable':
      return refusal.groups.some(({ cause }) => cause.kind === 'policy-missing')
        ? [{ kind: 'supply-policies' }, { kind: 'trust' }]
        : [{ kind: 'trust' }]
    case 'impossible-probabilities':
      return [{ kind: 'fix-propensities' }]
    case 'weight-audit':
      return [refusal.metric === null ? { kind: 'fix-propensities' } : { kind: 'feedback', metric: refusal.metric }]
    case 'no-outcomes':
      return [{ kind: 'feedback', metric: refusal.metric }]
    case 'zero-support':
      return [explore(evidence, refusal), reexecute(evidence)]
    case 'sample-size': {
      if (refusal.ess === 0 || evidence.diagnostics.unsupported.mass > unsupportedMassMax) return []
      const rows = Math.ceil(evidence.rows * (essDecidesFrom / refusal.ess - 1))
      return [{ kind: 'rows', rows, days: daysFor(evidence, rows), leaning: null }, reexecute(evidence)]
    }
    case 'disagreement':
      return [{ kind: 'check-outcomes', metric: refusal.metric }]
  }
}

/** With probability p on the untried arms (exploration is spread over the eligible), E[w²] = E[w² where tried] + mass / p, and ESS = rows / E[w²]. */
const explore = (evidence: Evidence, { arms, mass }: Extract<Refusal, { kind: 'zero-support' }>): Remedy => {
  const { effective, rows: seen } = evidence.diagnostics
  const probability = Math.max(exploreFloorProposed, exploreRateProposed / evidence.eligibleMean)
  const tried = effective.expected > 0 ? (seen * (1 - mass) ** 2) / effective.expected : 0
  const rows = Math.ceil(essDecidesFrom * (tried + mass / probability))
  return {
    kind: 'explore',
    arms: arms.map(({ arm }) => arm),
    rate: exploreRateProposed,
    floor: exploreFloorProposed,
    rows,
    days: daysFor(evidence, rows),
  }
}

/**
 * Asking the candidate's choice anew on m of the changed rows leaves quality a half-width of 1.96 · sd · churn / √m; m is
 * what brings that down to the margin.
 */
const reexecute = ({ metrics: results, margin, churn, rows, changedCostUsd }: Evidence): Remedy => {
  const sd = results.find(({ metric }) => metric === 'quality')?.sd || 0.5
  const calls = Math.ceil(
    Math.min(churn * rows, Math.max(essDecidesFrom, ((normalQuantile * sd * churn) / margin) ** 2)),
  )
  return { kind: 'reexecute', calls, usd: changedCostUsd === null ? null : calls * changedCostUsd }
}
