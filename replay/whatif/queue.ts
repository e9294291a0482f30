// Waiting lines. Closed forms say what a queue does on average; a station is the same thing one request at a time, with a
// limit on how many are served at once and token buckets for requests and tokens per minute. The simulation uses stations;
// the formulas are what holds them to account.

const serversMax = 1_000_000
const minuteMs = 60_000

/**
 * Erlang's C formula: the probability that an arrival must wait, of `servers` offered `load` (arrival rate × mean
 * service time, below `servers`). Erlang 1917; by the recursion of his B formula, B(k) = aB(k−1) / (k + aB(k−1)),
 * C = B / (1 − (a/c)(1 − B)). Throws a RangeError where the queue would grow without end.
 */
export const erlangC = (servers: number, load: number): number => {
  if (!Number.isInteger(servers) || servers < 1 || servers > serversMax || !(load >= 0 && load < servers))
    throw new RangeError(
      `a queue of ${servers} servers offered ${load}: wanted 1 to ${serversMax} servers and a load below their number`,
    )
  let blocked = 1
  for (let k = 1; k <= servers; k++) blocked = (load * blocked) / (k + load * blocked)
  return blocked / (1 - (load / servers) * (1 - blocked))
}

/** Mean wait before service in M/M/c, in mean service times: C / (c − a). For one server it is M/M/1's ρ / (1 − ρ). */
export const waitMmc = (servers: number, load: number): number => erlangC(servers, load) / (servers - load)

/**
 * Mean wait before service in M/G/1 (Pollaczek 1930, Khinchine 1932): λE[S²] / (2(1 − λE[S])). `rate` per time unit,
 * `meanService` in that unit, `meanSquare` in its square.
 */
export const waitMg1 = (rate: number, meanService: number, meanSquare: number): number => {
  const load = rate * meanService
  if (!(load >= 0 && load < 1))
    throw new RangeError(`a queue of one server offered ${load}: wanted a load from 0 to below 1`)
  return (rate * meanSquare) / (2 * (1 - load))
}

/** What one target takes: at once, and per minute. Infinity is no limit. */
export type Limits = {
  readonly concurrency: number
  readonly requestsPerMinute: number
  readonly tokensPerMinute: number
}
export const noLimits: Limits = { concurrency: Infinity, requestsPerMinute: Infinity, tokensPerMinute: Infinity }

/** The tighter of two limits, each for itself. */
export const tighter = (a: Limits, b: Limits): Limits => ({
  concurrency: Math.min(a.concurrency, b.concurrency),
  requestsPerMinute: Math.min(a.requestsPerMinute, b.requestsPerMinute),
  tokensPerMinute: Math.min(a.tokensPerMinute, b.tokensPerMinute),
})

/** A bucket that holds a minute's worth, starts full and fills evenly. */
const bucketOf = (perMinute: number) => {
  let level = perMinute
  let filledAtMs = Number.NEGATIVE_INFINITY
  return {
    has: (amount: number, nowMs: number): boolean => {
      if (perMinute === Infinity) return true
      const elapsedMs = filledAtMs === Number.NEGATIVE_INFINITY ? 0 : nowMs - filledAtMs
      level = Math.min(perMinute, level + (elapsedMs * perMinute) / minuteMs)
      filledAtMs = nowMs
      return level >= amount
    },
    take: (amount: number): void => {
      level -= amount
    },
  }
}

/** `start`: being served from now on. `wait`: in line; `leave` will name it. `refuse`: a bucket is empty, it is not in line. */
export type Admission = 'start' | 'wait' | 'refuse'

export type Station<Job> = {
  /** Asks to be served now. `tokens` is what it takes from the bucket. Time must not run backwards. */
  readonly offer: (job: Job, tokens: number, nowMs: number) => Admission
  /** One that was being served is gone; returns the one that starts in its place. */
  readonly leave: () => Job | undefined
  /** Takes one out of the line; false when it was not waiting. */
  readonly withdraw: (job: Job) => boolean
}

/** A target that serves up to a limit at once, first come first served, and refuses what its buckets cannot cover. */
export const stationOf = <Job>({ concurrency, requestsPerMinute, tokensPerMinute }: Limits): Station<Job> => {
  const requests = bucketOf(requestsPerMinute)
  const tokensLeft = bucketOf(tokensPerMinute)
  const line = new Set<Job>()
  let serving = 0
  return {
    offer: (job, tokens, nowMs) => {
      if (!requests.has(1, nowMs) || !tokensLeft.has(tokens, nowMs)) return 'refuse'
      requests.take(1)
      tokensLeft.take(tokens)
      if (serving < concurrency) {
        serving++
        return 'start'
      }
      line.add(job)
      return 'wait'
    },
    leave: () => {
      const [next] = line
      if (next === undefined) serving--
      else line.delete(next)
      return next
    },
    withdraw: (job) => line.delete(job),
  }
}
