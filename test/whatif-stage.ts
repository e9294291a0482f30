// What the tests of the simulation share: two logs of real measurements, one under a policy that reads no state and one under a policy
// that does, and a scenario run on them.
import type { Part } from '../replay/whatif/scenario.ts'
import { type WhatIfOptions, whatIf } from '../replay/whatif/whatif.ts'
import type { Policy } from '../router/policy/policy.ts'
import type { DecisionRecord } from '../router/policy/record.ts'
import { liveliestPolicy, weightedPolicy, whatIfLog } from './whatif-log.ts'

export const weighted = whatIfLog(weightedPolicy, 1500)
export const liveliest = whatIfLog(liveliestPolicy, 1500)
export const run = (
  records: readonly DecisionRecord[],
  policy: Policy,
  parts: readonly Part[],
  options: Partial<WhatIfOptions> = {},
) => whatIf(records, [policy], { parts, policy: null, seed: '1', sloMs: 4000, ...options })
export const ofWeighted = (...parts: readonly Part[]) => run(weighted, weightedPolicy, parts)
export const time = (records: readonly DecisionRecord[], share: number) =>
  records[Math.floor(share * (records.length - 1))]?.time ?? ''

export const outage = (records: readonly DecisionRecord[], model = 'large'): Part => ({
  kind: 'outage',
  model,
  from: time(records, 0.3),
  to: time(records, 0.6),
  fail_after_ms: 1000,
})
export const dearer = (factors: Record<string, number>): Part => ({ kind: 'price', prices: {}, factors })
