// The traffic that arrives: the recorded requests at their recorded times, or more, fewer and differently mixed ones; a record
// that sampling kept with some probability stands for all that it was drawn from. Each request is drawn by a hash of its id, so that a larger sample contains the smaller one; copies arrive up to half a minute
// away from their original, so that twice the traffic is not every request twice at the same instant.
import { draw } from '../../router/policy/chance.ts'
import type { DecisionRecord } from '../../router/policy/record.ts'
import { isIn, ScenarioError, type World } from './scenario.ts'

const jitterMsMax = 30_000
const arrivalsMax = 5_000_000

export type Arrival = {
  readonly record: DecisionRecord
  /** The record's, or for a copy the record's with its number, so that chance treats it as another request. */
  readonly id: string
  readonly session: string
  readonly atMs: number
}

const sortedByTime = (arrivals: Arrival[]): Arrival[] =>
  arrivals.sort((a, b) => a.atMs - b.atMs || (a.id < b.id ? -1 : Number(a.id > b.id)))

/**
 * The arrivals of a world, in order. Throws a ScenarioError when the mix wants traffic that the log does not have, or when
 * there would be too many arrivals.
 */
export const arrivalsOf = (records: readonly DecisionRecord[], world: World, seed: string): Arrival[] => {
  const weight = weighing(records, world)
  const first = Date.parse(records[0]?.time ?? '')
  let [fromMs, toMs] = [first, first]
  for (const { time } of records) {
    fromMs = Math.min(fromMs, Date.parse(time))
    toMs = Math.max(toMs, Date.parse(time))
  }
  const arrivals: Arrival[] = []
  for (const record of records) {
    const wanted = weight(record) / record.keep_probability
    const copies = Math.floor(wanted) + Number(draw(record.id, seed, 'copies') < wanted % 1)
    const recordedMs = Date.parse(record.time)
    for (let copy = 0; copy < copies; copy++) {
      const jitterMs = copy === 0 ? 0 : (2 * draw(record.id, seed, `jitter:${copy}`) - 1) * jitterMsMax
      const mark = copy === 0 ? '' : `#${copy}`
      const session = record.session === '' ? '' : record.session + mark
      arrivals.push({
        record,
        id: record.id + mark,
        session,
        atMs: Math.min(toMs, Math.max(fromMs, recordedMs + jitterMs)),
      })
    }
    if (arrivals.length > arrivalsMax)
      throw new ScenarioError(`scaling the traffic gives more than ${arrivalsMax} arrivals; wanted a smaller --scale`)
  }
  return sortedByTime(arrivals)
}

/** How often each recorded request is wanted. A request in several named segments counts for the first in order of their names. */
const weighing = (records: readonly DecisionRecord[], { scale, mix }: World): ((record: DecisionRecord) => number) => {
  if (mix.size === 0) return () => scale
  const segmentOf = (record: DecisionRecord) => [...mix.keys()].find((segment) => isIn(segment, record)) ?? ''
  const counts = new Map<string, number>()
  for (const record of records) {
    const segment = segmentOf(record)
    counts.set(segment, (counts.get(segment) ?? 0) + 1 / record.keep_probability)
  }
  const total = [...counts.values()].reduce((sum, count) => sum + count, 0)
  const rest = 1 - [...mix.values()].reduce((sum, share) => sum + share, 0)
  const shares = new Map([...mix, ['', Math.max(0, rest)]])
  for (const [segment, share] of shares)
    if (share > 1e-9 && !counts.has(segment))
      throw new ScenarioError(
        `mixing the traffic: the log has no requests ${segment === '' ? `outside ${[...mix.keys()].join(', ')}` : `with ${segment}`}; wanted some to draw from`,
      )
  return (record) => {
    const segment = segmentOf(record)
    return (scale * (shares.get(segment) ?? 0) * total) / (counts.get(segment) ?? 1)
  }
}
