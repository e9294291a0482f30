// The router as a promotion sees it: which policy is in force and since when, and another put in its place only if that is
// still so. The admin token comes from the caller and goes nowhere but into the request.
import { z } from 'zod'

const requestMsMax = 10_000
const saidLengthMax = 500

const entrySchema = z.object({
  name: z.string(),
  hash: z.string(),
  source: z.string(),
  change: z.enum(['start', 'put', 'rollback']),
  since: z.string(),
  by: z.string(),
  reason: z.string(),
})
const answerSchema = z.object({ in_force: entrySchema, previous: z.array(entrySchema) })
export type InForce = z.infer<typeof entrySchema>

/** The router did not do what it was asked; `policy-changed` when another policy is in force than was expected. */
export class RouterError extends Error {
  readonly code: 'router-unreachable' | 'router-refused' | 'policy-changed'
  constructor(code: RouterError['code'], message: string) {
    super(message)
    this.code = code
  }
}

export type RouterAdmin = {
  readonly inForce: () => Promise<InForce>
  /**
   * Puts a policy in force where `expected` is the hash of the one that is. With a lease, in seconds, it goes again unless it is
   * put anew in that time.
   */
  readonly put: (source: string, expected: string, reason: string, leaseSeconds?: number) => Promise<InForce>
  /** Goes back to the policy before. */
  readonly rollBack: (reason: string) => Promise<InForce>
}

/** The admin endpoints at `url`; changes are made in the name of `by`. Every call may throw a RouterError. */
export const routerAdmin = (url: string, token: string, by: string): RouterAdmin => {
  const ask = async (method: string, path: string, what: string, init: RequestInit = {}): Promise<InForce> => {
    const headers = { authorization: `Bearer ${token}`, ...(init.headers as Record<string, string>) }
    let response: Response
    let text: string
    try {
      const signal = AbortSignal.timeout(requestMsMax)
      response = await fetch(new URL(path, url), { ...init, method, headers, signal })
      text = await response.text()
    } catch (error) {
      const why = (error as { cause?: Error }).cause?.message ?? (error as Error).message
      throw new RouterError('router-unreachable', `${what} at ${url}: no answer (${why}); is it running?`)
    }
    if (response.ok) return parsed(text, url, what)
    const hint = response.status === 404 ? '; has its signalbox.yaml an `admin: { token_env: … }`?' : ''
    const code = response.status === 412 ? 'policy-changed' : 'router-refused'
    throw new RouterError(code, `${what} at ${url}: ${response.status} ${messageOf(text)}${hint}`)
  }
  const stated = (reason: string) => new URLSearchParams({ by, reason })
  return {
    inForce: () => ask('GET', '/admin/policies', 'asking the router for its policy'),
    put: (source, expected, reason, leaseSeconds) => {
      const query = stated(reason)
      if (leaseSeconds !== undefined) query.set('lease_s', String(leaseSeconds))
      const headers = { 'if-match': `"${expected}"` }
      return ask('PUT', `/admin/policy?${query}`, 'putting a policy in force', { body: source, headers })
    },
    rollBack: (reason) => ask('POST', `/admin/rollback?${stated(reason)}`, 'going back to the policy before'),
  }
}

const parsed = (text: string, url: string, what: string): InForce => {
  try {
    return answerSchema.parse(JSON.parse(text)).in_force
  } catch {
    throw new RouterError('router-refused', `${what} at ${url}: the answer is not that of a Signalbox router`)
  }
}

const messageOf = (text: string): string => {
  try {
    const { error } = JSON.parse(text) as { error?: { message?: unknown } }
    return String(error?.message ?? '').slice(0, saidLengthMax)
  } catch {
    return ''
  }
}
