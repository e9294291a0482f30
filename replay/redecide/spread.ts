// The distributions of amounts, as logged and under every candidate's weights, while they are added up: side by side, so that a row
// finds its group and bin of all of them in one place of the memory. As many histograms would be as many misses of the cache.
import { metricCount, metricNames, spreadMetrics } from '../estimate/metrics.ts'
import { type Bins, binCount, binOf, cutBin, emptyBins, quantileGroups } from '../estimate/quantiles.ts'
import { add } from '../estimate/terms.ts'
import type { Chunk, Fit } from './chunk.ts'

/** Histograms of the same values under so many masses. */
export const startSpread = (columns: number) => {
  const together = {
    mass: new Float64Array(quantileGroups * binCount * columns),
    amount: new Float64Array(binCount * columns),
    cutAt: new Float64Array(binCount * columns),
  }
  const { mass: masses, amount, cutAt } = together
  return {
    /** Adds a row whose value falls into the bin `seen`, in each with the mass k · weights[column][row]. */
    add: (
      group: number,
      seen: number,
      value: number,
      k: number,
      weights: readonly Float64Array[],
      row: number,
      cutShort: boolean,
    ): void => {
      const at = (group * binCount + (cutShort ? cutBin : seen)) * columns
      for (let column = 0; column < columns; column++) {
        const mass = k * ((weights[column] as Float64Array)[row] as number)
        add(masses, at + column, mass)
        add(amount, seen * columns + column, mass * value)
        if (cutShort) add(cutAt, seen * columns + column, mass)
      }
    },
    /** One histogram of them. */
    column: (column: number): Bins => {
      const bins = emptyBins()
      for (const name of ['mass', 'amount', 'cutAt'] as const) {
        const [to, from] = [bins[name], together[name]]
        for (let at = 0; at < to.length; at++) to[at] = from[at * columns + column] as number
      }
      return bins
    },
  }
}
export type Spread = ReturnType<typeof startSpread>

/** Adds the chunk to the distributions of amounts: as logged in the first column, and under each candidate's weights. */
export const addSpread = (fit: Fit, chunk: Chunk, order: Int32Array, spreads: readonly Spread[]): void => {
  const arms = fit.survey.armNames.length
  const weights = [new Float64Array(chunk.keep.length).fill(1), ...chunk.redecided.map(({ weight }) => weight)]
  for (const [place, { metric: name, scale }] of spreadMetrics.entries()) {
    const metric = metricNames.indexOf(name)
    const spread = spreads[place] as Spread
    for (let i = 0; i < order.length; i++) {
      const at = order[i] as number
      const value = chunk.outcomes[at * metricCount + metric] as number
      if (Number.isNaN(value)) continue
      const k = (chunk.keep[at] as number) * (fit.keepRatio[metric * arms + (chunk.arm[at] as number)] as number)
      const group = (chunk.group[at] as number) % quantileGroups
      const isCut = name === 'latency_ms' && chunk.cutShort[at] === 1
      spread.add(group, binOf(value * scale), value * scale, k, weights, at, isCut)
    }
  }
}
