// The distributions of amounts as sums in SQL: the bins of quantiles.ts, by group of clusters, as arrays that are read back.
import { metricNames, spreadMetrics } from '../../estimate/metrics.ts'
import { type Bins, binRatio, emptyBins, lowest, quantileGroups } from '../../estimate/quantiles.ts'
import type { Fit } from '../chunk.ts'
import { type Pair, pairsBy, type SumsRow, sumBy } from './columns.ts'

const { length: binCount } = emptyBins().amount
const [aboveBin, cutBin] = [binCount - 2, binCount - 1]

/** Aggregates over rows of `rowsSql`, weighted by `weight`, their names beginning with `name`; an unmeasured metric has none. */
export const spreadSql = ({ models }: Fit, name: string, weight: string): string[] =>
  spreadMetrics.flatMap(({ metric: goal, scale }, at) => {
    const metric = metricNames.indexOf(goal)
    if (models[metric] === null) return []
    const value = `(x_r_${metric} * ${scale})`
    const bin = `if(${value} < ${lowest}, 0, least(${aboveBin}, 1 + floor(log(${value} / ${lowest}) / log(${binRatio}))))`
    const mass = `x_k_${metric} * ${weight}`
    const isCensored = goal === 'latency_ms'
    const place = `(x_group % ${quantileGroups}) * ${binCount} + ${isCensored ? `if(x_cut, ${cutBin}, ${bin})` : bin}`
    return [
      `${pairsBy(mass, place, quantileGroups * binCount)} AS ${name}_mass_${at}`,
      `${sumBy(`${mass} * ${value}`, bin, binCount)} AS ${name}_amount_${at}`,
      ...(isCensored ? [`${sumBy(`if(x_cut, ${mass}, 0)`, bin, binCount)} AS ${name}_cut_at_${at}`] : []),
    ]
  })

/** Takes what these aggregates gave. */
export const readSpread = (row: SumsRow, name: string, bins: readonly Bins[]): void => {
  for (const [at, { mass, amount, cutAt }] of bins.entries()) {
    for (const [place, sum] of (row[`${name}_mass_${at}`] ?? []) as readonly Pair[]) mass[place] = sum
    amount.set((row[`${name}_amount_${at}`] ?? []) as readonly number[])
    cutAt.set((row[`${name}_cut_at_${at}`] ?? []) as readonly number[])
  }
}
