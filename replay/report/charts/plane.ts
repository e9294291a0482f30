// Cost against quality: production, candidate and, when a search found one, the front that no searched policy beats in
// both. Every point carries its name; the crosses are 95 % intervals.
import * as Plot from '@observablehq/plot'
import type { MetricResult } from '../../estimate/evaluate.ts'
import { metrics } from '../../estimate/metrics.ts'
import type { Markup } from '../markup.ts'
import { colours, draw, label, padded, scaleOf } from './draw.ts'

const frontShownMax = 40
const frontNamedMax = 6

/** One policy of a Pareto front: US dollars per request, and quality from 0 to 1. */
export type FrontPoint = { readonly name: string; readonly costUsd: number; readonly quality: number }

const pointOf = (policy: 'production' | 'candidate', cost: MetricResult, quality: MetricResult) => ({
  policy,
  x: cost[policy].value * scaleOf('cost_usd'),
  x1: cost[policy].low * scaleOf('cost_usd'),
  x2: cost[policy].high * scaleOf('cost_usd'),
  y: quality[policy].value,
  /** Names stand on the side away from the other policy. */
  above: quality[policy].value >= quality[policy === 'candidate' ? 'production' : 'candidate'].value,
  y1: quality[policy].low,
  y2: quality[policy].high,
  colour: colours[policy],
})

/** The plane of cost and quality; null unless both are known. */
export const planeChart = (results: readonly MetricResult[], front: readonly FrontPoint[] = []): Markup | null => {
  const [cost, quality] = (['cost_usd', 'quality'] as const).map((name) =>
    results.find(({ metric }) => metric === name),
  )
  if (!cost?.rows || !quality?.rows) return null
  const [before, after] = [pointOf('production', cost, quality), pointOf('candidate', cost, quality)]
  const points = [before, after]
  const others = front
    .slice(0, frontShownMax)
    .map(({ name, costUsd, quality: y }) => ({ name: label(name), x: costUsd * scaleOf('cost_usd'), y }))
    .sort((a, b) => a.x - b.x)
  const xs = [...points.flatMap(({ x1, x2 }) => [x1, x2]), ...others.map(({ x }) => x)]
  const ys = [...points.flatMap(({ y1, y2 }) => [y1, y2]), ...others.map(({ y }) => y)]
  const [left, right] = padded(xs, 0.18)
  const middle = (left + right) / 2
  const nameAt = (isLeft: boolean, isAbove: boolean) =>
    Plot.text(
      points.filter(({ x, above }) => x <= middle === isLeft && above === isAbove),
      {
        x: 'x',
        y: 'y',
        text: 'policy',
        fill: 'colour',
        fontWeight: 600,
        fontSize: 14,
        textAnchor: isLeft ? 'start' : 'end',
        dx: isLeft ? 8 : -8,
        dy: isAbove ? -13 : 15,
      },
    )
  return draw(
    {
      height: 300,
      marginLeft: 50,
      marginRight: 14,
      marginTop: 26,
      marginBottom: 40,
      grid: true,
      x: { domain: [Math.max(0, left), right], ticks: 5, label: metrics.cost_usd.title, labelAnchor: 'right' },
      y: { domain: padded(ys, 0.18), ticks: 5, label: 'quality' },
      marks: [
        Plot.line(others, { x: 'x', y: 'y', curve: 'step-after', stroke: colours.neutral, strokeDasharray: '2 3' }),
        Plot.dot(others, { x: 'x', y: 'y', stroke: colours.neutral, fill: 'var(--page)', r: 3.5 }),
        Plot.text(others.slice(0, frontNamedMax), {
          x: 'x',
          y: 'y',
          text: 'name',
          dy: 14,
          fill: 'var(--quiet)',
          fontSize: 11,
        }),
        Plot.arrow([0], {
          x1: before.x,
          y1: before.y,
          x2: after.x,
          y2: after.y,
          inset: 9,
          stroke: colours.neutral,
          headLength: 7,
        }),
        Plot.ruleY(points, { y: 'y', x1: 'x1', x2: 'x2', stroke: 'colour', strokeWidth: 2.5 }),
        Plot.ruleX(points, { x: 'x', y1: 'y1', y2: 'y2', stroke: 'colour', strokeWidth: 2.5 }),
        Plot.dot(points, { x: 'x', y: 'y', fill: 'colour', r: 6.5 }),
        ...[true, false].flatMap((isLeft) => [nameAt(isLeft, true), nameAt(isLeft, false)]),
      ],
    },
    'Cost and quality of production and candidate, with 95 % intervals',
  )
}
