// The diagnostics as a list of checks: each a name, what was found, what was wanted, and whether it holds. The terminal
// shows them as ✓ and ✗, the HTML report as lights.

import { missingShareMax } from '../estimate/evaluate.ts'
import { metrics } from '../estimate/metrics.ts'
import {
  changeEssOf,
  disagreementSeMax,
  disagrees,
  essDecidesFrom,
  essOf,
  essRefusedBelow,
  gateOf,
  unsupportedMassMax,
} from '../judge/gate.ts'
import type { Replay } from '../run.ts'
import { armName, clusteringText, count, percent, reproducedShare } from './words.ts'

export type Check = { readonly name: string; readonly found: string; readonly state: 'good' | 'warning' | 'bad' }

export const checksOf = (replay: Replay): Check[] => [
  fidelity(replay),
  ...(replay.rows > 0 ? [effectiveSize(replay), change(replay), support(replay), audit(replay), weights(replay)] : []),
  ...(replay.diagnostics.unsupported.mass > unsupportedMassMax ? [] : agreement(replay)),
  ...missing(replay),
  ...judges(replay),
  ...duplicates(replay),
  ...mixture(replay),
]

const fidelity = ({ verification, options }: Replay): Check => {
  const { records, reproduced, differing, unverifiable } = verification
  const trusted = unverifiable > 0 && differing === 0 && options.trustPropensities
  const open = unverifiable > 0 ? `; ${count(unverifiable)} could not be decided again` : ''
  return {
    name: 'fidelity',
    found: `${reproducedShare(verification)} % of ${count(records)} decisions come out as logged, to the bit${open}${trusted ? ' and are taken on trust' : ''}`,
    state: trusted ? 'warning' : records > 0 && reproduced === records ? 'good' : 'bad',
  }
}

/** The conditions of the gate whose outcomes are known at all. */
const judgedGate = ({ metrics: results, options: { goal } }: Replay) =>
  gateOf({ goal, metrics: results }).filter(({ result }) => result.rows > 0)

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
    found: `${count(ess)} effective rows speak for what the candidate does more often; a verdict needs ${essRefusedBelow}`,
    state: ess >= essRefusedBelow ? 'good' : 'warning',
  }
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
