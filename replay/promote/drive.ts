// A promotion from its first state to its last. Read `step` from top to bottom: what the router has in force decides first,
// then what the canary shows, then the clock. Every step may be repeated, and every state is stored, so that a promotion
// that was killed goes on where it stood.
import type { PolicyText } from '../../router/policy/policy.ts'
import { type Look, lookAt } from './canary.ts'
import { type Ledger, LedgerError } from './ledger.ts'
import { enter, isFinal, type Promotion, realise, type State, type Why } from './promotion.ts'
import { type InForce, type RouterAdmin, RouterError } from './router.ts'

const hourMs = 3_600_000
const minuteMs = 60_000
/** How long after its time a promotion keeps trying to reach a router that does not answer, so as to roll it back. */
const graceMs = 10 * minuteMs

/** What a promotion acts on, and what it cannot do itself: wait, know the time, and tell a person. */
export type World = {
  readonly router: RouterAdmin
  readonly ledger: Pick<Ledger, 'record' | 'sums' | 'bets'>
  readonly pollMs: number
  /** Makes sure that no other process drives this promotion; throws a HoldError when one does. */
  readonly hold: () => Promise<void>
  /** How long the router keeps the canary when this promotion is heard of no more, seconds. */
  readonly leaseSeconds: number
  readonly now: () => number
  readonly sleep: (ms: number) => Promise<void>
  readonly tell: (promotion: Promotion, look: Look | null) => void
  /** Something does not answer; the promotion waits for it. */
  readonly warn: (message: string) => void
}

/**
 * Drives a promotion to its end. Throws a RouterError or LedgerError when what it acts on does not answer for long; then
 * nothing is lost, and driving the stored promotion goes on. Throws a HoldError, with nothing done, when another process drives it.
 */
export const drive = async (start: Promotion, world: World): Promise<Promotion> => {
  let promotion = start
  const failAtMs = deadlineMs(start) + graceMs
  while (!isFinal(promotion)) {
    let next: Promotion
    try {
      await world.hold()
      next = await step(promotion, world)
    } catch (error) {
      const isPassing =
        error instanceof LedgerError || (error instanceof RouterError && error.code !== 'router-refused')
      if (!isPassing || world.now() > failAtMs) throw error
      world.warn((error as Error).message)
      next = promotion
    }
    if (next === promotion) await world.sleep(world.pollMs)
    else await record(next, world)
    promotion = next
  }
  return promotion
}

/** Stores a state. The way back to production is taken even if it cannot be stored. */
const record = async (promotion: Promotion, { ledger, tell }: World): Promise<void> => {
  tell(promotion, null)
  try {
    await ledger.record(promotion)
  } catch (error) {
    if (promotion.state !== 'rolling-back') throw error
  }
}

const step = async (promotion: Promotion, world: World): Promise<Promotion> => {
  const { production, candidate } = promotion
  const go = (state: State, why: Why) => enter(promotion, state, why, world.now())
  const inForce = await world.router.inForce()
  if (isForeign(promotion, inForce))
    return go(inForce.hash === production.hash ? 'rolled-back' : 'abandoned', changedBy(inForce))
  switch (promotion.state) {
    case 'planned': {
      const refused = await tryOut(promotion, inForce, world).then(() => null, refusalOf)
      if (refused) return go('abandoned', { cause: 'refused', reason: refused })
      return go('canary', { cause: 'gate', reason: `${share(promotion)} of the sessions are the candidate's` })
    }
    case 'canary':
      // Renews the lease; and a router that was restarted has read its policy from its own file.
      await tryOut(promotion, inForce, world)
      return decide(promotion, world)
    case 'completing':
      await putIn(candidate, inForce, promotion, world)
      return go('completed', whyOf(promotion))
    case 'rolling-back':
      await putIn(production, inForce, promotion, world)
      return go('rolled-back', whyOf(promotion))
    case 'completed':
    case 'rolled-back':
    case 'abandoned':
      return promotion
  }
}

/** Looks at the canary and either goes on or stays; a canary that has shown too little when its time is up goes back. */
const decide = async (promotion: Promotion, world: World): Promise<Promotion> => {
  const nowMs = world.now()
  const isLate = nowMs >= deadlineMs(promotion)
  const reason = `the time of ${promotion.gate.canary.hours_max} hours is up, and not all was shown`
  let late: Why = { cause: 'time', reason }
  let look: Look
  try {
    look = await lookInto(world.ledger, promotion, nowMs - promotion.gate.canary.settle_minutes * minuteMs)
    if (look.beyond.length > 0)
      late = { ...late, reason: `${reason}: a session exceeded the stated bound of ${look.beyond.join(', ')}` }
  } catch (error) {
    // Nobody can see what the canary does: when its time is up, it goes back unseen.
    if (isLate) return enter(promotion, 'rolling-back', late, nowMs)
    throw error
  }
  world.tell(promotion, look)
  const seen = realise(promotion, look)
  if (look.verdict === 'harm')
    return enter(seen, 'rolling-back', { cause: 'harm', reason: `harm shown: ${harmText(look)}` }, nowMs)
  if (look.verdict === 'shown')
    return enter(seen, 'completing', { cause: 'shown', reason: 'all conditions are shown' }, nowMs)
  return isLate ? enter(seen, 'rolling-back', late, nowMs) : promotion
}

/** Looks at what the canary's arms came to so far, quality only where it was decided before `settledMs`. */
export const lookInto = async (
  ledger: Pick<Ledger, 'sums' | 'bets'>,
  promotion: Promotion,
  settledMs: number,
): Promise<Look> => {
  const { gate, share } = promotion
  const bets = gate.canary.strict ? await ledger.bets(promotion, settledMs) : null
  return lookAt(await ledger.sums(promotion, settledMs), gate, share, bets)
}

export const harmText = ({ uneven, findings }: Look): string =>
  [
    ...(uneven
      ? ['the arms do not get their shares of the sessions (is there traffic the candidate cannot serve?)']
      : []),
    ...findings.filter(({ result }) => result === 'harm').map(({ metric }) => metric),
  ].join(', ')

/** Whether the policy in force is none that this state can meet, so that somebody else has put it there. */
const isForeign = ({ state, production, candidate, canary }: Promotion, { hash, change }: InForce): boolean => {
  if (hash === canary.hash) return false
  if (hash === candidate.hash) return state !== 'completing'
  if (hash === production.hash) return state === 'canary' || state === 'completing' ? change !== 'start' : false
  return true
}

const changedBy = ({ name, by, reason }: InForce): Why => ({
  cause: 'changed',
  reason: `${by} put '${name}' in force${reason === '' ? '' : ` (${reason})`}`,
})

const whyOf = ({ cause, reason }: Promotion): Why => ({ cause, reason })

/** What a router has against a policy; anything else that went wrong is thrown on. */
const refusalOf = (error: Error): string => {
  if (error instanceof RouterError && error.code === 'router-refused') return error.message
  throw error
}

const deadlineMs = ({ started_at: startedAt, gate }: Promotion): number =>
  Date.parse(startedAt) + gate.canary.hours_max * hourMs

const share = (promotion: Promotion): string => `${(promotion.share * 100).toFixed(1)} %`

const tryOut = ({ id, canary }: Promotion, inForce: InForce, { router, leaseSeconds }: World): Promise<InForce> =>
  router.put(canary.source, inForce.hash, `promotion ${id}`, leaseSeconds)

const putIn = async (policy: PolicyText, inForce: InForce, { id }: Promotion, { router }: World): Promise<void> => {
  if (inForce.hash !== policy.hash) await router.put(policy.source, inForce.hash, `promotion ${id}`)
}
