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

type Measured = Record<'rows' | 'candidates' | 'replicates' | 'wallS' | 'cpuS' | 'memoryMb', number> & {
  engine: string
}
type ReplaySummary = { node: string; cores: number; date: string; rounds: number; measured: Measured[] }

/** What `npm run bench:replay` found last. */
export const replayBenchText = (): string => {
  const summary = JSON.parse(readFileSync(new URL('./replay.json', import.meta.url), 'utf8')) as ReplaySummary
  const rows = summary.measured.map(({ engine, rows: count, candidates, replicates, wallS, cpuS, memoryMb }) => {
    const perSecond = Math.round((count * candidates) / wallS / 1000) * 1000
    const cpuUs = ((cpuS * 1e6) / (count * candidates)).toFixed(1)
    const cells = [
      count.toLocaleString('en-US'),
      engine === 'sql' ? 'SQL' : `threads${replicates > 0 ? `, ${replicates.toLocaleString('en-US')} replicates` : ''}`,
      `${wallS.toFixed(1)} s`,
      perSecond.toLocaleString('en-US'),
      `${cpuUs} µs`,
      `${Math.round(memoryMb)} MB`,
    ]
    return `| ${cells.join(' | ')} |`
  })
  return [
    `From ClickHouse to the verdict, ${summary.measured[0]?.candidates ?? 0} candidates at once, each row also decided again by its own policy for proof (${summary.cores} cores shared with the store,`,
    `median of ${summary.rounds} runs, one run beyond a million, ${summary.node}, ${summary.date}, \`npm run bench:replay\`; CPU and memory are those of the replaying process).`,
    '',
    '| rows | how | time | decisions/s | CPU per decision | memory |',
    '|---|---|---|---|---|---|',
    ...rows,
  ].join('\n')
}
