// Traffic with known truth: MMLU-Pro prompts on which every model's answer is recorded (see test/data/README.md). A log is
// made by letting a real policy decide prompts drawn with replacement and keeping only the chosen model's outcome; the true
// value of any policy is its mean over all prompts and its own probabilities.
import { readFileSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
import type { Policy } from '../router/policy/policy.ts'
import { type Context, type Decision, type DecisionRecord, type Outcome, recordOf } from '../router/policy/record.ts'

const charsPerToken = 4

/** US dollars per million output tokens, and milliseconds per output token. */
const targets: Readonly<Record<string, { readonly usd: number; readonly ms: number }>> = {
  'gemma-7b': { usd: 0.2, ms: 6 },
  'Phi-3-mini-4k-instruct': { usd: 0.1, ms: 4 },
  'Meta-Llama-3_1-8B-Instruct': { usd: 0.3, ms: 7 },
  'Meta-Llama-3_1-70B-Instruct': { usd: 0.9, ms: 16 },
  'gemini-1.5-pro-002': { usd: 5, ms: 14 },
}
const models = Object.keys(targets)

export type Prompt = {
  readonly category: string
  readonly tokens: number
  readonly outcomes: ReadonlyMap<string, Outcome>
}

const outcomeOf = (
  served: string,
  outputTokens: number,
  { usd, ms }: { usd: number; ms: number },
  quality: number,
): Outcome => ({
  status: 'ok',
  served,
  attempts: 1,
  http_status: 200,
  error_type: null,
  cost_usd: (outputTokens * usd) / 1e6,
  cost_source: 'measured',
  latency_ms: 200 + outputTokens * ms,
  ttft_ms: 200,
  input_tokens: null,
  output_tokens: outputTokens,
  tokens_source: 'measured',
  stream_end: null,
  quality,
})

const lines = gunzipSync(readFileSync(new URL('data/mmlupro_truth.csv.gz', import.meta.url)))
  .toString()
  .trim()
  .split('\n')
const header = (lines[0] ?? '').split(',')

export const prompts: readonly Prompt[] = lines.slice(1).map((line) => {
  const cells = line.split(',')
  const number = (column: string) => Number(cells[header.indexOf(column)])
  const outcomes = models.map((model): [string, Outcome] => {
    const outputTokens = Math.ceil(number(`${model}|output_chars`) / charsPerToken)
    const target = targets[model] ?? { usd: 0, ms: 0 }
    return [model, outcomeOf(model, outputTokens, target, number(`${model}|correct`))]
  })
  return {
    category: cells[0] ?? '',
    tokens: Math.ceil(number('question_chars') / charsPerToken),
    outcomes: new Map(outcomes),
  }
})

/** The request of a prompt; candidates carry what a router would know beforehand. */
export const contextFor = (prompt: Prompt, id: string, session = ''): Context => ({
  id,
  session,
  time: '2026-11-01T08:00:00.000Z',
  request: {
    model: 'auto',
    input_tokens: prompt.tokens,
    output_tokens_max: null,
    stream: false,
    tier: '',
    tenant: '',
    user: '',
    tags: { category: prompt.category },
  },
  candidates: models.map((model, rank) => ({
    model,
    features: { rank, cost_usd: (100 * (targets[model]?.usd ?? 0)) / 1e6 },
  })),
})

/** A logged record: decided by `policy` with its own draws, with the outcome of its choice; a minute apart. */
export const recordFor = (prompt: Prompt, policy: Policy, id: string, session = '', minute = 0): DecisionRecord => {
  const time = new Date(Date.UTC(2026, 10, 1, 0, minute)).toISOString()
  const context = { ...contextFor(prompt, id, session), time }
  const decision = policy.decide(context)
  return recordOf(context, decision, prompt.outcomes.get(decision.chosen ?? ''))
}

/** `rows` records of prompts drawn with replacement. */
export const logOf = (policy: Policy, rows: number, random: () => number): DecisionRecord[] =>
  Array.from({ length: rows }, (_, at) => recordFor(drawPrompt(random), policy, `d-${at}`, '', at))

export const drawPrompt = (random: () => number): Prompt => prompts[Math.floor(random() * prompts.length)] as Prompt

const drawFrom = <T extends { readonly probability: number }>(candidates: readonly T[], lot: number): T | undefined => {
  let sum = 0
  for (const candidate of candidates) {
    sum += candidate.probability
    if (lot < sum) return candidate
  }
  return candidates[0]
}

/**
 * The same many times over, fast: probabilities do not depend on the draw, so each prompt is decided once by either policy
 * and each log draws its choices from those probabilities with `random`.
 */
export const repeatedLogs = (production: Policy, candidate: Policy, random: () => number) => {
  const contexts = prompts.map((prompt) => contextFor(prompt, 'prompt'))
  const logged = contexts.map((context) => recordOf(context, production.decide(context)))
  const redecided = new Map(contexts.map((context) => [context.request, candidate.decide(context)]))
  const remembered: Policy = { ...candidate, decide: ({ request }) => redecided.get(request) as Decision }
  const log = (rows: number, name: string): DecisionRecord[] =>
    Array.from({ length: rows }, (_, row) => {
      const at = Math.floor(random() * prompts.length)
      const [prompt, record] = [prompts[at] as Prompt, logged[at] as DecisionRecord]
      const chosen = drawFrom(record.candidates, random())
      const outcome = prompt.outcomes.get(chosen?.model ?? '') as Outcome
      return { ...record, id: `${name}-${row}`, chosen: chosen?.model ?? null, outcome }
    })
  return { log, candidate: remembered }
}

export const truthFeatures = { rank: 'double', cost_usd: 'double' } as const

/** Probabilities do not depend on the draw, so a policy's true value is one pass over all prompts. */
export const truthOf = (policy: Policy, value: (outcome: Outcome) => number): number =>
  prompts.reduce((sum, prompt) => {
    const { candidates } = policy.decide(contextFor(prompt, 'truth'))
    return (
      sum +
      candidates.reduce(
        (q, { model, probability }) => q + probability * value(prompt.outcomes.get(model) as Outcome),
        0,
      )
    )
  }, 0) / prompts.length

/** A seeded generator of numbers in [0, 1) (mulberry32). */
export const seeded = (seed: number) => (): number => {
  seed = (seed + 0x6d2b79f5) | 0
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
}
