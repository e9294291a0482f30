// Intervals that stay true however often one looks: a dashboard refreshed every minute, a canary stopped as soon as it is
// clear. One is asymptotic and as cheap as a mean and a variance; the other bets against every value the mean could have,
// asks nothing of the weights but that they average 1, and holds from the first row. Both fold rows in any order and merge.

/** After so many rows the wealth of a bet is written down as a logarithm, before the product can overflow. */
const productMax = 32
/** The values the mean might have are tried this many to the unit; a lower bound is rounded down by at most one step. */
const stepsPerUnit = 400
/** Largest weight one row may carry; above it so many factors could overflow a number. */
const weightMax = 1e6
/** The parts of the wealth, 1/2 … 1/1024, that are staked at every row: each is the best for its own length of log. */
const stakes = Array.from({ length: 10 }, (_, power) => 2 ** -(power + 1))

export type Interval = { readonly low: number; readonly high: number }

/**
 * The asymptotic confidence sequence for a mean (Waudby-Smith et al. 2021, arXiv 2103.06476, prop. 2.5):
 * mean ± s √( (n g + 1) ln((n g + 1) / α²) / (n² g) ), where g = (−2 ln α + ln(1 − 2 ln α)) / n* makes it narrowest at the
 * n* = `tuning`-th observation. `variance` is that of one observation, in squared units of the mean; for an estimate with
 * standard error e it is n e². All looks together miss with probability α once the first look has about 250 effective
 * observations. Infinite below two observations.
 */
export const asymptoticInterval = (look: {
  readonly count: number
  readonly mean: number
  readonly variance: number
  readonly tuning: number
  readonly alpha: number
}): Interval => {
  const { count, mean, variance, tuning, alpha } = look
  if (!(alpha > 0 && alpha < 1 && tuning > 0))
    throw new RangeError(
      `a confidence sequence was asked for with alpha ${alpha}, tuning ${tuning}; alpha lies between 0 and 1, tuning above 0`,
    )
  if (!(count >= 2)) return { low: -Infinity, high: Infinity }
  const g = (-2 * Math.log(alpha) + Math.log(1 - 2 * Math.log(alpha))) / tuning
  const spread = count * g + 1
  const reach = Math.sqrt((variance * spread * Math.log(spread / alpha ** 2)) / g) / count
  return { low: mean - reach, high: mean + reach }
}

/** What is bet on: the candidate's value E[w r], or its difference from production, E[(w − 1) r]. Rewards lie in [0, 1]. */
export type Wager = 'value' | 'difference'

/** The wealth of each stake against each mean: a logarithm, and a product not yet added to it. */
type Wealth = { readonly logarithm: Float64Array; readonly product: Float64Array }

/** What has been won so far by betting that the mean is higher, and that it is lower. Plain data, so it can change threads. */
export type Betting = {
  readonly wager: Wager
  /** Rows folded in. */
  count: number
  readonly above: Wealth
  readonly below: Wealth
}

/** 1 / m for the means that are tried. */
const perMean = Float64Array.from({ length: 2 * stepsPerUnit }, (_, step) => stepsPerUnit / (step + 1))

const stepsOf = (wager: Wager): number => (wager === 'difference' ? 2 : 1) * stepsPerUnit

/**
 * Starts the betting. Against each value m that the mean of an X ≥ 0 could have, a gambler stakes the part f of the wealth
 * at every row: K(m) = Π (1 + f (X_i / m − 1)), a fair game when m is the mean and a losing one when m is above it. By Ville's
 * inequality a K that reaches 1/α refutes m, and all below it with it, for K falls with m. Stakes that do not depend on the
 * rows are predictable, and the average of several such games is a game too (Waudby-Smith & Ramdas 2024, §4; Karampatziakis,
 * Mineiro & Ramdas 2021; for unbounded weights Waudby-Smith et al. 2022, arXiv 2210.10768). The other side bets on
 * w (1 − r), whose mean is 1 − E[w r] because E[w] = 1. For a difference X is 1 + (w − 1) r, which is never negative either.
 */
export const startBetting = (wager: Wager): Betting => ({
  wager,
  count: 0,
  above: startWealth(stepsOf(wager)),
  below: startWealth(stepsOf(wager)),
})

/**
 * Folds one row into `betting`: its importance weight and its reward in [0, 1]. Rows must be independent draws: of a
 * cluster, give one row or its mean. Throws a RangeError when either is outside its range.
 */
export const addBet = (betting: Betting, weight: number, reward: number): void => {
  const [above, below] = stakedOn(betting, weight, reward)
  multiply(betting.above, above)
  multiply(betting.below, below)
  betting.count += 1
  if (betting.count % productMax === 0) settleBoth(betting)
}

/** Folds `count` rows that are alike: the wealth is a product, so their order does not matter. Throws as `addBet` does. */
export const addBets = (betting: Betting, weight: number, reward: number, count: number): void => {
  const [above, below] = stakedOn(betting, weight, reward)
  raise(betting.above, above, count)
  raise(betting.below, below, count)
  betting.count += count
}

/** What a row pays to those who bet that the mean is higher, and lower. */
const stakedOn = ({ wager }: Betting, weight: number, reward: number): readonly [above: number, below: number] => {
  if (!(weight >= 0 && weight <= weightMax && reward >= 0 && reward <= 1))
    throw new RangeError(
      `a bet was placed on weight ${weight}, reward ${reward}; a weight lies in 0…${weightMax}, a reward in 0…1`,
    )
  return wager === 'difference'
    ? [1 + (weight - 1) * reward, 1 + (weight - 1) * (1 - reward)]
    : [weight * reward, weight * (1 - reward)]
}

/** Takes over what another saw of the same wager; the order does not matter, because wealth is a product. */
export const mergeBets = (betting: Betting, other: Betting): void => {
  settleBoth(betting)
  for (const side of ['above', 'below'] as const) {
    const { logarithm } = betting[side]
    for (let at = 0; at < logarithm.length; at++)
      logarithm[at] = (logarithm[at] ?? 0) + (other[side].logarithm[at] ?? 0) + Math.log(other[side].product[at] ?? 1)
  }
  betting.count += other.count
}

/**
 * The interval after the rows so far, in the unit of the reward; with probability 1 − α it holds the truth at every look.
 * A low above the high says that the weights do not average 1: the logged probabilities are wrong.
 */
export const bettingInterval = (betting: Betting, alpha: number): Interval => ({
  low: lowerBound(betting.above, alpha / 2) - (betting.wager === 'difference' ? 1 : 0),
  high: 1 - lowerBound(betting.below, alpha / 2),
})

const startWealth = (steps: number): Wealth => ({
  logarithm: new Float64Array(stakes.length * steps),
  product: new Float64Array(stakes.length * steps).fill(1),
})

const multiply = ({ product }: Wealth, x: number): void => {
  const steps = product.length / stakes.length
  for (let stake = 0; stake < stakes.length; stake++) {
    const part = stakes[stake] ?? 0
    const [kept, won] = [1 - part, part * x]
    for (let step = 0, at = stake * steps; step < steps; step++, at++)
      product[at] = (product[at] ?? 1) * (kept + won * (perMean[step] ?? 0))
  }
}

const raise = ({ logarithm }: Wealth, x: number, count: number): void => {
  const steps = logarithm.length / stakes.length
  for (const [stake, part] of stakes.entries())
    for (let step = 0, at = stake * steps; step < steps; step++, at++)
      logarithm[at] = (logarithm[at] ?? 0) + count * Math.log(1 - part + part * x * (perMean[step] ?? 0))
}

const settleBoth = ({ above, below }: Betting): void => {
  for (const { logarithm, product } of [above, below]) {
    for (let at = 0; at < product.length; at++) logarithm[at] = (logarithm[at] ?? 0) + Math.log(product[at] ?? 1)
    product.fill(1)
  }
}

/** The largest mean tried that is refuted: the average wealth against it has reached 1/α. */
const lowerBound = ({ logarithm, product }: Wealth, alpha: number): number => {
  const steps = product.length / stakes.length
  const goal = Math.log(stakes.length / alpha)
  let refuted = 0
  for (let step = 1; step <= steps; step++) {
    const wealth = stakes.map((_, stake) => {
      const at = stake * steps + step - 1
      return (logarithm[at] ?? 0) + Math.log(product[at] ?? 1)
    })
    const most = Math.max(...wealth)
    if (most + Math.log(wealth.reduce((sum, log) => sum + Math.exp(log - most), 0)) < goal) break
    refuted = step
  }
  return refuted / stepsPerUnit
}
