// HTTP sessions: what SET, USE and temporary tables did is there for the next request of the same user and `session_id`, one request at
// a time, until nobody has asked for `session_timeout` seconds.
import { refusal } from './engine-error.ts'
import type { KeptSession, Queries } from './engine-queries.ts'

/** Sessions kept at once; each costs the engine some memory. */
const sessionsMax = 100
/** ClickHouse's own default and maximum of `session_timeout`. */
const secondsDefault = 60
const secondsMax = 3600

/** What a request says of the session that it belongs to. */
export type SessionAsked = { readonly id: string; readonly seconds: number; readonly mustExist: boolean }

/** Null when the request belongs to none. Throws on a timeout that is none. */
export const sessionAskedBy = (search: URLSearchParams): SessionAsked | null => {
  const id = search.get('session_id') ?? ''
  if (id === '') return null
  const stated = search.get('session_timeout')
  const seconds = stated === null ? secondsDefault : Number(stated)
  if (!/^\d*$/.test(stated ?? '')) throw refusal(374, `Invalid session timeout: '${stated}'. (INVALID_SESSION_TIMEOUT)`)
  if (seconds > secondsMax) {
    throw refusal(374, `Session timeout '${stated}' is larger than ${secondsMax} seconds. (INVALID_SESSION_TIMEOUT)`)
  }
  return { id, seconds, mustExist: search.get('session_check') === '1' }
}

/** A session in use by one request. */
export type Lent = { readonly run: KeptSession['run']; readonly giveBack: () => void }
type Held = { readonly kept: Promise<KeptSession>; busy: boolean; expiry: NodeJS.Timeout | null }

/** Lends sessions out, each to one request at a time. */
export const createSessions = (engine: Pick<Queries, 'keep'>) => {
  const held = new Map<string, Held>()
  const begin = (key: string, readonly: boolean): Held => {
    if (held.size >= sessionsMax) {
      throw refusal(202, `Too many sessions. Maximum: ${sessionsMax}. (TOO_MANY_SIMULTANEOUS_QUERIES)`)
    }
    const session: Held = { kept: engine.keep(readonly), busy: false, expiry: null }
    held.set(key, session)
    return session
  }
  return async (user: { name: string; readonly: boolean }, asked: SessionAsked): Promise<Lent> => {
    const key = JSON.stringify([user.name, asked.id])
    const known = held.get(key)
    if (!known && asked.mustExist) throw refusal(372, `Session ${asked.id} not found. (SESSION_NOT_FOUND)`)
    if (known?.busy) throw refusal(373, `Session ${asked.id} is locked by a concurrent client. (SESSION_IS_LOCKED)`)
    const session = known ?? begin(key, user.readonly)
    session.busy = true
    if (session.expiry) clearTimeout(session.expiry)
    const kept = await session.kept.catch((error: unknown) => {
      held.delete(key)
      throw error
    })
    const expire = (): void => {
      held.delete(key)
      kept.close()
    }
    const giveBack = (): void => {
      session.busy = false
      session.expiry = setTimeout(expire, asked.seconds * 1000).unref()
    }
    return { run: kept.run, giveBack }
  }
}
