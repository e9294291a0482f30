// Who drives a promotion: one process at a time, on whichever machine. The hold is a row of `otel.promotions` beside the states; the
// last one written stands, is renewed while its process lives, and lapses by itself when it does not. ClickHouse cannot compare
// and swap, so whoever takes a hold looks once more a moment later, and before every step.
import { randomUUID } from 'node:crypto'
import { hostname } from 'node:os'
import { z } from 'zod'
import { isRunning } from '../reexec/result.ts'

/** How long two processes that take a hold at the same moment wait to see which of them has it. */
const settleMs = 500

export const holderSchema = z.object({
  /** Tells this process from every other. */
  key: z.string().max(100),
  by: z.string().max(200),
  host: z.string().max(300),
  pid: z.int().min(0),
  /** When the hold lapses, ISO 8601. */
  until: z.iso.datetime(),
})
export type Holder = z.infer<typeof holderSchema>

/** Another process drives this promotion. */
export class HoldError extends Error {
  readonly code = 'promotion-held'
}

export type HoldLedger = {
  readonly holder: (id: string) => Promise<Holder | null>
  readonly hold: (id: string, holder: Holder) => Promise<void>
}

export type Hold = {
  /** Renews it; throws a HoldError when another process has it by now. */
  readonly keep: () => Promise<void>
  /** Lets the next process have it at once. */
  readonly release: () => Promise<void>
}

/**
 * Takes the hold on a promotion for `leaseMs` at a time, in the name `by`. A hold that lapsed is taken over, and so is that of a
 * process of this machine that is no more. Throws a HoldError that names who has it, or what the ledger throws.
 */
export const takeHold = async (
  ledger: HoldLedger,
  id: string,
  by: string,
  leaseMs: number,
  clock: { readonly now: () => number; readonly sleep: (ms: number) => Promise<void> },
): Promise<Hold> => {
  const key = randomUUID()
  const write = (ms: number) =>
    ledger.hold(id, { key, by, host: hostname(), pid: process.pid, until: new Date(clock.now() + ms).toISOString() })
  const look = async (): Promise<Holder | null> => {
    const holder = await ledger.holder(id)
    if (holder && holder.key !== key && isHeld(holder, clock.now())) throw new HoldError(refusal(id, holder, leaseMs))
    return holder
  }
  await look()
  await write(leaseMs)
  await clock.sleep(settleMs)
  await look()
  return {
    keep: async () => {
      const holder = await look()
      const leftMs = holder?.key === key ? Date.parse(holder.until) - clock.now() : 0
      if (leftMs < leaseMs / 2) await write(leaseMs)
    },
    release: async () => {
      if ((await ledger.holder(id))?.key === key) await write(0)
    },
  }
}

const isHeld = ({ until, host, pid }: Holder, nowMs: number): boolean =>
  Date.parse(until) > nowMs && !(host === hostname() && pid !== process.pid && !isRunning(pid))

const refusal = (id: string, { by, host, pid, until }: Holder, leaseMs: number): string =>
  `driving promotion ${id}: ${by} on ${host} (process ${pid}) is at it; wait for it, or until ${until} if it is gone: a hold that is not renewed lapses after ${Math.ceil(leaseMs / 1000)} s`
