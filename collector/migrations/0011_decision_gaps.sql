-- Whether anything is missing. A router numbers its decisions from 1 in each of its runs (an epoch) and says now and then, in log
-- events, how many it has made: a number that is not there is a gap, and a report above the last number is a loss at the end, which no
-- gap would show. Both views look at whole epochs, those that decided or reported between two times:
-- SELECT * FROM otel.decision_gaps(from_time = '2026-11-01 00:00:00', to_time = '2026-11-02 00:00:00')
CREATE TABLE IF NOT EXISTS otel.router_epochs (
    epoch String CODEC(ZSTD(1)),
    service_name SimpleAggregateFunction(anyLast, String) CODEC(ZSTD(1)),
    reported_at SimpleAggregateFunction(max, DateTime64(9)) CODEC(ZSTD(1)),
    decisions SimpleAggregateFunction(max, UInt64) CODEC(ZSTD(1)),
    spans_dropped SimpleAggregateFunction(max, UInt64) CODEC(ZSTD(1)),
    spans_refused SimpleAggregateFunction(max, UInt64) CODEC(ZSTD(1)),
    ended SimpleAggregateFunction(max, UInt8) CODEC(ZSTD(1))
) ENGINE = AggregatingMergeTree
ORDER BY epoch
TTL toDate(reported_at) + INTERVAL 90 DAY
SETTINGS index_granularity = 8192, non_replicated_deduplication_window = 1000;

CREATE MATERIALIZED VIEW IF NOT EXISTS otel.router_epochs_mv TO otel.router_epochs AS
SELECT
    LogAttributes['signalbox.epoch'] AS epoch,
    ServiceName AS service_name,
    Timestamp AS reported_at,
    toUInt64OrZero(LogAttributes['signalbox.epoch.decisions']) AS decisions,
    toUInt64OrZero(LogAttributes['signalbox.epoch.spans_dropped']) AS spans_dropped,
    toUInt64OrZero(LogAttributes['signalbox.epoch.spans_refused']) AS spans_refused,
    toUInt8(LogAttributes['signalbox.epoch.ended'] = 'true') AS ended
FROM otel.otel_logs
WHERE EventName IN ('signalbox.epoch', '')
    AND LogAttributes['signalbox.epoch'] != '' AND mapContains(LogAttributes, 'signalbox.epoch.decisions');

-- One row per epoch. `answered` is how many decisions the router has made, as far as anything here says. Days are dropped whole when
-- their time to live is over, so an epoch that began before the oldest day kept may have lost its beginning to age: that is not missing.
CREATE OR REPLACE VIEW otel.decision_epochs AS
WITH
    (SELECT min(toDate(decision_time)) FROM otel.routing_decisions) AS oldest_day,
    chosen AS (
        SELECT epoch FROM otel.routing_decisions
        WHERE decision_time >= {from_time:DateTime64(9)} AND decision_time <= {to_time:DateTime64(9)} AND epoch != ''
        UNION DISTINCT
        SELECT epoch FROM otel.router_epochs
        WHERE reported_at >= {from_time:DateTime64(9)} AND reported_at <= {to_time:DateTime64(9)} AND toDate(reported_at) >= oldest_day
    )
SELECT
    if(stored.epoch != '', stored.epoch, reports.epoch) AS epoch,
    if(stored.epoch != '', stored.service, reports.service) AS service_name,
    UUIDv7ToDateTime(toUUIDOrZero(epoch), 'UTC') AS started_at,
    greatest(stored.last_time, reports.last_time) AS last_seen_at,
    stored.first_seq AS first_seq,
    stored.last_seq AS last_seq,
    stored.last_time AS last_decision_at,
    stored.decisions AS decisions,
    stored.row_count AS stored_rows,
    stored.late AS late,
    reports.decisions AS reported,
    reports.last_time AS reported_at,
    reports.ended = 1 AS ended,
    reports.spans_dropped AS spans_dropped,
    reports.spans_refused AS spans_refused,
    toDate(started_at) < oldest_day AND first_seq > 1 AS began_expired,
    greatest(stored.last_seq, reports.decisions) AS answered,
    toUInt64(answered - if(began_expired, first_seq - 1, 0) - stored.decisions) AS missing
FROM (
    SELECT
        epoch,
        any(service_name) AS service,
        min(seq) AS first_seq,
        max(seq) AS last_seq,
        groupBitmap(seq) AS decisions,
        count() AS row_count,
        max(decision_time) AS last_time,
        countIf(ingested_at > decision_time + toIntervalMillisecond(toUInt64(ifNull(latency_ms, 0))) + INTERVAL 1 MINUTE) AS late
    FROM otel.routing_decisions
    WHERE seq > 0 AND epoch GLOBAL IN (chosen)
    GROUP BY epoch
) AS stored
FULL OUTER JOIN (
    SELECT
        epoch,
        anyLast(r.service_name) AS service,
        max(r.reported_at) AS last_time,
        max(r.decisions) AS decisions,
        max(r.spans_dropped) AS spans_dropped,
        max(r.spans_refused) AS spans_refused,
        max(r.ended) AS ended
    FROM otel.router_epochs AS r
    WHERE epoch GLOBAL IN (chosen)
    GROUP BY epoch
) AS reports ON stored.epoch = reports.epoch;

-- One row for each stretch of numbers that is not as it should be, of kind `gap` (nothing is stored of it), `end` (the router reported
-- more than what is stored; it may be on its way while the router runs), `duplicate` (there more than once) or `repeated` (stored more
-- than once and told apart by nothing: one remains with FINAL). It happened between `since` and `until`, to within a few hundred decisions.
CREATE OR REPLACE VIEW otel.decision_gaps AS
WITH
    judged AS (
        SELECT * FROM otel.decision_epochs(from_time = {from_time:DateTime64(9)}, to_time = {to_time:DateTime64(9)})
    ),
    runs AS (
        SELECT epoch, run.1 AS seq_from, run.2 AS seq_to, began_at, ended_at
        FROM (
            SELECT
                epoch,
                min(decision_time) AS began_at,
                max(decision_time) AS ended_at,
                arraySort(bitmapToArray(groupBitmapState(seq))) AS numbers,
                arrayDifference(numbers) AS steps,
                arrayFilter((number, step) -> step != 1, numbers, steps) AS firsts,
                arrayFilter((number, step) -> step != 1, numbers, arrayPushBack(arrayPopFront(steps), 0)) AS lasts
            FROM otel.routing_decisions
            WHERE seq > 0 AND epoch GLOBAL IN (SELECT epoch FROM judged WHERE missing > 0)
            GROUP BY epoch, intDiv(seq, 256)
        )
        ARRAY JOIN arrayZip(firsts, lasts) AS run
    )
SELECT 'gap' AS kind, epoch, judged.service_name AS service_name, seq_from, seq_to, decisions, if(seq_from = 1, judged.started_at, since) AS since, until
FROM (
    SELECT
        epoch,
        lagInFrame(runs.seq_to, 1, 0) OVER neighbours + 1 AS seq_from,
        runs.seq_from - 1 AS seq_to,
        toUInt64(seq_to + 1 - seq_from) AS decisions,
        lagInFrame(runs.began_at) OVER neighbours AS since,
        runs.ended_at AS until
    FROM runs
    WINDOW neighbours AS (PARTITION BY epoch ORDER BY runs.seq_from ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)
) AS found
INNER JOIN judged ON found.epoch = judged.epoch
WHERE seq_to >= seq_from AND NOT (seq_from = 1 AND judged.began_expired)
UNION ALL
SELECT 'end', epoch, service_name, last_seq + 1, reported, reported - last_seq, greatest(last_decision_at, started_at), reported_at
FROM judged WHERE reported > last_seq
UNION ALL
SELECT kind, epoch, any(service), min(number), max(number), count(), min(first_time), max(last_time)
FROM (
    SELECT
        epoch,
        seq AS number,
        any(service_name) AS service,
        min(decision_time) AS first_time,
        max(decision_time) AS last_time,
        if(uniqExact(decision_time, span_id, policy_name, chosen_model) = 1, 'repeated', 'duplicate') AS kind
    FROM otel.routing_decisions
    WHERE seq > 0 AND epoch GLOBAL IN (SELECT epoch FROM judged WHERE stored_rows > decisions)
    GROUP BY epoch, seq
    HAVING count() > 1
)
GROUP BY kind, epoch, intDiv(number, 256);
