// What a replay knows besides its verdict: the figures behind the charts. Each type is one picture's data, in the unit of the
// metric, so that the report draws and the JSON carries the same numbers.
import type { Estimate } from './estimators.ts'
import type { MetricName } from './metrics.ts'

/** The same comparison within one part of the traffic. */
export type Segment = {
  /** As `tier=free category=math`; '' for requests with neither. */
  readonly name: string
  readonly rows: number
  readonly metrics: readonly {
    readonly metric: MetricName
    readonly production: Estimate
    readonly difference: Estimate
  }[]
}

/** A quantile of an amount, by inverting the weighted distribution function. */
export type Quantile = {
  readonly metric: 'latency_ms' | 'ttft_ms'
  /** 0.5, 0.95, 0.99 */
  readonly p: number
  readonly production: Estimate
  readonly candidate: Estimate
  readonly difference: Estimate
}

/** The mean of the worst 5 %: the conditional value at risk. */
export type TailMean = {
  readonly metric: 'latency_ms' | 'ttft_ms' | 'cost_usd'
  readonly share: number
  readonly production: number
  readonly candidate: number
}

/** Weighted distribution functions at ascending values; shares in 0…1. */
export type Distribution = {
  readonly metric: 'latency_ms' | 'ttft_ms'
  readonly points: readonly { readonly value: number; readonly production: number; readonly candidate: number }[]
}

/** One bar of a histogram over [from, to): the share of rows in it. */
export type Bar = { readonly from: number; readonly to: number; readonly share: number }

/** What the outcome model predicted against what was seen, over rows with about the same prediction. */
export type CalibrationBin = { readonly predicted: number; readonly observed: number; readonly rows: number }

/** A row that moves the estimate of the goal more than others. */
export type Influence = {
  readonly id: string
  readonly chosen: string
  readonly redecided: string
  readonly weight: number
  readonly outcome: number
  /** Its part of the difference, in the metric's unit per request. */
  readonly contribution: number
}

/** The difference in the earlier and the later half of the window, and how many standard errors these lie apart. */
export type Drift = {
  readonly metric: MetricName
  readonly earlier: Estimate
  readonly later: Estimate
  readonly se: number
}

/** The smallest error of one arm's logged probabilities that would turn a condition of the gate. */
export type Sensitivity = {
  readonly metric: MetricName
  readonly arm: string
  /** The logged probabilities would have to be this many times too high or too low; above 1. */
  readonly factor: number
  readonly direction: 'too-high' | 'too-low'
}

export type Detail = {
  readonly segments: readonly Segment[]
  readonly quantiles: readonly Quantile[]
  readonly tails: readonly TailMean[]
  readonly distributions: readonly Distribution[]
  /** The logged probability of what the candidate chooses, in powers of two. */
  readonly overlap: readonly Bar[]
  /** The importance weights, in powers of two. */
  readonly weights: readonly Bar[]
  readonly calibration: readonly { readonly metric: MetricName; readonly bins: readonly CalibrationBin[] }[]
  readonly influence: readonly Influence[]
  readonly drift: readonly Drift[]
  readonly sensitivity: readonly Sensitivity[]
}
