// The threads that decide slices of a log again: each has a short queue of its own, gets the next slice when it has room, and hands
// back what it added up when all are dealt. A thread that fails stops the others.
import { Worker } from 'node:worker_threads'
import { SourceError } from '../read/parse.ts'
import type { Slice } from '../read/source.ts'
import { type Gathered, mergeGathered } from './gather.ts'
import type { WorkerAnswer, WorkerInput, WorkerTask } from './worker.ts'

/** A thread holds sums, and a few hundred records at a time. */
const resourceLimits = { maxOldGenerationSizeMb: 1024, maxYoungGenerationSizeMb: 32 }
/** Slices that wait for a thread, per thread: one being decided, one ready. */
const slicesAhead = 2

/** Deals slices to threads as they become free, and adds up what they hand back. */
export const gatherInThreads = async (
  input: WorkerInput,
  slices: AsyncIterable<Slice>,
  threads: number,
): Promise<Gathered> => {
  const crew: ReturnType<typeof thread>[] = []
  try {
    for await (const slice of slices) {
      // A thread takes a third of a second to start: none is, before there is work for it.
      if (crew.length < threads) crew.push(thread(input))
      const idlest = crew.toSorted((a, b) => a.waiting() - b.waiting())
      const free = await Promise.race(idlest.map((member) => member.free()))
      free.send({ bytes: slice.bytes })
    }
    if (crew.length === 0) crew.push(thread(input))
    // One after another: each thread's sums are let go before the next one's come.
    let gathered: Gathered | null = null
    for (const member of crew) gathered = gathered ? mergeGathered(gathered, await member.end()) : await member.end()
    return gathered as Gathered
  } finally {
    await Promise.all(crew.map((member) => member.stop()))
  }
}

/** One thread, with a short queue of its own. */
const thread = (input: WorkerInput) => {
  const file = import.meta.url.endsWith('.ts') ? './worker.ts' : './worker.js'
  const worker = new Worker(new URL(file, import.meta.url), { workerData: input, resourceLimits })
  let waiting = 0
  let wake = (): void => {}
  const result = Promise.withResolvers<Gathered>()
  // Whoever waits for a place is told of a failure, too; nobody may be waiting.
  result.promise.catch(() => wake())
  const started = Promise.withResolvers<void>()
  result.promise.then(
    () => started.resolve(),
    () => started.resolve(),
  )
  worker.on('error', result.reject)
  worker.on('exit', (code) => result.reject(new Error(`deciding again: a thread ended before its work, with ${code}`)))
  worker.on('message', (answer: WorkerAnswer) => {
    if (answer.kind === 'ready') started.resolve()
    else if (answer.kind === 'gathered') result.resolve(answer.gathered)
    else if (answer.kind === 'failed')
      result.reject(new SourceError(answer.code as SourceError['code'], answer.message))
    else {
      waiting--
      wake()
    }
  })
  const member = {
    /** Resolves to itself as soon as it has room for a slice; rejects when the thread failed. */
    free: async () => {
      for (;;) {
        // A thread that failed makes no more room, whether or not somebody waited for it then.
        await Promise.race([result.promise, Promise.resolve()])
        if (waiting < slicesAhead) return member
        await new Promise<void>((resolve) => {
          wake = resolve
        })
      }
    },
    waiting: (): number => waiting,
    send: (task: Exclude<WorkerTask, 'end'>): void => {
      waiting++
      worker.postMessage(task, [task.bytes])
    },
    end: (): Promise<Gathered> => {
      worker.postMessage('end' satisfies WorkerTask)
      return result.promise
    },
    /** Node 26 aborts the whole process now and then when a thread is stopped while it still loads its modules. */
    stop: () => started.promise.then(() => worker.terminate()),
  }
  return member
}
