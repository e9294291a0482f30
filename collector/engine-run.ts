// One statement on one session of the embedded engine: the world it runs in is prepared, then what can be streamed is streamed and the
// rest runs at once. Every step passes the gate, so that a reader who is slow holds no thread.
import type { ChdbResult, Session } from 'chdb'
import { queryError, refusal } from './engine-error.ts'
import type { Gate } from './engine-gate.ts'

/** The longest a query may compute, unless it sets `max_execution_time` itself. */
const querySecondsMax = 600

/** One statement and the world it runs in; parameter values are spelled as in ClickHouse's HTTP `param_x`. */
export type Statement = {
  readonly sql: string
  /** The output format where the SQL names none. */
  readonly format?: string
  readonly database?: string
  readonly settings?: Readonly<Record<string, string>>
  readonly parameters?: Readonly<Record<string, string>>
  readonly readonly?: boolean
  /** Statements that come first, in the same session. */
  readonly before?: readonly string[]
  /** The name by which the statement can be asked after and cancelled while it runs. */
  readonly id?: string
  /** Runs whole before it gives anything: its result goes elsewhere. */
  readonly atOnce?: boolean
  /** Waits for no other statement: it is about them. */
  readonly urgent?: boolean
  /** Whether nobody waits for it any more; asked before it runs. */
  readonly abandoned?: () => boolean
}

/** What a statement gave: bytes in its format, as they are made. The numbers are known only when it was not streamed. */
export type Result = {
  readonly chunks: AsyncIterable<Uint8Array>
  readonly rowsRead: number
  readonly bytesRead: number
  readonly elapsedSeconds: number
}

/** What a server does and chdb by default does not: inserts that are stored when they are answered, no implied SELECT. */
export const likeServer = { async_insert: '0', implicit_select: '0', max_execution_time: String(querySecondsMax) }

/** The setting by which a running statement is found in `system.processes`. */
export const tag = 'log_comment'

export const literal = (text: string): string => `'${text.replaceAll(/[\\']/g, '\\$&')}'`

export const settingList = (settings: Readonly<Record<string, string>>): string =>
  Object.entries(settings).map(setting).join(', ')

export const setStatement = (settings: Readonly<Record<string, string>>): string => `SET ${settingList(settings)}`

const setting = ([name, value]: readonly [string, string]): string => {
  if (!/^\w+$/.test(name)) throw refusal(115, `Unknown setting '${name}'. (UNKNOWN_SETTING)`)
  return `${name} = ${literal(value)}`
}

/** The settings that a statement brings along. */
export const settingsOf = (statement: Statement): Record<string, string> => ({
  ...statement.settings,
  ...(statement.id === undefined ? {} : { [tag]: statement.id }),
})

/** The statements that give a session its world; what was sent along comes after `readonly`. */
export const preparation = (statement: Statement): string[] => {
  const settings = settingsOf(statement)
  for (const [name, value] of Object.entries(statement.parameters ?? {})) settings[`param_${name}`] = value
  const statements = Object.keys(settings).length > 0 ? [setStatement(settings)] : []
  if (statement.database) statements.push(`USE \`${statement.database.replaceAll(/[\\`]/g, '\\$&')}\``)
  if (statement.readonly && !Number(settings.readonly)) statements.push('SET readonly = 2')
  return [...statements, ...(statement.before ?? [])]
}

/** Runs a statement on a prepared session; `release` is called once its result has been read, or will not be. */
export const runOn = async (
  session: Session,
  statement: Statement,
  queue: Gate,
  version: string,
  release: () => Promise<void>,
): Promise<Result> => {
  const gate: Gate = (work) => {
    const begin = async () => {
      if (statement.abandoned?.()) throw refusal(394, 'Query was cancelled. (QUERY_WAS_CANCELLED)')
      return work()
    }
    return statement.urgent ? begin() : queue(begin)
  }
  try {
    for (const sql of preparation(statement)) await gate(() => session.queryAsync(sql))
    const { result, chunks } = await start(session, statement, gate)
    const first = await chunks.next()
    return { ...summary(result), chunks: guarded(first, chunks, version, release) }
  } catch (error) {
    await release()
    throw queryError(error, version)
  }
}

const reads = /^(?:\s|--[^\n]*\n|\/\*[\s\S]*?\*\/)*(?:SELECT|WITH|FROM|\()/i
const notStreamable = 'Streaming query is not supported'

/** Streams what can be streamed, and runs the rest at once. */
const start = async (session: Session, { sql, format = 'TabSeparated', atOnce }: Statement, gate: Gate) => {
  if (!atOnce && reads.test(sql)) {
    try {
      const stream = session.queryStream(sql, { format })[Symbol.asyncIterator]()
      const next = async (): Promise<Step> => step((await gate(() => stream.next())).value?.raw())
      return { result: null, chunks: { next, return: async () => stream.return?.() } }
    } catch (error) {
      if (!(error as Error).message.includes(notStreamable)) throw error
    }
  }
  const result = await gate(() => session.queryAsync(sql, { format }))
  const bytes = [result.bytes()]
  return { result, chunks: { next: async () => step(bytes.shift()), return: async () => {} } }
}

const step = (value: Uint8Array | undefined): Step =>
  value === undefined ? { done: true, value } : { done: false, value }

type Step = IteratorResult<Uint8Array, undefined>
type Chunks = { readonly next: () => Promise<Step>; readonly return: () => Promise<unknown> }

/**
 * The first chunk and those after it; however the reading ends, the session is released. Not a generator, because one
 * that is ended before it was begun runs no `finally`.
 */
const guarded = (
  first: Step,
  chunks: Chunks,
  version: string,
  release: () => Promise<void>,
): AsyncIterableIterator<Uint8Array, undefined> => {
  let ready: Step | null = first
  let ended = false
  const end = async (): Promise<Step> => {
    if (!ended) {
      ended = true
      await chunks.return().finally(release)
    }
    return { done: true, value: undefined }
  }
  const next = async (): Promise<Step> => {
    try {
      const taken = ready ?? (await chunks.next())
      ready = null
      return taken.done ? await end() : taken
    } catch (error) {
      if (!ended) await release()
      ended = true
      throw queryError(error, version)
    }
  }
  const iterator = { next, return: end, [Symbol.asyncIterator]: () => iterator }
  return iterator
}

const summary = (result: ChdbResult | null) => ({
  rowsRead: result?.rowsRead ?? 0,
  bytesRead: result?.bytesRead ?? 0,
  elapsedSeconds: result?.elapsed ?? 0,
})
