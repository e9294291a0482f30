// What a candidate's probabilities say of each row, as columns over those that all candidates share: weights, what is expected
// under either policy, and what stands before the outcome in every estimator. It is `readRow` of tally.ts, for all rows at once.
import type { PolicySql } from '../../../router/policy/sql.ts'
import { clipAt, shrinkBy, subGaussianBy, switchAt } from '../../estimate/terms.ts'
import type { Fit } from '../chunk.ts'
import { armSql, layer, measuredOf, ofArm, plus, predictedSql, rowsSql } from './columns.ts'

/** Probabilities this close are one: ClickHouse and JavaScript round `exp` each in its own way. */
export const probabilityTolerance = 1e-12
export const differenceOf = (metric: number): string => `x_d_${metric}`
/** The value with this place in a list. */
const byIndex = (values: readonly string[], index: string): string => `[${values.join(', ')}][${index} + 1]`

/** What the probabilities of each row say, as `readRow` has it. */
const weighed = (fit: Fit, policy: PolicySql, logged: string): string => {
  const { armNames } = fit.survey
  const arms = [...armNames.keys()]
  const redecided = layer(rowsSql(fit, `(${policy.over(logged)})`), [
    `toFloat64(${policy.chosen} = '') AS x_e_0`,
    ...arms.slice(1).map((arm) => {
      const e = `${policy.probabilities}[x_ix_${arm}]`
      return `if(abs(${e} - x_b_${arm}) <= ${probabilityTolerance}, x_b_${arm}, ${e}) AS x_e_${arm}`
    }),
    `${policy.chosen} = chosen_model AS x_same`,
    `toUInt32(${armSql(fit, policy.chosen)}) AS x_to`,
  ])
  const ratios = layer(redecided, [
    ...arms.map((arm) => `if(x_b_${arm} > 0, x_e_${arm} / x_b_${arm}, 0.0) AS x_w_${arm}`),
    ...arms.map((arm) => `if(x_b_${arm} > 0, 0.0, x_e_${arm}) AS x_t_${arm}`),
    `${byIndex(
      arms.map((arm) => `x_b_${arm}`),
      'x_to',
    )} AS x_tried`,
    `if(x_to = 0, 0.0, \`candidates.cost_usd\`[indexOf(candidates.model, ${policy.chosen})]) AS x_to_usd`,
  ])
  const excess = (arm: number) => `greatest(x_w_${arm} - 1, 0.0)`
  return layer(ratios, [
    `${ofArm(arms.map((arm) => `x_w_${arm}`))} AS x_w`,
    `${plus(arms.map((arm) => `x_t_${arm}`))} AS x_u`,
    `${plus(arms.map((arm) => `x_b_${arm} * x_w_${arm} * x_w_${arm}`))} AS x_w2`,
    `${plus(arms.map((arm) => `x_b_${arm} * ${excess(arm)}`))} AS x_xe`,
    `${plus(arms.map((arm) => `x_b_${arm} * ${excess(arm)} * ${excess(arm)}`))} AS x_x2`,
    `(${arms.map((arm) => `x_e_${arm} != x_b_${arm}`).join(' OR ')}) AS x_changed`,
  ])
}

/** What stands before r, q and r − q in the terms, for rows that weigh `k`; named by `suffix`. */
const factors = (k: string, suffix: string): string[] => [
  `${k} * x_w AS f_w_${suffix}`,
  `${k} * least(x_w, ${clipAt}) AS f_clipped_${suffix}`,
  `${k} * x_w / (${1 - subGaussianBy} + ${subGaussianBy} * x_w) AS f_smooth_${suffix}`,
  `if(x_w <= ${switchAt}, ${k} * x_w, 0.0) AS f_switched_${suffix}`,
  `${shrinkBy} * ${k} * x_w / (x_w * x_w + ${shrinkBy}) AS f_shrunk_${suffix}`,
  `if(x_same, ${k}, 0.0) AS f_same_${suffix}`,
]

export const factorsOf = ({ isPartial }: Fit, metric: number): string => (isPartial[metric] ? String(metric) : 'all')

/**
 * The rows of `logged` as `rowsSql` has them, decided by a policy first, so that its steps carry no more than it needs: its choice
 * `x_to` and probabilities `x_e_A`, what they say of the row (`x_w`, `x_u`, …), and by metric what is expected (`x_qe_M`, `x_qu_M`),
 * what is left to explain (`x_left_M`) and the row's part of the difference (`x_d_M`).
 * `hasUntried` says whether anything is chosen that production never tries; to look up predictions for it costs a fifth of all.
 */
export const weighedSql = (fit: Fit, policy: PolicySql, logged: string, hasUntried: boolean): string => {
  const arms = [...fit.survey.armNames.keys()]
  const measured = measuredOf(fit)
  const untried = (metric: number) =>
    arms.map((arm) => {
      const predicted = predictedSql(metric, arm)
      const q = `x_q_${metric}_${arm}`
      return `x_t_${arm} * ${predicted === null ? q : `ifNull(${predicted}, ${q})`}`
    })
  const isTried = (arm: number) => (hasUntried ? `(x_e_${arm} - x_t_${arm})` : `x_e_${arm}`)
  const tried = (metric: number) => arms.map((arm) => `${isTried(arm)} * x_q_${metric}_${arm}`)
  const sums = layer(weighed(fit, policy, logged), [
    'greatest(x_w - 1, 0.0) AS x_x',
    ...measured.flatMap((metric) => [
      `${hasUntried ? plus(untried(metric)) : '0.0'} AS x_qu_${metric}`,
      `${plus(tried(metric))} AS x_qs_${metric}`,
    ]),
    ...factors('x_keep', 'all'),
    ...measured.flatMap((metric) => (fit.isPartial[metric] ? factors(`x_k_${metric}`, String(metric)) : [])),
  ])
  const totals = layer(
    sums,
    measured.flatMap((metric) => [
      `x_qs_${metric} + x_qu_${metric} AS x_qe_${metric}`,
      `x_r_${metric} - x_q_${metric} AS x_left_${metric}`,
    ]),
  )
  return layer(
    totals,
    measured.map(
      (metric) =>
        `x_k_${metric} * (x_qe_${metric} - x_qb_${metric} + (x_w - 1) * x_left_${metric}) AS ${differenceOf(metric)}`,
    ),
  )
}
