// A search from end to end: a template and a log in, a certified front out. The log is cut by time; policies are chosen on
// the earlier part and judged on the later one; and what choosing made of the estimates, the winner's curse, is shown.
import { engineVersion } from '../../router/policy/record.ts'
import { metrics } from '../estimate/metrics.ts'
import type { Source } from '../read/source.ts'
import type { LoggedPolicy } from '../redecide/verify.ts'
import { horizonIn, type ReplayOptions, replayDefaults } from '../run.ts'
import { axisGains, type Certified, certify, type Finalist } from './certify.ts'
import { type Cut, cutLog } from './parts.ts'
import { type Axes, axesOf, plannedRounds, type Round, type SelectOptions, type Standing, select } from './select.ts'
import type { Point } from './template.ts'

export type SearchOptions = ReplayOptions & {
  readonly cut: Cut
  readonly rounds: number
  readonly finalists: number
}

export const searchDefaults: SearchOptions = {
  ...replayDefaults,
  cut: { holdOut: 0.5 },
  rounds: 3,
  finalists: 8,
}

/** One policy that was tried: the round it went out in, and its differences there, goal first, each with an interval of its own. */
export type TriedPoint = {
  readonly parameters: Point['parameters']
  readonly round: number
  readonly differences: Standing['differences']
}

export type Search = {
  readonly v: 1
  readonly engine: string
  readonly template: string
  readonly options: SearchOptions
  readonly axes: Axes
  readonly window: { readonly from: string; readonly cut: string; readonly to: string }
  readonly rounds: readonly Round[]
  readonly tried: readonly TriedPoint[]
  /** `leftOut` are later rows of clusters that began before the cut. */
  readonly selection: { readonly rows: number; readonly clusters: number }
  readonly holdOut: { readonly rows: number; readonly clusters: number; readonly leftOut: number }
  readonly reach: Certified['reach']
  /** Best on the goal first. */
  readonly finalists: readonly Finalist[]
  /** The finalists' mean gain on the goal where they were chosen, and where they were not. */
  readonly shrinkage: { readonly selected: number; readonly heldOut: number }
  /** 0 something is certified better, 2 nothing is, 3 the evidence of every finalist is refused. */
  readonly exitCode: 0 | 2 | 3
}

/** How far a search is, as a share of the decisions it has to make again. */
export type OnProgress = (progress: {
  readonly stage: 'cutting' | 'selecting' | 'certifying'
  readonly share: number
}) => void

/**
 * Searches among `points`. `policies` are those that decided, as far as their texts are known. Throws a SourceError where the
 * log cannot be cut in two, a PolicyError where a point reads what the log does not hold.
 */
export const search = async (
  source: Source,
  policies: readonly LoggedPolicy[],
  points: readonly Point[],
  options: SearchOptions,
  onProgress?: OnProgress,
): Promise<Search> => {
  onProgress?.({ stage: 'cutting', share: 0 })
  const parts = await cutLog(source, policies, options.cut, options.seed)
  const work = workOf(parts, points.length, options, onProgress)
  const horizon = await horizonIn(source, options)
  const selected = await select(parts, policies, points, { ...options, horizon, onWork: work('selecting') })
  const certified = await certify(parts.holdOut, policies, selected.finalists, {
    ...options,
    horizon,
    onWork: work('certifying'),
  })
  const { finalists, reach } = certified
  return {
    v: 1,
    engine: engineVersion,
    template: points[0]?.name ?? '',
    options,
    axes: axesOf(options.goal),
    window: {
      from: new Date(parts.fromMs).toISOString(),
      cut: new Date(parts.cutMs).toISOString(),
      to: new Date(parts.toMs).toISOString(),
    },
    rounds: selected.rounds,
    tried: selected.tried.map(({ point, round, standing }) => ({
      parameters: point.parameters,
      round,
      differences: standing.differences,
    })),
    selection: { rows: parts.earlier, clusters: parts.clusters },
    holdOut: { rows: certified.rows, clusters: certified.clusters, leftOut: parts.leftOut },
    reach,
    finalists,
    shrinkage: shrinkageOf(finalists),
    exitCode: finalists.some(({ finding }) => finding === 'better')
      ? 0
      : finalists.every(({ finding }) => finding === 'refused')
        ? 3
        : 2,
  }
}

const shrinkageOf = (finalists: readonly Finalist[]): Search['shrinkage'] => {
  const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length)
  const selected = finalists.map(
    ({
      axes: [
        {
          metric,
          selected: { value },
        },
      ],
    }) => (metrics[metric].better === 'higher' ? value : -value),
  )
  return { selected: mean(selected), heldOut: mean(finalists.map((one) => axisGains(one)[0])) }
}

/** Adds up the decisions made and tells their share of those planned. */
const workOf = (
  parts: { readonly clusters: number; readonly earlier: number; readonly rows: number },
  points: number,
  options: Pick<SelectOptions, 'rounds' | 'finalists'>,
  onProgress: OnProgress | undefined,
) => {
  const chosen = plannedRounds(parts, points, options).reduce((sum, { share, tried }) => sum + share * tried, 0)
  const planned = parts.earlier * chosen + (parts.rows - parts.earlier) * Math.min(points, options.finalists)
  let done = 0
  return (stage: 'selecting' | 'certifying') =>
    (candidateRows: number): void => {
      done += candidateRows
      onProgress?.({ stage, share: Math.min(1, done / planned) })
    }
}
