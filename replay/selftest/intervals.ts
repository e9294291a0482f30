// Intervals that others have printed: a confidence sequence from the tests of an experimentation platform, and the bootstrap
// interval of a textbook.
import { bootstrapStatistic, poissonDraws } from '../estimate/bootstrap.ts'
import { asymptoticInterval } from '../estimate/sequence.ts'
import { type Figure, figure } from './figure.ts'

type Sample = { readonly count: number; readonly sum: number; readonly squares: number }

/** The two samples in GrowthBook's test of sequential intervals: relative uplift by the delta method, tuned to 1,000 rows. */
const experiment = {
  before: { count: 3000, sum: 1396.87, squares: 52377.9767 },
  after: { count: 3461, sum: 2422.7, squares: 134698.29 },
}

const momentsOf = ({ count, sum, squares }: Sample) => {
  const mean = sum / count
  return { mean, errorSquare: (squares / count - mean * mean) / (count - 1) }
}

/** Waudby-Smith et al. 2021, arXiv 2103.06476, prop. 2.5. */
export const sequenceFigures = (): Figure[] => {
  const [before, after] = [momentsOf(experiment.before), momentsOf(experiment.after)]
  const count = experiment.before.count + experiment.after.count
  const ratio = after.mean / before.mean
  const errorSquare = (after.errorSquare + ratio ** 2 * before.errorSquare) / before.mean ** 2
  const look = { count, mean: ratio - 1, variance: errorSquare * count, tuning: 1000, alpha: 0.05 }
  const { low, high } = asymptoticInterval(look)
  return [
    figure({
      group: 'AsympCS',
      name: 'half-width',
      source: 'published',
      expected: 1.0618,
      ours: (high - low) / 2,
      decimals: 4,
    }),
  ]
}

/** Two spatial tests of 26 children: the first (Efron & Tibshirani 1993, table 14.1). */
const spatialTest = [
  48, 36, 20, 29, 42, 42, 20, 42, 22, 41, 45, 14, 6, 0, 33, 28, 34, 4, 32, 24, 47, 41, 24, 26, 30, 41,
]

/**
 * The 90 % BCa interval of its variance (Efron & Tibshirani 1993, table 14.2). The book drew 2,000 replicates; from one such
 * set to the next the ends move with standard deviations of 2.7 and 4.8, and may lie two of these apart. Its other
 * intervals, (98.8, 233.6) and (100.8, 233.9), lie far outside.
 */
export const bootstrapFigures = (): Figure[] => {
  const scores = Float64Array.from(spatialTest)
  const terms = [scores.map(() => 1), scores, scores.map((score) => score * score)]
  const variance = ([n = 0, sum = 0, squares = 0]: Float64Array) => squares / n - (sum / n) ** 2
  const { value, low, high } = bootstrapStatistic(terms, variance, poissonDraws(scores.length, 10_000), 0.1)
  const line = (name: string, expected: number, ours: number, tolerance: number) =>
    figure({ group: 'BCa', name, source: 'published', expected, ours, decimals: 1, tolerance })
  return [
    line('variance of a spatial test', 171.5, value, 0),
    line('lower end of its interval', 115.8, low, 5.4),
    line('upper end of its interval', 259.6, high, 9.6),
  ]
}
