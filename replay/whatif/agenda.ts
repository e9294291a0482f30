// What is to happen, in the order in which it happens: a binary heap of moments. Two things at the same moment happen in
// the order in which they were put down, so that a simulation is the same every time.

type Entry<Event> = { readonly atMs: number; readonly turn: number; readonly event: Event }

const isBefore = <Event>(a: Entry<Event>, b: Entry<Event>): boolean =>
  a.atMs < b.atMs || (a.atMs === b.atMs && a.turn < b.turn)

export type Agenda<Event> = {
  readonly put: (atMs: number, event: Event) => void
  /** The earliest entry, taken off; undefined when there is none. */
  readonly next: () => { readonly atMs: number; readonly event: Event } | undefined
}

export const agendaOf = <Event>(): Agenda<Event> => {
  const heap: Entry<Event>[] = []
  let turns = 0
  const at = (index: number) => heap[index] as Entry<Event>
  const swap = (a: number, b: number): void => {
    const entry = at(a)
    heap[a] = at(b)
    heap[b] = entry
  }
  const sink = (): void => {
    for (let parent = 0; ; ) {
      const left = 2 * parent + 1
      const right = left + 1
      if (left >= heap.length) return
      const child = right < heap.length && isBefore(at(right), at(left)) ? right : left
      if (!isBefore(at(child), at(parent))) return
      swap(child, parent)
      parent = child
    }
  }
  return {
    put: (atMs, event) => {
      heap.push({ atMs, turn: turns++, event })
      for (let child = heap.length - 1; child > 0; ) {
        const parent = (child - 1) >> 1
        if (!isBefore(at(child), at(parent))) return
        swap(child, parent)
        child = parent
      }
    },
    next: () => {
      const first = heap[0]
      const last = heap.pop()
      if (heap.length > 0 && last) {
        heap[0] = last
        sink()
      }
      return first
    },
  }
}
