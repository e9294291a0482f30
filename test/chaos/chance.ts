// Chance for chaos: all of a round's draws come from one seed, so that a round that failed can be asked for again. What the
// machine makes of them in time is its own affair, and no two rounds are alike to the millisecond.
import { seeded } from '../replay-truth.ts'

export type Chance = {
  readonly between: (from: number, to: number) => number
  /** Both ends may come. */
  readonly integer: (from: number, to: number) => number
  readonly happens: (probability: number) => boolean
  readonly pick: <Thing>(things: readonly Thing[]) => Thing
  readonly shuffled: <Thing>(things: readonly Thing[]) => Thing[]
}

export const chanceOf = (seed: number): Chance => {
  const random = seeded(seed)
  const integer = (from: number, to: number): number => from + Math.floor(random() * (to - from + 1))
  return {
    between: (from, to) => from + random() * (to - from),
    integer,
    happens: (probability) => random() < probability,
    pick: <Thing>(things: readonly Thing[]) => things[integer(0, things.length - 1)] as Thing,
    shuffled: <Thing>(things: readonly Thing[]) =>
      things
        .map((thing) => ({ thing, at: random() }))
        .sort((a, b) => a.at - b.at)
        .map(({ thing }) => thing),
  }
}
