// The outcome model q(x, a) behind DM and DR: what a model's answer to a request like this one tends to cost, take or be
// worth. Two ways to say so are fitted from the table of cells, five times each, without one fold of clusters in turn, so
// that no row helps to predict itself; the one that predicts the folds left out better is used, metric by metric. DR is
// unbiased whatever q says; a better q only makes the interval shorter.
import { type CellTable, cellsOf, foldCount, type MetricCells } from './outcome-cells.ts'
import { addToRidge, featuresOf, fitRidge, type RidgeLayout, ridgeLayout, ridgeStatistics } from './ridge.ts'
import { add } from './terms.ts'

/**
 * How many rows' worth of doubt a cell starts with: an effect seen on n rows counts n / (n + 10). Segment cells with ten
 * rows are common in a log of a few thousand, and there half of what they show is noise.
 */
const priorRows = 10
/** Outcomes that spread by less than this part of their squares are all the same, but for rounding. */
const roundingShare = 1e-12

/** How many of each there are. */
export type Extent = { readonly arms: number; readonly octaves: number; readonly kinds: number }

/** The expected outcome of a request of this cell, had `arm` been chosen; fitted without `fold`. */
export type OutcomeModel = (fold: number, arm: number, octave: number, kind: number) => number

/** One fit: the mean, what each arm adds to it, and what the request's length and its kind add to that, arm by arm. */
type Effects = {
  mean: number
  readonly byArm: Float64Array
  readonly byOctave: Float64Array
  readonly byKind: Float64Array
}

/** Plain data: a fitted outcome model of one metric. */
export type OutcomeFit = {
  /** Shrunken (segment × model) means, or a ridge regression on length by arm, and kind. */
  readonly kind: 'means' | 'ridge'
  /** The share of the outcome's variance that it predicts in the fold left out; null where every outcome is the same. */
  readonly r2: number | null
  readonly extent: Extent
  /** By the fold left out. */
  readonly effects: readonly Readonly<Effects>[]
}

/** What looks a fit's predictions up: four reads. */
export const predictorOf = ({ effects, extent: { octaves, kinds } }: OutcomeFit): OutcomeModel => {
  return (fold, arm, octave, kind) => {
    const { mean, byArm, byOctave, byKind } = effects[fold] as Effects
    return (
      mean +
      (byArm[arm] as number) +
      (byOctave[arm * octaves + octave] as number) +
      (byKind[arm * kinds + kind] as number)
    )
  }
}

/** Fits both; of equals the means are taken. Null where no outcome is known. `metric` is its index in the table. */
export const fitOutcome = (table: CellTable, metric: number, extent: Extent): OutcomeFit | null => {
  if ((table.known[metric] as number) === 0) return null
  const means = fitMeans(table, metric, extent)
  const ridge = fitLinear(table, metric, extent)
  return ridge && (ridge.r2 ?? 0) > (means.r2 ?? 0) ? ridge : means
}

/**
 * Fits, in turn, the overall mean, what each model adds to it, and what each segmentation of the model's requests — by input
 * length in octaves, which drives cost and latency, and by tier and category, which drive quality — adds to that; each step
 * explains the rest of the one before and is shrunken towards zero (Efron & Morris 1975), so that a cell never seen falls
 * back on its model, and a model never seen on the mean.
 */
export const fitMeans = (table: CellTable, metric: number, extent: Extent): OutcomeFit => {
  const effects = Array.from({ length: foldCount }, (_, out) => meansWithout(table, metric, extent, out))
  return scored(table, metric, { kind: 'means', extent, effects })
}

/**
 * Fits a ridge regression (ridge.ts): an intercept and a slope over the logarithm of the length for each model, and for each
 * kind of requests one effect that all models share. It says less than the means and so needs fewer rows. Null where that
 * takes more than 200 features.
 */
export const fitLinear = (table: CellTable, metric: number, extent: Extent): OutcomeFit | null => {
  const { arms, kinds } = extent
  const cells = cellsOf(table, metric)
  const octaves = weightedMean(table, cells.weight, (cell) => (table.octave[cell] as number) * cells.weight(cell))
  const layout = ridgeLayout(arms, [kinds], octaves * Math.LN2)
  const kindsFrom = layout.segmentsFrom[0]
  if (kindsFrom === undefined) return null
  const folds = Array.from({ length: foldCount }, () => ridgeStatistics(layout.dimension))
  for (let cell = 0; cell < table.count; cell++) {
    const weight = cells.weight(cell)
    if (weight === 0) continue
    const tokens = 2 ** (table.octave[cell] as number) - 1
    const features = featuresOf(layout, table.arm[cell] as number, tokens, [table.kind[cell] as number])
    addToRidge(folds[table.fold[cell] as number] as (typeof folds)[number], features, cells.sum(cell) / weight, weight)
  }
  const effects = fitRidge(folds).coefficients.map((beta) => effectsOf(beta, extent, layout, kindsFrom))
  return scored(table, metric, { kind: 'ridge', extent, effects })
}

/** Coefficients as effects, so that a prediction costs the same whichever way it was fitted. */
const effectsOf = (
  beta: Float64Array,
  { arms, octaves, kinds }: Extent,
  layout: RidgeLayout,
  kindsFrom: number,
): Effects => {
  const lengthOf = (octave: number) => featuresOf(layout, 0, 2 ** octave - 1, [0]).values[2] as number
  const slopes = beta.subarray(1 + arms, 1 + 2 * arms)
  return {
    mean: beta[0] as number,
    byArm: beta.slice(1, 1 + arms),
    byOctave: Float64Array.from(
      { length: arms * octaves },
      (_, at) => (slopes[Math.floor(at / octaves)] as number) * lengthOf(at % octaves),
    ),
    byKind: Float64Array.from({ length: arms * kinds }, (_, at) => beta[kindsFrom + (at % kinds)] as number),
  }
}

/** Adds how well a fit predicts the fold left out (Stone 1974): exact, though only sums are left of the rows. */
const scored = (table: CellTable, metric: number, fit: Omit<OutcomeFit, 'r2'>): OutcomeFit => {
  const cells = cellsOf(table, metric)
  const q = predictorOf({ ...fit, r2: null })
  const mean = weightedMean(table, cells.weight, cells.sum)
  const at = (column: ArrayLike<number>, cell: number) => column[cell] as number
  let [error, spread, size] = [0, 0, 0]
  for (let cell = 0; cell < table.count; cell++) {
    error += squaresAround(
      cells,
      cell,
      q(at(table.fold, cell), at(table.arm, cell), at(table.octave, cell), at(table.kind, cell)),
    )
    spread += squaresAround(cells, cell, mean)
    size += cells.squares(cell)
  }
  return { ...fit, r2: spread > roundingShare * size ? 1 - error / spread : null }
}

/** Σ k (r − q)² of a cell. */
const squaresAround = ({ weight, sum, squares }: MetricCells, cell: number, q: number): number =>
  Math.max(0, squares(cell) - 2 * q * sum(cell) + q * q * weight(cell))

/** Σ of `sum` over Σ of `weight`, over all cells. */
const weightedMean = ({ count }: CellTable, weight: MetricCells['weight'], sum: MetricCells['sum']): number => {
  let [k, r] = [0, 0]
  for (let cell = 0; cell < count; cell++) {
    k += weight(cell)
    r += sum(cell)
  }
  return r / k
}

const meansWithout = (table: CellTable, metric: number, { arms, octaves, kinds }: Extent, out: number): Effects => {
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
    add(sums, at, cells.sum(cell) - predict(cell) * cells.weight(cell))
    add(weights, at, cells.weight(cell))
    add(rows, at, cells.rows(cell))
  }
  return sums.map((sum, at) => {
    const seen = rows[at] as number
    return seen === 0 ? 0 : (sum / (weights[at] as number)) * (seen / (seen + prior))
  })
}
