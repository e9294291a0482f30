// The one place that turns a decision into words: who asked, who was considered, why each was excluded or what it
// scored, what was tried, and why the winner won. Pure, and exhaustive over every reason, exclusion and outcome: a new
// kind without a sentence does not compile.
import type { Candidate, DecisionRecord, Exclusion, FeatureValue, Outcome, OutcomeStatus, Reason } from './record.ts'
import { propensityOf } from './record.ts'

/** One attempt, as an Attempt and as a stored row can both give it. */
export type AttemptLine = {
  readonly number: number
  /** `choice`, or what the attempt before it ended in. */
  readonly cause: string
  readonly model: string
  readonly provider: string
  /** Null when there was no response. */
  readonly status: number | null
  /** Empty when it went well. */
  readonly errorType: string
  readonly durationMs: number
  readonly ttftMs: number | null
  readonly costUsd: number | null
}

/** The features worth a column, where any candidate has them. */
const featuresShown = ['cost_usd', 'quality', 'ttft_ms', 'latency_ms', 'error_rate', 'in_flight', 'breaker'] as const

/** Why the first choice was made, as the end of "… because". */
export const reasonWords = (reason: Reason): string => {
  switch (reason) {
    case 'pinned':
      return 'the client asked for it by name'
    case 'only-candidate':
      return 'it was the only eligible candidate'
    case 'highest':
      return 'it had the highest score'
    case 'lowest':
      return 'it had the lowest score'
    case 'weighted':
      return 'the draw fell on it, by the weights of the policy'
    case 'softmax':
      return 'the draw fell on it, a better score being more likely'
    case 'explore':
      return 'exploration drew it: the policy leaves part of its traffic to chance, so that other choices can be judged'
    case 'none-eligible':
      return 'no candidate was eligible'
  }
}

/** Why a candidate could not be chosen, as the end of "excluded: …". */
export const exclusionWords = (exclusion: Exclusion): string => {
  switch (exclusion.kind) {
    case 'not-requested':
      return 'the client asked for another model by name'
    case 'not-in-policy':
      return 'the policy does not list it for this request'
    case 'context-window':
      return `the request needs ${exclusion.needed_tokens} tokens and it takes ${exclusion.tokens_max}`
    case 'breaker-open':
      return 'its breaker was open after failed calls'
    case 'rule':
      return `the filter '${exclusion.name}' did not hold`
    case 'feature-unknown':
      return `its '${exclusion.feature}' was not known`
    case 'score-not-finite':
      return 'its score was not a finite number'
  }
}

const outcomeWords = (status: OutcomeStatus): string => {
  switch (status) {
    case 'ok':
      return 'The client got a whole answer'
    case 'error':
      return 'The client got an error'
    case 'rejected':
      return 'The provider rejected the request, which no other target could mend'
    case 'no-candidate':
      return 'The client was told that no model could take the request'
    case 'client-abort':
      return 'The client went away before the answer ended'
    case 'upstream-cut':
      return 'The answer broke off after it had begun, too late for a fallback'
  }
}

const number = (value: number): string => String(Number(value.toPrecision(4)))
const usd = (value: number | null): string => (value === null ? 'unknown cost' : `$${value.toFixed(6)}`)
const ms = (value: number): string => `${Math.round(value)} ms`
const cell = (value: FeatureValue | undefined): string =>
  value === null || value === undefined ? '–' : typeof value === 'number' ? number(value) : String(value)

const requestLine = ({ request, session }: DecisionRecord): string =>
  [
    `Asked for '${request.model}'`,
    `${request.input_tokens} input tokens`,
    request.stream ? 'streamed' : 'not streamed',
    ...(request.tier ? [`tier ${request.tier}`] : []),
    ...(request.tenant ? [`tenant ${request.tenant}`] : []),
    ...Object.entries(request.tags).map(([tag, value]) => `${tag}=${value}`),
    ...(session ? [`session ${session}`] : []),
  ].join(', ')

const candidateTable = ({ candidates, chosen }: DecisionRecord): string[] => {
  const shown = featuresShown.filter((name) => candidates.some(({ features }) => (features[name] ?? null) !== null))
  const head = ['', 'model', 'score', 'probability', ...shown, '']
  const rows = candidates.map(({ model, score, probability, features, exclusion }) => [
    model === chosen ? '▶' : '',
    model,
    cell(score),
    number(probability),
    ...shown.map((name) => cell(features[name])),
    exclusion ? `excluded: ${exclusionWords(exclusion)}` : '',
  ])
  const widths = head.map((_, column) => Math.max(...[head, ...rows].map((row) => row[column]?.length ?? 0)))
  return [head, ...rows].map((row) =>
    `  ${row.map((text, column) => text.padEnd(widths[column] ?? 0)).join('  ')}`.trimEnd(),
  )
}

const attemptLine = (attempt: AttemptLine): string => {
  const { cause, model, provider, status, errorType, durationMs, ttftMs, costUsd } = attempt
  const why = cause === 'choice' ? 'the choice' : `after the attempt before it ended in '${cause}'`
  const ended = errorType
    ? `failed with '${errorType}' after ${ms(durationMs)}`
    : `answered ${status ?? ''} in ${ms(durationMs)}${ttftMs === null ? '' : `, first content after ${ms(ttftMs)}`}`
  return `  ${attempt.number}. ${model} at ${provider} (${why}): ${ended}, ${usd(costUsd)}`
}

const outcomeLine = ({ chosen }: DecisionRecord, outcome: Outcome): string => {
  const { status, served, cost_usd, latency_ms, quality } = outcome
  const by = served === null ? '' : served === chosen ? ` from ${served}` : ` from ${served}, a fallback`
  const took = latency_ms === null ? '' : ` after ${ms(latency_ms)}`
  const judged = quality === null ? '' : ` Feedback on its quality: ${number(quality)}.`
  return `${outcomeWords(status)}${by}${took}, for ${usd(cost_usd)}.${judged}`
}

/** The runner-up and its distance: by score where the score decided, by probability where a draw did. */
const marginWords = ({ candidates, chosen, reason }: DecisionRecord): string => {
  const winner = candidates.find(({ model }) => model === chosen)
  const rivals = candidates.filter(({ model, eligible }) => eligible && model !== chosen)
  const best = (value: (candidate: Candidate) => number): Candidate | undefined =>
    rivals.toSorted((a, b) => value(b) - value(a))[0]
  if (!winner || rivals.length === 0) return ''
  if (reason === 'highest' || reason === 'lowest') {
    const sign = reason === 'highest' ? 1 : -1
    const next = best(({ score }) => sign * (score ?? 0))
    const margin = Math.abs((winner.score ?? 0) - (next?.score ?? 0))
    return `; next was ${next?.model} by a margin of ${number(margin)}`
  }
  const next = best(({ probability }) => probability)
  if (!next || next.probability === 0) return ''
  const margin = winner.probability - next.probability
  return margin >= 0
    ? `; next was ${next.model}, less likely by a margin of ${number(margin)}`
    : `; ${next.model} was more likely by a margin of ${number(-margin)}`
}

/** A decision and what came of it, in words for a person: several lines, no colours, no line break at the end. */
export const explainDecision = (record: DecisionRecord, attempts: readonly AttemptLine[]): string => {
  const { policy, path, chosen, reason, outcome } = record
  const by = path.length > 0 ? ` (${path.join(', ')})` : ''
  const because = reason ? ` because ${reasonWords(reason)}` : ''
  return [
    `Decision ${record.id} at ${record.time}`,
    `${requestLine(record)}.`,
    `Policy ${policy.name}${by} considered ${record.candidates.length}:`,
    ...candidateTable(record),
    ...(attempts.length > 0 ? ['Attempts:', ...attempts.map(attemptLine)] : []),
    ...(outcome ? [outcomeLine(record, outcome)] : []),
    chosen === null
      ? `Nothing was chosen${because}.`
      : `${chosen} won, with probability ${number(propensityOf(record))},${because}${marginWords(record)}.`,
  ].join('\n')
}
