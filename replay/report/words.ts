// The one place where findings and refusals become words; the terminal and the HTML report both speak from here.
import type { Estimate } from '../estimate/estimators.ts'
import type { MetricResult } from '../estimate/evaluate.ts'
import { type MetricName, metrics } from '../estimate/metrics.ts'
import type { ReexecutedSummary } from '../estimate/reexecuted.ts'
import {
  answersDecideFrom,
  disagreementSeMax,
  essDecidesFrom,
  essRefusedBelow,
  type Finding,
  missingAmountsMax,
  type Refusal,
  unsupportedMassMax,
} from '../judge/gate.ts'
import { type Cause, type Difference, isDisproof, type Verification } from '../redecide/verify.ts'
import type { Replay } from '../run.ts'

const armsNamedMax = 4
const nameLengthMax = 60
const dayMs = 86_400_000

/** 12,345 */
export const count = (value: number): string => Math.round(value).toLocaleString('en-US')
/** A share in percent, with the digits its size calls for; a dash where it is none. */
export const percent = (share: number): string => {
  if (!Number.isFinite(share)) return '—'
  const value = share * 100
  return `${value !== 0 && Math.abs(value) < 10 ? value.toFixed(1) : value.toFixed(0)} %`.replace('-', '−')
}
export const shortHash = (hash: string): string => (hash === '' ? 'no hash' : hash.replace('sha256:', '').slice(0, 8))
export const armName = (arm: string): string => (arm === '' ? '(no model)' : arm)
/** Other people's text, made fit to stand in a sentence: no control or direction marks, and of readable length. */
export const short = (name: string): string => {
  const clean = name.replace(/[\p{Cc}\p{Cf}]/gu, '�')
  return clean.length > nameLengthMax ? `${clean.slice(0, nameLengthMax - 1)}…` : clean
}
export const plain: Readonly<Record<MetricName, string>> = {
  cost_usd: 'cost',
  latency_ms: 'latency',
  ttft_ms: 'time to first token',
  slow: 'the share beyond the latency objective',
  quality: 'quality',
  failed: 'the share of failures',
  abandoned: 'the share given up by clients',
}

/** Rounded down, so that 100.000 means all. */
export const reproducedShare = ({ records, reproduced }: Verification): string =>
  (records > 0 ? Math.floor((reproduced / records) * 100_000) / 1000 : 0).toFixed(3)

/** How alike what came out was found to be. */
export const exactness = ({ how }: Verification): string => (how === 'sql' ? 'to 1e-12 by SQL' : 'to the bit')

/** A duration in the unit a person would use. */
export const duration = (days: number): string => {
  const minutes = days * 24 * 60
  if (minutes < 1) return 'less than a minute'
  if (minutes < 120) return `${minutes.toFixed(0)} minutes`
  if (days < 2) return `${(days * 24).toFixed(0)} hours`
  return days < 10 ? `${days.toFixed(1)} days` : `${count(days)} days`
}

/** The same from milliseconds, also where it is short. */
export const span = (ms: number): string =>
  ms < 60_000 ? `${ms < 1000 ? (ms / 1000).toPrecision(2) : Math.round(ms / 1000)} seconds` : duration(ms / dayMs)

export const intervalText = (metric: MetricName, { low, high }: Estimate): string =>
  `[${metrics[metric].say(low)}, ${metrics[metric].say(high)}]`

/** What stands behind a difference; empty for a score. */
export const units: Readonly<Record<MetricName, string>> = {
  cost_usd: ' $ per 1,000 requests',
  latency_ms: ' ms',
  ttft_ms: ' ms',
  slow: ' percentage points',
  quality: '',
  failed: ' percentage points',
  abandoned: ' percentage points',
}

export const signed = (metric: MetricName, value: number): string => {
  if (value === 0) return '0'
  const said = metrics[metric].say(value)
  return value > 0 && /[1-9]/.test(said) ? `+${said}` : said
}

/** The difference relative to production; empty where that says nothing. */
export const relative = (difference: number, production: number): string =>
  production > 0 && Number.isFinite(difference / production)
    ? `${difference > 0 ? '+' : ''}${percent(difference / production)}`
    : ''

/** How rows were grouped, when they were; goes behind their number. */
export const clusteringText = ({ clusters, clusterKeys, rows }: Replay): string =>
  clusters < rows
    ? ` in ${count(clusters)} groups that share a ${clusterKeys.join(', ').replace(/, (\w+)$/, ' or $1')}`
    : ''

/** Where no client ever gave up, there is no need to print it. */
export const isShown = ({ metric, logged }: MetricResult): boolean => metric !== 'abandoned' || logged.value > 0

const resultOf = (replay: Replay, metric: MetricName) => replay.metrics.find((result) => result.metric === metric)

/** The verdict and why, in one sentence. */
export const verdictSentence = (replay: Replay): string => {
  const { verdict, candidate } = replay
  const name = `'${short(candidate.name)}'`
  switch (verdict.kind) {
    case 'refused':
      return `No verdict on ${name}: the evidence may not be used, because ${refusalReason(verdict.refusals)}.`
    case 'promote':
      return `Promote ${name}: ${sentenceOf(replay, verdict.findings)}.`
    case 'reject': {
      const harm = verdict.findings.filter(({ result }) => result === 'harm')
      return `Reject ${name}: ${sentenceOf(replay, harm)}.`
    }
    case 'inconclusive':
      return `Undecided on ${name}: ${undecidedReason(replay)}.`
  }
}

/** Findings in one breath; what they are measured against is said once. */
const sentenceOf = (replay: Replay, findings: readonly Finding[]): string =>
  shownFindings(replay, findings)
    .map((finding, at) => shortFinding(replay, finding) + (at === 0 ? ' against production' : ''))
    .join(', ')

/** Findings without those that held on something that never happened. */
export const shownFindings = (replay: Replay, findings: readonly Finding[]): Finding[] =>
  findings.filter(({ metric, result }) => {
    const outcome = resultOf(replay, metric)
    return result !== 'held' || !outcome || isShown(outcome)
  })

const refusalReason = (refusals: readonly Refusal[]): string => {
  const [first, ...rest] = refusals
  if (!first) return 'of an unnamed reason'
  return refusalText(first) + (rest.length > 0 ? ` (and ${rest.length} more below)` : '')
}

const undecidedReason = (replay: Replay): string => {
  const { thin, unchanged, findings } = replay.verdict
  if (unchanged) return 'it decides every request as production did, with the same probabilities'
  if (thin?.of === 'all')
    return `the effective sample size is ${count(thin.ess)}, and a verdict needs ${essDecidesFrom}`
  if (thin?.of === 'answers')
    return `only ${count(thin.ess)} answers asked anew tell it, and a verdict needs ${answersDecideFrom}`
  if (thin?.of === 'change')
    return `only ${count(thin.ess)} effective rows speak for what it does differently, and a verdict needs ${essDecidesFrom}`
  return findings
    .filter(({ result }) => result === 'open')
    .map((finding) => shortFinding(replay, finding))
    .join(', ')
}

/** What the evidence shows about one condition of the gate, without figures of uncertainty. */
const shortFinding = (replay: Replay, { metric, role, result, tolerated }: Finding): string => {
  const outcome = resultOf(replay, metric)
  const change = outcome ? relative(outcome.difference.value, outcome.production.value).replace(/^[+−]/, '') : ''
  const margin = `its margin of ${metrics[metric].say(tolerated)}${units[metric].startsWith(' percentage') ? ' points' : ''}`
  const [better, worse] = metrics[metric].better === 'higher' ? ['rises', 'falls'] : ['falls', 'rises']
  switch (result) {
    case 'held':
      return role === 'goal' ? `${plain[metric]} ${better} by ${change}` : `${plain[metric]} stays within ${margin}`
    case 'harm':
      return role === 'goal' ? `${plain[metric]} ${worse} by ${change}` : `${plain[metric]} ${worse} beyond ${margin}`
    case 'open':
      return role === 'goal'
        ? `whether ${plain[metric]} ${better} is open`
        : `whether ${plain[metric]} stays within ${margin} is open`
  }
}

/** The same with its interval. */
export const findingText = (replay: Replay, finding: Finding): string => {
  const outcome = resultOf(replay, finding.metric)
  const interval = outcome
    ? ` (95 % interval ${intervalText(finding.metric, outcome.difference)}${units[finding.metric]})`
    : ''
  return shortFinding(replay, finding) + interval
}

const armList = (arms: readonly { readonly arm: string; readonly mass: number }[]): string => {
  const named = arms.slice(0, armsNamedMax).map(({ arm, mass }) => `${short(armName(arm))} ${percent(mass)}`)
  return named.join(', ') + (arms.length > armsNamedMax ? `, and ${arms.length - armsNamedMax} more` : '')
}

export const refusalText = (refusal: Refusal): string => {
  switch (refusal.kind) {
    case 'no-rows':
      return 'there is not one record to replay'
    case 'fidelity':
      return `${count(refusal.differing)} of ${count(refusal.records)} decisions do not come out as logged (${causeText(refusal.groups.find(({ cause }) => isDisproof(cause))?.cause)})`
    case 'unverifiable':
      return `${count(refusal.count)} of ${count(refusal.records)} decisions cannot be verified (${causeText(refusal.groups[0]?.cause)})`
    case 'impossible-probabilities':
      return `${count(refusal.count)} records carry probabilities that cannot be true (${refusal.example.id}: ${refusal.example.problem})`
    case 'conversations':
      return `${count(refusal.laterTurns)} rows are later turns of conversations, the candidate decides ${percent(refusal.share)} of the rows in sessions otherwise, and nobody knows what would have been asked next`
    case 'answers':
      return answersProblem(refusal.reexecuted, refusal.candidate)
    case 'no-outcomes':
      return `no record has an outcome for ${plain[refusal.metric]}`
    case 'missing-outcomes':
      return `${plain[refusal.metric]} is unknown for ${percent(refusal.share)} of the traffic and has no bounds; the limit is ${percent(missingAmountsMax)}`
    case 'unpredicted':
      return `the candidate sends ${percent(refusal.mass)} of the traffic where production never would, and ${plain[refusal.metric]} there is not even predicted`
    case 'zero-support':
      return `the candidate sends ${percent(refusal.mass)} of the traffic where production never would (${armList(refusal.arms)}), and the limit is ${percent(unsupportedMassMax)}`
    case 'weight-audit': {
      const off = `its mean weight is ${refusal.mean.toFixed(3)} ± ${refusal.se.toFixed(3)} and must be 1`
      if (refusal.metric !== null)
        return `${plain[refusal.metric]} is known for too uneven a part of the traffic (${refusal.arm === null ? 'candidate' : armName(refusal.arm)}: ${off})`
      return refusal.arm === null
        ? `the logged probabilities cannot be true for the candidate's choices: ${off}`
        : `the logged probabilities of '${short(armName(refusal.arm))}' cannot be true: ${off}`
    }
    case 'contract':
      return `${count(refusal.finding.count)} records (${percent(refusal.finding.share)}) ${refusal.finding.what}`
    case 'sample-size':
      return `the effective sample size for ${plain[refusal.metric]} is ${count(refusal.ess)}, and below ${essRefusedBelow} no interval can be believed`
    case 'disagreement':
      return `two estimators of ${plain[refusal.metric]} disagree by ${refusal.se.toFixed(1)} standard errors, more than ${disagreementSeMax} (DR ${metrics[refusal.metric].say(refusal.dr)}, SNIPS ${metrics[refusal.metric].say(refusal.snips)})`
  }
}

const answersProblem = (reexecuted: ReexecutedSummary, candidate: string): string => {
  const { problem, policy, strangers, asked, tenantShare, inclusion } = reexecuted
  if (problem === 'tenants')
    return `only ${percent(tenantShare)} of the tenants were asked anew, so tenants and not requests are the evidence, and this log is not grouped by them`
  if (problem === 'other-log')
    return `the answers asked anew are not a sample of this log's changed decisions: their mean inclusion weight is ${inclusion.mean.toFixed(3)} ± ${inclusion.se.toFixed(3)} and must be 1`
  return policy === candidate
    ? `the answers asked anew are the results of another candidate: on ${count(strangers)} of ${count(asked)} decisions this one chooses another model than was asked`
    : `the answers asked anew are the results of another candidate: they were made for policy ${shortHash(policy)}, and this is ${shortHash(candidate)}`
}

export const causeText = (cause: Cause | undefined): string => {
  if (!cause) return 'cause unknown'
  switch (cause.kind) {
    case 'no-identity':
      return `policy '${short(cause.policy)}' was logged without a hash or without an engine version, so there is nothing to decide again with`
    case 'policy-missing':
      return `the source of policy '${short(cause.policy)}' ${shortHash(cause.hash)} is not available`
    case 'policy-unreadable':
      return `the source of policy '${short(cause.policy)}' ${shortHash(cause.hash)} cannot be used: ${cause.problem}`
    case 'engine-version':
      return `decided by engine ${cause.logged}, and this is engine ${cause.running}`
    case 'missing-snapshot':
      return `the records do not hold what the policy reads: ${cause.features.map(short).join(', ')}`
    case 'price-table':
      return `scores differ by more than rounding, and the policy reads ${cause.features.join(', ')}: it may have decided by another price table than was recorded`
    case 'field':
      return `the first field that differs is ${cause.field}`
  }
}

export const differenceText = ({ id, path, logged, redecided }: Difference): string =>
  `${id}: ${path} was ${JSON.stringify(logged)}, comes out ${JSON.stringify(redecided)}`
