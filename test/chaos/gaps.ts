// What proves that nothing was lost: a router numbers its decisions from 1 within each of its runs (its epoch), so that a
// number that is missing is a decision that was lost, and one that is there twice was stored twice. These are the queries
// that say so, of `signalbox doctor --gaps` and of the chaos tests.

/** Ranges and decisions that one answer names at most. */
const namedMax = 1_000

/** One run of a router: what its numbers say of it. 64-bit counts come as text. */
export type EpochRow = {
  readonly epoch: string
  readonly service_name: string
  readonly first_time: string
  readonly last_time: string
  readonly first_seq: string
  readonly last_seq: string
  /** Different numbers that are stored; with none missing, as many as `last_seq`. */
  readonly decisions: string
  readonly missing: string
  /** Rows before and after `FINAL`; more than `decisions` are repetitions. */
  readonly rows: string
  readonly rows_final: string
}
/** Numbers of a run, from one to the other, of which nothing is stored, and when what stands beside them was decided. */
export type GapRow = {
  readonly epoch: string
  readonly missing_from: string
  readonly missing_to: string
  readonly missing: string
  /** Null when the run's first decisions are missing. Those of a run older than the table's time to live expired. */
  readonly before_time: string | null
  readonly after_time: string
}
/** A number of a run that is stored more than once. */
export type DuplicateRow = {
  readonly epoch: string
  readonly seq: string
  readonly decision_ids: readonly string[]
  readonly rows: string
  readonly rows_final: string
}

/** Runs that decided anything since then are looked at whole, so that no gap comes from where the window begins. */
const since = (seconds: number): string =>
  `epoch IN (SELECT epoch FROM otel.routing_decisions WHERE epoch != '' AND decision_time >= fromUnixTimestamp(${Math.trunc(seconds)}))`

/** EpochRows, the newest run first, of runs with decisions since `sinceSeconds` (Unix time). */
export const epochsSql = (sinceSeconds = 0): string => `
SELECT raw.*, last_seq - decisions AS missing, rows_final
FROM (
    SELECT epoch, any(service_name) AS service_name, min(decision_time) AS first_time, max(decision_time) AS last_time,
        min(seq) AS first_seq, max(seq) AS last_seq, uniqExact(seq) AS decisions, count() AS rows
    FROM otel.routing_decisions WHERE ${since(sinceSeconds)} GROUP BY epoch
) AS raw
INNER JOIN (
    SELECT epoch, count() AS rows_final FROM otel.routing_decisions FINAL WHERE ${since(sinceSeconds)} GROUP BY epoch
) AS merged USING epoch
ORDER BY first_time DESC`

/** GapRows, of the same runs. What is missing after a run's last stored number only its router's own counter can say. */
export const gapsSql = (sinceSeconds = 0): string => `
SELECT epoch, before + 1 AS missing_from, seq - 1 AS missing_to, seq - before - 1 AS missing,
    if(before = 0, NULL, before_at) AS before_time, at AS after_time
FROM (
    SELECT epoch, seq, at, lagInFrame(seq, 1, 0) OVER run AS before, lagInFrame(at) OVER run AS before_at
    FROM (
        SELECT epoch, seq, min(decision_time) AS at
        FROM otel.routing_decisions WHERE ${since(sinceSeconds)} GROUP BY epoch, seq
    )
    WINDOW run AS (PARTITION BY epoch ORDER BY seq ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)
)
WHERE seq > before + 1
ORDER BY epoch, missing_from LIMIT ${namedMax}`

/** DuplicateRows, of the same runs. */
export const duplicatesSql = (sinceSeconds = 0): string => `
SELECT epoch, seq, groupUniqArray(toString(decision_id)) AS decision_ids, countIf(NOT merged) AS rows, countIf(merged) AS rows_final
FROM (
    SELECT epoch, seq, decision_id, 0 AS merged FROM otel.routing_decisions WHERE ${since(sinceSeconds)}
    UNION ALL
    SELECT epoch, seq, decision_id, 1 AS merged FROM otel.routing_decisions FINAL WHERE ${since(sinceSeconds)}
)
GROUP BY epoch, seq HAVING rows > 1 OR rows_final > 1
ORDER BY epoch, seq LIMIT ${namedMax}`
