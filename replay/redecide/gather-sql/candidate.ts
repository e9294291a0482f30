// A candidate's sums in SQL: its policy compiled over the rows, what its probabilities say of each, and every term of every
// metric added up by group of clusters, in one query that gives one row of arrays. It is tally.ts over columns; the few rows
// that a report names come back as ids, and are read and decided by the same code as everywhere.
import type { PolicySql } from '../../../router/policy/sql.ts'
import { metricCount, metricNames } from '../../estimate/metrics.ts'
import { type Term, termAt, termCount, terms } from '../../estimate/terms.ts'
import type { Goal } from '../../judge/gate.ts'
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
import { loggedRows, measuredOf, predictedSql, type SumsRow, settings, sumBy } from './columns.ts'
import { readSpread, spreadSql } from './spread.ts'
import { differenceOf, factorsOf, weighedSql } from './weighing.ts'

/** Metrics of which the report names the rows that move them most. */
const named: readonly Goal[] = ['cost_usd', 'latency_ms', 'quality']
const partKeys = (kindsShownMax + 1) * 2 * partGroups
/** Terms whose sums are those of all rows where every outcome is known. */
const shared = ['n', 'w', 'u', 'x', 'xe', 'matched'] as const satisfies readonly Term[]

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
    weightedSquare: `pow(f_w_${f} * ${r}, 2)`,
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
  turns: "if(session != '', x_keep, 0.0)",
  changedTurns: "if(session != '' AND NOT x_same, x_keep, 0.0)",
}

const byMetricSql = (
  fit: Fit,
  metric: number,
  hasUntried: boolean,
): Readonly<Record<keyof typeof byMetricAt, string>> => {
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
    unpredicted: !hasUntried || lacking.length === 0 ? '0.0' : `toFloat64(x_u > 0 AND (${lacking.join(' OR ')}))`,
  }
}

/** The end of an id as a number, by which its row can be found: its beginning is a time, and shared by many. */
const endOfId = 'toUInt64(bitShiftRight(reinterpretAsUInt128(decision_id), 64))'

/** Ends of ids by rank, the least first: the rank's bits before the id's, as one number that sorts like the pair. */
const firstIds = (rank: string, max: number, condition: string): string => {
  const key = `bitOr(bitShiftLeft(toUInt128(${rank}), 64), toUInt128(${endOfId}))`
  return `arrayMap(x -> toString(toUInt64(x)), groupArraySortedIf(${max})(${key}, ${condition}))`
}

const partSql = `(x_kind * 2 + x_later) * ${partGroups} + x_group % ${partGroups}`

const metricAggregates = (fit: Fit, metric: number, hasUntried: boolean): string[] => {
  const { armNames, clusters } = fit.survey
  const [difference, left] = [differenceOf(metric), `x_left_${metric}`]
  const inPart = [`x_k_${metric}`, `x_k_${metric} * (x_qb_${metric} + ${left})`, difference]
  const isHeavy = `x_w > 1 AND isNotNull(m_${metric})`
  // The bits of a number ≥ 0 sort like the number.
  const rank = `bitNot(reinterpretAsUInt64(abs(${difference})))`
  const isNamed = named.some((name) => name === metricNames[metric])
  return [
    ...Object.entries(termsSql(fit, metric)).map(
      ([term, sql]) => `${sumBy(sql, 'x_group', clusters.groupCount)} AS ${term}_${metric}`,
    ),
    ...Object.entries(byMetricSql(fit, metric, hasUntried)).map(([name, sql]) => `sum(${sql}) AS ${name}_${metric}`),
    ...inPart.map((sql, at) => `${sumBy(sql, partSql, partKeys)} AS part_${metric}_${at}`),
    `${sumBy(`f_w_${factorsOf(fit, metric)} * ${left}`, 'x_arm', armNames.length)} AS residual_${metric}`,
    `minOrNullIf(x_r_${metric}, ${isHeavy}) AS least_${metric}`,
    `maxOrNullIf(x_r_${metric}, ${isHeavy}) AS most_${metric}`,
    ...(isNamed ? [`${firstIds(rank, influenceMax, `${difference} != 0`)} AS movers_${metric}`] : []),
  ]
}

/**
 * The query of all sums of one candidate, as one row of numbers and arrays. Without `hasUntried` it
 * holds as long as `untried_rows` comes out as 0.
 */
export const candidateSql = (fit: Fit, policy: PolicySql, selected: string, hasUntried: boolean): string => {
  const { armNames, clusters } = fit.survey
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
    'toFloat64(countIf(x_u > 0)) AS untried_rows',
    ...measuredOf(fit).flatMap((metric) => metricAggregates(fit, metric, hasUntried)),
    ...spreadSql(fit, 'x_w'),
    `${firstIds(lot, sampleMax, 'NOT x_same')} AS sample`,
  ]
  return `SELECT ${aggregates.join(',\n')}\nFROM ${weighedSql(fit, policy, loggedRows(selected), hasUntried)}\n${settings}`
}

/** The condition of the rows that a report may name, and of few others; null where there are none. */
export const namedRows = (row: SumsRow): string | null => {
  const lists = Object.entries(row).filter(([name]) => name === 'sample' || name.startsWith('movers_'))
  const ends = lists.flatMap(([, found]) => found as readonly string[])
  return ends.length === 0 ? null : `${endOfId} IN (${[...new Set(ends)].join(', ')})`
}

/** A tally of what the query gave, but for the rows that are named. */
export const readCandidate = (fit: Fit, row: SumsRow): CandidateTally => {
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

const readMetric = (fit: Fit, row: SumsRow, metric: number, tally: CandidateTally): void => {
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
  for (let at = 0; at < partTerms; at++) readParts(row[`part_${metric}_${at}`] as readonly number[], metric, at, tally)
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
