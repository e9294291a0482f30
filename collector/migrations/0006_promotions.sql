-- How one policy took another's place, in three tables filled from spans: what a replay concluded, what became of a promotion,
-- and every change of the policy in force. As in 0002 the views use total functions only. Nothing here expires: these rows are few, and they
-- are the record of who decided what on which evidence.
CREATE TABLE IF NOT EXISTS otel.replay_runs (
    time DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    id String CODEC(ZSTD(1)),
    verdict LowCardinality(String),
    exit_code UInt8,
    candidate_name LowCardinality(String),
    candidate_hash String CODEC(ZSTD(1)),
    production_name LowCardinality(String),
    production_hash String CODEC(ZSTD(1)),
    rows UInt64,
    replay String CODEC(ZSTD(3)),
    trace_id FixedString(32) CODEC(ZSTD(1)),
    span_id FixedString(16) CODEC(ZSTD(1))
) ENGINE = ReplacingMergeTree(time)
ORDER BY id
SETTINGS index_granularity = 8192, non_replicated_deduplication_window = 1000;

CREATE MATERIALIZED VIEW IF NOT EXISTS otel.replay_runs_mv TO otel.replay_runs AS
WITH SpanAttributes['signalbox.replay'] AS replay_json
SELECT
    Timestamp AS time,
    SpanAttributes['signalbox.replay.id'] AS id,
    JSONExtractString(replay_json, 'verdict') AS verdict,
    toUInt8(JSONExtractUInt(replay_json, 'exit_code')) AS exit_code,
    JSONExtractString(replay_json, 'candidate', 'name') AS candidate_name,
    JSONExtractString(replay_json, 'candidate', 'hash') AS candidate_hash,
    JSONExtractString(replay_json, 'production', 'name') AS production_name,
    JSONExtractString(replay_json, 'production', 'hash') AS production_hash,
    JSONExtractUInt(replay_json, 'rows') AS rows,
    replay_json AS replay,
    toFixedString(substring(TraceId, 1, 32), 32) AS trace_id,
    toFixedString(substring(SpanId, 1, 16), 16) AS span_id
FROM otel.otel_traces
WHERE SpanName = 'signalbox.replay' AND SpanAttributes['signalbox.replay.id'] != '';

-- Every state of every promotion (read with FINAL); the one with the highest seq stands.
CREATE TABLE IF NOT EXISTS otel.promotions (
    time DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    id String CODEC(ZSTD(1)),
    seq UInt32,
    state LowCardinality(String),
    reason String CODEC(ZSTD(1)),
    candidate_name LowCardinality(String),
    candidate_hash String CODEC(ZSTD(1)),
    production_name LowCardinality(String),
    production_hash String CODEC(ZSTD(1)),
    canary_hash String CODEC(ZSTD(1)),
    share Float64,
    promotion String CODEC(ZSTD(3)),
    trace_id FixedString(32) CODEC(ZSTD(1)),
    span_id FixedString(16) CODEC(ZSTD(1))
) ENGINE = ReplacingMergeTree(time)
ORDER BY (id, seq)
SETTINGS index_granularity = 8192, non_replicated_deduplication_window = 1000;

CREATE MATERIALIZED VIEW IF NOT EXISTS otel.promotions_mv TO otel.promotions AS
WITH SpanAttributes['signalbox.promotion'] AS promotion_json
SELECT
    Timestamp AS time,
    SpanAttributes['signalbox.promotion.id'] AS id,
    toUInt32OrZero(SpanAttributes['signalbox.promotion.seq']) AS seq,
    SpanAttributes['signalbox.promotion.state'] AS state,
    JSONExtractString(promotion_json, 'reason') AS reason,
    JSONExtractString(promotion_json, 'candidate', 'name') AS candidate_name,
    JSONExtractString(promotion_json, 'candidate', 'hash') AS candidate_hash,
    JSONExtractString(promotion_json, 'production', 'name') AS production_name,
    JSONExtractString(promotion_json, 'production', 'hash') AS production_hash,
    JSONExtractString(promotion_json, 'canary', 'hash') AS canary_hash,
    JSONExtractFloat(promotion_json, 'share') AS share,
    promotion_json AS promotion,
    toFixedString(substring(TraceId, 1, 32), 32) AS trace_id,
    toFixedString(substring(SpanId, 1, 16), 16) AS span_id
FROM otel.otel_traces
WHERE SpanName = 'signalbox.promotion' AND SpanAttributes['signalbox.promotion.id'] != '';

-- Every change of the policy that a router has in force: by whom, from which hash to which, and why.
CREATE TABLE IF NOT EXISTS otel.policy_changes (
    time DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    service_name LowCardinality(String),
    kind LowCardinality(String),
    from_hash String CODEC(ZSTD(1)),
    to_hash String CODEC(ZSTD(1)),
    changed_by String CODEC(ZSTD(1)),
    reason String CODEC(ZSTD(1)),
    trace_id FixedString(32) CODEC(ZSTD(1)),
    span_id FixedString(16) CODEC(ZSTD(1))
) ENGINE = ReplacingMergeTree
ORDER BY (time, span_id)
SETTINGS index_granularity = 8192, non_replicated_deduplication_window = 1000;

CREATE MATERIALIZED VIEW IF NOT EXISTS otel.policy_changes_mv TO otel.policy_changes AS
SELECT
    Timestamp AS time,
    ServiceName AS service_name,
    SpanAttributes['signalbox.policy.change.kind'] AS kind,
    SpanAttributes['signalbox.policy.change.from'] AS from_hash,
    SpanAttributes['signalbox.policy.change.to'] AS to_hash,
    SpanAttributes['signalbox.policy.change.by'] AS changed_by,
    SpanAttributes['signalbox.policy.change.reason'] AS reason,
    toFixedString(substring(TraceId, 1, 32), 32) AS trace_id,
    toFixedString(substring(SpanId, 1, 16), 16) AS span_id
FROM otel.otel_traces
WHERE SpanName = 'signalbox.policy.change' AND SpanAttributes['signalbox.policy.change.to'] != '';
