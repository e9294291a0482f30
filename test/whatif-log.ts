// A log as a router would have written it, from what others measured: Azure's arrivals and prompt lengths, and the delays of
// real calls in LLMPerf, resampled whole. Contexts carry the health that the calls before had made. The generator knows
// nothing of the simulator's models, so that the simulator can be held to it.
import { readFileSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
import { type Health, healthOf, observe, stateFeatures } from '../router/policy/health.ts'
import { type Policy, parsePolicy } from '../router/policy/policy.ts'
import { type Context, type DecisionRecord, type Outcome, recordOf } from '../router/policy/record.ts'
import { snapshotTypes } from '../router/snapshot.ts'
import { seeded } from './replay-truth.ts'

const table = (path: string): string[][] =>
  gunzipSync(readFileSync(new URL(path, import.meta.url)))
    .toString()
    .trimEnd()
    .split('\n')
    .slice(1)
    .map((line) => line.split(','))

export type MeasuredCall = {
  readonly run: string
  readonly ttftMs: number
  readonly totalMs: number
  readonly inputTokens: number
  readonly outputTokens: number
}
/** LLMPerf's calls that answered. */
export const measuredCalls: readonly MeasuredCall[] = table('data/llmperf.csv.gz').map(
  ([run = '', ttft, total, input, output]) => ({
    run,
    ttftMs: Number(ttft),
    totalMs: Number(total),
    inputTokens: Number(input),
    outputTokens: Number(output),
  }),
)
/** Azure's conversations: milliseconds since the arrival before, and tokens of context. */
export const arrivalGaps = table('../demo/data/azure-conversations.csv.gz').map(([gap, tokens]) => ({
  gapMs: Number(gap),
  inputTokens: Number(tokens),
}))

/** Name → the run it behaves like, US dollars per million tokens in and out, quality, and the share of calls that fail. */
const targets = {
  small: { run: 'anyscale_7b', input: 0.2, output: 0.6, quality: 0.6, failing: 0 },
  medium: { run: 'anyscale_13b', input: 0.5, output: 1.5, quality: 0.7, failing: 0.03 },
  large: { run: 'anyscale_70b', input: 2, output: 8, quality: 0.85, failing: 0.01 },
} as const
type Name = keyof typeof targets
const names = Object.keys(targets) as Name[]
const startMs = Date.UTC(2026, 10, 1, 8)
const failureMs = 400
/** LLMPerf's prompts are all of about 550 tokens; reading longer ones takes this much longer. */
const readMsPerToken = 0.05

export const policyOf = (text: string): Policy => parsePolicy(text, snapshotTypes)
/** Chance alone, no state: a quarter large, the rest by weight. */
export const weightedPolicy = policyOf(
  'name: weighted\nchoose: {kind: weighted, weights: {small: 2, medium: 1, large: 1}}\nfallback: {attempts_max: 3}',
)
/** Reads the state of the targets. */
export const liveliestPolicy = policyOf(
  'name: liveliest\nscore: candidate.quality - 0.0002 * candidate.ttft_ms - 0.5 * candidate.error_rate\nchoose: {kind: softmax, temperature: 0.1}',
)

const usd = (name: Name, input: number, output: number): number =>
  (input * targets[name].input + output * targets[name].output) / 1e6

type Call = {
  readonly model: Name
  readonly startedAtMs: number
  readonly durationMs: number
  readonly ttftMs: number | null
}

/** `rows` records of a policy's traffic; `speed` times as fast as it arrived. */
export const whatIfLog = (policy: Policy, rows: number, seed = 7, speed = 1): DecisionRecord[] => {
  const random = seeded(seed)
  const pool = new Map(names.map((name) => [name, measuredCalls.filter(({ run }) => run === targets[name].run)]))
  const running = new Map<Call, { readonly outputTokens: number | null }>()
  let health: Health = new Map()
  let nowMs = startMs
  const settle = (): void => {
    const ended = [...running].filter(([call]) => call.startedAtMs + call.durationMs <= nowMs)
    ended.sort(([a], [b]) => a.startedAtMs + a.durationMs - b.startedAtMs - b.durationMs)
    for (const [call, usage] of ended) {
      const error = usage.outputTokens === null ? ({ kind: 'status', status: 500, retryAfterMs: null } as const) : null
      health = observe(health, { ...call, error, usage })
      running.delete(call)
    }
  }
  return Array.from({ length: rows }, (_, at): DecisionRecord => {
    const { gapMs, inputTokens } = arrivalGaps[at % arrivalGaps.length] ?? { gapMs: 0, inputTokens: 1 }
    nowMs += Math.round(gapMs / speed)
    settle()
    const context = contextOf(at, nowMs, inputTokens, health, [...running.keys()])
    const decision = policy.decide(context)
    let [latencyMs, attempts] = [0, 0]
    for (const model of decision.plan as Name[]) {
      attempts++
      const call = { model, startedAtMs: nowMs + latencyMs }
      if (random() < targets[model].failing) {
        running.set({ ...call, durationMs: failureMs, ttftMs: null }, { outputTokens: null })
        latencyMs += failureMs
        continue
      }
      const calls = pool.get(model) ?? []
      const measured = calls[Math.floor(random() * calls.length)] as MeasuredCall
      const outputTokens = Math.max(1, Math.round(measured.outputTokens * (0.25 + 1.5 * random())))
      const decodeMs = ((measured.totalMs - measured.ttftMs) * outputTokens) / Math.max(1, measured.outputTokens)
      const ttftMs = measured.ttftMs + readMsPerToken * inputTokens
      const durationMs = ttftMs + decodeMs
      running.set({ ...call, durationMs, ttftMs }, { outputTokens })
      const outcome = answered(model, attempts, latencyMs + durationMs, latencyMs + ttftMs, inputTokens, outputTokens)
      return recordOf(context, decision, outcome)
    }
    return recordOf(context, decision, {
      ...answered('small', attempts, latencyMs, null, inputTokens, null),
      status: 'error',
      served: null,
    })
  })
}

const contextOf = (
  at: number,
  nowMs: number,
  inputTokens: number,
  health: Health,
  running: readonly Call[],
): Context => ({
  id: `r-${at}`,
  session: `s-${Math.floor(at / 5)}`,
  time: new Date(nowMs).toISOString(),
  request: {
    model: 'auto',
    input_tokens: inputTokens,
    output_tokens_max: null,
    stream: true,
    tier: at % 3 === 0 ? 'premium' : 'free',
    tenant: '',
    user: '',
    tags: { category: at % 4 === 0 ? 'math' : 'prose' },
  },
  candidates: names.map((model) => {
    const inFlight = running.filter((call) => call.model === model).length
    const { expected, features } = stateFeatures(
      { output_tokens_max: null },
      healthOf(health, model, nowMs, inFlight),
      inFlight,
    )
    const { input, output, quality } = targets[model]
    return {
      model,
      features: {
        quality,
        provider: 'p',
        context_tokens_max: 128_000,
        input_usd_per_mtok: input,
        output_usd_per_mtok: output,
        cost_usd: Math.round(usd(model, inputTokens, expected) * 1e9) / 1e9,
        ...features,
      },
    }
  }),
})

const answered = (
  served: Name,
  attempts: number,
  latencyMs: number,
  ttftMs: number | null,
  inputTokens: number,
  outputTokens: number | null,
): Outcome => ({
  status: 'ok',
  served,
  attempts,
  http_status: 200,
  error_type: null,
  cost_usd: usd(served, inputTokens, outputTokens ?? 0),
  cost_source: 'measured',
  latency_ms: latencyMs,
  ttft_ms: ttftMs,
  input_tokens: inputTokens,
  output_tokens: outputTokens,
  tokens_source: 'measured',
  stream_end: 'complete',
  quality: null,
})
