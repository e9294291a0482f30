// A re-execution from its plan to its last answer. Requests are started strictly in the plan's order, a few at a time, each with
// its cost set aside and written down first; it ends with the plan, at the first cap in the way, or as soon as the
// effect on quality is known closely enough.
import { type Caller, callerOf } from './call.ts'
import { type Effect, effectOf, type JudgeError, judgeErrorOf } from './effect.ts'
import { type Case, judge, judgeMost } from './judge.ts'
import { type Payload, type Payloads, responseText } from './payloads.ts'
import { type Ask, affordable, type Forecast, type Frame, type JudgePlan, usdOf } from './plan.ts'
import { type Purse, purseOf, type Sum } from './purse.ts'
import { type Answered, openJournal, type PlanLine, ReexecError } from './result.ts'

const minuteMs = 60_000
const oneCall: Sum = { usd: 0, calls: 1 }
const timerMsMax = 2 ** 31 - 1
/** A look at all answers is taken whenever there are five percent more, so that looking stays linear in the answers. */
const lookGrowth = 1.05

export type RunOptions = {
  readonly url: string
  readonly key: string | null
  readonly output: string
  readonly policyHash: string
  readonly seed: number
  readonly judge: JudgePlan | null
  readonly budgetUsd: number
  readonly callsMax: number
  readonly minutesMax: number
  /** Sent where the client set no limit, because without one no cost is bounded. */
  readonly outputTokensMax: number
  readonly concurrency: number
  /** Stops once the half-width of quality's difference is within it; null to go to the plan's end. */
  readonly margin: number | null
}

/** Why it ended: the plan was carried out, the effect is known, or a cap was reached. */
export type Stop = 'done' | 'precise' | 'budget' | 'calls' | 'minutes'

export type Summary = {
  readonly stop: Stop
  readonly asked: number
  readonly ok: number
  readonly errors: number
  readonly spentUsd: number
  /** Set aside for calls that a kill cut off, and part of what is spent. */
  readonly lostUsd: number
  readonly calls: number
  /** Answers whose cost is unknown; they count with what was set aside. */
  readonly unpriced: number
  readonly effect: Effect | null
  readonly judge: JudgeError | null
}

/** Expected to be asked, as far as the budget goes; caps of money and calls only. */
export const planOf = (frame: Frame, { budgetUsd, callsMax }: Pick<RunOptions, 'budgetUsd' | 'callsMax'>): Forecast =>
  affordable(frame, budgetUsd, callsMax)

type Work = {
  readonly options: RunOptions
  readonly frame: Frame
  readonly threshold: number
  readonly payloads: Payloads
  readonly caller: Caller
  readonly signal: AbortSignal
  readonly cutOff: () => void
  readonly purse: Purse
  readonly write: Awaited<ReturnType<typeof openJournal>>['write']
  readonly onAnswered: (result: Answered) => void
}

/**
 * Asks what `frame` holds as far as the caps allow and goes on where `options.output` stopped. `onProgress` is told how many of the
 * planned have been asked, and what is spent. Throws `ReexecError` when the file belongs to another plan.
 */
export const reexecute = async (
  frame: Frame,
  payloads: Payloads,
  options: RunOptions,
  onProgress: (asked: number, spentUsd: number) => void = () => {},
): Promise<Summary> => {
  const { threshold } = planOf(frame, options)
  const { journal, write, close } = await openJournal(options.output)
  const abort = new AbortController()
  const timer = setTimeout(() => abort.abort(), Math.min(timerMsMax, options.minutesMax * minuteMs))
  const { signal } = abort
  const { lostUsd } = journal
  const purse = purseOf(
    { usd: options.budgetUsd, calls: options.callsMax },
    { usd: journal.spentUsd + lostUsd, calls: journal.calls },
  )
  const mayRetry = (): boolean => {
    const isLeft = purse.reserve(oneCall) === 'yes'
    if (isLeft) purse.settle(oneCall, oneCall)
    return isLeft
  }
  const caller = await callerOf({ ...options, signal, mayRetry, cacheFolder: `${options.output}.cache` })
  try {
    await begin(frame, journal.plan, options, write)
    const answered = new Map(journal.answered)
    const effectAt = (reached: number) => effectOf(answered.values(), reached, frame.changed / frame.rows)
    const onAnswered = (result: Answered) => {
      answered.set(result.id, result)
      onProgress(answered.size, purse.spent().usd)
    }
    let lookAt = 1
    const isPrecise = (reached: number): boolean => {
      if (options.margin === null || answered.size < lookAt) return false
      lookAt = answered.size * lookGrowth
      return (effectAt(reached)?.halfWidth ?? Infinity) <= options.margin
    }
    const cutOff = () => abort.abort()
    const work: Work = { options, frame, threshold, payloads, caller, signal, cutOff, purse, write, onAnswered }
    const stop = await askInOrder(work, (ask) => !answered.has(ask.record.id), isPrecise)
    return summaryOf(stop, [...answered.values()], purse.spent(), lostUsd, effectAt(threshold))
  } finally {
    clearTimeout(timer)
    await caller.close()
    await close()
  }
}

/** Writes what the file belongs to and what cannot be asked, or checks that it is the same as before. */
const begin = async (
  frame: Frame,
  before: PlanLine | null,
  options: RunOptions,
  write: Work['write'],
): Promise<void> => {
  const { digest, tenantShare, unasked } = frame
  const judgeModel = options.judge?.model ?? null
  if (!before) {
    for (const line of unasked) await write(line)
    await write({
      v: 1,
      status: 'plan',
      policy: options.policyHash,
      frame: digest,
      judge: judgeModel,
      tenant_share: tenantShare,
    })
  } else if (before.frame !== digest || before.policy !== options.policyHash || before.judge !== judgeModel)
    throw new ReexecError(
      'output-mismatch',
      `going on with ${options.output}: it was made with another policy, log, payload file, seed, price or judge (found ${before.frame.slice(0, 15)}, ` +
        `judge ${before.judge ?? 'none'}; wanted ${digest.slice(0, 15)}, judge ${judgeModel ?? 'none'}); give these as before, or another --output`,
    )
}

const askInOrder = async (
  work: Work,
  isOpen: (ask: Ask) => boolean,
  isPrecise: (reached: number) => boolean,
): Promise<Stop> => {
  const inFlight = new Set<Promise<void>>()
  try {
    const stop = await startInOrder(work, inFlight, isOpen, isPrecise)
    await Promise.all(inFlight)
    return work.signal.aborted ? 'minutes' : stop
  } catch (error) {
    // What is in flight may be charged: it is cut off and stays open in the file, and nothing writes to that when it is closed.
    work.cutOff()
    await Promise.allSettled(inFlight)
    throw error
  }
}

const startInOrder = async (
  work: Work,
  inFlight: Set<Promise<void>>,
  isOpen: (ask: Ask) => boolean,
  isPrecise: (reached: number) => boolean,
): Promise<Stop> => {
  const { frame, threshold, purse, options, signal } = work
  const planned = frame.asks.filter(({ priority }) => priority < threshold)
  for (const [at, ask] of planned.entries()) {
    if (!isOpen(ask)) continue
    const most = mostOf(work, ask)
    const tryReserve = () => (inFlight.size < options.concurrency ? purse.reserve(most.all) : 'wait')
    let reserved = tryReserve()
    while (reserved === 'wait' && !signal.aborted) {
      await Promise.race(inFlight)
      reserved = tryReserve()
    }
    if (signal.aborted || reserved === 'wait') return 'minutes'
    if (reserved !== 'yes') return reserved
    if (isPrecise(ask.priority)) return 'precise'
    const task = askOne(work, ask, most, planned[at + 1]?.priority ?? threshold).finally(() => inFlight.delete(task))
    inFlight.add(task)
  }
  return 'done'
}

type Most = { readonly answerUsd: number; readonly judge: Sum; readonly all: Sum }

/** The most that one request and its judge may cost. */
const mostOf = ({ payloads, options }: Work, { record, price }: Ask): Most => {
  const note = payloads.notes.get(record.id)
  const inputTokensMax = Math.max(note?.inputTokensMax ?? 0, record.request.input_tokens)
  const answerUsd = usdOf(price, inputTokensMax, note?.outputTokensMax ?? options.outputTokensMax)
  const judging = options.judge
    ? judgeMost(record.id, inputTokensMax, note?.hasResponse ?? false, { ...options.judge, seed: options.seed })
    : { usd: 0, calls: 0 }
  return { answerUsd, judge: judging, all: { usd: answerUsd + judging.usd, calls: 1 + judging.calls } }
}

const askOne = async (work: Work, ask: Ask, most: Most, nextPriority: number): Promise<void> => {
  const { record, model, price, priority } = ask
  const { id } = record
  const { write, purse, payloads, caller, options } = work
  const reserved = { reserved_usd: most.all.usd, reserved_calls: most.all.calls }
  await write({ v: 1, status: 'started', id, priority, next_priority: nextPriority, ...reserved })
  const payload = await payloads.read(id)
  const answer = await caller.ask(model, limited(payload, options.outputTokensMax), price)
  const text = answer.kind === 'answered' ? answer.text : null
  const judged = text === null ? null : await judgeOf(work, id, payload, text)
  // Cut off by the clock: not what the candidate would have done, so it stays open, and its cost stays set aside.
  if (work.signal.aborted && (text === null || judged?.judgement.status === 'failed')) return
  const judgeUsd = most.judge.usd / Math.max(1, most.judge.calls)
  const bills = [answer.paidUsd ?? most.answerUsd, ...(judged?.paid ?? []).map(({ paidUsd }) => paidUsd ?? judgeUsd)]
  const spentUsd = bills.reduce((sum, usd) => sum + usd, 0)
  const calls = answer.calls + (judged?.paid ?? []).reduce((sum, { calls }) => sum + calls, 0)
  const result: Answered = {
    v: 1,
    status: answer.kind === 'answered' ? 'ok' : 'error',
    id,
    model,
    from: ask.from,
    inclusion_probability: Math.min(1, work.threshold * ask.importance) * work.frame.tenantShare,
    importance: ask.importance,
    priority,
    error: answer.kind === 'failed' ? answer.error : null,
    cost_usd: answer.costUsd,
    latency_ms: answer.latencyMs,
    ttft_ms: answer.kind === 'answered' ? answer.ttftMs : null,
    output_tokens: answer.kind === 'answered' ? answer.outputTokens : null,
    quality: judged?.quality ?? null,
    quality_logged: judged?.judgement.mode === 'pair' ? 0.5 : (record.outcome?.quality ?? null),
    judge: judged?.judgement ?? null,
    spent_usd: spentUsd,
    calls,
  }
  await write(result)
  // Requests that were sent again have been counted as they were.
  const asked = [answer, ...(judged?.paid ?? [])].filter((bill) => bill.calls > 0).length
  purse.settle(most.all, { usd: spentUsd, calls: asked })
  work.onAnswered(result)
}

/** The client's body, with a limit where it had none. */
const limited = ({ body }: Payload, outputTokensMax: number): Payload['body'] =>
  body.max_tokens || body.max_completion_tokens
    ? body
    : { ...body, max_tokens: Math.max(1, Math.floor(outputTokensMax / (body.n ?? 1))) }

const judgeOf = async ({ options, caller }: Work, id: string, { body, response }: Payload, answer: string) => {
  const plan = options.judge
  if (!plan) return null
  const logged = response === undefined ? null : responseText(response)
  const shown: Case = { id, messages: body.messages, answer, logged }
  return judge(shown, { ...plan, seed: options.seed }, (asked, repeat) =>
    caller.ask(plan.model, asked, plan.price, repeat),
  )
}

const summaryOf = (
  stop: Stop,
  results: readonly Answered[],
  spent: Sum,
  lostUsd: number,
  effect: Effect | null,
): Summary => ({
  stop,
  asked: results.length,
  ok: results.filter(({ status }) => status === 'ok').length,
  errors: results.filter(({ status }) => status === 'error').length,
  spentUsd: spent.usd,
  lostUsd,
  calls: spent.calls,
  unpriced: results.filter(({ cost_usd }) => cost_usd === null).length,
  effect,
  judge: judgeErrorOf(results),
})
