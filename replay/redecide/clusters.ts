// Which rows one draw may have decided together. A policy draws per request, session, user or tenant, and says so in its
// own text; two rows that share such a key are not two pieces of evidence. Keys overlap (a user has sessions, a session
// may change its tenant), so a cluster is whatever is linked by a chain of shared keys. Its identity is the least hash of
// its keys: the same in any order of the rows. Keys are kept as hashes, 16 bytes each, whatever their texts.
import { draw } from '../../router/policy/chance.ts'
import type { DecisionRecord } from '../../router/policy/record.ts'
import { hashSet } from './hash-set.ts'
import type { LoggedPolicy } from './verify.ts'

export const clusterKeys = ['session', 'user', 'tenant'] as const
export type ClusterKey = (typeof clusterKeys)[number]

/** Deeper than any policy may nest its rules and splits. */
const nestingMax = 16
/** Up to this many clusters, each is a group that sums are kept for. */
export const groupsMax = 4096
/**
 * More clusters are dealt to so many groups by their hash. Between groups a standard error is known to √(1 / 2·1,023) = 2 %, and
 * the sums of a few candidates stay in the processor's cache.
 */
const dealtGroups = 1024
export const groupCountOf = (clusters: number): number => (clusters > groupsMax ? dealtGroups : clusters)

/**
 * The keys by which the rows of one policy belong together: the session always, since its turns are alike; every key that
 * the policy draws by; and the user where its text is not at hand.
 */
const keysOf = (source: string | undefined): readonly ClusterKey[] => {
  const found = drawKeys(source) ?? new Set(['user'])
  return clusterKeys.filter((key) => key === 'session' || found.has(key))
}

/** The same for each of several policies, by their hashes. */
export const clusterKeysOf = (
  hashes: Iterable<string>,
  policies: Iterable<LoggedPolicy>,
): ReadonlyMap<string, readonly ClusterKey[]> => {
  const sources = new Map(Array.from(policies, ({ hash, source }) => [hash, source] as const))
  return new Map(Array.from(hashes, (hash) => [hash, keysOf(sources.get(hash))]))
}

/** Every `per` of a policy; null when the text is absent or cannot be read. */
const drawKeys = (source: string | undefined): Set<string> | null => {
  if (source === undefined) return null
  try {
    const keys = new Set<string>()
    collect(JSON.parse(source), keys, 0)
    return keys
  } catch (error) {
    if (error instanceof SyntaxError) return null
    throw error
  }
}

type Draws = { readonly per?: unknown } | undefined
/** As much of a policy's text as says what draws go by. */
type Text = {
  readonly choose?: Draws
  readonly explore?: Draws
  readonly rules?: readonly { readonly use?: Text }[]
  readonly split?: { readonly per?: unknown; readonly arms?: readonly { readonly use?: Text }[] }
}

const collect = (text: Text | null | undefined, keys: Set<string>, depth: number): void => {
  if (!text || depth > nestingMax) return
  for (const draws of [text.choose, text.explore, text.split]) if (typeof draws?.per === 'string') keys.add(draws.per)
  for (const { use } of [...(text.rules ?? []), ...(text.split?.arms ?? [])]) collect(use, keys, depth + 1)
}

const keyOf = (record: DecisionRecord, key: ClusterKey): string =>
  key === 'session' ? record.session : record.request[key]

const hashRange = 2 ** 53
const hashOf = (kind: string, value: string): number => draw(value, kind, 'cluster') * hashRange

/** Where each row belongs; plain data, so that a worker thread can be handed it. */
export type Clusters = {
  /** By what rows belong together, over all policies. */
  readonly keys: readonly ClusterKey[]
  /** The same by the hash of the policy that decided. */
  readonly keysOfPolicy: ReadonlyMap<string, readonly ClusterKey[]>
  readonly count: number
  /** Rows that are not the first of their session. */
  readonly laterTurns: number
  readonly groupCount: number
  /** Hash of a key → hash of its cluster, where these differ. */
  readonly rootOf: ReadonlyMap<number, number>
  /** Hash of a cluster → its group; null when clusters are dealt by their hash. */
  readonly groupOf: ReadonlyMap<number, number> | null
}

/** Collects the clusters of a log, record by record; `policies` are those that decided, as far as their texts are known. */
export const startClusters = (policies: Iterable<LoggedPolicy>) => {
  const sources = new Map(Array.from(policies, ({ hash, source }) => [hash, source] as const))
  const keysOfPolicy = new Map<string, readonly ClusterKey[]>()
  const seen = hashSet()
  const parents = new Map<number, number>()
  let laterTurns = 0
  const link = (one: number, other: number): void => {
    const [a, b] = [leaderOf(parents, one), leaderOf(parents, other)]
    // The least hash leads, so that the leader does not depend on the order of the rows.
    parents.set(Math.max(a, b), Math.min(a, b))
    parents.set(Math.min(a, b), Math.min(a, b))
  }
  /** Gives the row's place as far as it is known yet: final where no other row links it to another cluster. */
  const add = (record: DecisionRecord): number => {
    const { hash } = record.policy
    const keys = keysOfPolicy.get(hash) ?? keysOf(sources.get(hash))
    keysOfPolicy.set(hash, keys)
    const first = firstHash(record, keys)
    // A row with a session is known by it first of all.
    if (!seen.add(first) && record.session !== '') laterTurns++
    if (keys.length > 1)
      for (const key of keys) {
        const value = keyOf(record, key)
        if (value !== '') link(first, hashOf(key, value))
      }
    return first
  }
  const close = (): Clusters => {
    const rootOf = new Map<number, number>()
    for (const hash of parents.keys()) {
      const root = leaderOf(parents, hash)
      if (root !== hash) rootOf.set(hash, root)
    }
    const roots = hashSet()
    for (const hash of seen.values()) roots.add(rootOf.get(hash) ?? hash)
    const count = roots.size()
    const named = count > groupsMax ? null : roots.values().sort()
    return {
      keys: clusterKeys.filter(
        (key) => key === 'session' || [...keysOfPolicy.values()].some((keys) => keys.includes(key)),
      ),
      keysOfPolicy,
      count,
      laterTurns,
      groupCount: groupCountOf(count),
      rootOf,
      groupOf: named && new Map(Array.from(named, (root, at) => [root, at])),
    }
  }
  return { add, close }
}

/** Walks up, halving the path on the way (Tarjan & van Leeuwen 1984). */
const leaderOf = (parents: Map<number, number>, hash: number): number => {
  let at = hash
  for (let up = parents.get(at); up !== undefined && up !== at; up = parents.get(at)) {
    const above = parents.get(up) ?? up
    parents.set(at, above)
    at = above
  }
  return at
}

const firstHash = (record: DecisionRecord, keys: readonly ClusterKey[]): number => {
  for (const key of keys) {
    const value = keyOf(record, key)
    if (value !== '') return hashOf(key, value)
  }
  return hashOf('id', record.id)
}

/** The cluster of a record: a whole number below 2^53. */
export const clusterOf = ({ keysOfPolicy, rootOf }: Clusters, record: DecisionRecord): number => {
  const hash = firstHash(record, keysOfPolicy.get(record.policy.hash) ?? ['session'])
  return rootOf.get(hash) ?? hash
}

/** The group of a cluster. */
export const groupOfCluster = ({ groupOf, groupCount }: Clusters, cluster: number): number =>
  groupOf ? (groupOf.get(cluster) ?? 0) : cluster % groupCount
