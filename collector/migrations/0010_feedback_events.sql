-- Judgements as log events, `gen_ai.evaluation.result` of OpenTelemetry's conventions, from the router, an evaluator or anybody's
-- logger; what came as spans (0004) stays. Three things are new. A judgement may name a trace in place of a decision: then
-- `decision_id` holds the trace's id, which is as long, and `by_trace` says so. One that came with a client's key counts for
-- decisions of that client's tenant only, and so belongs to the key: another tenant's must not replace it. And besides a score
-- there may be a label, of which `pass` and `fail` are scores, too.
ALTER TABLE otel.feedback
    ADD COLUMN IF NOT EXISTS tenant LowCardinality(String),
    ADD COLUMN IF NOT EXISTS tenant_only Bool,
    ADD COLUMN IF NOT EXISTS by_trace Bool,
    ADD COLUMN IF NOT EXISTS judged_span FixedString(16),
    MODIFY ORDER BY (decision_id, name, tenant_only, tenant, by_trace, judged_span);

ALTER TABLE otel.feedback
    ADD COLUMN IF NOT EXISTS label LowCardinality(String),
    ADD COLUMN IF NOT EXISTS source LowCardinality(String),
    ADD COLUMN IF NOT EXISTS keep_probability Float64 DEFAULT 1,
    ADD COLUMN IF NOT EXISTS arrived_at DateTime64(3) DEFAULT now64(3) CODEC(Delta(8), ZSTD(1));

-- A logger that has no event names yet says them in the attribute `event.name`; and the official collector leaves them out if it
-- started while ClickHouse was away.
CREATE MATERIALIZED VIEW IF NOT EXISTS otel.feedback_events_mv TO otel.feedback AS
WITH
    LogAttributes['signalbox.decision.id'] AS decision,
    LogAttributes['gen_ai.evaluation.score.label'] AS said,
    toFloat64OrNull(LogAttributes['gen_ai.evaluation.score.value']) AS stated,
    ifNull(stated, transform(lower(said), ['pass', 'fail'], [1., 0.], nan)) AS given,
    toFloat64OrNull(LogAttributes['signalbox.evaluation.keep_probability']) AS kept
SELECT
    Timestamp AS time,
    toUUIDOrZero(if(decision = '', TraceId, decision)) AS decision_id,
    LogAttributes['gen_ai.evaluation.name'] AS name,
    given AS score,
    LogAttributes['gen_ai.evaluation.explanation'] AS comment,
    toFixedString(substring(TraceId, 1, 32), 32) AS trace_id,
    toFixedString(substring(SpanId, 1, 16), 16) AS span_id,
    LogAttributes['signalbox.tenant'] AS tenant,
    mapContains(LogAttributes, 'signalbox.tenant') AS tenant_only,
    decision = '' AS by_trace,
    toFixedString(if(decision = '', substring(SpanId, 1, 16), ''), 16) AS judged_span,
    said AS label,
    LogAttributes['signalbox.evaluation.source'] AS source,
    if(kept > 0 AND kept <= 1, assumeNotNull(kept), 1.) AS keep_probability
FROM otel.otel_logs
WHERE (EventName IN ('gen_ai.evaluation.result', '') OR LogAttributes['event.name'] = 'gen_ai.evaluation.result')
    AND LogAttributes['gen_ai.evaluation.name'] != ''
    AND isFinite(given)
    AND toUUIDOrZero(if(decision = '', TraceId, decision)) != toUUIDOrZero('');

-- The spans that judgements by trace may mean, and the decision of each: the request's own, and those of its attempts.
CREATE OR REPLACE VIEW otel.judged_spans AS
SELECT span_id, decision_id FROM otel.routing_decisions WHERE trace_id IN (SELECT trace_id FROM otel.feedback WHERE by_trace)
UNION ALL
SELECT span_id, decision_id FROM otel.routing_attempts WHERE trace_id IN (SELECT trace_id FROM otel.feedback WHERE by_trace);

-- Every judgement beside every decision that it counts for. One by trace counts for the decision whose span it names, and else
-- for all of the trace. Who reads a part of it names that part twice, as decisions and as subjects (their ids and those of their
-- traces), so that neither side of the join is read whole. Turns order them: by when they were given, then by when they arrived.
CREATE OR REPLACE VIEW otel.judgements AS
SELECT
    decision_id,
    subject,
    name,
    score,
    label,
    comment,
    source,
    keep_probability,
    time,
    toUInt128(toUnixTimestamp64Nano(time)) * 10000000000000 + toUnixTimestamp64Milli(arrived_at) AS turn
FROM (
    SELECT decision_id, decision_id AS subject, name, score, label, comment, source, keep_probability, time, arrived_at
    FROM otel.feedback FINAL
    WHERE NOT tenant_only AND NOT by_trace
    UNION ALL
    SELECT d.decision_id, d.subject, f.name, f.score, f.label, f.comment, f.source, f.keep_probability, f.time, f.arrived_at
    FROM (
        SELECT decision_id, tenant, arrayJoin([(decision_id, false), (toUUIDOrZero(toString(trace_id)), true)]) AS names,
            names.1 AS subject, names.2 AS by_trace
        FROM otel.routing_decisions
    ) AS d
    INNER JOIN (SELECT * FROM otel.feedback FINAL WHERE tenant_only OR by_trace) AS f
        ON d.subject = f.decision_id AND d.by_trace = f.by_trace
    WHERE (NOT f.tenant_only OR f.tenant = d.tenant)
        AND (NOT f.by_trace
            OR (f.judged_span, d.decision_id) IN (SELECT span_id, decision_id FROM otel.judged_spans)
            OR f.judged_span NOT IN (SELECT span_id FROM otel.judged_spans))
);

-- What stands of each name: what was given last, and of what was given at one moment that which arrived last.
CREATE OR REPLACE VIEW otel.feedback_by_decision AS
SELECT
    decision_id,
    name,
    argMax(j.score, turn) AS score,
    argMax(j.label, turn) AS label,
    argMax(j.comment, turn) AS comment,
    argMax(j.source, turn) AS source,
    argMax(j.keep_probability, turn) AS keep_probability,
    max(j.time) AS time
FROM otel.judgements AS j
GROUP BY decision_id, name;
