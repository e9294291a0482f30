-- The view of 0005 with less work in it: of the five readings of a record's JSON that it took, three of them for `irregular` as
-- that column's default, two are left. Every column has the same value as before; `irregular` is computed here, from what is
-- read anyway, and its default serves rows that come from elsewhere.
ALTER TABLE otel.routing_decisions_mv MODIFY QUERY
WITH
    SpanAttributes['signalbox.decision'] AS record_json,
    -- One reading of the JSON for all columns: each further one costs as much as the first.
    JSONExtract(record_json, 'Tuple(v UInt8, id String, time String, session String, engine String, path Array(String), plan Array(String),
        policy Tuple(name String, hash String), chosen Nullable(String), reason String, explored Bool, keep_probability Nullable(Float64),
        request Tuple(model String, tier String, tenant String, user String, input_tokens Float64, output_tokens_max Nullable(Float64), stream Bool, tags Map(String, String)),
        outcome Tuple(status String, served Nullable(String), attempts Float64, http_status Float64, error_type Nullable(String), cost_usd Nullable(Float64), cost_source String,
            latency_ms Nullable(Float64), ttft_ms Nullable(Float64), input_tokens Nullable(Float64), output_tokens Nullable(Float64), tokens_source String,
            stream_end Nullable(String), quality Nullable(Float64)),
        candidates Array(Tuple(
        model String,
        eligible Bool,
        exclusion Tuple(kind String, name String, feature String, needed_tokens Float64, tokens_max Float64),
        score Nullable(Float64),
        probability Float64,
        features Tuple(provider String, breaker String, cost_usd Nullable(Float64), quality Nullable(Float64), ttft_ms Nullable(Float64), context_tokens_max Nullable(Float64),
            input_usd_per_mtok Nullable(Float64), output_usd_per_mtok Nullable(Float64), output_tokens_expected Nullable(Float64),
            tokens_per_s Nullable(Float64), latency_ms Nullable(Float64), error_rate Nullable(Float64), samples Nullable(Float64), in_flight Nullable(Float64))
    )))') AS decided,
    decided.candidates AS considered,
    -- And one for the features as they are spelled, known or not. Of a record that is none the two readings may find different numbers
    -- of candidates, which no row could hold.
    arrayResize(arrayMap(c -> JSONExtractKeysAndValuesRaw(c, 'features'), JSONExtractArrayRaw(record_json, 'candidates')), length(considered)) AS spelled
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
    decided.engine AS engine,
    decided.path AS path,
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
    decided.request.tags AS tags,
    decided.request.stream AS stream,
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
    decided.request.input_tokens AS request_input_tokens,
    decided.request.output_tokens_max AS request_output_tokens_max,
    ifNull(decided.keep_probability, 1) AS keep_probability,
    decided.plan AS plan,
    arrayMap(c -> c.exclusion.feature, considered) AS `candidates.unknown`,
    arrayMap(c -> c.features.provider, considered) AS `candidates.provider`,
    arrayMap(c -> c.features.breaker, considered) AS `candidates.breaker`,
    arrayMap(c -> c.features.context_tokens_max, considered) AS `candidates.context_tokens_max`,
    arrayMap(c -> c.features.input_usd_per_mtok, considered) AS `candidates.input_usd_per_mtok`,
    arrayMap(c -> c.features.output_usd_per_mtok, considered) AS `candidates.output_usd_per_mtok`,
    arrayMap(c -> c.features.output_tokens_expected, considered) AS `candidates.output_tokens_expected`,
    arrayMap(c -> c.features.tokens_per_s, considered) AS `candidates.tokens_per_s`,
    arrayMap(c -> c.features.latency_ms, considered) AS `candidates.latency_ms`,
    arrayMap(c -> c.features.error_rate, considered) AS `candidates.error_rate`,
    arrayMap(c -> c.features.samples, considered) AS `candidates.samples`,
    arrayMap(c -> c.features.in_flight, considered) AS `candidates.in_flight`,
    arrayMap(kvs -> if(empty(kvs), '', concat('{', arrayStringConcat(arrayMap(kv -> concat(toJSONString(kv.1), ':', kv.2), kvs), ','), '}')),
        arrayMap(kvs -> arrayFilter(kv -> kv.1 NOT IN ('context_tokens_max', 'input_usd_per_mtok', 'output_usd_per_mtok', 'output_tokens_expected', 'tokens_per_s', 'latency_ms', 'error_rate', 'samples', 'in_flight', 'provider', 'breaker', 'cost_usd', 'quality', 'ttft_ms'), kvs), spelled)) AS `candidates.extra`,
    if(
        toString((1, toString(decision_id), decision_time, 'Z', session, (policy_name, policy_hash), (requested_model, tier, tenant, user), nullIf(chosen_model, ''), reason, toBool(explored),
            (outcome, nullIf(served_model, ''), toFloat64(attempts), toFloat64(http_status), nullIf(error_type, ''), cost_usd, cost_source, latency_ms, ttft_ms,
                toFloat64(input_tokens), toFloat64(output_tokens), tokens_source, nullIf(stream_end, ''), NULL)))
        = toString((decided.v, decided.id, parseDateTime64BestEffortOrZero(decided.time, 9, 'UTC'), substring(decided.time, 24), decided.session, decided.policy,
            (decided.request.model, decided.request.tier, decided.request.tenant, decided.request.user), decided.chosen, decided.reason, decided.explored, decided.outcome))
        AND arrayAll(c -> c.exclusion.kind != 'context-window'
                OR (c.exclusion.needed_tokens = request_input_tokens + ifNull(request_output_tokens_max, 0) AND c.exclusion.tokens_max = ifNull(c.features.context_tokens_max, -1)),
            considered)
        AND arrayAll(kvs -> 14 = arrayCount(kv -> if(kv.1 IN ('provider', 'breaker'), startsWith(kv.2, '"') AND kv.2 != '""',
                kv.1 IN ('context_tokens_max', 'input_usd_per_mtok', 'output_usd_per_mtok', 'output_tokens_expected', 'tokens_per_s', 'latency_ms', 'error_rate', 'samples', 'in_flight', 'cost_usd', 'quality', 'ttft_ms')
                AND (kv.2 = 'null' OR (kv.2 >= '-' AND kv.2 < ':'))), kvs), spelled),
        NULL, record_json) AS irregular,
    record_json AS record
FROM otel.otel_traces
WHERE SpanKind IN ('Server', 'SPAN_KIND_SERVER') AND SpanAttributes['signalbox.decision.id'] != '';

-- An insert's part of these wide rows is one file, not one per column (some 250 of them, each to be made and flushed), until
-- merges have made it large.
ALTER TABLE otel.routing_decisions MODIFY SETTING min_bytes_for_wide_part = 67108864;

ALTER TABLE otel.otel_traces MODIFY SETTING min_bytes_for_wide_part = 67108864;
