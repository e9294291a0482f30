// Distributions of amounts with heavy tails, in bounded memory: values fall into bins 2 % wide, and each bin keeps the mass
// of 256 groups of clusters. That is enough for any quantile within 1 %, with an interval that knows about sessions. One
// histogram holds the rows as logged, another the same rows under a candidate's weights; what they share cancels.
import type { Distribution } from './detail.ts'
import { type Estimate, studentQuantile } from './estimators.ts'
import { add, addAll } from './terms.ts'

/** Clusters are dealt to this many groups, whose differences are the measure of uncertainty. */
export const quantileGroups = 256
/** The scale: milliseconds, or millionths of a dollar. */
export const lowest = 0.1
const highest = 1e7
/** Neighbouring bin edges differ by this factor, so that a bin's middle is within 1 % of every value in it. */
export const binRatio = 1.02
const logRatio = Math.log(binRatio)
const scaleBins = Math.ceil(Math.log(highest / lowest) / logRatio)
/** Bin 0 holds zero and what is below the scale, then comes the scale, what is above it, and what was cut short. */
const aboveBin = scaleBins + 1
export const cutBin = scaleBins + 2
export const binCount = scaleBins + 3
const pointsMax = 60
/** Shares at which a chart gets a point besides evenly spaced ones, because tails are what people look for. */
const tailShares = [0.95, 0.97, 0.98, 0.99, 0.995, 0.999]

/**
 * A histogram of up to 256 groups; `mass[group * binCount + bin]` takes 2 MB. A row's mass is k (1/ρ) for production and k w
 * for a candidate. What was cut short (the client left, a timeout) is larger than it was seen to be: its mass counts as
 * larger than everything, and `cutAt` keeps, for all groups together, the bin it had reached.
 */
export type Bins = {
  readonly mass: Float64Array
  /** Σ mass · value per bin, what was cut short included where it was last seen. */
  readonly amount: Float64Array
  readonly cutAt: Float64Array
}

export const emptyBins = (): Bins => ({
  mass: new Float64Array(quantileGroups * binCount),
  amount: new Float64Array(binCount),
  cutAt: new Float64Array(binCount),
})

/** The bin of a value: 0 below 0.1, then steps of 2 % up to 10,000,000, then one for all above. */
export const binOf = (value: number): number =>
  value < lowest ? 0 : Math.min(aboveBin, 1 + Math.floor(Math.log(value / lowest) / logRatio))

/** Adds a row of `group` (0…255) with a value and a mass, both ≥ 0; rows without a value are left out by the caller. */
export const addTo = (
  { mass: masses, amount, cutAt }: Bins,
  group: number,
  value: number,
  mass: number,
  cutShort: boolean,
): void => {
  const seen = binOf(value)
  add(masses, group * binCount + (cutShort ? cutBin : seen), mass)
  add(amount, seen, mass * value)
  if (cutShort) add(cutAt, seen, mass)
}

/** Takes over what another histogram saw of other rows. */
export const mergeBins = (bins: Bins, other: Bins): void => {
  for (const name of ['mass', 'amount', 'cutAt'] as const) addAll(bins[name], other[name])
}

/** A histogram summed up, ready to be asked. */
export type Curve = {
  readonly bins: Bins
  /** Σ mass up to and including each bin; what was cut short comes last. */
  readonly upTo: Float64Array
  /** The same with what was cut short counted where it was last seen: never below the true function. */
  readonly upToSeen: Float64Array
  readonly groupTotals: Float64Array
  readonly total: number
}

export const curveOf = (bins: Bins): Curve => {
  const inBin = new Float64Array(binCount)
  const groupTotals = new Float64Array(quantileGroups)
  for (let group = 0, at = 0; group < quantileGroups; group++)
    for (let bin = 0; bin < binCount; bin++, at++) {
      const mass = bins.mass[at] ?? 0
      inBin[bin] = (inBin[bin] ?? 0) + mass
      groupTotals[group] = (groupTotals[group] ?? 0) + mass
    }
  const cumulate = (values: Float64Array): Float64Array => {
    let sum = 0
    return values.map((value) => (sum += value))
  }
  const upTo = cumulate(inBin)
  const upToSeen = cumulate(inBin.map((mass, bin) => (bin === cutBin ? 0 : mass + (bins.cutAt[bin] ?? 0))))
  return { bins, upTo, upToSeen, groupTotals, total: upTo[cutBin] ?? 0 }
}

/** A place on the scale: the bin, and the part of its mass that lies below. */
type Place = { readonly bin: number; readonly within: number }

/** Where a share of the mass lies below; null when that is off the scale or among what was cut short. */
const placeOf = (cumulative: Float64Array, share: number): Place | null => {
  const wanted = Math.max(0, share) * (cumulative[cutBin] ?? 0)
  const bin = cumulative.findIndex((mass) => mass > 0 && mass >= wanted)
  if (share > 1 || bin < 0 || bin >= aboveBin) return null
  const before = cumulative[bin - 1] ?? 0
  return { bin, within: (wanted - before) / ((cumulative[bin] ?? 0) - before) }
}

/** Values of a bin are taken to lie evenly around their mean, as far as the nearer edge: exact for equal values at an edge. */
const spreadOf = ({ bins, upToSeen }: Curve, bin: number) => {
  const mass = (upToSeen[bin] ?? 0) - (upToSeen[bin - 1] ?? 0)
  const low = bin === 0 ? 0 : lowest * binRatio ** (bin - 1)
  const high = lowest * binRatio ** bin
  const mean = mass > 0 ? Math.min(high, Math.max(low, (bins.amount[bin] ?? 0) / mass)) : (low + high) / 2
  return { mean, half: Math.min(mean - low, high - mean) }
}

const valueAt = (curve: Curve, place: Place | null): number => {
  if (place === null) return Infinity
  const { mean, half } = spreadOf(curve, place.bin)
  return mean + (2 * place.within - 1) * half
}

/** Each group's part of F − its own: Σ_{y ≤ place} mass − F · Σ mass, over the total; these sum to 0. */
const residualsAt = ({ bins, upTo, groupTotals, total }: Curve, { bin, within }: Place): Float64Array => {
  const upToPlace = (upTo[bin - 1] ?? 0) + within * ((upTo[bin] ?? 0) - (upTo[bin - 1] ?? 0))
  return groupTotals.map((groupTotal, group) => {
    const from = group * binCount
    let below = within * (bins.mass[from + bin] ?? 0)
    for (let at = from; at < from + bin; at++) below += bins.mass[at] ?? 0
    return (below - (upToPlace / total) * groupTotal) / total
  })
}

/** √(A/(A−1) Σ u²) over the A groups that hold anything (Liang & Zeger 1986). */
const spread = (influence: Float64Array, groups: number): number =>
  groups < 2 ? Infinity : Math.sqrt((influence.reduce((sum, u) => sum + u * u, 0) * groups) / (groups - 1))

const activeGroups = ({ groupTotals }: Curve): number =>
  groupTotals.reduce((count, mass) => count + Number(mass > 0), 0)

/** A figure read off a curve, with what each group contributes to its error, in the figure's unit. */
export type Reading = {
  readonly estimate: Estimate
  readonly influence: Float64Array
  /** The figure if nothing that was cut short had gone on; equal to the value where it makes no difference. */
  readonly atLeast: number
}

/** A quantile by one of a curve's two distribution functions, with Woodruff's ends and the errors they follow from. */
const woodruff = (curve: Curve, cumulative: Float64Array, p: number, groups: number) => {
  const place = placeOf(cumulative, p)
  const residuals = place ? residualsAt(curve, place) : new Float64Array(quantileGroups)
  const reach = studentQuantile(groups - 1) * spread(residuals, groups)
  return {
    value: valueAt(curve, place),
    low: valueAt(curve, placeOf(cumulative, place ? p - reach : p)),
    high: valueAt(curve, place && placeOf(cumulative, p + reach)),
    residuals,
    reach,
  }
}

/**
 * The quantile with a share `p` below, by Woodruff's interval (Woodruff 1952; Francisco & Fuller 1991): the quantiles at
 * p ± t se, where se is that of the distribution function at the quantile, by groups. What was cut short counts as larger
 * than everything in the value and the upper end, which may be ∞, and as large as it was seen in the lower end. Influences
 * are linear: the slope of the inverse is the interval's width over 2 t se. Without bounds below two groups.
 */
export const quantile = (curve: Curve, p: number): Reading => {
  const groups = activeGroups(curve)
  if (groups < 2) return unknownReading(groups)
  const { value, low, high, residuals, reach } = woodruff(curve, curve.upTo, p, groups)
  const seen = woodruff(curve, curve.upToSeen, p, groups)
  const halfWidth = high < Infinity ? (high - low) / 2 : Infinity
  const slope = reach > 0 && halfWidth < Infinity ? halfWidth / reach : 0
  return {
    estimate: {
      value,
      se: halfWidth / studentQuantile(groups - 1),
      low: Math.min(low, seen.low),
      high,
      clusters: groups,
    },
    influence: residuals.map((u) => -u * slope),
    atLeast: seen.value,
  }
}

/**
 * The share of mass beyond a limit, which is known to 1 %: the misses of a service level objective. What was cut short is
 * counted as a miss. While no miss or nothing else was seen, the interval reaches as far as the "rule of three" allows
 * (Hanley & Lippman-Hand 1983), for the effective number of groups.
 */
export const missShare = (curve: Curve, limit: number): Reading => {
  const groups = activeGroups(curve)
  if (groups < 2) return unknownReading(groups)
  const bin = binOf(limit)
  const { mean, half } = spreadOf(curve, bin)
  const within = half > 0 ? Math.min(1, Math.max(0, (limit - mean + half) / (2 * half))) : Number(limit >= mean)
  const residuals = residualsAt(curve, { bin, within })
  const share = (mass: Float64Array) =>
    1 - ((mass[bin - 1] ?? 0) + within * ((mass[bin] ?? 0) - (mass[bin - 1] ?? 0))) / curve.total
  const value = Math.max(0, share(curve.upTo))
  const se = spread(residuals, groups)
  const squares = curve.groupTotals.reduce((sum, mass) => sum + mass * mass, 0)
  const reach = se > 0 ? studentQuantile(groups - 1) * se : (-Math.log(0.025) * squares) / curve.total ** 2
  const estimate = { value, se, low: Math.max(0, value - reach), high: Math.min(1, value + reach), clusters: groups }
  return { estimate, influence: residuals.map((u) => -u), atLeast: Math.max(0, share(curve.upToSeen)) }
}

const unknownReading = (clusters: number): Reading => ({
  estimate: { value: Number.NaN, se: Infinity, low: -Infinity, high: Infinity, clusters },
  influence: new Float64Array(quantileGroups),
  atLeast: -Infinity,
})

/**
 * Candidate − production of the same figure over the same rows: what a group adds to both errors cancels. Where something
 * cut short stands between a figure and its least possible value, the interval is wider by that. A figure that is ∞ or
 * unknown makes the difference unknown (NaN).
 */
export const differenceOf = (candidate: Reading, production: Reading): Estimate => {
  const clusters = Math.max(candidate.estimate.clusters, production.estimate.clusters)
  const value = candidate.estimate.value - production.estimate.value
  const finite = candidate.estimate.se < Infinity && production.estimate.se < Infinity && Number.isFinite(value)
  if (!finite) return { value, se: Infinity, low: -Infinity, high: Infinity, clusters }
  const se = spread(
    candidate.influence.map((u, group) => u - (production.influence[group] ?? 0)),
    clusters,
  )
  const reach = studentQuantile(clusters - 1) * se
  return {
    value,
    se,
    low: value - reach - (candidate.estimate.value - candidate.atLeast),
    high: value + reach + (production.estimate.value - production.atLeast),
    clusters,
  }
}

/**
 * The mean of the worst `share`: the conditional value at risk, with a bin that straddles the border counted in part
 * (Acerbi & Tasche 2002). What was cut short counts as it was seen, so where there is any this is a lower bound.
 */
export const tailMean = (curve: Curve, share: number): number => {
  const wanted = share * curve.total
  let [left, amount] = [wanted, 0]
  for (let bin = aboveBin; bin >= 0 && left > 0; bin--) {
    const mass = (curve.upToSeen[bin] ?? 0) - (curve.upToSeen[bin - 1] ?? 0)
    if (mass <= 0) continue
    const taken = Math.min(left, mass)
    amount += (taken / mass) * (curve.bins.amount[bin] ?? 0)
    left -= taken
  }
  return amount / wanted
}

/** Both distribution functions at up to 60 ascending values, evenly by share and closer in the tail. */
export const distributionOf = (production: Curve, candidate: Curve): Distribution['points'] => {
  const even = pointsMax - tailShares.length
  const shares = [...Array.from({ length: even }, (_, at) => at / (even - 1)), ...tailShares].sort((a, b) => a - b)
  const both = production.upTo.map(
    (mass, bin) => (mass / production.total + (candidate.upTo[bin] ?? 0) / candidate.total) / 2,
  )
  const bins = new Set(shares.map((share) => both.findIndex((mass) => mass > 0 && mass >= share)))
  return [...bins]
    .filter((bin) => bin >= 0 && bin < aboveBin)
    .map((bin) => ({
      value: lowest * binRatio ** bin,
      production: (production.upTo[bin] ?? 0) / production.total,
      candidate: (candidate.upTo[bin] ?? 0) / candidate.total,
    }))
}
