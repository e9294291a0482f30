-- One typed row per routing decision, filled from the SERVER spans. The view may not throw: an error in it would fail an
-- insert whose spans are already stored. So it uses total functions only; what cannot be read becomes '', 0 or NULL.
-- Flat attributes give the plain columns, the record's JSON gives what has structure.
-- Rows are replaced by (…, span_id): read with FINAL or LIMIT 1 BY span_id where the count must be exact.
CREATE TABLE IF NOT EXISTS otel.routing_decisions (
    decision_time DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    decision_id UUID CODEC(ZSTD(1)),
    trace_id FixedString(32) CODEC(ZSTD(1)),
    span_id FixedString(16) CODEC(ZSTD(1)),
    service_name LowCardinality(String),
    epoch String CODEC(ZSTD(1)),
    seq UInt64 CODEC(Delta(8), ZSTD(1)),
    policy_name LowCardinality(String),
    policy_hash LowCardinality(String),
    engine LowCardinality(String),
    path Array(LowCardinality(String)) CODEC(ZSTD(1)),
    requested_model LowCardinality(String),
    chosen_model LowCardinality(String),
    served_model LowCardinality(String),
    reason LowCardinality(String),
    probability Float64 CODEC(ZSTD(1)),
    explored Bool,
    tenant LowCardinality(String),
    tier LowCardinality(String),
    session String CODEC(ZSTD(1)),
    user String CODEC(ZSTD(1)),
    tags Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    stream Bool,
    outcome LowCardinality(String),
    stream_end LowCardinality(String),
    http_status UInt16,
    error_type LowCardinality(String),
    attempts UInt8,
    fell_back Bool,
    input_tokens Nullable(UInt32) CODEC(ZSTD(1)),
    output_tokens Nullable(UInt32) CODEC(ZSTD(1)),
    tokens_source LowCardinality(String),
    cost_usd Nullable(Float64) CODEC(ZSTD(1)),
    cost_source LowCardinality(String),
    latency_ms Nullable(Float64) CODEC(ZSTD(1)),
    ttft_ms Nullable(Float64) CODEC(ZSTD(1)),
    overhead_ms Float64 CODEC(ZSTD(1)),
    phases Map(LowCardinality(String), Float64) CODEC(ZSTD(1)),
    candidates Nested (
        model LowCardinality(String),
        eligible Bool,
        exclusion LowCardinality(String),
        score Nullable(Float64),
        probability Float64,
        cost_usd Nullable(Float64),
        quality Nullable(Float64),
        ttft_ms Nullable(Float64)
    ) CODEC(ZSTD(1)),
    record String CODEC(ZSTD(3)),
    ingested_at DateTime64(3) DEFAULT now64(3) CODEC(Delta(8), ZSTD(1)),
    INDEX idx_trace_id trace_id TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX idx_decision_id decision_id TYPE bloom_filter(0.001) GRANULARITY 1
) ENGINE = ReplacingMergeTree(ingested_at)
PARTITION BY toDate(decision_time)
PRIMARY KEY (toStartOfFiveMinutes(decision_time), policy_name, chosen_model)
ORDER BY (toStartOfFiveMinutes(decision_time), policy_name, chosen_model, decision_time, span_id)
TTL toDate(decision_time) + INTERVAL 90 DAY
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;

CREATE MATERIALIZED VIEW IF NOT EXISTS otel.routing_decisions_mv TO otel.routing_decisions AS
WITH
    SpanAttributes['signalbox.decision'] AS record_json,
    JSONExtract(record_json, 'candidates', 'Array(Tuple(
        model String,
        eligible Bool,
        exclusion Tuple(kind String, name String),
        score Nullable(Float64),
        probability Float64,
        features Tuple(cost_usd Nullable(Float64), quality Nullable(Float64), ttft_ms Nullable(Float64))
    ))') AS considered
SELECT
    Timestamp AS decision_time,
    toUUIDOrZero(SpanAttributes['signalbox.decision.id']) AS decision_id,
    toFixedString(substring(TraceId, 1, 32), 32) AS trace_id,
    toFixedString(substring(SpanId, 1, 16), 16) AS span_id,
    ServiceName AS service_name,
    SpanAttributes['signalbox.epoch'] AS epoch,
    toUInt64OrZero(SpanAttributes['signalbox.seq']) AS seq,
    SpanAttributes['signalbox.policy.name'] AS policy_name,
    SpanAttributes['signalbox.policy.hash'] AS policy_hash,
    JSONExtractString(record_json, 'engine') AS engine,
    JSONExtract(record_json, 'path', 'Array(String)') AS path,
    SpanAttributes['signalbox.model.requested'] AS requested_model,
    SpanAttributes['signalbox.model.chosen'] AS chosen_model,
    SpanAttributes['signalbox.model.served'] AS served_model,
    SpanAttributes['signalbox.reason'] AS reason,
    toFloat64OrZero(SpanAttributes['signalbox.probability']) AS probability,
    SpanAttributes['signalbox.explored'] = 'true' AS explored,
    SpanAttributes['signalbox.tenant'] AS tenant,
    SpanAttributes['signalbox.tier'] AS tier,
    SpanAttributes['signalbox.session'] AS session,
    SpanAttributes['signalbox.user'] AS user,
    JSONExtract(record_json, 'request', 'tags', 'Map(String, String)') AS tags,
    JSONExtractBool(record_json, 'request', 'stream') AS stream,
    SpanAttributes['signalbox.outcome'] AS outcome,
    SpanAttributes['signalbox.stream.end'] AS stream_end,
    toUInt16OrZero(SpanAttributes['http.response.status_code']) AS http_status,
    SpanAttributes['error.type'] AS error_type,
    toUInt8OrZero(SpanAttributes['signalbox.attempts']) AS attempts,
    SpanAttributes['signalbox.fell_back'] = 'true' AS fell_back,
    toUInt32OrNull(SpanAttributes['gen_ai.usage.input_tokens']) AS input_tokens,
    toUInt32OrNull(SpanAttributes['gen_ai.usage.output_tokens']) AS output_tokens,
    SpanAttributes['signalbox.tokens.source'] AS tokens_source,
    toFloat64OrNull(SpanAttributes['signalbox.cost.usd']) AS cost_usd,
    SpanAttributes['signalbox.cost.source'] AS cost_source,
    toFloat64OrNull(SpanAttributes['signalbox.latency_ms']) AS latency_ms,
    toFloat64OrNull(SpanAttributes['signalbox.ttft_ms']) AS ttft_ms,
    toFloat64OrZero(SpanAttributes['signalbox.overhead_ms']) AS overhead_ms,
    mapApply(
        (name, ms) -> (replaceRegexpOne(name, '^signalbox\\.phase\\.(.*)_ms$', '\\1'), toFloat64OrZero(ms)),
        mapFilter((name, ms) -> match(name, '^signalbox\\.phase\\.[a-z_]+_ms$'), SpanAttributes)
    ) AS phases,
    arrayMap(c -> c.model, considered) AS `candidates.model`,
    arrayMap(c -> c.eligible, considered) AS `candidates.eligible`,
    arrayMap(c -> if(c.exclusion.kind = 'rule', concat('rule:', c.exclusion.name), c.exclusion.kind), considered) AS `candidates.exclusion`,
    arrayMap(c -> c.score, considered) AS `candidates.score`,
    arrayMap(c -> c.probability, considered) AS `candidates.probability`,
    arrayMap(c -> c.features.cost_usd, considered) AS `candidates.cost_usd`,
    arrayMap(c -> c.features.quality, considered) AS `candidates.quality`,
    arrayMap(c -> c.features.ttft_ms, considered) AS `candidates.ttft_ms`,
    record_json AS record
FROM otel.otel_traces
WHERE SpanKind IN ('Server', 'SPAN_KIND_SERVER') AND SpanAttributes['signalbox.decision.id'] != '';
