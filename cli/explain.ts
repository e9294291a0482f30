// `signalbox explain <id>`: one decision in words, from the rows that its span left behind.
import { ClickHouseLogLevel, createClient } from '@clickhouse/client'
import { Command } from 'commander'
import { judgedWithin } from '../replay/read/slice-sql.ts'
import { type AttemptLine, explainDecision } from '../router/policy/explain.ts'
import { type DecisionRecord, decisionRecordSchema } from '../router/policy/record.ts'

const defaultUrl = 'http://127.0.0.1:8123'
const requestMsMax = 30_000

class ExplainError extends Error {
  readonly code: 'id-invalid' | 'decision-not-found' | 'source-unreadable'
  constructor(code: ExplainError['code'], message: string) {
    super(message)
    this.code = code
  }
}

const idPattern = /^(last|[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})$/i

const decisionQuery = `
  SELECT record, toString(decision_id) AS id FROM otel.routing_decisions
  WHERE {id:String} = 'last' OR trace_id = {id:String} OR decision_id = toUUIDOrZero({id:String})
  ORDER BY decision_time DESC LIMIT 1`

const attemptsQuery = `
  SELECT number, cause, model, provider, nullIf(http_status, 0) AS status, error_type AS errorType,
         duration_ms AS durationMs, ttft_ms AS ttftMs, cost_usd AS costUsd
  FROM otel.routing_attempts FINAL WHERE decision_id = toUUIDOrZero({id:String}) ORDER BY number`

const qualityQuery = `
  SELECT score FROM otel.judgements WHERE name = 'quality' AND ${judgedWithin('decision_id = toUUIDOrZero({id:String})')}
  ORDER BY turn DESC LIMIT 1`

/** The record of a decision and its attempts, by decision id, trace id, or `last`. Throws when there is none. */
export const loadDecision = async (
  url: string,
  id: string,
): Promise<{ readonly record: DecisionRecord; readonly attempts: AttemptLine[] }> => {
  const client = createClient({ url, request_timeout: requestMsMax, log: { level: ClickHouseLogLevel.OFF } })
  const rows = async <Row>(query: string, of: string): Promise<Row[]> =>
    (await client.query({ query, query_params: { id: of }, format: 'JSONEachRow' })).json<Row>() as Promise<Row[]>
  try {
    await client.query({ query: 'SELECT 1' }).catch((error: Error & { code?: string }) => {
      const why = `${error.code ?? error.message}; is it running (signalbox up), or is it elsewhere (--source)?`
      throw new ExplainError(
        'source-unreadable',
        `asking ClickHouse at ${new URL(url).host} for decision ${id}: ${why}`,
      )
    })
    const [found] = await rows<{ record: string; id: string }>(decisionQuery, id)
    if (!found)
      throw new ExplainError(
        'decision-not-found',
        `no decision '${id}' is stored at ${url}; it may not have been delivered yet`,
      )
    const attempts = await rows<AttemptLine>(attemptsQuery, found.id)
    const [judged] = await rows<{ score: number }>(qualityQuery, found.id)
    const record = decisionRecordSchema.parse(JSON.parse(found.record))
    const { outcome } = record
    if (!outcome || !judged) return { record, attempts }
    return { record: { ...record, outcome: { ...outcome, quality: judged.score } }, attempts }
  } finally {
    await client.close()
  }
}

export const explainCommand = (): Command =>
  new Command('explain')
    .description('Explains one decision: who was considered, who was excluded and why, and why the winner won.')
    .argument('<id>', "the decision's id (response header x-signalbox-decision-id), its trace id, or `last`")
    .option('--source <url>', 'where ClickHouse answers', defaultUrl)
    .option('--json', 'print the record and its attempts as JSON')
    .addHelpText('after', '\nExample:\n  signalbox explain last')
    .action(async (id: string, options: { source: string; json?: true }) => {
      if (!idPattern.test(id))
        throw new ExplainError('id-invalid', `'${id}' is no id: wanted a decision id, a trace id or last`)
      const { record, attempts } = await loadDecision(options.source, id)
      process.stdout.write(
        `${options.json ? JSON.stringify({ record, attempts }) : explainDecision(record, attempts)}\n`,
      )
    })
