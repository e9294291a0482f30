// Router and collector as the processes that they are in production, of which each can be started, ended by any signal, and
// ended before it is ready. What they log goes to a file for whoever looks into a failure.
import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

/** How long a part may take to get ready, and to stop, on a machine that is busy with other things. */
const readyMsMax = 120_000
const stopMsMax = 120_000
const launcher = fileURLToPath(new URL('../../signalbox.js', import.meta.url))

export type Launch = {
  /** What is run: `router` or `collector`, with its options. */
  readonly args: readonly string[]
  readonly logFile: string
  /** Flags for Node. */
  readonly flags?: readonly string[]
  readonly env?: Readonly<Record<string, string>>
}

/** A process of ours. */
export type Part = {
  readonly process: ChildProcess
  /** Where it is, once it is ready; rejects when it ends before or takes too long. */
  readonly ready: Promise<Readonly<Record<string, string>>>
  /** How it ended. */
  readonly ended: Promise<string>
  /** Ends it in order, or after too long by force. */
  readonly stop: () => Promise<string>
}

export const launch = ({ args, logFile, flags = [], env = {} }: Launch): Part => {
  const logTo = openSync(logFile, 'a')
  const child = spawn(process.execPath, [...flags, launcher, ...args], {
    stdio: ['ignore', logTo, logTo, 'ipc'],
    env: { ...process.env, ...env },
  })
  closeSync(logTo)
  const ended = new Promise<string>((resolve) => {
    child.once('exit', (code, signal) => resolve(signal ?? `exit code ${code}`))
    child.once('error', (error) => resolve(error.message))
  })
  // A message to a process that is going is as lost as it would be a moment later.
  child.on('error', () => {})
  const ready = new Promise<Readonly<Record<string, string>>>((resolve, reject) => {
    child.once('message', (urls) => resolve(urls as Readonly<Record<string, string>>))
    const late = setTimeout(() => reject(new Error(`${args[0]} was not ready within ${readyMsMax} ms`)), readyMsMax)
    void ended.then((how) => {
      clearTimeout(late)
      reject(new Error(`${args[0]} ended with ${how} before it was ready`))
    })
    child.once('message', () => clearTimeout(late))
  })
  ready.catch(() => {})
  const stop = async (): Promise<string> => {
    const timer = setTimeout(() => child.kill('SIGKILL'), stopMsMax)
    child.kill('SIGTERM')
    const how = await ended
    clearTimeout(timer)
    return how
  }
  return { process: child, ready, ended, stop }
}
