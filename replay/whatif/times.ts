// How long answered requests take as distributions: logged, in production simulated by itself, and in the scenario. They are
// read off at fixed shares, by the quantile that the figures use, so that a curve passes through them exactly.
import * as Plot from '@observablehq/plot'
import type { DecisionRecord } from '../../router/policy/record.ts'
import { colours, draw } from '../report/charts/draw.ts'
import { html, type Markup } from '../report/markup.ts'
import { figure, section, sideBySide } from '../report/page.ts'
import { quantile } from './line.ts'
import type { Simulated } from './simulate.ts'

/** Curves end here: beyond it one request is the whole picture. */
const shares = [...Array.from({ length: 100 }, (_, at) => at / 100), 0.995]
const marked = [0.5, 0.95, 0.99]
/** Beyond this ratio of the slowest to the median an axis is logarithmic. */
const linearRatioMax = 6
const leastMs = 1

/** Milliseconds at each of the shares; null where nothing was measured. */
type Curve = readonly number[] | null
export type Distribution = { readonly logged: Curve; readonly production: Curve; readonly simulated: Curve }
export type Distributions = {
  readonly shares: readonly number[]
  readonly latencyMs: Distribution
  readonly ttftMs: Distribution
}

/**
 * How long answered requests take, in milliseconds at 101 shares from 0 to 0.995: as logged, in production simulated by
 * itself, and in the scenario.
 */
export const distributionsOf = (
  records: readonly DecisionRecord[],
  production: readonly Simulated[],
  simulated: readonly Simulated[],
): Distributions => {
  const answered = records.flatMap(({ outcome }) => (outcome?.status === 'ok' ? [outcome] : []))
  const of = (name: 'latencyMs' | 'ttftMs', field: 'latency_ms' | 'ttft_ms'): Distribution => {
    const times = (requests: readonly Simulated[]) =>
      curveOf(requests.filter(({ status }) => status === 'ok').map((request) => request[name]))
    return {
      logged: curveOf(answered.map((outcome) => outcome[field])),
      production: times(production),
      simulated: times(simulated),
    }
  }
  return { shares, latencyMs: of('latencyMs', 'latency_ms'), ttftMs: of('ttftMs', 'ttft_ms') }
}

const curveOf = (values: readonly (number | null)[]): Curve => {
  const sorted = Float64Array.from(values.filter((value) => value !== null)).sort()
  return sorted.length < 2 ? null : shares.map((share) => quantile(sorted, share))
}

/** The section with a picture for latency and one for the time to the first token; nothing where neither was measured. */
export const timesSection = ({ latencyMs, ttftMs }: Distributions): Markup => {
  const legend = (title: string, { production }: Distribution) =>
    html`${title} <b class="key" style="color: var(--neutral)">logged</b>${production ? html` <b class="key production">production</b>` : ''} <b class="key candidate">scenario</b>`
  const picture = (title: string, curves: Distribution): Markup[] =>
    curves.simulated || curves.logged ? [figure(legend(title, curves), curveChart(title, curves))] : []
  const pictures = [...picture('Latency', latencyMs), ...picture('TTFT', ttftMs)]
  const itself = latencyMs.production
    ? ' Where the simulator is right, production runs within the pale band of the log.'
    : ''
  const lead = `The share of requests answered within a time, up to 99.5 %.${itself} Dots: p50, p95 and p99.`
  return pictures.length === 0 ? html`` : section('How long requests would take', lead, [sideBySide(pictures)])
}

const curveChart = (title: string, curves: Distribution): Markup => {
  const points = (curve: Curve) =>
    (curve ?? []).map((value, at) => ({ x: Math.max(leastMs, value), y: shares[at] ?? 0 }))
  const dots = (curve: Curve) => points(curve).filter(({ y }) => marked.includes(y))
  const all = Object.values(curves).flatMap(points)
  const [least, most] = [Math.min(...all.map(({ x }) => x)), Math.max(...all.map(({ x }) => x))]
  const middle = points(curves.logged ?? curves.simulated)[50]?.x ?? most
  const isLog = most / middle > linearRatioMax
  const line = (curve: Curve, stroke: string, rest: Plot.LineOptions) =>
    Plot.line(points(curve), { x: 'x', y: 'y', stroke, ...rest })
  return draw(
    {
      height: 260,
      marginLeft: 44,
      marginRight: 16,
      marginTop: 12,
      marginBottom: 38,
      x: { type: isLog ? 'log' : 'linear', domain: [isLog ? least : 0, most], ticks: 5, tickFormat: '~s', label: 'ms' },
      y: { domain: [0, 1], ticks: [0, 0.25, 0.5, 0.75, 1], tickFormat: '.0%', label: null, grid: true },
      marks: [
        line(curves.logged, colours.neutral, { strokeWidth: 7, strokeOpacity: 0.35 }),
        line(curves.production, colours.production, { strokeWidth: 2, strokeDasharray: '5 3' }),
        line(curves.simulated, colours.candidate, { strokeWidth: 2.2 }),
        Plot.dot(dots(curves.simulated), { x: 'x', y: 'y', fill: colours.candidate, stroke: 'var(--page)', r: 4.5 }),
      ],
    },
    `Distribution of ${title}: logged, production simulated by itself, and the scenario`,
  )
}
