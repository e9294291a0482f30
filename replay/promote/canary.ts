// What a canary shows, as a pure function of sums: the two arms of a `split` are an experiment whose shares are known, so the
// difference of their means is what the change does. One may look as often as one likes: every interval is a confidence
// sequence, which covers the truth at all looks together with the stated probability.
import { roundingShare } from '../estimate/evaluate.ts'
import { type MetricName, metrics } from '../estimate/metrics.ts'
import { asymptoticInterval } from '../estimate/sequence.ts'
import { essDecidesFrom, essRefusedBelow, missingAmountsMax } from '../judge/gate.ts'
import { type Gate, judgedMetrics, toleratedBy } from './gate-file.ts'
import { type ArmBet, boundOf, type StrictDifference, strictDifference } from './strict.ts'

/** The chance that an interval misses the truth at any look; the audit of shares may raise a false alarm less often. */
const alpha = 0.05
const auditAlpha = 0.001

export const arms = ['production', 'candidate'] as const
export type Arm = (typeof arms)[number]
/** What stands in for an outcome that is not known: nothing, or either end of its range. */
export type Fill = 'known' | 'zero' | 'one'

/**
 * Sums over the clusters of one arm (a cluster is a session, which one draw decided): of what its rows come to (`total`), of
 * how many rows it has, and of their squares and product. All that an interval needs, whatever the traffic.
 */
export type ArmSum = {
  readonly arm: Arm
  readonly metric: MetricName
  readonly fill: Fill
  readonly clusters: number
  readonly total: number
  readonly rows: number
  readonly totalSquared: number
  readonly totalRows: number
  readonly rowsSquared: number
}

/** The difference candidate − production in one metric, with its standard error and its confidence sequence. */
export type Difference = {
  readonly metric: MetricName
  readonly production: number
  readonly candidate: number
  readonly value: number
  readonly se: number
  readonly low: number
  readonly high: number
}
export type Finding = Difference & { readonly result: 'held' | 'harm' | 'open'; readonly tolerated: number }

/**
 * One look at a canary. `uneven`: the arms do not have the shares they were given, so they cannot be compared. `beyond`: metrics of
 * which a session exceeded the bound that was stated for a strict look.
 */
export type Look = {
  readonly beyond: readonly MetricName[]
  readonly clusters: Readonly<Record<Arm, number>>
  readonly findings: readonly Finding[]
  readonly uneven: boolean
  readonly verdict: 'shown' | 'harm' | 'open'
}

/**
 * Looks at a canary that gives the candidate `share` of the clusters. With `bets`, which a strict gate asks for, intervals are
 * those of strict.ts, in place of an asymptotic sequence, and harm may be shown from the first session on.
 */
export const lookAt = (
  sums: readonly ArmSum[],
  gate: Gate,
  share: number,
  bets: readonly ArmBet[] | null = null,
): Look => {
  const find = (metric: MetricName, arm: Arm, fill: Fill) =>
    sums.find((sum) => sum.metric === metric && sum.arm === arm && sum.fill === fill) ?? nothing(metric, arm, fill)
  const from = gate.require.effective_rows
  const tuning = from / share
  const all = { production: find('failed', 'production', 'known'), candidate: find('failed', 'candidate', 'known') }
  const beyond: MetricName[] = []
  const findings = judgedMetrics(gate).map((metric): Finding => {
    const pairs = pairsOf(metric, gate, find)
    const strict = bets && strictly(metric, pairs, bets, gate, share)
    if (strict?.isBeyond) beyond.push(metric)
    const difference = strict?.difference ?? differenceOf(metric, pairs, tuning)
    const tolerated = toleratedBy(gate, metric, difference.production)
    const effective = Math.min(...pairs.low.map(effectiveClusters))
    const isKnown = metric === 'quality' || arms.every((arm) => isComplete(find(metric, arm, 'known'), all[arm]))
    const least = { held: from, harm: bets ? 0 : essRefusedBelow }
    const isTold = isKnown && !strict?.isBeyond
    const result = isTold ? judge(difference, metric === gate.goal, tolerated, effective, least) : 'open'
    return { ...difference, result, tolerated }
  })
  const clusters = { production: all.production.clusters, candidate: all.candidate.clusters }
  const uneven = isUneven(clusters, share, tuning)
  const isHarm = uneven || findings.some(({ result }) => result === 'harm')
  const isShown = findings.every(({ result }) => result === 'held')
  return { beyond, clusters, findings, uneven, verdict: isHarm ? 'harm' : isShown ? 'shown' : 'open' }
}

type Pair = readonly [candidate: ArmSum, production: ArmSum]
type Pairs = { readonly value: Pair; readonly low: Pair; readonly high: Pair }

/** Missing quality could have been anything, so the bounds take it at its worst for either side, unless the gate vouches. */
const pairsOf = (metric: MetricName, gate: Gate, find: (metric: MetricName, arm: Arm, fill: Fill) => ArmSum): Pairs => {
  const pair = (candidate: Fill, production: Fill): Pair => [
    find(metric, 'candidate', candidate),
    find(metric, 'production', production),
  ]
  const value = pair('known', 'known')
  if (metric !== 'quality' || gate.missing_at_random) return { value, low: value, high: value }
  return { value, low: pair('zero', 'one'), high: pair('one', 'zero') }
}

const judge = (
  { metric, production, low, high }: Difference,
  isGoal: boolean,
  tolerated: number,
  effective: number,
  least: Readonly<Record<'held' | 'harm', number>>,
): Finding['result'] => {
  const isHigher = metrics[metric].better === 'higher'
  const gain = isHigher ? { low, high } : { low: -high, high: -low }
  const bound = isGoal ? roundingShare * Math.abs(production) : tolerated
  if (effective >= least.held && gain.low > (isGoal ? bound : -bound)) return 'held'
  return effective >= least.harm && gain.high < -bound ? 'harm' : 'open'
}

const differenceOf = (metric: MetricName, { value, low, high }: Pairs, tuning: number): Difference => {
  const ends = [value, low, high].map((pair) => {
    const [candidate, production] = pair.map(({ total, rows }) => total / rows) as [number, number]
    const variance = sum(pair.map((arm) => varianceOf(arm, metrics[metric].range !== null)))
    const count = sum(pair.map(({ clusters }) => clusters))
    const mean = candidate - production
    const interval = asymptoticInterval({ count, mean, variance: count * variance, tuning, alpha })
    return { candidate, production, mean, se: Math.sqrt(variance), ...interval }
  })
  const [middle, below, above] = ends as [(typeof ends)[number], (typeof ends)[number], (typeof ends)[number]]
  const { candidate, production, mean, se } = middle
  return { metric, production, candidate, value: mean, se, low: below.low, high: above.high }
}

/** The same by betting, with missing quality at its worst for either side as well. */
const strictly = (
  metric: MetricName,
  { value, low, high }: Pairs,
  bets: readonly ArmBet[],
  gate: Gate,
  share: number,
): { readonly difference: Difference; readonly isBeyond: boolean } => {
  const of = ({ arm, fill }: ArmSum) =>
    bets.filter((bet) => bet.metric === metric && bet.arm === arm && bet.fill === fill)
  const [middle, below, above] = [value, low, high].map(([candidate, production]) =>
    strictDifference(of(candidate), of(production), share, boundOf(gate, metric) ?? Number.NaN, alpha),
  ) as [StrictDifference, StrictDifference, StrictDifference]
  const { candidate, production, se, isBeyond } = middle
  const interval = { low: below.interval.low, high: above.interval.high }
  return { difference: { metric, production, candidate, value: candidate - production, se, ...interval }, isBeyond }
}

/**
 * The variance of an arm's mean T/N over clusters, linearised (Cochran 1977, §6.3): Σ (t − m n)² / N². For metrics between 0
 * and 1, two clusters of zeros and two of ones are counted on top (Agresti & Caffo 2000), so that an arm in which a failure
 * was never seen does not count as one in which it cannot happen.
 */
const varianceOf = ({ clusters, total, rows, totalSquared, totalRows, rowsSquared }: ArmSum, isBounded: boolean) => {
  const mean = total / rows
  const squares = Math.max(0, totalSquared - 2 * mean * totalRows + mean * mean * rowsSquared)
  const perCluster = rows / clusters
  const unseen = isBounded ? 2 * perCluster ** 2 * (mean ** 2 + (1 - mean) ** 2) : 0
  return (squares + unseen) / rows ** 2
}

/** How many equal clusters would tell as much: (Σ n)² / Σ n² (Kish 1965). */
const effectiveClusters = ({ rows, rowsSquared }: ArmSum): number => (rowsSquared > 0 ? rows ** 2 / rowsSquared : 0)

const isComplete = (known: ArmSum, all: ArmSum): boolean => known.rows >= (1 - missingAmountsMax) * all.rows

/** The share of clusters in the candidate's arm is that of the draw, or else something other than the draw decided. */
const isUneven = ({ production, candidate }: Look['clusters'], share: number, tuning: number): boolean => {
  const count = production + candidate
  if (count < essDecidesFrom) return false
  const audit = { count, mean: candidate / count - share, variance: share * (1 - share), tuning, alpha: auditAlpha }
  const { low, high } = asymptoticInterval(audit)
  return low > 0 || high < 0
}

const nothing = (metric: MetricName, arm: Arm, fill: Fill): ArmSum => ({
  ...{ arm, metric, fill },
  ...{ clusters: 0, total: 0, rows: 0, totalSquared: 0, totalRows: 0, rowsSquared: 0 },
})

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0)
