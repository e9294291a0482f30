// The outcome model q(x, a) behind DM and DR: what a model's answer to a request like this one tends to cost, take or be
// worth. It is a shrunken (segment × model) mean, fitted five times, each time without one fold of sessions, so that no
// row helps to predict itself. DR is unbiased whatever q says; a better q only makes the interval shorter.

export const foldCount = 5

/**
 * How many rows' worth of doubt a cell starts with: an effect seen on n rows counts n / (n + 10). Segment cells with ten
 * rows are common in a log of a few thousand, and there half of what they show is noise.
 */
const priorRows = 10

/** Rows of the log as columns; `reward` is NaN where the outcome is missing. */
export type Sample = {
  readonly reward: Float64Array
  readonly keepWeight: Float64Array
  readonly fold: Uint8Array
  /** The logged choice, as an index of a model. */
  readonly arm: Int32Array
  readonly armCount: number
  readonly segmentations: readonly Segmentation[]
}

/** A way to divide requests: each row's segment, as an index below `count`. */
export type Segmentation = { readonly segment: Int32Array; readonly count: number }

/** The expected outcome of a row's request, had `arm` been chosen; fitted without the row's own fold. */
export type OutcomeModel = (row: number, arm: number) => number

/** One step of the fit: the effect of each (segment, model) cell, per left-out fold. */
type Level = { readonly segmentation: Segmentation | null; readonly byArm: boolean; readonly effects: Float64Array[] }

/**
 * Fits, in turn, the overall mean, what each model adds to it, and what each segmentation of the model's requests adds to
 * that; each step explains the rest of the one before and is shrunken towards zero (Efron & Morris 1975), so that a cell
 * never seen falls back on its model, and a model never seen on the mean.
 */
export const fitOutcomeModel = (sample: Sample): OutcomeModel => {
  const levels: Level[] = []
  const predict = (fold: number, row: number, arm: number): number => {
    let q = 0
    for (const level of levels) q += level.effects[fold]?.[cellOf(level, row, arm)] ?? 0
    return q
  }
  levels.push(fitLevel(sample, null, false, predict))
  levels.push(fitLevel(sample, null, true, predict))
  for (const segmentation of sample.segmentations) levels.push(fitLevel(sample, segmentation, true, predict))
  return (row, arm) => predict(sample.fold[row] ?? 0, row, arm)
}

const cellOf = ({ segmentation, byArm }: Omit<Level, 'effects'>, row: number, arm: number): number =>
  (byArm ? arm : 0) * (segmentation?.count ?? 1) + (segmentation?.segment[row] ?? 0)

const fitLevel = (
  sample: Sample,
  segmentation: Segmentation | null,
  byArm: boolean,
  predict: (fold: number, row: number, arm: number) => number,
): Level => {
  const cells = (byArm ? sample.armCount : 1) * (segmentation?.count ?? 1)
  const empty = () => Array.from({ length: foldCount }, () => new Float64Array(cells))
  const [sums, weights, counts] = [empty(), empty(), empty()]
  const { reward, keepWeight, fold, arm } = sample
  for (let row = 0; row < reward.length; row++) {
    const r = reward[row] ?? Number.NaN
    if (Number.isNaN(r)) continue
    const a = arm[row] ?? 0
    const k = keepWeight[row] ?? 0
    const cell = cellOf({ segmentation, byArm }, row, a)
    for (let out = 0; out < foldCount; out++) {
      if (out === fold[row]) continue
      add(sums[out], cell, k * (r - predict(out, row, a)))
      add(weights[out], cell, k)
      add(counts[out], cell, 1)
    }
  }
  const prior = byArm ? priorRows : 0
  const effects = sums.map((sum, out) =>
    sum.map((total, cell) => {
      const count = counts[out]?.[cell] ?? 0
      return count === 0 ? 0 : (total / (weights[out]?.[cell] ?? 1)) * (count / (count + prior))
    }),
  )
  return { segmentation, byArm, effects }
}

const add = (column: Float64Array | undefined, at: number, amount: number): void => {
  if (column) column[at] = (column[at] ?? 0) + amount
}
