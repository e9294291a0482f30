// A log in two: the earlier part, on which policies are chosen, and the later one, on which the choice is certified. A cluster
// that reaches across belongs to the earlier part alone: a draw that was looked at once is no new evidence. Both parts are
// sources like any other, so that whatever can survey and replay a log can survey and replay a part.
import { draw } from '../../router/policy/chance.ts'
import type { DecisionRecord } from '../../router/policy/record.ts'
import { type Source, SourceError } from '../read/source.ts'
import { clusterOf, startClusters } from '../redecide/clusters.ts'
import type { LoggedPolicy } from '../redecide/verify.ts'

/** Two numbers a row are kept while the clusters are found. */
const rowsMax = 20_000_000

/** Where the log is cut: at a time, or so that this share of the decisions comes after. */
export type Cut = { readonly untilMs: number } | { readonly holdOut: number }

export type Parts = {
  readonly fromMs: number
  readonly cutMs: number
  readonly toMs: number
  readonly rows: number
  /** Rows of the earlier part. */
  readonly earlier: number
  /** Later rows whose cluster began before the cut; they are in neither part. */
  readonly leftOut: number
  /** Clusters of the earlier part. */
  readonly clusters: number
  /** The earlier part, or a share of its clusters; a larger share holds every smaller one. */
  readonly selection: (share: number) => Source
  readonly holdOut: Source
}

/**
 * Cuts a log. It is read once, for times and the keys that draws go by; no outcome is looked at. Throws a SourceError where
 * there is nothing to cut, or nothing on one side.
 */
export const cutLog = async (
  source: Source,
  policies: readonly LoggedPolicy[],
  cut: Cut,
  seed: number,
): Promise<Parts> => {
  const found = startClusters(policies)
  const [times, hashes]: [number[], number[]] = [[], []]
  for await (const batch of source.batches()) {
    if (times.length + batch.length > rowsMax)
      throw new SourceError(
        'source-unreadable',
        `searching: ${source.name} holds more than ${rowsMax} decisions; narrow it with --from, --to or --against`,
      )
    for (const record of batch) {
      times.push(Date.parse(record.time))
      hashes.push(found.add(record))
    }
  }
  const sorted = Float64Array.from(times).sort()
  const cutMs = 'untilMs' in cut ? cut.untilMs : (sorted[Math.round(sorted.length * (1 - cut.holdOut))] ?? 0)
  const clusters = found.close()
  const seen = new Set<number>()
  for (const [at, hash] of hashes.entries())
    if ((times[at] as number) < cutMs) seen.add(clusters.rootOf.get(hash) ?? hash)
  let [later, leftOut] = [0, 0]
  for (const [at, hash] of hashes.entries()) {
    if ((times[at] as number) < cutMs) continue
    later++
    if (seen.has(clusters.rootOf.get(hash) ?? hash)) leftOut++
  }
  refuseEmpty(source, new Date(cutMs), { rows: times.length, later, leftOut })
  const isEarlier = ({ time }: DecisionRecord) => Date.parse(time) < cutMs
  const lotOf = (record: DecisionRecord) => draw(String(clusterOf(clusters, record)), String(seed), 'search')
  return {
    fromMs: sorted[0] as number,
    cutMs,
    toMs: sorted[sorted.length - 1] as number,
    rows: times.length,
    earlier: times.length - later,
    leftOut,
    clusters: seen.size,
    selection: (share) => partOf(source, (record) => isEarlier(record) && (share >= 1 || lotOf(record) < share)),
    holdOut: partOf(source, (record) => !isEarlier(record) && !seen.has(clusterOf(clusters, record))),
  }
}

const refuseEmpty = (
  { name }: Source,
  cut: Date,
  { rows, later, leftOut }: { readonly rows: number; readonly later: number; readonly leftOut: number },
): void => {
  const found = `${rows - later} decisions lie before and ${later} after`
  const shared = leftOut > 0 ? `, ${leftOut} of these in clusters that began before` : ''
  if (rows === later || later === leftOut)
    throw new SourceError(
      'source-empty',
      `cutting ${name} at ${rows > 0 ? cut.toISOString() : 'no time'}: ${found}${shared}; wanted decisions of their own on both sides: see --select-until and --hold-out`,
    )
}

/** The records of a source that a condition holds for. */
const partOf = (source: Source, holds: (record: DecisionRecord) => boolean): Source => {
  const batches = async function* () {
    for await (const batch of source.batches()) yield batch.filter(holds)
  }
  const records = async function* () {
    for await (const batch of batches()) yield* batch
  }
  return { ...source, batches, records, slices: null, ask: null, find: null, size: async () => null }
}
