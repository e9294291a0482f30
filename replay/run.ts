// A replay from end to end, as pure functions: a log and a candidate policy in; verification, estimates, diagnostics and the
// verdict out, as data. The log is looked at twice — once to know what is in it, once to decide it again — and what is
// summed meanwhile is closed here. Reading, threads, printing and exit codes are elsewhere.
import type { Policy } from '../router/policy/policy.ts'
import { type Decision, type DecisionRecord, engineVersion } from '../router/policy/record.ts'
import { changedCost, type Move, movesOf, type Shares, sharesOf, type Window, windowOf } from './account.ts'
import type { AuditFinding } from './audit/finding.ts'
import { groundsOf, listeningTo } from './audit/grounds.ts'
import { poissonDraws } from './estimate/bootstrap.ts'
import type { Detail } from './estimate/detail.ts'
import { type Diagnostics, diagnose } from './estimate/diagnostics.ts'
import { evaluate, type MetricResult } from './estimate/evaluate.ts'
import { type Feedback, type Horizon, momentOf } from './estimate/feedback.ts'
import { lookAt } from './estimate/look.ts'
import { type MetricName, metricNames, type Objective } from './estimate/metrics.ts'
import type { OutcomeFit } from './estimate/outcome-model.ts'
import type { Judging } from './estimate/prediction-powered.ts'
import { type ReexecutedSummary, summaryOf } from './estimate/reexecuted.ts'
import { type ConversationMode, type Conversations, conversationsOf } from './judge/conversations.ts'
import type { Goal } from './judge/gate.ts'
import { judge, type Verdict } from './judge/verdict.ts'
import type { Source } from './read/source.ts'
import { firstTurnsIn, firstTurnsOf } from './read/turns.ts'
import type { ClusterKey } from './redecide/clusters.ts'
import { type EngineOptions, surveyLog } from './redecide/engine.ts'
import { type Gathered, startGathering } from './redecide/gather.ts'
import { featuresNeeded } from './redecide/needed.ts'
import { type Impossible, isToldRight, type Survey, startRetelling, startSurvey } from './redecide/survey.ts'
import { type CandidateTally, type LogTally, scalarAt } from './redecide/tallies.ts'
import { closeVerification, type LoggedPolicy, shelve, type Verification } from './redecide/verify.ts'
import type { Reexecuted } from './reexec/answers.ts'

export type ReplayOptions = {
  readonly goal: Goal
  /** How much worse a guardrail may get: quality in its own unit, failures as a share. */
  readonly margin: number
  readonly trustPropensities: boolean
  /** Takes requests without an outcome to be like those with one, instead of allowing for whatever they might have been. */
  readonly missingAtRandom: boolean
  /** Takes a judge model's word for quality where people scored too few answers to correct it. */
  readonly trustJudge: boolean
  /** Feedback that came later than this after its decision does not count; null for whenever it came. */
  readonly feedbackWithinMs: number | null
  /** What becomes of later turns of sessions. */
  readonly conversations: ConversationMode
  /** Requests that take longer are slow; null for no such objective. */
  readonly slowAboveMs: number | null
  /** How many bootstrap replicates stand beside the formulas; 0 for none. */
  readonly replicates: number
  readonly seed: number
  /** The largest importance weight that the logging design allows, stated beforehand; adds an empirical Bernstein interval. */
  readonly weightBound: number | null
}

export const replayDefaults: ReplayOptions = {
  goal: 'cost_usd',
  margin: 0.02,
  trustPropensities: false,
  missingAtRandom: false,
  trustJudge: false,
  feedbackWithinMs: null,
  conversations: 'keep',
  slowAboveMs: null,
  replicates: 1000,
  seed: 1,
  weightBound: null,
}

export type ChangedDecision = { readonly record: DecisionRecord; readonly decision: Decision }

export type Replay = {
  readonly v: 1
  readonly engine: string
  readonly candidate: { readonly name: string; readonly hash: string }
  /** The logged policies, most rows first. */
  readonly production: readonly { readonly name: string; readonly hash: string; readonly rows: number }[]
  readonly options: ReplayOptions
  readonly window: Window | null
  readonly rows: number
  readonly conversations: Conversations
  /** Groups of rows that one draw may have decided together, and by what they are told. */
  readonly clusters: number
  readonly clusterKeys: readonly ClusterKey[]
  readonly duplicates: number
  readonly verification: Verification
  readonly shares: Shares
  /** The answers asked anew that were given; null where none were. */
  readonly reexecuted: ReexecutedSummary | null
  readonly moves: readonly Move[]
  readonly diagnostics: Diagnostics
  readonly metrics: readonly MetricResult[]
  /** By metric: how its outcomes are modelled, and how well that predicts rows it was not fitted to; null where none are known. */
  readonly outcomeModels: Readonly<Record<MetricName, Pick<OutcomeFit, 'kind' | 'r2'> | null>>
  /** How quality was told from what people and a judge model say; null where no judge was asked. */
  readonly judging: Judging | null
  /** How people's feedback came; null where nothing tells when. */
  readonly feedback: Feedback | null
  readonly verdict: Verdict
  /** A few decisions that change, drawn by a hash of their ids. */
  readonly sample: readonly ChangedDecision[]
  readonly detail: Detail
}

/** Replays the records under `candidate`. `policies` are the logged policies' sources, for verification. */
export const replay = (
  all: readonly DecisionRecord[],
  policies: Iterable<LoggedPolicy>,
  candidate: Policy,
  options: ReplayOptions,
  reexecuted: Reexecuted | null = null,
): Replay => {
  const logged = [...policies]
  const records = options.conversations === 'first-turn' ? firstTurnsOf(all) : all
  const survey = surveyOf(records, logged, options)
  const gathering = startGathering(survey, shelve(logged, survey.features), [candidate], reexecuted)
  for (const record of records) gathering.add(record)
  const grounds = groundsOf(records)({ ...options, source: candidate.source })
  return appraise(survey, gathering.close(), 0, candidate, options, reexecuted, grounds)
}

/** Replays a source of any size under several candidates, whose texts are read once the log's features are known. */
export const replaySource = async (
  source: Source,
  policies: readonly LoggedPolicy[],
  candidatesOf: (survey: Survey) => readonly Policy[] | Promise<readonly Policy[]>,
  options: ReplayOptions,
  engine: Omit<EngineOptions, 'objective'> = {},
): Promise<Replay[]> => {
  const read = listeningTo(options.conversations === 'first-turn' ? firstTurnsIn(source) : source)
  const objective = objectiveOf(options, await horizonIn(source, options))
  const log = await surveyLog(read.source, policies, { ...engine, objective })
  const candidates = await candidatesOf(log.survey)
  const [gathered, grounds] = await Promise.all([
    log.gather(candidates),
    read.grounds(log.survey, featuresNeeded(candidates)),
  ])
  return candidates.map((candidate, at) => {
    const found = grounds({ ...options, source: candidate.source })
    return appraise(log.survey, gathered, at, candidate, options, engine.reexecuted, found)
  })
}

type ObjectiveOptions = Pick<ReplayOptions, 'slowAboveMs' | 'trustJudge' | 'feedbackWithinMs'>

const objectiveOf = ({ slowAboveMs, trustJudge }: ObjectiveOptions, horizon: Horizon | null): Objective => ({
  slowAboveMs,
  trustJudge,
  ...(horizon === null ? {} : { horizon }),
})

/** The horizon of feedback that options ask for, up to the last moment that the source knows of; null where they ask for none. */
export const horizonIn = async (
  source: Pick<Source, 'lastMomentMs'>,
  { feedbackWithinMs: withinMs }: Pick<ReplayOptions, 'feedbackWithinMs'>,
): Promise<Horizon | null> => (withinMs === null ? null : { withinMs, untilMs: await source.lastMomentMs() })

/** The survey of records in memory. */
export const surveyOf = (
  records: readonly DecisionRecord[],
  policies: Iterable<LoggedPolicy>,
  options: ObjectiveOptions,
): Survey => {
  const { feedbackWithinMs: withinMs } = options
  const untilMs = records.reduce((lastMs, record) => Math.max(lastMs, momentOf(record)), -Infinity)
  const first = startSurvey(policies, objectiveOf(options, withinMs === null ? null : { withinMs, untilMs }))
  for (const record of records) first.add(record)
  const survey = first.close()
  if (isToldRight(survey)) return survey
  const again = startRetelling(survey)
  for (const record of records) again.add(record)
  return again.close()
}

/** Closes the sums of the candidate at this place: figures, doubts, verdict. */
export const appraise = (
  survey: Survey,
  { log, tallies, verification: fold }: Gathered,
  place: number,
  candidate: Policy,
  options: ReplayOptions,
  answers: Reexecuted | null = null,
  grounds: readonly AuditFinding[] = [],
): Replay => {
  const tally = tallies[place] as CandidateTally
  const verification = closeVerification(fold)
  const changedChoices = tally.scalars[scalarAt.changedChoices] ?? 0
  const reexecuted = answers && summaryOf(survey, tally, answers, changedChoices, candidate.hash)
  const hasAnswers = reexecuted !== null && reexecuted.problem === null
  const { diagnostics, metrics } = measure(survey, log, tally, options, hasAnswers, reexecuted?.judge?.sd ?? 0)
  const shares = sharesOf(tally, hasAnswers)
  const window = windowOf(survey)
  const conversations = conversationsOf(survey, tally, options.conversations)
  const verdict = judge({
    candidate: candidate.hash,
    goal: options.goal,
    margin: options.margin,
    trustPropensities: options.trustPropensities,
    missingAtRandom: options.missingAtRandom,
    rows: survey.rows,
    conversations,
    rowsPerDay: window?.rowsPerDay ?? null,
    verification,
    impossible: impossibleOf(survey),
    grounds,
    feedback: survey.feedback,
    diagnostics,
    metrics,
    churn: 1 - shares.observed,
    reexecuted,
    changedChoices,
    changedCostUsd: changedCost(tally),
    eligibleMean: Math.max(1, survey.eligible / Math.max(1, survey.rows)),
  })
  return {
    v: 1,
    engine: engineVersion,
    candidate: { name: candidate.name, hash: candidate.hash },
    options,
    ...descriptionOf(survey),
    window,
    conversations,
    verification,
    shares,
    reexecuted,
    moves: movesOf(survey, tally),
    diagnostics,
    metrics,
    verdict,
    sample: tally.sample.map(({ record, decision }) => ({ record, decision })),
    detail: lookAt(survey, log, tally, metrics, options.goal),
  }
}

const measure = (
  survey: Survey,
  log: LogTally,
  tally: CandidateTally,
  { replicates, seed, missingAtRandom, weightBound }: ReplayOptions,
  hasAnswers: boolean,
  judgeSd: number,
): Pick<Replay, 'diagnostics' | 'metrics'> => {
  const diagnostics = diagnose(survey, log, tally)
  const groups = survey.clusters.groupCount
  const draws = replicates > 0 && groups > 0 ? poissonDraws(groups, replicates, seed) : null
  const means = { survey, log, tally, missingAtRandom, draws, weightBound, hasAnswers, judgeSd }
  return { diagnostics, metrics: metricNames.map((metric) => evaluate(means, metric, diagnostics)) }
}

/** What of a replay is the log's, whoever the candidate is. */
const descriptionOf = (survey: Survey) => ({
  production: survey.policies,
  rows: survey.rows,
  clusters: survey.clusters.count,
  clusterKeys: survey.clusters.keys,
  duplicates: survey.duplicates,
  outcomeModels: outcomeModelsOf(survey),
  judging: survey.judging,
  feedback: survey.feedback,
})

const outcomeModelsOf = ({ outcomeFits }: Survey): Replay['outcomeModels'] =>
  Object.fromEntries(
    metricNames.map((name, metric) => {
      const fit = outcomeFits[metric]
      return [name, fit ? { kind: fit.kind, r2: fit.r2 } : null]
    }),
  ) as Replay['outcomeModels']

const impossibleOf = ({ impossible, impossibleCount }: Survey): { count: number; examples: readonly Impossible[] } => ({
  count: impossibleCount,
  examples: impossible,
})
