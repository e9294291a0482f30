// The questions by which records are read from ClickHouse: where the slices of a log begin and end, and what each holds, with the
// feedback that stands. Feedback is looked up for the decisions of a slice only: all of it, once for each slice, would grow as
// the square of the log.

/** Rows of a slice, as long as they do not share one moment. */
const sliceRows = 32_768
/** Later than anything that is decided. */
export const never = '2262-04-11 00:00:00'

/** Rows that are records: those without one are spans of something else. */
export const isRecord = "(irregular IS NULL OR irregular != '')"

/** Where slices of about equally many rows begin and end, from the times alone. */
export const startsSql = (where: string, untilMs: number): string => `
  WITH ${Number.isFinite(untilMs) ? `fromUnixTimestamp64Milli(toInt64(${untilMs + 1}))` : `toDateTime64('${never}', 3)`} AS over,
    (SELECT arraySort(groupArray(decision_time)) FROM otel.routing_decisions WHERE decision_time < over ${where}) AS times,
    arrayDistinct(arrayMap(at -> times[at], range(1, length(times) + 1, ${sliceRows}))) AS starts
  SELECT toString(start) AS start, if(at = length(starts), toString(over), toString(starts[at + 1])) AS end,
    toFloat64(least(${sliceRows}, length(times) - (at - 1) * ${sliceRows})) AS rows
  FROM (SELECT 1) ARRAY JOIN starts AS start, arrayEnumerate(starts) AS at ORDER BY at`

/** Whether any judgement names a trace, or counts for one tenant only: then otel.judgements finds what it is about. */
export const isIndirectSql = 'SELECT toFloat64(count()) AS rows FROM otel.feedback WHERE by_trace OR tenant_only'

/**
 * A slice in Native format, from {start} up to {end}; `isTimed` adds when its feedback was given. Where no judgement is indirect they
 * are read from their table, at a third of the cost.
 */
export const sliceSql = (columns: readonly string[], where: string, isTimed: boolean, isIndirect: boolean): string => {
  const within = `decision_time >= toDateTime64({start: String}, 9) AND decision_time < toDateTime64({end: String}, 9) ${where}`
  const [judgements, turn] = isIndirect
    ? [`otel.judgements WHERE ${judgedWithin(within)}`, 'turn']
    : [
        `otel.feedback FINAL WHERE decision_id IN (SELECT decision_id FROM otel.routing_decisions WHERE ${within})`,
        '(time, arrived_at)',
      ]
  return `
    SELECT d.*, f.quality AS quality, f.quality_judge AS quality_judge${isTimed ? ', f.quality_time_ms AS quality_time_ms' : ''}
    FROM (
      SELECT ${columns.join(', ')} FROM otel.routing_decisions FINAL WHERE ${isRecord} AND ${within}
    ) AS d
    LEFT JOIN (
      SELECT toString(decision_id) AS judged, argMaxIf(toNullable(score), ${turn}, name = 'quality') AS quality,
        argMaxIf(toNullable(score), ${turn}, name = 'quality_judge') AS quality_judge,
        maxIf(toNullable(toFloat64(toUnixTimestamp64Milli(time))), name = 'quality') AS quality_time_ms
      FROM ${judgements} AND name IN ('quality', 'quality_judge')
      GROUP BY decision_id
    ) AS f ON d.id = f.judged
    FORMAT Native`
}

/** The condition on otel.judgements of these decisions; a judgement's subject may be the trace of its decision. */
export const judgedWithin = (within: string): string => `
  decision_id IN (SELECT decision_id FROM otel.routing_decisions WHERE ${within})
  AND subject IN (SELECT arrayJoin([decision_id, toUUIDOrZero(toString(trace_id))]) FROM otel.routing_decisions WHERE ${within})`

/** The last moment that the log knows of, milliseconds since 1970. */
export const lastMomentSql = `SELECT toString(toUnixTimestamp64Milli(greatest((SELECT max(decision_time) FROM otel.routing_decisions),
  (SELECT max(time) FROM otel.feedback)))) AS at`
