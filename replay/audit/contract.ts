// The logging contract as a table: what a record must hold, asked of one record at a time, and what is forbidden when it does
// not. Each line can be read by itself, and a new demand on records is a new line.
import type { DecisionRecord, Outcome } from '../../router/policy/record.ts'
import { missingAmountsMax } from '../judge/gate.ts'
import { impossibility } from '../redecide/survey.ts'
import { type AuditFinding, findingOf } from './finding.ts'

/** A record, with what several checks ask of it. */
type Case = {
  readonly record: DecisionRecord
  readonly outcome: Outcome | undefined
  /** Why its probabilities cannot be believed. */
  readonly problem: 'choice-only' | 'rounded' | 'impossible' | null
  /** How many models it could have gone to. */
  readonly open: number
}

type Check = Omit<AuditFinding, 'gravity' | 'count' | 'share'> & {
  readonly is: (the: Case) => boolean
  /** Which records it is about; all by default. */
  readonly among?: (the: Case) => boolean
  /** From which share on it forbids estimation; never by default. */
  readonly badFrom?: number
  readonly found: 'note' | 'warning'
}

const hasOutcome = ({ outcome }: Case): boolean => outcome !== undefined
const isAnswered = ({ outcome }: Case): boolean => outcome?.status === 'ok'
const scored: ReadonlySet<string | undefined> = new Set(['highest', 'lowest', 'softmax'])

const decisionChecks: readonly Check[] = [
  {
    kind: 'identity',
    is: ({ record }) => record.policy.hash === '' || record.engine === '',
    found: 'warning',
    what: "lack the policy's hash or the engine's version",
    forbids: 'proof of fidelity',
    remedy: 'Log policy.hash and engine with every decision; --trust-propensities goes on without proof.',
  },
  {
    kind: 'no-candidates',
    is: ({ record }) => record.candidates.length === 0,
    badFrom: 0,
    found: 'warning',
    what: 'do not say who was considered',
    forbids: 'every estimate',
    remedy: 'Log every candidate, the excluded ones too.',
  },
  {
    kind: 'no-features',
    is: ({ record }) => record.candidates.every(({ features }) => Object.keys(features).length === 0),
    among: ({ record }) => record.candidates.length > 0,
    found: 'warning',
    what: 'hold no features of their candidates',
    forbids: 'deciding again under a policy that reads any',
    remedy: 'Record what the router knew of each candidate at that moment.',
  },
  {
    kind: 'no-reason',
    is: ({ record }) => record.candidates.some(({ eligible, exclusion }) => eligible !== (exclusion === null)),
    found: 'warning',
    what: 'exclude a candidate without a reason, or give a reason and do not exclude',
    forbids: 'proof of fidelity, and explanations',
    remedy: 'Log the exclusion of every candidate that was not eligible.',
  },
  {
    kind: 'no-score',
    is: ({ record }) => record.candidates.some(({ eligible, score }) => eligible && score === null),
    among: ({ record }) => scored.has(record.reason) && !record.path.some((step) => step.startsWith('arm:')),
    found: 'warning',
    what: 'were decided by scores and do not hold them',
    forbids: 'proof of fidelity',
    remedy: 'Log the score of every eligible candidate, with all its digits.',
  },
  {
    kind: 'probability-of-choice-only',
    is: ({ problem }) => problem === 'choice-only',
    badFrom: 0,
    found: 'warning',
    what: 'hold the probability of the choice and of no other candidate',
    forbids: 'every estimate: nobody knows what else could have been chosen',
    remedy: 'Log the probability of every candidate; they sum to 1.',
  },
  {
    kind: 'probability-rounded',
    is: ({ problem }) => problem === 'rounded',
    badFrom: 0,
    found: 'warning',
    what: 'hold probabilities that rounding keeps from summing to 1',
    forbids: 'every estimate: weights divide by them',
    remedy: 'Log probabilities with all their digits.',
  },
  {
    kind: 'probability-impossible',
    is: ({ problem }) => problem === 'impossible',
    badFrom: 0,
    found: 'warning',
    what: 'hold probabilities that cannot be true of the choice',
    forbids: 'every estimate',
    remedy: 'Find out how the probability of the choice is computed and logged.',
  },
  {
    kind: 'certain',
    is: ({ record }) =>
      record.candidates.some(({ model, probability }) => model === record.chosen && probability === 1),
    among: ({ record, open }) => open > 1 && record.reason !== 'pinned',
    badFrom: 1,
    found: 'note',
    what: 'left nothing to chance though they had a choice',
    forbids: 'estimates of choices that were never tried',
    remedy: 'Explore: "explore: {rate: 0.02, floor: 0.005}" in the policy.',
  },
  {
    kind: 'choice-not-first',
    is: ({ record }) => record.plan[0] !== (record.chosen ?? undefined),
    among: ({ record }) => record.plan.length > 0,
    badFrom: 0,
    found: 'warning',
    what: 'say another model was chosen than the first of the plan',
    forbids: 'every estimate: a fallback is no choice',
    remedy: 'Log the first choice as chosen, and who answered as outcome.served.',
  },
  {
    kind: 'nothing-eligible',
    is: ({ record }) => record.chosen === null,
    found: 'note',
    what: 'could go to no model',
    forbids: '',
    remedy: 'See their exclusions: signalbox explain <id>.',
  },
  {
    kind: 'sampled',
    is: ({ record }) => record.keep_probability < 1,
    found: 'note',
    what: 'were kept by sampling, and stand for others by 1/keep_probability',
    forbids: '',
    remedy: 'Nothing, as long as keep_probability is the rate that sampled.',
  },
  {
    kind: 'no-session',
    is: ({ record }) => record.session === '',
    found: 'note',
    what: 'belong to no session',
    forbids: 'intervals that allow for conversations, where there are any',
    remedy: 'Send x-signalbox-session, or whatever names a conversation.',
  },
]

const outcomeChecks: readonly Check[] = [
  {
    kind: 'no-outcome',
    is: ({ outcome }) => outcome === undefined,
    badFrom: 1,
    found: 'warning',
    what: 'have no outcome',
    forbids: 'every estimate of what they led to',
    remedy: 'Join outcomes by decision id, failures too.',
  },
  {
    kind: 'no-cost',
    is: ({ outcome }) => outcome?.cost_usd === null,
    among: hasOutcome,
    badFrom: missingAmountsMax,
    found: 'warning',
    what: 'have an outcome of unknown cost',
    forbids: 'estimates of cost',
    remedy: 'Give the router the missing prices; log usage of every attempt.',
  },
  {
    kind: 'cost-estimated',
    is: ({ outcome }) => outcome?.cost_source !== 'measured',
    among: ({ outcome }) => outcome !== undefined && outcome.cost_usd !== null,
    found: 'note',
    what: 'have a cost that was not computed from measured usage',
    forbids: '',
    remedy: 'Ask providers for usage; the router does so for streams.',
  },
  {
    kind: 'tokens-unmeasured',
    is: ({ outcome }) => outcome?.tokens_source !== 'measured' || outcome.output_tokens === null,
    among: isAnswered,
    found: 'warning',
    what: 'have token counts that were not measured',
    forbids: 'what-if prices',
    remedy: "Take token counts from the provider's usage.",
  },
  {
    kind: 'no-latency',
    is: ({ outcome }) => outcome?.latency_ms === null,
    among: isAnswered,
    found: 'warning',
    what: 'have no latency',
    forbids: 'estimates of latency',
    remedy: 'Log outcome.latency_ms, from the request to the last byte.',
  },
  {
    kind: 'no-ttft',
    is: ({ outcome }) => outcome?.ttft_ms === null,
    among: ({ record, outcome }) => record.request.stream && outcome?.status === 'ok',
    found: 'note',
    what: 'were streamed and have no time to first token',
    forbids: 'estimates of the time to first token',
    remedy: 'Log outcome.ttft_ms.',
  },
  {
    kind: 'no-quality',
    is: ({ outcome }) => outcome?.quality === null,
    among: isAnswered,
    found: 'warning',
    what: 'have no feedback on quality, which may then be anything from 0 to 1',
    forbids: 'narrow estimates of quality',
    remedy: 'Send feedback: POST /v1/feedback {"decision_id", "score"}.',
  },
  {
    kind: 'cut-short',
    is: ({ outcome }) =>
      outcome?.status === 'client-abort' ||
      outcome?.status === 'upstream-cut' ||
      outcome?.stream_end === 'stalled' ||
      /time-?out/i.test(outcome?.error_type ?? ''),
    among: hasOutcome,
    found: 'note',
    what: 'ended before their time, so that latency and cost are lower bounds',
    forbids: '',
    remedy: 'Nothing: they are counted as failed or given up.',
  },
  {
    kind: 'fallback',
    is: ({ record, outcome }) => outcome !== undefined && outcome.served !== null && outcome.served !== record.chosen,
    among: hasOutcome,
    found: 'note',
    what: 'were answered by a fallback, and keep it apart from the choice',
    forbids: '',
    remedy: 'Nothing: this is as it should be.',
  },
]

const problemOf = (record: DecisionRecord): Case['problem'] => {
  const found = impossibility(record)
  if (!found) return null
  if (found.rounded) return 'rounded'
  const positive = record.candidates.filter(({ probability }) => probability > 0)
  const [only] = positive
  const isAlone = positive.length === 1 && only?.model === record.chosen && only.probability < 1
  return isAlone && record.candidates.length > 1 ? 'choice-only' : 'impossible'
}

const caseOf = (record: DecisionRecord): Case => ({
  record,
  outcome: record.outcome,
  problem: problemOf(record),
  open: record.candidates.reduce((sum, { eligible }) => sum + Number(eligible), 0),
})

/** Counts for every check, or those of some kinds, how many records it is about and of how many it is true. */
export const startContract = (kinds: readonly string[] | null = null) => {
  const checks = [...decisionChecks, ...outcomeChecks].filter(({ kind }) => kinds?.includes(kind) ?? true)
  const counts = checks.map(() => ({ count: 0, among: 0 }))
  return {
    add: (record: DecisionRecord): void => {
      const the = caseOf(record)
      for (const [at, { is, among }] of checks.entries()) {
        const tally = counts[at] as { count: number; among: number }
        if (among && !among(the)) continue
        tally.among++
        if (is(the)) tally.count++
      }
    },
    /** One answer for each check; null where nothing was found. */
    close: (): readonly (AuditFinding | null)[] =>
      checks.map(({ kind, what, forbids, remedy, badFrom = Infinity, found }, at) => {
        const { count, among } = counts[at] as { count: number; among: number }
        const gravity = count / among >= badFrom ? 'bad' : found
        return count === 0 ? null : findingOf(kind, gravity, [count, among], { what, forbids, remedy })
      }),
  }
}
