-- What clients asked and were answered, where capturing is on: one row per payload, redacted, compressed and perhaps encrypted by
-- the router. Content comes through a table that keeps nothing, so it never rests among the logs, and has a time to live of its own.
-- What was erased stays erased: an erasure is a row that the view consults, so that what a router's spool delivers later is let
-- fall. As in 0002 the view uses total functions only.
CREATE TABLE IF NOT EXISTS otel.payload_events AS otel.otel_logs ENGINE = Null;

CREATE TABLE IF NOT EXISTS otel.captured_payloads (
    captured_at DateTime64(3) CODEC(Delta(8), ZSTD(1)),
    decision_id UUID,
    trace_id FixedString(32) CODEC(ZSTD(1)),
    tenant LowCardinality(String),
    kind Enum8('request' = 1, 'response' = 2),
    attempt UInt8,
    keep_probability Float64 CODEC(ZSTD(1)),
    content_type LowCardinality(String),
    redaction LowCardinality(String),
    sha256 FixedString(32) CODEC(NONE),
    bytes UInt32 CODEC(T64, ZSTD(1)),
    encoding LowCardinality(String),
    key_id LowCardinality(String),
    nonce FixedString(12) CODEC(NONE),
    body String CODEC(NONE),
    expires_at DateTime,
    INDEX idx_decision_id decision_id TYPE bloom_filter(0.001) GRANULARITY 1
) ENGINE = ReplacingMergeTree
PARTITION BY toDate(captured_at)
ORDER BY (decision_id, kind, attempt)
TTL expires_at DELETE
SETTINGS index_granularity = 8192, index_granularity_bytes = 67108864, non_replicated_deduplication_window = 1000;

-- One row per erasure: a decision, for ever, or a tenant, up to a moment. It says that something was erased, never what.
CREATE TABLE IF NOT EXISTS otel.payload_erasures (
    erased_at DateTime64(3) DEFAULT now64(3),
    scope Enum8('decision' = 1, 'tenant' = 2),
    decision_id UUID,
    tenant String,
    up_to DateTime64(3),
    payloads UInt64,
    reason String
) ENGINE = MergeTree
ORDER BY (scope, tenant, decision_id, up_to)
SETTINGS index_granularity = 8192, non_replicated_deduplication_window = 1000;

CREATE MATERIALIZED VIEW IF NOT EXISTS otel.captured_payloads_mv TO otel.captured_payloads AS
SELECT
    toDateTime64(Timestamp, 3) AS captured_at,
    toUUIDOrZero(LogAttributes['signalbox.decision.id']) AS decision_id,
    toFixedString(substring(TraceId, 1, 32), 32) AS trace_id,
    LogAttributes['signalbox.tenant'] AS tenant,
    CAST(if(LogAttributes['signalbox.payload.kind'] = 'request', 1, 2), 'Enum8(\'request\' = 1, \'response\' = 2)') AS kind,
    toUInt8OrZero(LogAttributes['signalbox.payload.attempt']) AS attempt,
    toFloat64OrZero(LogAttributes['signalbox.capture.keep_probability']) AS keep_probability,
    LogAttributes['signalbox.payload.content_type'] AS content_type,
    LogAttributes['signalbox.payload.redaction'] AS redaction,
    toFixedString(substring(unhex(LogAttributes['signalbox.payload.sha256']), 1, 32), 32) AS sha256,
    toUInt32OrZero(LogAttributes['signalbox.payload.bytes']) AS bytes,
    LogAttributes['signalbox.payload.encoding'] AS encoding,
    LogAttributes['signalbox.payload.key_id'] AS key_id,
    toFixedString(substring(tryBase64Decode(LogAttributes['signalbox.payload.nonce']), 1, 12), 12) AS nonce,
    tryBase64Decode(Body) AS body,
    toDateTime(parseDateTime64BestEffortOrZero(LogAttributes['signalbox.payload.expires_at'], 3, 'UTC')) AS expires_at
FROM otel.payload_events
WHERE EventName IN ('gen_ai.client.inference.operation.details', '')
    AND LogAttributes['signalbox.payload.kind'] IN ('request', 'response')
    AND toUUIDOrZero(LogAttributes['signalbox.decision.id']) != toUUIDOrZero('')
    AND toUUIDOrZero(LogAttributes['signalbox.decision.id']) NOT IN (
        SELECT decision_id FROM otel.payload_erasures WHERE scope = 'decision'
    )
    AND NOT arrayExists(
        erased -> erased.1 = LogAttributes['signalbox.tenant'] AND toDateTime64(Timestamp, 3) <= erased.2,
        (SELECT groupArray((tenant, up_to)) FROM otel.payload_erasures WHERE scope = 'tenant')
    );

-- What may be read: newest version of each, neither expired nor erased. A payload that was being stored while it was erased is
-- hidden here until the next erasure or its time to live removes it.
CREATE OR REPLACE VIEW otel.payloads AS
SELECT * FROM otel.captured_payloads FINAL
WHERE expires_at > now()
    AND decision_id NOT IN (SELECT decision_id FROM otel.payload_erasures WHERE scope = 'decision')
    AND NOT arrayExists(
        erased -> erased.1 = tenant AND captured_at <= erased.2,
        (SELECT groupArray((tenant, up_to)) FROM otel.payload_erasures WHERE scope = 'tenant')
    );
