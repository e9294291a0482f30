// Clients that ask all the time, through every failure, and remember what they were answered: a decision's id once its
// answer was read whole, and the same for feedback. Each answer knows which run of the router gave it, and when.
import { setTimeout as sleep } from 'node:timers/promises'

const lanesMax = 4
const pauseMsUsual = 8
/** Where nobody answers, there is no hurry. */
const refusedPauseMs = 50
const answerMsMax = 30_000
/** One decision in so many is told what it was worth. */
const feedbackEvery = 5

/** A run of the router: from its start to its end. */
export type Run = {
  readonly url: string
  killedAtMs: number | null
  /** How long the machine kept a process waiting for its turn about then, at most. */
  lagMs: number
}
export type Acknowledged = {
  readonly id: string
  readonly run: Run
  /** When the client had the answer, by `performance.now()`. */
  readonly atMs: number
}

export type Load = {
  readonly decisions: Acknowledged[]
  readonly feedback: Acknowledged[]
  /** `pauseMs` is how long each client thinks after an answer. */
  readonly start: (pauseMs?: number) => void
  /** Ends when the last answer is there. */
  readonly stop: () => Promise<void>
}

type Said = { readonly id: string; readonly status: number }
const say = async (url: string, path: string, body: object): Promise<Said | null> => {
  try {
    const signal = AbortSignal.timeout(answerMsMax)
    const answer = await fetch(url + path, { method: 'POST', body: JSON.stringify(body), signal })
    await answer.arrayBuffer()
    return { id: answer.headers.get('x-signalbox-decision-id') ?? '', status: answer.status }
  } catch {
    return null
  }
}

/** Clients that ask the run that there is. */
export const openLoad = (runNow: () => Run | null): Load => {
  const decisions: Acknowledged[] = []
  const feedback: Acknowledged[] = []
  const once = async (lane: number, n: number): Promise<boolean> => {
    const run = runNow()
    if (!run) return false
    const messages = [{ role: 'user', content: `question ${n} of lane ${lane}` }]
    const asked = await say(run.url, '/v1/chat/completions', { model: 'auto', stream: n % 2 === 0, messages })
    if (asked?.status !== 200) return false
    const { id } = asked
    decisions.push({ id, run, atMs: performance.now() })
    if (n % feedbackEvery > 0) return true
    const told = await say(run.url, '/v1/feedback', { decision_id: id, score: 1 })
    if (told?.status === 202) feedback.push({ id, run, atMs: performance.now() })
    return true
  }
  const lane = async (number: number, pauseMs: number, running: { readonly stopping: boolean }): Promise<void> => {
    for (let n = 0; !running.stopping; n += 1) await sleep((await once(number, n)) ? pauseMs : refusedPauseMs)
  }
  let running: { stopping: boolean } = { stopping: true }
  let lanes: Promise<void>[] = []
  return {
    decisions,
    feedback,
    start: (pauseMs = pauseMsUsual) => {
      const begun = { stopping: false }
      running = begun
      lanes = Array.from({ length: lanesMax }, (_, number) => lane(number, pauseMs, begun))
    },
    stop: async () => {
      running.stopping = true
      await Promise.all(lanes)
    },
  }
}
