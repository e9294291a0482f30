// `npm run bench:collector`: what a span costs the collector from the bytes of a request to rows in the table, views and all,
// in CPU microseconds of its whole process, beside what chdb takes for the same rows handed to it directly as JSONEachRow.
// `--minutes 10` drives it for that long instead, and shows spans/s and memory as it goes.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { Agent, request } from 'node:http'
import { cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import { pino } from 'pino'
import { openEngine } from '../collector/engine.ts'
import { migrate } from '../collector/migrate.ts'
import { carefulTraces } from '../collector/otlp-traces.ts'
import { startCollector } from '../collector/server.ts'
import { embeddedStore } from '../collector/store.ts'
import { type Attributes, toAttributes } from '../router/policy/attributes.ts'
import { recordOf } from '../router/policy/record.ts'
import { jsonRequest, jsonSpan, otlpAttributes } from '../test/collector-fixtures.ts'
import { encode } from '../test/otlp-oracle.ts'
import { contextOf, productionOf } from './replay-log.ts'

const ticksPerSecond = 100
const attributesOfSpan = 40
/** Different bodies of one kind and size; each is sent many times, as another batch each time. */
const bodiesMax = 8
const bytesInFlight = 24 * 1024 * 1024
const connectionsMax = 64
const bytesPerSpan = 3200
const barePerInsertMax = 10_000

const { values: options } = parseArgs({
  options: {
    minutes: { type: 'string', default: '0' },
    seconds: { type: 'string', default: '6' },
    batch: { type: 'string' },
    fsync: { type: 'string', default: 'true' },
    json: { type: 'boolean', default: false },
    serve: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
})

type Kind = 'plain' | 'decision'
type Wire = 'json' | 'protobuf'
const words = ['openai', 'gpt-5-mini', 'POST', 'https', 'balanced', 'eu-central-1', 'chosen by score', 'complete']

/** Whole numbers, doubles, words that repeat and values that do not, a quarter each. */
const plainAttributes = (at: number): Attributes =>
  Object.fromEntries(
    Array.from({ length: attributesOfSpan }, (_, index) => {
      const values = [
        (at * (index + 1)) % 100_000,
        at / 7 + 0.5,
        words[(at + index) % words.length],
        `value-${at * 31}`,
      ]
      return [`app.attribute.number_${index}`, values[index % values.length] ?? '']
    }),
  )
const production = productionOf()
const decisionAttributes = (at: number): Attributes => {
  const context = contextOf(at)
  return { ...toAttributes(recordOf(context, production.decide(context))), 'http.response.status_code': 200 }
}

let made = 0
const spanOf = (kind: Kind): Record<string, unknown> => {
  made += 1
  return kind === 'plain'
    ? jsonSpan({ name: `GET /things/${made % 20}`, kind: 3, attributes: otlpAttributes(plainAttributes(made)) })
    : jsonSpan({ name: 'POST /v1/chat/completions', kind: 2, attributes: otlpAttributes(decisionAttributes(made)) })
}
const requestOf = (kind: Kind, batch: number): string =>
  jsonRequest(...Array.from({ length: batch }, () => spanOf(kind)))

/** CPU seconds of a process so far, all threads, user and system; and the bytes it holds. */
const usageOf = ({ pid }: ChildProcess): { readonly cpuSeconds: number; readonly rssBytes: number } => {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? []
  const pages = Number(readFileSync(`/proc/${pid}/statm`, 'utf8').split(' ')[1])
  return { cpuSeconds: (Number(fields[11]) + Number(fields[12])) / ticksPerSecond, rssBytes: pages * 4096 }
}

let batches = 0
/** Sends a body as a new batch. */
const send = (agent: Agent, url: string, wire: Wire, body: Buffer): Promise<void> =>
  new Promise((resolve, reject) => {
    batches += 1
    const headers = {
      'content-type': wire === 'json' ? 'application/json' : 'application/x-protobuf',
      'content-length': body.length,
      'x-signalbox-batch': `bench-${process.pid}-${batches}`,
    }
    const post = request(`${url}/v1/traces`, { method: 'POST', agent, headers }, (response) => {
      response.resume()
      response.once('end', () =>
        response.statusCode === 200 ? resolve() : reject(new Error(`the collector answered ${response.statusCode}`)),
      )
    })
    post.once('error', reject)
    post.end(body)
  })

type Rate = { readonly spansPerSecond: number; readonly cpuMicrosPerSpan: number }
type Running = { readonly child: ChildProcess; readonly url: string; readonly stop: () => Promise<void> }

const start = async (mode: 'collector' | 'bare'): Promise<Running> => {
  const folder = await mkdtemp(join(tmpdir(), 'signalbox-bench-'))
  const args = [
    '--max-semi-space-size=32',
    import.meta.filename,
    '--serve',
    `${mode}:${folder}`,
    '--fsync',
    options.fsync,
  ]
  const child = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'inherit'] })
  const [url] = (await once(createInterface(child.stdout), 'line')) as [string]
  const stop = async (): Promise<void> => {
    child.stdin.end()
    await once(child, 'exit')
    await rm(folder, { recursive: true, force: true })
  }
  return { child, url, stop }
}

/** Keeps the collector busy; `onSecond` hears of every second. */
const drive = async (
  { child, url }: Running,
  { kind, wire, batch, seconds }: { kind: Kind; wire: Wire; batch: number; seconds: number },
  onSecond: (spansPerSecond: number) => void = () => {},
): Promise<Rate> => {
  const count = Math.max(1, Math.min(bodiesMax, Math.ceil(20_000 / batch)))
  const bodies = Array.from({ length: count }, () => {
    const text = requestOf(kind, batch)
    return wire === 'json' ? Buffer.from(text) : Buffer.from(encode('Traces', JSON.parse(text)))
  })
  const connections = Math.max(2, Math.min(connectionsMax, Math.floor(bytesInFlight / (batch * bytesPerSpan))))
  const agent = new Agent({ keepAlive: true, maxSockets: connections })
  const run = async (forSeconds: number): Promise<number> => {
    const end = performance.now() + forSeconds * 1000
    let spans = 0
    const lanes = Array.from({ length: connections }, async (_, lane) => {
      for (let at = lane; performance.now() < end; at++) {
        await send(agent, url, wire, bodies[at % bodies.length] as Buffer)
        spans += batch
      }
    })
    let before = 0
    const timer = setInterval(() => {
      onSecond(spans - before)
      before = spans
    }, 1000)
    await Promise.all(lanes).finally(() => clearInterval(timer))
    return spans
  }
  await run(1)
  const before = usageOf(child)
  const startedAt = performance.now()
  const spans = await run(seconds)
  const elapsed = (performance.now() - startedAt) / 1000
  agent.destroy()
  return {
    spansPerSecond: spans / elapsed,
    cpuMicrosPerSpan: ((usageOf(child).cpuSeconds - before.cpuSeconds) * 1e6) / spans,
  }
}

/** The same rows by the shortest way: one insert after another, of so many rows each. */
const driveBare = async ({ child }: Running, kind: Kind, rows: number, seconds: number): Promise<Rate> => {
  const lines = createInterface(child.stdout as NodeJS.ReadableStream)
  const tell = async (forSeconds: number): Promise<number> => {
    child.stdin?.write(`${JSON.stringify({ kind, rows, seconds: forSeconds })}\n`)
    const [answer] = (await once(lines, 'line')) as [string]
    return Number(answer)
  }
  await tell(1)
  const before = usageOf(child)
  const startedAt = performance.now()
  const spans = await tell(seconds)
  const elapsed = (performance.now() - startedAt) / 1000
  lines.close()
  return {
    spansPerSecond: spans / elapsed,
    cpuMicrosPerSpan: ((usageOf(child).cpuSeconds - before.cpuSeconds) * 1e6) / spans,
  }
}

const serve = async (mode: string, folder: string): Promise<void> => {
  if (mode === 'collector') {
    const log = pino({ level: 'warn' }, pino.destination(2))
    const fsync = options.fsync === 'true'
    const collector = await startCollector({ otlpPort: 0, clickhousePort: 0, dataFolder: folder, fsync, log })
    process.stdout.write(`${collector.otlpUrl}\n`)
    await once(process.stdin.resume(), 'end')
    await collector.close()
    return
  }
  const engine = await openEngine(folder)
  await migrate(embeddedStore(engine))
  process.stdout.write('ready\n')
  let inserts = 0
  for await (const line of createInterface(process.stdin)) {
    const { kind, rows, seconds } = JSON.parse(line) as { kind: Kind; rows: number; seconds: number }
    const bytes = carefulTraces.json(Buffer.from(requestOf(kind, rows))).tables[0]?.rows ?? Buffer.alloc(0)
    const end = performance.now() + seconds * 1000
    let spans = 0
    for (; performance.now() < end; spans += rows) await engine.insert('otel.otel_traces', bytes, `bare-${++inserts}`)
    process.stdout.write(`${spans}\n`)
  }
  await engine.close()
}

const print = (text: string): void => void process.stdout.write(`${text}\n`)
const shown = ({ spansPerSecond, cpuMicrosPerSpan }: Rate): string =>
  `${Math.round(spansPerSecond).toLocaleString('en').padStart(8)} spans/s ${cpuMicrosPerSpan.toFixed(1).padStart(7)} µs`

const table = async (): Promise<void> => {
  const seconds = Number(options.seconds)
  const sizes = options.batch ? [Number(options.batch)] : [1, 10, 100, 1000, 5000]
  const results: object[] = []
  for (const kind of ['plain', 'decision'] as const) {
    for (const batch of kind === 'plain' ? sizes : sizes.filter((size) => size >= 100)) {
      const collector = await start('collector')
      const json = await drive(collector, { kind, wire: 'json', batch, seconds })
      const protobuf = await drive(collector, { kind, wire: 'protobuf', batch, seconds })
      await collector.stop()
      const bareProcess = await start('bare')
      const bare = await driveBare(bareProcess, kind, batch, seconds)
      const bareLarge = await driveBare(bareProcess, kind, barePerInsertMax, seconds)
      await bareProcess.stop()
      results.push({ kind, batch, json, protobuf, bare, bareLarge })
      print(`${kind.padEnd(8)} ${String(batch).padStart(5)}  json ${shown(json)}  protobuf ${shown(protobuf)}`)
      print(`${' '.repeat(15)} bare ${shown(bare)}  bare ×${barePerInsertMax} ${shown(bareLarge)}`)
    }
  }
  keep({ node: process.version, cores: cpus().length, date: today(), fsync: options.fsync === 'true', results })
}

const file = new URL('collector.json', import.meta.url)
const today = (): string => new Date().toISOString().slice(0, 10)
/** Adds what was measured to what earlier runs left. */
const keep = (measured: object): void => {
  const before = existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as object) : {}
  writeFileSync(file, `${JSON.stringify({ ...before, ...measured }, null, 2)}\n`)
  if (options.json) print(JSON.stringify(measured, null, 2))
}

/** Memory must not grow: it is shown every ten seconds. */
const soak = async (minutes: number): Promise<void> => {
  const collector = await start('collector')
  let second = 0
  const memoryMb: number[] = []
  const onSecond = (spansPerSecond: number): void => {
    second += 1
    if (second % 10 !== 0) return
    const megabytes = Math.round(usageOf(collector.child).rssBytes / 2 ** 20)
    memoryMb.push(megabytes)
    print(
      `${String(second).padStart(5)} s ${Math.round(spansPerSecond).toLocaleString('en').padStart(8)} spans/s ${megabytes} MiB`,
    )
  }
  const load = { kind: 'plain', wire: 'json', batch: Number(options.batch ?? 500), seconds: minutes * 60 } as const
  const rate = await drive(collector, load, onSecond)
  print(shown(rate))
  const half = memoryMb.length >> 1
  const [firstHalfMb, secondHalfMb] = [memoryMb.slice(0, half), memoryMb.slice(half)].map((part) => Math.max(...part))
  keep({ soak: { minutes, batch: load.batch, ...rate, firstHalfMb, secondHalfMb, date: today() } })
  await collector.stop()
}

if (options.serve !== undefined) {
  const [mode = '', folder = ''] = options.serve.split(/:(.*)/)
  await serve(mode, folder)
} else if (options.help) {
  print('node bench/collector.ts [--batch N] [--seconds N] [--minutes N] [--fsync true|false] [--json]')
} else if (Number(options.minutes) > 0) await soak(Number(options.minutes))
else await table()
