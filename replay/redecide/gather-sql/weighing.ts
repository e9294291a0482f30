// What candidates' probabilities say of each row, as columns over those that all candidates share: weights, what is expected
// under either policy, and what stands before the outcome in every estimator. It is `readRow` of tally.ts, for all rows and all
// candidates at once; a candidate's columns have its name after `x_`, so that sums can be called by it alone.
import type { PoliciesSql } from '../../../router/policy/sql.ts'
import { clipAt, shrinkBy, subGaussianBy, switchAt } from '../../estimate/terms.ts'
import type { Fit } from '../chunk.ts'
import { armSql, layer, measuredOf, ofArm, plus, predictedSql, rowsSql } from './columns.ts'

/** Probabilities this close are one: ClickHouse and JavaScript round `exp` each in its own way. */
export const probabilityTolerance = 1e-12

/** A candidate of a query: the word in the names of its columns, and those of its policy. */
export type Named = { readonly name: string; readonly judged: PoliciesSql['judged'][number] }

/** The value that belongs to a place in a list. */
const chosenOf = (place: string, values: readonly string[]): string =>
  values.length === 1
    ? (values[0] as string)
    : `multiIf(${values
        .slice(1)
        .map((value, at) => `${place} = ${at + 1}, ${value}`)
        .join(', ')}, ${values[0]})`

const decidedSql = (fit: Fit, { name, judged }: Named): string[] => [
  `toFloat64(${judged.chosen} = '') AS x_${name}_e_0`,
  ...fit.survey.armNames.slice(1).map((_, at) => {
    const e = `${judged.probabilities}[x_ix_${at + 1}]`
    return `if(abs(${e} - x_b_${at + 1}) <= ${probabilityTolerance}, x_b_${at + 1}, ${e}) AS x_${name}_e_${at + 1}`
  }),
  `${judged.chosen} = chosen_model AS x_${name}_same`,
  `toUInt32(${armSql(fit, judged.chosen)}) AS x_${name}_to`,
]

const ratiosSql = ({ survey: { armNames } }: Fit, { name }: Named): string[] => [
  ...armNames.map((_, arm) => `if(x_b_${arm} > 0, x_${name}_e_${arm} / x_b_${arm}, 0.0) AS x_${name}_w_${arm}`),
  ...armNames.map((_, arm) => `if(x_b_${arm} > 0, 0.0, x_${name}_e_${arm}) AS x_${name}_t_${arm}`),
  `${chosenOf(
    `x_${name}_to`,
    armNames.map((_, arm) => `x_b_${arm}`),
  )} AS x_${name}_tried`,
  `${chosenOf(
    `x_${name}_to`,
    armNames.map((_, arm) => `x_usd_${arm}`),
  )} AS x_${name}_usd`,
]

/** The bits of a probability ratio that all terms share. */
const weightsSql = ({ survey: { armNames } }: Fit, { name }: Named): string[] => {
  const arms = [...armNames.keys()]
  const w = (arm: number) => `x_${name}_w_${arm}`
  const excess = (arm: number) => `greatest(${w(arm)} - 1, 0.0)`
  return [
    `${ofArm(arms.map(w))} AS x_${name}_w`,
    `${plus(arms.map((arm) => `x_${name}_t_${arm}`))} AS x_${name}_u`,
    `${plus(arms.map((arm) => `x_b_${arm} * ${w(arm)} * ${w(arm)}`))} AS x_${name}_w2`,
    `${plus(arms.map((arm) => `x_b_${arm} * ${excess(arm)}`))} AS x_${name}_xe`,
    `${plus(arms.map((arm) => `x_b_${arm} * ${excess(arm)} * ${excess(arm)}`))} AS x_${name}_x2`,
    `(${arms.map((arm) => `(x_${name}_e_${arm} != x_b_${arm})`).join(' + ')}) > 0 AS x_${name}_changed`,
  ]
}

/** What stands before r, q and r − q in the terms, for rows that weigh `k`; named by `suffix`. */
const factors = (k: string, { name }: Named, suffix: string): string[] => {
  const w = `x_${name}_w`
  const named = (what: string) => `x_${name}_${what}_${suffix}`
  return [
    `${k} * ${w} AS ${named('kw')}`,
    `${k} * least(${w}, ${clipAt}) AS ${named('clipped')}`,
    `${k} * ${w} / (${1 - subGaussianBy} + ${subGaussianBy} * ${w}) AS ${named('smooth')}`,
    `if(${w} <= ${switchAt}, ${k} * ${w}, 0.0) AS ${named('switched')}`,
    `${shrinkBy} * ${k} * ${w} / (${w} * ${w} + ${shrinkBy}) AS ${named('shrunk')}`,
    `if(x_${name}_same, ${k}, 0.0) AS ${named('matched')}`,
  ]
}

export const factorsOf = ({ isPartial }: Fit, metric: number): string => (isPartial[metric] ? String(metric) : 'all')

const expectedSql = (fit: Fit, named: Named, hasUntried: boolean): string[] => {
  const { name } = named
  const arms = [...fit.survey.armNames.keys()]
  const untried = (metric: number) =>
    arms.map((arm) => {
      const predicted = predictedSql(metric, arm)
      const q = `x_q_${metric}_${arm}`
      return `x_${name}_t_${arm} * ${predicted === null ? q : `ifNull(${predicted}, ${q})`}`
    })
  const isTried = (arm: number) => (hasUntried ? `(x_${name}_e_${arm} - x_${name}_t_${arm})` : `x_${name}_e_${arm}`)
  const tried = (metric: number) => arms.map((arm) => `${isTried(arm)} * x_q_${metric}_${arm}`)
  const measured = measuredOf(fit)
  return [
    `greatest(x_${name}_w - 1, 0.0) AS x_${name}_x`,
    ...measured.flatMap((metric) => [
      ...(hasUntried ? [`${plus(untried(metric))} AS x_${name}_qu_${metric}`] : []),
      `${plus(tried(metric))} AS x_${name}_${hasUntried ? 'qs' : 'qe'}_${metric}`,
    ]),
    ...factors('x_keep', named, 'all'),
    ...measured.flatMap((metric) => (fit.isPartial[metric] ? factors(`x_k_${metric}`, named, String(metric)) : [])),
  ]
}

/**
 * The rows of `logged` as `rowsSql` has them, decided by all policies: for each its choice `x_NAME_to` and probabilities `x_NAME_e_A`, what
 * they say of the row (`x_NAME_w`, `x_NAME_u`, …), and by metric what is expected (`x_NAME_qe_M`, `x_NAME_qu_M`) and the row's part of the
 * difference (`x_NAME_d_M`). `hasUntried` says whether any candidate chooses what production never tries; to look up predictions for
 * that costs a fifth of all.
 */
export const weighedSql = (
  fit: Fit,
  over: PoliciesSql['over'],
  candidates: readonly Named[],
  logged: string,
  hasUntried: boolean,
): string => {
  const measured = measuredOf(fit)
  const each = (columns: (candidate: Named) => string[]) => candidates.flatMap(columns)
  const decided = layer(
    rowsSql(fit, `(${over(logged)})`),
    each((candidate) => decidedSql(fit, candidate)),
  )
  const ratios = layer(
    decided,
    each((candidate) => ratiosSql(fit, candidate)),
  )
  const weights = layer(
    ratios,
    each((candidate) => weightsSql(fit, candidate)),
  )
  const expected = layer(
    weights,
    each((candidate) => expectedSql(fit, candidate, hasUntried)),
  )
  const totals = ({ name }: Named) =>
    measured.map((metric) => `x_${name}_qs_${metric} + x_${name}_qu_${metric} AS x_${name}_qe_${metric}`)
  return layer(
    hasUntried ? layer(expected, each(totals)) : expected,
    each(({ name }) =>
      measured.map(
        (metric) =>
          `x_k_${metric} * (x_${name}_qe_${metric} - x_qb_${metric} + (x_${name}_w - 1) * x_left_${metric}) AS x_${name}_d_${metric}`,
      ),
    ),
  )
}
