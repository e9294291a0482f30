// The figures behind the charts, from the sums of a run: parts of the traffic, distributions, histograms, and which rows and
// which probabilities the result hangs on.
import { kindName, type Survey } from '../redecide/survey.ts'
import {
  type CandidateTally,
  calibrationBins,
  kindsShownMax,
  type LogTally,
  overlapBins,
  partGroups,
  partTerms,
  weightBins,
  weightBinsPerOctave,
} from '../redecide/tallies.ts'
import type { Bar, CalibrationBin, Detail, Drift, Influence, Segment, Sensitivity } from './detail.ts'
import { type Estimate, RatioSum } from './estimators.ts'
import type { MetricResult } from './evaluate.ts'
import { type MetricName, metricCount, metricNames, spreadMetrics } from './metrics.ts'
import { type Bins, curveOf, differenceOf, distributionOf, quantile, tailMean } from './quantiles.ts'

/** Rows named as moving the result. */
const influenceMax = 12
/** A factor beyond this is no error that anybody makes. */
const factorMax = 100

/** Everything the sums show besides the gate's figures. `goal` is the metric whose rows are named. */
export const lookAt = (
  survey: Survey,
  log: LogTally,
  tally: CandidateTally,
  results: readonly MetricResult[],
  goal: MetricName,
): Detail => ({
  ...spreadsOf(log, tally),
  segments: segmentsOf(survey, tally, results),
  overlap: overlapOf(tally),
  weights: weightsOf(tally),
  calibration: results.flatMap(({ metric, rows }) => (rows > 0 ? [{ metric, bins: calibrationOf(log, metric) }] : [])),
  influence: influenceOf(survey, tally, goal),
  drift: driftOf(tally, results),
  sensitivity: results.flatMap((result) => sensitivityOf(survey, tally, result)),
})

const quantilesShown = [0.5, 0.95, 0.99]
const tailShare = 0.05

const spreadsOf = (log: LogTally, tally: CandidateTally): Pick<Detail, 'quantiles' | 'tails' | 'distributions'> => {
  const curves = spreadMetrics.flatMap(({ metric, scale }, at) => {
    const production = curveOf(log.bins[at] as Bins)
    const candidate = curveOf(tally.bins[at] as Bins)
    return production.total > 0 && candidate.total > 0 ? [{ metric, scale, production, candidate }] : []
  })
  const timed = curves.flatMap(({ metric, ...curve }) => (metric === 'cost_usd' ? [] : [{ metric, ...curve }]))
  return {
    quantiles: timed.flatMap(({ metric, production, candidate }) =>
      quantilesShown.map((p) => {
        const [before, after] = [quantile(production, p), quantile(candidate, p)]
        return {
          metric,
          p,
          production: before.estimate,
          candidate: after.estimate,
          difference: differenceOf(after, before),
        }
      }),
    ),
    tails: curves.map(({ metric, scale, production, candidate }) => ({
      metric,
      share: tailShare,
      production: tailMean(production, tailShare) / scale,
      candidate: tailMean(candidate, tailShare) / scale,
    })),
    distributions: timed.map(({ metric, production, candidate }) => ({
      metric,
      points: distributionOf(production, candidate),
    })),
  }
}

/** A part's production value and difference. */
const partOf = ({ parts }: CandidateTally, part: number, metric: MetricName) => {
  const sums = [new RatioSum(), new RatioSum()] as const
  for (let group = 0; group < partGroups; group++) {
    const place = ((part * partGroups + group) * metricCount + metricNames.indexOf(metric)) * partTerms
    const k = parts[place] as number
    if (k === 0) continue
    sums[0].add(parts[place + 1] as number, k)
    sums[1].add(parts[place + 2] as number, k)
  }
  return { production: sums[0].close(), difference: sums[1].close() }
}

const segmentsOf = ({ kinds }: Survey, tally: CandidateTally, results: readonly MetricResult[]): Segment[] => {
  const named = kinds.slice(1, 1 + kindsShownMax)
  if (named.length < 2) return []
  return named.map((kind, part) => ({
    name: kindName(kind),
    rows: kind.rows,
    metrics: results.flatMap(({ metric, rows }) => (rows > 0 ? [{ metric, ...partOf(tally, part, metric) }] : [])),
  }))
}

const driftOf = (tally: CandidateTally, results: readonly MetricResult[]): Drift[] =>
  results.flatMap(({ metric, rows }): Drift[] => {
    if (rows === 0) return []
    const [earlier, later] = [0, 1].map((half) => partOf(tally, kindsShownMax + half, metric).difference) as [
      Estimate,
      Estimate,
    ]
    const se = Math.abs(earlier.value - later.value) / Math.hypot(earlier.se, later.se)
    return Number.isFinite(se) ? [{ metric, earlier, later, se }] : []
  })

const shares = (sums: readonly number[]): number[] => {
  const total = sums.reduce((a, b) => a + b, 0)
  return sums.map((sum) => (total > 0 ? sum / total : 0))
}

const overlapOf = ({ overlap }: CandidateTally): Bar[] =>
  shares([...overlap]).flatMap((share, octave) =>
    share > 0 ? [{ from: octave === overlapBins - 1 ? 0 : 2 ** -(octave + 1), to: 2 ** -octave, share }] : [],
  )

/** Whole octaves; weights of 0, which say nothing, have a bar of their own from 0 to 0. */
const weightsOf = ({ weights }: CandidateTally): Bar[] => {
  const keeps = Array.from({ length: weightBins }, (_, bin) => weights[bin * 2] ?? 0)
  const octaves = Array.from({ length: weightBins / weightBinsPerOctave }, (_, octave) =>
    keeps
      .slice(octave * weightBinsPerOctave + (octave === 0 ? 1 : 0), (octave + 1) * weightBinsPerOctave)
      .reduce((a, b) => a + b, 0),
  )
  const [none, ...parts] = shares([keeps[0] ?? 0, ...octaves])
  const middle = octaves.length / 2
  return [
    ...(none ? [{ from: 0, to: 0, share: none }] : []),
    ...parts.flatMap((share, at) =>
      share > 0 ? [{ from: 2 ** (at - middle), to: 2 ** (at + 1 - middle), share }] : [],
    ),
  ]
}

const calibrationOf = ({ calibration }: LogTally, metric: MetricName): CalibrationBin[] =>
  Array.from({ length: calibrationBins }, (_, bin) => {
    const place = (metricNames.indexOf(metric) * calibrationBins + bin) * 3
    const rows = calibration[place + 2] as number
    return {
      predicted: (calibration[place] as number) / rows,
      observed: (calibration[place + 1] as number) / rows,
      rows,
    }
  }).filter(({ rows }) => rows > 0)

const influenceOf = ({ armNames, rows }: Survey, { movers }: CandidateTally, goal: MetricName): Influence[] =>
  (movers[metricNames.indexOf(goal)] ?? []).slice(0, influenceMax).map((mover) => ({
    id: mover.id,
    chosen: armNames[mover.chosen] ?? '',
    redecided: armNames[mover.redecided] ?? '',
    weight: mover.weight,
    outcome: mover.outcome,
    contribution: mover.contribution / rows,
  }))

/**
 * If an arm's logged probabilities were c times too high, its true weights would be c times the ones used and the difference
 * would move by (c − 1) S, S = Σ k w (r − q) over the arm's rows / Σ k. Gives, for each metric whose interval excludes 0, the arm
 * and the c nearest to 1 that bring the interval to 0.
 */
const sensitivityOf = (
  { armNames }: Survey,
  { residuals }: CandidateTally,
  { metric, rows, difference, diagnostics }: MetricResult,
): Sensitivity[] => {
  const { low, high } = difference
  if (rows === 0 || !(low > 0 || high < 0) || diagnostics.changedRows === 0) return []
  const bound = low > 0 ? low : high
  const found = armNames.flatMap((arm, at): Sensitivity[] => {
    const moved = (residuals[metricNames.indexOf(metric) * armNames.length + at] ?? 0) / diagnostics.rows
    const c = 1 - bound / moved
    if (moved === 0 || !(c > 0)) return []
    const factor = Math.max(c, 1 / c)
    return factor <= factorMax ? [{ metric, arm, factor, direction: c > 1 ? 'too-high' : 'too-low' }] : []
  })
  return found.sort((a, b) => a.factor - b.factor).slice(0, 1)
}
