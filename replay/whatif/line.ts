// A straight line through noisy timings: `y = base + perInput·input + perOutput·output`, fitted so that a few very slow
// calls do not bend it. Times per token cannot be negative, so a slope that comes out so is left out.

/** `input` and `output` in tokens, `y` in milliseconds (or US dollars). */
export type Point = { readonly input: number; readonly output: number; readonly y: number }
export type Line = { readonly base: number; readonly perInput: number; readonly perOutput: number }

const roundsMax = 12
/** Huber's constant: 95 % efficient where the noise is normal. */
const huber = 1.345
/** The median absolute deviation of a normal is 0.6745 standard deviations. */
const madOfNormal = 0.6745
/** A covariate that varies less than this share of its mean, or goes with the other, cannot be told apart from the base. */
const varianceShareMin = 1e-9
const toleranceMin = 1e-9

export const at = (line: Line, input: number, output: number): number =>
  line.base + line.perInput * input + line.perOutput * output

/** The value below which a share of sorted values lies, interpolated between neighbours (type 7); NaN of none. */
export const quantile = (sorted: ArrayLike<number>, share: number): number => {
  if (sorted.length === 0) return Number.NaN
  const place = share * (sorted.length - 1)
  const below = Math.floor(place)
  const low = sorted[below] as number
  return low + (place - below) * ((sorted[Math.min(below + 1, sorted.length - 1)] as number) - low)
}

/**
 * Huber's M-estimator by iteratively reweighted least squares (Huber 1964; Holland and Welsch 1977), the noise's scale
 * from the median absolute deviation, slopes at least 0. Of no points the line is 0.
 */
export const fitLine = (points: readonly Point[]): Line => {
  if (points.length === 0) return { base: 0, perInput: 0, perOutput: 0 }
  let weights = new Float64Array(points.length).fill(1)
  let line = leastSquares(points, weights)
  for (let round = 0; round < roundsMax; round++) {
    const misses = Float64Array.from(points, ({ input, output, y }) => Math.abs(y - at(line, input, output)))
    const scale = quantile(misses.toSorted(), 0.5) / madOfNormal
    if (!(scale > toleranceMin)) return line
    weights = misses.map((miss) => (miss <= huber * scale ? 1 : (huber * scale) / miss))
    const next = leastSquares(points, weights)
    const moved = points.some(
      ({ input, output }) => Math.abs(at(next, input, output) - at(line, input, output)) > scale / 1000,
    )
    line = next
    if (!moved) return line
  }
  return line
}

type Moments = Readonly<Record<'input' | 'output' | 'y' | 'ii' | 'oo' | 'io' | 'iy' | 'oy', number>>

const momentsOf = (points: readonly Point[], weights: Float64Array): Moments => {
  let [sum, input, output, y] = [0, 0, 0, 0]
  for (const [index, point] of points.entries()) {
    const weight = weights[index] as number
    sum += weight
    input += weight * point.input
    output += weight * point.output
    y += weight * point.y
  }
  const mean = { input: input / sum, output: output / sum, y: y / sum }
  let [ii, oo, io, iy, oy] = [0, 0, 0, 0, 0]
  for (const [index, point] of points.entries()) {
    const weight = (weights[index] as number) / sum
    const [di, dO, dy] = [point.input - mean.input, point.output - mean.output, point.y - mean.y]
    ii += weight * di * di
    oo += weight * dO * dO
    io += weight * di * dO
    iy += weight * di * dy
    oy += weight * dO * dy
  }
  return { ...mean, ii, oo, io, iy, oy }
}

/** Weighted least squares with slopes at least 0: both, else the one that explains more, else none. */
const leastSquares = (points: readonly Point[], weights: Float64Array): Line => {
  const m = momentsOf(points, weights)
  const varies = (variance: number, mean: number) => variance > varianceShareMin * Math.max(1, mean * mean)
  const hasInput = varies(m.ii, m.input)
  const hasOutput = varies(m.oo, m.output)
  const determinant = m.ii * m.oo - m.io * m.io
  if (hasInput && hasOutput && determinant > varianceShareMin * m.ii * m.oo) {
    const perInput = (m.iy * m.oo - m.oy * m.io) / determinant
    const perOutput = (m.oy * m.ii - m.iy * m.io) / determinant
    if (perInput >= 0 && perOutput >= 0) return lineOf(m, perInput, perOutput)
  }
  const byInput = hasInput && m.iy > 0 ? m.iy ** 2 / m.ii : 0
  const byOutput = hasOutput && m.oy > 0 ? m.oy ** 2 / m.oo : 0
  if (byInput > byOutput) return lineOf(m, m.iy / m.ii, 0)
  return lineOf(m, 0, byOutput > 0 ? m.oy / m.oo : 0)
}

const lineOf = (m: Moments, perInput: number, perOutput: number): Line => ({
  base: m.y - perInput * m.input - perOutput * m.output,
  perInput,
  perOutput,
})
