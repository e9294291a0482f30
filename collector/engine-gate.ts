// The queue before the embedded engine: it computes on libuv's few threads, so only so much may run at once, so much may
// wait, and the rest is told to come back.
import { refusal } from './engine-error.ts'

export type Gate = <Value>(work: () => Promise<Value>) => Promise<Value>

/** Lets `runningMax` pieces of work run at once and `waitingMax` wait. */
export const createGate = (runningMax: number, waitingMax: number): Gate => {
  const waiting: (() => void)[] = []
  let running = 0
  return async (work) => {
    if (running >= runningMax) {
      if (waiting.length >= waitingMax) {
        const maximum = `Maximum: ${runningMax} running, ${waitingMax} waiting`
        throw refusal(202, `Too many simultaneous queries. ${maximum}. (TOO_MANY_SIMULTANEOUS_QUERIES)`)
      }
      await new Promise<void>((resolve) => waiting.push(resolve))
    } else running += 1
    try {
      return await work()
    } finally {
      const next = waiting.shift()
      if (next) next()
      else running -= 1
    }
  }
}
