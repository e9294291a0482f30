// `node bench/picture.ts FOLDER` draws docs/decision.svg, the picture in the README, from a decision that a demo run with
// `--folder FOLDER` left behind: one that excluded a candidate, and whose first choice failed.
import { writeFileSync } from 'node:fs'
import { text } from 'node:stream/consumers'
import { openEngine } from '../collector/engine.ts'
import { exclusionWords, reasonWords } from '../router/policy/explain.ts'
import { type DecisionRecord, decisionRecordSchema, propensityOf } from '../router/policy/record.ts'

const [, , folder = '.'] = process.argv
const [width, pad, rowHeight] = [920, 28, 30]

type Attempt = {
  number: number
  model: string
  provider: string
  status: number
  error: string
  start: number
  ms: number
  ttft: number | null
  cost: number | null
}

const engine = await openEngine(`${folder}/data`)
const rows = async <Row>(sql: string): Promise<Row[]> => {
  const { chunks } = await engine.run({ sql, format: 'JSONEachRow' })
  return (await text(chunks))
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Row)
}
const [found] = await rows<{ record: string; id: string; overhead: number }>(
  `SELECT record, toString(decision_id) AS id, overhead_ms AS overhead FROM otel.routing_decisions
   WHERE attempts = 2 AND outcome = 'ok' AND NOT explored AND arrayExists(e -> startsWith(e, 'rule'), candidates.exclusion)
   ORDER BY decision_id LIMIT 1`,
)
if (!found) throw new Error(`${folder} has no decision with an exclusion and a fallback`)
const record: DecisionRecord = decisionRecordSchema.parse(JSON.parse(found.record))
const attempts = await rows<Attempt>(
  `SELECT number, model, provider, http_status AS status, error_type AS error, duration_ms AS ms, ttft_ms AS ttft, cost_usd AS cost,
     toUnixTimestamp64Nano(attempt_time) / 1e6 - ${Date.parse(record.time)} AS start
   FROM otel.routing_attempts FINAL WHERE decision_id = '${found.id}' ORDER BY number`,
)
await engine.close()

const escaped = (value: string): string =>
  value.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')
const at = (x: number, y: number, value: string, style = ''): string =>
  `<text x="${x}" y="${y}" ${style}>${escaped(value)}</text>`
const quiet = 'fill="#667085"'
const bold = 'font-weight="600"'
const mono = 'font-family="ui-monospace,SFMono-Regular,Menlo,monospace" font-size="12"'
const end = 'text-anchor="end"'
const usd = (value: unknown): string => (typeof value === 'number' ? `$${value.toFixed(6)}` : 'unknown')

const parts: string[] = []
let y = 40
const tags = Object.entries(record.request.tags).map(([name, value]) => `${name}=${value}`)
parts.push(at(pad, y, `${record.request.model} → ${record.chosen}`, `${bold} font-size="18"`))
parts.push(at(width - pad, y, record.id, `${mono} ${quiet} ${end}`))
y += 22
parts.push(
  at(
    pad,
    y,
    `${record.request.input_tokens.toLocaleString('en-US')} input tokens · ${record.request.stream ? 'stream' : 'JSON'} · ${tags.join(' · ')} · policy ${record.policy.name} ${record.policy.hash.slice(7, 15)}`,
    quiet,
  ),
)
y += 36
const columns = { model: pad + 16, score: 284, bar: 312, percent: 490, cost: 590, ttft: 664 }
for (const [x, label, style] of [
  [columns.model, 'considered', ''],
  [columns.score, 'score', end],
  [columns.bar, 'probability', ''],
  [columns.cost, 'expected cost', end],
  [columns.ttft, 'TTFT', end],
] as const)
  parts.push(at(x, y, label, `${quiet} font-size="12" ${style}`))
for (const { model, eligible, exclusion, score, probability, features } of record.candidates) {
  y += rowHeight
  const chosen = model === record.chosen
  if (chosen)
    parts.push(
      `<rect x="${pad - 8}" y="${y - 20}" width="${width - 2 * pad + 16}" height="${rowHeight}" rx="6" fill="#ecfdf3"/>`,
    )
  const ink = eligible ? (chosen ? bold : '') : 'fill="#98a2b3" text-decoration="line-through"'
  if (chosen) parts.push(at(pad, y, '▸', 'fill="#079455"'))
  parts.push(at(columns.model, y, model, ink))
  parts.push(
    at(columns.score, y, score === null ? '–' : score.toFixed(3), `${end} ${eligible ? '' : 'fill="#98a2b3"'}`),
  )
  if (eligible) {
    parts.push(`<rect x="${columns.bar}" y="${y - 11}" width="120" height="12" rx="3" fill="#eaecf0"/>`)
    parts.push(
      `<rect x="${columns.bar}" y="${y - 11}" width="${(120 * probability).toFixed(1)}" height="12" rx="3" fill="${chosen ? '#079455' : '#84adff'}"/>`,
    )
    parts.push(at(columns.percent, y, `${(probability * 100).toFixed(1)} %`, end))
    parts.push(
      at(columns.cost, y, usd(features.cost_usd), end),
      at(columns.ttft, y, `${Number(features.ttft_ms).toFixed(0)} ms`, end),
    )
  } else if (exclusion) parts.push(at(columns.bar, y, exclusionWords(exclusion), 'fill="#b42318"'))
}
y += 44
const last = attempts.at(-1) as Attempt
const total = last.start + last.ms
const scale = (ms: number): number => columns.score + ((width - pad - columns.score) * ms) / total
parts.push(
  at(pad, y, 'attempts', `${quiet} font-size="12"`),
  at(width - pad, y, `${total.toFixed(0)} ms`, `${quiet} font-size="12" ${end}`),
)
for (const { number, model, provider, error, status, start, ms, ttft, cost } of attempts) {
  y += rowHeight
  const [from, to] = [scale(Math.max(0, start)), scale(start + ms)]
  parts.push(at(pad, y, `${number}  ${model}`, bold))
  parts.push(
    `<rect x="${from.toFixed(1)}" y="${y - 13}" width="${Math.max(2, to - from).toFixed(1)}" height="18" rx="4" fill="${error ? '#fda29b' : '#75e0a7'}"/>`,
  )
  if (ttft !== null)
    parts.push(`<rect x="${scale(start + ttft).toFixed(1)}" y="${y - 13}" width="2" height="18" fill="#085d3a"/>`)
  const firstContent = ttft === null ? [] : [`first content after ${ttft.toFixed(0)} ms`]
  const label = [provider, error || String(status), ...firstContent, `${ms.toFixed(0)} ms`, usd(cost)].join(' · ')
  // Beside its bar where the bar is too short for it.
  const fits = to - from > label.length * 6.5
  parts.push(fits ? at(from + 6, y, label, 'font-size="12"') : at(from - 6, y, label, `font-size="12" ${end}`))
}
y += 42
const { outcome, reason } = record
parts.push(
  at(
    pad,
    y,
    `${record.chosen} was chosen with probability ${propensityOf(record).toFixed(3)}, because ${reason ? reasonWords(reason) : ''};`,
  ),
)
y += 20
parts.push(
  at(
    pad,
    y,
    `it failed, ${outcome?.served} answered. Cost of both attempts ${usd(outcome?.cost_usd)}, router overhead ${found.overhead.toFixed(1)} ms.`,
  ),
)
const height = y + 26
const svg = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-label="One routing decision, explained" font-family="system-ui,-apple-system,'Segoe UI',sans-serif" font-size="14" fill="#101828">
<rect x="1" y="1" width="${width - 2}" height="${height - 2}" rx="12" fill="#fff" stroke="#d0d5dd"/>
${parts.join('\n')}
</svg>
`
writeFileSync(new URL('../docs/decision.svg', import.meta.url), svg)
