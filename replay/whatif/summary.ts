// Simulations as figures: what a service level is made of, where requests went instead, and whether the simulator can be
// believed — production, simulated by itself, must come out as it was logged.
import type { DecisionRecord } from '../../router/policy/record.ts'
import { quantile } from './line.ts'
import { inputTokensOf } from './log-model.ts'
import type { Simulated, Status } from './simulate.ts'

const quantiles = [0.5, 0.95, 0.99] as const
/** How far a simulated quantile of production may be from the logged one, as a share of it. */
const errorMax = 0.05
/** Below so many answered requests a p99 is one request's luck. */
const answeredMin = 100

export type Quantiles = { readonly p50: number | null; readonly p95: number | null; readonly p99: number | null }

/** Figures of a service: times in milliseconds of answered requests, shares of all requests. */
export type Summary = {
  readonly requests: number
  readonly latencyMs: Quantiles
  readonly ttftMs: Quantiles
  readonly failedShare: number
  readonly leftShare: number
  readonly fellBackShare: number
  /** Not answered, or later than the objective; null when there is no objective. */
  readonly sloMissShare: number | null
  /** Sum of all costs that are known, US dollars. */
  readonly costUsd: number
  readonly costUnknown: number
  readonly inputTokens: number
  readonly cachedTokens: number
}

/** One request, logged or simulated, as far as figures go. */
type Row = {
  readonly status: Status
  readonly latencyMs: number | null
  readonly ttftMs: number | null
  readonly costUsd: number | null
  readonly attempts: number
  readonly inputTokens: number
  readonly cachedTokens: number
}

const quantilesOf = (values: readonly (number | null)[]): Quantiles => {
  const sorted = Float64Array.from(values.filter((value) => value !== null)).sort()
  const [p50, p95, p99] = quantiles.map((share) => (sorted.length === 0 ? null : quantile(sorted, share)))
  return { p50: p50 ?? null, p95: p95 ?? null, p99: p99 ?? null }
}

const summary = (rows: readonly Row[], sloMs: number | null): Summary => {
  const answered = rows.filter(({ status }) => status === 'ok')
  const share = (is: (row: Row) => boolean) => (rows.length === 0 ? 0 : rows.filter(is).length / rows.length)
  const sum = (of: (row: Row) => number) => rows.reduce((total, row) => total + of(row), 0)
  const isLate = ({ status, latencyMs }: Row) =>
    status !== 'left' && (status !== 'ok' || (latencyMs ?? 0) > (sloMs ?? 0))
  return {
    requests: rows.length,
    latencyMs: quantilesOf(answered.map(({ latencyMs }) => latencyMs)),
    ttftMs: quantilesOf(answered.map(({ ttftMs }) => ttftMs)),
    failedShare: share(({ status }) => status === 'failed' || status === 'no-candidate'),
    leftShare: share(({ status }) => status === 'left'),
    fellBackShare: share(({ attempts }) => attempts > 1),
    sloMissShare: sloMs === null ? null : share(isLate),
    costUsd: sum(({ costUsd }) => costUsd ?? 0),
    costUnknown: rows.filter(({ costUsd }) => costUsd === null).length,
    inputTokens: sum(({ inputTokens }) => inputTokens),
    cachedTokens: sum(({ cachedTokens }) => cachedTokens),
  }
}

/** The figures of a simulation. */
export const summaryOf = (requests: readonly Simulated[], sloMs: number | null): Summary => summary(requests, sloMs)

const loggedStatus = (record: DecisionRecord): Status => {
  switch (record.outcome?.status) {
    case 'ok':
    case 'rejected':
    case 'no-candidate':
      return record.outcome.status
    case 'client-abort':
      return 'left'
    case 'error':
    case 'upstream-cut':
    case undefined:
      return 'failed'
  }
}

/** The figures of the log itself, of the records that have an outcome. */
export const loggedSummaryOf = (records: readonly DecisionRecord[], sloMs: number | null): Summary => {
  const rows = records.flatMap((record): Row[] => {
    const { outcome } = record
    if (!outcome) return []
    const { latency_ms: latencyMs, ttft_ms: ttftMs, cost_usd: costUsd, attempts } = outcome
    const inputTokens = inputTokensOf(record)
    return [{ status: loggedStatus(record), latencyMs, ttftMs, costUsd, attempts, inputTokens, cachedTokens: 0 }]
  })
  return summary(rows, sloMs)
}

export type Move = { readonly from: string | null; readonly to: string | null; readonly count: number }

/** Whose first choice became whose, most first; requests that are copies or were left out of the traffic do not count. */
export const movesOf = (before: readonly Simulated[], after: readonly Simulated[]): Move[] => {
  const chosen = new Map(before.map(({ arrival, route }) => [arrival.id, route.chosen]))
  const moves = new Map<string, { from: string | null; to: string | null; count: number }>()
  for (const { arrival, route } of after) {
    const from = chosen.get(arrival.id)
    if (from === undefined || from === route.chosen) continue
    const key = JSON.stringify([from, route.chosen])
    const move = moves.get(key) ?? { from, to: route.chosen, count: 0 }
    move.count++
    moves.set(key, move)
  }
  return [...moves.values()].sort((a, b) => b.count - a.count)
}

/** One quantile of production as logged and as simulated, milliseconds; `error` relative to the logged one. */
export type Check = {
  readonly figure: string
  readonly logged: number
  readonly simulated: number
  readonly error: number
  readonly ok: boolean
}
export type Calibration = {
  readonly calibrated: boolean
  readonly answered: number
  readonly answeredMin: number
  readonly errorMax: number
  readonly checks: readonly Check[]
  /** Records whose first choice the simulation repeats; state that evolves makes it differ. */
  readonly sameChoiceShare: number
}

/** Compares production, simulated by itself once or more, with the log. */
export const calibrate = (logged: Summary, requests: readonly Simulated[]): Calibration => {
  const simulated = summaryOf(requests, null)
  const answered = Math.round(logged.requests * (1 - logged.failedShare - logged.leftShare))
  const checks = (['latencyMs', 'ttftMs'] as const).flatMap((metric) =>
    (['p50', 'p95', 'p99'] as const).flatMap((name): Check[] => {
      const [was, is] = [logged[metric][name], simulated[metric][name]]
      if (was === null) return []
      const error = is === null ? Infinity : was === 0 ? Math.abs(is) : Math.abs(is / was - 1)
      const figure = `${metric === 'latencyMs' ? 'latency' : 'TTFT'} ${name}`
      return [{ figure, logged: was, simulated: is ?? 0, error, ok: error <= errorMax }]
    }),
  )
  const same = requests.filter(({ arrival, route }) => arrival.record.chosen === route.chosen).length
  return {
    calibrated: answered >= answeredMin && checks.length > 0 && checks.every(({ ok }) => ok),
    answered,
    answeredMin,
    errorMax,
    checks,
    sameChoiceShare: requests.length === 0 ? 0 : same / requests.length,
  }
}
