// `npm run bench:replay`: how fast a captured log is decided again and estimated, from ClickHouse to the verdict, in memory and
// time that the operating system saw. Beyond a million decisions once only. Each figure is one process of its own; the store is another. Sizes grow tenfold, so that
// the growth is seen. Numbers go to bench/replay.json and, by script, to the docs.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { availableParallelism, cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { openSource } from '../replay/read/source.ts'
import type { Engine } from '../replay/redecide/engine.ts'
import { replayDefaults, replaySource } from '../replay/run.ts'
import { parsePolicy } from '../router/policy/policy.ts'
import { candidateTexts, fill, multiply, selectSql } from './replay-log.ts'

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
  /** CPU of the store meanwhile. */
  storeCpuS: number
}

/** The SQL engine beside a SELECT that sums every column it reads, once for a whole replay. */
type Compared = Measured & { readonly selectWallS: number; readonly selectCpuS: number }

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
    storeCpuS: 0,
  }
  process.stdout.write(`${JSON.stringify(measured)}\n`)
}

const script = fileURLToPath(import.meta.url)

const outputOf = async (args: readonly string[]): Promise<string> => {
  // As the command does, which keeps what was compiled.
  const env = { ...process.env, NODE_COMPILE_CACHE: join(tmpdir(), 'signalbox-bench-compiled') }
  const child = spawn(process.execPath, [script, ...args], { stdio: ['ignore', 'pipe', 'inherit'], env })
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

/** CPU seconds of the store so far. */
const cpuOf = async (store: ChildProcess): Promise<number> => {
  store.send('cpu')
  const [{ user, system }] = (await once(store, 'message')) as [NodeJS.CpuUsage]
  return (user + system) / 1e6
}

const medianOf = <Name extends string>(found: readonly Record<Name, number>[], name: Name): number =>
  median(found.map((one) => one[name]))

const run = async (
  store: ChildProcess,
  url: string,
  rows: number,
  withReplicates: number,
  engine: Engine,
): Promise<Measured> => {
  const found: Measured[] = []
  for (let round = 0; round < (rows > madeMax ? 1 : rounds); round++) {
    const beforeS = await cpuOf(store)
    const text = await outputOf(['measure', url, endOf(rows), String(withReplicates), engine])
    const last: Measured = { ...JSON.parse(text), storeCpuS: (await cpuOf(store)) - beforeS }
    found.push(last)
    const perSecond = Math.round((last.rows * last.candidates) / last.wallS).toLocaleString('en-US')
    process.stderr.write(
      `${rows} rows, ${engine}, ${withReplicates} replicates: ${last.wallS.toFixed(1)} s, ${perSecond} decisions/s, ${last.memoryMb.toFixed(0)} MB, CPU ${last.cpuS.toFixed(1)} s and ${last.storeCpuS.toFixed(1)} s of the store\n`,
    )
  }
  const of = (name: 'wallS' | 'cpuS' | 'memoryMb' | 'storeCpuS') => medianOf(found, name)
  return {
    ...(found[0] as Measured),
    wallS: of('wallS'),
    cpuS: of('cpuS'),
    memoryMb: of('memoryMb'),
    storeCpuS: of('storeCpuS'),
  }
}

/** Runs the SELECT, and says how many times as long the replay takes: as a whole, and for each of its candidates. */
const compare = async (store: ChildProcess, url: string, measured: Measured): Promise<Compared> => {
  const source = openSource(url, { to: endOf(measured.rows) })
  const ask = source.ask as NonNullable<typeof source.ask>
  const found: { wallS: number; cpuS: number }[] = []
  for (let round = 0; round < rounds; round++) {
    const [startMs, beforeS] = [performance.now(), await cpuOf(store)]
    await ask(selectSql)
    found.push({ wallS: (performance.now() - startMs) / 1000, cpuS: (await cpuOf(store)) - beforeS })
  }
  await source.close()
  const compared = { ...measured, selectWallS: medianOf(found, 'wallS'), selectCpuS: medianOf(found, 'cpuS') }
  const [wall, cpu] = [measured.wallS / compared.selectWallS, measured.storeCpuS / compared.selectCpuS]
  const each = (ratio: number) =>
    `${ratio.toFixed(1)} x as a whole, ${(ratio / measured.candidates).toFixed(1)} x a candidate`
  process.stderr.write(
    `${measured.rows} rows, a SELECT of the same columns: ${compared.selectWallS.toFixed(2)} s, CPU ${compared.selectCpuS.toFixed(2)} s; SQL takes ${each(wall)}; in CPU ${each(cpu)}\n`,
  )
  return compared
}

const results = new URL('./replay.json', import.meta.url)
type Summary = { readonly measured: readonly (Measured | Compared)[] }

/** Puts a figure in the place of the one that was measured so before. */
const keep = (found: Measured | Compared): void => {
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
    stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
  })
  try {
    const [line] = (await once(store.stdout as Readable, 'data')) as [Buffer]
    const url = line.toString().trim()
    const most = Math.max(...sizes)
    const made = Math.min(most, madeMax)
    await fill(url, 0, made, (rows) => process.stderr.write(`\r${rows} decisions made`))
    process.stderr.write('\n')
    if (most > made) await multiply(url, made, Math.ceil(most / made))
    for (const rows of sizes) {
      keep(await compare(store, url, await run(store, url, rows, 0, 'sql')))
      for (const count of rows > madeMax ? [0] : [0, replicates]) keep(await run(store, url, rows, count, 'js'))
    }
  } finally {
    store.kill('SIGTERM')
    await once(store, 'close')
  }
}

const [task, url = '', to = '', count = '0', engine = 'js'] = process.argv.slice(2)
if (task === 'measure') await measure(url, to, Number(count), engine as Engine)
else await main()
