-- Not one of the schema's numbered steps: asked for with `signalbox migrate --text-indexes`, and kept by every later step. These
-- are the indexes that the exporter gives otel_logs on ClickHouse 26.2 and later, beside those that every version has, and
-- the same for otel_traces: rows are found by an attribute's key and value, written SpanAttributes['key'] = 'value', for
-- slower inserts and more disk. Rows that are there already are indexed when their parts are next merged.
ALTER TABLE otel.otel_traces
    ADD INDEX IF NOT EXISTS text_trace_id TraceId TYPE text(tokenizer = 'array'),
    ADD INDEX IF NOT EXISTS text_res_attr_key mapKeys(ResourceAttributes) TYPE text(tokenizer = 'array'),
    ADD INDEX IF NOT EXISTS text_res_attr_value mapValues(ResourceAttributes) TYPE text(tokenizer = 'array'),
    ADD INDEX IF NOT EXISTS text_span_attr_key mapKeys(SpanAttributes) TYPE text(tokenizer = 'array'),
    ADD INDEX IF NOT EXISTS text_span_attr_value mapValues(SpanAttributes) TYPE text(tokenizer = 'array');

ALTER TABLE otel.otel_logs
    ADD INDEX IF NOT EXISTS text_trace_id TraceId TYPE text(tokenizer = 'array'),
    ADD INDEX IF NOT EXISTS text_res_attr_key mapKeys(ResourceAttributes) TYPE text(tokenizer = 'array'),
    ADD INDEX IF NOT EXISTS text_res_attr_value mapValues(ResourceAttributes) TYPE text(tokenizer = 'array'),
    ADD INDEX IF NOT EXISTS text_scope_attr_key mapKeys(ScopeAttributes) TYPE text(tokenizer = 'array'),
    ADD INDEX IF NOT EXISTS text_scope_attr_value mapValues(ScopeAttributes) TYPE text(tokenizer = 'array'),
    ADD INDEX IF NOT EXISTS text_log_attr_key mapKeys(LogAttributes) TYPE text(tokenizer = 'array'),
    ADD INDEX IF NOT EXISTS text_log_attr_value mapValues(LogAttributes) TYPE text(tokenizer = 'array'),
    ADD INDEX IF NOT EXISTS text_lower_body lower(Body) TYPE text(tokenizer = 'splitByNonAlpha');
