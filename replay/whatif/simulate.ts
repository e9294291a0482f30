// The simulation: recorded requests arrive in their order, are decided by the policy on the state that simulated requests
// have made, and walk their plan as the router would: wait, fail, fall back, be answered, or lose their client. Chance is a
// hash of request, seed and purpose, so that two worlds differ by what is different in them and by nothing else.
import { draw } from '../../router/policy/chance.ts'
import type { Context } from '../../router/policy/record.ts'
import { type Agenda, agendaOf } from './agenda.ts'
import { type Answer, answerOf, outputTokensOf, partOf, type Setting } from './answer.ts'
import type { Arrival } from './arrivals.ts'
import { type Fleet, fleetOf } from './fleet.ts'
import { inputTokensOf } from './log-model.ts'
import { blocksOf, type PromptCache, promptCacheOf } from './prompt-cache.ts'
import { noLimits, type Station, stationOf } from './queue.ts'
import { outageAt, serverOf } from './scenario.ts'

/** What refuses at once — an empty bucket, a retired model — takes a round trip to say so. */
const refusalMs = 50
/** The router's default time limit for the first byte: nobody waits in line longer. */
const waitMsMax = 60_000
const progressEvery = 2_000

export type Route = { readonly chosen: string | null; readonly plan: readonly string[] }
export type Status = 'ok' | 'failed' | 'rejected' | 'left' | 'no-candidate'

/** What became of one arrival. Times are milliseconds, `atMs` since the epoch. */
export type Simulated = {
  readonly arrival: Arrival
  readonly route: Route
  /** The last target that was asked. */
  readonly target: string | null
  readonly attempts: number
  readonly startMs: number
  readonly status: Status
  readonly latencyMs: number
  readonly ttftMs: number | null
  readonly costUsd: number | null
  readonly cachedTokens: number
  readonly inputTokens: number
  /** Why the last attempt failed; empty when it did not. */
  readonly cause: string
}

/** One step of the cascade: a request whose attempt at `from` failed was sent on to `to`; null is nobody. */
export type Hop = { readonly from: string; readonly to: string | null; readonly cause: string; readonly count: number }
export type Simulation = { readonly requests: readonly Simulated[]; readonly cascade: readonly Hop[] }

export type SimulationOptions = Setting & {
  /** Decides an arrival; the context is made when it is asked for. */
  readonly route: (arrival: Arrival, context: () => Context) => Route
  /** Whether requests that the scenario itself hits are sent on to the next target of their plan. */
  readonly fallback: boolean
  readonly onProgress?: (arrived: number) => void
}

/** A request on its way. */
type Run = {
  readonly arrival: Arrival
  readonly route: Route
  readonly asked: Set<string>
  target: string
  attemptMs: number
  attempts: number
  phase: 'waiting' | 'serving' | 'refused' | 'done'
  answer: Answer | null
}
type Ending =
  | { readonly kind: 'answered' }
  | { readonly kind: 'rejected' }
  | { readonly kind: 'failed'; readonly cause: string; readonly isFinal: boolean }
type Event =
  | { readonly kind: 'arrive'; readonly arrival: Arrival }
  | { readonly kind: 'end'; readonly run: Run; readonly attempt: number; readonly ending: Ending }
  | { readonly kind: 'waited'; readonly run: Run; readonly attempt: number }
  | { readonly kind: 'leave'; readonly run: Run }

type Stage = SimulationOptions & {
  readonly agenda: Agenda<Event>
  readonly fleet: Fleet
  readonly station: (target: string) => Station<Run>
  readonly cache: (target: string) => PromptCache | null
  readonly done: Simulated[]
  readonly hops: Map<string, { from: string; to: string | null; cause: string; count: number }>
}

const perTarget = <Value>(make: (target: string) => Value): ((target: string) => Value) => {
  const made = new Map<string, Value>()
  return (target) => {
    if (!made.has(target)) made.set(target, make(target))
    return made.get(target) as Value
  }
}

/** Simulates arrivals, sorted by time, until the last has gone. Every arrival is in the result once. */
export const simulate = (arrivals: readonly Arrival[], options: SimulationOptions): Simulation => {
  const { world } = options
  const stage: Stage = {
    ...options,
    agenda: agendaOf<Event>(),
    fleet: fleetOf(options.log, world),
    station: perTarget((target) => stationOf<Run>(world.limits.get(target) ?? noLimits)),
    cache: perTarget(() => (world.cache ? promptCacheOf(world.cache) : null)),
    done: [],
    hops: new Map(),
  }
  for (const arrival of arrivals) stage.agenda.put(arrival.atMs, { kind: 'arrive', arrival })
  let arrived = 0
  for (let entry = stage.agenda.next(); entry; entry = stage.agenda.next()) {
    if (entry.event.kind === 'arrive' && ++arrived % progressEvery === 0) options.onProgress?.(arrived)
    happen(stage, entry.event, entry.atMs)
  }
  return { requests: stage.done, cascade: [...stage.hops.values()].sort((a, b) => b.count - a.count) }
}

const happen = (stage: Stage, event: Event, nowMs: number): void => {
  switch (event.kind) {
    case 'arrive':
      arrive(stage, event.arrival, nowMs)
      break
    case 'end':
      if (isStill(event.run, event.attempt, ['serving', 'refused'])) end(stage, event.run, event.ending, nowMs)
      break
    case 'waited':
      if (!isStill(event.run, event.attempt, ['waiting'])) break
      stage.station(event.run.target).withdraw(event.run)
      end(stage, event.run, byScenario(stage, 'timeout-first-byte'), nowMs)
      break
    case 'leave':
      leave(stage, event.run, nowMs)
      break
  }
}

const isStill = (run: Run, attempt: number, phases: readonly Run['phase'][]): boolean =>
  run.attempts === attempt && phases.includes(run.phase)

const byScenario = ({ fallback }: Stage, cause: string): Ending => ({ kind: 'failed', cause, isFinal: !fallback })

const arrive = (stage: Stage, arrival: Arrival, nowMs: number): void => {
  // Only this much of a decision is kept: its candidates with all their features would outweigh the log.
  const { chosen, plan } = stage.route(arrival, () => stage.fleet.contextAt(arrival, nowMs))
  const run: Run = {
    arrival,
    route: { chosen, plan },
    asked: new Set(),
    target: '',
    attemptMs: nowMs,
    attempts: 0,
    phase: 'refused',
    answer: null,
  }
  const { outcome } = arrival.record
  if (outcome?.status === 'client-abort' && outcome.latency_ms !== null)
    stage.agenda.put(nowMs + outcome.latency_ms, { kind: 'leave', run })
  if (!ask(stage, run, nowMs)) finish(stage, run, 'no-candidate', nowMs, 'no-candidate')
}

/** Asks the next target of the plan that has not been asked; false when there is none. */
const ask = (stage: Stage, run: Run, nowMs: number): boolean => {
  const { world, agenda, fleet } = stage
  const target = run.route.plan.map((model) => serverOf(world, model) ?? model).find((name) => !run.asked.has(name))
  if (target === undefined) return false
  Object.assign(run, {
    target,
    attemptMs: nowMs,
    attempts: run.attempts + 1,
    phase: 'refused',
    answer: null,
  } satisfies Partial<Run>)
  run.asked.add(target)
  fleet.began(target)
  const refuse = (cause: string, afterMs: number) =>
    agenda.put(nowMs + afterMs, { kind: 'end', run, attempt: run.attempts, ending: byScenario(stage, cause) })
  const outage = outageAt(world, target, nowMs)
  if (serverOf(world, target) === null) refuse('retired', refusalMs)
  else if (outage) refuse('outage', outage.failAfterMs)
  else {
    const outputTokens = outputTokensOf(run.arrival.record, target, stage)
    const admission = stage.station(target).offer(run, inputTokensOf(run.arrival.record) + outputTokens, nowMs)
    if (admission === 'refuse') refuse('429', refusalMs)
    else if (admission === 'start') serve(stage, run, nowMs)
    else {
      run.phase = 'waiting'
      agenda.put(nowMs + waitMsMax, { kind: 'waited', run, attempt: run.attempts })
    }
  }
  return true
}

const serve = (stage: Stage, run: Run, nowMs: number): void => {
  const { log, seed, agenda, world } = stage
  const { target, arrival, attempts: attempt } = run
  const { record, id, session } = arrival
  run.phase = 'serving'
  const endAfter = (ms: number, ending: Ending) => agenda.put(nowMs + ms, { kind: 'end', run, attempt, ending })
  const fault = log.fault(record, target, id === record.id, draw(id, seed, `fault:${target}`))
  // Who waited in line may find the target down when its turn comes.
  const outage = outageAt(world, target, nowMs)
  if (outage) endAfter(outage.failAfterMs, byScenario(stage, 'outage'))
  else if (record.outcome?.status === 'rejected') endAfter(record.outcome.latency_ms ?? 0, { kind: 'rejected' })
  else if (fault) endAfter(fault.durationMs, { kind: 'failed', cause: fault.cause, isFinal: fault.cut })
  else {
    const blocks = () => blocksOf({ request: record.request, session })
    const cachedTokens = stage.cache(target)?.use(blocks(), inputTokensOf(record), nowMs) ?? 0
    run.answer = answerOf(arrival, target, cachedTokens, nowMs, stage)
    endAfter(run.answer.totalMs, { kind: 'answered' })
  }
}

const startNext = (stage: Stage, target: string, nowMs: number): void => {
  const next = stage.station(target).leave()
  if (next) serve(stage, next, nowMs)
}

const end = (stage: Stage, run: Run, ending: Ending, nowMs: number): void => {
  const { target, phase } = run
  if (phase === 'serving') startNext(stage, target, nowMs)
  const waitedMs = run.answer ? run.answer.servedFromMs - run.attemptMs : 0
  const seen = {
    model: target,
    startedAtMs: run.attemptMs,
    durationMs: nowMs - run.attemptMs,
    ttftMs: run.answer?.ttftMs == null ? null : waitedMs + run.answer.ttftMs,
    error: ending.kind === 'failed' ? ({ kind: 'status', status: 503, retryAfterMs: null } as const) : null,
    usage: { outputTokens: run.answer?.outputTokens ?? null },
  }
  stage.fleet.ended(target, ending.kind === 'rejected' ? null : seen)
  if (ending.kind !== 'failed') finish(stage, run, ending.kind === 'answered' ? 'ok' : 'rejected', nowMs, '')
  else {
    const isSentOn = !ending.isFinal && ask(stage, run, nowMs)
    count(stage, target, isSentOn ? run.target : null, ending.cause)
    if (!isSentOn) finish(stage, run, 'failed', nowMs, ending.cause)
  }
}

const count = ({ hops }: Stage, from: string, to: string | null, cause: string): void => {
  const key = JSON.stringify([from, to, cause])
  const hop = hops.get(key) ?? { from, to, cause, count: 0 }
  hop.count++
  hops.set(key, hop)
}

/** A client that was seen to leave after some time leaves after it here too, unless it has its answer by then. */
const leave = (stage: Stage, run: Run, nowMs: number): void => {
  if (run.phase === 'done') return
  const { target, phase } = run
  if (phase === 'waiting') stage.station(target).withdraw(run)
  if (phase === 'serving') startNext(stage, target, nowMs)
  stage.fleet.ended(target, null)
  if (run.answer) run.answer = partOf(run.answer, run.arrival.record, target, nowMs, stage)
  finish(stage, run, 'left', nowMs, 'client-abort')
}

const finish = (stage: Stage, run: Run, status: Status, nowMs: number, cause: string): void => {
  run.phase = 'done'
  const { arrival, route, target, attempts, answer } = run
  const ttftMs = answer?.ttftMs == null ? null : answer.servedFromMs + answer.ttftMs - arrival.atMs
  stage.done.push({
    arrival,
    route,
    target: target === '' ? null : target,
    attempts,
    startMs: arrival.atMs,
    status,
    latencyMs: nowMs - arrival.atMs,
    ttftMs: ttftMs !== null && arrival.atMs + ttftMs <= nowMs ? ttftMs : null,
    costUsd: answer ? answer.costUsd : 0,
    cachedTokens: answer?.cachedTokens ?? 0,
    inputTokens: inputTokensOf(arrival.record),
    cause,
  })
}
