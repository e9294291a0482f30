// Which rows one draw may have decided together. A policy draws per request, session, user or tenant, and says so in its
// own text; two rows that share such a key are not two pieces of evidence. Keys overlap (a user has sessions, a session
// may change its tenant), so a cluster is whatever is linked by a chain of shared keys.
import type { DecisionRecord } from '../../router/policy/record.ts'
import type { LoggedPolicy } from './verify.ts'

export const clusterKeys = ['session', 'user', 'tenant'] as const
export type ClusterKey = (typeof clusterKeys)[number]

/** Deeper than any policy may nest its rules and splits. */
const nestingMax = 16

/**
 * The keys by which rows belong together: the session always, since its turns are alike; every key that a logged policy
 * draws by; and the user where a policy's text is not at hand.
 */
export const clusterKeysOf = (
  records: Iterable<DecisionRecord>,
  policies: Iterable<LoggedPolicy>,
): readonly ClusterKey[] => {
  const sources = new Map(Array.from(policies, ({ hash, source }) => [hash, source] as const))
  const found = new Set<string>(['session'])
  for (const hash of new Set(Array.from(records, ({ policy }) => policy.hash))) {
    const keys = drawKeys(sources.get(hash))
    for (const key of keys ?? ['user']) found.add(key)
  }
  return clusterKeys.filter((key) => found.has(key))
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

/**
 * Each record's cluster, numbered in the order of first appearance: the connected components of records and their keys.
 * An empty key links nothing. A cluster is named after the least of its members' sessions and ids, whatever their order.
 */
export const clustersOf = (records: readonly DecisionRecord[], keys: readonly ClusterKey[]) => {
  const parent = Int32Array.from(records, (_, row) => row)
  const rootOf = (row: number): number => {
    let at = row
    while (parent[at] !== at) {
      parent[at] = parent[parent[at] ?? at] ?? at
      at = parent[at] ?? at
    }
    return at
  }
  for (const key of keys) {
    const first = new Map<string, number>()
    for (const [row, record] of records.entries()) {
      const value = keyOf(record, key)
      if (value === '') continue
      const other = first.get(value)
      if (other === undefined) first.set(value, row)
      else parent[rootOf(row)] = rootOf(other)
    }
  }
  const numbers = new Map<number, number>()
  const names: string[] = []
  const cluster = Int32Array.from(records, ({ session, id }, row) => {
    const root = rootOf(row)
    const number = numbers.get(root) ?? numbers.size
    numbers.set(root, number)
    const name = session || id
    if (names[number] === undefined || name < names[number]) names[number] = name
    return number
  })
  return { cluster, names, count: names.length }
}
