// Collector and router as child processes of one command: the embedded engine and the request path do not share a heap
// or an event loop, and one can be killed without the other. Each child says over IPC when it is ready and where.
import { type ChildProcess, spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'

/** How long a child may take to get ready, and to stop: a router may have a backlog of spans to deliver. */
const readyMsMax = 60_000
const stopMsMax = 120_000
/** A larger young generation spares the router collections while requests wait. */
const routerFlags = ['--max-semi-space-size=32']

const launcher = fileURLToPath(
  new URL(import.meta.url.endsWith('.ts') ? '../signalbox.js' : '../../signalbox.js', import.meta.url),
)

export type CollectorUrls = { readonly otlpUrl: string; readonly clickhouseUrl: string }
export type RouterUrls = { readonly routerUrl: string }

/** A running child; `ended` resolves when it is gone, expected or not. */
export type Child<Urls> = {
  readonly urls: Urls
  readonly process: ChildProcess
  readonly ended: Promise<string>
  readonly stop: () => Promise<void>
}

export class ChildError extends Error {
  readonly code = 'child-failed'
}

type Start = {
  readonly configFile: string
  readonly logLevel: string
  /** Where the child's log goes; a command that prints a result keeps its own output clean. */
  readonly logTo?: 'stdout' | 'stderr'
}

const start = async <Urls>(name: string, flags: readonly string[], options: Start, args: readonly string[]) => {
  const { configFile, logTo = 'stdout' } = options
  const command = [...flags, launcher, name, '--config', configFile, ...args]
  const child = spawn(process.execPath, command, {
    stdio: ['ignore', logTo === 'stdout' ? 1 : 2, 2, 'ipc'],
  })
  const ended = new Promise<string>((resolve) => {
    child.once('exit', (code, signal) => resolve(`${name} ended with ${signal ?? `exit code ${code}`}`))
    child.once('error', (error) => resolve(`${name} could not be started: ${error.message}`))
  })
  const stop = async (): Promise<void> => {
    if (child.exitCode !== null || child.signalCode !== null) return
    const timer = setTimeout(() => child.kill('SIGKILL'), stopMsMax)
    child.kill('SIGTERM')
    await ended
    clearTimeout(timer)
  }
  const ready = new Promise<Urls>((resolve) => {
    child.once('message', (message) => resolve(message as Urls))
  })
  const { promise: late, reject } = Promise.withResolvers<never>()
  const timer = setTimeout(() => reject(new ChildError(`${name} was not ready within ${readyMsMax} ms`)), readyMsMax)
  const failed = ended.then((how) => Promise.reject(new ChildError(`${how} before it was ready; its log says why`)))
  try {
    const urls = await Promise.race([ready, failed, late])
    return { urls, process: child, ended, stop } satisfies Child<Urls>
  } catch (error) {
    await stop()
    throw error
  } finally {
    clearTimeout(timer)
    failed.catch(() => {})
  }
}

/** Starts a collector on the configuration's `collector` section. */
export const startCollectorChild = (options: Start): Promise<Child<CollectorUrls>> =>
  start('collector', [], options, ['--log-level', options.logLevel])

/** Starts a router; `otlpUrl` is where its spans go. */
export const startRouterChild = (options: Start & { readonly otlpUrl: string }): Promise<Child<RouterUrls>> =>
  start('router', routerFlags, options, ['--log-level', options.logLevel, '--otlp-url', options.otlpUrl])

/** Starts what judges captured answers; `configFile` is the file of evaluators. */
export const startEvaluateChild = (options: Start & { readonly collector: CollectorUrls }): Promise<Child<object>> =>
  start('evaluate', [], options, [
    '--follow',
    '--source',
    options.collector.clickhouseUrl,
    '--collector',
    options.collector.otlpUrl,
  ])

/** In a child: tells the parent that it is ready. Ends when told to, or when the parent is gone. */
export const serveUntilStopped = async (urls: object, close: () => Promise<void>): Promise<void> => {
  const tell = process.send?.bind(process)
  await new Promise<void>((resolve) => {
    process.once('SIGTERM', () => resolve())
    process.once('disconnect', () => resolve())
    // Ctrl-C reaches the whole group; a child waits for its parent to stop it in order.
    process.on('SIGINT', () => {
      if (!tell) resolve()
    })
    tell?.(urls)
  })
  await close()
  if (process.connected) process.disconnect?.()
}
