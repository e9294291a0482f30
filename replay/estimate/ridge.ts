// A linear outcome model: what a model's answer tends to cost or take as a function of the request's length, by arm, and of
// its segments. It is fitted from sums of products, one set per fold: these merge across workers, give the model without any
// fold by subtraction, and even its error on the fold left out, so that choosing λ needs no second look at the rows.

/** Features; 200² numbers are 320 kB per fold and metric. */
export const dimensionMax = 200
/** Rows' worth of doubt that every coefficient but the intercept starts with; cross-validation chooses. */
export const lambdas = [0.1, 1, 10, 100, 1000] as const

/** Sums over rows with features z, outcome y and weight k. Only the upper half of `products` is used. */
export type RidgeStatistics = {
  readonly dimension: number
  /** Σ k z zᵀ, row by row. */
  readonly products: Float64Array
  /** Σ k z y */
  readonly moments: Float64Array
  /** Σ k y², Σ k */
  readonly totals: Float64Array
}

/** Empty sums for `dimension` features, the first of which is the intercept, 1 in every row. */
export const ridgeStatistics = (dimension: number): RidgeStatistics => {
  if (!(dimension >= 1 && dimension <= dimensionMax))
    throw new RangeError(`a ridge regression was asked for ${dimension} features; it takes 1 to ${dimensionMax}`)
  return {
    dimension,
    products: new Float64Array(dimension * dimension),
    moments: new Float64Array(dimension),
    totals: new Float64Array(2),
  }
}

/** The features of one row that are not 0, with ascending indices. */
export type Features = { readonly indices: readonly number[]; readonly values: readonly number[] }

export const addToRidge = (sums: RidgeStatistics, { indices, values }: Features, y: number, weight: number): void => {
  const { dimension, products, moments, totals } = sums
  for (const [at, index] of indices.entries()) {
    const weighted = weight * (values[at] ?? 0)
    moments[index] = (moments[index] ?? 0) + weighted * y
    for (let other = at; other < indices.length; other++) {
      const cell = index * dimension + (indices[other] ?? 0)
      products[cell] = (products[cell] ?? 0) + weighted * (values[other] ?? 0)
    }
  }
  totals[0] = (totals[0] ?? 0) + weight * y * y
  totals[1] = (totals[1] ?? 0) + weight
}

/** Adds another's sums, or with `sign` −1 takes them away again. */
export const mergeRidge = (sums: RidgeStatistics, other: RidgeStatistics, sign: 1 | -1 = 1): void => {
  for (const name of ['products', 'moments', 'totals'] as const)
    for (let at = 0; at < sums[name].length; at++)
      sums[name][at] = (sums[name][at] ?? 0) + sign * (other[name][at] ?? 0)
}

/**
 * The coefficients β that minimise Σ k (y − zᵀβ)² + λ Σ_{j>0} β_j² (Hoerl & Kennard 1970, eq. 2.1, the intercept free), by
 * Cholesky's factorisation. λ counts rows, so features should be of order one. A direction that the rows say nothing about
 * gets 0.
 */
export const solveRidge = ({ dimension, products, moments }: RidgeStatistics, lambda: number): Float64Array => {
  const factor = products.slice()
  for (let j = 1; j < dimension; j++) factor[j * dimension + j] = (factor[j * dimension + j] ?? 0) + lambda
  factorise(factor, dimension)
  const beta = moments.slice()
  const at = (row: number, column: number) => factor[row * dimension + column] ?? 0
  for (let row = 0; row < dimension; row++) {
    let sum = beta[row] ?? 0
    for (let above = 0; above < row; above++) sum -= at(above, row) * (beta[above] ?? 0)
    beta[row] = at(row, row) > 0 ? sum / at(row, row) : 0
  }
  for (let row = dimension - 1; row >= 0; row--) {
    let sum = beta[row] ?? 0
    for (let right = row + 1; right < dimension; right++) sum -= at(row, right) * (beta[right] ?? 0)
    beta[row] = at(row, row) > 0 ? sum / at(row, row) : 0
  }
  return beta
}

/** Replaces the upper half of a positive matrix M by U with UᵀU = M; a row without a pivot becomes 0. */
const factorise = (matrix: Float64Array, dimension: number): void => {
  for (let row = 0; row < dimension; row++) {
    const start = row * dimension
    const scale = matrix[start + row] ?? 0
    for (let above = 0; above < row; above++) {
      const factor = matrix[above * dimension + row] ?? 0
      if (factor === 0) continue
      for (let column = row; column < dimension; column++)
        matrix[start + column] = (matrix[start + column] ?? 0) - factor * (matrix[above * dimension + column] ?? 0)
    }
    const pivot = matrix[start + row] ?? 0
    const root = pivot > scale * Number.EPSILON * dimension ? Math.sqrt(pivot) : 0
    for (let column = row; column < dimension; column++)
      matrix[start + column] = root > 0 ? (matrix[start + column] ?? 0) / root : 0
  }
}

/** Σ k (y − zᵀβ)² over the rows of the sums: yy − 2 βᵀm + βᵀPβ. */
export const squaredError = ({ dimension, products, moments, totals }: RidgeStatistics, beta: Float64Array): number => {
  let error = totals[0] ?? 0
  for (let row = 0; row < dimension; row++) {
    const b = beta[row] ?? 0
    error -= 2 * b * (moments[row] ?? 0)
    for (let column = row; column < dimension; column++)
      error += (column === row ? 1 : 2) * b * (beta[column] ?? 0) * (products[row * dimension + column] ?? 0)
  }
  return Math.max(0, error)
}

/** A fit for each fold, made without it, and how well these predict what they were not shown. */
export type RidgeFit = {
  readonly lambda: number
  /** `coefficients[f]` was fitted without fold f. */
  readonly coefficients: readonly Float64Array[]
  /** Σ k (y − ŷ)² / Σ k over the folds left out: what to compare with another model's. */
  readonly meanSquaredError: number
}

/** Fits without each fold, with the λ of the grid that predicts the folds left out best (Stone 1974). */
export const fitRidge = (folds: readonly RidgeStatistics[], grid: readonly number[] = lambdas): RidgeFit => {
  const weight = folds.reduce((sum, { totals }) => sum + (totals[1] ?? 0), 0)
  const withouts = folds.map((fold) => {
    const without = ridgeStatistics(fold.dimension)
    for (const other of folds) if (other !== fold) mergeRidge(without, other)
    return without
  })
  const fits = grid.map((lambda): RidgeFit => {
    const coefficients = withouts.map((without) => solveRidge(without, lambda))
    const error = folds.reduce((sum, fold, at) => sum + squaredError(fold, coefficients[at] as Float64Array), 0)
    return { lambda, coefficients, meanSquaredError: error / weight }
  })
  return fits.reduce((best, fit) => (fit.meanSquaredError < best.meanSquaredError ? fit : best))
}

/** The prediction for a row's features. */
export const predictRidge = (beta: Float64Array, { indices, values }: Features): number =>
  indices.reduce((sum, index, at) => sum + (beta[index] ?? 0) * (values[at] ?? 0), 0)

/** Where features stand: an intercept, for each arm a 1 and the request's length, and each segmentation's segments. */
export type RidgeLayout = {
  readonly dimension: number
  readonly armCount: number
  /** Where each segmentation begins. */
  readonly segmentsFrom: readonly number[]
  /** ln(1 + tokens) of a usual request: lengths are measured around it, so that an arm rarely seen shrinks to what is usual. */
  readonly usualLength: number
}

const usualLengthDefault = 6

/** Lays features out; segmentations that no longer fit into 200 features are left out from the first that does not. */
export const ridgeLayout = (
  armCount: number,
  segmentCounts: readonly number[],
  usualLength: number = usualLengthDefault,
): RidgeLayout => {
  let dimension = 1 + 2 * armCount
  const segmentsFrom: number[] = []
  for (const count of segmentCounts) {
    if (dimension + count > dimensionMax) break
    segmentsFrom.push(dimension)
    dimension += count
  }
  return { dimension, armCount, segmentsFrom, usualLength }
}

/** The features of a request, given its segment in each segmentation, had `arm` answered it. */
export const featuresOf = (
  { armCount, segmentsFrom, usualLength }: RidgeLayout,
  arm: number,
  inputTokens: number,
  segments: readonly number[],
): Features => ({
  indices: [0, 1 + arm, 1 + armCount + arm, ...segmentsFrom.map((from, at) => from + (segments[at] ?? 0))],
  values: [1, 1, Math.log1p(inputTokens) - usualLength, ...segmentsFrom.map(() => 1)],
})
