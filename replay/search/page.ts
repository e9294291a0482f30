// A search as one HTML file: the sentence, the plane of both axes against production, the finalists in figures, and all that
// was tried. The plane shows differences, because these are what is certified: production is where the axes cross.
import * as Plot from '@observablehq/plot'
import { type MetricName, metrics } from '../estimate/metrics.ts'
import { colours, draw, label, padded, scaleOf } from '../report/charts/draw.ts'
import { html, type Markup } from '../report/markup.ts'
import { figured, fold, nameOf, page, section, table } from '../report/page.ts'
import { count, plain, refusalText, signed, units } from '../report/words.ts'
import type { Finalist, Finding } from './certify.ts'
import type { Search } from './search.ts'
import { parameterText } from './template.ts'
import { axisCells, curseText, finalistResult, searchFacts, searchSentence } from './text.ts'

const chartWidth = 680
const chartHeight = 420
const namedMax = 8
/** What lies outside this part of the tried points, on either side, does not stretch the picture. */
const outlierShare = 0.02
const nameLengthMax = 48
const roomShare = 0.08
const here = { x: 0, y: 0, name: 'production' }

const badges: Readonly<Record<Search['exitCode'], readonly [kind: string, text: string]>> = {
  0: ['promote', 'Certified'],
  2: ['inconclusive', 'None certified'],
  3: ['refused', 'Refused'],
}

const colourOf: Readonly<Record<Finding, string>> = {
  better: colours.good,
  harm: colours.bad,
  open: colours.neutral,
  thin: colours.neutral,
  refused: 'var(--refused)',
}

/** The page as text; `command` is the command line that makes it again. */
export const searchHtml = (search: Search, command: string): string => {
  const [kind, badge] = badges[search.exitCode]
  return page(
    `Search: ${search.template}`,
    [
      html`<header class="${kind}">
<p class="mast"><span class="badge">${badge}</span> <span>Signalbox replay search</span></p>
<h1 dir="auto">${searchSentence(search)}</h1>
<dl class="quiet">${searchFacts(search).map(([name, text]) => html`<dt>${name}</dt><dd>${text}</dd>`)}</dl>
</header>`,
      section(
        'The front',
        `Differences from production, which is where the lines cross; better is towards ${cornerText(search)}. Faint: everything tried, as estimated where policies were chosen. Crosses: the finalists on later decisions, with intervals that hold together; a thin line leads from where each stood when it was chosen.`,
        [html`<figure style="max-width:44rem">${planeOf(search)}</figure>`],
      ),
      section('Finalists', curseText(search), [finalistTable(search.finalists), ...reasons(search.finalists)]),
      section('Everything tried', '', [triedTable(search)]),
      section('Make this search again', '', [html`<pre dir="auto">${command}</pre>`]),
    ],
    search,
  )
}

const cornerText = ({ axes: [goal, other] }: Search): string =>
  `${metrics[other].better === 'higher' ? 'the top' : 'the bottom'} ${metrics[goal].better === 'higher' ? 'right' : 'left'}`

const axisTitle = (metric: MetricName): string =>
  `${plain[metric]} against production${units[metric] && `,${units[metric]}`}`

/** Where everything tried stood, and the finalists that have an estimate, in the units of the axes. */
const placesOf = ({ axes, tried, finalists }: Search) => {
  const [scaleX, scaleY] = [scaleOf(axes[0]), scaleOf(axes[1])]
  const points = finalists.map(({ axes: [goal, other], finding, isOnFront, parameters }) => ({
    x: goal.alone.value * scaleX,
    x1: goal.low * scaleX,
    x2: goal.high * scaleX,
    fromX: goal.selected.value * scaleX,
    y: other.alone.value * scaleY,
    y1: other.low * scaleY,
    y2: other.high * scaleY,
    fromY: other.selected.value * scaleY,
    colour: colourOf[finding],
    name: label(parameterText(parameters), nameLengthMax),
    isOnFront,
  }))
  return {
    faint: tried.map(({ differences: [x, y] }) => ({ x: x.value * scaleX, y: y.value * scaleY })),
    points: points.filter(({ x1, x2, y1, y2 }) => [x1, x2, y1, y2].every(Number.isFinite)),
  }
}

/** The plane of both axes: everything tried, the finalists, the certified front. */
export const planeOf = (search: Search): Markup => {
  const { faint, points } = placesOf(search)
  const [goal, other] = search.axes
  const front = points.filter(({ isOnFront }) => isOnFront).sort((a, b) => a.x - b.x)
  const xs = [0, ...inner(faint.map(({ x }) => x)), ...points.flatMap(({ x1, x2, fromX }) => [x1, x2, fromX])]
  const ys = [0, ...inner(faint.map(({ y }) => y)), ...points.flatMap(({ y1, y2, fromY }) => [y1, y2, fromY])]
  const named = { x: 'x', y: 'y', text: 'name', className: 'halo' }
  return draw(
    {
      width: chartWidth,
      height: chartHeight,
      marginLeft: 56,
      marginRight: 20,
      marginTop: 26,
      marginBottom: 42,
      grid: true,
      clip: true,
      x: { domain: padded(xs, roomShare), ticks: 6, label: axisTitle(goal), labelAnchor: 'right' },
      y: { domain: padded(ys, roomShare), ticks: 6, label: axisTitle(other) },
      marks: [
        Plot.ruleX([0], { stroke: colours.production, strokeWidth: 1.5 }),
        Plot.ruleY([0], { stroke: colours.production, strokeWidth: 1.5 }),
        Plot.dot(faint, { x: 'x', y: 'y', fill: colours.neutral, fillOpacity: 0.4, r: 3 }),
        Plot.link(points, { x1: 'fromX', y1: 'fromY', x2: 'x', y2: 'y', stroke: 'colour', strokeDasharray: '2 2' }),
        Plot.line(front, {
          x: 'x',
          y: 'y',
          curve: 'step-after',
          stroke: colours.good,
          strokeOpacity: 0.45,
          strokeWidth: 2,
        }),
        Plot.ruleY(points, { y: 'y', x1: 'x1', x2: 'x2', stroke: 'colour', strokeWidth: 2 }),
        Plot.ruleX(points, { x: 'x', y1: 'y1', y2: 'y2', stroke: 'colour', strokeWidth: 2 }),
        Plot.dot(points, { x: 'x', y: 'y', fill: 'colour', r: 5.5 }),
        Plot.text(front.slice(0, namedMax), { ...named, dx: 8, dy: -12, textAnchor: 'start' }),
        Plot.dot([here], { x: 'x', y: 'y', fill: colours.production, r: 6 }),
        Plot.text([here], { ...named, dx: 8, dy: 14, textAnchor: 'start', fontWeight: 600 }),
      ],
    },
    `${plain[goal]} and ${plain[other]} of every policy tried, against production`,
  )
}

/** Leaves out the furthest on either side. */
const inner = (values: readonly number[]): number[] => {
  const sorted = values.filter(Number.isFinite).sort((a, b) => a - b)
  const cut = Math.floor(sorted.length * outlierShare)
  return sorted.slice(cut, sorted.length - cut)
}

/** Two rows a finalist, one for each axis. */
const finalistTable = (finalists: readonly Finalist[]): Markup =>
  table(
    ['parameters', '', 'production', 'candidate', 'difference', '95 % together', 'when chosen'],
    finalists.flatMap((finalist, place) =>
      axisCells(finalist).map(([title = '', production = '', candidate = '', difference = '', ...rest], axis) => {
        const name = html`<th scope="rowgroup" rowspan="2">${nameOf(parameterText(finalist.parameters))}<br><small>${finalistResult(finalist)}</small></th>`
        const value = finalist.axes[axis]?.alone.value ?? Number.NaN
        const found = figured(`finalists.${place}.axes.${axis}.alone.value`, value, difference)
        return html`<tr>${axis === 0 ? name : ''}<td>${title}</td><td>${production}</td><td>${candidate}</td><td>${found}</td>${rest.map((cell) => html`<td>${cell}</td>`)}</tr>`
      }),
    ),
  )

const reasons = (finalists: readonly Finalist[]): Markup[] => {
  const refused = finalists.filter(({ refusals }) => refusals.length > 0)
  if (refused.length === 0) return []
  return [
    html`<h3>Why evidence is refused</h3><ul class="reasons">${refused.flatMap(({ parameters, refusals }) =>
      refusals.map((refusal) => html`<li>${nameOf(parameterText(parameters))}: ${refusalText(refusal)}</li>`),
    )}</ul>`,
  ]
}

const triedTable = ({ axes: [goal, other], tried, rounds }: Search): Markup =>
  fold(`${count(tried.length)} policies and the round each went out in`, [
    table(
      ['parameters', 'round', `${plain[goal]} against production`, `${plain[other]} against production`],
      tried.map(
        ({ parameters, round, differences: [first, second] }) =>
          html`<tr><th scope="row">${nameOf(parameterText(parameters))}</th><td>${round} of ${rounds.length}</td><td>${signed(goal, first.value)}</td><td>${signed(other, second.value)}</td></tr>`,
      ),
    ),
  ])
