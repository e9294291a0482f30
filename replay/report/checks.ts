// The diagnostics as a list of checks: each a name, what was found, what was wanted, and whether it holds. The terminal
// shows them as ✓ and ✗, the HTML report as lights.

import { missingShareMax } from '../estimate/evaluate.ts'
import { metrics } from '../estimate/metrics.ts'
import {
  answersDecideFrom,
  byAnswers,
  byLog,
  changeEssOf,
  disagreementSeMax,
  disagrees,
  essDecidesFrom,
  essOf,
  essRefusedBelow,
  gateOf,
  isAsked,
  isBeyondAnswers,
  unsupportedMassMax,
} from '../judge/gate.ts'
import type { JudgeError } from '../reexec/effect.ts'
import type { Replay } from '../run.ts'
import { armName, clusteringText, count, exactness, percent, plain, reproducedShare, span } from './words.ts'

export type Check = { readonly name: string; readonly found: string; readonly state: 'good' | 'warning' | 'bad' }

export const checksOf = (replay: Replay): Check[] => [
  fidelity(replay),
  ...(replay.rows > 0 && judgesByLog(replay) ? ofWeights(replay) : []),
  ...answers(replay),
  ...missing(replay),
  ...feedback(replay),
  ...judges(replay),
  ...conversations(replay),
  ...duplicates(replay),
  ...mixture(replay),
]

/** Whether any condition rests on logged probabilities; answers asked anew need none. */
const judgesByLog = ({ metrics: results, options: { goal } }: Replay): boolean =>
  byLog(gateOf({ goal, metrics: results })).length > 0

const ofWeights = (replay: Replay): Check[] => [
  effectiveSize(replay),
  change(replay),
  support(replay),
  audit(replay),
  weights(replay),
  ...bernstein(replay),
  ...(replay.diagnostics.unsupported.mass > unsupportedMassMax ? [] : agreement(replay)),
]

/** What was asked anew, and what it decides. */
const answers = ({ reexecuted, metrics: results, options: { goal } }: Replay): Check[] => {
  if (!reexecuted) return []
  const { changed, asked, unasked, inclusion, problem, judge } = reexecuted
  const told = results.filter(isAsked)
  const least = changeEssOf(byAnswers(gateOf({ goal, metrics: results })))
  const names = told.map(({ metric }) => plain[metric]).join(', ') || 'nothing'
  const sample = `${count(asked)} of ${count(changed)} changed decisions were asked anew${unasked > 0 ? ` and ${count(unasked)} could not be` : ''}; they tell ${names}; a verdict needs ${answersDecideFrom} answers`
  const weight = asked > 0 ? `; mean inclusion weight ${inclusion.mean.toFixed(3)} ± ${inclusion.se.toFixed(3)}` : ''
  const isDecided = problem === null && least >= answersDecideFrom && told.length > 0
  const found: Check = {
    name: 'answers asked anew',
    found: `${sample}${weight}`,
    state: problem !== null ? 'bad' : isDecided ? 'good' : 'warning',
  }
  const isLost = results.some((result) => isBeyondAnswers(result, results))
  const lost: Check[] = isLost ? [{ name: 'given up', found: beyondAnswersText, state: 'warning' }] : []
  return [found, ...(judge ? [consistency(judge)] : []), ...lost]
}

/** How far the judge agrees with itself. */
const consistency = ({ judged, repeats, disagreement, sd }: JudgeError): Check =>
  sd === null
    ? {
        name: 'judge of answers',
        found: `${count(judged)} judged and none a second time, so its own error is not in the interval`,
        state: 'warning',
      }
    : {
        name: 'judge of answers',
        found: `of ${count(repeats)} answers judged twice it judged ${percent(disagreement ?? 0)} otherwise the second time; a judgement is off by ${sd.toFixed(3)}, and the interval of quality is wider for it`,
        state: 'good',
      }

const beyondAnswersText =
  'nobody waits for an answer asked anew, so whether clients would give up is not judged; a canary would show it'

const fidelity = ({ verification, options }: Replay): Check => {
  const { records, reproduced, differing, unverifiable } = verification
  const trusted = unverifiable > 0 && differing === 0 && options.trustPropensities
  const open = unverifiable > 0 ? `; ${count(unverifiable)} could not be decided again` : ''
  return {
    name: 'fidelity',
    found: `${reproducedShare(verification)} % of ${count(records)} decisions come out as logged, ${exactness(verification)}${open}${trusted ? ' and are taken on trust' : ''}`,
    state: trusted ? 'warning' : records > 0 && reproduced === records ? 'good' : 'bad',
  }
}

/** The conditions of the gate whose outcomes are known at all. */
const judgedGate = ({ metrics: results, options: { goal } }: Replay) =>
  byLog(gateOf({ goal, metrics: results })).filter(({ result }) => result.rows > 0)

const effectiveSize = (replay: Replay): Check => {
  const gate = judgedGate(replay)
  const ess = Math.min(replay.diagnostics.effective.ess, essOf(gate))
  return {
    name: 'effective sample',
    found: `${count(ess)} of ${count(replay.rows)} rows${clusteringText(replay)} (${percent(ess / replay.rows)}); a verdict needs ${essDecidesFrom}`,
    state: ess >= essDecidesFrom ? 'good' : ess >= essRefusedBelow ? 'warning' : 'bad',
  }
}

const change = (replay: Replay): Check => {
  const { change: size, changedRows } = replay.diagnostics
  if (changedRows === 0)
    return { name: 'evidence of change', found: 'the candidate changes no probability', state: 'warning' }
  const ess = Math.min(size.ess, changeEssOf(judgedGate(replay)))
  return {
    name: 'evidence of change',
    found: `${count(ess)} effective rows speak for what the candidate does more often; a verdict needs ${essDecidesFrom}`,
    state: ess >= essDecidesFrom ? 'good' : 'warning',
  }
}

/** The bound that was stated, and what follows from it; a weight beyond it makes the statement false. */
const bernstein = ({ options: { weightBound }, diagnostics: { weightMax }, metrics: results }: Replay): Check[] => {
  if (weightBound === null) return []
  const name = 'weight bound'
  if (weightMax > weightBound)
    return [
      { name, found: `${weightBound} was stated, and a weight of ${weightMax.toPrecision(3)} was seen`, state: 'bad' },
    ]
  const intervals = results.flatMap(({ metric, bernstein: interval }) =>
    interval ? [`${plain[metric]} [${metrics[metric].say(interval.low)}, ${metrics[metric].say(interval.high)}]`] : [],
  )
  const found =
    intervals.length > 0
      ? `with weights up to ${weightBound}, whatever the distribution: ${intervals.join(', ')}`
      : 'rows share draws, or outcomes are missing, so no interval follows from it'
  return [{ name, found, state: intervals.length > 0 ? 'good' : 'warning' }]
}

const support = ({ diagnostics }: Replay): Check => ({
  name: 'support',
  found: `${percent(diagnostics.unsupported.mass)} of the candidate's traffic was never tried; the limit is ${percent(unsupportedMassMax)}`,
  state:
    diagnostics.unsupported.mass > unsupportedMassMax ? 'bad' : diagnostics.unsupported.mass > 0 ? 'warning' : 'good',
})

const audit = ({ diagnostics: { audits } }: Replay): Check => {
  const worst = audits.filter(({ judged }) => judged).toSorted((a, b) => deviation(b) - deviation(a))[0]
  const skipped = audits.filter(({ judged }) => !judged).length
  const name = worst?.arm === null || worst === undefined ? 'the candidate' : armName(worst.arm)
  return {
    name: 'weight audit',
    found: worst
      ? `mean weights are 1 within 3 SE; farthest: ${name} ${worst.mean.toFixed(3)} ± ${worst.se.toFixed(3)}${skipped > 0 ? `; ${skipped} arms too rare to judge` : ''}`.replace(
          'are 1',
          audits.every(({ ok }) => ok) ? 'are 1' : 'are NOT all 1',
        )
      : 'no arm was likely enough to be judged',
    state: audits.every(({ ok }) => ok) ? 'good' : 'bad',
  }
}

const deviation = ({ mean, se }: { mean: number; se: number }): number => (se > 0 ? Math.abs(mean - 1) / se : 0)

const weights = ({ diagnostics: { weightMax, weightTopShare } }: Replay): Check => ({
  name: 'weights',
  found: `the largest is ${weightMax.toPrecision(3)}; the heaviest 1 % of rows carry ${percent(weightTopShare)} of the weight`,
  state: weightTopShare > 0.5 ? 'warning' : 'good',
})

const agreement = (replay: Replay): Check[] =>
  judgedGate(replay)
    .map((part) => ({ part, bad: disagrees(part, replay.options.margin) }))
    .filter(
      ({ part: { role, result }, bad }) =>
        bad || (Number.isFinite(result.disagreementSe) && (role === 'goal' || result.metric === 'quality')),
    )
    .map(({ part: { result }, bad }) => {
      const { title, say } = metrics[result.metric]
      const apart = `${result.disagreementSe.toFixed(1)} SE apart`
      const limit =
        !bad && result.disagreementSe > disagreementSeMax
          ? 'by too little to matter'
          : `the limit is ${disagreementSeMax}`
      return {
        name: 'DR against SNIPS',
        found: `${title}: ${say(result.drSupported)} and ${say(result.estimators.snips.value)}, ${apart}; ${limit}`,
        state: bad ? 'bad' : 'good',
      }
    })

const missing = ({ metrics: results, rows: all, options }: Replay): Check[] =>
  results
    .filter(({ missing: absent, rows }) => absent > 0 && rows > 0)
    .map(({ metric, missing: absent, missingShare, missingUnder, bounds }) => ({
      name: 'missing outcomes',
      found:
        `${metrics[metric].title}: ${count(absent)} of ${count(all)} rows (${percent(missingShare)}) have none, ${percent(missingUnder.candidate)} under the candidate; ` +
        (options.missingAtRandom
          ? 'on your word they are like the others'
          : bounds
            ? 'the intervals allow for anything they might have been'
            : 'the figure speaks for the others'),
      state: options.missingAtRandom || missingShare > missingShareMax || !bounds ? 'warning' : 'good',
    }))

/** How long people took to answer, and whom a horizon leaves out. */
const feedback = ({ feedback: found }: Replay): Check[] => {
  if (!found) return []
  const { horizon, told, untimed, late, pending, never, delay } = found
  const takes = delay
    ? [`it takes ${span(delay.p50Ms)} at the median and ${span(delay.p95Ms)} for the slowest 5 %`]
    : ['nothing tells how long it takes']
  const counted = horizon
    ? [
        `within ${span(horizon.withinMs)} of the decision: ${count(told)} told, ${count(late)} came late and do not count, ${count(pending)} are too young to be known at ${horizon.until.slice(0, 16)}Z, ${count(never)} never came`,
        ...(untimed > 0 ? [`${count(untimed)} do not say when they came and are taken to be in time`] : []),
      ]
    : []
  return [
    { name: 'feedback', found: [...counted, ...takes].join('; '), state: pending + late > 0 ? 'warning' : 'good' },
  ]
}

/** Whether requests would have been the same under the candidate. */
const conversations = ({ conversations: { laterTurns, share, mark }, rows, options }: Replay): Check[] => {
  if (options.conversations === 'first-turn')
    return [{ name: 'conversations', found: 'only the first turn of each session counts', state: 'good' }]
  if (laterTurns === 0) return []
  const turns = `${count(laterTurns)} of ${count(rows)} rows (${percent(laterTurns / rows)}) are later turns of a session, and the candidate decides ${percent(share)} of the rows in sessions otherwise`
  return mark === 'none'
    ? [{ name: 'conversations', found: turns, state: 'good' }]
    : [
        {
          name: 'conversations',
          found: `${turns}; all figures are marked first-divergence: they hold the requests fixed, which is right up to the first turn decided otherwise; --conversations first-turn needs no such assumption`,
          state: 'warning',
        },
      ]
}

/** Whose word the quality is. */
const judges = ({ judging }: Replay): Check[] => {
  if (!judging) return []
  const { byPeople, corrected, alone, isTrusted, bias } = judging
  const people = `quality: ${count(byPeople)} rows by people`
  const judged = `${count(corrected)} by a judge model, corrected by people's scores, which must be of answers drawn by chance within each model`
  const rest = isTrusted
    ? `${count(alone)} by the judge alone, on your word`
    : `${count(alone)} that only the judge scored, of models where people scored too few to correct it, count as unknown; --trust-judge takes its word`
  const apart = bias
    ? `it says ${Math.abs(bias.mean).toFixed(3)} ± ${bias.se.toFixed(3)} ${bias.mean < 0 ? 'less' : 'more'} than people do`
    : 'nothing tells how it differs from people'
  const found = [people, ...(corrected > 0 ? [judged] : []), ...(alone > 0 ? [rest] : []), apart].join('; ')
  return [{ name: 'judge', found, state: alone > 0 ? 'warning' : 'good' }]
}

const mixture = ({ production }: Replay): Check[] =>
  production.length < 2
    ? []
    : [
        {
          name: 'logged policies',
          found: `${count(production.length)} policies decided these; the difference is against their mixture; --against HASH picks one`,
          state: 'warning',
        },
      ]

const duplicates = ({ duplicates: dropped }: Replay): Check[] =>
  dropped === 0
    ? []
    : [{ name: 'duplicates', found: `${count(dropped)} records repeat an id and were left out`, state: 'warning' }]
