// Candidates' sums in SQL: their policies compiled over the rows, what their probabilities say of each, and every term of every
// metric added up by group of clusters, all in the one query that also sums up the log. It is tally.ts over columns; the few
// rows that a report names come back as the ends of their ids, and are read and decided by the same code as everywhere.
import { metricCount, metricNames } from '../../estimate/metrics.ts'
import { type Term, termAt, termCount, terms } from '../../estimate/terms.ts'
import type { Goal } from '../../judge/gate.ts'
import type { Fit } from '../chunk.ts'
import {
  byMetricAt,
  byMetricCount,
  type CandidateTally,
  influenceMax,
  overlapBins,
  sampleMax,
  scalarAt,
  startTally,
  weightBins,
  weightBinsPerOctave,
  wholeAt,
  wholeCount,
} from '../tallies.ts'
import { measuredOf, predictedSql, readParts, type SumsRow, sumBy, sumByPart } from './columns.ts'
import { readSpread, spreadSql } from './spread.ts'
import { factorsOf, type Named } from './weighing.ts'

/** Metrics of which the report names the rows that move them most. */
const influenced: readonly Goal[] = ['cost_usd', 'latency_ms', 'quality']
/** Terms that every candidate has the same; the log's sums have them. */
const logged = ['r', 'q', 'qb', 'all', 'productionLow', 'productionHigh'] as const satisfies readonly Term[]
/** Terms whose sums are those of all rows where every outcome is known. */
const shared = ['n', 'w', 'u', 'x', 'xe', 'matched'] as const satisfies readonly Term[]

/** One metric's terms that `logged` does not have; what is `shared` is left out where no outcome is missing. */
const termsSql = (fit: Fit, { name }: Named, metric: number, hasUntried: boolean): Partial<Record<Term, string>> => {
  const [k, f] = [`x_k_${metric}`, factorsOf(fit, metric)]
  const [r, q, left, qb] = ['r', 'q', 'left', 'qb'].map((what) => `x_${what}_${metric}`)
  const [w, u, qe] = [`x_${name}_w`, `x_${name}_u`, `x_${name}_qe_${metric}`]
  const qu = hasUntried ? `x_${name}_qu_${metric}` : '0.0'
  const factor = (what: string) => `x_${name}_${what}_${f}`
  const known: Partial<Record<Term, string>> = {
    wr: `${factor('kw')} * ${r}`,
    wq: `${factor('kw')} * ${q}`,
    qe: `${k} * ${qe}`,
    ...(hasUntried ? { qu: `${k} * ${qu}` } : {}),
    weightedSquare: `pow(${factor('kw')} * ${r}, 2)`,
    clipped: `${factor('clipped')} * ${r}`,
    subGaussian: `${factor('smooth')} * ${r}`,
    switched: `${factor('switched')} * ${left}`,
    shrunk: `${factor('shrunk')} * ${left}`,
    matchedR: `${factor('matched')} * ${r}`,
  }
  if (!fit.isPartial[metric]) return known
  const missing = `isNull(m_${metric})`
  const low = `(if(${missing}, 0.0, ${r}) - ${q})`
  const high = `(if(${missing}, 1.0, ${r}) - ${q})`
  const difference = (end: string) =>
    `x_keep * (${qe} - ${qb} + (${w} - 1) * (if(${missing}, toFloat64(${w} ${end} 1), ${r}) - ${q}) - ${qu}`
  return {
    ...known,
    w: factor('kw'),
    ...(hasUntried ? { u: `${k} * ${u}` } : {}),
    x: `${k} * x_${name}_x`,
    xe: `${k} * x_${name}_xe`,
    matched: factor('matched'),
    candidateLow: `x_keep * (${qe} + ${w} * ${low} - ${qu})`,
    candidateHigh: `x_keep * (${qe} + ${w} * ${high} - ${qu} + ${u})`,
    differenceLow: `${difference('<')})`,
    differenceHigh: `${difference('>')} + ${u})`,
  }
}

/** The log's own terms of one metric, which stand in every candidate's sums. */
export const loggedTermsSql = ({ isPartial }: Fit, metric: number): Partial<Record<Term, string>> => {
  const [k, r, q, qb] = ['k', 'r', 'q', 'qb'].map((what) => `x_${what}_${metric}`)
  const known = { r: `${k} * ${r}`, q: `${k} * ${q}`, qb: `${k} * ${qb}` }
  const production = (missing: string) => `x_keep * (${qb} + if(isNull(m_${metric}), ${missing}, ${r}) - ${q})`
  return isPartial[metric]
    ? { ...known, n: `${k}`, all: 'x_keep', productionLow: production('0.0'), productionHigh: production('1.0') }
    : known
}

const wholeSql = ({ name }: Named, hasUntried: boolean) => ({
  w: `x_${name}_kw_all`,
  ...(hasUntried ? { u: `x_keep * x_${name}_u` } : {}),
  x: `x_keep * x_${name}_x`,
  xe: `x_keep * x_${name}_xe`,
  matched: `x_${name}_matched_all`,
})

const weightVariance = ({ name }: Named) => `greatest(0.0, x_${name}_w2 - (1 - x_${name}_u) * (1 - x_${name}_u))`
const excessVariance = ({ name }: Named) => `greatest(0.0, x_${name}_x2 - x_${name}_xe * x_${name}_xe)`

const scalarsSql = (named: Named): Readonly<Record<keyof typeof scalarAt, string>> => {
  const { name } = named
  const same = `x_${name}_same`
  return {
    observed: `x_${name}_matched_all`,
    untried: `if(${same}, 0.0, if(x_${name}_tried = 0, x_keep, 0.0))`,
    changedChoices: `toFloat64(NOT ${same})`,
    changedCostUsd: `if(${same}, 0.0, ifNull(x_${name}_usd, 0.0))`,
    changedCosts: `if(${same}, 0.0, toFloat64(isNotNull(x_${name}_usd)))`,
    changedRows: `toFloat64(x_${name}_changed)`,
    weightVariance: `x_keep * x_keep * ${weightVariance(named)}`,
    excessVariance: `x_keep * x_keep * ${excessVariance(named)}`,
    turns: "if(session != '', x_keep, 0.0)",
    changedTurns: `if(${same}, 0.0, if(session != '', x_keep, 0.0))`,
  }
}

const byMetricSql = (
  fit: Fit,
  named: Named,
  metric: number,
  hasUntried: boolean,
): Readonly<Record<keyof typeof byMetricAt, string>> => {
  const { name } = named
  const k = `x_k_${metric}`
  const lacking = [...fit.survey.armNames.keys()].flatMap((arm) => {
    const predicted = predictedSql(metric, arm)
    return predicted === null ? [] : [`x_${name}_t_${arm} > 0 AND isNull(${predicted})`]
  })
  return {
    missing: `if(isNull(m_${metric}), x_keep, 0.0)`,
    missingWeight: `if(isNull(m_${metric}), x_${name}_kw_all, 0.0)`,
    weightVariance: `${k} * ${k} * ${weightVariance(named)}`,
    excessVariance: `${k} * ${k} * ${excessVariance(named)}`,
    unpredicted:
      !hasUntried || lacking.length === 0 ? '0.0' : `toFloat64(x_${name}_u > 0 AND (${lacking.join(' OR ')}))`,
  }
}

/** Ends of ids by rank, the least first: the rank's bits before the id's, as one number that sorts like the pair. */
const firstIds = (rank: string, max: number, condition: string): string => {
  const key = `bitOr(bitShiftLeft(toUInt128(${rank}), 64), toUInt128(x_end))`
  return `arrayMap(x -> toString(toUInt64(x)), groupArraySortedIf(${max})(${key}, ${condition}))`
}

const metricAggregates = (fit: Fit, named: Named, metric: number, hasUntried: boolean): string[] => {
  const { armNames, clusters } = fit.survey
  const { name } = named
  const difference = `x_${name}_d_${metric}`
  const isHeavy = `if(isNull(m_${metric}), 0, x_${name}_w > 1)`
  // The bits of a number ≥ 0 sort like the number.
  const rank = `bitNot(reinterpretAsUInt64(abs(${difference})))`
  return [
    ...Object.entries(termsSql(fit, named, metric, hasUntried)).map(
      ([term, sql]) => `${sumBy(sql, 'x_group', clusters.groupCount)} AS ${name}_${term}_${metric}`,
    ),
    ...Object.entries(byMetricSql(fit, named, metric, hasUntried)).map(
      ([what, sql]) => `sum(${sql}) AS ${name}_${what}_${metric}`,
    ),
    `${sumByPart(difference)} AS ${name}_part_${metric}_2`,
    `${sumBy(`x_${name}_kw_${factorsOf(fit, metric)} * x_left_${metric}`, 'x_arm', armNames.length)} AS ${name}_residual_${metric}`,
    `minOrNullIf(x_r_${metric}, ${isHeavy}) AS ${name}_least_${metric}`,
    `maxOrNullIf(x_r_${metric}, ${isHeavy}) AS ${name}_most_${metric}`,
    ...(influenced.some((goal) => goal === metricNames[metric])
      ? [`${firstIds(rank, influenceMax, `${difference} != 0`)} AS ${name}_movers_${metric}`]
      : []),
  ]
}

/** All sums of one candidate. Without `hasUntried` they hold as long as `NAME_untried_rows` comes out as 0. */
export const candidateSql = (fit: Fit, named: Named, hasUntried: boolean): string[] => {
  const { armNames, clusters } = fit.survey
  const { name } = named
  const [w, tried] = [`x_${name}_w`, `x_${name}_tried`]
  const octave = `if(${tried} > 0, least(${overlapBins - 1}, floor(-log2(${tried}))), ${overlapBins - 1})`
  const bin = `if(${w} > 0, floor(log2(${w}) * ${weightBinsPerOctave}) + ${weightBins / 2}, 0)`
  const weightBin = `greatest(0, least(${weightBins - 1}, ${bin}))`
  return [
    ...Object.entries(wholeSql(named, hasUntried)).map(
      ([what, sql]) => `${sumBy(sql, 'x_group', clusters.groupCount)} AS ${name}_whole_${what}`,
    ),
    ...Object.entries(scalarsSql(named)).map(([what, sql]) => `sum(${sql}) AS ${name}_scalar_${what}`),
    `max(${w}) AS ${name}_weight_max`,
    ...armNames.map((_, arm) => `sum(x_keep * x_${name}_t_${arm}) AS ${name}_untried_${arm}`),
    `${sumBy('1', `x_arm * ${armNames.length} + x_${name}_to`, armNames.length ** 2)} AS ${name}_moves`,
    `${sumBy('x_keep', octave, overlapBins)} AS ${name}_overlap`,
    `${sumBy('x_keep', weightBin, weightBins)} AS ${name}_weight_keep`,
    `${sumBy(`x_${name}_kw_all`, weightBin, weightBins)} AS ${name}_weight_sum`,
    `toFloat64(countIf(x_${name}_u > 0)) AS ${name}_untried_rows`,
    ...measuredOf(fit).flatMap((metric) => metricAggregates(fit, named, metric, hasUntried)),
    ...spreadSql(fit, name, w),
    `${firstIds('x_lot', sampleMax, `NOT x_${name}_same`)} AS ${name}_sample`,
  ]
}

/** The ends of the ids of the rows that a report may name. */
export const namedEnds = (row: SumsRow, name: string): readonly string[] =>
  Object.entries(row)
    .filter(([column]) => column === `${name}_sample` || column.startsWith(`${name}_movers_`))
    .flatMap(([, found]) => found as readonly string[])

/** A tally of what the query gave for the log and a candidate, but for the rows that are named. */
export const readCandidate = (fit: Fit, row: SumsRow, name: string): CandidateTally => {
  const tally = startTally(fit.survey)
  const list = (column: string) => (row[`${name}_${column}`] ?? []) as readonly number[]
  const number = (column: string) => row[`${name}_${column}`] as number
  for (const [what, at] of Object.entries(wholeAt)) {
    const sums = what === 'n' ? (row.whole_n as readonly number[]) : list(`whole_${what}`)
    for (const [group, sum] of sums.entries()) tally.whole[group * wholeCount + at] = sum
  }
  for (const [what, at] of Object.entries(scalarAt)) tally.scalars[at] = number(`scalar_${what}`)
  tally.extremes.weightMax = number('weight_max')
  tally.untriedArms.set(fit.survey.armNames.map((_, arm) => number(`untried_${arm}`)))
  tally.moves.set(list('moves'))
  tally.overlap.set(list('overlap'))
  for (const [bin, keep] of list('weight_keep').entries())
    tally.weights.set([keep, list('weight_sum')[bin] ?? 0], bin * 2)
  for (const metric of measuredOf(fit)) readMetric(fit, row, name, metric, tally)
  readSpread(row, name, tally.bins)
  return tally
}

/** The column that holds one term of one metric. */
const columnOf = ({ isPartial }: Fit, name: string, term: Term, metric: number): string => {
  const isIn = (list: readonly Term[]) => list.includes(term)
  if (isIn(logged) || (term === 'n' && isPartial[metric])) return `${term}_${metric}`
  if (isPartial[metric] || !isIn(shared)) return `${name}_${term}_${metric}`
  return term === 'n' ? 'whole_n' : `${name}_whole_${term}`
}

const readMetric = (fit: Fit, row: SumsRow, name: string, metric: number, tally: CandidateTally): void => {
  for (const term of terms) {
    const sums = row[columnOf(fit, name, term, metric)] as readonly number[] | undefined
    for (const [group, sum] of (sums ?? []).entries())
      tally.sums[(group * metricCount + metric) * termCount + termAt[term]] = sum
  }
  for (const [what, at] of Object.entries(byMetricAt))
    tally.byMetric[metric * byMetricCount + at] = row[`${name}_${what}_${metric}`] as number
  tally.rewardLeast[metric] = (row[`${name}_least_${metric}`] as number | null) ?? Infinity
  tally.rewardMost[metric] = (row[`${name}_most_${metric}`] as number | null) ?? -Infinity
  tally.residuals.set(row[`${name}_residual_${metric}`] as readonly number[], metric * fit.survey.armNames.length)
  for (const [at, column] of [`part_${metric}_0`, `part_${metric}_1`, `${name}_part_${metric}_2`].entries())
    readParts(row[column] as readonly number[], metric, at, tally)
}
