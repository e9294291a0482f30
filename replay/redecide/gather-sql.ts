// The SQL engine: the sums that a replay is made of, added up where the data is. One query for the log, one for each logged policy
// and one for each candidate; what comes back is what going through all records gives, so everything after is the same code.
// What cannot be said in SQL is declined by name, and the records are read instead.
import type { Policy } from '../../router/policy/policy.ts'
import { compilePolicySql, type PolicySql } from '../../router/policy/sql.ts'
import { SqlDeclined } from '../../router/policy/sql-text.ts'
import type { Source } from '../read/source.ts'
import { chunkOf, type Fit, fitOf } from './chunk.ts'
import type { Gathered } from './gather.ts'
import { candidateSql, namedRows, readCandidate } from './gather-sql/candidate.ts'
import type { SumsRow } from './gather-sql/columns.ts'
import { verifySql } from './gather-sql/fidelity.ts'
import { logSql, readLog } from './gather-sql/log.ts'
import type { Survey } from './survey.ts'
import { type CandidateTally, startTally } from './tallies.ts'
import { tallyCandidate } from './tally.ts'
import type { LoggedPolicy } from './verify.ts'

/** Arms are columns of the queries, as many for each metric. */
const armsMax = 24
/** What ClickHouse reads of a query by default, less what the client adds. */
const querySizeMax = 256_000

type Ask = NonNullable<Source['ask']>
type Find = NonNullable<Source['find']>
type Asked = Pick<Source, 'ask' | 'find'>

/**
 * What `startGathering` would gather of the same survey's rows: sums agree to rounding, probabilities to 1e-12, choices always.
 * The survey must be one that ClickHouse made, which is one of a log without repeated or impossible rows. Throws SqlDeclined,
 * which names what SQL cannot say.
 */
export const gatherSql = async (
  { ask, find }: Asked,
  survey: Survey,
  policies: readonly LoggedPolicy[],
  candidates: readonly Policy[],
): Promise<Gathered> => {
  if (!ask || !find) throw new SqlDeclined('a log that is not in ClickHouse')
  if (survey.armNames.length > armsMax)
    throw new SqlDeclined(`${survey.armNames.length} models; it takes up to ${armsMax}`)
  const fit = fitOf(survey)
  const compiled = candidates.map((candidate) => compilePolicySql(candidate, survey.features, 'e'))
  const verification = await verifySql(ask, find, survey, policies)
  const log = readLog(fit, await oneRow(ask, survey, (selected) => logSql(fit, selected)))
  const tallies: CandidateTally[] = []
  for (const [at, candidate] of candidates.entries()) {
    const policy = compiled[at] as PolicySql
    const row = await candidateRow(ask, fit, policy)
    tallies.push({ ...readCandidate(fit, row), ...(await named(find, fit, candidate, row)) })
  }
  return { log, tallies, verification }
}

/** Most candidates choose only what production tries, too, and then half of what the query looks up is not needed. */
const candidateRow = async (ask: Ask, fit: Fit, policy: PolicySql): Promise<SumsRow> => {
  const askFor = (hasUntried: boolean) =>
    oneRow(ask, fit.survey, (selected) => candidateSql(fit, policy, selected, hasUntried))
  const row = await askFor(false)
  return row.untried_rows === 0 ? row : askFor(true)
}

/** A query's only row, which must be of all rows that the survey saw. */
const oneRow = async (ask: Ask, { rows }: Survey, sql: (selected: string) => string): Promise<SumsRow> => {
  const [row] = await ask<SumsRow>((selected) => {
    const query = sql(selected)
    if (query.length > querySizeMax)
      throw new SqlDeclined(`a query of ${query.length} characters: it has too many models and kinds of requests`)
    return query
  })
  if (row === undefined || row.rows !== rows)
    throw new SqlDeclined(`a log that changes meanwhile: it had ${rows} decisions, and now ${row?.rows}`)
  return row
}

/** The rows that a report names, decided again in JavaScript. */
const named = async (
  find: Find,
  fit: Fit,
  candidate: Policy,
  row: SumsRow,
): Promise<Pick<CandidateTally, 'sample' | 'movers'>> => {
  const tally = startTally(fit.survey)
  const rows = namedRows(row)
  if (rows !== null) tallyCandidate(fit, chunkOf(fit, await find(rows)), candidate, tally)
  const { sample, movers } = tally
  return { sample, movers }
}
