// The rule that turns evidence into a verdict. First whether the evidence may be used at all, then whether it shows harm,
// then whether it shows what was hoped for; what is neither stays open. Every refusal, finding and remedy is data: the
// report's words are made in words.ts and nowhere else.
import type { Diagnostics } from '../estimate/diagnostics.ts'
import { type MetricResult, roundingShare } from '../estimate/evaluate.ts'
import type { MetricName } from '../estimate/metrics.ts'
import {
  answersDecideFrom,
  byAnswers,
  byLog,
  changeEssOf,
  disagrees,
  type Evidence,
  essDecidesFrom,
  essOf,
  essRefusedBelow,
  type Finding,
  type GatePart,
  gainOf,
  gateOf,
  isAsked,
  missingAmountsMax,
  type Refusal,
  unsupportedMassMax,
} from './gate.ts'
import { mend, type Remedy, settle } from './remedy.ts'

export type Verdict = {
  readonly kind: 'promote' | 'reject' | 'inconclusive' | 'refused'
  readonly exitCode: 0 | 1 | 2 | 3
  readonly refusals: readonly Refusal[]
  readonly findings: readonly Finding[]
  /** Why the evidence, though valid, is too thin to decide: the effective size of the whole, of the change, or too few answers. */
  readonly thin: { readonly of: 'all' | 'change' | 'answers'; readonly ess: number } | null
  /** True when the candidate's probabilities are production's on every row. */
  readonly unchanged: boolean
  readonly remedies: readonly Remedy[]
}

export const judge = (evidence: Evidence): Verdict => {
  const gate = gateOf(evidence)
  const refusals = refusalsOf(evidence, gate)
  const unchanged = evidence.rows > 0 && evidence.diagnostics.changedRows === 0
  const findings = refusals.length > 0 ? [] : gate.map(({ role, result }) => find(evidence, role, result))
  const thin = thinness(gate)
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
    remedies: unchanged ? [] : settle(evidence, gate, findings, thin),
  }
}

const refusalsOf = (evidence: Evidence, gate: readonly GatePart[]): Refusal[] => {
  const { verification, impossible, diagnostics, rows, conversations, reexecuted } = evidence
  const { differing, unverifiable, records, groups } = verification
  const refusals: Refusal[] = []
  if (differing > 0) refusals.push({ kind: 'fidelity', differing, records, groups })
  if (unverifiable > 0 && !evidence.trustPropensities)
    refusals.push({ kind: 'unverifiable', count: unverifiable, records, groups })
  const [example] = impossible.examples
  if (example) refusals.push({ kind: 'impossible-probabilities', count: impossible.count, example })
  if (rows === 0) return [...refusals, { kind: 'no-rows' }]
  for (const finding of evidence.grounds) refusals.push({ kind: 'contract', finding })
  const { laterTurns, share, declined } = conversations
  if (declined) refusals.push({ kind: 'conversations', laterTurns, share })
  if (reexecuted?.problem) refusals.push({ kind: 'answers', reexecuted, candidate: evidence.candidate })
  // Where all is judged by answers asked anew, no logged probability is used, and none need be doubted.
  const logged = byLog(gate)
  const hasSupport = diagnostics.unsupported.mass <= unsupportedMassMax
  if (!hasSupport && logged.length > 0) refusals.push({ kind: 'zero-support', ...diagnostics.unsupported })
  const judged = logged.filter(({ result }) => result.rows > 0)
  for (const { result } of gate) if (result.rows === 0) refusals.push({ kind: 'no-outcomes', metric: result.metric })
  if (logged.length > 0) refusals.push(...auditRefusals(diagnostics, judged))
  const smallest = judged.toSorted((a, b) => essOf([a]) - essOf([b]))[0]
  if (smallest && !(essOf([smallest]) >= essRefusedBelow))
    refusals.push({ kind: 'sample-size', metric: smallest.result.metric, ess: essOf([smallest]) })
  // Where much was never tried, DR and SNIPS speak of different things, and their distance says nothing.
  if (hasSupport) for (const part of judged) refusals.push(...doubtsOf(evidence, part))
  for (const { result } of byAnswers(gate)) refusals.push(...missingAmounts(evidence, result))
  return refusals
}

/** An amount that is not known for too many rows under either policy; nobody can vouch for what could not be asked anew. */
const missingAmounts = ({ missingAtRandom }: Evidence, result: MetricResult): Refusal[] => {
  const { metric, bounds, missingUnder } = result
  const share = Math.max(missingUnder.candidate, missingUnder.production)
  const isVouched = missingAtRandom && !(isAsked(result) && missingUnder.candidate > missingAmountsMax)
  if (bounds !== null || share <= missingAmountsMax || isVouched) return []
  return [{ kind: 'missing-outcomes', metric, share }]
}

/** What speaks against the figures of one metric, given that the probabilities are sound. */
const doubtsOf = (evidence: Evidence, part: GatePart): Refusal[] => {
  const { metric, unpredicted, estimators, drSupported, disagreementSe } = part.result
  const refusals = missingAmounts(evidence, part.result)
  if (unpredicted) refusals.push({ kind: 'unpredicted', metric, mass: evidence.diagnostics.unsupported.mass })
  const [dr, snips] = [drSupported, estimators.snips.value]
  if (disagrees(part, evidence.margin)) refusals.push({ kind: 'disagreement', metric, se: disagreementSe, dr, snips })
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

/** Evidence that is valid but too thin to decide: below 250 in all, or for what the candidate does more often; below 100 answers. */
const thinness = (gate: readonly GatePart[]): Verdict['thin'] => {
  const answers = changeEssOf(byAnswers(gate))
  if (answers < answersDecideFrom) return { of: 'answers', ess: answers }
  const [all, change] = [essOf(byLog(gate)), changeEssOf(byLog(gate))]
  if (!(all >= essDecidesFrom)) return { of: 'all', ess: all }
  return change >= essDecidesFrom ? null : { of: 'change', ess: change }
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
