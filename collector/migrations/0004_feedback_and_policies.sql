-- Judgements of answers, joined to decisions when they are read: the last one given under a name stands (read with FINAL).
-- A score that is not a number is no judgement, so it makes no row; as a span it is kept like any other.
CREATE TABLE IF NOT EXISTS otel.feedback (
    time DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    decision_id UUID CODEC(ZSTD(1)),
    name LowCardinality(String),
    score Float64 CODEC(ZSTD(1)),
    comment String CODEC(ZSTD(1)),
    trace_id FixedString(32) CODEC(ZSTD(1)),
    span_id FixedString(16) CODEC(ZSTD(1))
) ENGINE = ReplacingMergeTree(time)
ORDER BY (decision_id, name)
TTL toDate(time) + INTERVAL 90 DAY
SETTINGS index_granularity = 8192, non_replicated_deduplication_window = 1000;

CREATE MATERIALIZED VIEW IF NOT EXISTS otel.feedback_mv TO otel.feedback AS
SELECT
    Timestamp AS time,
    toUUIDOrZero(SpanAttributes['signalbox.decision.id']) AS decision_id,
    SpanAttributes['gen_ai.evaluation.name'] AS name,
    toFloat64OrZero(SpanAttributes['gen_ai.evaluation.score.value']) AS score,
    SpanAttributes['gen_ai.evaluation.explanation'] AS comment,
    toFixedString(substring(TraceId, 1, 32), 32) AS trace_id,
    toFixedString(substring(SpanId, 1, 16), 16) AS span_id
FROM otel.otel_traces
WHERE SpanName = 'gen_ai.evaluation.result'
    AND SpanAttributes['signalbox.decision.id'] != ''
    AND isFinite(toFloat64OrNull(SpanAttributes['gen_ai.evaluation.score.value']));

-- Every version of every policy that was ever in force, by the hash of its content (read with FINAL).
CREATE TABLE IF NOT EXISTS otel.policies (
    hash String CODEC(ZSTD(1)),
    name SimpleAggregateFunction(anyLast, String) CODEC(ZSTD(1)),
    engine SimpleAggregateFunction(anyLast, String) CODEC(ZSTD(1)),
    source SimpleAggregateFunction(anyLast, String) CODEC(ZSTD(3)),
    first_seen SimpleAggregateFunction(min, DateTime64(9)) CODEC(ZSTD(1))
) ENGINE = AggregatingMergeTree
ORDER BY hash
SETTINGS index_granularity = 8192, non_replicated_deduplication_window = 1000;

CREATE MATERIALIZED VIEW IF NOT EXISTS otel.policies_mv TO otel.policies AS
SELECT
    SpanAttributes['signalbox.policy.hash'] AS hash,
    SpanAttributes['signalbox.policy.name'] AS name,
    SpanAttributes['signalbox.policy.engine'] AS engine,
    SpanAttributes['signalbox.policy.source'] AS source,
    Timestamp AS first_seen
FROM otel.otel_traces
WHERE SpanName = 'signalbox.policy' AND SpanAttributes['signalbox.policy.hash'] != '';
