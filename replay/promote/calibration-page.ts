// The page of `replay calibration`: every prediction drawn to the same scale, its interval from −1 to 1, with the realised
// value and its error where they fell. What lies outside was predicted wrongly, or is the one in twenty.
import * as Plot from '@observablehq/plot'
import { draw } from '../report/charts/draw.ts'
import { html, type Markup } from '../report/markup.ts'
import { nameOf, page, section, table } from '../report/page.ts'
import { plain } from '../report/words.ts'
import { type Calibration, type Comparison, cellsOf, comparisonHeads, placeOf, shareText } from './calibration.ts'

const rowsDrawnMax = 60
const rowHeight = 22
const chartWidth = 640
const placeMax = 4
const labelLengthMax = 32

/** The newest comparisons, one line each. */
export const calibrationChart = (comparisons: readonly Comparison[]): Markup => {
  const clamp = (place: number) => Math.max(-placeMax, Math.min(placeMax, Number.isNaN(place) ? 0 : place))
  const points = comparisons.slice(-rowsDrawnMax).map(({ candidate, metric, predicted, realised, held }, at) => {
    const reach = 1.96 * realised.se
    return {
      y: `${at + 1}. ${`${candidate}: ${plain[metric]}`.slice(0, labelLengthMax)}`,
      x: clamp(placeOf(predicted, realised.value)),
      x1: clamp(placeOf(predicted, realised.value - reach)),
      x2: clamp(placeOf(predicted, realised.value + reach)),
      colour: held ? 'var(--good)' : 'var(--bad)',
    }
  })
  return draw(
    {
      width: chartWidth,
      height: rowHeight * points.length + 60,
      marginLeft: 220,
      marginBottom: 40,
      x: {
        domain: [-placeMax, placeMax],
        label: 'realised, in units of the predicted interval',
        ticks: [-4, -2, -1, 0, 1, 2, 4],
      },
      y: { domain: points.map(({ y }) => y), label: null, tickSize: 0 },
      marks: [
        Plot.ruleY(points, { y: 'y', x1: -1, x2: 1, stroke: 'var(--line)', strokeWidth: 12 }),
        Plot.ruleX([0], { stroke: 'currentColor', strokeOpacity: 0.5 }),
        Plot.ruleY(points, { y: 'y', x1: 'x1', x2: 'x2', stroke: 'colour', strokeWidth: 2 }),
        Plot.dot(points, { y: 'y', x: 'x', fill: 'colour', r: 5 }),
      ],
    },
    'Realised changes against their predicted intervals',
  )
}

/** The whole page, without network or script. */
export const calibrationHtml = (calibration: Calibration): string => {
  const { comparisons, held, inside } = calibration
  const rows = comparisons.map((comparison) => {
    const [title = '', ...cells] = cellsOf(comparison)
    return html`<tr><th scope="row">${nameOf(comparison.candidate)}</th><td>${title}</td>${cells.map((cell) => html`<td>${cell}</td>`)}</tr>`
  })
  const lead =
    comparisons.length === 0
      ? 'No promotion has a realised change yet.'
      : `Held: ${shareText(held)}. A prediction holds when realised and predicted differ by no more than both their errors explain; 95 % should. Inside the predicted interval itself: ${shareText(inside)}.`
  return page(
    'Predicted and realised',
    [
      html`<header><h1>Do predictions come true?</h1><p>${lead}</p></header>`,
      ...(comparisons.length > 0
        ? [
            section(
              'Every prediction to one scale',
              'Grey: the predicted interval. Dot and line: what was realised, with its 95 % interval.',
              [html`<figure>${calibrationChart(comparisons)}</figure>`],
            ),
            section('In figures', '', [table(['candidate', ...comparisonHeads], rows)]),
          ]
        : []),
    ],
    calibration,
  )
}
