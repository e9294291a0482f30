// The distributions of amounts as sums in SQL: the bins of quantiles.ts, by group of clusters, as arrays that are read back.
import { metricNames, spreadMetrics } from '../../estimate/metrics.ts'
import { type Bins, binRatio, emptyBins, lowest, quantileGroups } from '../../estimate/quantiles.ts'
import type { Fit } from '../chunk.ts'
import { sumBy } from './columns.ts'

const { length: binCount } = emptyBins().amount
const [aboveBin, cutBin] = [binCount - 2, binCount - 1]

/** Aggregates over rows of `rowsSql`, weighted by `weight`; an unmeasured metric has none. */
export const spreadSql = ({ models }: Fit, weight: string): string[] =>
  spreadMetrics.flatMap(({ metric: name, scale }, at) => {
    const metric = metricNames.indexOf(name)
    if (models[metric] === null) return []
    const value = `(x_r_${metric} * ${scale})`
    const bin = `if(${value} < ${lowest}, 0, least(${aboveBin}, 1 + floor(log(${value} / ${lowest}) / log(${binRatio}))))`
    const isCut = name === 'latency_ms' ? 'x_cut' : 'false'
    const mass = `x_k_${metric} * ${weight}`
    const place = `(x_group % ${quantileGroups}) * ${binCount} + if(${isCut}, ${cutBin}, ${bin})`
    return [
      `${sumBy(mass, place, quantileGroups * binCount)} AS mass_${at}`,
      `${sumBy(`${mass} * ${value}`, bin, binCount)} AS amount_${at}`,
      `${sumBy(`if(${isCut}, ${mass}, 0)`, bin, binCount)} AS cut_at_${at}`,
    ]
  })

/** Takes what these aggregates gave. */
export const readSpread = (row: Readonly<Record<string, unknown>>, bins: readonly Bins[]): void => {
  for (const [at, { mass, amount, cutAt }] of bins.entries())
    for (const [name, column] of Object.entries({ mass, amount, cut_at: cutAt }))
      column.set((row[`${name}_${at}`] as number[] | undefined) ?? [])
}
