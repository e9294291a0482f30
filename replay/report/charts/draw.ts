// What all pictures share: Observable Plot drawing into a document without a browser, one width that suits half a desktop
// and a whole phone, and colours as the page's CSS variables, so that they follow light, dark and paper.
import * as Plot from '@observablehq/plot'
import { parseHTML } from 'linkedom'
import type { MetricName } from '../../estimate/metrics.ts'
import { type Markup, markup } from '../markup.ts'

export const chartWidth = 440
const labelLengthMax = 26

export const colours = {
  production: 'var(--production)',
  candidate: 'var(--candidate)',
  good: 'var(--good)',
  bad: 'var(--bad)',
  neutral: 'var(--neutral)',
  line: 'var(--line)',
  ink: 'currentColor',
} as const

/** What a metric's value is multiplied by to be in the unit of its title: $ per 1,000 requests, percent. */
const scales: Partial<Readonly<Record<MetricName, number>>> = { cost_usd: 1000, slow: 100, failed: 100, abandoned: 100 }
export const scaleOf = (metric: MetricName): number => scales[metric] ?? 1

/** An SVG of a plot; `label` is its text alternative. */
export const draw = (options: Plot.PlotOptions, label: string): Markup => {
  const { document } = parseHTML('<!doctype html><html><body></body></html>')
  const figure = Plot.plot({ width: chartWidth, ...options, document, ariaLabel: label, className: 'plot' })
  figure.setAttribute('role', 'img')
  figure.querySelector('style')?.remove()
  return markup(String(figure.outerHTML))
}

/** A domain with room on both sides of the values, so that nothing sits on the frame. */
export const padded = (values: readonly number[], share: number): [number, number] => {
  const finite = values.filter(Number.isFinite)
  if (finite.length === 0) return [0, 1]
  const [low, high] = [Math.min(...finite), Math.max(...finite)]
  const room = (high - low || Math.abs(high) || 1) * share
  return [low - room, high + room]
}

/** A name that fits into a picture, cut in the middle: the ends tell models apart. */
export const label = (name: string, lengthMax = labelLengthMax): string => {
  const clean = name.replace(/[\p{Cc}\p{Cf}]/gu, '�')
  if (clean.length <= lengthMax) return `\u2068${clean}\u2069`
  return `\u2068${clean.slice(0, lengthMax - 9)}…${clean.slice(-8)}\u2069`
}
