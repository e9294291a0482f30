-- One typed row per call to one target, filled from the CLIENT spans; the view uses total functions only (see 0002).
CREATE TABLE IF NOT EXISTS otel.routing_attempts (
    attempt_time DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    decision_id UUID CODEC(ZSTD(1)),
    trace_id FixedString(32) CODEC(ZSTD(1)),
    span_id FixedString(16) CODEC(ZSTD(1)),
    parent_span_id FixedString(16) CODEC(ZSTD(1)),
    number UInt8,
    cause LowCardinality(String),
    model LowCardinality(String),
    upstream_model LowCardinality(String),
    provider LowCardinality(String),
    server_address LowCardinality(String),
    server_port UInt16,
    stream Bool,
    http_status UInt16 COMMENT '0: no response',
    error_type LowCardinality(String),
    duration_ms Float64 CODEC(ZSTD(1)),
    headers_ms Nullable(Float64) CODEC(ZSTD(1)),
    ttft_ms Nullable(Float64) CODEC(ZSTD(1)),
    input_tokens Nullable(UInt32) CODEC(ZSTD(1)),
    output_tokens Nullable(UInt32) CODEC(ZSTD(1)),
    cached_input_tokens Nullable(UInt32) CODEC(ZSTD(1)),
    tokens_source LowCardinality(String),
    cost_usd Nullable(Float64) CODEC(ZSTD(1)),
    cost_source LowCardinality(String),
    stream_end LowCardinality(String),
    response_model LowCardinality(String),
    response_id String CODEC(ZSTD(1)),
    finish_reasons Array(LowCardinality(String)) CODEC(ZSTD(1)),
    ingested_at DateTime64(3) DEFAULT now64(3) CODEC(Delta(8), ZSTD(1)),
    INDEX idx_trace_id trace_id TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX idx_decision_id decision_id TYPE bloom_filter(0.001) GRANULARITY 1
) ENGINE = ReplacingMergeTree(ingested_at)
PARTITION BY toDate(attempt_time)
PRIMARY KEY (toStartOfFiveMinutes(attempt_time), model)
ORDER BY (toStartOfFiveMinutes(attempt_time), model, attempt_time, span_id)
TTL toDate(attempt_time) + INTERVAL 90 DAY
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;

CREATE MATERIALIZED VIEW IF NOT EXISTS otel.routing_attempts_mv TO otel.routing_attempts AS
SELECT
    Timestamp AS attempt_time,
    toUUIDOrZero(SpanAttributes['signalbox.decision.id']) AS decision_id,
    toFixedString(substring(TraceId, 1, 32), 32) AS trace_id,
    toFixedString(substring(SpanId, 1, 16), 16) AS span_id,
    toFixedString(substring(ParentSpanId, 1, 16), 16) AS parent_span_id,
    toUInt8OrZero(SpanAttributes['signalbox.attempt.number']) AS number,
    SpanAttributes['signalbox.attempt.cause'] AS cause,
    SpanAttributes['signalbox.attempt.model'] AS model,
    SpanAttributes['gen_ai.request.model'] AS upstream_model,
    SpanAttributes['gen_ai.provider.name'] AS provider,
    SpanAttributes['server.address'] AS server_address,
    toUInt16OrZero(SpanAttributes['server.port']) AS server_port,
    SpanAttributes['gen_ai.request.stream'] = 'true' AS stream,
    toUInt16OrZero(SpanAttributes['http.response.status_code']) AS http_status,
    SpanAttributes['error.type'] AS error_type,
    toFloat64OrZero(SpanAttributes['signalbox.attempt.duration_ms']) AS duration_ms,
    toFloat64OrNull(SpanAttributes['signalbox.attempt.headers_ms']) AS headers_ms,
    toFloat64OrNull(SpanAttributes['signalbox.attempt.ttft_ms']) AS ttft_ms,
    toUInt32OrNull(SpanAttributes['gen_ai.usage.input_tokens']) AS input_tokens,
    toUInt32OrNull(SpanAttributes['gen_ai.usage.output_tokens']) AS output_tokens,
    toUInt32OrNull(SpanAttributes['gen_ai.usage.cache_read.input_tokens']) AS cached_input_tokens,
    SpanAttributes['signalbox.tokens.source'] AS tokens_source,
    toFloat64OrNull(SpanAttributes['signalbox.cost.usd']) AS cost_usd,
    SpanAttributes['signalbox.cost.source'] AS cost_source,
    SpanAttributes['signalbox.stream.end'] AS stream_end,
    SpanAttributes['gen_ai.response.model'] AS response_model,
    SpanAttributes['gen_ai.response.id'] AS response_id,
    JSONExtract(SpanAttributes['gen_ai.response.finish_reasons'], 'Array(String)') AS finish_reasons
FROM otel.otel_traces
WHERE SpanKind IN ('Client', 'SPAN_KIND_CLIENT') AND SpanAttributes['signalbox.attempt.number'] != '';
