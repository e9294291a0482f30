// The last row of the dashboard, for whoever asks whether its figures can be trusted: what routers answered against what is stored, and
// every stretch of decisions that is missing or stored twice. Both read the views of migration 0011, as `signalbox doctor --gaps` does.
import type { Row } from './panels.ts'
import { named } from './sql.ts'

const stretchesShownMax = 500

/** Epochs that decided anything of what the variable picks; all of them, those of which nothing is stored too, when it picks nothing. */
const pick = (column: string, variable: string): string =>
  `$__conditionalAll(epoch IN (SELECT epoch FROM otel.routing_decisions WHERE $__timeFilter(decision_time) AND ${named(column)} IN (\${${variable}:singlequote})), $${variable})`

const from = (view: string): string => `FROM otel.${view}(from_time = $__fromTime, to_time = $__toTime)
WHERE ${pick('policy_name', 'policy')}
  AND ${pick('chosen_model', 'model')}
  AND ${pick('tenant', 'tenant')}`

export const missing: Row = {
  title: 'Is anything missing?',
  panels: [
    {
      kind: 'table',
      title: 'Answered and stored',
      description:
        'Is every decision that a router answered stored? One row for each run of a router, as a whole. What was answered is what it reported, or the highest number stored; without a last report, up to a minute more may have been answered.',
      span: 12,
      columns: {},
      sql: `SELECT service_name AS service, started_at AS started, last_seen_at AS last_seen, answered, decisions AS stored, missing,
  stored_rows - decisions AS repeated_rows, late, spans_dropped, spans_refused, ended, epoch
${from('decision_epochs')}
ORDER BY missing DESC, last_seen DESC
LIMIT ${stretchesShownMax}`,
    },
    {
      kind: 'table',
      title: 'Gaps and duplicates',
      description:
        'Which decisions are missing or stored twice? Empty when all is well. An "end" of a router that runs may be on its way; "repeated" rows are gone with FINAL and count nowhere.',
      span: 12,
      columns: {},
      sql: `SELECT kind, seq_from, seq_to, decisions, since, until, service_name AS service, epoch
${from('decision_gaps')}
ORDER BY since DESC, seq_from
LIMIT ${stretchesShownMax}`,
    },
  ],
}
