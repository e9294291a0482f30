// The spans that say how one policy took another's place: a replay's verdict, the states of a promotion, and each change of
// the policy in force. Their names stand here because the router and replay write them and migration 0006 reads them.
import type { Attributes } from './attributes.ts'

/** Span names; each becomes a row of the table behind it. */
export const promotionSpans = {
  /** `otel.replay_runs` */
  replay: 'signalbox.replay',
  /** `otel.promotions` */
  promotion: 'signalbox.promotion',
  /** `otel.policy_changes` */
  change: 'signalbox.policy.change',
} as const

export const promotionNames = {
  replayId: 'signalbox.replay.id',
  replay: 'signalbox.replay',
  promotionId: 'signalbox.promotion.id',
  promotionSeq: 'signalbox.promotion.seq',
  promotionState: 'signalbox.promotion.state',
  promotion: 'signalbox.promotion',
  changeKind: 'signalbox.policy.change.kind',
  changeFrom: 'signalbox.policy.change.from',
  changeTo: 'signalbox.policy.change.to',
  changeBy: 'signalbox.policy.change.by',
  changeReason: 'signalbox.policy.change.reason',
} as const

/** One change of the policy in force; policies are named by their hashes, `by` and `reason` as whoever asked stated them. */
export type PolicyChange = {
  readonly kind: 'put' | 'rollback'
  readonly from: string
  readonly to: string
  readonly by: string
  readonly reason: string
}

export const changeToAttributes = ({ kind, from, to, by, reason }: PolicyChange): Attributes => ({
  [promotionNames.changeKind]: kind,
  [promotionNames.changeFrom]: from,
  [promotionNames.changeTo]: to,
  [promotionNames.changeBy]: by,
  [promotionNames.changeReason]: reason,
})
