// The first rows of the dashboard, for whoever asks how things stand: how much traffic, how it ends, how fast, for how much.
import { Dollars, Milliseconds, PercentUnit, RequestsPerSecond, Short } from '@grafana/grafana-foundation-sdk/units'
import type { Row } from './panels.ts'
import { attempts, chosenModel, decisions, failed, knownCost, named, overTime, perSecond } from './sql.ts'

const over = (columns: string) => `SELECT ${columns}\n${decisions.from}`
const share = (condition: string, name: string) => over(`countIf(${condition}) / nullIf(count(), 0) AS ${name}`)

export const atAGlance: Row = {
  title: 'At a glance',
  panels: [
    {
      kind: 'figure',
      title: 'Requests',
      description: 'How many requests were routed in this time range?',
      span: 3,
      unit: Short,
      sql: over('count() AS requests'),
    },
    {
      kind: 'figure',
      title: 'Failed',
      description:
        'What share of requests got no whole answer? Errors, cut streams and requests no model could take; not bad requests, nor clients that went away.',
      span: 3,
      unit: PercentUnit,
      warnFrom: 0.01,
      sql: share(failed, 'failed'),
    },
    {
      kind: 'figure',
      title: 'Needed another attempt',
      description: 'How often was the first target not enough, whether or not a fallback saved the request?',
      span: 3,
      unit: PercentUnit,
      warnFrom: 0.05,
      sql: share('attempts > 1', 'retried'),
    },
    {
      kind: 'figure',
      title: 'Known cost',
      description:
        'What did the traffic cost, as far as that is known? Requests of unknown cost are not in the sum: see the next figure.',
      span: 3,
      unit: Dollars,
      sql: over(`${knownCost('sum')} AS known_cost_usd`),
    },
    {
      kind: 'figure',
      title: 'Requests of unknown cost',
      description:
        'How many requests are missing from every figure about cost, because a price or a token count is not known?',
      span: 3,
      unit: Short,
      warnFrom: 1,
      sql: over('countIf(cost_usd IS NULL) AS requests'),
    },
    {
      kind: 'figure',
      title: 'Latency, p95',
      description: 'How long do the slowest 5 % of requests take at least, from request to last byte?',
      span: 3,
      unit: Milliseconds,
      sql: over('quantileOrNull(0.95)(latency_ms) AS p95'),
    },
    {
      kind: 'figure',
      title: 'Time to first token, p95',
      description: 'How long do the slowest 5 % of requests wait at least for their first content?',
      span: 3,
      unit: Milliseconds,
      sql: over('quantileOrNull(0.95)(ttft_ms) AS p95'),
    },
    {
      kind: 'figure',
      title: 'Router overhead, p99',
      description: 'How much of the time is our own, in the worst 1 % of requests?',
      span: 3,
      unit: Milliseconds,
      warnFrom: 10,
      sql: over('quantileOrNull(0.99)(overhead_ms) AS p99'),
    },
  ],
}

export const traffic: Row = {
  title: 'Traffic',
  panels: [
    {
      kind: 'bars',
      title: 'Requests by outcome',
      description: 'How much traffic is there, and how does it end?',
      span: 12,
      unit: RequestsPerSecond,
      label: 'outcome',
      colors: {
        ok: 'green',
        error: 'red',
        'upstream-cut': 'orange',
        'no-candidate': 'purple',
        rejected: 'yellow',
        'client-abort': 'blue',
      },
      sql: overTime(perSecond, decisions, { name: 'outcome', of: named('outcome') }),
    },
    {
      kind: 'bars',
      title: 'Attempts that failed, by error',
      description:
        'What goes wrong at the providers, including what a fallback repaired before the client could notice? A number is an HTTP status.',
      span: 12,
      unit: RequestsPerSecond,
      label: 'error',
      sql: overTime(
        perSecond,
        { ...attempts, from: `${attempts.from}\n  AND error_type != ''` },
        { name: 'error', of: 'error_type' },
      ),
    },
    {
      kind: 'lines',
      title: 'Latency',
      description: 'How long do requests take, from request to last byte?',
      span: 8,
      unit: Milliseconds,
      sql: overTime('quantile(0.5)(latency_ms) AS p50, quantile(0.95)(latency_ms) AS p95', decisions),
    },
    {
      kind: 'lines',
      title: 'Time to first token',
      description: 'How long do clients wait for the first content?',
      span: 8,
      unit: Milliseconds,
      sql: overTime('quantile(0.5)(ttft_ms) AS p50, quantile(0.95)(ttft_ms) AS p95', decisions),
    },
    {
      kind: 'lines',
      title: 'Router overhead',
      description: 'How much of a request is spent in the router itself, not waiting for a provider or a client?',
      span: 8,
      unit: Milliseconds,
      sql: overTime('quantile(0.5)(overhead_ms) AS p50, quantile(0.99)(overhead_ms) AS p99', decisions),
    },
  ],
}

export const cost: Row = {
  title: 'Cost',
  panels: [
    {
      kind: 'bars',
      title: 'Known cost by model called',
      description:
        'Where does the money go? Every attempt is counted at the model that was called, fallbacks too; attempts of unknown cost are left out.',
      span: 8,
      unit: Dollars,
      label: 'model',
      sql: overTime(`${knownCost('sum')} AS known_cost_usd`, attempts, { name: 'model', of: 'model' }),
    },
    {
      kind: 'lines',
      title: 'Known cost per request, by policy',
      description:
        'What does a request cost on average under each policy? The mean is over the requests whose cost is known.',
      span: 8,
      unit: Dollars,
      label: 'policy',
      sql: overTime(`${knownCost('avg')} AS known_cost_usd`, decisions, { name: 'policy', of: named('policy_name') }),
    },
    {
      kind: 'bars',
      title: 'Requests of unknown cost, by model chosen',
      description: 'Which model lacks a price or reports no usage, so that the figures to the left say too little?',
      span: 8,
      unit: Short,
      label: 'model',
      sql: overTime('countIf(cost_usd IS NULL) AS requests', decisions, chosenModel),
    },
  ],
}
