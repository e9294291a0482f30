// The file that re-execution writes and goes on from: NDJSON, one line when a request is about to be asked and one when its
// answer is judged. There is no other state. A line written before the money is spent is what keeps the budget through a
// kill; the order in which lines are started is what keeps the sample's probabilities known wherever it stops.
import { createReadStream } from 'node:fs'
import { open, readFile, rm, writeFile } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import { z } from 'zod'
import { issueText } from '../../router/policy/yaml.ts'

const problemsShownMax = 3
const tailBytesMax = 8 << 20
const newline = 10

const amount = z.number().min(0)
const share = z.number().min(0).max(1)

/** What re-execution could not do, in words for the person who asked for it. */
export class ReexecError extends Error {
  readonly code: 'payload-invalid' | 'output-invalid' | 'output-mismatch' | 'output-unwritable' | 'options-invalid'
  constructor(code: ReexecError['code'], message: string) {
    super(message)
    this.code = code
  }
}

/** What the file belongs to. `frame` is a digest of everything that the order of asking follows from. */
const planSchema = z.object({
  v: z.literal(1),
  status: z.literal('plan'),
  policy: z.string(),
  frame: z.string(),
  judge: z.string().nullable(),
  /** The share of tenants that was drawn; it multiplies every inclusion probability. */
  tenant_share: share,
})
export type PlanLine = z.infer<typeof planSchema>

const startedSchema = z.object({
  v: z.literal(1),
  status: z.literal('started'),
  id: z.string(),
  /** The place in the order: a request is in the sample when this is below the threshold. */
  priority: amount,
  /** The place of the request that comes next, or the planned end. */
  next_priority: amount,
  /** The most that it may cost with its judge, US dollars, and the calls it may take. */
  reserved_usd: amount,
  reserved_calls: z.int().min(0),
})

export const judgementSchema = z.object({
  model: z.string(),
  /** `pair`: preferred to the logged answer (1), as good (0.5), worse (0). `score`: by itself. */
  mode: z.enum(['pair', 'score']),
  status: z.enum(['ok', 'abstained', 'failed']),
  /** The same judgement made a second time, for a share of the answers; null when it was not or failed. */
  repeat_quality: share.nullable(),
  /** Judge's answers that were no judgement. */
  failures: z.int().min(0),
  calls: z.int().min(0),
})
export type Judgement = z.infer<typeof judgementSchema>

const answeredSchema = z.object({
  v: z.literal(1),
  status: z.enum(['ok', 'error']),
  id: z.string(),
  model: z.string(),
  /** The logged choice. */
  from: z.string().nullable(),
  /** As planned in the file; as realised in what `readResults` gives. */
  inclusion_probability: z.number().gt(0).max(1),
  /** k · sd / √cost: the inclusion probability is this times the threshold, at most 1. */
  importance: z.number().gt(0),
  priority: amount,
  error: z.string().nullable(),
  /** What this answer costs, US dollars; null when not known. */
  cost_usd: amount.nullable(),
  latency_ms: amount.nullable(),
  ttft_ms: amount.nullable(),
  output_tokens: amount.nullable(),
  quality: share.nullable(),
  /** The logged answer's quality, on the scale of the judgement. */
  quality_logged: share.nullable(),
  judge: judgementSchema.nullable(),
  /** What the budget paid for it: the answer unless it came from the cache, and the judge; unknown costs in full. */
  spent_usd: amount,
  calls: z.int().min(0),
})
export type Answered = z.infer<typeof answeredSchema>

const unaskedSchema = z.object({
  v: z.literal(1),
  status: z.literal('unasked'),
  id: z.string(),
  model: z.string().nullable(),
  inclusion_probability: z.literal(0),
  reason: z.enum(['no-payload', 'unpriced', 'none-eligible']),
})
export type Unasked = z.infer<typeof unaskedSchema>

const lineSchema = z.union([planSchema, startedSchema, answeredSchema, unaskedSchema])
export type Line = z.infer<typeof lineSchema>

/** A changed decision that was asked anew, or one that could not be; one that is not there was not drawn. */
export type ReexecResult = Answered | Unasked

/** What a results file amounts to. */
export type Journal = {
  readonly plan: PlanLine | null
  readonly answered: ReadonlyMap<string, Answered>
  readonly unasked: ReadonlyMap<string, Unasked>
  /** Every request with a lower priority has been answered; 0 when none was started. */
  readonly threshold: number
  /** Paid for, and reserved for calls that a kill cut off: those may have been charged. */
  readonly spentUsd: number
  readonly lostUsd: number
  readonly calls: number
}

/** Folds the lines of a results file, in their order. */
const journalOf = async (lines: AsyncIterable<Line>): Promise<Journal> => {
  let plan: PlanLine | null = null
  const answered = new Map<string, Answered>()
  const unasked = new Map<string, Unasked>()
  const open = new Map<string, { priority: number; usd: number; calls: number }>()
  let [end, spentUsd, lostUsd, calls] = [0, 0, 0, 0]
  for await (const line of lines) {
    if (line.status === 'plan') plan = line
    else if (line.status === 'unasked') unasked.set(line.id, line)
    else if (line.status === 'started') {
      const before = open.get(line.id)
      lostUsd += before?.usd ?? 0
      calls += before?.calls ?? 0
      open.set(line.id, { priority: line.priority, usd: line.reserved_usd, calls: line.reserved_calls })
      end = Math.max(end, line.next_priority)
    } else {
      open.delete(line.id)
      answered.set(line.id, line)
      spentUsd += line.spent_usd
      calls += line.calls
    }
  }
  for (const { usd, calls: reserved } of open.values()) {
    lostUsd += usd
    calls += reserved
  }
  const threshold = Math.min(end, ...Array.from(open.values(), ({ priority }) => priority))
  return { plan, answered, unasked, threshold, spentUsd, lostUsd, calls }
}

async function* linesOf(path: string, end: number): AsyncGenerator<Line> {
  if (end === 0) return
  let number = 0
  for await (const text of createInterface({ input: createReadStream(path, { end: end - 1 }), crlfDelay: Infinity })) {
    number++
    yield parseLine(text, `${path} line ${number}`)
  }
}

const parseLine = (text: string, where: string): Line => {
  let input: unknown
  try {
    input = JSON.parse(text)
  } catch (error) {
    throw new ReexecError('output-invalid', `reading results: ${where}: not JSON: ${(error as Error).message}`)
  }
  const result = lineSchema.safeParse(input)
  if (result.success) return result.data
  const problems = result.error.issues.slice(0, problemsShownMax).map((issue) => issueText(issue, input))
  throw new ReexecError('output-invalid', `reading results: ${where}: ${problems.join('; ')}`)
}

/** How every line begins. */
const lineStart = '{"v":1,"status":"'

/**
 * Where the last whole line ends, in bytes: what comes after it was being written when the process died. Anything else there is
 * not ours to cut off.
 */
const wholeBytes = async (path: string): Promise<number> => {
  const unusable = (problem: string) => new ReexecError('output-invalid', `reading results: ${path}: ${problem}`)
  let tail: Buffer
  let size: number
  try {
    const file = await open(path)
    try {
      size = (await file.stat()).size
      tail = Buffer.alloc(Math.min(size, tailBytesMax))
      await file.read(tail, 0, tail.length, size - tail.length)
    } finally {
      await file.close()
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return 0
    throw unusable((error as Error).message)
  }
  const end = tail.lastIndexOf(newline) + 1
  const begun = tail.toString('utf8', end, end + lineStart.length)
  if (!lineStart.startsWith(begun))
    throw unusable('it ends in something that is no line of results; nothing was changed')
  return size - tail.length + end
}

/** Reads a results file; one that does not exist yet is empty. A half-written last line is left out. */
export const readJournal = async (path: string): Promise<Journal> => journalOf(linesOf(path, await wholeBytes(path)))

/**
 * Keeps other runs from writing to `path`, until the result is called. The lock of a process that is no more is taken over; one
 * with this process's own number is from before a restart of the machine, or of its container.
 */
const lockOf = async (path: string): Promise<() => Promise<void>> => {
  const lock = `${path}.lock`
  const take = () => writeFile(lock, String(process.pid), { flag: 'wx' })
  try {
    await take().catch(async (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error
      const holder = Number(await readFile(lock, 'utf8'))
      if (holder !== process.pid && isRunning(holder))
        throw new ReexecError(
          'output-mismatch',
          `writing results to ${path}: another run (process ${holder}) is at it; wait for it, or remove ${lock} if there is none`,
        )
      await rm(lock, { force: true })
      await take()
    })
  } catch (error) {
    throw error instanceof ReexecError ? error : unwritable(path, error)
  }
  return () => rm(lock, { force: true })
}

/** Whether a process of this machine runs. */
export const isRunning = (pid: number): boolean => {
  try {
    return pid > 0 && process.kill(pid, 0)
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

const unwritable = (path: string, error: unknown): ReexecError =>
  new ReexecError('output-unwritable', `writing results to ${path}: ${(error as Error).message}`)

/** Opens a results file to go on with it, cutting off a half-written last line. `write` returns when the line is written. */
export const openJournal = async (path: string) => {
  const unlock = await lockOf(path)
  try {
    const end = await wholeBytes(path)
    const journal = await journalOf(linesOf(path, end))
    const file = await open(path, 'a').catch((error) => Promise.reject(unwritable(path, error)))
    await file.truncate(end)
    let last: Promise<unknown> = Promise.resolve()
    return {
      journal,
      write: (line: Line): Promise<unknown> => {
        last = last.then(() =>
          file.appendFile(`${JSON.stringify(line)}\n`).catch((error) => Promise.reject(unwritable(path, error))),
        )
        return last
      },
      close: async () => {
        await file.close()
        await unlock()
      },
    }
  } catch (error) {
    await unlock()
    throw error
  }
}

/**
 * The results that count, by decision id, each with the probability with which it came into the sample. Requests are
 * asked in the order of u / importance with u uniform (sequential Poisson sampling, Ohlsson 1998), so that wherever asking stopped,
 * at threshold τ, request i was included with probability min(1, τ · importance_i) (Duffield, Lund & Thorup 2007). Answers beyond
 * the threshold, got out of order before a kill, are left out until the run is taken up again. Throws `ReexecError`.
 */
export const readResults = async (path: string): Promise<Map<string, ReexecResult>> => {
  const { plan, answered, unasked, threshold } = await readJournal(path)
  if (!plan) throw new ReexecError('output-invalid', `reading results: ${path} has no results in it`)
  const results = new Map<string, ReexecResult>(unasked)
  for (const [id, result] of answered) {
    const probability = Math.min(1, threshold * result.importance) * plan.tenant_share
    if (result.priority < threshold) results.set(id, { ...result, inclusion_probability: probability })
  }
  return results
}
