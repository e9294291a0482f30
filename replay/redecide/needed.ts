// What threads are told of candidates: only the features that some policy will look at, because a log has fourteen to each and
// most of what it takes to read one is reading them. The few decisions that a report shows are looked up in full at the end.
import type { Policy } from '../../router/policy/policy.ts'
import { sqlString } from '../../router/policy/sql-text.ts'
import { metricNames, metrics } from '../estimate/metrics.ts'
import type { ReadFeatures } from '../read/candidates.ts'
import type { Source } from '../read/source.ts'
import type { Gathered } from './gather.ts'
import { featuresRead } from './verify.ts'

/** The id of a row that its columns say in full. */
const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

/** What has to be known of candidates to decide again: what policies name, what `decide` itself asks, and what is predicted. */
export const featuresNeeded = (policies: readonly { readonly source: string }[]): ReadFeatures =>
  new Set([
    ...['context_tokens_max', 'breaker'],
    ...metricNames.flatMap((name) => metrics[name].predictedBy ?? []),
    ...policies.flatMap(({ source }) => featuresRead(source)),
  ])

/** Gives the decisions that a report shows all that was known of their candidates, of which threads read only what they need. */
export const completeSamples = async (
  { tallies }: Gathered,
  candidates: readonly Policy[],
  { find }: Source,
): Promise<void> => {
  const ids = new Set(tallies.flatMap(({ sample }) => sample.map(({ record }) => record.id)))
  const uuids = [...ids].filter((id) => uuid.test(id))
  if (!find || uuids.length === 0) return
  const listed = uuids.map(sqlString).join(', ')
  const found = new Map((await find(`decision_id IN (${listed})`)).map((record) => [record.id, record]))
  for (const [at, { sample }] of tallies.entries())
    for (const [place, changed] of sample.entries()) {
      const record = found.get(changed.record.id)
      const policy = candidates[at] as Policy
      if (record) sample[place] = { rank: changed.rank, record, decision: policy.decide(record) }
    }
}
