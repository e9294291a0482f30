// A promotion: one candidate on its way to take production's place, as a value. Each state follows from the one before by a
// function here, is recorded as a span before or after the router is told, and is all that is needed to go on after a kill.
import { z } from 'zod'
import type { Attributes } from '../../router/policy/attributes.ts'
import { canonicalJson, type PolicyText, policyText } from '../../router/policy/policy.ts'
import { promotionNames as n } from '../../router/policy/promotion.ts'
import { metricNames } from '../estimate/metrics.ts'
import type { Difference, Look } from './canary.ts'
import { gateSchema } from './gate-file.ts'
import type { GateSummary } from './gate-report.ts'
import { type Holder, holderSchema } from './hold.ts'

const nameLengthMax = 100

/** `abandoned`: somebody else changed the policy meanwhile, and theirs stands. */
export const states = [
  'planned',
  'canary',
  'completing',
  'completed',
  'rolling-back',
  'rolled-back',
  'abandoned',
] as const
export type State = (typeof states)[number]

/** What brought it there: the gate, what the canary showed, its time, or somebody who put another policy in force. */
export const causes = ['gate', 'shown', 'harm', 'time', 'refused', 'changed'] as const
export type Cause = (typeof causes)[number]

const policySchema = z.object({ name: z.string(), hash: z.string(), source: z.string() })

const effectSchema = z.object({
  metric: z.enum(metricNames),
  value: z.number(),
  low: z.number(),
  high: z.number(),
})
const realisedSchema = effectSchema.extend({ se: z.number() })
export type Effect = z.infer<typeof effectSchema>
export type Realised = z.infer<typeof realisedSchema>

export const promotionSchema = z.object({
  v: z.literal(1),
  id: z.string().min(1).max(100),
  /** Counts the states; the highest stands. */
  seq: z.int().min(1),
  state: z.enum(states),
  cause: z.enum(causes),
  /** The cause in words. */
  reason: z.string(),
  started_at: z.iso.datetime(),
  changed_at: z.iso.datetime(),
  /** The run in `otel.replay_runs` that let it start. */
  replay_id: z.string(),
  production: policySchema,
  candidate: policySchema,
  canary: policySchema,
  share: z.number().gt(0).lt(1),
  gate: gateSchema,
  /** What the replay predicted, candidate − production. */
  predicted: z.array(effectSchema),
  /** What the canary's arms came to, as far as they tell. */
  realised: z.array(realisedSchema).nullable(),
})
export type Promotion = z.infer<typeof promotionSchema>

const finals: ReadonlySet<State> = new Set(['completed', 'rolled-back', 'abandoned'])
export const isFinal = ({ state }: Promotion): boolean => finals.has(state)

const armOf = ({ source }: PolicyText): unknown => {
  const { name: _, ...use } = JSON.parse(source) as { name: string }
  return use
}

/** The policy of the canary: `share` of the sessions are the candidate's, and all within one session goes one way. */
export const canaryOf = (production: PolicyText, candidate: PolicyText, share: number): PolicyText => {
  const name = `${production.name}-canary-${candidate.name}`.slice(0, nameLengthMax)
  const arms = [
    { name: 'production', share: 1 - share, use: armOf(production) },
    { name: 'candidate', share, use: armOf(candidate) },
  ]
  return policyText(canonicalJson({ name, split: { per: 'session', arms } }), 'the canary')
}

/** The evidence is not that of the policy to be promoted. */
export class PromotionError extends Error {
  readonly code = 'evidence-of-another-policy'
}

/** The first state of a promotion whose gate was passed. Throws a PromotionError when it was passed by another candidate. */
export const plan = (
  evidence: GateSummary & { readonly id: string },
  policies: Pick<Promotion, 'production' | 'candidate' | 'canary'>,
  id: string,
  nowMs: number,
): Promotion => {
  const { candidate } = policies
  if (evidence.candidate.hash !== candidate.hash)
    throw new PromotionError(
      `promoting '${candidate.name}': the gate was passed by ${evidence.candidate.hash}, but its text has become ${candidate.hash} since`,
    )
  return {
    v: 1,
    id,
    seq: 1,
    state: 'planned',
    cause: 'gate',
    reason: 'the gate was passed',
    started_at: new Date(nowMs).toISOString(),
    changed_at: new Date(nowMs).toISOString(),
    replay_id: evidence.id,
    ...policies,
    share: evidence.gate.canary.share,
    gate: evidence.gate,
    predicted: evidence.metrics
      .map(({ metric, difference: { value, low, high } }) => ({ metric, value, low, high }))
      .filter(isKnown),
    realised: null,
  }
}

const isKnown = (effect: Effect): boolean => [effect.value, effect.low, effect.high].every(Number.isFinite)

/** The next state. `by` is what brought it about, and the same in words. */
export const enter = (promotion: Promotion, state: State, by: Why, nowMs: number): Promotion => ({
  ...promotion,
  seq: promotion.seq + 1,
  state,
  ...by,
  changed_at: new Date(nowMs).toISOString(),
})
export type Why = Pick<Promotion, 'cause' | 'reason'>

/** Attaches what a look shows; a metric of which it shows nothing is left out. */
export const realise = (promotion: Promotion, { findings }: Look): Promotion => ({
  ...promotion,
  realised: findings
    .map(({ metric, value, low, high, se }: Difference) => ({ metric, value, low, high, se }))
    .filter(isKnown),
})

/** The attributes of the span that records a state. */
export const promotionToAttributes = (promotion: Promotion): Attributes => ({
  [n.promotionId]: promotion.id,
  [n.promotionSeq]: promotion.seq,
  [n.promotionState]: promotion.state,
  [n.promotion]: JSON.stringify(promotion),
})

/** Who drives a promotion, as a state before its first, which never stands. */
export const holdSchema = z.object({ id: z.string(), holder: holderSchema })
export const holderToAttributes = (id: string, holder: Holder): Attributes => ({
  [n.promotionId]: id,
  [n.promotionSeq]: 0,
  [n.promotionState]: 'held',
  [n.promotion]: JSON.stringify({ id, holder }),
})

/** The attributes of the span that records a gate's judgement of a replay. */
export const replayToAttributes = (summary: GateSummary, id: string): Attributes => ({
  [n.replayId]: id,
  [n.replay]: JSON.stringify(summary),
})
