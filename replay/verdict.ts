// The rule that turns evidence into a verdict. First whether the evidence may be used at all, then whether it shows harm,
// then whether it shows what was hoped for; what is neither stays open. Every refusal, finding and remedy is data: the
// report's words are made in words.ts and nowhere else.
import type { Diagnostics } from './diagnostics.ts'
import { type MetricResult, roundingShare } from './evaluate.ts'
import {
  disagreementSeMax,
  type Evidence,
  essDecidesFrom,
  essRefusedBelow,
  type Finding,
  type GatePart,
  gainOf,
  gateOf,
  immaterialShare,
  type Refusal,
  unsupportedMassMax,
} from './gate.ts'
import type { MetricName } from './metrics.ts'
import { mend, type Remedy, settle } from './remedy.ts'

export type Verdict = {
  readonly kind: 'promote' | 'reject' | 'inconclusive' | 'refused'
  readonly exitCode: 0 | 1 | 2 | 3
  readonly refusals: readonly Refusal[]
  readonly findings: readonly Finding[]
  /** Why the evidence, though valid, is too thin to decide: the effective size of the whole, or of the change. */
  readonly thin: { readonly of: 'all' | 'change'; readonly ess: number } | null
  /** True when the candidate's probabilities are production's on every row. */
  readonly unchanged: boolean
  readonly remedies: readonly Remedy[]
}

export const judge = (evidence: Evidence): Verdict => {
  const gate = gateOf(evidence)
  const refusals = refusalsOf(evidence, gate)
  const unchanged = evidence.rows > 0 && evidence.diagnostics.changedRows === 0
  const findings = refusals.length > 0 ? [] : gate.map(({ role, result }) => find(evidence, role, result))
  const thin = thinness(evidence, gate)
  const base = { refusals, findings, thin, unchanged }
  if (refusals.length > 0)
    return { ...base, kind: 'refused', exitCode: 3, remedies: distinct(refusals.flatMap((r) => mend(evidence, r))) }
  if (!thin && findings.some(({ result }) => result === 'harm'))
    return { ...base, kind: 'reject', exitCode: 1, remedies: [] }
  if (!thin && findings.every(({ result }) => result === 'held'))
    return { ...base, kind: 'promote', exitCode: 0, remedies: [] }
  return {
    ...base,
    kind: 'inconclusive',
    exitCode: 2,
    remedies: unchanged ? [] : [settle(evidence, gate, findings, thin)],
  }
}

const essOf = (gate: readonly GatePart[]): number =>
  Math.min(...gate.map(({ result }) => result.diagnostics.effective.ess))

const refusalsOf = (evidence: Evidence, gate: readonly GatePart[]): Refusal[] => {
  const { verification, impossible, diagnostics, rows } = evidence
  const { differing, unverifiable, records, groups } = verification
  const refusals: Refusal[] = []
  if (differing > 0) refusals.push({ kind: 'fidelity', differing, records, groups })
  if (unverifiable > 0 && !evidence.trustPropensities)
    refusals.push({ kind: 'unverifiable', count: unverifiable, records, groups })
  if (impossible[0])
    refusals.push({ kind: 'impossible-probabilities', count: impossible.length, example: impossible[0] })
  if (rows === 0) return [...refusals, { kind: 'no-rows' }]
  if (diagnostics.unsupported.mass > unsupportedMassMax)
    refusals.push({ kind: 'zero-support', ...diagnostics.unsupported })
  const judged = gate.filter(({ result }) => result.rows > 0)
  for (const { result } of gate) if (result.rows === 0) refusals.push({ kind: 'no-outcomes', metric: result.metric })
  refusals.push(...auditRefusals(diagnostics, judged))
  const smallest = judged.toSorted((a, b) => essOf([a]) - essOf([b]))[0]
  if (smallest && essOf([smallest]) < essRefusedBelow)
    refusals.push({ kind: 'sample-size', metric: smallest.result.metric, ess: essOf([smallest]) })
  for (const { role, result } of judged) {
    const { dr, snips } = result.estimators
    const scale = role === 'guardrail' ? evidence.margin : Math.abs(result.production.value)
    const material = Math.abs(dr.value - snips.value) > immaterialShare * scale
    if (material && result.disagreementSe > disagreementSeMax)
      refusals.push({
        kind: 'disagreement',
        metric: result.metric,
        se: result.disagreementSe,
        dr: dr.value,
        snips: snips.value,
      })
  }
  return refusals
}

/** The audits of all rows, and of the rows of a metric where outcomes are missing: those show uneven feedback. */
const auditRefusals = (whole: Diagnostics, gate: readonly GatePart[]): Refusal[] => {
  const failed = (diagnostics: Diagnostics, metric: MetricName | null): Refusal[] =>
    diagnostics.audits.flatMap(({ ok, arm, mean, se }) => (ok ? [] : [{ kind: 'weight-audit', metric, arm, mean, se }]))
  const ofRows = failed(whole, null)
  if (ofRows.length > 0) return ofRows
  return gate.flatMap(({ result }) => (result.diagnostics === whole ? [] : failed(result.diagnostics, result.metric)))
}

/** Evidence that is valid but too thin to decide: below 250 in all, or below 100 for what the candidate does more often. */
const thinness = (evidence: Evidence, gate: readonly GatePart[]): Verdict['thin'] => {
  const all = essOf(gate)
  if (all < essDecidesFrom) return { of: 'all', ess: all }
  const { change, changedRows } = evidence.diagnostics
  return changedRows > 0 && change.ess < essRefusedBelow ? { of: 'change', ess: change.ess } : null
}

const toleratedOf = (evidence: Evidence, { role, result }: GatePart): number =>
  role === 'guardrail' ? evidence.margin : roundingShare * Math.abs(result.production.value)

const find = (evidence: Evidence, role: Finding['role'], result: MetricResult): Finding => {
  const { low, high } = gainOf(result)
  const bound = toleratedOf(evidence, { role, result })
  const held = role === 'goal' ? low > bound : low > -bound
  return {
    metric: result.metric,
    role,
    result: held ? 'held' : high < -bound ? 'harm' : 'open',
    tolerated: role === 'goal' ? 0 : bound,
  }
}

const distinct = (remedies: readonly Remedy[]): Remedy[] => [
  ...new Map(remedies.map((remedy) => [JSON.stringify(remedy), remedy])).values(),
]
