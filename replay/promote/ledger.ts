// Where promotions are kept: written as spans to the collector, which answers when they are stored, and read back from
// ClickHouse, where a canary's decisions are summed as well, so that what travels does not grow with the traffic.
import { randomBytes } from 'node:crypto'
import { type ClickHouseClient, ClickHouseLogLevel, createClient } from '@clickhouse/client'
import type { z } from 'zod'
import type { Attributes } from '../../router/policy/attributes.ts'
import { promotionSpans } from '../../router/policy/promotion.ts'
import { type DecisionRecord, outcomeStatuses } from '../../router/policy/record.ts'
import { issueText } from '../../router/policy/yaml.ts'
import { metrics } from '../estimate/metrics.ts'
import { sendOtlp, triesMax } from '../otlp.ts'
import type { ArmSum } from './canary.ts'
import type { GateSummary } from './gate-report.ts'
import type { HoldLedger } from './hold.ts'
import {
  holderToAttributes,
  holdSchema,
  type Promotion,
  promotionSchema,
  promotionToAttributes,
  replayToAttributes,
} from './promotion.ts'
import { type ArmBet, boundOf, rewardSteps } from './strict.ts'

const requestMsMax = 60_000
const promotionsMax = 10_000
const problemsShownMax = 3

/** A promotion could not be recorded or read. */
export class LedgerError extends Error {
  readonly code: 'ledger-unreachable' | 'promotion-not-found' | 'promotion-invalid'
  constructor(code: LedgerError['code'], message: string) {
    super(message)
    this.code = code
  }
}

export type Ledger = HoldLedger & {
  /** Resolves when the state is stored. */
  readonly record: (promotion: Promotion) => Promise<void>
  readonly load: (id: string) => Promise<Promotion>
  /** The last state of every promotion, oldest first. */
  readonly all: () => Promise<Promotion[]>
  /** What the canary's arms came to, quality only where it was decided before `settledMs`. */
  readonly sums: (promotion: Promotion, settledMs: number) => Promise<ArmSum[]>
  /** The same as strict looks bet on it, session by session in steps of the bound. */
  readonly bets: (promotion: Promotion, settledMs: number) => Promise<ArmBet[]>
  readonly close: () => Promise<void>
}

/** The collector at `otlpUrl` and the ClickHouse at `clickhouseUrl`. Every call may throw a LedgerError. */
export const openLedger = (otlpUrl: string, clickhouseUrl: string): Ledger => {
  const client = createClient({
    url: clickhouseUrl,
    request_timeout: requestMsMax,
    log: { level: ClickHouseLogLevel.OFF },
  })
  const rowsWhere = (condition: string, id: string) =>
    ask<{ id: string; promotion: string }>(
      client,
      `SELECT id, argMax(promotion, seq) AS promotion FROM otel.promotions FINAL WHERE ${condition}
       GROUP BY id ORDER BY min(time) LIMIT ${promotionsMax}`,
      { id },
    )
  const promotionsWhere = async (condition: string, id = ''): Promise<Promotion[]> => {
    const rows = await rowsWhere(`seq > 0 AND ${condition}`, id)
    return rows.map(({ id, promotion }) => readRow(id, promotion, promotionSchema))
  }
  return {
    record: (promotion) => send(otlpUrl, promotionSpans.promotion, promotionToAttributes(promotion)),
    load: async (id) => {
      const [promotion] = await promotionsWhere('id = {id:String}', id)
      if (promotion) return promotion
      throw new LedgerError(
        'promotion-not-found',
        `reading promotion '${id}': ClickHouse at ${hostOf(clickhouseUrl)} has no such promotion`,
      )
    },
    all: () => promotionsWhere('1'),
    hold: (id, holder) => send(otlpUrl, promotionSpans.promotion, holderToAttributes(id, holder)),
    holder: async (id) => {
      const [row] = await rowsWhere('seq = 0 AND id = {id:String}', id)
      return row ? readRow(id, row.promotion, holdSchema).holder : null
    },
    sums: (promotion, settledMs) => ask<ArmSum>(client, sumsQuery, parametersOf(promotion, settledMs)),
    bets: (promotion, settledMs) => ask<ArmBet>(client, betsQuery, parametersOf(promotion, settledMs)),
    close: () => client.close(),
  }
}

/** Keeps what a gate made of a replay, in `otel.replay_runs`. Throws a LedgerError. */
export const recordReplay = (otlpUrl: string, summary: GateSummary, id: string): Promise<void> =>
  send(otlpUrl, promotionSpans.replay, replayToAttributes(summary, id))

/** A row as a promotion, or the hold on one: anybody who may send spans can write it, so it is read like any other input. */
const readRow = <Row extends { readonly id: string }>(id: string, text: string, schema: z.ZodType<Row>): Row => {
  const fail = (problem: string): never => {
    throw new LedgerError('promotion-invalid', `reading promotion '${id}' from otel.promotions: ${problem}`)
  }
  let input: unknown
  try {
    input = JSON.parse(text)
  } catch (error) {
    return fail(`not JSON: ${(error as Error).message}`)
  }
  const { success, data, error } = schema.safeParse(input)
  if (!success)
    return fail(
      error.issues
        .slice(0, problemsShownMax)
        .map((issue) => issueText(issue, input))
        .join('; '),
    )
  return data.id === id ? data : fail(`it is promotion '${data.id}' by its own text`)
}

const hostOf = (url: string): string => new URL(url).host

const ask = async <Row>(
  client: ClickHouseClient,
  query: string,
  parameters: Record<string, string>,
): Promise<Row[]> => {
  try {
    const result = await client.query({ query, query_params: parameters, format: 'JSONEachRow' })
    return await result.json<Row>()
  } catch (error) {
    const { message, code } = error as Error & { code?: string }
    throw new LedgerError('ledger-unreachable', `reading promotions from ClickHouse: ${message || code || 'no answer'}`)
  }
}

/** The statuses that count as failures, by the metric's own definition. */
const failures = outcomeStatuses
  .filter((status) => metrics.failed.read({ outcome: { status } } as DecisionRecord, { slowAboveMs: null }) === 1)
  .map((status) => `'${status}'`)
  .join(', ')

const amounts = ['cost_usd', 'latency_ms', 'ttft_ms'] as const
const amountSum = (metric: string): string =>
  `('${metric}', 'known', sum(keep * ifNull(${metric}, 0)), sumIf(keep, ${metric} IS NOT NULL))`

const parametersOf = ({ canary, started_at: from, gate }: Promotion, settledMs: number): Record<string, string> => ({
  hash: canary.hash,
  from,
  settled: new Date(settledMs).toISOString(),
  slow: String(gate.slow_above_ms ?? 0),
  ...Object.fromEntries(amounts.map((name) => [`${name}_max`, String(boundOf(gate, name) ?? 1)])),
})

/** What each cluster's rows come to, by arm, metric and way to fill in missing feedback; it is a session, or a request without one. */
const clustersQuery = `
    SELECT arm, arrayJoin([
      ('failed', 'known', sum(keep * (outcome IN (${failures}))), sum(keep)),
      ('abandoned', 'known', sum(keep * (outcome = 'client-abort')), sum(keep)),
      ('slow', 'known', sum(keep * ifNull(latency_ms > {slow:Float64}, 0)), sumIf(keep, latency_ms IS NOT NULL)),
      ${amounts.map(amountSum).join(',\n      ')},
      ('quality', 'known', sumIf(keep * score, settled AND judged), sumIf(keep, settled AND judged)),
      ('quality', 'zero', sumIf(keep * score, settled AND judged), sumIf(keep, settled)),
      ('quality', 'one', sumIf(keep * if(judged, score, 1), settled), sumIf(keep, settled))
    ]) AS measure
    FROM (
      SELECT replaceOne(path[1], 'arm:', '') AS arm, if(session = '', toString(decision_id), session) AS cluster,
        1 / greatest(keep_probability, 1e-6) AS keep, outcome, cost_usd, latency_ms, ttft_ms, f.score IS NOT NULL AS judged,
        least(1, greatest(0, ifNull(f.score, 0))) AS score, decision_time < parseDateTime64BestEffort({settled:String}, 9) AS settled
      FROM (SELECT * FROM otel.routing_decisions FINAL
        WHERE policy_hash = {hash:String} AND decision_time >= parseDateTime64BestEffort({from:String}, 9)
          AND path[1] IN ('arm:production', 'arm:candidate')) AS d
      LEFT JOIN (SELECT decision_id, toNullable(score) AS score FROM otel.feedback_by_decision WHERE name = 'quality') AS f
        ON d.decision_id = f.decision_id
    )
    GROUP BY arm, cluster`

const sumsQuery = `
  SELECT arm, measure.1 AS metric, measure.2 AS fill, toFloat64(count()) AS clusters, sum(measure.3) AS total,
    sum(measure.4) AS rows, sum(measure.3 * measure.3) AS totalSquared, sum(measure.3 * measure.4) AS totalRows,
    sum(measure.4 * measure.4) AS rowsSquared
  FROM (${clustersQuery})
  GROUP BY arm, metric, fill`

/** One row per arm, metric, fill and step of the bound; what exceeds the bound is counted with it. */
const betsQuery = `
  SELECT arm, measure.1 AS metric, measure.2 AS fill, round(least(1, mean) * ${rewardSteps}) / ${rewardSteps} AS reward,
    toFloat64(count()) AS clusters, toFloat64(countIf(mean > 1)) AS beyond
  FROM (
    SELECT arm, measure, measure.3 / measure.4
      / transform(measure.1, [${amounts.map((name) => `'${name}'`).join(', ')}], [${amounts.map((name) => `{${name}_max:Float64}`).join(', ')}], 1.0) AS mean
    FROM (${clustersQuery}) WHERE measure.4 > 0
  )
  GROUP BY arm, metric, fill, reward`

/** Sends one span. */
const send = async (otlpUrl: string, name: string, attributes: Attributes): Promise<void> => {
  const why = await sendOtlp(otlpUrl, '/v1/traces', spanRequest(name, attributes))
  if (why !== null)
    throw new LedgerError('ledger-unreachable', `recording ${name} at ${hostOf(otlpUrl)}: ${why}, ${triesMax} times`)
}

/** A span of no duration in OTLP's JSON shape. */
const spanRequest = (name: string, attributes: Attributes) => {
  const time = `${Date.now()}000000`
  const span = {
    traceId: randomBytes(16).toString('hex'),
    spanId: randomBytes(8).toString('hex'),
    name,
    kind: 1,
    startTimeUnixNano: time,
    endTimeUnixNano: time,
    attributes: Object.entries(attributes).map(([key, value]) => ({ key, value: { stringValue: String(value) } })),
  }
  const resource = { attributes: [{ key: 'service.name', value: { stringValue: 'signalbox' } }] }
  return { resourceSpans: [{ resource, scopeSpans: [{ scope: { name: 'signalbox' }, spans: [span] }] }] }
}
