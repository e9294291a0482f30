// Outcomes by cell: how many rows, and the sums of their outcomes, for each (fold, arm, input length, kind of request). It
// is all that the outcome model is fitted from, a few thousand cells for any number of rows, and what a GROUP BY gives.

import { add } from './terms.ts'

export const foldCount = 5
/** n, Σ k, Σ k r, Σ k r² of the rows whose outcome is known. */
export const figures = 4
/** Arms in one table; keys are numbers, and must stay whole. */
const armsMax = 1 << 14
const octavesMax = 64
const cellsAtFirst = 256

/** Where a row belongs; all are indexes. */
export type Cell = { readonly fold: number; readonly arm: number; readonly octave: number; readonly kind: number }

/** Plain data: cells in columns, and for each cell and metric four figures. */
export type CellTable = {
  readonly count: number
  readonly metricCount: number
  readonly fold: Uint8Array
  readonly arm: Int32Array
  readonly octave: Int32Array
  readonly kind: Int32Array
  /** Σ k over all rows of a cell. */
  readonly keep: Float64Array
  readonly sums: Float64Array
  /** Rows whose outcome is known, by metric. */
  readonly known: Float64Array
}

export const startCells = (metricCount: number) => {
  const stride = metricCount * figures
  const places = new Map<number, number>()
  const cells: Cell[] = []
  let keep = new Float64Array(cellsAtFirst)
  let sums = new Float64Array(cellsAtFirst * stride)
  const placeOf = (cell: Cell): number => {
    const { fold, arm, octave, kind } = cell
    const key = ((kind * octavesMax + octave) * armsMax + arm) * foldCount + fold
    const known = places.get(key)
    if (known !== undefined) return known
    if (cells.length === keep.length) {
      keep = grown(keep)
      sums = grown(sums)
    }
    places.set(key, cells.length)
    return cells.push(cell) - 1
  }
  return {
    /** `outcomes` holds one value a metric, NaN where it is not known; it is read and not kept. */
    add: (cell: Cell, weight: number, outcomes: Float64Array): void => {
      const place = placeOf(cell)
      keep[place] = (keep[place] as number) + weight
      for (let metric = 0; metric < metricCount; metric++) {
        const r = outcomes[metric] as number
        if (Number.isNaN(r)) continue
        const at = place * stride + metric * figures
        sums[at] = (sums[at] as number) + 1
        sums[at + 1] = (sums[at + 1] as number) + weight
        sums[at + 2] = (sums[at + 2] as number) + weight * r
        sums[at + 3] = (sums[at + 3] as number) + weight * r * r
      }
    },
    /** `renumber` gives a cell its final place; cells that become the same are added up. */
    close: (renumber: (cell: Cell) => Cell = (cell) => cell): CellTable =>
      collected(cells.map(renumber), keep, sums, metricCount),
  }
}

const grown = (column: Float64Array<ArrayBuffer>): Float64Array<ArrayBuffer> => {
  const wider = new Float64Array(column.length * 2)
  wider.set(column)
  return wider
}

/** A table of cells, in their order; those that are the same are added up. `sums` holds `figures` for each metric of each. */
export const collected = (
  cells: readonly Cell[],
  keep: Float64Array,
  sums: Float64Array,
  metricCount: number,
): CellTable => {
  const stride = metricCount * figures
  const places = new Map<string, number>()
  const distinct: Cell[] = []
  const total = { keep: new Float64Array(cells.length), sums: new Float64Array(cells.length * stride) }
  const known = new Float64Array(metricCount)
  for (const [at, cell] of cells.entries()) {
    const key = `${cell.fold} ${cell.arm} ${cell.octave} ${cell.kind}`
    const place = places.get(key) ?? distinct.push(cell) - 1
    places.set(key, place)
    add(total.keep, place, keep[at] as number)
    for (let i = 0; i < stride; i++) add(total.sums, place * stride + i, sums[at * stride + i] as number)
    for (let metric = 0; metric < metricCount; metric++)
      add(known, metric, sums[at * stride + metric * figures] as number)
  }
  return {
    count: distinct.length,
    metricCount,
    fold: Uint8Array.from(distinct, ({ fold }) => fold),
    arm: Int32Array.from(distinct, ({ arm }) => arm),
    octave: Int32Array.from(distinct, ({ octave }) => octave),
    kind: Int32Array.from(distinct, ({ kind }) => kind),
    keep: total.keep.slice(0, distinct.length),
    sums: total.sums.slice(0, distinct.length * stride),
    known,
  }
}

/** One metric's view of the table: four figures a cell. */
export type MetricCells = {
  readonly rows: (cell: number) => number
  readonly weight: (cell: number) => number
  readonly sum: (cell: number) => number
  readonly squares: (cell: number) => number
}

export const cellsOf = ({ sums, metricCount }: CellTable, metric: number): MetricCells => {
  const figure = (at: number) => (cell: number) => sums[(cell * metricCount + metric) * figures + at] as number
  return { rows: figure(0), weight: figure(1), sum: figure(2), squares: figure(3) }
}
