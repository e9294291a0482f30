// A clock that jumps: loaded before anything else in a child, it shifts `Date` by what the parent says, as a machine whose
// time is set does. Clocks that only run forward (`performance.now`, `process.hrtime`) are left as they are.

export type ClockJump = { readonly clockJumpMs: number }

/** What makes a child's clock one that can be made to jump. */
export const clockFlags: readonly string[] = [
  '--import',
  `data:text/javascript,${encodeURIComponent(`import { shiftClock } from ${JSON.stringify(import.meta.url)}; shiftClock()`)}`,
]

/** In the child: puts the shifting `Date` in place, and listens. */
export const shiftClock = (): void => {
  let shiftMs = 0
  const Real = Date
  const now = (): number => Real.now() + shiftMs
  const Shifted = new Proxy(Real, {
    construct: (target, args, newTarget) => Reflect.construct(target, args.length === 0 ? [now()] : args, newTarget),
    apply: () => new Real(now()).toString(),
    get: (target, key) => (key === 'now' ? now : Reflect.get(target, key)),
  })
  globalThis.Date = Shifted
  process.on('message', (message: Partial<ClockJump>) => {
    shiftMs += message.clockJumpMs ?? 0
  })
  // Listening must not keep a child alive that has nothing else to do.
  process.channel?.unref()
}
