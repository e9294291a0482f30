// A log of any size for the replay benchmark: decisions really made by a policy, with outcomes from a formula, written to the
// columns of otel.routing_decisions by the thousand. `node bench/replay-log.ts` serves an empty store and prints its addresses.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { startCollector } from '../collector/server.ts'
import { draw } from '../router/policy/chance.ts'
import { type Policy, parsePolicy } from '../router/policy/policy.ts'
import type { Candidate, Context, FeatureValue } from '../router/policy/record.ts'
import { snapshotTypes } from '../router/snapshot.ts'

const batchRows = 10_000
const startMs = Date.UTC(2026, 9, 1)
const apartMs = 600
const categories = ['math', 'law', 'chat', 'code', 'health', 'history']
const tiers = ['free', 'pro']
/** Name, US dollars per million output tokens, first token and token pace in milliseconds, quality. */
const models = [
  ['nano', 0.4, 180, 4, 0.55],
  ['mini', 1.6, 260, 6, 0.68],
  ['local', 0.1, 420, 18, 0.6],
  ['medium', 5, 380, 11, 0.78],
  ['large', 15, 520, 16, 0.86],
] as const

export const productionOf = (): Policy =>
  parsePolicy(
    `name: production
filter: {affordable: candidate.cost_usd <= 0.05}
score: candidate.quality - 20.0 * candidate.cost_usd - 0.0001 * candidate.ttft_ms
choose: {kind: softmax, temperature: 0.15, per: session}
explore: {rate: 0.05, per: session}`,
    snapshotTypes,
  )

/** Five other policies, as text. */
export const candidateTexts: readonly string[] = [10, 30, 60, 120, 240].map(
  (weight, at) => `name: candidate-${at}
filter: {affordable: candidate.cost_usd <= 0.05, healthy: candidate.error_rate < 0.5}
score: candidate.quality - ${weight}.0 * candidate.cost_usd - 0.0001 * candidate.ttft_ms
choose: {kind: softmax, temperature: 0.12}
explore: {rate: 0.02, floor: 0.005}`,
)

export const contextOf = (at: number): Context => {
  const chance = (stream: string) => draw(String(at), 'bench', stream)
  const inputTokens = Math.round(40 * Math.exp(4 * chance('input')))
  return {
    id: `019ab0c4-0000-7000-8000-${at.toString(16).padStart(12, '0')}`,
    time: new Date(startMs + at * apartMs).toISOString(),
    session: `s-${at >> 1}`,
    request: {
      model: 'auto',
      input_tokens: inputTokens,
      output_tokens_max: null,
      stream: at % 2 === 0,
      tier: tiers[at % tiers.length] ?? '',
      tenant: `t-${at % 7}`,
      user: '',
      tags: { category: categories[at % categories.length] ?? '' },
    },
    candidates: models.map(([model, usd, ttftMs, paceMs, quality], place) => ({
      model,
      features: {
        quality,
        provider: 'bench',
        context_tokens_max: 128_000,
        input_usd_per_mtok: usd / 4,
        output_usd_per_mtok: usd,
        cost_usd: Math.round((inputTokens / 4 + 300) * usd * 1000) / 1e9,
        output_tokens_expected: 300,
        ttft_ms: Math.round(ttftMs * (1 + 0.2 * chance(`ttft${place}`))),
        tokens_per_s: 1000 / paceMs,
        latency_ms: ttftMs + 300 * paceMs,
        error_rate: 0.01,
        samples: 50,
        in_flight: at % 9,
        breaker: 'closed',
      },
    })),
  }
}

const exclusionText = ({ exclusion }: Candidate): string =>
  exclusion === null ? '' : exclusion.kind === 'rule' ? `rule:${exclusion.name}` : exclusion.kind

/** A row of otel.routing_decisions, and its feedback where there is one. */
const rowOf = (production: Policy, at: number) => {
  const context = contextOf(at)
  const { request, session, id, time } = context
  const decision = production.decide(context)
  const features = context.candidates.map((candidate) => candidate.features)
  const feature = (name: string): FeatureValue[] => features.map((values) => values[name] ?? null)
  const chosen = models.find(([model]) => model === decision.chosen) ?? models[0]
  const outputTokens = Math.round(100 * Math.exp(2 * draw(id, 'bench', 'output')))
  const isGood = draw(id, 'bench', 'quality') < chosen[4]
  const candidates = Object.fromEntries(
    Object.keys(features[0] ?? {}).map((name) => [`candidates.${name}`, feature(name)]),
  )
  const row = {
    ...candidates,
    decision_time: time.replace('T', ' ').replace('Z', ''),
    decision_id: id,
    trace_id: id.replaceAll('-', ''),
    span_id: at.toString(16).padStart(16, '0'),
    service_name: 'bench',
    policy_name: production.name,
    policy_hash: production.hash,
    engine: decision.engine,
    path: decision.path,
    requested_model: request.model,
    chosen_model: decision.chosen ?? '',
    served_model: decision.chosen ?? '',
    reason: decision.reason,
    probability: decision.probability,
    explored: decision.explored,
    tenant: request.tenant,
    tier: request.tier,
    session,
    tags: request.tags,
    stream: request.stream,
    outcome: draw(id, 'bench', 'failed') < 0.004 ? 'error' : 'ok',
    http_status: 200,
    attempts: 1,
    input_tokens: request.input_tokens,
    output_tokens: outputTokens,
    tokens_source: 'measured',
    cost_usd: ((request.input_tokens / 4 + outputTokens) * chosen[1]) / 1e6,
    cost_source: 'measured',
    latency_ms: chosen[2] + outputTokens * chosen[3],
    ttft_ms: chosen[2],
    'candidates.model': decision.candidates.map(({ model }) => model),
    'candidates.eligible': decision.candidates.map(({ eligible }) => eligible),
    'candidates.exclusion': decision.candidates.map(exclusionText),
    'candidates.unknown': decision.candidates.map(() => ''),
    'candidates.score': decision.candidates.map(({ score }) => score),
    'candidates.probability': decision.candidates.map(({ probability }) => probability),
    'candidates.extra': decision.candidates.map(() => ''),
    request_input_tokens: request.input_tokens,
    request_output_tokens_max: null,
    keep_probability: 1,
    plan: decision.plan,
    irregular: null,
  }
  const feedback =
    at % 3 === 0
      ? { time: row.decision_time, decision_id: id, name: 'quality', score: Number(isGood), span_id: row.span_id }
      : null
  return { row, feedback }
}

const insert = async (url: string, table: string, lines: readonly string[]): Promise<void> => {
  const query = `INSERT INTO otel.${table} SETTINGS input_format_null_as_default=0 FORMAT JSONEachRow`
  const response = await fetch(`${url}/?query=${encodeURIComponent(query)}`, { method: 'POST', body: lines.join('\n') })
  if (!response.ok) throw new Error(`inserting into ${table}: ${await response.text()}`)
}

/** Writes decisions number `from` to `to` (exclusive) to the store at `url`. */
export const fill = async (
  url: string,
  from: number,
  to: number,
  onProgress: (rows: number) => void = () => {},
): Promise<void> => {
  const production = productionOf()
  await insert(url, 'policies', [
    JSON.stringify({
      hash: production.hash,
      name: production.name,
      engine: '1',
      source: production.source,
      first_seen: 0,
    }),
  ])
  for (let at = from; at < to; at += batchRows) {
    const made = Array.from({ length: Math.min(batchRows, to - at) }, (_, i) => rowOf(production, at + i))
    await insert(
      url,
      'routing_decisions',
      made.map(({ row }) => JSON.stringify(row)),
    )
    await insert(
      url,
      'feedback',
      made.flatMap(({ feedback }) => (feedback ? [JSON.stringify(feedback)] : [])),
    )
    onProgress(at + made.length - from)
  }
}

/**
 * Makes `times` as many decisions of those that are there: the same sessions later, with ids of their own. Draws go by session,
 * so every copy is decided as its original was.
 */
export const multiply = async (url: string, rows: number, times: number): Promise<void> => {
  const laterMs = rows * apartMs
  for (let copy = 1; copy < times; copy++) {
    const query = `INSERT INTO otel.routing_decisions SELECT * REPLACE (
        decision_time + toIntervalMillisecond(${copy * laterMs}) AS decision_time,
        toUUID(concat('019ab0c4-0000-7000-9${copy.toString(16).padStart(3, '0')}-', right(toString(decision_id), 12))) AS decision_id,
        toFixedString(concat('${copy.toString(16).padStart(4, '0')}', right(span_id, 12)), 16) AS span_id)
      FROM (SELECT * FROM otel.routing_decisions FINAL WHERE decision_time < toDateTime64('${new Date(startMs + laterMs).toISOString().slice(0, 19)}', 9, 'UTC'))`
    const response = await fetch(`${url}/`, { method: 'POST', body: query })
    if (!response.ok) throw new Error(`multiplying the log: ${await response.text()}`)
  }
}

/** Every column that a replay of these policies reads, summed: what no replay can be quicker than. */
export const selectSql = (selected: string): string => {
  const texts = [
    'session',
    'tier',
    'requested_model',
    'chosen_model',
    'outcome',
    'error_type',
    'irregular',
    "tags['category']",
  ]
  const numbers = [
    'keep_probability',
    'request_input_tokens',
    'request_output_tokens_max',
    'd.cost_usd',
    'latency_ms',
    'ttft_ms',
  ]
  const lists = ['probability', 'cost_usd', 'quality', 'ttft_ms', 'context_tokens_max', 'error_rate']
  const sums = [
    ...numbers.map((name) => `sum(${name})`),
    ...texts.map((name) => `sum(length(${name}))`),
    ...lists.map((name) => `sumArray(candidates.${name})`),
    ...['model', 'breaker'].map((name) => `sum(length(candidates.${name}))`),
  ]
  return `SELECT toFloat64(count()) AS rows, sum(toUnixTimestamp64Milli(decision_time)) AS times, sum(toUInt128(decision_id)) AS ids,
    [${sums.map((sum) => `toFloat64(ifNull(${sum}, 0))`).join(', ')}] AS sums, sum(score) AS quality
    FROM (SELECT * FROM otel.routing_decisions FINAL WHERE ${selected}) AS d
    ANY LEFT JOIN (SELECT decision_id, score FROM otel.feedback FINAL WHERE name = 'quality') AS f ON d.decision_id = f.decision_id`
}

/** An empty embedded store in a temporary folder, until the process is told to stop. */
const serve = async (): Promise<void> => {
  const folder = await mkdtemp(join(tmpdir(), 'signalbox-bench-'))
  const collector = await startCollector({
    otlpPort: 0,
    clickhousePort: 0,
    dataFolder: join(folder, 'data'),
    log: pino({ level: 'silent' }),
  })
  process.stdout.write(`${collector.clickhouseUrl}\n`)
  // Whoever started this as a child may ask what it has cost so far.
  process.on('message', () => process.send?.(process.cpuUsage()))
  process.once('SIGTERM', async () => {
    await collector.close()
    await rm(folder, { recursive: true, force: true })
  })
}
if (import.meta.main) await serve()
