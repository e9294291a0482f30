// What the log shows whoever the candidate is, as sums in SQL: tally-log.ts over columns.
import { type MetricName, metricNames, metrics } from '../../estimate/metrics.ts'
import type { Fit } from '../chunk.ts'
import { calibrationBins, type LogTally, startLogTally } from '../tallies.ts'
import { firstOctave } from '../tally-log.ts'
import { loggedTermsSql } from './candidate.ts'
import { measuredOf, type SumsRow, sumBy, sumByPart } from './columns.ts'
import { readSpread, spreadSql } from './spread.ts'

/** All rows, and each metric whose outcomes are not all known: the variants of the audit of arms, with their weight. */
const variantsOf = (fit: Fit): (readonly [variant: number, k: string])[] => [
  [0, 'x_keep'],
  ...measuredOf(fit).flatMap((metric) => (fit.isPartial[metric] ? [[metric + 1, `x_k_${metric}`] as const] : [])),
]

/** The bin of what is expected: shares in equal steps, amounts in powers of two. */
const binSql = (q: string, metric: MetricName): string => {
  const bin =
    metrics[metric].range !== null
      ? `floor(${q} * ${calibrationBins})`
      : `floor(log2(greatest(${q}, 5e-324))) - (${firstOctave[metric] ?? 0})`
  return `greatest(0, least(${calibrationBins - 1}, ${bin}))`
}

/** All sums that no candidate changes, and those of every candidate's terms that are the log's. */
export const logSql = (fit: Fit): string[] => {
  const { armNames, clusters } = fit.survey
  const arms = variantsOf(fit).flatMap(([variant, k]) =>
    armNames.flatMap((_, arm) => {
      const [b, name] = [`x_b_${arm}`, `${variant}_${arm}`]
      const chosen = `x_is_${arm} * if(${b} > 0, ${k} / ${b}, 0.0)`
      return [
        `${sumBy(chosen, 'x_group', clusters.groupCount)} AS drawn_${name}`,
        `${sumBy(`if(${b} > 0, ${k}, 0.0)`, 'x_group', clusters.groupCount)} AS keep_${name}`,
        `sum(if(${b} > 0, ${k} * ${k} * (1 - ${b}) / ${b}, 0.0)) AS variance_${name}`,
        `sum(if(${k} > 0, ${b}, 0.0)) AS draws_${name}`,
      ]
    }),
  )
  const calibration = measuredOf(fit).flatMap((metric) => {
    const bin = binSql(`x_q_${metric}`, metricNames[metric] as MetricName)
    return [`x_q_${metric}`, `x_r_${metric}`, '1'].map(
      (value, at) => `${sumBy(`x_k_${metric} * ${value}`, bin, calibrationBins)} AS calibration_${metric}_${at}`,
    )
  })
  const terms = measuredOf(fit).flatMap((metric) => [
    ...Object.entries(loggedTermsSql(fit, metric)).map(
      ([term, sql]) => `${sumBy(sql, 'x_group', clusters.groupCount)} AS ${term}_${metric}`,
    ),
    ...[`x_k_${metric}`, `x_k_${metric} * (x_qb_${metric} + x_left_${metric})`].map(
      (sql, at) => `${sumByPart(sql)} AS part_${metric}_${at}`,
    ),
  ])
  const whole = `${sumBy('x_keep', 'x_group', clusters.groupCount)} AS whole_n`
  return [whole, ...arms, ...calibration, ...terms, ...spreadSql(fit, 'log', '1')]
}

export const readLog = (fit: Fit, row: SumsRow): LogTally => {
  const log = startLogTally(fit.survey)
  const { armNames, clusters } = fit.survey
  const { length: arms } = armNames
  const list = (name: string) => row[name] as readonly number[]
  for (const [variant] of variantsOf(fit))
    for (const arm of armNames.keys()) {
      const name = `${variant}_${arm}`
      const [drawn, keep] = [list(`drawn_${name}`), list(`keep_${name}`)]
      for (let group = 0; group < clusters.groupCount; group++)
        log.arms.set([drawn[group] ?? 0, keep[group] ?? 0], ((variant * clusters.groupCount + group) * arms + arm) * 2)
      const kept = keep.reduce((sum, k) => sum + k, 0)
      log.armScalars.set(
        [row[`variance_${name}`] as number, kept, row[`draws_${name}`] as number],
        (variant * arms + arm) * 3,
      )
    }
  for (const metric of metricNames.keys())
    for (const at of [0, 1, 2])
      for (const [bin, sum] of (list(`calibration_${metric}_${at}`) ?? []).entries())
        log.calibration[(metric * calibrationBins + bin) * 3 + at] = sum
  readSpread(row, 'log', log.bins)
  return log
}
