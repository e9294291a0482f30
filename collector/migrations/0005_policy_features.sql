-- What replay and SQL need without parsing the record: the features a policy may look at, as columns beside the others, and
-- what a decision consists of besides. Features that only signalbox.yaml knows stand in `candidates.extra` as JSON. Rows
-- written before this step read the same: their defaults are computed from the record.
-- `irregular` is NULL where the columns say all of the record to the bit, as they do for what the router writes; elsewhere it
-- is the record itself ('' where there is none), so that nobody who reads columns has to open the record to be sure.
ALTER TABLE otel.routing_decisions
    ADD COLUMN IF NOT EXISTS request_input_tokens Float64 DEFAULT JSONExtractFloat(record, 'request', 'input_tokens') CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS request_output_tokens_max Nullable(Float64) DEFAULT JSONExtract(record, 'request', 'output_tokens_max', 'Nullable(Float64)') CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS keep_probability Float64 DEFAULT if(JSONHas(record, 'keep_probability'), JSONExtractFloat(record, 'keep_probability'), 1) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS plan Array(LowCardinality(String)) DEFAULT JSONExtract(record, 'plan', 'Array(String)') CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS `candidates.unknown` Array(LowCardinality(String)) DEFAULT arrayMap(c -> c.exclusion.feature, JSONExtract(record, 'candidates', 'Array(Tuple(exclusion Tuple(feature String)))')) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS `candidates.provider` Array(LowCardinality(String)) DEFAULT arrayMap(c -> c.features.provider, JSONExtract(record, 'candidates', 'Array(Tuple(features Tuple(provider String)))')) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS `candidates.breaker` Array(LowCardinality(String)) DEFAULT arrayMap(c -> c.features.breaker, JSONExtract(record, 'candidates', 'Array(Tuple(features Tuple(breaker String)))')) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS `candidates.context_tokens_max` Array(Nullable(Float64)) DEFAULT arrayMap(c -> c.features.context_tokens_max, JSONExtract(record, 'candidates', 'Array(Tuple(features Tuple(context_tokens_max Nullable(Float64))))')) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS `candidates.input_usd_per_mtok` Array(Nullable(Float64)) DEFAULT arrayMap(c -> c.features.input_usd_per_mtok, JSONExtract(record, 'candidates', 'Array(Tuple(features Tuple(input_usd_per_mtok Nullable(Float64))))')) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS `candidates.output_usd_per_mtok` Array(Nullable(Float64)) DEFAULT arrayMap(c -> c.features.output_usd_per_mtok, JSONExtract(record, 'candidates', 'Array(Tuple(features Tuple(output_usd_per_mtok Nullable(Float64))))')) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS `candidates.output_tokens_expected` Array(Nullable(Float64)) DEFAULT arrayMap(c -> c.features.output_tokens_expected, JSONExtract(record, 'candidates', 'Array(Tuple(features Tuple(output_tokens_expected Nullable(Float64))))')) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS `candidates.tokens_per_s` Array(Nullable(Float64)) DEFAULT arrayMap(c -> c.features.tokens_per_s, JSONExtract(record, 'candidates', 'Array(Tuple(features Tuple(tokens_per_s Nullable(Float64))))')) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS `candidates.latency_ms` Array(Nullable(Float64)) DEFAULT arrayMap(c -> c.features.latency_ms, JSONExtract(record, 'candidates', 'Array(Tuple(features Tuple(latency_ms Nullable(Float64))))')) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS `candidates.error_rate` Array(Nullable(Float64)) DEFAULT arrayMap(c -> c.features.error_rate, JSONExtract(record, 'candidates', 'Array(Tuple(features Tuple(error_rate Nullable(Float64))))')) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS `candidates.samples` Array(Nullable(Float64)) DEFAULT arrayMap(c -> c.features.samples, JSONExtract(record, 'candidates', 'Array(Tuple(features Tuple(samples Nullable(Float64))))')) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS `candidates.in_flight` Array(Nullable(Float64)) DEFAULT arrayMap(c -> c.features.in_flight, JSONExtract(record, 'candidates', 'Array(Tuple(features Tuple(in_flight Nullable(Float64))))')) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS `candidates.extra` Array(String) DEFAULT arrayMap(kvs -> if(empty(kvs), '', concat('{', arrayStringConcat(arrayMap(kv -> concat(toJSONString(kv.1), ':', kv.2), kvs), ','), '}')),
        arrayMap(c -> arrayFilter(kv -> kv.1 NOT IN ('context_tokens_max', 'input_usd_per_mtok', 'output_usd_per_mtok', 'output_tokens_expected', 'tokens_per_s', 'latency_ms', 'error_rate', 'samples', 'in_flight', 'provider', 'breaker', 'cost_usd', 'quality', 'ttft_ms'), JSONExtractKeysAndValuesRaw(c, 'features')), JSONExtractArrayRaw(record, 'candidates'))) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS irregular Nullable(String) DEFAULT if(
        toString((1, toString(decision_id), decision_time, 'Z', session, (policy_name, policy_hash), (requested_model, tier, tenant, user), nullIf(chosen_model, ''), reason, explored,
            (outcome, nullIf(served_model, ''), toFloat64(attempts), toFloat64(http_status), nullIf(error_type, ''), cost_usd, cost_source, latency_ms, ttft_ms,
                toFloat64(input_tokens), toFloat64(output_tokens), tokens_source, nullIf(stream_end, ''), NULL)))
        = toString(arrayMap(r -> (r.v, r.id, parseDateTime64BestEffortOrZero(r.time, 9, 'UTC'), substring(r.time, 24), r.session, r.policy, r.request, r.chosen, r.reason, r.explored, r.outcome),
            [JSONExtract(record, 'Tuple(v UInt8, id String, time String, session String, policy Tuple(name String, hash String),
                request Tuple(model String, tier String, tenant String, user String), chosen Nullable(String), reason String, explored Bool,
                outcome Tuple(status String, served Nullable(String), attempts Float64, http_status Float64, error_type Nullable(String), cost_usd Nullable(Float64), cost_source String,
                    latency_ms Nullable(Float64), ttft_ms Nullable(Float64), input_tokens Nullable(Float64), output_tokens Nullable(Float64), tokens_source String,
                    stream_end Nullable(String), quality Nullable(Float64)))')])[1])
        AND arrayAll(c -> c.exclusion.kind != 'context-window'
                OR (c.exclusion.needed_tokens = request_input_tokens + ifNull(request_output_tokens_max, 0) AND c.exclusion.tokens_max = ifNull(c.features.context_tokens_max, -1)),
            JSONExtract(record, 'candidates', 'Array(Tuple(exclusion Tuple(kind String, needed_tokens Float64, tokens_max Float64), features Tuple(context_tokens_max Nullable(Float64))))'))
        AND arrayAll(c -> 14 = arrayCount(kv -> if(kv.1 IN ('provider', 'breaker'), startsWith(kv.2, '"') AND kv.2 != '""',
                kv.1 IN ('context_tokens_max', 'input_usd_per_mtok', 'output_usd_per_mtok', 'output_tokens_expected', 'tokens_per_s', 'latency_ms', 'error_rate', 'samples', 'in_flight', 'cost_usd', 'quality', 'ttft_ms')
                AND (kv.2 = 'null' OR (kv.2 >= '-' AND kv.2 < ':'))), JSONExtractKeysAndValuesRaw(c, 'features')), JSONExtractArrayRaw(record, 'candidates')),
        NULL, record) CODEC(ZSTD(3));

ALTER TABLE otel.routing_decisions_mv MODIFY QUERY
WITH
    SpanAttributes['signalbox.decision'] AS record_json,
    -- One reading of the JSON for all columns: each further one costs as much as the first.
    JSONExtract(record_json, 'Tuple(engine String, path Array(String), plan Array(String), keep_probability Nullable(Float64),
        request Tuple(input_tokens Float64, output_tokens_max Nullable(Float64), stream Bool, tags Map(String, String)),
        candidates Array(Tuple(
        model String,
        eligible Bool,
        exclusion Tuple(kind String, name String, feature String),
        score Nullable(Float64),
        probability Float64,
        features Tuple(provider String, breaker String, cost_usd Nullable(Float64), quality Nullable(Float64), ttft_ms Nullable(Float64), context_tokens_max Nullable(Float64),
            input_usd_per_mtok Nullable(Float64), output_usd_per_mtok Nullable(Float64), output_tokens_expected Nullable(Float64),
            tokens_per_s Nullable(Float64), latency_ms Nullable(Float64), error_rate Nullable(Float64), samples Nullable(Float64), in_flight Nullable(Float64))
    )))') AS decided,
    decided.candidates AS considered
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
        arrayMap(c -> arrayFilter(kv -> kv.1 NOT IN ('context_tokens_max', 'input_usd_per_mtok', 'output_usd_per_mtok', 'output_tokens_expected', 'tokens_per_s', 'latency_ms', 'error_rate', 'samples', 'in_flight', 'provider', 'breaker', 'cost_usd', 'quality', 'ttft_ms'), JSONExtractKeysAndValuesRaw(c, 'features')), JSONExtractArrayRaw(record_json, 'candidates'))) AS `candidates.extra`,
    record_json AS record
FROM otel.otel_traces
WHERE SpanKind IN ('Server', 'SPAN_KIND_SERVER') AND SpanAttributes['signalbox.decision.id'] != '';
