// What must hold after any scenario, by the store's own rows: what was acknowledged is there, once, with no gap in any run's
// numbers. Of a router that was killed, what it answered in its last moments may be missing; of a collector, nothing.

import { rowsOf } from '../collector-fixtures.ts'
import { type DuplicateRow, duplicatesSql, type EpochRow, epochsSql, type GapRow, gapsSql } from './gaps.ts'
import type { Acknowledged } from './load.ts'
import type { Stage } from './stage.ts'

/** What a router that is killed may lose of what it has answered: what DESIGN promises. */
const lostMsMax = 100
/** How often what is new waits for a turn until it is out of the process: a timer, then opening and writing on another thread. */
const turnsMax = 5
/** A payload is prepared beside the answer and so a little later. */
const payloadLostMsMax = 2_000
const namedMax = 5

export type Verdict = {
  readonly acknowledged: number
  /** Of those, how many were answered within a killed router's last moments, and how many of these are stored all the same. */
  readonly excused: number
  readonly excusedStored: number
  readonly stored: number
  readonly runs: number
  /** Empty when all is well. */
  readonly failures: readonly string[]
}

type Stored = { readonly id: string; readonly rows: string; readonly merged: string }
const byId = (rows: readonly Stored[]): Map<string, Stored> => new Map(rows.map((row) => [row.id, row]))

/** Rows by decision in a table, before and after FINAL. */
const countSql = (table: string): string => `
SELECT toString(decision_id) AS id, countIf(NOT is_final) AS rows, countIf(is_final) AS merged
FROM (SELECT decision_id, 0 AS is_final FROM otel.${table} UNION ALL SELECT decision_id, 1 FROM otel.${table} FINAL)
GROUP BY id`
const repeatedSpansSql =
  "SELECT SpanName AS id, toString(count()) AS rows, '' AS merged FROM otel.otel_traces GROUP BY SpanName, TraceId, SpanId HAVING count() > 1"
const attemptsSql = `SELECT toString(decision_id) AS id, toString(count()) AS rows, '' AS merged FROM otel.routing_attempts GROUP BY id`

const isExcused = ({ run, atMs }: Acknowledged, withinMs: number): boolean =>
  run.killedAtMs !== null && atMs >= run.killedAtMs - withinMs - turnsMax * run.lagMs

const named = (what: string, found: readonly string[]): string[] =>
  found.length === 0 ? [] : [`${found.length} ${what}: ${found.slice(0, namedMax).join(', ')}`]

/** How long before the kill of its router a decision was answered, for messages. */
const ageText = ({ id, run, atMs }: Acknowledged): string =>
  run.killedAtMs === null
    ? id
    : `${id} (answered ${Math.round(run.killedAtMs - atMs)} ms before the kill, turns took up to ${Math.round(run.lagMs)} ms)`

const judgeEpochs = async (stage: Stage, collector: { clickhouseUrl: string }, epoch: string, decisions: number) => {
  const epochs = await rowsOf<EpochRow>(collector, epochsSql())
  const gaps = await rowsOf<GapRow>(collector, gapsSql())
  const duplicates = await rowsOf<DuplicateRow>(collector, duplicatesSql())
  const missing = gaps.reduce((sum, gap) => sum + Number(gap.missing), 0)
  const now = epochs.find((row) => row.epoch === epoch)
  const failures = [
    ...(missing > stage.destroyed.size
      ? named(
          'gaps',
          gaps.map((gap) => `${gap.missing_from}–${gap.missing_to} of ${gap.epoch}`),
        )
      : []),
    ...named(
      'numbers stored more than once',
      duplicates.map(({ epoch, seq, rows, rows_final }) => `${seq} of ${epoch} (${rows}, with FINAL ${rows_final})`),
    ),
    // Requests served, as the router counts them, are decisions stored.
    ...(Number(now?.last_seq ?? 0) === decisions
      ? []
      : [`the router has answered ${decisions} in this run, and ${now?.last_seq ?? 0} is the last that is stored`]),
  ]
  return { epochs, failures }
}

/** Judges a stage on which everything runs. The load has stopped, or what it adds meanwhile is not judged. */
export const judge = async (stage: Stage): Promise<Verdict> => {
  const { load, destroyed } = stage
  const { spans, events } = await stage.drained()
  const collector = { clickhouseUrl: stage.collectorUrl() }
  const [decided, attempted, told, payloads, repeated] = await Promise.all(
    [
      countSql('routing_decisions'),
      attemptsSql,
      countSql('feedback'),
      countSql('captured_payloads'),
      repeatedSpansSql,
    ].map((sql) => rowsOf<Stored>(collector, sql)),
  )
  const decisions = byId(decided ?? [])
  const feedback = byId(told ?? [])
  const attempts = byId(attempted ?? [])
  const captured = byId(payloads ?? [])
  const missingFrom = (
    found: ReadonlyMap<string, Stored>,
    asked: readonly Acknowledged[],
    withinMs: number,
  ): string[] =>
    asked.filter((each) => !found.has(each.id) && !isExcused(each, withinMs) && !destroyed.has(each.id)).map(ageText)
  const twice = (found: ReadonlyMap<string, Stored>, rows: number): string[] =>
    [...found.values()]
      .filter((row) => Number(row.rows) > rows || Number(row.merged) > rows)
      .map((row) => `${row.id} (${row.rows}, with FINAL ${row.merged})`)
  const { epochs, failures } = await judgeEpochs(stage, collector, spans.epoch, spans.decisions)
  const excused = load.decisions.filter((each) => isExcused(each, lostMsMax))
  return {
    acknowledged: load.decisions.length,
    excused: excused.length,
    excusedStored: excused.filter(({ id }) => decisions.has(id)).length,
    stored: decisions.size,
    runs: epochs.length,
    failures: [
      ...stage.failures,
      ...named('acknowledged decisions are missing', missingFrom(decisions, load.decisions, lostMsMax)),
      ...named('acknowledged feedbacks are missing', missingFrom(feedback, load.feedback, lostMsMax)),
      ...named('attempts are missing', missingFrom(attempts, load.decisions, lostMsMax)),
      ...named('payloads are missing', missingFrom(captured, load.decisions, payloadLostMsMax)),
      ...named('decisions are stored twice', twice(decisions, 1)),
      ...named('attempts are stored twice', twice(attempts, 1)),
      ...named('feedbacks are stored twice', twice(feedback, 1)),
      // A request and an answer.
      ...named('payloads are stored twice', twice(captured, 2)),
      ...named(
        'spans are stored twice',
        (repeated ?? []).map(({ id }) => id),
      ),
      ...failures,
      ...(spans.dropped + events.dropped > 0
        ? [`${spans.dropped} spans and ${events.dropped} events were dropped`]
        : []),
      ...(stage.damaged === 0 && spans.refused + events.refused > 0
        ? [`${spans.refused} spans and ${events.refused} events were refused`]
        : []),
    ],
  }
}
