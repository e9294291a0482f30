// Whole replays to look at: MMLU-Pro traffic (replay-truth.ts) whose waits and failures vary, so that every picture of the
// report has something to show; one where the evidence may not be used; and one whose names mean harm.
import { type Replay, replay, replayDefaults } from '../replay/run.ts'
import { parsePolicy } from '../router/policy/policy.ts'
import type { DecisionRecord } from '../router/policy/record.ts'
import { logOf, seeded, truthFeatures } from './replay-truth.ts'

const production = parsePolicy(
  'name: balanced\nscore: candidate.rank\nchoose: {kind: highest}\nexplore: {rate: 0.6}',
  truthFeatures,
)
const candidate = parsePolicy(
  `name: llama-first
score: 'request.tags["category"] != "law" ? (candidate.rank == 3.0 ? 1.0 : 0.0) : candidate.rank'
choose: {kind: highest}
explore: {rate: 0.1}`,
  truthFeatures,
)

/** Waits that depend on the model and on chance, with a long tail; a few requests fail. */
const withWaits = (records: readonly DecisionRecord[], random: () => number): DecisionRecord[] =>
  records.map((record) => {
    if (!record.outcome) return record
    const base = 60 + 8 * (record.outcome.served?.length ?? 0)
    const ttftMs = base * Math.exp(0.5 * (random() + random() + random() - 1.5)) * (random() < 0.03 ? 6 : 1)
    return {
      ...record,
      outcome: {
        ...record.outcome,
        status: random() < 0.006 ? 'error' : 'ok',
        ttft_ms: ttftMs,
        latency_ms: (record.outcome.latency_ms ?? 0) + ttftMs - 200,
      },
    }
  })

/** A replay with every figure the report can show. */
export const wholeReplay = (rows = 3000): Replay => {
  const random = seeded(7)
  const records = withWaits(logOf(production, rows, random), random)
  return replay(records, [production], candidate, { ...replayDefaults, margin: 0.05 })
}

/** The same candidate where production never tried what it wants: evidence that may not be used. */
export const refusedReplay = (rows = 600): Replay => {
  const fixed = parsePolicy('name: fixed\nscore: candidate.rank\nchoose: {kind: highest}', truthFeatures)
  return replay(logOf(fixed, rows, seeded(1)), [fixed], candidate, replayDefaults)
}

/** The same replay in which everything that others may name is called `name`. */
export const renamed = (whole: Replay, name: string): Replay => ({
  ...whole,
  candidate: { ...whole.candidate, name },
  production: [{ name, hash: name, rows: whole.rows }],
  moves: whole.moves.map((move) => ({ ...move, from: name, to: `${name}.` })),
  sample: whole.sample.map(({ record, decision }) => ({
    record: { ...record, id: name, chosen: name, request: { ...record.request, tags: { [name]: name } } },
    decision: { ...decision, chosen: name },
  })),
  diagnostics: { ...whole.diagnostics, audits: whole.diagnostics.audits.map((audit) => ({ ...audit, arm: name })) },
  detail: {
    ...whole.detail,
    segments: whole.detail.segments.map((segment) => ({ ...segment, name })),
    influence: whole.detail.influence.map((row) => ({ ...row, id: name, chosen: name, redecided: name })),
    sensitivity: whole.detail.sensitivity.map((row) => ({ ...row, arm: name })),
  },
})

/** What a search may have found. */
export const front = [
  { name: 'threshold=40', costUsd: 0.00006, quality: 0.46 },
  { name: 'threshold=90', costUsd: 0.00009, quality: 0.57 },
  { name: 'threshold=160', costUsd: 0.00021, quality: 0.67 },
]
