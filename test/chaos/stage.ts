// One small world for chaos: a provider that answers, a collector, a router in front of it, the weather between the two, and
// clients. A scenario does to it what it likes through the functions here, which remember what may be held against whom: a
// process that ends without having been told to is a failure, whatever the store says.
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { json, sse, startProvider } from '../scripted-provider.ts'
import { type ClockJump, clockFlags } from './clock.ts'
import { type Disk, smallDisk } from './disk.ts'
import { type Lag, openLag } from './lag.ts'
import { type Load, openLoad, type Run } from './load.ts'
import { launch, type Part } from './part.ts'
import { openWeather, type Weather } from './weather.ts'

export type Name = 'router' | 'collector'

/** Large enough for what a round stores, small enough to fill at once. */
const diskMegabytes = { data: 256, spool: 48 } as const
/** What the router waits for an answer, so that a slow collector is given up and asked again within a round. */
const exporterTimeoutMs = 3_000
const drainedMsMax = 120_000
const pollMs = 50

export type Counts = { readonly queued: number; readonly dropped: number; readonly refused: number }
/** What `/readyz` says of a router's telemetry. */
export type Readiness = {
  readonly spans: Counts & { readonly epoch: string; readonly decisions: number; readonly diskErrors: number }
  readonly events: Counts
}

export type Stage = {
  readonly folder: string
  readonly spoolFolder: string
  readonly journalFolder: string
  /** Present where the stage was opened with small disks. */
  readonly disks: Readonly<Record<keyof typeof diskMegabytes, Disk>> | null
  readonly weather: Weather
  readonly load: Load
  /** Decisions whose record a scenario destroyed on the disk; they cannot be asked for again. */
  readonly destroyed: Set<string>
  /** Files that a scenario damaged, from which a router may refuse what cannot be read. */
  damaged: number
  /** What went wrong that no query shows. */
  readonly failures: string[]
  readonly collectorUrl: () => string
  /** Starts a part, and resolves when it is ready. */
  readonly start: (name: Name) => Promise<void>
  /** Starts a part and kills it after so long, ready or not. */
  readonly stumble: (name: Name, afterMs: number) => Promise<void>
  readonly kill: (name: Name) => Promise<void>
  readonly stop: (name: Name) => Promise<void>
  readonly signal: (name: Name, signal: NodeJS.Signals) => void
  readonly jumpClock: (name: Name, ms: number) => void
  /** Starts a second part on the same folder; how it ended, and the end of what it said. */
  readonly rival: (name: Name) => Promise<{ readonly how: string; readonly logFile: string }>
  readonly readiness: () => Promise<Readiness>
  /** Waits until the collector has everything that was recorded so far. */
  readonly drained: () => Promise<Readiness>
  readonly close: (keep: boolean) => Promise<void>
}

const configText = (folder: string, providerUrl: string): string => `
listen: { port: 0 }
telemetry: { spool: { folder: spool } }
capture: { mode: full }
policy: { name: p, choose: { kind: weighted, weights: { one: 2, two: 1 } } }
providers: [{ name: p, kind: openai, base_url: "${providerUrl}/v1" }]
models: [{ name: one, provider: p }, { name: two, provider: p }]
collector: { data: "${join(folder, 'data')}", otlp_port: 0, clickhouse_port: 0 }`

const disksIn = (folder: string): Stage['disks'] => {
  const data = smallDisk(join(folder, 'data'), diskMegabytes.data)
  const spool = data && smallDisk(join(folder, 'spool'), diskMegabytes.spool)
  if (data && !spool) data.close(false)
  return data && spool && { data, spool }
}

/** What is running, and what ended of itself. */
const partsIn = (folder: string, weather: Weather, failures: string[], lag: Lag) => {
  const running: Record<Name, { readonly part: Part; readonly urls: Readonly<Record<string, string>> } | null> = {
    router: null,
    collector: null,
  }
  let run: Run | null = null
  const begin = (name: Name, log: string = name): Part =>
    launch({
      args: [
        name,
        '--config',
        join(folder, 'signalbox.yaml'),
        '--log-level',
        'info',
        ...(name === 'router' ? ['--otlp-url', weather.url] : []),
      ],
      logFile: join(folder, `${log}.log`),
      flags: clockFlags,
      env: { OTEL_EXPORTER_OTLP_TIMEOUT: String(exporterTimeoutMs) },
    })
  const start = async (name: Name): Promise<void> => {
    const part = begin(name)
    const urls = await part.ready.catch((error) => {
      part.process.kill('SIGKILL')
      throw error
    })
    running[name] = { part, urls }
    if (name === 'collector') weather.collectorUrl = urls.otlpUrl as string
    else run = { url: urls.routerUrl as string, killedAtMs: null, lagMs: 0 }
    void part.ended.then((how) => {
      if (running[name]?.part === part) failures.push(`${name} ended of itself with ${how}`)
    })
  }
  const take = (name: Name): Part => {
    const { part } = running[name] as { readonly part: Part }
    running[name] = null
    return part
  }
  const kill = async (name: Name): Promise<void> => {
    const part = take(name)
    if (name === 'router' && run) {
      run.killedAtMs = performance.now()
      run.lagMs = lag.maxMs()
      part.process.kill('SIGKILL')
      run = null
    } else part.process.kill('SIGKILL')
    await part.ended
  }
  const stop = async (name: Name): Promise<void> => {
    if (name === 'router') run = null
    const how = await take(name).stop()
    if (how !== 'exit code 0') failures.push(`${name} was told to stop and ended with ${how}`)
  }
  return { running, begin, start, take, kill, stop, runNow: () => run }
}

/** Builds the world in a folder, and starts all of it. Null where small disks are wanted and cannot be had. */
export const openStage = async (folder: string, withSmallDisks: boolean): Promise<Stage | null> => {
  await mkdir(folder, { recursive: true })
  const disks = withSmallDisks ? disksIn(folder) : null
  if (withSmallDisks && !disks) return null
  const provider = await startProvider((response, asked) =>
    asked.body.stream ? sse(['an', ' answer'])(response, asked) : json('an answer')(response, asked),
  )
  await writeFile(join(folder, 'signalbox.yaml'), configText(folder, provider.url))
  const weather = await openWeather()
  const failures: string[] = []
  const lag = openLag()
  const parts = partsIn(folder, weather, failures, lag)
  const { running, begin, start } = parts
  const load = openLoad(parts.runNow)
  const routerUrl = (): string => running.router?.urls.routerUrl ?? ''
  const readiness = async () => (await (await fetch(`${routerUrl()}/readyz`)).json()) as Readiness
  const drained = async (): Promise<Readiness> => {
    await weather.settled()
    const deadline = performance.now() + drainedMsMax
    for (;;) {
      const now = await readiness()
      if (now.spans.queued + now.events.queued === 0) return now
      if (performance.now() > deadline) throw new Error(`not delivered in ${drainedMsMax} ms: ${JSON.stringify(now)}`)
      await sleep(pollMs)
    }
  }
  let rivals = 0
  const close = async (keep: boolean): Promise<void> => {
    await load.stop()
    for (const name of ['router', 'collector'] as const) {
      if (!running[name]) continue
      const part = parts.take(name)
      part.process.kill('SIGKILL')
      await part.ended
    }
    lag.close()
    weather.close()
    await provider.close()
    for (const disk of Object.values(disks ?? {})) disk.close(keep)
  }
  try {
    await start('collector')
    await start('router')
  } catch (error) {
    await close(true)
    throw error
  }
  return {
    folder,
    spoolFolder: join(folder, 'spool'),
    journalFolder: join(folder, 'data', 'journal'),
    disks,
    weather,
    load,
    destroyed: new Set(),
    damaged: 0,
    failures,
    collectorUrl: () => running.collector?.urls.clickhouseUrl ?? '',
    start,
    stumble: async (name, afterMs) => {
      const part = begin(name)
      await sleep(afterMs)
      part.process.kill('SIGKILL')
      await part.ended
    },
    kill: parts.kill,
    stop: parts.stop,
    signal: (name, signal) => void running[name]?.part.process.kill(signal),
    jumpClock: (name, clockJumpMs) => void running[name]?.part.process.send({ clockJumpMs } satisfies ClockJump),
    rival: async (name) => {
      rivals += 1
      const log = `rival-${rivals}`
      const part = begin(name, log)
      const how = await Promise.race([part.ended, part.ready.then(() => 'ready')])
      part.process.kill('SIGKILL')
      await part.ended
      return { how, logFile: join(folder, `${log}.log`) }
    },
    readiness,
    drained,
    close,
  }
}
