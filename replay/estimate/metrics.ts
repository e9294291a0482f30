// What a replay compares. A metric is data: how to read it off an outcome, which direction is better, and how to say it.
import type { DecisionRecord, OutcomeStatus } from '../../router/policy/record.ts'
import { type Horizon, qualityWithin } from './feedback.ts'

export const metricNames = ['cost_usd', 'latency_ms', 'ttft_ms', 'slow', 'quality', 'failed', 'abandoned'] as const
export type MetricName = (typeof metricNames)[number]
export const metricCount = metricNames.length

/** What a metric may need to know besides the outcome. */
export type Objective = {
  /** The latency, in milliseconds, beyond which a request is slow; null when there is no such objective. */
  readonly slowAboveMs: number | null
  /** Takes a judge model's word for quality where people scored too few answers to correct it. */
  readonly trustJudge?: boolean
  /** Up to when people's feedback counts; null or absent for whenever it came. */
  readonly horizon?: Horizon | null
}

export type Metric = {
  readonly name: MetricName
  readonly title: string
  readonly better: 'lower' | 'higher'
  /** Whether the gate guards it even when it is not the goal. */
  readonly guards: boolean
  /** The values it can have; null for amounts without a natural end. */
  readonly range: readonly [number, number] | null
  /** What the router predicts of it for every candidate, if it does. */
  readonly predictedBy: 'cost_usd' | 'latency_ms' | 'ttft_ms' | null
  /** The outcome's value; NaN when it is not known. */
  readonly read: (record: DecisionRecord, objective: Objective) => number
  /** A value in the unit people think in. */
  readonly say: (value: number) => string
}

/** Statuses under which the client got no whole answer through no doing of its own. */
const failures: ReadonlySet<OutcomeStatus> = new Set(['error', 'upstream-cut', 'no-candidate'])

const fixed = (value: number, digits: number): string =>
  Number.isFinite(value) ? (Number(value.toFixed(digits)) + 0).toFixed(digits).replace('-', '−') : '—'

/** Three significant digits, no exponent, a real minus sign. */
const significant = (value: number): string => {
  const digits = value === 0 || !Number.isFinite(value) ? 0 : Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))))
  return fixed(value, Math.min(digits, 10))
}

const sayMs = (ms: number): string => fixed(ms, Math.abs(ms) < 10 ? 1 : 0)
const sayShare = (share: number): string => fixed(share * 100, 2)
const amount = { better: 'lower', guards: false, range: null } as const
const share = { better: 'lower', range: [0, 1], predictedBy: null, say: sayShare } as const

export const metrics: Readonly<Record<MetricName, Metric>> = {
  cost_usd: {
    ...amount,
    name: 'cost_usd',
    title: 'cost, $ per 1,000 requests',
    predictedBy: 'cost_usd',
    read: ({ outcome }) => outcome?.cost_usd ?? Number.NaN,
    say: (usd) => significant(usd * 1000),
  },
  latency_ms: {
    ...amount,
    name: 'latency_ms',
    title: 'mean latency, ms',
    predictedBy: 'latency_ms',
    read: ({ outcome }) => outcome?.latency_ms ?? Number.NaN,
    say: sayMs,
  },
  ttft_ms: {
    ...amount,
    name: 'ttft_ms',
    title: 'mean time to first token, ms',
    predictedBy: 'ttft_ms',
    read: ({ outcome }) => outcome?.ttft_ms ?? Number.NaN,
    say: sayMs,
  },
  slow: {
    ...share,
    name: 'slow',
    title: 'slower than the objective, %',
    guards: false,
    read: ({ outcome }, { slowAboveMs }) => {
      const latencyMs = outcome?.latency_ms ?? null
      return slowAboveMs === null || latencyMs === null ? Number.NaN : Number(latencyMs > slowAboveMs)
    },
  },
  quality: {
    name: 'quality',
    title: 'quality, 0 to 1',
    better: 'higher',
    guards: true,
    range: [0, 1],
    predictedBy: null,
    read: (record, { horizon = null }) => qualityWithin(record, horizon),
    say: (quality) => fixed(quality, 3),
  },
  failed: {
    ...share,
    name: 'failed',
    title: 'failed requests, %',
    guards: true,
    read: ({ outcome }) => (outcome ? Number(failures.has(outcome.status)) : Number.NaN),
  },
  abandoned: {
    ...share,
    name: 'abandoned',
    title: 'given up by the client, %',
    guards: true,
    read: ({ outcome }) => (outcome ? Number(outcome.status === 'client-abort') : Number.NaN),
  },
}

/** Amounts whose distribution is looked at besides their mean, and by what they are multiplied to lie on the scale of bins. */
export const spreadMetrics = [
  { metric: 'latency_ms', scale: 1 },
  { metric: 'ttft_ms', scale: 1 },
  { metric: 'cost_usd', scale: 1e6 },
] as const satisfies readonly { readonly metric: MetricName; readonly scale: number }[]

/** Whether the request would have taken longer had nobody and nothing ended it: its latency is only a lower bound. */
export const isCutShort = ({ outcome }: DecisionRecord): boolean =>
  outcome !== undefined && (outcome.status === 'client-abort' || /timeout/i.test(outcome.error_type ?? ''))
