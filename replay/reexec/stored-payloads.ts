// The request bodies to ask anew with, as the router captured them: rows of otel.payloads, opened with keys from the
// environment. Only what bounds a request's cost is kept in memory; a body is fetched and opened again when it is asked.
import { ClickHouseLogLevel, createClient } from '@clickhouse/client'
import { openRow, PayloadError, type PayloadRow, payloadColumns } from '../../router/capture/sealed.ts'
import { checkPayload, completionSchema, noteOf, type Payload, type PayloadNote, type Payloads } from './payloads.ts'
import { ReexecError } from './result.ts'

const requestMsMax = 600_000

/** Texts that are whole: not features, and not what was too large. */
export const askable = "content_type = 'application/json' AND redaction IN ('full', 'pseudonymised')"
/** A decision's rows stand together, its request first and its last answer last. */
const allQuery = `SELECT ${payloadColumns} FROM otel.payloads WHERE ${askable} ORDER BY decision_id, kind, attempt`
const oneQuery = `SELECT ${payloadColumns} FROM otel.payloads WHERE ${askable} AND decision_id = {id:UUID} ORDER BY kind, attempt`

/**
 * Opens what was captured of these decisions, at ClickHouse's address. What is sealed with a key that is not among `keys` counts
 * as not captured, because its key may have been deleted for just that. Throws a `ReexecError` when nothing can be read or opened,
 * or a payload is damaged.
 */
export const openStoredPayloads = async (
  url: string,
  ids: ReadonlySet<string>,
  keys: ReadonlyMap<string, Buffer>,
): Promise<Payloads> => {
  if (!/^https?:/.test(url))
    throw new ReexecError(
      'payload-invalid',
      `reading payloads: captured ones are in ClickHouse, and --source is ${url}`,
    )
  const client = createClient({ url, request_timeout: requestMsMax, log: { level: ClickHouseLogLevel.OFF } })
  const rowsOf = async function* (query: string, id = ''): AsyncGenerator<PayloadRow> {
    const found = await client.query({ query, query_params: { id }, format: 'JSONEachRow' }).catch((error: Error) => {
      throw new ReexecError('payload-invalid', `reading payloads from ${new URL(url).host}: ${error.message}`)
    })
    for await (const rows of found.stream<PayloadRow>()) for (const row of rows) yield row.json()
  }
  const notes = new Map<string, PayloadNote>()
  let locked: PayloadError | null = null
  const note = (rows: readonly PayloadRow[]): void => {
    if (!rows[0] || !ids.has(rows[0].decision_id)) return
    try {
      const payload = payloadOf(rows, keys)
      if (payload) notes.set(payload.id, noteOf(payload, Buffer.byteLength(JSON.stringify(payload.body))))
    } catch (error) {
      if (!(error instanceof PayloadError && error.code === 'payload-key-missing')) throw error
      locked = error
    }
  }
  try {
    let together: PayloadRow[] = []
    for await (const row of rowsOf(allQuery)) {
      if (together[0] && together[0].decision_id !== row.decision_id) {
        note(together)
        together = []
      }
      together.push(row)
    }
    note(together)
    if (locked && notes.size === 0) throw locked
  } catch (error) {
    await client.close()
    throw told(error)
  }
  return {
    notes,
    read: async (id) => {
      const rows: PayloadRow[] = []
      for await (const row of rowsOf(oneQuery, id)) rows.push(row)
      try {
        const payload = payloadOf(rows, keys)
        if (payload) return payload
      } catch (error) {
        throw told(error)
      }
      throw new ReexecError('payload-invalid', `reading payloads: that of decision ${id} has expired or was erased`)
    },
    close: () => client.close(),
  }
}

/** The payload that a decision's rows make; null without a request. An answer that is no completion counts as none. */
export const payloadOf = (rows: readonly PayloadRow[], keys: ReadonlyMap<string, Buffer>): Payload | null => {
  const request = rows.find(({ kind }) => kind === 'request')
  const answer = rows.findLast(({ kind }) => kind === 'response')
  if (!request) return null
  const response = answer ? completionSchema.safeParse(contentOf(answer, keys)) : null
  const payload = {
    id: request.decision_id,
    body: contentOf(request, keys),
    ...(response?.success ? { response: response.data } : {}),
  }
  return checkPayload(payload, `the captured request of decision ${payload.id}`)
}

const contentOf = (row: PayloadRow, keys: ReadonlyMap<string, Buffer>): unknown =>
  JSON.parse(openRow(row, keys).toString('utf8'))

const told = (error: unknown): unknown =>
  error instanceof PayloadError
    ? new ReexecError('payload-invalid', `reading payloads: ${error.message} (--payload-key names a key)`)
    : error
