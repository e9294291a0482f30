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

type Point = ReturnType<typeof pointOf>

/** A policy's name beside its point. */
const nameMark = (point: Point, middle: number): Plot.Markish =>
  Plot.text([point], {
    x: 'x',
    y: 'y',
    text: 'policy',
    fill: 'colour',
    fontWeight: 600,
    fontSize: 14,
    textAnchor: point.x <= middle ? 'start' : 'end',
    dx: point.x <= middle ? 8 : -8,
    dy: point.above ? -13 : 15,
  })

const policyMarks = (before: Point, after: Point, middle: number): Plot.Markish[] => {
  const points = [before, after]
  const way = { x1: before.x, y1: before.y, x2: after.x, y2: after.y }
  return [
    Plot.arrow([0], { ...way, inset: 9, stroke: colours.neutral, headLength: 7 }),
    Plot.ruleY(points, { y: 'y', x1: 'x1', x2: 'x2', stroke: 'colour', strokeWidth: 2.5 }),
    Plot.ruleX(points, { x: 'x', y1: 'y1', y2: 'y2', stroke: 'colour', strokeWidth: 2.5 }),
    Plot.dot(points, { x: 'x', y: 'y', fill: 'colour', r: 6.5 }),
    ...points.map((point) => nameMark(point, middle)),
  ]
}

type Spot = { readonly name: string; readonly x: number; readonly y: number }

const frontMarks = (spots: readonly Spot[]): Plot.Markish[] => [
  Plot.line(spots, { x: 'x', y: 'y', curve: 'step-after', stroke: colours.neutral, strokeDasharray: '2 3' }),
  Plot.dot(spots, { x: 'x', y: 'y', stroke: colours.neutral, fill: 'var(--page)', r: 3.5 }),
  Plot.text(spots.slice(0, frontNamedMax), {
    x: 'x',
    y: 'y',
    text: 'name',
    dy: 14,
    fill: 'var(--quiet)',
    fontSize: 11,
  }),
]

/** The plane of cost and quality; null unless both are known. */
export const planeChart = (results: readonly MetricResult[], front: readonly FrontPoint[] = []): Markup | null => {
  const [cost, quality] = (['cost_usd', 'quality'] as const).map((name) =>
    results.find(({ metric }) => metric === name),
  )
  if (!cost?.rows || !quality?.rows) return null
  const [before, after] = [pointOf('production', cost, quality), pointOf('candidate', cost, quality)]
  const spots = front
    .slice(0, frontShownMax)
    .map(({ name, costUsd, quality: y }) => ({ name: label(name), x: costUsd * scaleOf('cost_usd'), y }))
    .sort((a, b) => a.x - b.x)
  const xs = [before, after].flatMap(({ x1, x2 }) => [x1, x2])
  const ys = [before, after].flatMap(({ y1, y2 }) => [y1, y2])
  const [left, right] = padded([...xs, ...spots.map(({ x }) => x)], 0.18)
  return draw(
    {
      height: 300,
      marginLeft: 50,
      marginRight: 14,
      marginTop: 26,
      marginBottom: 40,
      grid: true,
      x: { domain: [Math.max(0, left), right], ticks: 5, label: metrics.cost_usd.title, labelAnchor: 'right' },
      y: { domain: padded([...ys, ...spots.map(({ y }) => y)], 0.18), ticks: 5, label: 'quality' },
      marks: [...frontMarks(spots), ...policyMarks(before, after, (left + right) / 2)],
    },
    'Cost and quality of production and candidate, with 95 % intervals',
  )
}
