// What the demo found, as data and as text: what was driven and stored, the verdict on each candidate, and for each the
// truth beside the estimate. The numbers are printed in the units of the replay's own report.
import { metrics } from '../replay/estimate/metrics.ts'
import type { Replay } from '../replay/run.ts'
import type { DecisionRecord } from '../router/policy/record.ts'
import type { Seen } from './drive.ts'
import type { RouterCounts } from './stage.ts'
import { type Worth, worthNames } from './truth.ts'

/** One number that was estimated and is known. */
export type Compared = {
  readonly metric: keyof Worth
  /** The candidate's value, or its difference to production's. */
  readonly of: 'candidate' | 'difference'
  readonly estimate: number
  readonly low: number
  readonly high: number
  readonly truth: number
  /** Whether the 95 % interval holds the truth. */
  readonly held: boolean
}

/** What was sent, what the router counted and what is stored: these must be the same requests. */
export type Reconciled = {
  readonly sent: number
  /** Requests whose answer ended early, and those that got an error or no response. */
  readonly brokenOff: number
  readonly refused: number
  readonly judged: number
  readonly servedBy: Readonly<Record<string, number>>
  readonly routed: number
  readonly stored: number
  readonly storedJudged: number
  readonly spansLost: number
  /** Decisions that only the client or only the table knows, or on whose model or judgement they differ. */
  readonly unmatched: number
  readonly exact: boolean
}

/** Compares what the client saw with what the router counted and the table holds. */
export const reconcile = (
  seen: readonly Seen[],
  counts: RouterCounts,
  stored: readonly DecisionRecord[],
): Reconciled => {
  const told = new Map(seen.flatMap((one) => (one.decisionId ? [[one.decisionId, one] as const] : [])))
  const storedIds = new Set(stored.map(({ id }) => id))
  const servedBy: Record<string, number> = {}
  for (const { status, servedModel } of seen)
    if (status === 200 && servedModel) servedBy[servedModel] = (servedBy[servedModel] ?? 0) + 1
  const agrees = ({ id, outcome }: DecisionRecord): boolean => {
    const one = told.get(id)
    if (!one || !outcome || (outcome.quality !== null) !== one.judged) return false
    return one.status !== 200 || outcome.served === one.servedModel
  }
  const unmatched =
    stored.filter((record) => !agrees(record)).length + [...told.keys()].filter((id) => !storedIds.has(id)).length
  const spansLost = counts.dropped + counts.refused
  const numbers = {
    sent: seen.length,
    brokenOff: seen.filter(({ aborted }) => aborted).length,
    refused: seen.filter(({ status }) => status !== 200).length,
    judged: seen.filter(({ judged }) => judged).length,
    servedBy,
    routed: counts.decisions,
    stored: stored.length,
    storedJudged: stored.filter(({ outcome }) => (outcome?.quality ?? null) !== null).length,
    spansLost,
    unmatched,
  }
  const exact = unmatched === 0 && spansLost === 0 && numbers.sent === numbers.routed && numbers.sent === numbers.stored
  return { ...numbers, exact }
}

/** The truth beside every estimate of a replay. */
export const compare = ({ metrics: results }: Replay, candidate: Worth, production: Worth): Compared[] =>
  worthNames.flatMap((metric) => {
    const result = results.find((each) => each.metric === metric)
    if (!result) return []
    return (['candidate', 'difference'] as const).map((of): Compared => {
      const { value, low, high } = result[of]
      const truth = of === 'candidate' ? candidate[metric] : candidate[metric] - production[metric]
      return { metric, of, estimate: value, low, high, truth, held: low <= truth && truth <= high }
    })
  })

export const reconciledText = (of: Reconciled): string =>
  [
    `Client: ${of.sent} sent, ${of.sent - of.brokenOff - of.refused} answered, ${of.brokenOff} broke off, ${of.refused} refused, ${of.judged} judged`,
    `Served: ${Object.entries(of.servedBy)
      .sort()
      .map(([model, count]) => `${model} ${count}`)
      .join(', ')}`,
    `Stored: client ${of.sent} ${of.sent === of.routed ? '=' : '≠'} router ${of.routed} ${of.routed === of.stored ? '=' : '≠'} rows ${of.stored}, ` +
      `judgements ${of.judged} ${of.judged === of.storedJudged ? '=' : '≠'} ${of.storedJudged}, ` +
      `${of.spansLost} spans lost, ${of.unmatched} unmatched`,
  ].join('\n')

/** The table of estimates and truths. */
export const truthText = (compared: readonly Compared[]): string => {
  const head = ['', 'estimate', '95 % interval', 'truth', 'held']
  const rows = compared.map(({ metric, of, estimate, low, high, truth, held }) => {
    const { title, say } = metrics[metric]
    const label = of === 'candidate' ? title : '  against production'
    return [label, say(estimate), `${say(low)} … ${say(high)}`, say(truth), held ? '✓' : '✗']
  })
  const widths = head.map((_, column) => Math.max(...[head, ...rows].map((row) => row[column]?.length ?? 0)))
  return [head, ...rows]
    .map((row) => {
      const cells = row.map((text, at) => (at === 0 ? text.padEnd(widths[at] ?? 0) : text.padStart(widths[at] ?? 0)))
      return `  ${cells.join('  ')}`
    })
    .join('\n')
}
