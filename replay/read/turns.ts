// The first turns of conversations. What a client asks next depends on what it was answered, so that of a session only the
// first request is the same under any policy; a replay of these alone needs no assumption. They are found in a pass of its own,
// because rows may come in any order: 24 bytes or so a session, whatever their texts.
import { draw } from '../../router/policy/chance.ts'
import type { DecisionRecord } from '../../router/policy/record.ts'
import type { Source } from './source.ts'

const slotsAtFirst = 1 << 12
const fullShare = 0.6
const hashRange = 2 ** 53
const free = -1

type Slots = { readonly session: Float64Array; readonly timeMs: Float64Array; readonly id: Float64Array }
const slotsOf = (count: number): Slots => ({
  session: new Float64Array(count).fill(free),
  timeMs: new Float64Array(count),
  id: new Float64Array(count),
})

/** Where a session stands, or the free place where it would. */
const placeOf = ({ session }: Slots, hash: number): number => {
  let at = (hash % 0x7ffffff1) & (session.length - 1)
  for (let seen = session[at]; seen !== free && seen !== hash; seen = session[at]) at = (at + 1) & (session.length - 1)
  return at
}

/** Learns which record of each session is the earliest; of those at one moment, one by a hash of its id. */
export const startFirstTurns = () => {
  let slots = slotsOf(slotsAtFirst)
  let size = 0
  const put = (to: Slots, session: number, timeMs: number, id: number): boolean => {
    const at = placeOf(to, session)
    const isNew = to.session[at] === free
    const [knownMs, knownId] = [to.timeMs[at] as number, to.id[at] as number]
    if (isNew || timeMs < knownMs || (timeMs === knownMs && id < knownId)) {
      to.session[at] = session
      to.timeMs[at] = timeMs
      to.id[at] = id
    }
    return isNew
  }
  const grow = (): void => {
    const wider = slotsOf(slots.session.length * 2)
    for (const [at, session] of slots.session.entries())
      if (session !== free) put(wider, session, slots.timeMs[at] as number, slots.id[at] as number)
    slots = wider
  }
  return {
    add: (record: DecisionRecord): void => {
      if (record.session === '') return
      if (put(slots, sessionHash(record), Date.parse(record.time), idHash(record))) size++
      if (size > slots.session.length * fullShare) grow()
    },
    /** True also where there is no session. */
    isFirst: (record: DecisionRecord): boolean => {
      if (record.session === '') return true
      const at = placeOf(slots, sessionHash(record))
      return slots.id[at] === idHash(record) && slots.timeMs[at] === Date.parse(record.time)
    },
  }
}

const sessionHash = ({ session }: DecisionRecord): number => draw(session, 'session', 'turn') * hashRange
const idHash = ({ id }: DecisionRecord): number => draw(id, 'id', 'turn') * hashRange

/** Those of `records` that open their session, or have none. */
export const firstTurnsOf = (records: readonly DecisionRecord[]): DecisionRecord[] => {
  const turns = startFirstTurns()
  for (const record of records) turns.add(record)
  return records.filter(turns.isFirst)
}

/** The same of a source: within what it selects, and read by one thread. */
export const firstTurnsIn = (source: Source): Source => {
  const learned = async () => {
    const turns = startFirstTurns()
    for await (const batch of source.batches()) batch.forEach(turns.add)
    return turns
  }
  let known: ReturnType<typeof learned> | null = null
  const batches: Source['batches'] = async function* (onProgress) {
    known ??= learned()
    const { isFirst } = await known
    for await (const batch of source.batches(onProgress)) yield batch.filter(isFirst)
  }
  const records: Source['records'] = async function* (onProgress) {
    for await (const batch of batches(onProgress)) yield* batch
  }
  return { ...source, batches, records, slices: null, ask: null, find: null }
}
