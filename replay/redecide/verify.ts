// Fidelity: the proof that replay is the router. Every record is decided again by the policy that decided it, and what
// comes out must be the same to the bit: choice, plan, eligibility, exclusions, scores, probabilities. The first field that
// differs is named in the order in which a decision comes about, so that the cause is seen before its consequences.
import { isDeepStrictEqual } from 'node:util'
import type { FeatureTypes } from '../../router/policy/cel.ts'
import { type Policy, PolicyError, parsePolicy } from '../../router/policy/policy.ts'
import {
  type Candidate,
  contextOf,
  type Decision,
  type DecisionRecord,
  engineVersion,
} from '../../router/policy/record.ts'

const examplesMax = 3

/** A policy as it was in force: every version is kept by its hash. */
export type LoggedPolicy = { readonly hash: string; readonly name: string; readonly source: string }

/** Why a record could not be decided again, or came out otherwise. */
export type Cause =
  | { readonly kind: 'no-identity'; readonly policy: string }
  | { readonly kind: 'policy-missing'; readonly policy: string; readonly hash: string }
  | { readonly kind: 'policy-unreadable'; readonly policy: string; readonly hash: string; readonly problem: string }
  | { readonly kind: 'engine-version'; readonly logged: string; readonly running: string }
  | { readonly kind: 'field'; readonly field: string }

/** One record that differs: where, what was logged and what came out now. */
export type Difference = {
  readonly id: string
  readonly path: string
  readonly logged: unknown
  readonly redecided: unknown
}

export type CauseGroup = { readonly cause: Cause; readonly count: number; readonly examples: readonly Difference[] }

export type Verification = {
  readonly records: number
  readonly reproduced: number
  /** Decided again with another result: the evidence is invalid. */
  readonly differing: number
  /** Could not be decided again: nothing is proved, nothing is disproved. */
  readonly unverifiable: number
  readonly groups: readonly CauseGroup[]
}

/** The policies by hash, ready to decide; a string says why one cannot be read. */
export type PolicyShelf = ReadonlyMap<string, Policy | string>

/** Compiles logged policies; one that does not compile, or whose text does not have its hash, is kept as the reason why. */
export const shelve = (policies: Iterable<LoggedPolicy>, features: FeatureTypes): PolicyShelf => {
  const shelf = new Map<string, Policy | string>()
  for (const { hash, name, source } of policies) shelf.set(hash, readPolicy(hash, name, source, features))
  return shelf
}

const readPolicy = (hash: string, name: string, source: string, features: FeatureTypes): Policy | string => {
  try {
    const policy = parsePolicy(source, features, name)
    return policy.hash === hash ? policy : `its source has the hash ${policy.hash}`
  } catch (error) {
    if (error instanceof PolicyError) return error.problems.join('; ')
    throw error
  }
}

/** Decides every record again with its own policy. */
export const verify = (records: Iterable<DecisionRecord>, shelf: PolicyShelf): Verification => {
  const groups = new Map<string, { cause: Cause; count: number; examples: Difference[] }>()
  const counts = { records: 0, reproduced: 0, differing: 0, unverifiable: 0 }
  for (const record of records) {
    counts.records++
    const finding = check(record, shelf)
    if (!finding) {
      counts.reproduced++
      continue
    }
    const { cause, difference } = finding
    if (isDisproof(cause)) counts.differing++
    else counts.unverifiable++
    const key = JSON.stringify(cause)
    const group = groups.get(key) ?? { cause, count: 0, examples: [] }
    group.count++
    if (group.examples.length < examplesMax) group.examples.push(difference)
    groups.set(key, group)
  }
  return { ...counts, groups: [...groups.values()].sort((a, b) => b.count - a.count) }
}

const isDisproof = (cause: Cause): boolean => {
  switch (cause.kind) {
    case 'field':
    case 'engine-version':
      return true
    case 'no-identity':
    case 'policy-missing':
    case 'policy-unreadable':
      return false
  }
}

type Finding = { readonly cause: Cause; readonly difference: Difference }

const check = (record: DecisionRecord, shelf: PolicyShelf): Finding | null => {
  const { id, engine } = record
  const { name, hash } = record.policy
  const found = (cause: Cause, path: string, logged: unknown, redecided: unknown): Finding => ({
    cause,
    difference: { id, path, logged, redecided },
  })
  if (hash === '' || engine === '') return found({ kind: 'no-identity', policy: name }, 'policy.hash', hash, null)
  if (engine !== engineVersion)
    return found({ kind: 'engine-version', logged: engine, running: engineVersion }, 'engine', engine, engineVersion)
  const policy = shelf.get(hash)
  if (policy === undefined) return found({ kind: 'policy-missing', policy: name, hash }, 'policy.hash', hash, null)
  if (typeof policy === 'string')
    return found({ kind: 'policy-unreadable', policy: name, hash, problem: policy }, 'policy.hash', hash, null)
  const difference = firstDifference(record, policy.decide(contextOf(record)))
  if (!difference) return null
  return { cause: { kind: 'field', field: difference.path.replace(/\[\d+\]/g, '') }, difference: { id, ...difference } }
}

type FieldDifference = Omit<Difference, 'id'>

/** The first field, in the order a decision comes about, in which a record and a decision differ; null when none does. */
export const firstDifference = (record: DecisionRecord, decision: Decision): FieldDifference | null => {
  for (const [path, logged, redecided] of comparisons(record, decision))
    if (!same(logged, redecided)) return { path, logged, redecided }
  return null
}

function* comparisons(record: DecisionRecord, decision: Decision): Generator<[string, unknown, unknown]> {
  yield ['path', record.path, decision.path]
  yield ['candidates.length', record.candidates.length, decision.candidates.length]
  for (const [index, logged] of record.candidates.entries()) {
    const redecided = decision.candidates[index]
    for (const field of ['model', 'eligible', 'exclusion', 'score', 'probability'] satisfies (keyof Candidate)[])
      yield [`candidates[${index}].${field}`, logged[field], redecided?.[field]]
  }
  if (record.reason !== undefined) yield ['reason', record.reason, decision.reason]
  yield ['explored', record.explored, decision.explored]
  yield ['chosen', record.chosen, decision.chosen]
  yield ['plan', record.plan, decision.plan]
}

/** Numbers are the same when their bits are, except that JSON knows no negative zero. */
const same = (a: unknown, b: unknown): boolean =>
  typeof a === 'number' && typeof b === 'number' ? Object.is(a + 0, b + 0) : isDeepStrictEqual(a, b)
