// What a router says of its own count, as log events: how many decisions it has made since it started, once a minute while there are
// new ones, and at its end. A gap in their numbers shows what is missing between two that were stored; only this shows what is missing
// behind the last one.
import type { LogEvent } from './log-event.ts'
import { eventNames, attributeNames as n } from './policy/attributes.ts'

const reportMs = 60_000
const infoSeverity = 9

/** Decisions made, and spans that were lost on their way because there was no room or the collector refused them. */
type EpochCounts = {
  readonly epoch: string
  readonly decisions: number
  readonly dropped: number
  readonly refused: number
}

/** Reports `counts` until the end is told, which is the last report. A router that decided nothing reports nothing. */
export const startEpochReports = (
  counts: () => EpochCounts,
  event: (event: LogEvent) => void,
  everyMs = reportMs,
): { readonly end: () => void } => {
  let reported = 0
  const report = (isEnded: boolean): void => {
    const { epoch, decisions, dropped, refused } = counts()
    if (decisions === 0 || (decisions === reported && !isEnded)) return
    reported = decisions
    event({
      name: eventNames.epoch,
      timeMs: Date.now(),
      severity: infoSeverity,
      attributes: {
        [n.epoch]: epoch,
        [n.epochDecisions]: decisions,
        [n.epochSpansDropped]: dropped,
        [n.epochSpansRefused]: refused,
        [n.epochEnded]: isEnded,
      },
    })
  }
  const timer = setInterval(() => report(false), everyMs).unref()
  const end = (): void => {
    clearInterval(timer)
    report(true)
  }
  return { end }
}
