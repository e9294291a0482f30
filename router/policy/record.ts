// The record: one routing decision and what came of it, as it travels from the router through a span and a table to
// replay. Its fields keep one spelling everywhere a person may meet them — CEL, NDJSON, the span's JSON, SQL columns —
// which is why they are snake_case here too. The schemas are the types; data is parsed once, at the edge.
import { z } from 'zod'

/** The version of what `decide` means. A change that could alter any decision, score or probability raises it. */
export const engineVersion = '1'

/** How long the texts of a record may be, in characters. Whoever writes records keeps to these; longer ones are refused. */
export const textMax = { model: 200, tier: 200, tenant: 200, user: 200, session: 200, tag: 512 } as const
/** As many entries as OpenAI's `metadata` may have. */
export const tagsMax = 16

const text = (max: number) => z.string().max(max)
const finite = z.number()
const amount = finite.min(0)

/** A client may call a tag `__proto__`; zod leaves out a key of that name, so it travels through the schema under another. */
const protoName = '__proto__'
const hiddenName = '\u0000proto'
const renamed = <Value>(value: Value, from: string, to: string): Value =>
  value !== null && typeof value === 'object' && Object.hasOwn(value, from)
    ? (Object.fromEntries(Object.entries(value).map(([key, text]) => [key === from ? to : key, text])) as Value)
    : value
const tagsSchema = z
  .preprocess(
    (value) => renamed(value, protoName, hiddenName),
    z.record(z.string(), text(textMax.tag)).transform((tags) => renamed(tags, hiddenName, protoName)),
  )
  .default({})

export const requestSchema = z.object({
  /** What the client asked for: a model's name, a policy's name, or `auto`. */
  model: text(textMax.model),
  input_tokens: amount,
  /** The client's limit on generated tokens; null when it set none. */
  output_tokens_max: amount.nullable().default(null),
  stream: z.boolean().default(false),
  tier: text(textMax.tier).default(''),
  tenant: text(textMax.tenant).default(''),
  user: text(textMax.user).default(''),
  tags: tagsSchema,
})
/** What is known of a request before anything is decided. */
export type RequestFeatures = z.infer<typeof requestSchema>

export const featureValueSchema = z.union([finite, text(500), z.boolean(), z.null()])
/** One thing known of a candidate at the moment of the decision; null means unknown, never zero. */
export type FeatureValue = z.infer<typeof featureValueSchema>
export type Features = Readonly<Record<string, FeatureValue>>

/** Why a candidate could not be chosen. */
export const exclusionSchema = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('not-requested') }),
  z.object({ kind: z.literal('not-in-policy') }),
  z.object({ kind: z.literal('context-window'), needed_tokens: finite, tokens_max: finite }),
  z.object({ kind: z.literal('breaker-open') }),
  z.object({ kind: z.literal('rule'), name: text(200) }),
  z.object({ kind: z.literal('feature-unknown'), feature: text(200) }),
  z.object({ kind: z.literal('score-not-finite') }),
])
export type Exclusion = z.infer<typeof exclusionSchema>

export const candidateSchema = z.object({
  model: text(200),
  eligible: z.boolean(),
  exclusion: exclusionSchema.nullable().default(null),
  score: finite.nullable().default(null),
  probability: finite.min(0).max(1),
  features: z.record(z.string(), featureValueSchema).default({}),
})
/** One model that was considered, what was known of it then, and how the policy judged it. */
export type Candidate = Readonly<z.infer<typeof candidateSchema>>

/** How the first choice came about. */
export const reasons = [
  'pinned',
  'only-candidate',
  'highest',
  'lowest',
  'weighted',
  'softmax',
  'explore',
  'none-eligible',
] as const
export const reasonSchema = z.enum(reasons)
export type Reason = z.infer<typeof reasonSchema>

export const outcomeStatuses = ['ok', 'error', 'rejected', 'no-candidate', 'client-abort', 'upstream-cut'] as const
export const streamEnds = ['complete', 'client-abort', 'upstream-cut', 'stalled', 'malformed'] as const
export const numberSources = ['measured', 'estimated', 'unknown'] as const
export type OutcomeStatus = (typeof outcomeStatuses)[number]
export type StreamEnd = (typeof streamEnds)[number]
/** Whether a number was read off the provider's response, computed by us, or is not known. */
export type NumberSource = (typeof numberSources)[number]

export const outcomeSchema = z.object({
  status: z.enum(outcomeStatuses),
  /** The model whose answer the client got; differs from `chosen` after a fallback; null when none answered. */
  served: text(200).nullable().default(null),
  attempts: z.int().min(0).default(1),
  http_status: z.int().min(0).max(999).default(200),
  error_type: text(200).nullable().default(null),
  /** Sum over all attempts, US dollars; null when any part of it is unknown. */
  cost_usd: amount.nullable().default(null),
  cost_source: z.enum(numberSources).default('measured'),
  latency_ms: amount.nullable().default(null),
  ttft_ms: amount.nullable().default(null),
  input_tokens: amount.nullable().default(null),
  output_tokens: amount.nullable().default(null),
  tokens_source: z.enum(numberSources).default('measured'),
  stream_end: z.enum(streamEnds).nullable().default(null),
  /** Feedback joined later, 0 to 1; null while there is none. */
  quality: finite.min(0).max(1).nullable().default(null),
  /** When that feedback came, ISO 8601; null or absent where nobody knows. */
  quality_time: z.iso.datetime({ offset: true }).nullable().optional(),
  /** The same as a judge model sees it, where one was asked: precise, and corrected by people's in a replay. */
  quality_judge: finite.min(0).max(1).nullable().optional(),
})
/** What came of the decision: fallbacks and retries are part of it, not of the action. */
export type Outcome = Readonly<z.infer<typeof outcomeSchema>>

export const decisionRecordSchema = z
  .object({
    v: z.literal(1),
    id: text(200).min(1),
    /** When it was decided, ISO 8601 with milliseconds, UTC. */
    time: z.iso.datetime({ offset: true }),
    session: text(textMax.session).default(''),
    engine: text(50).default(''),
    policy: z.object({ name: text(200), hash: text(200).default('') }),
    /** The rules and arms passed on the way to the choice, as `rule:premium`, `arm:canary`. */
    path: z.array(text(200)).default([]),
    request: requestSchema,
    candidates: z.array(candidateSchema).max(1000),
    /** The first choice: the action whose probability is logged. Null when nothing was eligible. */
    chosen: text(200).nullable(),
    reason: reasonSchema.optional(),
    explored: z.boolean().default(false),
    /** The order in which targets are tried; the choice first. */
    plan: z.array(text(200)).default([]),
    /** The probability with which this record itself was kept by sampling. */
    keep_probability: finite.gt(0).max(1).default(1),
    outcome: outcomeSchema.optional(),
  })
  .refine((record) => record.chosen === null || record.candidates.some((c) => c.model === record.chosen), {
    path: ['chosen'],
    error: (issue) => `the chosen model '${(issue.input as { chosen: string }).chosen}' is not among the candidates`,
  })
/** One routing decision, complete: enough to make it again, and what came of it. */
export type DecisionRecord = Readonly<z.infer<typeof decisionRecordSchema>>

/** Everything a policy may look at. `decide` is a pure function of it. */
export type Context = {
  readonly id: string
  readonly time: string
  readonly session: string
  readonly request: RequestFeatures
  readonly candidates: readonly { readonly model: string; readonly features: Features }[]
}

/** What a policy answers: a first choice with its probability, and the judgement on every candidate. */
export type Decision = Pick<
  DecisionRecord,
  'engine' | 'policy' | 'path' | 'candidates' | 'chosen' | 'explored' | 'plan'
> & { readonly reason: Reason; readonly probability: number }

/** The context that a record was decided in. */
export const contextOf = (record: DecisionRecord): Context => ({
  id: record.id,
  time: record.time,
  session: record.session,
  request: record.request,
  candidates: record.candidates.map(({ model, features }) => ({ model, features })),
})

/** The record of a decision; `outcome` is left out while it is still open. */
export const recordOf = (context: Context, decision: Decision, outcome?: Outcome): DecisionRecord => ({
  v: 1,
  id: context.id,
  time: context.time,
  session: context.session,
  engine: decision.engine,
  policy: decision.policy,
  path: decision.path,
  request: context.request,
  candidates: decision.candidates,
  chosen: decision.chosen,
  reason: decision.reason,
  explored: decision.explored,
  plan: decision.plan,
  keep_probability: 1,
  ...(outcome ? { outcome } : {}),
})

/** The logged probability of the choice that was made; 0 when nothing was chosen. */
export const propensityOf = (record: DecisionRecord): number =>
  record.candidates.find((candidate) => candidate.model === record.chosen)?.probability ?? 0
