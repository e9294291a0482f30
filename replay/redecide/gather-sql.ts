// The SQL engine: the sums that a replay is made of, added up where the data is. One query for each logged policy, and one for
// the log and all candidates, which share what is read; what comes back is what going through all records gives, so everything after
// is the same code. What cannot be said in SQL is declined by name, and the records are read instead.
import type { Policy } from '../../router/policy/policy.ts'
import type { DecisionRecord } from '../../router/policy/record.ts'
import { compilePoliciesSql } from '../../router/policy/sql.ts'
import { SqlDeclined } from '../../router/policy/sql-text.ts'
import type { Source } from '../read/source.ts'
import { type Fit, fitOf } from './chunk.ts'
import { type Gathered, startGathering } from './gather.ts'
import { candidateSql, namedEnds, readCandidate } from './gather-sql/candidate.ts'
import { endOfId, loggedRows, type SumsRow, settings } from './gather-sql/columns.ts'
import { verifySql } from './gather-sql/fidelity.ts'
import { logSql, readLog } from './gather-sql/log.ts'
import { weighedSql } from './gather-sql/weighing.ts'
import type { Survey } from './survey.ts'
import type { CandidateTally } from './tallies.ts'
import type { LoggedPolicy } from './verify.ts'

/** Arms are columns of the queries, as many for each metric. */
const armsMax = 24
/** Candidates of one query: their columns are in memory together. */
const atOnceMax = 8
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
  // What cannot be compiled is declined before anything is asked.
  compilePoliciesSql(candidates, survey.features)
  const verification = await verifySql(ask, find, survey, policies)
  const row = await sumsOf(ask, fit, candidates)
  const names = candidates.map((_, at) => nameOf(at))
  const ends = names.map((name) => namedEnds(row, name))
  const records = await recordsOf({ ask, find }, ends.flat())
  const tallies = candidates.map((candidate, at) => ({
    ...readCandidate(fit, row, names[at] as string),
    ...named(
      fit,
      candidate,
      (ends[at] as readonly string[]).flatMap((end) => records.get(end) ?? []),
    ),
  }))
  return { log: readLog(fit, row), tallies, verification }
}

/** What begins the names of a candidate's columns. */
const nameOf = (at: number): string => `c${at}`

/** One row with the sums of the log and of all candidates, made by as few queries as their length allows. */
const sumsOf = async (ask: Ask, fit: Fit, candidates: readonly Policy[]): Promise<SumsRow> => {
  const all = [...candidates.keys()]
  const row = await askFor(ask, fit, candidates, all, { withLog: true, hasUntried: false })
  // Most candidates choose only what production tries, too, and then half of what the query looks up is not needed.
  const untried = all.filter((at) => row[`${nameOf(at)}_untried_rows`] !== 0)
  if (untried.length === 0) return row
  return { ...row, ...(await askFor(ask, fit, candidates, untried, { withLog: false, hasUntried: true })) }
}

type Asking = { readonly withLog: boolean; readonly hasUntried: boolean }

/** The sums of the candidates at these places; a query that would be too long is asked as two. */
const askFor = async (
  ask: Ask,
  fit: Fit,
  candidates: readonly Policy[],
  places: readonly number[],
  how: Asking,
): Promise<SumsRow> => {
  const [row] = places.length > atOnceMax ? [] : [await rowOf(ask, fit, candidates, places, how)]
  if (row) return row
  const half = places.length >> 1
  const first = await askFor(ask, fit, candidates, places.slice(0, half), how)
  return { ...first, ...(await askFor(ask, fit, candidates, places.slice(half), { ...how, withLog: false })) }
}

/** A query's only row, which must be of all rows that the survey saw; null where the query would be too long for ClickHouse. */
const rowOf = async (
  ask: Ask,
  fit: Fit,
  candidates: readonly Policy[],
  places: readonly number[],
  { withLog, hasUntried }: Asking,
): Promise<SumsRow | null> => {
  const { rows, features } = fit.survey
  const { over, judged } = compilePoliciesSql(
    places.map((at) => candidates[at] as Policy),
    features,
    'e',
  )
  const asked = places.map((at, place) => ({ name: nameOf(at), judged: judged[place] as (typeof judged)[number] }))
  const aggregates = [
    'toFloat64(count()) AS rows',
    ...(withLog ? logSql(fit) : []),
    ...asked.flatMap((candidate) => candidateSql(fit, candidate, hasUntried)),
  ].join(',\n')
  const queryOf = (selected: string) =>
    `SELECT ${aggregates}\nFROM ${weighedSql(fit, over, asked, loggedRows(selected), hasUntried)}\n${settings}`
  const { length } = queryOf('')
  if (length > querySizeMax) {
    if (places.length > 1) return null
    throw new SqlDeclined(`a query of ${length} characters: it has too many models and kinds of requests`)
  }
  const [row] = await ask<SumsRow>(queryOf)
  if (row === undefined || row.rows !== rows)
    throw new SqlDeclined(`a log that changes meanwhile: it had ${rows} decisions, and now ${row?.rows}`)
  return row
}

/** The records with these ends of their ids. Their ids are looked up first: an index finds those, and only a scan the ends. */
const recordsOf = async (
  { ask, find }: { readonly ask: Ask; readonly find: Find },
  ends: readonly string[],
): Promise<ReadonlyMap<string, DecisionRecord[]>> => {
  const found = new Map<string, DecisionRecord[]>()
  if (ends.length === 0) return found
  const ids = await ask<{ id: string; end: string }>(
    (selected) => `SELECT DISTINCT toString(decision_id) AS id, toString(${endOfId}) AS end
      FROM otel.routing_decisions WHERE ${endOfId} IN (${[...new Set(ends)].join(', ')}) AND ${selected}`,
  )
  const endOf = new Map(ids.map(({ id, end }) => [id, end]))
  for (const record of await find(`decision_id IN (${ids.map(({ id }) => `'${id}'`).join(', ')})`)) {
    const end = endOf.get(record.id) ?? ''
    found.set(end, [...(found.get(end) ?? []), record])
  }
  return found
}

/** The rows that a report names, decided again in JavaScript. */
const named = (fit: Fit, candidate: Policy, records: readonly DecisionRecord[]) => {
  const gathering = startGathering(fit.survey, new Map(), [candidate])
  for (const record of new Set(records)) gathering.add(record)
  const { sample, movers } = gathering.close().tallies[0] as CandidateTally
  return { sample, movers }
}
