// How late this process is by the machine's fault: a timer that rings often, and by how much it was late of late. Where others
// take all cores, every process waits for its turns, and 100 ms of a promise are not 100 ms by the wall.

const everyMs = 10
const rememberedMs = 2_000

export type Lag = {
  /** The longest wait of the last two seconds, in milliseconds. */
  readonly maxMs: () => number
  readonly close: () => void
}

export const openLag = (): Lag => {
  let dueMs = performance.now() + everyMs
  let waits: { readonly atMs: number; readonly ms: number }[] = []
  const note = (): void => {
    const atMs = performance.now()
    waits = [...waits.filter((wait) => wait.atMs > atMs - rememberedMs), { atMs, ms: Math.max(0, atMs - dueMs) }]
    dueMs = atMs + everyMs
  }
  const timer = setInterval(note, everyMs)
  return { maxMs: () => Math.max(0, ...waits.map(({ ms }) => ms)), close: () => clearInterval(timer) }
}
