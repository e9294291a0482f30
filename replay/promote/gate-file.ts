// gate.yaml: what a team wants shown before a policy may take another's place. Parsed once, with every mistake named by its
// line; `examples/gate.yaml` shows each field. Margins stand in the unit of their metric, or as a part of production's value.
import { z } from 'zod'
import { parseYaml } from '../../router/policy/yaml.ts'
import { durationMsOf, durationWanted } from '../estimate/feedback.ts'
import type { MetricName } from '../estimate/metrics.ts'
import { conversationModes } from '../judge/conversations.ts'
import { essDecidesFrom, type Goal } from '../judge/gate.ts'
import type { ReplayOptions } from '../run.ts'

const hoursMax = 24 * 365
const marginDefault = 0.02

const share = z.number().gt(0).lt(1)
const above0 = z.number().gt(0)
const amount = z.union([above0, z.strictObject({ relative: share })])
const goals = ['cost_usd', 'latency_ms', 'quality'] as const satisfies readonly Goal[]

const fields = z.strictObject({
  /** What must get better. */
  goal: z.enum(goals).default('cost_usd'),
  /** How much worse each other metric may get; what is not named is not guarded, but for the first three. */
  margins: z
    .strictObject({
      quality: share.default(marginDefault),
      failed: share.default(marginDefault),
      abandoned: share.default(marginDefault),
      cost_usd: amount.optional(),
      latency_ms: amount.optional(),
      ttft_ms: amount.optional(),
      /** Of the share of requests slower than `slow_above_ms`. */
      slow: share.optional(),
    })
    .prefault({}),
  /** The latency objective, milliseconds: `slow` is the share of requests that take longer. */
  slow_above_ms: z.number().gt(0).optional(),
  /** What the evidence must be, beyond what every replay demands of it. */
  require: z
    .strictObject({
      /** The effective sample size. */
      effective_rows: z.number().min(essDecidesFrom).default(essDecidesFrom),
      /** How long the window of captured traffic must be. */
      window_hours: z.number().min(0).max(hoursMax).default(0),
      /** At most this share of the decisions may change. */
      changed_share_max: z.number().gt(0).max(1).default(1),
    })
    .prefault({}),
  trust_propensities: z.boolean().default(false),
  missing_at_random: z.boolean().default(false),
  trust_judge: z.boolean().default(false),
  /** Feedback that came later after its decision does not count; whenever it came by default. */
  feedback_within: z
    .string()
    .refine((text) => durationMsOf(text) !== null, { error: `wanted ${durationWanted}` })
    .optional(),
  /** What becomes of later turns of sessions. */
  conversations: z.enum(conversationModes).default('keep'),
  /** How `signalbox promote` goes about it. */
  canary: z
    .strictObject({
      /** The share of sessions that the candidate decides. */
      share: z.number().gt(0).max(0.5).default(0.1),
      /** How long the canary may take to show that all is well. */
      hours_max: z.number().gt(0).max(hoursMax).default(24),
      /** Quality is read only off decisions this old, because feedback comes late. */
      settle_minutes: z
        .number()
        .min(0)
        .max(7 * 24 * 60)
        .default(10),
      /** Watches by betting, which assumes nothing of the shape of what comes and holds from the first session on. */
      strict: z.boolean().default(false),
      /** For that, the most that a session's mean of an amount can be; what exceeds it leaves the metric open. */
      bounds: z
        .strictObject({ cost_usd: above0.optional(), latency_ms: above0.optional(), ttft_ms: above0.optional() })
        .prefault({}),
    })
    .prefault({}),
})

export type Gate = z.infer<typeof fields>

export const gateSchema = fields
  .refine(({ margins, slow_above_ms: ms }) => margins.slow === undefined || ms !== undefined, {
    path: ['margins', 'slow'],
    error: 'wanted slow_above_ms beside it, the latency from which on a request is slow',
  })
  .refine(({ canary: { strict, bounds }, ...gate }) => !strict || amountsOf(gate).every((name) => bounds[name]), {
    path: ['canary', 'bounds'],
    error: ({ input }) =>
      `wanted the most that a session's mean of ${amountsOf(input as Gate).join(', ')} can be, as { cost_usd: 0.05 }: a strict canary bets up to it`,
  })

/** A file in which everything is left out is a gate too. */
const fileSchema = z.preprocess((file) => file ?? {}, gateSchema)
export type GuardedMetric = keyof Gate['margins'] & MetricName

/** A gate file that cannot be used; the message has a line for every problem. */
export class GateError extends Error {
  readonly code = 'gate-invalid'
}

/** Parses a gate written as YAML or JSON; `where` is the file's name in messages. Throws a GateError. */
export const parseGate = (text: string, where = 'gate.yaml'): Gate => {
  const parsed = parseYaml(text, fileSchema as z.ZodType<Gate>, where)
  if (parsed.ok) return parsed.value
  throw new GateError(parsed.problems.join('\n'))
}

/** What a gate settles about a replay; the rest is the replay's own. */
export type GateOptions = Omit<ReplayOptions, 'replicates' | 'seed' | 'weightBound'>

/**
 * The options of a replay that serves this gate. A replay has one margin for all it guards; the smallest is the one by which
 * it plans the rows that would settle the matter.
 */
export const gateOptions = (gate: Gate): GateOptions => ({
  goal: gate.goal,
  margin: Math.min(gate.margins.quality, gate.margins.failed, gate.margins.abandoned),
  trustPropensities: gate.trust_propensities,
  missingAtRandom: gate.missing_at_random,
  trustJudge: gate.trust_judge,
  feedbackWithinMs: gate.feedback_within === undefined ? null : durationMsOf(gate.feedback_within),
  conversations: gate.conversations,
  slowAboveMs: gate.slow_above_ms ?? null,
})

/** What is judged: the goal, and every metric with a margin that is not the goal. */
export const judgedMetrics = ({ goal, margins }: Pick<Gate, 'goal' | 'margins'>): MetricName[] => [
  goal,
  ...(Object.keys(margins) as GuardedMetric[]).filter((metric) => metric !== goal && margins[metric] !== undefined),
]

const boundable = ['cost_usd', 'latency_ms', 'ttft_ms'] as const
/** What is judged and has no bound of its own. */
const amountsOf = (gate: Pick<Gate, 'goal' | 'margins'>): (typeof boundable)[number][] => {
  const judged = judgedMetrics(gate)
  return boundable.filter((name) => judged.includes(name))
}

/** The gate with changes to how its canary goes. Throws a GateError where they do not go with the rest. */
export const withCanary = (gate: Gate, changes: Partial<Gate['canary']>, where = 'gate.yaml'): Gate =>
  parseGate(JSON.stringify({ ...gate, canary: { ...gate.canary, ...changes } }), where)

/** How much worse `metric` may get, in its own unit, where production's value is `production`; 0 for the goal. */
export const toleratedBy = ({ goal, margins }: Gate, metric: MetricName, production: number): number => {
  const margin = metric === goal ? 0 : (margins[metric as GuardedMetric] ?? 0)
  return typeof margin === 'number' ? margin : margin.relative * Math.abs(production)
}
