// What a log says of each target, so that calls which never happened can be simulated: how long calls take, how long answers
// are, how calls fail and when, and what they cost. Only whole first attempts are timed: a fallback's time is two targets'.
import { draw } from '../../router/policy/chance.ts'
import type { DecisionRecord, Outcome } from '../../router/policy/record.ts'
import { SourceError } from '../read/source.ts'
import { callsMin, firstAbove, fitLatency, type LatencyModel, type Timing } from './latency-model.ts'
import { fitLine, quantile } from './line.ts'
import type { Price } from './scenario.ts'

/** A call fails as one of so many logged attempts at its target, nearest in time, did. */
const attemptsNear = 200

/** How an attempt failed. After a `cut` the client has part of the answer, and nobody else is asked. */
export type Fault = { readonly cause: string; readonly durationMs: number; readonly cut: boolean }
type LoggedAttempt = { readonly atMs: number; readonly fault: Fault | null }

export type TargetModel = {
  /** Attempts in the log; of a target that has none, nothing is known, and it is taken to be like the others. */
  readonly attempts: number
  readonly latency: (stream: boolean) => LatencyModel
  /** Whether the latency model is its own. */
  readonly isOwn: (stream: boolean) => boolean
  /** The length of an answer that stands at a share of all of this target's, by length. */
  readonly outputTokens: (share: number) => number
  /** From the costs in the log; null when they cannot tell. */
  readonly price: Price | null
}

export type LogModel = {
  readonly target: (name: string) => TargetModel
  /** Where a request's answer stands among all of the model that gave it, by length; drawn where there was no answer. */
  readonly verbosity: (record: DecisionRecord, seed: string) => number
  /** How a call fails, null when it does not: as the same call did, if the log has it and it is `isOwn`; else as one near it in time. */
  readonly fault: (record: DecisionRecord, target: string, isOwn: boolean, lot: number) => Fault | null
  readonly unused: Unused
}

/** Outcomes that say nothing about how long a call takes, by why. */
export type Unused = {
  readonly missing: number
  readonly fellBack: number
  readonly failed: number
  readonly left: number
}

export const inputTokensOf = ({ request, outcome }: DecisionRecord): number =>
  outcome?.input_tokens ?? request.input_tokens

/** The model that gave the answer. */
export const servedOf = ({ outcome, chosen }: DecisionRecord): string | null =>
  outcome?.status === 'ok' ? (outcome.served ?? chosen) : null

/** Reads a log. Throws a SourceError when it has too few whole calls to time anything. */
export const logModelOf = (records: readonly DecisionRecord[]): LogModel => {
  const { timings, unused } = timingsOf(records)
  const pooled = fitLatency([...timings.values()].flat())
  if (!pooled)
    throw new SourceError(
      'source-empty',
      `timing the targets: the records have fewer than ${callsMin} whole calls with latency_ms and output_tokens; nothing was simulated`,
    )
  const latencies = new Map([...timings].map(([key, calls]) => [key, fitLatency(calls)]))
  const lengths = lengthsOf(records)
  const latency: Latency = (name, stream) => latencies.get(key(name, stream)) ?? pooled
  const attempts = attemptsOf(records, latency)
  const faults = new Map([...attempts].map(([name, logged]) => [name, faultsOf(logged)]))
  const prices = pricesOf(records)
  const all = Float64Array.from([...lengths.values()].flatMap((list) => [...list])).sort()
  const target = (name: string): TargetModel => {
    const own = (stream: boolean) => latencies.get(key(name, stream)) ?? latencies.get(key(name, !stream)) ?? null
    const logged = attempts.get(name) ?? []
    const sorted = lengths.get(name) ?? all
    return {
      attempts: logged.length,
      latency: (stream) => own(stream) ?? pooled,
      isOwn: (stream) => own(stream) !== null,
      outputTokens: (share) => Math.round(quantile(sorted, share)),
      price: prices.get(name) ?? null,
    }
  }
  const targets = new Map<string, TargetModel>()
  return {
    target: (name) => {
      const known = targets.get(name) ?? target(name)
      targets.set(name, known)
      return known
    },
    verbosity: (record, seed) => {
      const tokens = record.outcome?.output_tokens
      const sorted = lengths.get(servedOf(record) ?? '')
      if (tokens == null || !sorted) return draw(record.id, seed, 'length')
      return (firstAbove(sorted, tokens, false) + firstAbove(sorted, tokens, true)) / (2 * sorted.length)
    },
    fault: (record, name, isOwn, lot) => {
      const own = isOwn ? attemptsIn(record, latency).find((attempt) => attempt.name === name) : undefined
      return own ? own.fault : (faults.get(name)?.(Date.parse(record.time), lot) ?? null)
    },
    unused,
  }
}

const key = (name: string, stream: boolean): string => `${stream}|${name}`

const push = <Value>(map: Map<string, Value[]>, name: string, value: Value): void => {
  const list = map.get(name)
  if (list) list.push(value)
  else map.set(name, [value])
}

const timingsOf = (records: readonly DecisionRecord[]) => {
  const timings = new Map<string, Timing[]>()
  const unused = { missing: 0, fellBack: 0, failed: 0, left: 0 }
  for (const record of records) {
    const { outcome, chosen, request } = record
    const left = outcome?.status === 'client-abort'
    if (!outcome || chosen === null || outcome.latency_ms === null || (!left && outcome.output_tokens === null))
      unused.missing++
    else if (outcome.attempts > 1) unused.fellBack++
    else if (!left && outcome.status !== 'ok') unused.failed++
    else {
      // What a client saw before it left in the middle of an answer says nothing about the part that it did not see.
      if (left && outcome.ttft_ms !== null) unused.left++
      push(timings, key(outcome.served ?? chosen, request.stream), {
        inputTokens: inputTokensOf(record),
        outputTokens: outcome.output_tokens ?? 0,
        ttftMs: outcome.ttft_ms,
        totalMs: outcome.latency_ms,
        left,
      })
    }
  }
  return { timings, unused }
}

const lengthsOf = (records: readonly DecisionRecord[]): Map<string, Float64Array> => {
  const lengths = new Map<string, number[]>()
  for (const record of records) {
    const served = servedOf(record)
    const tokens = record.outcome?.output_tokens
    if (served !== null && tokens != null) push(lengths, served, tokens)
  }
  return new Map([...lengths].map(([name, list]) => [name, Float64Array.from(list).sort()]))
}

type Latency = (name: string, stream: boolean) => LatencyModel

/** The attempts of one record in their order; a failed one took its share of what the answer did not. */
const attemptsIn = (record: DecisionRecord, latency: Latency): { name: string; fault: Fault | null }[] => {
  const { outcome, chosen, request } = record
  if (!outcome || chosen === null || outcome.status === 'no-candidate') return []
  const asked = (record.plan.length > 0 ? record.plan : [chosen]).slice(0, Math.max(1, outcome.attempts))
  const isFailed = outcome.status === 'error' || outcome.status === 'upstream-cut'
  const failures = isFailed ? asked.length : asked.length - 1
  if (failures === 0) return asked.map((name) => ({ name, fault: null }))
  const { predict } = latency(asked.at(-1) ?? chosen, request.stream)
  const answer = predict(inputTokensOf(record), outcome.output_tokens ?? 0)
  // The first token says more about when the answer began than its end does.
  const answerFromMs =
    outcome.ttft_ms === null ? (outcome.latency_ms ?? 0) - answer.totalMs : outcome.ttft_ms - answer.ttftMs
  const durationMs = Math.max(0, isFailed ? (outcome.latency_ms ?? 0) : answerFromMs) / failures
  return asked.map((name, number) => ({
    name,
    fault: number < failures ? faultOf(outcome, number === asked.length - 1, durationMs) : null,
  }))
}

/** Every attempt of the log by target, in order of time. */
const attemptsOf = (records: readonly DecisionRecord[], latency: Latency): Map<string, LoggedAttempt[]> => {
  const attempts = new Map<string, LoggedAttempt[]>()
  for (const record of records)
    for (const { name, fault } of attemptsIn(record, latency))
      push(attempts, name, { atMs: Date.parse(record.time), fault })
  for (const list of attempts.values()) list.sort((a, b) => a.atMs - b.atMs)
  return attempts
}

const faultOf = ({ status, error_type }: Outcome, isLast: boolean, durationMs: number): Fault => ({
  cause: (isLast && error_type) || 'failed',
  durationMs,
  cut: isLast && status === 'upstream-cut',
})

/** Draws the fate of a call from the logged attempts nearest in time. */
const faultsOf = (logged: readonly LoggedAttempt[]): ((atMs: number, lot: number) => Fault | null) => {
  const times = Float64Array.from(logged, ({ atMs }) => atMs)
  return (atMs, lot) => {
    const middle = (firstAbove(times, atMs, false) + firstAbove(times, atMs, true)) >> 1
    const from = Math.max(0, Math.min(middle - attemptsNear / 2, logged.length - attemptsNear))
    const to = Math.min(logged.length, from + attemptsNear)
    return logged[from + Math.floor(lot * (to - from))]?.fault ?? null
  }
}

/** Prices per million tokens that explain the logged costs of whole first attempts. */
const pricesOf = (records: readonly DecisionRecord[]): Map<string, Price> => {
  const costs = new Map<string, { input: number; output: number; y: number }[]>()
  for (const record of records) {
    const served = servedOf(record)
    const { outcome } = record
    if (served === null || !outcome || outcome.attempts > 1) continue
    if (outcome.cost_usd === null || outcome.output_tokens === null) continue
    push(costs, served, { input: inputTokensOf(record), output: outcome.output_tokens, y: outcome.cost_usd * 1e6 })
  }
  return new Map(
    [...costs]
      .filter(([, points]) => points.length >= callsMin)
      .map(([name, points]) => {
        const { perInput, perOutput } = fitLine(points)
        return [name, { input_usd_per_mtok: perInput, output_usd_per_mtok: perOutput }]
      }),
  )
}
