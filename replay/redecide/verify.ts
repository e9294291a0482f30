// Fidelity: the proof that replay is the router. Every record is decided again by the policy that decided it, and what
// comes out must be the same to the bit: choice, plan, eligibility, exclusions, scores, probabilities. The first field that
// differs is named in the order in which a decision comes about, and from it the cause. Findings are a fold that merges, so
// that any number of workers, in any order of the records, report the same.
import { isDeepStrictEqual } from 'node:util'
import type { FeatureTypes } from '../../router/policy/cel.ts'
import { judge } from '../../router/policy/decide.ts'
import { type Policy, PolicyError, parsePolicy } from '../../router/policy/policy.ts'
import {
  type Candidate,
  contextOf,
  type Decision,
  type DecisionRecord,
  engineVersion,
} from '../../router/policy/record.ts'
import { addDigests, digestOf, digestText } from './digest.ts'
import { isSaid } from './said.ts'

const examplesMax = 3
/** Scores closer than this, relative to their size, differ by arithmetic and not by a price. */
const roundingMax = 1e-9
/** What the router computes from the price table. */
const pricedFeatures: readonly string[] = ['cost_usd', 'input_usd_per_mtok', 'output_usd_per_mtok']

/** A policy as it was in force: every version is kept by its hash. */
export type LoggedPolicy = { readonly hash: string; readonly name: string; readonly source: string }

/** Why a record could not be decided again, or came out otherwise. */
export type Cause =
  | { readonly kind: 'no-identity'; readonly policy: string }
  | { readonly kind: 'policy-missing'; readonly policy: string; readonly hash: string }
  | { readonly kind: 'policy-unreadable'; readonly policy: string; readonly hash: string; readonly problem: string }
  | { readonly kind: 'engine-version'; readonly logged: string; readonly running: string }
  /** Candidates do not even mention features that the policy reads. */
  | { readonly kind: 'missing-snapshot'; readonly features: readonly string[] }
  /** Scores differ by more than rounding, and the policy reads these, which come of prices. */
  | { readonly kind: 'price-table'; readonly features: readonly string[] }
  | { readonly kind: 'field'; readonly field: string }

/** One record that differs: where, what was logged and what came out now. */
export type Difference = {
  readonly id: string
  readonly path: string
  readonly logged: unknown
  readonly redecided: unknown
}

/** Records with one cause; the examples are those with the least ids. */
export type CauseGroup = { readonly cause: Cause; readonly count: number; readonly examples: readonly Difference[] }

export type Verification = {
  /** To the bit, by deciding every record again; or choices exactly and numbers to 1e-12, by ClickHouse. */
  readonly how: 'bits' | 'sql'
  readonly records: number
  readonly reproduced: number
  /** Decided again with another result: the evidence is invalid. */
  readonly differing: number
  /** Could not be decided again: nothing is proved, nothing is disproved. */
  readonly unverifiable: number
  /** Most records first. */
  readonly groups: readonly CauseGroup[]
  /** Of the log, and of what came out now, as 16 hexadecimal digits: the same when and only when all is reproduced. */
  readonly digest: { readonly logged: string; readonly redecided: string }
}

/** The policies by hash, ready to decide; a string says why one cannot be read. */
export type PolicyShelf = ReadonlyMap<string, Policy | string>

/** Compiles logged policies; one that does not compile, or whose text does not have its hash, is kept as the reason why. */
export const shelve = (policies: Iterable<LoggedPolicy>, features: FeatureTypes): PolicyShelf => {
  const shelf = new Map<string, Policy | string>()
  for (const { hash, name, source } of policies) shelf.set(hash, readPolicy(hash, name, source, features))
  return shelf
}

/** A feature that no record shows is taken for a number, so that record by record its absence is found. */
const readPolicy = (hash: string, name: string, source: string, features: FeatureTypes): Policy | string => {
  const absent = featuresRead(source).filter((feature) => !Object.hasOwn(features, feature))
  try {
    const known = { ...features, ...Object.fromEntries(absent.map((feature) => [feature, 'double' as const])) }
    const policy = parsePolicy(source, known, name)
    return policy.hash === hash ? policy : `its source has the hash ${policy.hash}`
  } catch (error) {
    if (!(error instanceof PolicyError)) throw error
    return absent.length > 0 ? `it reads what no record shows: ${absent.join(', ')}` : error.problems.join('; ')
  }
}

/** The features that a policy's expressions name, sorted. */
export const featuresRead = (source: string): string[] => {
  const read = new Set(Array.from(source.matchAll(/\bcandidate\.(\w+)/g), ([, feature = '']) => feature))
  read.delete('model')
  return [...read].sort()
}

type Group = { readonly cause: Cause; count: number; examples: readonly Difference[] }

/** What is found so far; plain data, so that a worker thread can hand it back. */
export type VerificationFold = {
  readonly how: Verification['how']
  records: number
  reproduced: number
  differing: number
  unverifiable: number
  loggedDigest: bigint
  redecidedDigest: bigint
  readonly groups: Map<string, Group>
}

export const startVerification = (how: Verification['how'] = 'bits'): VerificationFold => ({
  how,
  records: 0,
  reproduced: 0,
  differing: 0,
  unverifiable: 0,
  loggedDigest: 0n,
  redecidedDigest: 0n,
  groups: new Map(),
})

/** Decides one record again with its own policy and adds what comes out to `fold`. */
export const verifyRecord = (fold: VerificationFold, record: DecisionRecord, shelf: PolicyShelf): void => {
  const { decision, finding } = check(record, shelf)
  const logged = digestOf(record.id, record)
  fold.records++
  fold.loggedDigest = addDigests(fold.loggedDigest, logged)
  if (finding === null) {
    fold.reproduced++
    fold.redecidedDigest = addDigests(fold.redecidedDigest, logged)
    return
  }
  if (decision) fold.redecidedDigest = addDigests(fold.redecidedDigest, digestOf(record.id, decision))
  if (isDisproof(finding.cause)) fold.differing++
  else fold.unverifiable++
  addGroup(fold, { cause: finding.cause, count: 1, examples: [finding.difference] })
}

/** What two folds found, together: the same as one fold over the records of both. */
export const mergeVerifications = (a: VerificationFold, b: VerificationFold): VerificationFold => {
  const merged: VerificationFold = {
    how: a.how,
    records: a.records + b.records,
    reproduced: a.reproduced + b.reproduced,
    differing: a.differing + b.differing,
    unverifiable: a.unverifiable + b.unverifiable,
    loggedDigest: addDigests(a.loggedDigest, b.loggedDigest),
    redecidedDigest: addDigests(a.redecidedDigest, b.redecidedDigest),
    groups: new Map(),
  }
  for (const group of [...a.groups.values(), ...b.groups.values()]) addGroup(merged, group)
  return merged
}

const addGroup = ({ groups }: VerificationFold, { cause, count, examples }: Group): void => {
  const key = JSON.stringify(cause)
  const known = groups.get(key)
  groups.set(key, {
    cause,
    count: count + (known?.count ?? 0),
    examples: known ? leastIds([...known.examples, ...examples]) : examples,
  })
}

/** The same examples in whatever order they come: by id, and by what is said of one that came twice. */
const leastIds = (examples: Difference[]): Difference[] =>
  examples.sort((a, b) => byText(a.id, b.id) || byText(JSON.stringify(a), JSON.stringify(b))).slice(0, examplesMax)

const byText = (a: string, b: string): number => (a < b ? -1 : Number(a > b))

export const closeVerification = (fold: VerificationFold): Verification => {
  const { how, records, reproduced, differing, unverifiable, loggedDigest, redecidedDigest, groups } = fold
  return {
    how,
    records,
    reproduced,
    differing,
    unverifiable,
    groups: [...groups]
      .sort(([a, { count: countA }], [b, { count: countB }]) => countB - countA || byText(a, b))
      .map(([, group]) => group),
    digest: { logged: digestText(loggedDigest), redecided: digestText(redecidedDigest) },
  }
}

/** Decides every record again with its own policy. */
export const verify = (records: Iterable<DecisionRecord>, shelf: PolicyShelf): Verification => {
  const fold = startVerification()
  for (const record of records) verifyRecord(fold, record, shelf)
  return closeVerification(fold)
}

/** Whether the cause shows that the decision was another, and not only that it could not be made again. */
export const isDisproof = (cause: Cause): boolean => {
  switch (cause.kind) {
    case 'field':
    case 'price-table':
    case 'engine-version':
      return true
    case 'no-identity':
    case 'policy-missing':
    case 'policy-unreadable':
    case 'missing-snapshot':
      return false
  }
}

type Finding = { readonly cause: Cause; readonly difference: Difference }
type Check = { readonly decision: Decision | null; readonly finding: Finding | null }

const check = (record: DecisionRecord, shelf: PolicyShelf): Check => {
  const { id, engine } = record
  const { name, hash } = record.policy
  const found = (cause: Cause, path: string, logged: unknown, redecided: unknown): Check => ({
    decision: null,
    finding: { cause, difference: { id, path, logged, redecided } },
  })
  if (hash === '' || engine === '') return found({ kind: 'no-identity', policy: name }, 'policy.hash', hash, null)
  if (engine !== engineVersion)
    return found({ kind: 'engine-version', logged: engine, running: engineVersion }, 'engine', engine, engineVersion)
  const policy = shelf.get(hash)
  if (policy === undefined) return found({ kind: 'policy-missing', policy: name, hash }, 'policy.hash', hash, null)
  if (typeof policy === 'string')
    return found({ kind: 'policy-unreadable', policy: name, hash, problem: policy }, 'policy.hash', hash, null)
  if (isSaid(record, judge(policy.root, policy.hash, record))) return reproduced
  const decision = policy.decide(contextOf(record))
  const difference = firstDifference(record, decision)
  return {
    decision,
    finding: difference && { cause: causeOf(record, policy, difference), difference: { id, ...difference } },
  }
}

const reproduced: Check = { decision: null, finding: null }

/** What a difference comes of, where the record and the policy tell. */
const causeOf = (record: DecisionRecord, policy: Policy, { path, logged, redecided }: FieldDifference): Cause => {
  const read = featuresRead(policy.source)
  const absent = read.filter((feature) => record.candidates.some(({ features }) => !Object.hasOwn(features, feature)))
  if (absent.length > 0) return { kind: 'missing-snapshot', features: absent }
  const field = path.replace(/\[\d+\]/g, '')
  const priced = read.filter((feature) => pricedFeatures.includes(feature))
  if (field === 'candidates.score' && priced.length > 0 && !isRounding(logged, redecided))
    return { kind: 'price-table', features: priced }
  return { kind: 'field', field }
}

const isRounding = (a: unknown, b: unknown): boolean =>
  typeof a !== 'number' ||
  typeof b !== 'number' ||
  Math.abs(a - b) <= roundingMax * Math.max(1, Math.abs(a), Math.abs(b))

type FieldDifference = Omit<Difference, 'id'>

const judgedFields = ['model', 'eligible', 'exclusion', 'score', 'probability'] as const satisfies (keyof Candidate)[]

/** The first field, in the order a decision comes about, in which a record and a decision differ; null when none does. */
export const firstDifference = (record: DecisionRecord, decision: Decision): FieldDifference | null => {
  const differs = (path: string, logged: unknown, redecided: unknown): FieldDifference => ({ path, logged, redecided })
  const [ours, theirs] = [record.candidates, decision.candidates]
  if (!same(record.path, decision.path)) return differs('path', record.path, decision.path)
  if (ours.length !== theirs.length) return differs('candidates.length', ours.length, theirs.length)
  for (const [index, logged] of ours.entries()) {
    const redecided = theirs[index] as Candidate
    for (const field of judgedFields)
      if (!same(logged[field], redecided[field]))
        return differs(`candidates[${index}].${field}`, logged[field], redecided[field])
  }
  if (record.reason !== undefined && record.reason !== decision.reason)
    return differs('reason', record.reason, decision.reason)
  for (const field of ['explored', 'chosen', 'plan'] as const)
    if (!same(record[field], decision[field])) return differs(field, record[field], decision[field])
  return null
}

/** Numbers are the same when their bits are, except that JSON knows no negative zero; `===` says just that. */
const same = (a: unknown, b: unknown): boolean =>
  a === b || (Array.isArray(a) && a.length === 0 ? Array.isArray(b) && b.length === 0 : isDeepStrictEqual(a, b))
