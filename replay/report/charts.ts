// The report's charts, drawn by Observable Plot into a document without a browser. Colours are the page's CSS variables, so
// that they follow light, dark and paper.
import * as Plot from '@observablehq/plot'
import { parseHTML } from 'linkedom'
import type { MetricResult } from '../estimate/evaluate.ts'
import { metrics } from '../estimate/metrics.ts'
import type { Finding } from '../judge/gate.ts'
import type { Replay } from '../run.ts'
import { type Markup, markup } from './markup.ts'

const width = 760
const scales = { cost_usd: 1000, latency_ms: 1, quality: 1, failed: 100, abandoned: 100 } as const

const draw = (options: Plot.PlotOptions, label: string): Markup => {
  const { document } = parseHTML('<!doctype html><html><body></body></html>')
  const figure = Plot.plot({
    ...options,
    width,
    document,
    ariaLabel: label,
    style: { background: 'transparent', color: 'inherit', fontFamily: 'inherit', fontSize: '13px' },
  })
  return markup(String(figure.outerHTML))
}

/** Room on both sides of the values, so that nothing sits on the frame. */
const padded = (values: readonly number[], share: number): [number, number] => {
  const finite = values.filter(Number.isFinite)
  const [low, high] = [Math.min(...finite), Math.max(...finite)]
  const room = (high - low || Math.abs(high) || 1) * share
  return [low - room, high + room]
}

/** Colour by what the interval shows, whether or not the gate asks for it. */
const colourOf = ({ metric, difference: { low, high } }: MetricResult): string => {
  if (low <= 0 && high >= 0) return 'var(--neutral)'
  return high < 0 === (metrics[metric].better === 'lower') ? 'var(--good)' : 'var(--bad)'
}

/** One metric's difference with its interval, against zero and, for a guardrail, its margin. */
export const differenceChart = (result: MetricResult, finding: Finding | undefined): Markup => {
  const { metric, difference } = result
  const scale = scales[metric]
  const sign = metrics[metric].better === 'higher' ? -1 : 1
  const margin = finding?.role === 'guardrail' ? [sign * finding.tolerated * scale] : []
  const [value, low, high] = [difference.value * scale, difference.low * scale, difference.high * scale]
  const stroke = colourOf(result)
  return draw(
    {
      height: 56,
      marginLeft: 20,
      marginRight: 20,
      marginBottom: 24,
      marginTop: 12,
      x: {
        domain: padded([0, low, high, ...margin], 0.08),
        label: null,
        ticks: 6,
        grid: true,
      },
      y: { axis: null, domain: ['d'] },
      marks: [
        Plot.ruleX([0], { stroke: 'currentColor', strokeOpacity: 0.7 }),
        Plot.ruleX(margin, { stroke: 'var(--bad)', strokeDasharray: '4 3' }),
        Plot.ruleY([{ low, high }], {
          y: () => 'd',
          x1: 'low',
          x2: 'high',
          stroke,
          strokeWidth: 3,
          strokeLinecap: 'round',
        }),
        Plot.dot([value], { x: (x: number) => x, y: () => 'd', fill: stroke, r: 6 }),
      ],
    },
    `Difference in ${metrics[metric].title} with its 95 % interval`,
  )
}

/** Production and candidate in the plane of cost and quality; null unless both are known. */
export const planeChart = ({ metrics: results }: Replay): Markup | null => {
  const [cost, quality] = (['cost_usd', 'quality'] as const).map((name) =>
    results.find(({ metric }) => metric === name),
  )
  if (!cost?.rows || !quality?.rows) return null
  const points = (['production', 'candidate'] as const).map((policy) => ({
    policy,
    x: cost[policy].value * scales.cost_usd,
    x1: cost[policy].low * scales.cost_usd,
    x2: cost[policy].high * scales.cost_usd,
    y: quality[policy].value,
    y1: quality[policy].low,
    y2: quality[policy].high,
    colour: policy === 'candidate' ? 'var(--accent)' : 'var(--neutral)',
  }))
  return draw(
    {
      height: 320,
      marginLeft: 56,
      marginBottom: 42,
      grid: true,
      x: {
        domain: padded(
          points.flatMap(({ x1, x2 }) => [x1, x2]),
          0.15,
        ),
        label: metrics.cost_usd.title,
      },
      y: {
        domain: padded(
          points.flatMap(({ y1, y2 }) => [y1, y2]),
          0.15,
        ),
        label: 'quality',
      },
      marks: [
        Plot.line(points, { x: 'x', y: 'y', stroke: 'var(--line)', strokeDasharray: '2 4', strokeWidth: 2 }),
        Plot.ruleY(points, { y: 'y', x1: 'x1', x2: 'x2', stroke: 'colour', strokeWidth: 2 }),
        Plot.ruleX(points, { x: 'x', y1: 'y1', y2: 'y2', stroke: 'colour', strokeWidth: 2 }),
        Plot.dot(points, { x: 'x', y: 'y', fill: 'colour', r: 7 }),
        Plot.text(points, {
          x: 'x',
          y: 'y',
          text: 'policy',
          fill: 'currentColor',
          dy: -14,
          dx: 8,
          textAnchor: 'start',
          fontWeight: 600,
        }),
      ],
    },
    'Cost and quality of production and candidate, with 95 % intervals',
  )
}
