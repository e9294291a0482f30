// Evaluation: captured answers, page by page; rules at once, judges as far as the budget goes, and each group of results stored
// before the next is begun. A judge's answer is kept on disk the moment it is paid for, so that a run that was killed pays for
// nothing twice: what was stored is not due any more, and what was not stored is found there.
import { setTimeout as sleep } from 'node:timers/promises'
import { type Caller, callerOf } from '../reexec/call.ts'
import { type JudgeOptions, judge, judgeMost } from '../reexec/judge.ts'
import { noteOf, type Payload, responseText } from '../reexec/payloads.ts'
import { type Purse, purseOf, type Sum } from '../reexec/purse.ts'
import type { EvaluateSettings } from './settings.ts'
import { type Due, EvaluateError, type EvaluationStore, openEvaluationStore, type Result } from './store.ts'

const msPerSecond = 1000
/** Tasks remembered as tried in vain, or as tried at all by a judge, so that following does not go on trying. */
const passedMax = 1_000_000
const msPerMinute = 60_000
const msPerDay = 86_400_000

/** `done` when nothing is left; `stopped` when it was told to; else the cap that was reached. */
export type EvaluateStop = 'done' | 'stopped' | 'budget' | 'calls' | 'minutes'
export type EvaluateSummary = {
  readonly stop: EvaluateStop
  readonly stored: number
  readonly failed: number
  readonly calls: number
  readonly spentUsd: number
  readonly scores: readonly { readonly name: string; readonly count: number; readonly mean: number }[]
}

export type EvaluateOptions = {
  /** Goes on with what is captured later, until told to stop; a spent budget is waited for. */
  readonly follow: boolean
  /** Judges also what was judged before. */
  readonly again: boolean
  readonly cacheFolder: string
  readonly signal: AbortSignal
  readonly onProgress: (stored: number, spentUsd: number) => void
  /** Following, it is told what went wrong and tries again later. */
  readonly onTrouble: (error: EvaluateError) => void
}

type Task = { readonly due: Due; readonly payload: Payload; readonly name: string }
type Asking = Task & { readonly rubric: string; readonly most: Sum }

type Run = EvaluateOptions & {
  readonly settings: EvaluateSettings
  readonly store: EvaluationStore
  readonly caller: Caller | null
  readonly deadlineMs: number
  readonly tallies: Map<string, { count: number; sum: number }>
  purse: Purse
  day: number
  /** The calls of days that are over. */
  callsBefore: number
  stored: number
  failed: number
  spentUsd: number
  stop: EvaluateStop | null
}

const judgeOptions = ({ judge: asked }: EvaluateSettings): JudgeOptions => ({
  model: asked?.model ?? '',
  price: { input: asked?.price.input_usd_per_mtok ?? 0, output: asked?.price.output_usd_per_mtok ?? 0 },
  repeatShare: 0,
  seed: 0,
})

const scored = (run: Run, { due, name }: Task, score: number | null, costUsd: number | null): Result => ({
  id: due.id,
  name,
  source: costUsd === null ? 'rule' : 'judge',
  score,
  keepProbability: due.keepProbability * (run.settings.evaluators.find((of) => of.name === name)?.share ?? 1),
  costUsd,
})

const store = async (run: Run, results: readonly Result[]): Promise<void> => {
  await run.store.record(results)
  for (const { name, score } of results) {
    if (score === null) run.failed += 1
    else {
      const tally = run.tallies.get(name) ?? { count: 0, sum: 0 }
      run.tallies.set(name, { count: tally.count + 1, sum: tally.sum + score })
      run.stored += 1
    }
  }
  run.onProgress(run.stored, run.spentUsd)
}

const ask = async (run: Run, { rubric, most, ...task }: Asking): Promise<Result> => {
  const options = judgeOptions(run.settings)
  const { due, payload } = task
  const answer = responseText(payload.response ?? '')
  const shown = { id: due.id, messages: payload.body.messages, answer, logged: null, rubric }
  const judged = await judge(shown, options, async (body, repeat) =>
    (run.caller as Caller).ask(options.model, body, options.price, repeat),
  )
  // A call whose bill is not known counts in full.
  const usd = judged.paid.reduce((sum, { paidUsd }) => sum + (paidUsd ?? most.usd), 0)
  run.purse.settle(most, { usd, calls: judged.paid.reduce((sum, { calls }) => sum + calls, 0) })
  run.spentUsd += usd
  return scored(run, task, judged.quality, usd)
}

const askAll = async (run: Run, tasks: readonly Asking[]): Promise<void> => {
  let group: Asking[] = []
  const flush = async (): Promise<void> => {
    const results = await Promise.all(group.map((task) => ask(run, task)))
    group = []
    await store(run, results)
  }
  for (const task of tasks) {
    if (group.length === (run.settings.judge?.concurrency ?? 1)) await flush()
    if (isOver(run)) break
    let reserved = run.purse.reserve(task.most)
    if (reserved === 'wait') {
      await flush()
      reserved = run.purse.reserve(task.most)
    }
    if (reserved !== 'yes') {
      run.stop = reserved === 'calls' ? 'calls' : 'budget'
      break
    }
    group.push(task)
  }
  await flush()
}

const isOver = (run: Run): boolean => {
  if (run.signal.aborted) run.stop = 'stopped'
  else if (Date.now() > run.deadlineMs) run.stop = 'minutes'
  return run.stop === 'stopped' || run.stop === 'minutes'
}

const placeOf = ({ id }: Due, name: string): string => `${id} ${name}`

/** Judges a page; `passed` are the tasks that had no outcome in this run and are not tried in it again. */
const evaluatePage = async (run: Run, page: readonly Due[], passed: Set<string>): Promise<void> => {
  if (passed.size > passedMax) passed.clear()
  const isOpen = (due: Due, name: string): boolean => due.names.includes(name) && !passed.has(placeOf(due, name))
  const payloads = await run.store.payloads(page.filter((due) => due.names.some((name) => isOpen(due, name))))
  const results: Result[] = []
  const asking: Asking[] = []
  for (const due of page) {
    const payload = payloads.get(due.id)
    if (!payload) continue
    for (const { name, kind } of run.settings.evaluators) {
      const task = { due, payload, name }
      if (!isOpen(due, name)) continue
      if ('rule' in kind) {
        const score = kind.rule(responseText(payload.response ?? ''), payload.body)
        if (score === null) passed.add(placeOf(due, name))
        else results.push(scored(run, task, score, null))
      } else if (run.stop === null) {
        passed.add(placeOf(due, name))
        const { inputTokensMax } = noteOf(payload, Buffer.byteLength(JSON.stringify(payload.body)) + kind.rubric.length)
        asking.push({
          ...task,
          rubric: kind.rubric,
          most: judgeMost(due.id, inputTokensMax, false, judgeOptions(run.settings)),
        })
      }
    }
  }
  await store(run, results)
  await askAll(run, asking)
}

const pass = async (run: Run, passed: Set<string>): Promise<void> => {
  for (let after: Due | null = null; ; ) {
    const page: readonly Due[] = await run.store.page(after)
    if (page.length === 0 || isOver(run)) return
    await evaluatePage(run, page, passed)
    after = page.at(-1) ?? null
  }
}

/** A new day has a new budget. */
const openDay = async (run: Run, passed: Set<string>): Promise<void> => {
  const today = Math.floor(Date.now() / msPerDay)
  if (today === run.day) return
  const { usd_per_day: usd, calls } = run.settings.budget
  const spentUsd = await run.store.spentTodayUsd()
  run.callsBefore += run.purse.spent().calls
  run.day = today
  run.purse = purseOf({ usd, calls }, { usd: spentUsd, calls: 0 })
  run.stop = null
  passed.clear()
}

/** Evaluates what is due until nothing is left, a cap is reached or, following, it is told to stop. Throws an EvaluateError. */
export const evaluate = async (settings: EvaluateSettings, options: EvaluateOptions): Promise<EvaluateSummary> => {
  const { judge: asked, budget } = settings
  const run: Run = {
    ...options,
    settings,
    store: openEvaluationStore(settings, options.again),
    caller: asked
      ? await callerOf({ ...asked, cacheFolder: options.cacheFolder, mayRetry: () => false, signal: options.signal })
      : null,
    deadlineMs: budget.minutes === undefined ? Infinity : Date.now() + budget.minutes * msPerMinute,
    tallies: new Map(),
    purse: purseOf({ usd: 0, calls: 0 }, { usd: 0, calls: 0 }),
    day: -1,
    callsBefore: 0,
    stored: 0,
    failed: 0,
    spentUsd: 0,
    stop: null,
  }
  const passed = new Set<string>()
  try {
    do {
      await openDay(run, passed)
        .then(() => pass(run, passed))
        .catch((error) => {
          if (!options.follow || !(error instanceof EvaluateError)) throw error
          options.onTrouble(error)
        })
      if (options.follow && !isOver(run))
        await sleep(settings.poll_seconds * msPerSecond, null, { signal: options.signal }).catch(() => null)
    } while (options.follow && !isOver(run))
  } finally {
    await run.caller?.close()
    await run.store.close()
  }
  return summaryOf(run)
}

const summaryOf = ({ stop, stored, failed, spentUsd, purse, callsBefore, tallies }: Run): EvaluateSummary => ({
  stop: stop ?? 'done',
  stored,
  failed,
  calls: callsBefore + purse.spent().calls,
  spentUsd,
  scores: [...tallies].map(([name, { count, sum }]) => ({ name, count, mean: sum / count })),
})
