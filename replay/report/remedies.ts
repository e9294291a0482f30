// What would help, in words: the remedies that the judgement proposes as data, for the terminal, the page and the gate alike.
// They stand apart from words.ts because they say what to do, and not what was found.
import type { ReexecutedSummary } from '../estimate/reexecuted.ts'
import { essDecidesFrom } from '../judge/gate.ts'
import { type Remedy, rowsPlannedMax } from '../judge/remedy.ts'
import { armName, count, duration, percent, plain, short, span } from './words.ts'

const armsNamedMax = 4

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
    case 'judge':
      return 'The answers asked anew say nothing about quality: ask with --judge MODEL, into another --output.'
    case 'ask-again':
      return askAgainTexts[remedy.problem]
    case 'feedback':
      return feedbackText(remedy)
    case 'predict':
      return `Record the feature candidate.${remedy.metric} for every candidate, or keep the candidate to what production tries.`
    case 'wait':
      return waitText(remedy)
    case 'contract':
      return remedy.remedy
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

const minuteOf = (iso: string): string => `${iso.slice(0, 16).replace('T', ' ')} UTC`

const waitText = ({ pending, horizon }: Extract<Remedy, { kind: 'wait' }>): string =>
  `${count(pending)} decisions are younger than the ${span(horizon.withinMs)} in which feedback counts, and theirs could be anything: wait until the log has reached ${minuteOf(horizon.knownAt)}, when all will be known, or leave them out with --to ${horizon.settled}.`

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
