// What evaluation reads and writes: captured answers that an evaluator has not judged yet, and results, as log events to the
// collector. What is stored is the whole state: a run that was killed goes on where its last stored result stands.
import { ClickHouseLogLevel, createClient } from '@clickhouse/client'
import { PayloadError, type PayloadRow, payloadColumns } from '../../router/capture/sealed.ts'
import { type Attributes, eventNames, attributeNames as n } from '../../router/policy/attributes.ts'
import { sendOtlp, triesMax } from '../otlp.ts'
import type { Payload } from '../reexec/payloads.ts'
import { askable, payloadOf } from '../reexec/stored-payloads.ts'
import type { EvaluateSettings, Evaluator } from './settings.ts'

const requestMsMax = 120_000
/** Decisions looked at in one go. */
const pageMax = 100

/** Evaluation could not read or store. */
export class EvaluateError extends Error {
  readonly code = 'source-unreadable'
}

/** A captured answer, and the names of the evaluators that are to judge it. */
export type Due = {
  readonly id: string
  readonly at: string
  /** The least of the probabilities with which its texts were kept. */
  readonly keepProbability: number
  readonly names: readonly string[]
}

/** One judgement; without a score it says why there is none, and what was paid for nothing. */
export type Result = {
  readonly id: string
  readonly name: string
  readonly source: 'rule' | 'judge'
  readonly score: number | null
  readonly keepProbability: number
  readonly costUsd: number | null
}

export type EvaluationStore = {
  /** The next captured answers with work, by time; `after` is the last of the page before. */
  readonly page: (after: Due | null) => Promise<readonly Due[]>
  /** Their requests and answers; what is sealed with a key that is not at hand, or has no answer, is left out. */
  readonly payloads: (due: readonly Due[]) => Promise<ReadonlyMap<string, Payload>>
  /** How many answers each evaluator has yet to judge, and the bytes of their texts. */
  readonly open: () => Promise<readonly { readonly name: string; readonly answers: number; readonly bytes: number }[]>
  /** What today's evaluations have cost so far (UTC), in US dollars. */
  readonly spentTodayUsd: () => Promise<number>
  /** Resolves when they are stored. */
  readonly record: (results: readonly Result[]) => Promise<void>
  readonly close: () => Promise<void>
}

const stringOf = (text: string): string => `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`

/** The evaluators' names that an answer is drawn for (the draw of chance.ts) and not yet judged under. */
const dueSql = (evaluators: readonly Evaluator[], again: boolean): string => {
  const each = evaluators.map(({ name, share }) => {
    const drawn = `bitShiftRight(xxHash64(concat(toString(decision_id), '|evaluate|', ${stringOf(name)})), 11) / 9007199254740992 < ${share}`
    const done = `decision_id NOT IN (SELECT decision_id FROM otel.feedback WHERE name = ${stringOf(name)} AND source IN ('rule', 'judge'))`
    return `if(${drawn}${again ? '' : ` AND ${done}`}, [${stringOf(name)}], [])`
  })
  return `arrayConcat(${each.join(', ')}, [])`
}

/** Opens what `settings` names. Calls throw an EvaluateError; `again` is for what was judged before, too. */
export const openEvaluationStore = (settings: EvaluateSettings, again: boolean): EvaluationStore => {
  const client = createClient({
    url: settings.source,
    request_timeout: requestMsMax,
    log: { level: ClickHouseLogLevel.OFF },
  })
  const ask = async <Row>(query: string, parameters: Record<string, unknown> = {}): Promise<Row[]> => {
    try {
      const found = await client.query({ query, query_params: parameters, format: 'JSONEachRow' })
      return await found.json<Row>()
    } catch (error) {
      const { message, code } = error as Error & { code?: string }
      const where = new URL(settings.source).host
      throw new EvaluateError(`reading captured answers from ClickHouse at ${where}: ${message || code || 'no answer'}`)
    }
  }
  const openSql = `
    SELECT toString(decision_id) AS id, toString(min(captured_at)) AS at, min(keep_probability) AS keepProbability,
      ${dueSql(settings.evaluators, again)} AS names, sum(bytes) AS size
    FROM otel.payloads
    WHERE ${askable} AND captured_at > now() - toIntervalSecond(${Math.round(settings.days * 86_400)})
    GROUP BY decision_id HAVING uniqExact(kind) = 2 AND notEmpty(names)`
  return {
    page: (after) =>
      ask<Due>(
        `SELECT id, at, keepProbability, names FROM (${openSql})
         WHERE (at, id) > ({at:String}, {id:String}) ORDER BY at, id LIMIT ${pageMax}`,
        { at: after?.at ?? '', id: after?.id ?? '' },
      ),
    payloads: async (due) => {
      const rows = await ask<PayloadRow>(
        `SELECT ${payloadColumns} FROM otel.payloads WHERE ${askable} AND decision_id IN {ids:Array(UUID)} ORDER BY decision_id, kind, attempt`,
        { ids: due.map(({ id }) => id) },
      )
      const found = due.map(({ id }) =>
        readable(
          rows.filter((row) => row.decision_id === id),
          settings.keys,
        ),
      )
      return new Map(found.flatMap((payload) => (payload?.response === undefined ? [] : [[payload.id, payload]])))
    },
    open: () =>
      ask(
        `SELECT name, toFloat64(count()) AS answers, toFloat64(sum(size)) AS bytes
         FROM (${openSql}) ARRAY JOIN names AS name GROUP BY name ORDER BY name`,
      ),
    spentTodayUsd: async () => {
      const [row] = await ask<{ usd: number }>(
        `SELECT sum(toFloat64OrZero(LogAttributes['${n.evaluationCostUsd}'])) AS usd FROM otel.otel_logs
         WHERE EventName = '${eventNames.evaluation}' AND Timestamp >= toStartOfDay(now(), 'UTC')`,
      )
      return row?.usd ?? 0
    },
    record: (results) => send(settings, results),
    close: () => client.close(),
  }
}

const readable = (rows: readonly PayloadRow[], keys: EvaluateSettings['keys']): Payload | null => {
  try {
    return payloadOf(rows, keys)
  } catch (error) {
    if (error instanceof PayloadError && error.code === 'payload-key-missing') return null
    throw error
  }
}

const recordOf = ({ id, name, source, score, keepProbability, costUsd }: Result, atMs: number) => {
  const attributes: Attributes = {
    [n.decisionId]: id,
    [n.evaluationName]: name,
    [n.evaluationSource]: source,
    [n.evaluationKeepProbability]: keepProbability,
    ...(score === null ? { [n.errorType]: 'no_judgement' } : { [n.evaluationScore]: score }),
    ...(costUsd === null ? {} : { [n.evaluationCostUsd]: costUsd }),
  }
  return {
    timeUnixNano: `${atMs}000000`,
    observedTimeUnixNano: `${atMs}000000`,
    severityNumber: 9,
    severityText: 'INFO',
    eventName: eventNames.evaluation,
    attributes: Object.entries(attributes).map(([key, value]) => ({ key, value: { stringValue: String(value) } })),
  }
}

const send = async ({ collector, token }: EvaluateSettings, results: readonly Result[]): Promise<void> => {
  if (results.length === 0) return
  const atMs = Date.now()
  const resource = { attributes: [{ key: 'service.name', value: { stringValue: 'signalbox-evaluate' } }] }
  const logRecords = results.map((result) => recordOf(result, atMs))
  const request = { resourceLogs: [{ resource, scopeLogs: [{ scope: { name: 'signalbox' }, logRecords }] }] }
  const why = await sendOtlp(collector, '/v1/logs', request, token)
  if (why !== null)
    throw new EvaluateError(`storing evaluations at ${new URL(collector).host}: ${why}, ${triesMax} times`)
}
