// When feedback came. Scores that people send days later would make old decisions look better known than young ones, and a
// decision of a minute ago look as if nobody cared. So a replay may be given a horizon, the same for every decision: what came
// later than that does not count, and what the log is too young to know is told apart from what never came.
import type { DecisionRecord } from '../../router/policy/record.ts'

/** Delays are counted in bins of a 64th of an octave, which tells a quantile to one percent, up to a thousand years. */
const binsPerOctave = 64
const binsMax = binsPerOctave * 45

/** Feedback counts when it came within so long of its decision; `untilMs` is the last moment that the log has seen, since 1970. */
export type Horizon = { readonly withinMs: number; readonly untilMs: number }

/** What a decision's feedback amounts to under a horizon. */
type Standing = 'told' | 'late' | 'pending' | 'never'

/** How feedback came to a log, in decisions; times are ISO 8601, UTC. */
export type Feedback = {
  readonly horizon: {
    readonly withinMs: number
    readonly until: string
    /** Decisions up to then are old enough; with the log at `knownAt`, all of them are. */
    readonly settled: string
    readonly knownAt: string
  } | null
  /** It came in time; of these `untimed` do not say when, and are taken to have. */
  readonly told: number
  readonly untimed: number
  readonly late: number
  /** Too young for it to be known, whatever has come so far. */
  readonly pending: number
  readonly never: number
  /** From the decision to its feedback, where that is known: the median and the 95th percentile, to one percent. */
  readonly delay: { readonly count: number; readonly p50Ms: number; readonly p95Ms: number } | null
}

const unitMs: Readonly<Record<string, number>> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }
const horizonMsMax = 365 * 86_400_000

/** What a duration must look like, as said to whoever got it wrong. */
export const durationWanted = 'a duration from 1s to 365d, such as 90s, 30m, 24h or 7d'
/** The milliseconds of `24h`; null where the text is no such duration. */
export const durationMsOf = (text: string): number | null => {
  const [, amount, unit = ''] = /^(\d+(?:\.\d+)?)\s*([smhd])$/.exec(text.trim()) ?? []
  const ms = Number(amount) * (unitMs[unit] ?? Number.NaN)
  return ms >= 1000 && ms <= horizonMsMax ? ms : null
}

const delayOf = ({ time, outcome }: DecisionRecord): number =>
  typeof outcome?.quality_time === 'string' ? Date.parse(outcome.quality_time) - Date.parse(time) : Number.NaN

const standingOf = (record: DecisionRecord, horizon: Horizon | null): Standing => {
  if (horizon && Date.parse(record.time) + horizon.withinMs > horizon.untilMs) return 'pending'
  if ((record.outcome?.quality ?? null) === null) return 'never'
  return horizon && delayOf(record) > horizon.withinMs ? 'late' : 'told'
}

/** The quality that people gave, 0 to 1; NaN where they gave none, or none that counts. */
export const qualityWithin = (record: DecisionRecord, horizon: Horizon | null): number => {
  const quality = record.outcome?.quality ?? Number.NaN
  return horizon === null || standingOf(record, horizon) === 'told' ? quality : Number.NaN
}

/** The last moment that any of the records knows of, milliseconds since 1970; −∞ where there are none. */
export const lastMomentOf = async (batches: AsyncIterable<Iterable<DecisionRecord>>): Promise<number> => {
  let lastMs = -Infinity
  for await (const batch of batches) for (const record of batch) lastMs = Math.max(lastMs, momentOf(record))
  return lastMs
}

/** The last moment that a record knows of, milliseconds since 1970: the decision, or its feedback. */
export const momentOf = (record: DecisionRecord): number => {
  return Date.parse(record.time) + Math.max(0, delayOf(record) || 0)
}

/** Counts how feedback came, record by record; closes to null where nothing tells. */
export const startFeedback = (horizon: Horizon | null) => {
  const counts: Record<Standing, number> = { told: 0, late: 0, pending: 0, never: 0 }
  const bins = new Float64Array(binsMax)
  let [untimed, timed, lastMs] = [0, 0, -Infinity]
  return {
    add: (record: DecisionRecord): void => {
      const standing = standingOf(record, horizon)
      counts[standing]++
      if (horizon) lastMs = Math.max(lastMs, Date.parse(record.time))
      if (standing === 'never' || standing === 'pending') return
      const delayMs = delayOf(record)
      if (Number.isNaN(delayMs)) {
        untimed++
        return
      }
      timed++
      const bin = Math.min(binsMax - 1, Math.floor(binsPerOctave * Math.log2(1 + Math.max(0, delayMs))))
      bins[bin] = (bins[bin] as number) + 1
    },
    close: (): Feedback | null =>
      horizon === null && timed === 0
        ? null
        : {
            horizon: horizon && lastMs > -Infinity ? spanOf(horizon, lastMs) : null,
            ...counts,
            untimed,
            delay: timed === 0 ? null : { count: timed, p50Ms: quantileOf(bins, 0.5), p95Ms: quantileOf(bins, 0.95) },
          },
  }
}

const spanOf = ({ withinMs, untilMs }: Horizon, lastMs: number): Feedback['horizon'] => ({
  withinMs,
  until: new Date(untilMs).toISOString(),
  settled: new Date(untilMs - withinMs).toISOString(),
  knownAt: new Date(lastMs + withinMs).toISOString(),
})

/** The middle, in logarithms, of the bin that the quantile falls into. */
const quantileOf = (bins: Float64Array, share: number): number => {
  const wanted = share * bins.reduce((sum, count) => sum + count, 0)
  let seen = 0
  const bin = bins.findIndex((count) => {
    seen += count
    return seen >= wanted
  })
  return 2 ** ((bin + 0.5) / binsPerOctave) - 1
}
