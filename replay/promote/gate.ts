// The gate's judgement: a pure function of a replay and a gate file. Whether the evidence may be used at all is the replay's
// own finding and stands; here every metric has its own margin, and a team may ask for more evidence than a replay must have.
import { roundingShare } from '../estimate/evaluate.ts'
import { type MetricName, metrics } from '../estimate/metrics.ts'
import {
  answersDecideFrom,
  byAnswers,
  byLog,
  changeEssOf,
  essDecidesFrom,
  essOf,
  type GatePart,
  gainOf,
  isBeyondAnswers,
  missingAmountsMax,
} from '../judge/gate.ts'
import type { Replay } from '../run.ts'
import { type Gate, judgedMetrics, toleratedBy } from './gate-file.ts'

const hourMs = 3_600_000

/** What is asked of the evidence itself; where it is not met, the gate stays open. */
export type RequirementName =
  | 'effective_rows'
  | 'changed_effective_rows'
  | 'answers'
  | 'window_hours'
  | 'changed_share_max'

/** Those without which not even harm is shown. */
const evidenceNames: ReadonlySet<RequirementName> = new Set(['effective_rows', 'changed_effective_rows', 'answers'])

export type Condition =
  | {
      readonly kind: 'metric'
      readonly metric: MetricName
      readonly role: 'goal' | 'guardrail'
      readonly result: 'held' | 'harm' | 'open'
      /** How much worse would still do, in the metric's unit. */
      readonly tolerated: number
    }
  | {
      readonly kind: 'requirement'
      readonly name: RequirementName
      readonly result: 'held' | 'open'
      readonly found: number
      readonly wanted: number
    }

export type GateResult = {
  readonly kind: 'promote' | 'reject' | 'inconclusive' | 'refused'
  readonly exitCode: 0 | 1 | 2 | 3
  /** Empty when the evidence is refused. */
  readonly conditions: readonly Condition[]
  readonly gate: Gate
  readonly replay: Replay
}

/**
 * Judges a replay by a gate. Every condition is tested on its own 95 % interval and all must hold, so no correction is due
 * (intersection-union test, Berger 1982): the chance to pass a candidate that fails one of them is at most that of the one.
 */
export const judgeGate = (replay: Replay, gate: Gate): GateResult => {
  const base = { gate, replay }
  if (replay.verdict.kind === 'refused') return { ...base, kind: 'refused', exitCode: 3, conditions: [] }
  const parts = judgedMetrics(gate).flatMap((metric): GatePart[] => {
    const result = replay.metrics.find((of) => of.metric === metric)
    return result && !isBeyondAnswers(result, replay.metrics)
      ? [{ role: metric === gate.goal ? 'goal' : 'guardrail', result }]
      : []
  })
  const requirements = requirementsOf(replay, gate, parts)
  const conditions = [...parts.map((part) => judgePart(gate, part)), ...requirements]
  const isThin = requirements.some(({ name, result }) => evidenceNames.has(name) && result === 'open')
  if (!isThin && conditions.some(({ result }) => result === 'harm'))
    return { ...base, kind: 'reject', exitCode: 1, conditions }
  if (conditions.every(({ result }) => result === 'held')) return { ...base, kind: 'promote', exitCode: 0, conditions }
  return { ...base, kind: 'inconclusive', exitCode: 2, conditions }
}

const judgePart = (gate: Gate, { role, result: found }: GatePart): Condition => {
  const { metric, production } = found
  const tolerated = toleratedBy(gate, metric, production.value)
  const { low, high } = gainOf(found)
  const rounding = roundingShare * Math.abs(production.value)
  const bound = role === 'goal' ? rounding : tolerated
  const held = role === 'goal' ? low > bound : low > -bound
  const base = { kind: 'metric', metric, role, tolerated } as const
  if (!isKnown(gate, { role, result: found })) return { ...base, result: 'open' }
  return { ...base, result: held ? 'held' : high < -bound ? 'harm' : 'open' }
}

/** Amounts have no bounds: where too many are unknown, or never even predicted, their interval says nothing. */
const isKnown = (gate: Gate, { result }: GatePart): boolean => {
  const missing = Math.max(result.missingUnder.candidate, result.missingUnder.production)
  const isBounded = metrics[result.metric].range !== null || gate.missing_at_random
  return result.rows > 0 && !result.unpredicted && (isBounded || missing <= missingAmountsMax)
}

type Requirement = Extract<Condition, { kind: 'requirement' }>

const requirementsOf = ({ window, shares }: Replay, { require }: Gate, parts: readonly GatePart[]): Requirement[] => {
  const hours = window ? (Date.parse(window.to) - Date.parse(window.from)) / hourMs : 0
  const atLeast = (name: RequirementName, found: number, wanted: number): Requirement => ({
    kind: 'requirement',
    name,
    result: found >= wanted ? 'held' : 'open',
    found,
    wanted,
  })
  const asked = byAnswers(parts)
  const changed = 1 - shares.observed
  const isWithin = changed <= require.changed_share_max
  return [
    atLeast('effective_rows', essOf(parts), require.effective_rows),
    atLeast('changed_effective_rows', changeEssOf(byLog(parts)), essDecidesFrom),
    ...(asked.length > 0 ? [atLeast('answers', changeEssOf(asked), answersDecideFrom)] : []),
    ...(require.window_hours > 0 ? [atLeast('window_hours', hours, require.window_hours)] : []),
    ...(require.changed_share_max < 1
      ? [
          {
            ...atLeast('changed_share_max', changed, require.changed_share_max),
            result: isWithin ? ('held' as const) : ('open' as const),
          },
        ]
      : []),
  ]
}
