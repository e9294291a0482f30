// What proves that nothing was lost, read from the views of migration 0011: one row per run of a router (its epoch) and one for each
// stretch of its numbers that is not as it should be. `signalbox doctor --gaps` and the dashboard ask the same views.
import type { Store } from './store.ts'

/** Stretches that one answer names; all are counted. */
const namedMax = 1_000

/** A stretch of time, in ISO 8601; epochs that decided or reported in it are looked at whole. */
export type Range = { readonly from: string; readonly to: string }

/** One run of a router: what it says it answered and what is stored of it. */
export type Epoch = {
  readonly epoch: string
  readonly service_name: string
  readonly started_at: string
  readonly last_seen_at: string
  readonly first_seq: number
  readonly last_seq: number
  /** Different numbers that are stored. */
  readonly decisions: number
  /** Rows they take before FINAL. */
  readonly stored_rows: number
  /** Decisions stored over a minute after they ended. */
  readonly late: number
  /** What the router reported, which is 0 when it never did, and whether that was its last word. */
  readonly reported: number
  readonly ended: boolean
  /** Spans that the router knows it lost: there was no room, or the collector refused them. */
  readonly spans_dropped: number
  readonly spans_refused: number
  /** Whether its first decisions are past their time to live. */
  readonly began_expired: boolean
  readonly answered: number
  readonly missing: number
}

/** Numbers of an epoch, from one to the other. See migration 0011 for the kinds. */
export type Gap = {
  readonly kind: 'gap' | 'end' | 'duplicate' | 'repeated'
  readonly epoch: string
  readonly service_name: string
  readonly seq_from: number
  readonly seq_to: number
  readonly decisions: number
  readonly since: string
  readonly until: string
}

const within = ({ from, to }: Range): string => {
  const time = (iso: string): string => `'${new Date(iso).toISOString().slice(0, -1).replace('T', ' ')}'`
  return `(from_time = ${time(from)}, to_time = ${time(to)})`
}
/** Counts as numbers and flags as truth values, whatever the server's defaults are. */
const asJson = 'SETTINGS output_format_json_quote_64bit_integers = 0'

/** The epochs of a stretch of time, newest first. */
export const readEpochs = (store: Store, range: Range): Promise<Epoch[]> =>
  store.query<Epoch>(
    `SELECT * EXCEPT (ended, began_expired), toBool(ended) AS ended, toBool(began_expired) AS began_expired
     FROM otel.decision_epochs${within(range)} ORDER BY started_at DESC, epoch LIMIT ${namedMax} ${asJson}`,
  )

/** What is missing or stored more than once in them, by epoch and number. */
export const readGaps = (store: Store, range: Range): Promise<Gap[]> =>
  store.query<Gap>(
    `SELECT * FROM otel.decision_gaps${within(range)} ORDER BY epoch, seq_from LIMIT ${namedMax} ${asJson}`,
  )
