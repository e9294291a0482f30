// A canary watched without any limit theorem (`strict`): the arm of a session is a draw of known probability, so the difference of
// the arms can be bet on, and the interval holds at every look from the first session on, however skewed what comes of them.
// The price is width, and for amounts a bound that somebody must state beforehand.
import { type MetricName, metrics } from '../estimate/metrics.ts'
import { addBets, bettingInterval, type Interval, startBetting } from '../estimate/sequence.ts'
import type { Arm, Fill } from './canary.ts'
import type { Gate } from './gate-file.ts'

/** Means of sessions are told to this part of the bound; an interval is widened by one such step. */
export const rewardSteps = 1024

/** How many clusters of an arm came to this mean, as a share of the metric's bound; `beyond` of them to more than the bound. */
export type ArmBet = {
  readonly arm: Arm
  readonly metric: MetricName
  readonly fill: Fill
  readonly reward: number
  readonly clusters: number
  readonly beyond: number
}

/** The largest mean of a session that was stated: 1 for shares and quality; null where nothing was. */
export const boundOf = ({ canary: { bounds } }: Gate, metric: MetricName): number | null =>
  metrics[metric].range?.[1] ?? bounds[metric as keyof typeof bounds] ?? null

/** The difference of the arms in one metric; `isBeyond` when a session exceeded the stated bound, so that nothing follows. */
export type StrictDifference = {
  readonly production: number
  readonly candidate: number
  readonly se: number
  readonly interval: Interval
  readonly isBeyond: boolean
}

/**
 * Candidate − production in the mean of a session's mean, by betting: with w = 1{an arm} / s, where s is the probability of that
 * arm, E[(w − 1) r] = (1 − s) (μ_arm − μ_other), and E[w] = 1 is known (Waudby-Smith & Ramdas 2024; sequence.ts). Each arm is bet
 * on at half of `alpha`, because a bound from the one is close where outcomes are near 0, and from the other near 1. Holds at all looks together with probability 1 − `alpha`, from the first session on, for sessions that are independent draws.
 * `bound` is the largest value, `alpha` the probability to miss; in the metric's unit.
 */
export const strictDifference = (
  candidate: readonly ArmBet[],
  production: readonly ArmBet[],
  share: number,
  bound: number,
  alpha: number,
): StrictDifference => {
  const forCandidate = intervalFor(candidate, production, share, alpha / 2)
  const forProduction = intervalFor(production, candidate, 1 - share, alpha / 2)
  const [ofCandidate, ofProduction] = [momentsOf(candidate), momentsOf(production)]
  const step = 1 / rewardSteps
  return {
    production: bound * ofProduction.mean,
    candidate: bound * ofCandidate.mean,
    se: bound * Math.sqrt(ofProduction.variance + ofCandidate.variance),
    interval: {
      low: bound * Math.max(-1, Math.max(forCandidate.low, -forProduction.high) - step),
      high: bound * Math.min(1, Math.min(forCandidate.high, -forProduction.low) + step),
    },
    isBeyond: [...candidate, ...production].some(({ beyond }) => beyond > 0),
  }
}

/** The difference arm − other by bets on the arm, whose probability is `share`; in parts of the bound. */
const intervalFor = (arm: readonly ArmBet[], other: readonly ArmBet[], share: number, alpha: number): Interval => {
  const betting = startBetting('difference')
  for (const { reward, clusters } of arm) addBets(betting, 1 / share, reward, clusters)
  for (const { reward, clusters } of other) addBets(betting, 0, reward, clusters)
  const { low, high } = bettingInterval(betting, alpha)
  return { low: low / (1 - share), high: high / (1 - share) }
}

/** The mean over clusters, and the variance of that mean. */
const momentsOf = (bets: readonly ArmBet[]): { readonly mean: number; readonly variance: number } => {
  const sum = (value: (bet: ArmBet) => number) => bets.reduce((total, bet) => total + bet.clusters * value(bet), 0)
  const count = sum(() => 1)
  const mean = sum(({ reward }) => reward) / count
  return { mean, variance: sum(({ reward }) => (reward - mean) ** 2) / count ** 2 }
}
