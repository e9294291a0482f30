// What would mend a refusal or settle an open question: rows, days, exploration, re-executions, or a repair. Plans are
// made from the log itself: its weights, its spread of outcomes, its traffic per day.
import type { EffectiveSize } from '../estimate/diagnostics.ts'
import { normalQuantile } from '../estimate/estimators.ts'
import { roundingShare } from '../estimate/evaluate.ts'
import type { Feedback } from '../estimate/feedback.ts'
import { type MetricName, metrics } from '../estimate/metrics.ts'
import type { ReexecutedSummary } from '../estimate/reexecuted.ts'
import { unseenEvents } from '../estimate/unknown.ts'
import {
  answersDecideFrom,
  byAnswers,
  byLog,
  changeEssOf,
  type Evidence,
  essDecidesFrom,
  essOf,
  type Finding,
  type GatePart,
  gainOf,
  gateOf,
  isAsked,
  type Refusal,
  unsupportedMassMax,
} from './gate.ts'

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
  /** So many more of the changed decisions asked anew. */
  | { readonly kind: 'answers'; readonly calls: number; readonly usd: number | null }
  /** The answers asked anew were not judged. */
  | { readonly kind: 'judge' }
  | { readonly kind: 'ask-again'; readonly problem: NonNullable<ReexecutedSummary['problem']> }
  /** `share` is what is missing under the candidate, where that alone leaves the question open. */
  | { readonly kind: 'feedback'; readonly metric: MetricName; readonly share: number | null }
  /** So many decisions are too young for their feedback to be known. */
  | { readonly kind: 'wait'; readonly pending: number; readonly horizon: NonNullable<Feedback['horizon']> }
  /** What an audit finding says itself. */
  | { readonly kind: 'contract'; readonly remedy: string }
  | { readonly kind: 'first-turns' }
  | { readonly kind: 'supply-policies' }
  | { readonly kind: 'trust' }
  | { readonly kind: 'same-engine' }
  | { readonly kind: 'fix-snapshot' }
  | { readonly kind: 'fix-propensities' }
  | { readonly kind: 'unrounded-propensities' }
  | { readonly kind: 'predict'; readonly metric: MetricName }
  | { readonly kind: 'check-outcomes'; readonly metric: MetricName }

const daysFor = ({ rowsPerDay }: Evidence, rows: number): number | null => (rowsPerDay ? rows / rowsPerDay : null)

/** How many times the rows it takes until no limit on effective sizes stands in the way. */
const thinFactor = (gate: readonly GatePart[]): number =>
  Math.max(1, essDecidesFrom / essOf(gate), essDecidesFrom / changeEssOf(gate))

/** How many more rows or answers would settle every open condition, to which side the estimates lean, and what else would. */
export const settle = (
  evidence: Evidence,
  gate: readonly GatePart[],
  findings: readonly Finding[],
  thin: { readonly of: 'all' | 'change' | 'answers' } | null,
): Remedy[] => {
  const open = gate.filter((_, at) => findings[at]?.result === 'open')
  const left = leftToAsk(evidence)
  const isMoreAsked = left > 0 && (thin?.of === 'answers' || byAnswers(open).length > 0)
  const byRows = left > 0 ? byLog(open) : open
  const isThin = thin !== null && thin.of !== 'answers'
  const needsRows = byRows.length > 0 || isThin
  return [
    ...(isMoreAsked ? [moreAnswers(evidence, byAnswers(gate), byAnswers(open), left)] : []),
    ...(needsRows || !isMoreAsked ? moreRows(evidence, gate, findings, byRows, isThin) : []),
  ]
}

/** Changed decisions that could still be asked anew. */
const leftToAsk = ({ reexecuted }: Evidence): number =>
  reexecuted ? reexecuted.changed - reexecuted.unasked - reexecuted.asked : 0

/** More answers shorten an interval as more rows do, as long as there are decisions left to ask. */
const moreAnswers = (
  evidence: Evidence,
  asked: readonly GatePart[],
  open: readonly GatePart[],
  left: number,
): Remedy => {
  const answers = changeEssOf(asked)
  const factor = Math.max(answersDecideFrom / answers, ...open.map((part) => factorOf(evidence, part)))
  const calls = Math.min(left, Math.max(1, Math.ceil(answers * (factor - 1))))
  return { kind: 'answers', calls, usd: evidence.changedCostUsd === null ? null : calls * evidence.changedCostUsd }
}

const moreRows = (
  evidence: Evidence,
  gate: readonly GatePart[],
  findings: readonly Finding[],
  open: readonly GatePart[],
  isThin: boolean,
): Remedy[] => {
  const factor = Math.max(isThin ? thinFactor(byLog(gate)) : 1, ...open.map((part) => factorOf(evidence, part)))
  const against = gate.some(
    (part, at) => findings[at]?.result !== 'held' && gainOf(part.result).value < -toleratedOf(evidence, part),
  )
  const rows = factor < Infinity ? Math.min(rowsPlannedMax, Math.ceil(evidence.rows * (factor - 1))) : rowsPlannedMax
  const feedback = open.flatMap((part) => awaited(evidence, part))
  // Where the missing alone leave it open, more rows like these are no advice.
  if (feedback.length > 0 && rows >= rowsPlannedMax) return feedback
  return [
    { kind: 'rows', rows: Math.max(1, rows), days: daysFor(evidence, rows), leaning: against ? 'against' : 'for' },
    ...feedback,
  ]
}

/** What would make known the missing outcomes that keep an interval wide: time, as far as they are young, and more feedback. */
const awaited = (
  { feedback }: Evidence,
  { result: { metric, missing, missingUnder, doubt } }: GatePart,
): readonly Remedy[] => {
  if (missingUnder.candidate + missingUnder.production === 0 || doubt.low + doubt.high === 0) return []
  const { pending = 0, horizon = null } = metric === 'quality' ? (feedback ?? {}) : {}
  const wait: Remedy[] = pending > 0 && horizon ? [{ kind: 'wait', pending, horizon }] : []
  return pending < missing ? [...wait, { kind: 'feedback', metric, share: missingUnder.candidate }] : wait
}

/** How much worse a condition lets the candidate be. */
const toleratedOf = ({ margin }: Evidence, { role }: GatePart): number => (role === 'goal' ? 0 : margin)

/**
 * How many times the rows would settle one condition to the nearer side. What no rows tell (`doubt`) stays as wide as it
 * is; sampling error falls with the root of the rows, the bound on events never seen with the rows themselves.
 */
const factorOf = (evidence: Evidence, part: GatePart): number => {
  const { result } = part
  const { value, low, high } = gainOf(result)
  const isHigher = metrics[result.metric].better === 'higher'
  const [doubtBelow, doubtAbove] = isHigher
    ? [result.doubt.low, result.doubt.high]
    : [result.doubt.high, result.doubt.low]
  const limit = -toleratedOf(evidence, part)
  const rounding = roundingShare * Math.abs(result.production.value)
  const sides = [
    { distance: value - doubtBelow - limit, half: value - doubtBelow - low },
    { distance: limit - value - doubtAbove, half: high - value - doubtAbove },
  ]
  const factors = sides.map(({ distance, half }) => {
    if (!(distance > rounding)) return Infinity
    const isUnseen = result.unseenReach > 0 && half <= result.unseenReach * (1 + roundingShare)
    return isUnseen ? half / distance : ((half * powerFactor) / distance) ** 2
  })
  return Math.min(...factors)
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
      return [{ kind: refusal.example.rounded ? 'unrounded-propensities' : 'fix-propensities' }]
    case 'contract':
      return [{ kind: 'contract', remedy: refusal.finding.remedy }]
    case 'weight-audit':
      return [
        refusal.metric === null
          ? { kind: 'fix-propensities' }
          : { kind: 'feedback', metric: refusal.metric, share: null },
      ]
    case 'conversations':
      return [{ kind: 'first-turns' }]
    case 'answers':
      return refusal.reexecuted.problem ? [{ kind: 'ask-again', problem: refusal.reexecuted.problem }] : []
    case 'no-outcomes':
      return [{ kind: 'feedback', metric: refusal.metric, share: null }]
    case 'missing-outcomes':
      return [{ kind: 'feedback', metric: refusal.metric, share: refusal.share }]
    case 'unpredicted':
      return [{ kind: 'predict', metric: refusal.metric }]
    case 'zero-support':
      return [explore(evidence, refusal), reexecute(evidence)]
    case 'sample-size': {
      if (!(refusal.ess > 0) || evidence.diagnostics.unsupported.mass > unsupportedMassMax) return []
      const factor = thinFactor(byLog(gateOf(evidence)).filter(({ result }) => result.rows > 0))
      const rows = Math.min(rowsPlannedMax, Math.ceil(evidence.rows * (factor - 1)))
      return [{ kind: 'rows', rows, days: daysFor(evidence, rows), leaning: null }, reexecute(evidence)]
    }
    case 'disagreement':
      return [{ kind: 'check-outcomes', metric: refusal.metric }]
  }
}

/**
 * With probability p on the untried arms (exploration is spread over the eligible), E[w²] = E[w² where tried] + mass / p, and
 * ESS = rows · E[w]² / E[w²]. What the weights exceed 1 by has the mean (1 − p) · mass more and the mean square
 * (1 − p)² · mass / p. Both sizes must be reached, on the rows whose outcomes are known.
 */
const explore = (evidence: Evidence, { arms, mass }: Extract<Refusal, { kind: 'zero-support' }>): Remedy => {
  const { effective, change, rows: seen } = evidence.diagnostics
  const probability = Math.max(exploreFloorProposed, exploreRateProposed / evidence.eligibleMean)
  const squareOf = ({ mean, expected }: EffectiveSize) => (expected > 0 ? (seen * mean ** 2) / expected : 0)
  const forAll = essDecidesFrom * (squareOf(effective) + mass / probability)
  const changeMean = change.mean + mass * (1 - probability)
  const changeSquare = squareOf(change) + (mass * (1 - probability) ** 2) / probability
  const gate = gateOf(evidence)
  // Where nothing ever failed, it takes 3.69 / margin rows to say that no more than the margin will.
  const isEventless = gate.some(({ role, result }) => role === 'guardrail' && result.rows > 0 && result.sd === 0)
  const changeEss = Math.max(essDecidesFrom, isEventless ? unseenEvents / evidence.margin : 0)
  const forChange = (changeEss * changeSquare) / changeMean ** 2
  const known = Math.min(...gate.flatMap(({ result }) => (result.rows > 0 ? 1 - result.missingShare : [])))
  const rows = Math.min(rowsPlannedMax, Math.ceil(Math.max(forAll, forChange) / Math.min(1, known)))
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
 * what brings that down to the margin. Where they were asked, and told all but quality, it is a judge that is missing.
 */
const reexecute = ({ metrics: results, margin, churn, changedChoices, changedCostUsd }: Evidence): Remedy => {
  const quality = results.find(({ metric }) => metric === 'quality')
  if (quality && !isAsked(quality) && results.some(isAsked)) return { kind: 'judge' }
  const sd = quality?.sd || 0.5
  const calls = Math.min(
    changedChoices,
    Math.ceil(Math.max(essDecidesFrom, ((normalQuantile * sd * churn) / margin) ** 2)),
  )
  return { kind: 'reexecute', calls, usd: changedCostUsd === null ? null : calls * changedCostUsd }
}
