// What a replay takes from a results file: which candidate was asked, and every answer that counts, with the probability with
// which it came into the sample. Plain data, so that a worker thread can be sent it.
import { createHash } from 'node:crypto'
import type { MetricName, Objective } from '../estimate/metrics.ts'
import { type Answered, ReexecError, type ReexecResult, readJournal, readResults } from './result.ts'

export type Reexecuted = {
  /** The hash of the policy whose choices were asked. */
  readonly policy: string
  /** The share of tenants that was drawn; below 1 only tenants are independent pieces of evidence. */
  readonly tenantShare: number
  /** By decision id; a changed decision that is not here was not drawn. */
  readonly results: ReadonlyMap<string, ReexecResult>
  /** Of all the results. */
  readonly digest: string
}

/** Reads what `replay reexec` wrote. Throws `ReexecError` where the file holds something else, or nothing. */
export const readReexecuted = async (path: string): Promise<Reexecuted> => {
  const { plan } = await readJournal(path)
  const results = await readResults(path)
  if (!plan) throw new ReexecError('output-invalid', `reading results: ${path} has no plan in it`)
  const hash = createHash('sha256').update(JSON.stringify([plan, ...results.values()]))
  return { policy: plan.policy, tenantShare: plan.tenant_share, results, digest: `sha256:${hash.digest('hex')}` }
}

/**
 * An answer's outcome on the log's scale; NaN where it is not known. A preference (0.5 = as good as the logged answer) is put on the
 * scale of the `logged` outcome. Nobody waits for an answer asked anew, so nobody gives it up.
 */
export const rewardOf = (answer: Answered, name: MetricName, logged: number, { slowAboveMs }: Objective): number => {
  const { latency_ms: latencyMs, quality, quality_logged: before } = answer
  switch (name) {
    case 'cost_usd':
    case 'latency_ms':
    case 'ttft_ms':
      return answer[name] ?? Number.NaN
    case 'slow':
      return slowAboveMs === null || latencyMs === null ? Number.NaN : Number(latencyMs > slowAboveMs)
    case 'quality':
      if (quality === null) return Number.NaN
      return answer.judge?.mode === 'pair' ? logged + quality - (before ?? Number.NaN) : quality
    case 'failed':
      return Number(answer.status === 'error')
    case 'abandoned':
      return Number.NaN
  }
}
