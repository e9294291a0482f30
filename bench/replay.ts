// `npm run bench:replay`: how fast a captured log is decided again and estimated, from ClickHouse to the verdict, in memory and
// time that the operating system saw. Beyond a million decisions once only. Each figure is one process of its own; the store is another. Sizes grow tenfold, so that
// the growth is seen. Numbers go to bench/replay.json and, by script, to the docs.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { availableParallelism, cpus } from 'node:os'
import { fileURLToPath } from 'node:url'
import { openSource } from '../replay/read/source.ts'
import type { Engine } from '../replay/redecide/engine.ts'
import { replayDefaults, replaySource } from '../replay/run.ts'
import { parsePolicy } from '../router/policy/policy.ts'
import { candidateTexts, fill, multiply } from './replay-log.ts'

const sizes = (process.env.SIZES ?? '100000,1000000').split(',').map(Number)
/** Beyond this many, decisions are copies of these under other ids, because to make them takes longer than to replay them. */
const madeMax = 1_000_000
/** Median of so many runs; of one beyond a million decisions. */
const rounds = 3
const replicates = 1000

type Measured = {
  engine: Engine
  rows: number
  candidates: number
  replicates: number
  reproduced: number
  wallS: number
  cpuS: number
  memoryMb: number
}

/** Runs in a process of its own: the whole of `replay run`, but for printing. */
const measure = async (url: string, to: string, withReplicates: number, engine: Engine): Promise<void> => {
  const source = openSource(url, { to })
  const startMs = performance.now()
  const policies = await source.policies()
  const results = await replaySource(
    source,
    policies,
    ({ features }) => candidateTexts.map((text) => parsePolicy(text, features)),
    { ...replayDefaults, replicates: withReplicates },
    { engine },
  )
  const wallS = (performance.now() - startMs) / 1000
  await source.close()
  const { userCPUTime, systemCPUTime, maxRSS } = process.resourceUsage()
  const measured: Measured = {
    engine,
    rows: results[0]?.rows ?? 0,
    candidates: results.length,
    replicates: withReplicates,
    reproduced: results[0]?.verification.reproduced ?? 0,
    wallS,
    cpuS: (userCPUTime + systemCPUTime) / 1e6,
    memoryMb: maxRSS / 1024,
  }
  process.stdout.write(`${JSON.stringify(measured)}\n`)
}

const script = fileURLToPath(import.meta.url)

const outputOf = async (args: readonly string[]): Promise<string> => {
  const child = spawn(process.execPath, [script, ...args], { stdio: ['ignore', 'pipe', 'inherit'] })
  let text = ''
  child.stdout.setEncoding('utf8').on('data', (part: string) => {
    text += part
  })
  const [code] = await once(child, 'close')
  if (code !== 0) throw new Error(`${args.join(' ')} ended with ${code}`)
  return text
}

/** The end of the first `rows` decisions. */
const endOf = (rows: number): string => new Date(Date.UTC(2026, 9, 1) + rows * 600).toISOString()

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1] as number

const run = async (url: string, rows: number, withReplicates: number, engine: Engine): Promise<Measured> => {
  const found: Measured[] = []
  for (let round = 0; round < (rows > madeMax ? 1 : rounds); round++) {
    found.push(JSON.parse(await outputOf(['measure', url, endOf(rows), String(withReplicates), engine])) as Measured)
    const last = found.at(-1) as Measured
    const perSecond = Math.round((last.rows * last.candidates) / last.wallS).toLocaleString('en-US')
    process.stderr.write(
      `${rows} rows, ${engine}, ${withReplicates} replicates: ${last.wallS.toFixed(1)} s, ${perSecond} decisions/s, ${last.memoryMb.toFixed(0)} MB\n`,
    )
  }
  const first = found[0] as Measured
  const of = (name: 'wallS' | 'cpuS' | 'memoryMb') => median(found.map((one) => one[name]))
  return { ...first, wallS: of('wallS'), cpuS: of('cpuS'), memoryMb: of('memoryMb') }
}

const results = new URL('./replay.json', import.meta.url)
type Summary = { readonly measured: readonly Measured[] }

/** Puts a figure in the place of the one that was measured so before. */
const keep = (found: Measured): void => {
  const before = existsSync(results) ? (JSON.parse(readFileSync(results, 'utf8')) as Summary).measured : []
  const isSame = (one: Measured) =>
    one.rows === found.rows && one.engine === found.engine && one.replicates === found.replicates
  const order = ({ rows, engine, replicates: count }: Measured) =>
    rows * 10 + (engine === 'sql' ? 5 : Number(count > 0))
  const summary = {
    node: `Node ${process.versions.node}`,
    cores: availableParallelism(),
    cpu: cpus()[0]?.model ?? '',
    date: new Date().toISOString().slice(0, 10),
    rounds,
    measured: [...before.filter((one) => !isSame(one)), found].sort((a, b) => order(a) - order(b)),
  }
  writeFileSync(results, `${JSON.stringify(summary, null, 2)}\n`)
}

const main = async (): Promise<void> => {
  const store = spawn(process.execPath, [fileURLToPath(new URL('replay-log.ts', import.meta.url))], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  try {
    const [line] = (await once(store.stdout, 'data')) as [Buffer]
    const url = line.toString().trim()
    const most = Math.max(...sizes)
    const made = Math.min(most, madeMax)
    await fill(url, 0, made, (rows) => process.stderr.write(`\r${rows} decisions made`))
    process.stderr.write('\n')
    if (most > made) await multiply(url, made, Math.ceil(most / made))
    for (const rows of sizes) {
      keep(await run(url, rows, 0, 'sql'))
      for (const count of rows > madeMax ? [0] : [0, replicates]) keep(await run(url, rows, count, 'js'))
    }
  } finally {
    store.kill('SIGTERM')
    await once(store, 'close')
  }
}

const [task, url = '', to = '', count = '0', engine = 'js'] = process.argv.slice(2)
if (task === 'measure') await measure(url, to, Number(count), engine as Engine)
else await main()
