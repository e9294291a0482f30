// The outcome model q(x, a) behind DM and DR: what a model's answer to a request like this one tends to cost, take or be
// worth. It is a shrunken (segment × model) mean, fitted five times, each time without one fold of clusters, so that no
// row helps to predict itself. DR is unbiased whatever q says; a better q only makes the interval shorter.
import { type CellTable, cellsOf, foldCount } from './outcome-cells.ts'

/**
 * How many rows' worth of doubt a cell starts with: an effect seen on n rows counts n / (n + 10). Segment cells with ten
 * rows are common in a log of a few thousand, and there half of what they show is noise.
 */
const priorRows = 10

/** How many of each there are. */
export type Extent = { readonly arms: number; readonly octaves: number; readonly kinds: number }

/** The expected outcome of a request of this cell, had `arm` been chosen; fitted without `fold`. */
export type OutcomeModel = (fold: number, arm: number, octave: number, kind: number) => number

/** The effects of a fit without one fold: the mean, what each arm adds to it, and what each segmentation adds to that. */
type Effects = {
  mean: number
  readonly byArm: Float64Array
  readonly byOctave: Float64Array
  readonly byKind: Float64Array
}

/**
 * Fits, in turn, the overall mean, what each model adds to it, and what each segmentation of the model's requests — by input
 * length in octaves, which drives cost and latency, and by tier and category, which drive quality — adds to that; each step
 * explains the rest of the one before and is shrunken towards zero (Efron & Morris 1975), so that a cell never seen falls
 * back on its model, and a model never seen on the mean. `metric` is its index in the table.
 */
export const fitOutcomeModel = (table: CellTable, metric: number, extent: Extent): OutcomeModel => {
  const fits = Array.from({ length: foldCount }, (_, out) => fitWithout(table, metric, extent, out))
  const { octaves, kinds } = extent
  return (fold, arm, octave, kind) => {
    const { mean, byArm, byOctave, byKind } = fits[fold] as Effects
    return (
      mean +
      (byArm[arm] as number) +
      (byOctave[arm * octaves + octave] as number) +
      (byKind[arm * kinds + kind] as number)
    )
  }
}

const fitWithout = (table: CellTable, metric: number, { arms, octaves, kinds }: Extent, out: number): Effects => {
  const effects: Effects = {
    mean: 0,
    byArm: new Float64Array(arms),
    byOctave: new Float64Array(arms * octaves),
    byKind: new Float64Array(arms * kinds),
  }
  const arm = (cell: number) => table.arm[cell] as number
  const octave = (cell: number) => arm(cell) * octaves + (table.octave[cell] as number)
  const kind = (cell: number) => arm(cell) * kinds + (table.kind[cell] as number)
  const predict = (cell: number): number =>
    effects.mean +
    (effects.byArm[arm(cell)] as number) +
    (effects.byOctave[octave(cell)] as number) +
    (effects.byKind[kind(cell)] as number)
  const fit = (place: (cell: number) => number, size: number, prior: number) =>
    fitLevel(table, metric, out, predict, place, size, prior)
  effects.mean = fit(() => 0, 1, 0)[0] as number
  effects.byArm.set(fit(arm, arms, priorRows))
  effects.byOctave.set(fit(octave, arms * octaves, priorRows))
  effects.byKind.set(fit(kind, arms * kinds, priorRows))
  return effects
}

/** The shrunken mean of what is left to explain, by place. */
const fitLevel = (
  table: CellTable,
  metric: number,
  out: number,
  predict: (cell: number) => number,
  place: (cell: number) => number,
  size: number,
  prior: number,
): Float64Array => {
  const cells = cellsOf(table, metric)
  const [sums, weights, rows] = [new Float64Array(size), new Float64Array(size), new Float64Array(size)]
  for (let cell = 0; cell < table.count; cell++) {
    if (table.fold[cell] === out || cells.rows(cell) === 0) continue
    const at = place(cell)
    sums[at] = (sums[at] as number) + cells.sum(cell) - predict(cell) * cells.weight(cell)
    weights[at] = (weights[at] as number) + cells.weight(cell)
    rows[at] = (rows[at] as number) + cells.rows(cell)
  }
  return sums.map((sum, at) => {
    const seen = rows[at] as number
    return seen === 0 ? 0 : (sum / (weights[at] as number)) * (seen / (seen + prior))
  })
}
