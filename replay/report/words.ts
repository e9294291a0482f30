// The one place where findings, refusals and remedies become words; the terminal and the HTML report both speak from here.
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
import { type Remedy, rowsPlannedMax } from '../judge/remedy.ts'
import { type Cause, type Difference, isDisproof, type Verification } from '../redecide/verify.ts'
import type { Replay } from '../run.ts'

const armsNamedMax = 4
const nameLengthMax = 60

/** 12,345 */
export const count = (value: number): string => Math.round(value).toLocaleString('en-US')
/** A share in percent, with the digits its size calls for. */
export const percent = (share: number): string => {
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

/** A duration in the unit a person would use. */
export const duration = (days: number): string => {
  const minutes = days * 24 * 60
  if (minutes < 1) return 'less than a minute'
  if (minutes < 120) return `${minutes.toFixed(0)} minutes`
  if (days < 2) return `${(days * 24).toFixed(0)} hours`
  return days < 10 ? `${days.toFixed(1)} days` : `${count(days)} days`
}

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
    return `only ${count(thin.ess)} effective rows speak for what it does differently, and a verdict needs ${essRefusedBelow}`
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

export const remedyText = (remedy: Remedy): string => {
  const time = (days: number | null) => (days === null ? '' : `, ${duration(days)} of traffic like this`)
  switch (remedy.kind) {
    case 'rows': {
      if (remedy.rows >= rowsPlannedMax)
        return 'No number of rows in sight would settle it: the estimates lie too close to the limit.'
      const settle = `About ${count(remedy.rows)} more rows${time(remedy.days)} with production exploring as it does`
      if (remedy.leaning === null) return `${settle} would bring the effective sample size to ${essDecidesFrom}.`
      return remedy.leaning === 'for'
        ? `${settle} would settle it with a chance of 80 %; the estimates lean towards the candidate.`
        : `${settle} would settle it with a chance of 80 %; the estimates lean against the candidate.`
    }
    case 'explore':
      return `Let production try ${remedy.arms.slice(0, armsNamedMax).map(armName).map(short).join(', ')}: with "explore: {rate: ${remedy.rate}, floor: ${remedy.floor}}" a verdict needs about ${count(remedy.rows)} rows${time(remedy.days)}.`
    case 'reexecute':
      return `Without that, it would take the answers of the candidate's own choices: ${count(remedy.calls)} changed requests asked anew${remedy.usd === null ? '' : `, about $${remedy.usd.toPrecision(2)}`}.`
    case 'answers':
      return `Ask about ${count(remedy.calls)} more of the changed requests anew${remedy.usd === null ? '' : `, about $${remedy.usd.toPrecision(2)}`}: signalbox replay reexec goes on where its --output stopped.`
    case 'ask-again':
      return askAgainTexts[remedy.problem]
    case 'feedback':
      return feedbackText(remedy)
    case 'predict':
      return `Record the feature candidate.${remedy.metric} for every candidate, or keep the candidate to what production tries.`
    case 'first-turns':
      return 'With --conversations first-turn only the opening request of each session counts, which is the same under any policy; --conversations keep counts all and marks them.'
    case 'supply-policies':
      return 'Give the logged policies with --logged-policy FILE, or replay from the ClickHouse that holds them.'
    case 'trust':
      return 'If you vouch for the logged probabilities, --trust-propensities goes on without proof, and the report will say so.'
    case 'same-engine':
      return 'Replay with the engine version that decided, or gather records under this one.'
    case 'fix-snapshot':
      return 'Find what the field depends on that the record does not hold: signalbox replay verify lists examples.'
    case 'fix-propensities':
      return 'More rows will not mend this: find out how the probability of the choice is computed and logged.'
    case 'unrounded-propensities':
      return 'The sums are off by as much as rounding makes them: let the logger write probabilities with all their digits.'
    case 'check-outcomes':
      return `More rows may not mend this: check that ${plain[remedy.metric]} is joined to the right decisions, and whether its meaning changed within the window.`
  }
}

const askAgainTexts: Readonly<Record<NonNullable<ReexecutedSummary['problem']>, string>> = {
  'other-candidate':
    "Ask this candidate's own choices, with signalbox replay reexec and this policy, into a file of their own.",
  'other-log': 'Replay the records that were asked: the same source and window as signalbox replay reexec had.',
  tenants: 'Ask again without --tenants-max, or replay traffic whose policy draws per tenant.',
}

const feedbackText = ({ metric, share }: Extract<Remedy, { kind: 'feedback' }>): string => {
  const send =
    metric === 'quality'
      ? 'feedback for the answers of every model: POST /v1/feedback {"decision_id", "score"}'
      : `${plain[metric]} for every model: it is null where a price or a measurement is missing`
  const verb = metric === 'quality' ? 'Send' : 'Log'
  if (share === null) return `${verb} ${send}.`
  const missing = `${plain[metric]} is missing for ${percent(share)} of what the candidate would serve`
  return `${missing.charAt(0).toUpperCase()}${missing.slice(1)}. ${verb} ${send}. If those are like the others, --missing-at-random says so, on your word.`
}
