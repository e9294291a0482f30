// A candidate's sums in SQL: its policy compiled over the rows, what its probabilities say of each, and every term of every
// metric added up by group of clusters, in one query that gives one row of arrays. It is tally.ts over columns; the few rows
// that a report names come back as ids, and are read and decided by the same code as everywhere.
import type { PolicySql } from '../../../router/policy/sql.ts'
import { metricCount } from '../../estimate/metrics.ts'
import { clipAt, shrinkBy, subGaussianBy, switchAt, type Term, termAt, termCount, terms } from '../../estimate/terms.ts'
import type { Fit } from '../chunk.ts'
import {
  byMetricAt,
  byMetricCount,
  type CandidateTally,
  influenceMax,
  kindsShownMax,
  overlapBins,
  partGroups,
  partTerms,
  sampleMax,
  scalarAt,
  startTally,
  weightBins,
  weightBinsPerOctave,
  wholeAt,
  wholeCount,
} from '../tallies.ts'
import { armSql, layer, measuredOf, ofArm, plus, predictedSql, sumBy } from './columns.ts'
import { readSpread, spreadSql } from './spread.ts'

/** Probabilities this close are one: ClickHouse and JavaScript round `exp` each in its own way. */
export const probabilityTolerance = 1e-12
const partKeys = (kindsShownMax + 1) * 2 * partGroups
/** Terms whose sums are those of all rows where every outcome is known. */
const shared = ['n', 'w', 'u', 'x', 'xe', 'matched'] as const satisfies readonly Term[]
const differenceOf = (metric: number): string => `x_d_${metric}`

/** What the probabilities of each row say, as `readRow` has it. */
const weighed = (fit: Fit, policy: PolicySql, rows: string): string => {
  const { armNames } = fit.survey
  const arms = [...armNames.keys()]
  const redecided = layer(policy.over(rows).replace(/^/, '(').replace(/$/, ')'), [
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
    `${ofArm(
      arms.map((arm) => `x_b_${arm}`),
      'x_to',
    )} AS x_tried`,
    `${ofArm(
      arms.map((arm) => predictedSql(0, arm) ?? 'CAST(NULL AS Nullable(Float64))'),
      'x_to',
    )} AS x_to_usd`,
  ])
  const excess = (arm: number) => `greatest(x_w_${arm} - 1, 0.0)`
  return layer(ratios, [
    `${ofArm(
      arms.map((arm) => `x_w_${arm}`),
      'x_arm',
    )} AS x_w`,
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

const factorsOf = ({ isPartial }: Fit, metric: number): string => (isPartial[metric] ? String(metric) : 'all')

/** Expectations and the contribution to the difference, by metric. */
const expectedSql = (fit: Fit, rows: string): string => {
  const arms = [...fit.survey.armNames.keys()]
  const measured = measuredOf(fit)
  const untried = (metric: number) =>
    arms.map((arm) => {
      const predicted = predictedSql(metric, arm)
      const q = `x_q_${metric}_${arm}`
      return `x_t_${arm} * ${predicted === null ? q : `ifNull(${predicted}, ${q})`}`
    })
  const tried = (metric: number) => arms.map((arm) => `(x_e_${arm} - x_t_${arm}) * x_q_${metric}_${arm}`)
  const sums = layer(rows, [
    'greatest(x_w - 1, 0.0) AS x_x',
    ...measured.flatMap((metric) => [
      `if(x_u > 0, ${plus(untried(metric))}, 0.0) AS x_qu_${metric}`,
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

/** One metric's terms; what is `shared` is left out where no outcome is missing. */
const termsSql = (fit: Fit, metric: number): Partial<Record<Term, string>> => {
  const [k, f] = [`x_k_${metric}`, factorsOf(fit, metric)]
  const [r, q, left, qe, qb, qu] = ['r', 'q', 'left', 'qe', 'qb', 'qu'].map((name) => `x_${name}_${metric}`)
  const known: Partial<Record<Term, string>> = {
    wr: `f_w_${f} * ${r}`,
    r: `${k} * ${r}`,
    q: `${k} * ${q}`,
    wq: `f_w_${f} * ${q}`,
    qe: `${k} * ${qe}`,
    qb: `${k} * ${qb}`,
    qu: `${k} * ${qu}`,
    clipped: `f_clipped_${f} * ${r}`,
    subGaussian: `f_smooth_${f} * ${r}`,
    switched: `f_switched_${f} * ${left}`,
    shrunk: `f_shrunk_${f} * ${left}`,
    matchedR: `f_same_${f} * ${r}`,
  }
  if (!fit.isPartial[metric]) return known
  const missing = `isNull(m_${metric})`
  const low = `(if(${missing}, 0.0, ${r}) - ${q})`
  const high = `(if(${missing}, 1.0, ${r}) - ${q})`
  const difference = (end: string) =>
    `x_keep * (${qe} - ${qb} + (x_w - 1) * (if(${missing}, toFloat64(x_w ${end} 1), ${r}) - ${q}) - ${qu}`
  return {
    ...known,
    n: k,
    w: `f_w_${f}`,
    u: `${k} * x_u`,
    x: `${k} * x_x`,
    xe: `${k} * x_xe`,
    matched: `f_same_${f}`,
    all: 'x_keep',
    candidateLow: `x_keep * (${qe} + x_w * ${low} - ${qu})`,
    candidateHigh: `x_keep * (${qe} + x_w * ${high} - ${qu} + x_u)`,
    productionLow: `x_keep * (${qb} + ${low})`,
    productionHigh: `x_keep * (${qb} + ${high})`,
    differenceLow: `${difference('<')})`,
    differenceHigh: `${difference('>')} + x_u)`,
  }
}

const wholeSql = {
  n: 'x_keep',
  w: 'f_w_all',
  u: 'x_keep * x_u',
  x: 'x_keep * x_x',
  xe: 'x_keep * x_xe',
  matched: 'f_same_all',
} as const

const weightVariance = 'greatest(0.0, x_w2 - (1 - x_u) * (1 - x_u))'
const excessVariance = 'greatest(0.0, x_x2 - x_xe * x_xe)'

const scalarsSql: Readonly<Record<keyof typeof scalarAt, string>> = {
  observed: 'f_same_all',
  untried: 'if(NOT x_same AND x_tried = 0, x_keep, 0.0)',
  changedChoices: 'toFloat64(NOT x_same)',
  changedCostUsd: 'if(x_same, 0.0, ifNull(x_to_usd, 0.0))',
  changedCosts: 'toFloat64(NOT x_same AND isNotNull(x_to_usd))',
  changedRows: 'toFloat64(x_changed)',
  weightVariance: `x_keep * x_keep * ${weightVariance}`,
  excessVariance: `x_keep * x_keep * ${excessVariance}`,
}

const byMetricSql = (fit: Fit, metric: number): Readonly<Record<keyof typeof byMetricAt, string>> => {
  const k = `x_k_${metric}`
  const lacking = [...fit.survey.armNames.keys()].flatMap((arm) => {
    const predicted = predictedSql(metric, arm)
    return predicted === null ? [] : [`x_t_${arm} > 0 AND isNull(${predicted})`]
  })
  return {
    missing: `if(isNull(m_${metric}), x_keep, 0.0)`,
    missingWeight: `if(isNull(m_${metric}), f_w_all, 0.0)`,
    weightVariance: `${k} * ${k} * ${weightVariance}`,
    excessVariance: `${k} * ${k} * ${excessVariance}`,
    unpredicted: lacking.length === 0 ? '0.0' : `toFloat64(x_u > 0 AND (${lacking.join(' OR ')}))`,
  }
}

/** Ids by rank, the least first: the rank's bits before the id's, as one number that sorts like the pair. */
const firstIds = (rank: string, max: number, condition: string): string => {
  const key = `bitOr(bitShiftLeft(toUInt256(${rank}), 128), toUInt256(reinterpretAsUInt128(decision_id)))`
  return `arrayMap(x -> toString(reinterpret(toUInt128(bitAnd(x, toUInt256('340282366920938463463374607431768211455'))), 'UUID')),
    groupArraySortedIf(${max})(${key}, ${condition}))`
}

const metricAggregates = (fit: Fit, metric: number): string[] => {
  const { armNames, clusters } = fit.survey
  const part = `(x_kind * 2 + x_later) * ${partGroups} + x_group % ${partGroups}`
  const production = `x_k_${metric} * (x_qb_${metric} + x_left_${metric})`
  const inPart = [...(fit.isPartial[metric] ? [`x_k_${metric}`] : []), production, differenceOf(metric)]
  const isHeavy = `x_w > 1 AND isNotNull(m_${metric})`
  const upside = `bitNot(reinterpretAsUInt64(abs(${differenceOf(metric)})))`
  return [
    ...Object.entries(termsSql(fit, metric)).map(
      ([term, sql]) => `${sumBy(sql, 'x_group', clusters.groupCount)} AS ${term}_${metric}`,
    ),
    ...Object.entries(byMetricSql(fit, metric)).map(([name, sql]) => `sum(${sql}) AS ${name}_${metric}`),
    ...inPart.reverse().map((sql, at) => `${sumBy(sql, part, partKeys)} AS part_${metric}_${partTerms - 1 - at}`),
    `${sumBy(`f_w_${factorsOf(fit, metric)} * x_left_${metric}`, 'x_arm', armNames.length)} AS residual_${metric}`,
    `minOrNullIf(x_r_${metric}, ${isHeavy}) AS least_${metric}`,
    `maxOrNullIf(x_r_${metric}, ${isHeavy}) AS most_${metric}`,
    `${firstIds(upside, influenceMax, `${differenceOf(metric)} != 0`)} AS movers_${metric}`,
  ]
}

/** The query of all sums of one candidate, as one row of numbers and arrays. `rows` are those of `rowsSql`. */
export const candidateSql = (fit: Fit, policy: PolicySql, rows: string): string => {
  const { armNames, clusters } = fit.survey
  const part = `(x_kind * 2 + x_later) * ${partGroups} + x_group % ${partGroups}`
  const octave = `if(x_tried > 0, least(${overlapBins - 1}, floor(-log2(x_tried))), ${overlapBins - 1})`
  const bin = `if(x_w > 0, floor(log2(x_w) * ${weightBinsPerOctave}) + ${weightBins / 2}, 0)`
  const weightBin = `greatest(0, least(${weightBins - 1}, ${bin}))`
  const lot = "bitShiftRight(xxHash64(concat(toString(decision_id), '|replay|sample')), 11)"
  const aggregates = [
    'toFloat64(count()) AS rows',
    ...Object.entries(wholeSql).map(([name, sql]) => `${sumBy(sql, 'x_group', clusters.groupCount)} AS whole_${name}`),
    ...Object.entries(scalarsSql).map(([name, sql]) => `sum(${sql}) AS scalar_${name}`),
    'max(x_w) AS weight_max',
    ...armNames.map((_, arm) => `sum(x_keep * x_t_${arm}) AS untried_${arm}`),
    `${sumBy('1', `x_arm * ${armNames.length} + x_to`, armNames.length ** 2)} AS moves`,
    `${sumBy('x_keep', octave, overlapBins)} AS overlap`,
    `${sumBy('x_keep', weightBin, weightBins)} AS weight_keep`,
    `${sumBy('f_w_all', weightBin, weightBins)} AS weight_sum`,
    `${sumBy('x_keep', part, partKeys)} AS part_keep`,
    ...measuredOf(fit).flatMap((metric) => metricAggregates(fit, metric)),
    ...spreadSql(fit, 'x_w'),
    `${firstIds(lot, sampleMax, 'NOT x_same')} AS sample`,
  ]
  return `SELECT ${aggregates.join(',\n')}\nFROM ${expectedSql(fit, weighed(fit, policy, rows))}`
}

/** What the query gives. */
export type CandidateRow = Readonly<Record<string, number | null | readonly number[] | readonly string[]>>

/** The ids of the rows that a report may name. */
export const namedIds = (row: CandidateRow): string[] => [
  ...new Set(
    Object.entries(row).flatMap(([name, ids]) =>
      name === 'sample' || name.startsWith('movers_') ? (ids as string[]) : [],
    ),
  ),
]

/** A tally of what the query gave, but for the rows that are named. */
export const readCandidate = (fit: Fit, row: CandidateRow): CandidateTally => {
  const tally = startTally(fit.survey)
  const list = (name: string) => row[name] as readonly number[]
  const number = (name: string) => row[name] as number
  for (const [name, at] of Object.entries(wholeAt))
    for (const [group, sum] of list(`whole_${name}`).entries()) tally.whole[group * wholeCount + at] = sum
  for (const [name, at] of Object.entries(scalarAt)) tally.scalars[at] = number(`scalar_${name}`)
  tally.extremes.weightMax = number('weight_max')
  tally.untriedArms.set(fit.survey.armNames.map((_, arm) => number(`untried_${arm}`)))
  tally.moves.set(list('moves'))
  tally.overlap.set(list('overlap'))
  for (const [bin, keep] of list('weight_keep').entries())
    tally.weights.set([keep, list('weight_sum')[bin] ?? 0], bin * 2)
  for (const metric of measuredOf(fit)) readMetric(fit, row, metric, tally)
  readSpread(row, tally.bins)
  return tally
}

const readMetric = (fit: Fit, row: CandidateRow, metric: number, tally: CandidateTally): void => {
  const isShared = (term: Term) => !fit.isPartial[metric] && (shared as readonly Term[]).includes(term)
  for (const term of terms) {
    const sums = row[isShared(term) ? `whole_${term}` : `${term}_${metric}`] as readonly number[] | undefined
    for (const [group, sum] of (sums ?? []).entries())
      tally.sums[(group * metricCount + metric) * termCount + termAt[term]] = sum
  }
  for (const [name, at] of Object.entries(byMetricAt))
    tally.byMetric[metric * byMetricCount + at] = row[`${name}_${metric}`] as number
  tally.rewardLeast[metric] = (row[`least_${metric}`] as number | null) ?? Infinity
  tally.rewardMost[metric] = (row[`most_${metric}`] as number | null) ?? -Infinity
  tally.residuals.set(row[`residual_${metric}`] as readonly number[], metric * fit.survey.armNames.length)
  for (let at = 0; at < partTerms; at++)
    readParts((row[`part_${metric}_${at}`] ?? row.part_keep) as readonly number[], metric, at, tally)
}

/** A row counts in the part of its kind, where that is shown, and in its half of the window. */
const readParts = (sums: readonly number[], metric: number, at: number, { parts }: CandidateTally): void => {
  for (const [key, sum] of sums.entries()) {
    const [group, later, kind] = [
      key % partGroups,
      Math.floor(key / partGroups) % 2,
      Math.floor(key / (2 * partGroups)),
    ]
    for (const part of kind > 0 ? [kind - 1, kindsShownMax + later] : [kindsShownMax + later]) {
      const place = ((part * partGroups + group) * metricCount + metric) * partTerms + at
      parts[place] = (parts[place] as number) + sum
    }
  }
}
