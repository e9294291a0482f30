// The benchmark's figures as a paragraph and a table of the README; the test that holds the README to them uses it too.
import { readFileSync } from 'node:fs'

type Variant = { cpuUs: number; perSecond: number; p50Ms: number; p99Ms: number }
type Summary = {
  node: string
  cores: number
  date: string
  rounds: number
  connections: number
  requestBytes: number
  answerBytes: number
  variants: Record<'bare' | 'off' | 'on', Variant>
  requestsWithTelemetry: number
  spansArrived: number
  spansLost: number
}

const labels = {
  bare: 'a bare proxy (express and undici)',
  off: 'the router, telemetry off',
  on: 'the router, telemetry on',
}

/** What `npm run bench:router` found last. */
export const benchText = (): string => {
  const summary = JSON.parse(readFileSync(new URL('./router.json', import.meta.url), 'utf8')) as Summary
  const rows = (Object.keys(labels) as (keyof typeof labels)[]).map((name) => {
    const { cpuUs, perSecond, p50Ms, p99Ms } = summary.variants[name]
    const ratio = (cpuUs / summary.variants.bare.cpuUs).toFixed(1)
    return `| ${labels[name]} | ${cpuUs.toFixed(0)} µs | ${ratio} | ${perSecond.toLocaleString('en-US')} | ${p50Ms} ms | ${p99Ms} ms |`
  })
  return [
    `CPU of the whole router process per request, on one core, saturated by ${summary.connections} connections (${summary.requestBytes} bytes in, ${summary.answerBytes} out; median of`,
    `${summary.rounds} alternating rounds, ${summary.node}, ${summary.date}, \`npm run bench:router\`). Of ${summary.spansArrived.toLocaleString('en-US')} spans, ${summary.spansLost} were lost.`,
    '',
    '| | CPU per request | × bare | requests/s | p50 | p99 |',
    '|---|---|---|---|---|---|',
    ...rows,
  ].join('\n')
}

type Measured = Record<'rows' | 'candidates' | 'replicates' | 'wallS' | 'cpuS' | 'storeCpuS' | 'memoryMb', number> & {
  engine: string
  selectWallS?: number
}
type ReplaySummary = { node: string; cores: number; date: string; rounds: number; measured: Measured[] }

/** What `npm run bench:replay` found last. */
export const replayBenchText = (): string => {
  const summary = JSON.parse(readFileSync(new URL('./replay.json', import.meta.url), 'utf8')) as ReplaySummary
  const rows = summary.measured.map(
    ({ engine, rows: count, candidates, replicates, wallS, cpuS, storeCpuS, memoryMb }) => {
      const perSecond = Math.round((count * candidates) / wallS / 1000) * 1000
      const eachUs = (seconds: number): string => `${((seconds * 1e6) / (count * candidates)).toFixed(1)} µs`
      const cells = [
        count.toLocaleString('en-US'),
        engine === 'sql'
          ? 'SQL'
          : `threads${replicates > 0 ? `, ${replicates.toLocaleString('en-US')} replicates` : ''}`,
        `${wallS.toFixed(1)} s`,
        perSecond.toLocaleString('en-US'),
        eachUs(cpuS),
        eachUs(storeCpuS),
        `${Math.round(memoryMb)} MB`,
      ]
      return `| ${cells.join(' | ')} |`
    },
  )
  const compared = summary.measured.flatMap(({ rows: count, candidates, wallS, selectWallS }) =>
    selectWallS === undefined
      ? []
      : [
          `${(wallS / selectWallS).toFixed(0)} times as long (${(wallS / selectWallS / candidates).toFixed(1)} a candidate) over ${count.toLocaleString('en-US')} rows`,
        ],
  )
  return [
    `From ClickHouse to the verdict, ${summary.measured[0]?.candidates ?? 0} candidates at once, each row also decided again by its own policy for proof (${summary.cores} cores shared with the store,`,
    `median of ${summary.rounds} runs, one run beyond a million, ${summary.node}, ${summary.date}, \`npm run bench:replay\`; memory is that of the replaying process).`,
    '',
    '| rows | how | time | decisions/s | CPU per decision | of the store | memory |',
    '|---|---|---|---|---|---|---|',
    ...rows,
    '',
    `A plain \`SELECT\` that sums the same columns takes a fraction of that: a whole replay by SQL takes ${compared.join(', ')}.`,
  ].join('\n')
}

type Rate = Record<'spansPerSecond' | 'cpuMicrosPerSpan', number>
type CollectorSummary = {
  readonly node: string
  readonly cores: number
  readonly date: string
  readonly fsync: boolean
  readonly results: readonly ({ readonly kind: 'plain' | 'decision'; readonly batch: number } & Readonly<
    Record<'json' | 'protobuf' | 'bare' | 'bareLarge', Rate>
  >)[]
  readonly soak: Rate & {
    readonly minutes: number
    readonly batch: number
    readonly firstHalfMb: number
    readonly secondHalfMb: number
  }
}

const kindNames = { plain: 'forty attributes', decision: 'a decision' }

/** What `npm run bench:collector` found last, over batches and over minutes. */
export const collectorBenchText = (): string => {
  const summary = JSON.parse(readFileSync(new URL('./collector.json', import.meta.url), 'utf8')) as CollectorSummary
  const us = ({ cpuMicrosPerSpan }: Rate): string => `${cpuMicrosPerSpan.toFixed(0)} µs`
  const thousands = (rate: number): string => (Math.round(rate / 100) * 100).toLocaleString('en-US')
  const rows = summary.results.map(
    ({ kind, batch, json, protobuf, bare, bareLarge }) =>
      `| ${kindNames[kind]} | ${batch.toLocaleString('en-US')} | ${us(json)} | ${us(protobuf)} | ${us(bare)} | ${us(bareLarge)} | ${thousands(json.spansPerSecond)} |`,
  )
  const { minutes, spansPerSecond, firstHalfMb, secondHalfMb, batch } = summary.soak
  return [
    `CPU per span of the whole collector, from the bytes of a request to rows in \`otel_traces\` and all views, ${summary.fsync ? 'flushed to disk, ' : ''}beside the same rows as JSONEachRow handed to`,
    `the engine directly, one insert a batch and 10,000 rows an insert (${summary.cores} cores shared with the senders, ${summary.node}, ${summary.date}, \`npm run bench:collector\`).`,
    '',
    '| span | batch | JSON | protobuf | bare, same batch | bare, 10,000 | spans/s (JSON) |',
    '|---|---|---|---|---|---|---|',
    ...rows,
    '',
    `Kept busy for ${minutes} minutes with batches of ${batch}: ${thousands(spansPerSecond)} spans/s, at most ${firstHalfMb} MB in the first half and ${secondHalfMb} MB in the second.`,
  ].join('\n')
}
