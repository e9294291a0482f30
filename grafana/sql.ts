// The pieces of SQL that the dashboard's queries share: which rows the time range and the variables select, and how a
// trace is read. Tables are read with FINAL, because a retried delivery may store a row twice and money must not be
// counted twice; a cost that is not known is NULL and stays NULL, because a missing price is not a free request.

/** Rows to read: what stands after SELECT's columns, and the column that holds their time. */
export type Rows = { readonly from: string; readonly time: string }

/** An empty name cannot be picked from a list, so it is given one. */
export const named = (column: string): string => `if(${column} = '', '(none)', ${column})`

const pick = (column: string, variable: string): string =>
  `$__conditionalAll(${named(column)} IN (\${${variable}:singlequote}), $${variable})`

const selected = `WHERE $__timeFilter(decision_time)
  AND ${pick('policy_name', 'policy')}
  AND ${pick('chosen_model', 'model')}
  AND ${pick('tenant', 'tenant')}`

/** The decisions that the time range and the variables select. */
export const decisions: Rows = { time: 'decision_time', from: `FROM otel.routing_decisions FINAL\n${selected}` }

/** The models that those decisions considered, as `candidate`. */
export const candidates: Rows = {
  time: 'decision_time',
  from: `FROM otel.routing_decisions FINAL\nARRAY JOIN candidates AS candidate\n${selected}`,
}

/** The calls that those decisions led to. */
export const attempts: Rows = {
  time: 'attempt_time',
  from: `FROM otel.routing_attempts FINAL
WHERE $__timeFilter(attempt_time)
  AND decision_id GLOBAL IN (
    SELECT decision_id FROM otel.routing_decisions
    ${selected.replaceAll('\n', '\n    ')}
  )`,
}

/** What counts as a failure of ours or of a provider: not a bad request, nor a client that went away. */
export const failed = "outcome IN ('error', 'no-candidate', 'upstream-cut')"

/** `columns` for each interval of the panel; with `label`, a series for each value of its expression. */
export const overTime = (
  columns: string,
  rows: Rows,
  label?: { readonly name: string; readonly of: string },
): string => {
  const by = label ? `time, ${label.name}` : 'time'
  return `SELECT $__timeInterval(${rows.time}) AS time,${label ? ` ${label.of} AS ${label.name},` : ''} ${columns}
${rows.from}
GROUP BY ${by}
ORDER BY ${by}`
}

/** An aggregate of `cost_usd`, or NULL where nothing but zeros is known: calls that failed for free do not make a model free. */
export const knownCost = (aggregate: 'sum' | 'avg'): string =>
  `if(countIf(cost_usd IS NULL) > 0 AND max(cost_usd) = 0, NULL, ${aggregate}(cost_usd))`

export const perSecond = 'count() / $__interval_s AS rate'

/** One series for each model chosen. */
export const chosenModel = { name: 'model', of: named('chosen_model') }

const keysAndValues = (map: string): string => `arrayMap(k -> map('key', k, 'value', ${map}[k]), mapKeys(${map}))`

/** The spans of the trace whose id the expression `traceId` gives, in the columns that the trace view asks for. */
export const traceOf = (traceId: string): string => `WITH
  ${traceId} AS wanted,
  (SELECT min(Start) FROM otel.otel_traces_trace_id_ts WHERE TraceId = wanted) AS began,
  (SELECT max(End) + 1 FROM otel.otel_traces_trace_id_ts WHERE TraceId = wanted) AS ended
SELECT
  TraceId AS traceID, SpanId AS spanID, ParentSpanId AS parentSpanID, ServiceName AS serviceName, SpanName AS operationName,
  toUnixTimestamp64Nano(Timestamp) / 1e6 AS startTime, Duration / 1e6 AS duration,
  ${keysAndValues('SpanAttributes')} AS tags,
  ${keysAndValues('ResourceAttributes')} AS serviceTags,
  if(StatusCode IN ('Error', 'STATUS_CODE_ERROR'), 2, 0) AS statusCode,
  arrayMap(
    (name, at, attributes) -> (name, toString(toUnixTimestamp64Milli(at)), ${keysAndValues('attributes')})
      ::Tuple(name String, timestamp String, fields Array(Map(String, String))),
    Events.Name, Events.Timestamp, Events.Attributes
  ) AS logs,
  SpanKind AS kind, StatusMessage AS statusMessage, TraceState AS traceState
FROM otel.otel_traces
WHERE TraceId = wanted AND Timestamp >= began AND Timestamp <= ended
ORDER BY Timestamp
LIMIT 1 BY SpanId`
