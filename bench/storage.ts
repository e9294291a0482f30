// `npm run bench:storage`: what a decision takes on disk, table by table, and how many of them a second are stored: spans as a router
// sends them, with random ids and prompts, through the collector into the embedded engine, merged as they are after a while. It
// writes bench/storage.json, and from it the sizing table of docs/operations.md, so that nobody copies a number by hand.
import { createHash } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { pino } from 'pino'
import { startCollector } from '../collector/server.ts'
import {
  attemptToAttributes,
  attributeNames,
  phaseAttributes,
  phases,
  toAttributes,
} from '../router/policy/attributes.ts'
import { draw } from '../router/policy/chance.ts'
import { decisionRecordSchema, recordOf } from '../router/policy/record.ts'
import { jsonRequest, otlpAttributes, rowsOf } from '../test/collector-fixtures.ts'
import { contextOf, productionOf } from './replay-log.ts'
import { type StorageSummary, storageText } from './storage-text.ts'

const decisionsPerRequest = 1000
const requestsAtOnce = 8
const mergeSecondsMax = 120

const { values: options } = parseArgs({
  options: {
    decisions: { type: 'string', default: '50000' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})

const production = productionOf()
const hex = (text: string, digits: number): string => createHash('sha256').update(text).digest('hex').slice(0, digits)
const startMs = Date.now() - 3_600_000
const nanos = (ms: number): string => `${BigInt(Math.round(ms * 1000))}000`

/** The two spans of one answered request. */
const spansOf = (at: number): object[] => {
  const context = contextOf(at)
  const decision = production.decide(context)
  const [served = ''] = decision.plan
  const outputTokens = Math.round(100 * Math.exp(2 * draw(context.id, 'storage', 'output')))
  const latencyMs = 300 + outputTokens * (4 + 10 * draw(context.id, 'storage', 'pace'))
  const ttftMs = 150 + 100 * draw(context.id, 'storage', 'ttft')
  const costUsd = Math.round(outputTokens * 1600) / 1e9
  const usage = {
    inputTokens: context.request.input_tokens,
    outputTokens,
    cachedInputTokens: null,
    reasoningTokens: null,
    source: 'measured' as const,
  }
  const { outcome } = decisionRecordSchema.shape
  const record = recordOf(
    context,
    decision,
    outcome.unwrap().parse({
      status: 'ok',
      served,
      cost_usd: costUsd,
      latency_ms: latencyMs,
      ttft_ms: ttftMs,
      input_tokens: usage.inputTokens,
      output_tokens: outputTokens,
      stream_end: 'complete',
    }),
  )
  const attempt = {
    number: 1,
    cause: 'choice',
    model: served,
    provider: 'bench',
    upstreamModel: served,
    serverAddress: 'api.example',
    serverPort: 443,
    stream: true,
    startedAtMs: 0,
    durationMs: latencyMs - 1,
    connectMs: null,
    headersMs: ttftMs - 5,
    ttftMs,
    status: 200,
    error: null,
    streamEnd: 'complete' as const,
    usage,
    costUsd,
    costSource: 'measured' as const,
    responseId: `chatcmpl-${hex(`answer ${at}`, 24)}`,
    responseModel: served,
    finishReasons: ['stop'],
  }
  const began = startMs + at * 7 + draw(context.id, 'storage', 'start')
  const times = { startTimeUnixNano: nanos(began), endTimeUnixNano: nanos(began + latencyMs) }
  const traceId = hex(`trace ${at}`, 32)
  const spanId = hex(`server ${at}`, 16)
  const measured = Object.fromEntries(
    phases.map((phase) => [phaseAttributes[phase], Math.round(draw(context.id, 'storage', phase) * 5000) / 1000]),
  )
  const attributes = {
    ...toAttributes(record),
    [attributeNames.epoch]: hex('epoch', 32),
    [attributeNames.seq]: at,
    [attributeNames.httpStatus]: 200,
    [attributeNames.overheadMs]: 1.2,
    ...measured,
  }
  return [
    { traceId, spanId, name: 'POST /v1/chat/completions', kind: 2, ...times, attributes: otlpAttributes(attributes) },
    {
      traceId,
      spanId: hex(`client ${at}`, 16),
      parentSpanId: spanId,
      name: `chat ${served}`,
      kind: 3,
      ...times,
      attributes: otlpAttributes(attemptToAttributes(attempt, context.id)),
    },
  ]
}

const tablesSql = `SELECT table, toFloat64(sum(rows)) AS rows, toFloat64(sum(bytes_on_disk)) AS bytes FROM system.parts
  WHERE active AND database = 'otel' AND table IN ('otel_traces', 'otel_traces_trace_id_ts', 'routing_decisions', 'routing_attempts')
  GROUP BY table ORDER BY table`

const measure = async (decisions: number): Promise<StorageSummary> => {
  const folder = await mkdtemp(join(tmpdir(), 'signalbox-storage-'))
  const collector = await startCollector({
    otlpPort: 0,
    clickhousePort: 0,
    dataFolder: folder,
    log: pino({ level: 'silent' }),
  })
  try {
    let next = 0
    let storedMs = 0
    while (next < decisions) {
      const bodies = Array.from({ length: requestsAtOnce }, () => {
        const first = next
        next = Math.min(decisions, next + decisionsPerRequest)
        return jsonRequest(...Array.from({ length: next - first }, (_, i) => spansOf(first + i)).flat())
      })
      const before = performance.now()
      const headers = { 'content-type': 'application/json' }
      for (const answer of await Promise.all(
        bodies.map((body) => fetch(`${collector.otlpUrl}/v1/traces`, { method: 'POST', headers, body })),
      )) {
        if (answer.status !== 200) throw new Error(`storing spans: ${answer.status} ${await answer.text()}`)
      }
      storedMs += performance.now() - before
    }
    const tables = await rowsOf<{ table: string; rows: number; bytes: number }>(collector, tablesSql)
    for (const { table } of tables)
      await rowsOf(collector, `OPTIMIZE TABLE otel.${table} FINAL SETTINGS max_execution_time = ${mergeSecondsMax}`)
    const merged = await rowsOf<{ table: string; rows: number; bytes: number }>(collector, tablesSql)
    const date = new Date().toISOString().slice(0, 10)
    return {
      date,
      cores: cpus().length,
      decisions,
      spansPerSecond: Math.round((2 * decisions) / (storedMs / 1000)),
      tables: merged,
    }
  } finally {
    await collector.close()
    await rm(folder, { recursive: true, force: true })
  }
}

if (options.help) process.stdout.write('node bench/storage.ts [--decisions N] [--json]\n')
else {
  const summary = await measure(Number(options.decisions))
  writeFileSync(new URL('storage.json', import.meta.url), `${JSON.stringify(summary, null, 2)}\n`)
  const page = new URL('../docs/operations.md', import.meta.url)
  const marked = /(<!-- storage:begin -->)[\s\S]*(<!-- storage:end -->)/
  const text = readFileSync(page, 'utf8').replace(marked, (_, begin, end) => `${begin}\n${storageText()}\n${end}`)
  writeFileSync(page, text)
  process.stdout.write(`${options.json ? JSON.stringify(summary) : storageText()}\n`)
}
