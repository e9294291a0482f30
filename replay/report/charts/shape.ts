// Pictures of how values are spread: distribution functions of production and candidate, histograms over powers of two, and
// the outcome model's predictions against what was seen.
import * as Plot from '@observablehq/plot'
import type { Bar, CalibrationBin, Distribution, Quantile } from '../../estimate/detail.ts'
import { type MetricName, metrics } from '../../estimate/metrics.ts'
import type { Markup } from '../markup.ts'
import { colours, draw, padded, scaleOf } from './draw.ts'

/** Beyond this ratio of the largest value to the median an axis is logarithmic. */
const linearRatioMax = 6
const pointsShownMax = 160
const ticksMax = 9

/** At most `max` of the points, the ends among them. */
const thinned = <T>(points: readonly T[], max: number): T[] =>
  points.filter((_, at) => at === points.length - 1 || at % Math.max(1, Math.ceil(points.length / max)) === 0)

/** What share of requests took at most so long, under either policy, with dots at the quantiles. */
export const distributionChart = ({ metric, points }: Distribution, quantiles: readonly Quantile[]): Markup => {
  const shown = thinned(points, pointsShownMax)
  const values = shown.map(({ value }) => value).filter((value) => value > 0)
  const [least, most] = [Math.min(...values), Math.max(...values)]
  const median = shown.find(({ production }) => production >= 0.5)?.value ?? most
  const isLog = most / median > linearRatioMax && least > 0
  const marks = quantiles
    .filter((quantile) => quantile.metric === metric)
    .flatMap(({ p, production, candidate }) => [
      { p, x: production.value, colour: colours.production },
      { p, x: candidate.value, colour: colours.candidate },
    ])
  const curve = (policy: 'production' | 'candidate', strokeDasharray: string) =>
    Plot.line(shown, {
      x: 'value',
      y: policy,
      curve: 'step-after',
      stroke: colours[policy],
      strokeWidth: 2.2,
      strokeDasharray,
    })
  return draw(
    {
      height: 260,
      marginLeft: 44,
      marginRight: 34,
      marginTop: 12,
      marginBottom: 38,
      x: {
        type: isLog ? 'log' : 'linear',
        domain: isLog ? [least, most] : [0, most],
        ticks: 5,
        tickFormat: '~s',
        label: 'ms',
        labelArrow: 'none',
      },
      y: { domain: [0, 1], ticks: [0, 0.25, 0.5, 0.75, 1], tickFormat: '.0%', label: null },
      marks: [
        Plot.gridY([0, 0.25, 0.5, 0.75, 1], { stroke: colours.line, strokeOpacity: 1 }),
        curve('production', '5 3'),
        curve('candidate', ''),
        Plot.dot(marks, { x: 'x', y: 'p', fill: 'colour', stroke: 'var(--page)', strokeWidth: 1.5, r: 4.5 }),
        Plot.text([0.5, 0.95], {
          frameAnchor: 'right',
          y: (p: number) => p,
          dx: 4,
          text: (p: number) => `p${p * 100}`,
          textAnchor: 'start',
          fill: 'var(--quiet)',
          fontSize: 11,
        }),
      ],
    },
    `Distribution of ${metrics[metric].title.replace('mean ', '')} under production and candidate`,
  )
}

/** 1/8, 0.5, 3: a power of two as people write it. */
const powerText = (value: number): string =>
  value > 0 && value < 1 ? `1/${Math.round(1 / value)}` : String(Math.round(value))

/** Shares of rows over bars whose ends are powers of two; a bar that begins at 0 stands to the left of all others. */
export const histogram = (bars: readonly Bar[], title: string, colour: string): Markup => {
  const powers = bars.flatMap(({ from, to }) => [from, to].filter((end) => end > 0).map(Math.log2))
  const [least, most] = [Math.min(...powers), Math.max(...powers)]
  const placeOf = (end: number): number => (end > 0 ? Math.log2(end) : least - 1)
  const placed = bars.map(({ from, to, share }) => ({
    x1: placeOf(from),
    x2: from > 0 ? placeOf(to) : least,
    share,
  }))
  const start = Math.min(...placed.map(({ x1 }) => x1))
  const every = Math.ceil((most - start) / ticksMax)
  const ticks = Array.from({ length: Math.floor((most - start) / every) + 1 }, (_, at) => start + at * every)
  const named = ticks.map((place) => ({ place, text: place < least ? '0' : powerText(2 ** place) }))
  return draw(
    {
      height: 210,
      marginLeft: 44,
      marginRight: 16,
      marginTop: 16,
      marginBottom: 34,
      x: { domain: [start, most], axis: null },
      y: { tickFormat: '.0%', ticks: 4, label: null, grid: true },
      marks: [
        Plot.rectY(placed, { x1: 'x1', x2: 'x2', y: 'share', fill: colour, insetLeft: 1, insetRight: 1, rx: 2 }),
        Plot.ruleY([0], { stroke: colours.ink, strokeOpacity: 0.5 }),
        Plot.text(named, { x: 'place', frameAnchor: 'bottom', dy: 16, text: 'text', fill: 'var(--quiet)' }),
      ],
    },
    title,
  )
}

/** The outcome model's predictions against the outcomes seen; on the diagonal it is right on average. */
export const calibrationChart = (metric: MetricName, bins: readonly CalibrationBin[]): Markup => {
  const scale = scaleOf(metric)
  const points = bins.map(({ predicted, observed, rows }) => ({ x: predicted * scale, y: observed * scale, rows }))
  const domain = padded(
    points.flatMap(({ x, y }) => [x, y]),
    0.08,
  )
  return draw(
    {
      height: 260,
      marginLeft: 54,
      marginRight: 16,
      marginTop: 24,
      marginBottom: 40,
      grid: true,
      x: { domain, ticks: 5, label: 'predicted' },
      y: { domain, ticks: 5, label: 'seen' },
      r: { range: [2.5, 9] },
      marks: [
        Plot.line(
          [domain, domain].map((ends, at) => ends[at] ?? 0),
          { x: (v: number) => v, y: (v: number) => v, stroke: colours.neutral, strokeDasharray: '4 3' },
        ),
        Plot.dot(points, { x: 'x', y: 'y', r: 'rows', fill: colours.candidate, fillOpacity: 0.75 }),
      ],
    },
    `What the outcome model predicts for ${metrics[metric].title} against what was seen`,
  )
}
