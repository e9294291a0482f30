// Changing the policy while the router runs: what is in force, a new one, and back to the one before. A request decides once,
// under the policy that is in force at that moment, and carries its hash to the end; so a swap is one assignment, and no
// request waits for it. Every change is a span with who, from, to and why.
import type { Request, Response } from 'express'
import type { Core } from './answer.ts'
import type { ClientKey } from './config.ts'
import { callerOf, readBody } from './intake.ts'
import { type Policy, PolicyError, parsePolicy } from './policy/policy.ts'
import type { PolicyChange } from './policy/promotion.ts'
import { errorBody } from './reply.ts'

/** How many policies can be gone back to, and how long the texts that explain a change may be. */
const policiesMax = 100
const textLengthMax = 500
const leaseSecondsMax = 86_400

/** A policy that is, or was, in force: how it came to be, and since when (ISO 8601, UTC). */
export type InForce = {
  readonly policy: Policy
  readonly change: 'start' | PolicyChange['kind']
  readonly since: string
  readonly by: string
  readonly reason: string
}
/** The one in force, then those that can be gone back to, newest first. */
export type Policies = readonly [InForce, ...InForce[]]

/** The policies of a router that starts. */
export const startingWith = (policy: Policy): Policies => [
  { policy, change: 'start', since: new Date().toISOString(), by: 'signalbox.yaml', reason: 'the router started' },
]

const said = ({ policy: { name, hash, source }, ...entry }: InForce) => ({ name, hash, ...entry, source })

const refuse = (response: Response, status: number, code: string, message: string): void => {
  response.status(status).json(errorBody(message, 'invalid_request_error', code))
}

const stated = (request: Request, name: 'by' | 'reason'): string =>
  String(request.query[name] ?? '')
    .slice(0, textLengthMax)
    .toWellFormed()

type Why = Pick<PolicyChange, 'by' | 'reason'>
const whyOf = ({ request }: Asked): Why => ({
  by: stated(request, 'by') || 'the admin token',
  reason: stated(request, 'reason'),
})

/** Puts a policy in force above `below`, and tells. */
const swap = (core: Core, kind: PolicyChange['kind'], policy: Policy, below: readonly InForce[], why: Why): void => {
  lease(core, null)
  const change = { kind, from: core.policies[0].policy.hash, to: policy.hash, ...why }
  const entry = { policy, change: kind, since: new Date().toISOString(), ...why }
  core.policies = [entry, ...below.slice(0, policiesMax)]
  core.telemetry.policy(policy)
  core.telemetry.policyChanged(change)
  core.log.info(change, 'another policy is in force')
}

/** Each step back goes one further, so that two of them never bring the policy back that was fled from. */
const stepBack = (core: Core, why: Why): boolean => {
  const [, before, ...further] = core.policies
  if (before) swap(core, 'rollback', before.policy, further, why)
  return before !== undefined
}

/**
 * Lets the policy in force stand for so many seconds from now; null is for good. Whoever tries a policy renews its lease, so
 * that the one before comes back when nobody watches any more.
 */
const lease = (core: Core, seconds: number | null): void => {
  clearTimeout(core.lease)
  core.lease = undefined
  if (seconds === null) return
  const expire = () => stepBack(core, { by: 'the router', reason: 'its lease was not renewed' })
  core.lease = setTimeout(expire, seconds * 1000).unref()
}

type Asked = { readonly core: Core; readonly request: Request; readonly response: Response }

const answerPolicies = ({ core, response }: Asked): void => {
  const [inForce, ...previous] = core.policies
  response.json({ in_force: said(inForce), previous: previous.map(said) })
}

/** Whether the policy in force is the one that the caller takes it to be (`If-Match: <hash>`); says so if not. */
const isExpected = ({ core, request, response }: Asked): boolean => {
  const expected = request.headers['if-match']?.replaceAll('"', '')
  const { hash } = core.policies[0].policy
  if (expected === undefined || expected === hash) return true
  refuse(response, 412, 'policy_changed', `the policy in force is ${hash}, not ${expected}; nothing was changed`)
  return false
}

/**
 * What can be gone back to from a new policy: not one that was in force on trial, which only who watched it could answer for, and
 * not the new one itself, as when a trial ends with the policy that was there before it.
 */
const belowA = (policy: Policy, { lease: trial, policies }: Core): readonly InForce[] => {
  const below = trial ? policies.slice(1) : policies
  return below[0]?.policy.hash === policy.hash ? below.slice(1) : below
}

const putPolicy = async (asked: Asked): Promise<void> => {
  const { core, request, response } = asked
  const text = await readBody(request)
  if (typeof text !== 'string') return refuse(response, text.status, text.code, text.message)
  let policy: Policy
  try {
    policy = parsePolicy(text, core.config.features)
  } catch (error) {
    if (!(error instanceof PolicyError)) throw error
    return refuse(response, 400, error.code, error.message)
  }
  const leaseText = request.query.lease_s
  const leaseSeconds = leaseText === undefined ? null : Number(leaseText)
  if (leaseSeconds !== null && !(leaseSeconds > 0 && leaseSeconds <= leaseSecondsMax))
    return refuse(response, 400, 'lease_invalid', `lease_s: wanted a number above 0 and at most ${leaseSecondsMax}`)
  const isNew = policy.hash !== core.policies[0].policy.hash
  if (isNew && !isExpected(asked)) return
  if (isNew) swap(core, 'put', policy, belowA(policy, core), whyOf(asked))
  lease(core, leaseSeconds)
  answerPolicies(asked)
}

const rollBack = (asked: Asked): void => {
  if (!isExpected(asked)) return
  if (stepBack(asked.core, whyOf(asked))) answerPolicies(asked)
  else refuse(asked.response, 409, 'nothing_before', 'since the router started no other policy was in force')
}

const endpoints: Readonly<Record<string, (asked: Asked) => void | Promise<void>>> = {
  'GET /admin/policies': answerPolicies,
  'PUT /admin/policy': putPolicy,
  'POST /admin/rollback': rollBack,
}
export const adminRoutes = Object.keys(endpoints)

/**
 * Answers what is under `/admin`, for whoever shows the admin token; false when there is no such endpoint. The token is
 * compared as a client's key is: by its hash, in constant time.
 */
export const answerAdmin = async (core: Core, request: Request, response: Response): Promise<boolean> => {
  const { admin } = core.config
  const answer = endpoints[`${request.method} ${request.path}`]
  if (!admin || !answer) return false
  const caller = callerOf(request.headers, [admin satisfies ClientKey])
  if ('status' in caller) refuse(response, caller.status, caller.code, caller.message)
  else await answer({ core, request, response })
  return true
}
