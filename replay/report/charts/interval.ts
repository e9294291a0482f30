// One row of a forest plot: a dot with its interval on a strip whose middle is "no difference" and whose right is always
// better, so that metrics of opposite directions can be read down one column. The numbers stand beside it, as text.
import * as Plot from '@observablehq/plot'
import type { Estimate } from '../../estimate/estimators.ts'
import { type MetricName, metrics } from '../../estimate/metrics.ts'
import type { Markup } from '../markup.ts'
import { colours, draw } from './draw.ts'

const stripWidth = 240
const stripHeight = 24
const room = 1.08

type Interval = Pick<Estimate, 'value' | 'low' | 'high'>

/** How far a strip must reach to either side to hold these differences and the margin; never 0. */
export const reachOf = (intervals: readonly Interval[], margin = 0): number => {
  const ends = intervals.flatMap(({ value, low, high }) => [value, low, high]).filter(Number.isFinite)
  return room * Math.max(margin, ...ends.map(Math.abs)) || 1
}

/** Colour by what the interval shows, whether or not the gate asks for it. */
const colourOf = (metric: MetricName, { low, high }: Interval): string => {
  if (!(low > 0 || high < 0)) return colours.neutral
  return high < 0 === (metrics[metric].better === 'lower') ? colours.good : colours.bad
}

/** A difference in its metric's unit; `reach` is the strip's half width in the same unit, `margin` the harm tolerated. */
export const intervalStrip = (metric: MetricName, difference: Interval, reach: number, margin?: number): Markup => {
  const sign = metrics[metric].better === 'higher' ? 1 : -1
  const place = (value: number) => Math.max(-1, Math.min(1, (sign * value) / reach))
  const [value, low, high] = [difference.value, difference.low, difference.high].map(place) as [number, number, number]
  const stroke = colourOf(metric, difference)
  const { say, title } = metrics[metric]
  return draw(
    {
      width: stripWidth,
      height: stripHeight,
      margin: 0,
      x: { domain: [-1, 1], axis: null },
      y: { domain: [-1, 1], axis: null },
      marks: [
        Plot.ruleY([0], { stroke: colours.line }),
        Plot.ruleX([0], { stroke: colours.ink, strokeOpacity: 0.55 }),
        Plot.ruleX(margin === undefined ? [] : [-margin / reach], { stroke: colours.bad, strokeDasharray: '3 2' }),
        Plot.ruleY([0], {
          x1: Math.min(low, high),
          x2: Math.max(low, high),
          stroke,
          strokeWidth: 3.5,
          strokeLinecap: 'round',
        }),
        Plot.dot([value], { x: (x: number) => x, y: () => 0, fill: stroke, r: 5.5 }),
      ],
    },
    `${title}: difference ${say(difference.value)}, 95 % interval ${say(difference.low)} to ${say(difference.high)}`,
  )
}
