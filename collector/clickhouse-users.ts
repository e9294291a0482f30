// Who asks the front, in any of the ways in which ClickHouse's clients say it. Where users are configured, name and password must be
// theirs; where none are, only loopback is served, `default` may write, and every other name reads.
import { createHash, timingSafeEqual } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { refusal } from './engine-error.ts'

/** Somebody who may ask; one without a password is let in from loopback only. */
export type FrontUser = {
  readonly name: string
  readonly password: string | null
  /** Reads, and makes temporary tables, but changes nothing. */
  readonly readonly: boolean
}

/** Whether nobody gets in without a password, so that the front may be reached from other machines. */
export const needsLogin = (users: readonly FrontUser[]): boolean =>
  users.length > 0 && users.every(({ password }) => password !== null && password !== '')

const header = (request: IncomingMessage, name: string): string | null => {
  const value = request.headers[name]
  return typeof value === 'string' ? value : null
}

/** Name and password as a request states them: in ClickHouse's headers, as Basic authentication, or in its URL. */
const statedBy = (request: IncomingMessage, search: URLSearchParams): { name: string; password: string } => {
  const own = header(request, 'x-clickhouse-user')
  if (own !== null) return { name: own, password: header(request, 'x-clickhouse-key') ?? '' }
  const basic = /^Basic\s+(\S+)$/i.exec(header(request, 'authorization') ?? '')?.[1]
  if (basic !== undefined) {
    const [, name = '', password = ''] = /^([^:]*):?([\s\S]*)$/.exec(Buffer.from(basic, 'base64').toString()) ?? []
    return { name: name || 'default', password }
  }
  return { name: search.get('user') ?? 'default', password: search.get('password') ?? '' }
}

/** The user who asks. Throws ClickHouse's own refusal when there is none of that name and password. */
export const userOf = (request: IncomingMessage, search: URLSearchParams, users: readonly FrontUser[]): FrontUser => {
  const { name, password } = statedBy(request, search)
  if (users.length === 0) return { name, password: null, readonly: name !== 'default' }
  const user = users.find((known) => known.name === name)
  if (user && (user.password === null || isSame(user.password, password))) return user
  const reason = 'Authentication failed: password is incorrect, or there is no user with such name.'
  throw refusal(516, `${name.slice(0, 200)}: ${reason} (AUTHENTICATION_FAILED)`)
}

const isSame = (a: string, b: string): boolean => {
  const [first, second] = [a, b].map((text) => createHash('sha256').update(text).digest()) as [Buffer, Buffer]
  return timingSafeEqual(first, second)
}
