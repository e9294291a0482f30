// Fidelity in SQL: each logged policy is compiled and judges the rows that it decided. Where its choice, eligibility, exclusions,
// scores and probabilities agree, the decision is reproduced; the few that differ are read, decided again in JavaScript, and
// reported by the first field that differs like everywhere.
import { type Policy, parsePolicy } from '../../../router/policy/policy.ts'
import { type DecisionRecord, engineVersion } from '../../../router/policy/record.ts'
import { compilePolicySql } from '../../../router/policy/sql.ts'
import { SqlDeclined, sqlString } from '../../../router/policy/sql-text.ts'
import type { Source } from '../../read/source.ts'
import { addDigests, digestOf, digestSql } from '../digest.ts'
import type { Survey } from '../survey.ts'
import {
  type LoggedPolicy,
  type PolicyShelf,
  shelve,
  startVerification,
  type VerificationFold,
  verifyRecord,
} from '../verify.ts'
import { loggedRows, settings } from './columns.ts'
import { probabilityTolerance } from './weighing.ts'

/** More decisions than this that differ are a matter for JavaScript alone; their ids also fit into one query. */
const differingMax = 2000

type Ask = NonNullable<Source['ask']>
type Find = NonNullable<Source['find']>

const differsSql = ({ chosen, eligible, exclusions, scores, probabilities }: ReturnType<typeof compilePolicySql>) => {
  const off = (a: string, b: string) => `NOT abs(${a} - ${b}) <= ${probabilityTolerance} * greatest(1.0, abs(${b}))`
  return `(engine != ${sqlString(engineVersion)} OR ${chosen} != chosen_model OR ${eligible} != candidates.eligible
    OR arrayExists((x, e, f) -> x != if(f = '', e, concat(e, ':', f)), ${exclusions}, candidates.exclusion, candidates.unknown)
    OR arrayExists((x, s) -> isNull(x) != isNull(s) OR ifNull(${off('x', 's')}, false), ${scores}, candidates.score)
    OR arrayExists((x, p) -> ${off('x', 'p')}, ${probabilities}, candidates.probability))`
}

const textOf = (shelf: PolicyShelf, hash: string, name: string): Policy => {
  const policy = shelf.get(hash)
  if (policy === undefined) throw new SqlDeclined(`decisions of '${name}', whose text is not at hand`)
  if (typeof policy === 'string') throw new SqlDeclined(`decisions of '${name}', which cannot be read: ${policy}`)
  return policy
}

/** Verifies all decisions of a surveyed log. Throws SqlDeclined where a policy cannot be asked in SQL, or too many differ. */
export const verifySql = async (
  ask: Ask,
  find: Find,
  survey: Survey,
  policies: readonly LoggedPolicy[],
): Promise<VerificationFold> => {
  const shelf = shelve(policies, survey.features)
  const sources = survey.policies.map(({ hash, name }) => textOf(shelf, hash, name))
  const fold = startVerification('sql')
  for (const policy of sources) await verifyPolicy(fold, ask, find, survey, shelf, policy)
  return fold
}

const verifyPolicy = async (
  fold: VerificationFold,
  ask: Ask,
  find: Find,
  { features }: Survey,
  shelf: PolicyShelf,
  policy: Policy,
): Promise<void> => {
  const compiled = compilePolicySql(parsePolicy(policy.source, features), features, 'v')
  const [found] = await ask<{ rows: number; digest: string; ids: readonly string[] }>((selected) => {
    const rows = loggedRows(`${selected} AND policy_hash = ${sqlString(policy.hash)}`)
    return `SELECT toFloat64(count()) AS rows, ${digestSql} AS digest,
      groupArrayIf(${differingMax + 1})(toString(decision_id), ${differsSql(compiled)}) AS ids
      FROM (${compiled.over(rows)}) ${settings}`
  })
  const { rows, digest, ids } = found as NonNullable<typeof found>
  if (ids.length > differingMax)
    throw new SqlDeclined(`more than ${differingMax} decisions of '${policy.name}' that come out otherwise`)
  const differing = ids.length === 0 ? [] : await find(`decision_id IN (${ids.map(sqlString).join(', ')})`)
  addReproduced(fold, rows, BigInt(`0x${digest}`), differing)
  for (const record of differing) verifyRecord(fold, record, shelf)
}

/** All of these rows but those that are looked at on their own. */
const addReproduced = (
  fold: VerificationFold,
  rows: number,
  digest: bigint,
  differing: readonly DecisionRecord[],
): void => {
  const apart = differing.reduce((sum, record) => addDigests(sum, digestOf(record.id, record)), 0n)
  const reproduced = addDigests(digest, -apart)
  fold.records += rows - differing.length
  fold.reproduced += rows - differing.length
  fold.loggedDigest = addDigests(fold.loggedDigest, reproduced)
  fold.redecidedDigest = addDigests(fold.redecidedDigest, reproduced)
}
