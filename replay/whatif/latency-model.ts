// How long a target takes: `a + b·input + c·output` for the time to the first token and, apart from it, for the rest, plus
// what a logged call missed those lines by. Misses are drawn, both parts together, from calls of about the same predicted
// length, because long answers vary more than short ones; a client that left before the first token raises the chance of
// the slower calls instead of being forgotten.
import { at, fitLine, type Line } from './line.ts'

/** One logged call that did not fail. `left` is a client that went at `totalMs`, so that the rest was never seen. */
export type Timing = {
  readonly inputTokens: number
  readonly outputTokens: number
  /** Null where the log does not know it; the whole then counts as the rest. */
  readonly ttftMs: number | null
  readonly totalMs: number
  readonly left: boolean
}
export type Duration = { readonly ttftMs: number | null; readonly totalMs: number }

export type LatencyModel = {
  readonly first: Line
  readonly rest: Line
  /** Whole calls behind it, and clients that left before their first token. */
  readonly calls: number
  readonly censored: number
  /** The duration of a call; `lot` in [0, 1) decides which logged misses it gets. */
  readonly sample: (inputTokens: number, outputTokens: number, lot: number) => Duration
  /** What the lines say, without misses. */
  readonly predict: (inputTokens: number, outputTokens: number) => { readonly ttftMs: number; readonly totalMs: number }
}

/** Below so many whole calls a target has no model of its own. */
export const callsMin = 20
/** Misses come from this share of all calls, at least so many, with predicted lengths just below and above. */
const neighbourShare = 0.1
const neighboursMin = 50

type Miss = {
  readonly predictedMs: number
  readonly firstMs: number
  readonly restMs: number
  readonly hasTtft: boolean
  weight: number
}

/** Fits a model to the calls of one target. Returns null when there are too few. */
export const fitLatency = (timings: readonly Timing[]): LatencyModel | null => {
  const whole = timings.filter(({ left }) => !left)
  if (whole.length < callsMin) return null
  const point = ({ inputTokens, outputTokens }: Timing, y: number) => ({ input: inputTokens, output: outputTokens, y })
  const first = fitLine(whole.flatMap((call) => (call.ttftMs === null ? [] : [point(call, call.ttftMs)])))
  const rest = fitLine(whole.map((call) => point(call, call.totalMs - (call.ttftMs ?? 0))))
  const predictMs = (input: number, output: number) => at(first, input, output) + at(rest, input, output)
  const misses = whole.map(({ inputTokens: input, outputTokens: output, ttftMs, totalMs }): Miss => {
    const hasTtft = ttftMs !== null
    const firstMs = hasTtft ? ttftMs - at(first, input, output) : 0
    const restMs = totalMs - (ttftMs ?? 0) - at(rest, input, output)
    return { predictedMs: predictMs(input, output), firstMs, restMs, hasTtft, weight: 1 }
  })
  const censored = timings.filter(({ left, ttftMs }) => left && ttftMs === null)
  passOn(
    misses,
    censored.map((call) => call.totalMs - at(first, call.inputTokens, call.outputTokens)),
  )
  const draw = drawer(misses)
  return {
    first,
    rest,
    calls: whole.length,
    censored: censored.length,
    predict: (input, output) => ({ ttftMs: at(first, input, output), totalMs: predictMs(input, output) }),
    sample: (input, output, lot) => {
      const { firstMs, restMs, hasTtft } = draw(predictMs(input, output), lot)
      const ttftMs = hasTtft ? Math.max(0, at(first, input, output) + firstMs) : null
      return { ttftMs, totalMs: (ttftMs ?? 0) + Math.max(0, at(rest, input, output) + restMs) }
    },
  }
}

/**
 * Each censored miss gives its weight in equal parts to the calls that missed the first token by more (Efron 1967,
 * "redistribution to the right"); where none did, to the one that missed it most.
 */
const passOn = (misses: readonly Miss[], censoredMs: readonly number[]): void => {
  const known = misses.filter(({ hasTtft }) => hasTtft).sort((a, b) => a.firstMs - b.firstMs)
  let from = 0
  let share = 0
  for (const ms of censoredMs.toSorted((a, b) => a - b)) {
    for (; from < known.length - 1 && (known[from] as Miss).firstMs <= ms; from++) (known[from] as Miss).weight += share
    share += known.length > 0 ? 1 / (known.length - from) : 0
  }
  for (; from < known.length; from++) (known[from] as Miss).weight += share
}

/** Draws a miss in proportion to its weight among the neighbours of a predicted length. */
const drawer = (misses: readonly Miss[]) => {
  const sorted = misses.toSorted((a, b) => a.predictedMs - b.predictedMs)
  const predicted = Float64Array.from(sorted, ({ predictedMs }) => predictedMs)
  const reach = Math.ceil(Math.max(neighboursMin, sorted.length * neighbourShare) / 2)
  const upTo = new Float64Array(sorted.length + 1)
  for (const [index, { weight }] of sorted.entries()) upTo[index + 1] = (upTo[index] as number) + weight
  return (predictedMs: number, lot: number): Miss => {
    // Where many calls have the very same predicted length, the window lies around the middle of them.
    const middle = (firstAbove(predicted, predictedMs, false) + firstAbove(predicted, predictedMs, true)) >> 1
    const from = Math.max(0, Math.min(middle - reach, sorted.length - 2 * reach))
    const to = Math.min(sorted.length, from + 2 * reach)
    const [low, high] = [upTo[from] as number, upTo[to] as number]
    const found = firstAbove(upTo, low + lot * (high - low), true) - 1
    return sorted[Math.min(Math.max(found, from), to - 1)] as Miss
  }
}

/** The index of the first of sorted values above `value`, or not below it. */
export const firstAbove = (sorted: Float64Array, value: number, strictly: boolean): number => {
  let [low, high] = [0, sorted.length]
  while (low < high) {
    const middle = (low + high) >> 1
    const here = sorted[middle] as number
    if (strictly ? here > value : here >= value) high = middle
    else low = middle + 1
  }
  return low
}
