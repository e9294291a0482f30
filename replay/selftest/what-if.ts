// What the simulations rest on: waiting lines, whose averages are in every textbook, and a prompt cache, whose hit ratio on a
// real trace its authors published.
import { mooncakeHitRatio } from '../whatif/mooncake.ts'
import { erlangC, waitMg1, waitMmc } from '../whatif/queue.ts'
import { type Figure, figure } from './figure.ts'

/** Waits are in mean service times, loads in servers' worth of work. */
export const queueFigures = (): Figure[] =>
  (
    [
      ['M/M/1 at 0.8, wait', 4, waitMmc(1, 0.8)],
      ['M/M/2 at 1.6, share that waits', 0.711111, erlangC(2, 1.6)],
      ['M/M/2 at 1.6, wait', 1.777778, waitMmc(2, 1.6)],
      ['M/M/10 at 8, share that waits', 0.40918, erlangC(10, 8)],
      ['M/M/10 at 8, wait', 0.20459, waitMmc(10, 8)],
      ['M/M/50 at 45, share that waits', 0.363864, erlangC(50, 45)],
      ['M/M/50 at 45, wait', 0.072773, waitMmc(50, 45)],
      ['M/G/1 at 0.8, exponential service, wait', 4, waitMg1(0.8, 1, 2)],
    ] as const
  ).map(([name, expected, ours]) => figure({ group: 'queues', name, source: 'published', expected, ours, decimals: 6 }))

export const mooncakeFigures = (): Figure[] => [
  figure({
    group: 'Mooncake',
    name: 'conversation, endless cache, token hit ratio',
    source: 'computed',
    expected: 0.3736,
    ours: mooncakeHitRatio(),
    decimals: 4,
  }),
]
