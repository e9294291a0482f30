// Records what the official OpenTelemetry Collector stores: `node bench/official.ts OTELCOL`, with the path of an
// otelcol-contrib of the version in docker-compose.yml. It runs with collector/otelcol.yaml as it is, but for addresses and the
// wait for a full batch, and writes through the embedded engine's front; `test/official.test.ts` holds our collector to what it stored.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { gzipSync } from 'node:zlib'
import { post, temporaryCollector, temporaryFolder } from '../test/collector-fixtures.ts'
import { officialRequests } from '../test/official-requests.ts'
import { fixture, isBase, type Request, storedIn, tablesOf } from '../test/official-stage.ts'

const port = 14318
const startMsMax = 20_000
const storedMsMax = 60_000
const pollMs = 250

const configOf = async (folder: string, clickhouseUrl: string): Promise<string> =>
  (await readFile(new URL('../collector/otelcol.yaml', import.meta.url), 'utf8'))
    .replaceAll('/var/lib/otelcol/queue', join(folder, 'queue'))
    .replace('0.0.0.0:4318', `127.0.0.1:${port}`)
    .replace('clickhouse://clickhouse:9000', clickhouseUrl)
    .replace('username: signalbox', 'username: default')
    .replaceAll('flush_timeout: 5s', 'flush_timeout: 200ms')

const until = async (what: string, msMax: number, done: () => Promise<boolean>): Promise<void> => {
  for (const deadline = Date.now() + msMax; Date.now() < deadline; await sleep(pollMs)) {
    if (await done().catch(() => false)) return
  }
  throw new Error(`${what}: not within ${msMax} ms`)
}

const [binary] = process.argv.slice(2)
if (binary === undefined) throw new Error('usage: node bench/official.ts OTELCOL')
const requests: readonly Request[] = officialRequests()
const collector = await temporaryCollector()
const folder = await temporaryFolder()
const config = join(folder.path, 'otelcol.yaml')
await writeFile(config, await configOf(folder.path, collector.clickhouseUrl))
const official = spawn(binary, [`--config=${config}`], { stdio: 'inherit', env: { CLICKHOUSE_PASSWORD: '' } })
try {
  const otlpUrl = `http://127.0.0.1:${port}`
  const send = async ({ signal, request }: Request): Promise<boolean> => {
    const { status, text } = await post({ otlpUrl }, JSON.stringify(request), {}, `/v1/${signal}`)
    if (status !== 200) throw new Error(`the official collector answered ${status}: ${text}`)
    return true
  }
  await until('the official collector starts', startMsMax, () => send({ signal: 'traces', request: {} }))
  for (const request of requests) await send(request)
  const tables = await tablesOf(collector)
  const counts = async () =>
    (await Promise.all(tables.map(({ name, engine }) => storedIn(collector, name, engine)))).map(({ length }) => length)
  let before: number[] = []
  await until('every row is stored', storedMsMax, async () => {
    const now = await counts()
    const still = now.join() === before.join() && now.some((count) => count > 0)
    before = now
    return still
  })
  const lines: object[] = [...requests]
  for (const { name, engine } of tables.filter((table) => isBase(table.name) || table.name === 'captured_payloads')) {
    for (const row of await storedIn(collector, name, engine)) lines.push({ table: name, row })
  }
  await writeFile(fixture, gzipSync(lines.map((line) => `${JSON.stringify(line)}\n`).join(''), { level: 9 }))
  process.stdout.write(
    `${requests.length} requests, ${tables.map(({ name }, i) => `${name} ${before[i]}`).join(', ')}\n`,
  )
} finally {
  official.kill('SIGTERM')
  await once(official, 'exit')
  await collector.close()
  await folder.remove()
}
