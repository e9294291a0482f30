// gate.yaml: what a team wants shown before a policy may take another's place. Parsed once, with every mistake named by its
// line; `examples/gate.yaml` shows each field. Margins stand in the unit of their metric, or as a part of production's value.
import { z } from 'zod'
import { parseYaml } from '../../router/policy/yaml.ts'
import type { MetricName } from '../estimate/metrics.ts'
import { essDecidesFrom, type Goal } from '../judge/gate.ts'
import type { ReplayOptions } from '../run.ts'

const hoursMax = 24 * 365
const marginDefault = 0.02

const share = z.number().gt(0).lt(1)
const amount = z.union([z.number().gt(0), z.strictObject({ relative: share })])
const goals = ['cost_usd', 'latency_ms', 'quality'] as const satisfies readonly Goal[]

export const gateSchema = z.strictObject({
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
    })
    .prefault({}),
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
    })
    .prefault({}),
})

export type Gate = z.infer<typeof gateSchema>
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
export type GateOptions = Pick<ReplayOptions, 'goal' | 'margin' | 'trustPropensities' | 'missingAtRandom'>

/**
 * The options of a replay that serves this gate. A replay has one margin for all it guards; the smallest is the one by which
 * it plans the rows that would settle the matter.
 */
export const gateOptions = (gate: Gate): GateOptions => ({
  goal: gate.goal,
  margin: Math.min(gate.margins.quality, gate.margins.failed, gate.margins.abandoned),
  trustPropensities: gate.trust_propensities,
  missingAtRandom: gate.missing_at_random,
})

/** What is judged: the goal, and every metric with a margin that is not the goal. */
export const judgedMetrics = ({ goal, margins }: Gate): MetricName[] => [
  goal,
  ...(Object.keys(margins) as GuardedMetric[]).filter((metric) => metric !== goal && margins[metric] !== undefined),
]

/** How much worse `metric` may get, in its own unit, where production's value is `production`; 0 for the goal. */
export const toleratedBy = ({ goal, margins }: Gate, metric: MetricName, production: number): number => {
  const margin = metric === goal ? 0 : (margins[metric as GuardedMetric] ?? 0)
  return typeof margin === 'number' ? margin : margin.relative * Math.abs(production)
}
