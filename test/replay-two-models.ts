// Two models and a world that is made up: A costs ten times as much as B, and what comes of a request is for the test to say.
import assert from 'node:assert/strict'
import type { MetricName } from '../replay/estimate/metrics.ts'
import { type Replay, type ReplayOptions, replay, replayDefaults } from '../replay/run.ts'
import { type Policy, parsePolicy } from '../router/policy/policy.ts'
import { type Context, type DecisionRecord, type Outcome, recordOf } from '../router/policy/record.ts'

export const policy = (name: string, body: string) => parsePolicy(`name: ${name}\n${body}`, { cost_usd: 'double' })
export const weighted = (name: string, a: number, b: number, per = 'request') =>
  policy(name, `choose: {kind: weighted, weights: {A: ${a}, B: ${b}}, per: ${per}}`)
export const allB = weighted('all-b', 0, 1)
export const ruled = (name: string, some: string, rest: string) =>
  policy(
    name,
    `rules:\n  - {name: some, when: 'request.tags["category"] == "x"', use: {choose: {kind: weighted, weights: ${some}}}}\n  - {name: rest, use: {choose: {kind: weighted, weights: ${rest}}}}`,
  )

export type Candidates = Context['candidates']
type Asked = {
  readonly user?: string
  readonly tenant?: string
  readonly session?: string
  readonly category?: string
  readonly candidates?: Candidates
}
export const two: Candidates = [
  { model: 'A', features: { cost_usd: 0.01 } },
  { model: 'B', features: { cost_usd: 0.001 } },
]
const done = (model: string, more: Partial<Outcome>): Outcome => ({
  status: 'ok',
  served: model,
  attempts: 1,
  http_status: 200,
  error_type: null,
  cost_usd: model === 'A' ? 0.01 : 0.001,
  cost_source: 'measured',
  latency_ms: 100,
  ttft_ms: 10,
  input_tokens: 100,
  output_tokens: 10,
  tokens_source: 'measured',
  stream_end: null,
  quality: null,
  ...more,
})
export const logged = (
  production: Policy,
  rows: number,
  outcome: (model: string, at: number) => Partial<Outcome>,
  ask: (at: number) => Asked = () => ({}),
  prefix = 'd',
): DecisionRecord[] =>
  Array.from({ length: rows }, (_, at) => {
    const { user = '', tenant = '', session = '', category = '', candidates = two } = ask(at)
    const context: Context = {
      id: `${prefix}-${at}`,
      time: new Date(Date.UTC(2026, 10, 1, 0, at)).toISOString(),
      session,
      request: {
        model: 'auto',
        input_tokens: 100,
        output_tokens_max: null,
        stream: false,
        tier: '',
        tenant,
        user,
        tags: { category },
      },
      candidates,
    }
    const decision = production.decide(context)
    return recordOf(context, decision, done(decision.chosen ?? '', outcome(decision.chosen ?? '', at)))
  })

export const judged = (
  records: readonly DecisionRecord[],
  production: readonly Policy[],
  candidate = allB,
  options: Partial<ReplayOptions> = {},
): Replay => replay(records, production, candidate, { ...replayDefaults, ...options })
export const kinds = ({ verdict }: Replay) => verdict.refusals.map(({ kind }) => kind)
export const of = ({ metrics }: Replay, name: MetricName) => {
  const found = metrics.find(({ metric }) => metric === name)
  assert.ok(found)
  return found
}
export const finding = ({ verdict }: Replay, name: MetricName) =>
  verdict.findings.find(({ metric }) => metric === name)?.result
