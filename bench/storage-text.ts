// What `npm run bench:storage` measured, as the paragraph and the two tables of docs/operations.md; the test that holds the page to the
// measurement uses it too.
import { readFileSync } from 'node:fs'

export type StorageSummary = {
  readonly date: string
  readonly cores: number
  readonly decisions: number
  /** Through the collector, views and all, on a machine that also makes the spans. */
  readonly spansPerSecond: number
  readonly tables: readonly { readonly table: string; readonly rows: number; readonly bytes: number }[]
}

const retentionDays = 90
const secondsPerDay = 86_400
const bytesPerShardMax = 4e12
const spansPerDecision = 2
const decisionRates = [1, 10, 100, 1000, 10_000]

const whole = (value: number): string => Math.round(value).toLocaleString('en-US')
const sized = (bytes: number): string => {
  const [unit, name] = bytes >= 1e12 ? [1e12, 'TB'] : bytes >= 1e9 ? [1e9, 'GB'] : [1e6, 'MB']
  const value = bytes / unit
  return `${value >= 10 ? whole(value) : value.toFixed(1)} ${name}`
}

export const storageText = (): string => {
  const { date, cores, decisions, spansPerSecond, tables } = JSON.parse(
    readFileSync(new URL('storage.json', import.meta.url), 'utf8'),
  ) as StorageSummary
  const bytesPerDecision = tables.reduce((sum, { bytes }) => sum + bytes, 0) / decisions
  const sizes = decisionRates.map((rate) => {
    const kept = rate * secondsPerDay * retentionDays * bytesPerDecision
    const byDisk = Math.ceil(kept / bytesPerShardMax)
    const byRate = Math.ceil((rate * spansPerDecision) / spansPerSecond)
    return `| ${whole(rate)} | ${whole(rate * spansPerDecision * secondsPerDay)} | ${sized(kept / retentionDays)} | ${sized(kept)} | ${Math.max(byDisk, byRate)} |`
  })
  return [
    `Measured on ${date} with ${whole(decisions)} decisions of five candidates, one attempt each, random ids and prompts, merged`,
    `(\`npm run bench:storage\`): ${whole(bytesPerDecision)} bytes a decision in all, and ${whole(spansPerSecond)} spans a second stored, views and all, on a machine of`,
    `${cores} cores that also made them.`,
    '',
    '| table | rows a decision | bytes a row |',
    '|---|---|---|',
    ...tables.map(
      ({ table, rows, bytes }) => `| \`${table}\` | ${(rows / decisions).toFixed(2)} | ${whole(bytes / rows)} |`,
    ),
    '',
    `For ${retentionDays} days of everything, and shards of at most ${sized(bytesPerShardMax)} that each take what this machine took:`,
    '',
    '| decisions/s | spans a day | disk a day | disk kept | shards |',
    '|---|---|---|---|---|',
    ...sizes,
    '',
    'Disk is for one replica: twice that for two. A shard of a real server takes more than this machine does; payloads, where they are',
    'captured, come on top with their own time to live.',
  ].join('\n')
}
