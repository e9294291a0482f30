// What a replay compares. A metric is data: how to read it off an outcome, which direction is better, and how to say it.
import type { DecisionRecord, OutcomeStatus } from '../../router/policy/record.ts'

export const metricNames = ['cost_usd', 'latency_ms', 'quality', 'failed', 'abandoned'] as const
export type MetricName = (typeof metricNames)[number]

export type Metric = {
  readonly name: MetricName
  readonly title: string
  readonly better: 'lower' | 'higher'
  /** Whether the gate guards it even when it is not the goal. */
  readonly guards: boolean
  /** The outcome's value; NaN when it is not known. */
  readonly read: (record: DecisionRecord) => number
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

export const metrics: Readonly<Record<MetricName, Metric>> = {
  cost_usd: {
    name: 'cost_usd',
    title: 'cost, $ per 1,000 requests',
    better: 'lower',
    guards: false,
    read: ({ outcome }) => outcome?.cost_usd ?? Number.NaN,
    say: (usd) => significant(usd * 1000),
  },
  latency_ms: {
    name: 'latency_ms',
    title: 'mean latency, ms',
    better: 'lower',
    guards: false,
    read: ({ outcome }) => outcome?.latency_ms ?? Number.NaN,
    say: (ms) => fixed(ms, Math.abs(ms) < 10 ? 1 : 0),
  },
  quality: {
    name: 'quality',
    title: 'quality, 0 to 1',
    better: 'higher',
    guards: true,
    read: ({ outcome }) => outcome?.quality ?? Number.NaN,
    say: (quality) => fixed(quality, 3),
  },
  failed: {
    name: 'failed',
    title: 'failed requests, %',
    better: 'lower',
    guards: true,
    read: ({ outcome }) => (outcome ? Number(failures.has(outcome.status)) : Number.NaN),
    say: (share) => fixed(share * 100, 2),
  },
  abandoned: {
    name: 'abandoned',
    title: 'given up by the client, %',
    better: 'lower',
    guards: true,
    read: ({ outcome }) => (outcome ? Number(outcome.status === 'client-abort') : Number.NaN),
    say: (share) => fixed(share * 100, 2),
  },
}
