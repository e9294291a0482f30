// Which records of a source are replayed: by time, and by the policy that decided. Said twice, as a test of a record and as a condition
// of ClickHouse, side by side so that they stay the same.
import type { DecisionRecord } from '../../router/policy/record.ts'

/** Which records: by time (ISO 8601; from inclusive, to exclusive) and by logged policy, by name or by hash or its start. */
export type Selection = {
  readonly from?: string
  readonly to?: string
  readonly against?: string
  /** Whether records also say when their feedback came. */
  readonly feedbackTimes?: boolean
}

const hashPrefix = 'sha256:'
const hashLengthMin = 8

/** Whether `wanted` is a hash or the first eight or more digits of it, with or without `sha256:`. */
const isHash = (hash: string, wanted: string): boolean => {
  const digits = wanted.replace(hashPrefix, '')
  return digits.length >= hashLengthMin && hash.replace(hashPrefix, '').startsWith(digits)
}

export const isSelected = ({ time, policy }: DecisionRecord, { from, to, against }: Selection): boolean => {
  const at = Date.parse(time)
  if (from !== undefined && at < Date.parse(from)) return false
  if (to !== undefined && at >= Date.parse(to)) return false
  return against === undefined || policy.name === against || isHash(policy.hash, against)
}

/** The same as a condition in SQL over `otel.routing_decisions`, to go on after another; values are the parameters below. */
export const conditions = ({ from, to, against }: Selection): string =>
  [
    from === undefined ? '' : 'AND decision_time >= parseDateTime64BestEffort({from: String}, 9)',
    to === undefined ? '' : 'AND decision_time < parseDateTime64BestEffort({to: String}, 9)',
    against === undefined
      ? ''
      : `AND (policy_name = {against: String} OR (length({digits: String}) >= ${hashLengthMin} AND startsWith(replaceOne(policy_hash, '${hashPrefix}', ''), {digits: String})))`,
  ].join(' ')

/** What the condition's parameters are. */
export const parametersOf = ({ feedbackTimes: _, ...selection }: Selection): Readonly<Record<string, string>> => ({
  ...selection,
  digits: selection.against?.replace(hashPrefix, '') ?? '',
})
