// Suspicions about outcomes that no single record shows: fallbacks logged as choices, feedback that came for fast answers
// only, token counts that somebody made up, features that know the outcome. Estimates from such a log come out precise and
// wrong, so each of these is looked for before anything is estimated.
import type { DecisionRecord, Outcome } from '../../router/policy/record.ts'
import { percent, short } from '../report/words.ts'
import { type AuditFinding, findingOf, type Gravity, type Question } from './finding.ts'

/** Fewer rows than these raise no suspicion. */
const rowsMin = 100
const fallbacksMin = 20
/** A value on this share of the rows or more is called constant. */
const constantShare = 0.99
const valuesMax = 1000
/** The difference between missing rates of the fastest and the slowest third, and how many standard errors it must be. */
const missingGapMin = 0.1
const standardErrorsMin = 4
/** Latencies are binned by eighths of an octave, up to nine hours. */
const [binsPerOctave, binsMax] = [8, 200]
const equalShareMin = 0.5
const equalValuesMin = 10
const correlationMin = 0.999
const featuresMax = 200

/** An outcome with more than one attempt came from the first choice, always: then the choice was logged afterwards. */
export const fallbackAsChoice = (): Question => {
  let [same, rows] = [0, 0]
  return {
    add: ({ chosen, outcome }) => {
      if (!outcome || outcome.attempts < 2 || outcome.served === null) return
      rows++
      if (outcome.served === chosen) same++
    },
    close: () =>
      rows < fallbacksMin || same / rows < constantShare
        ? null
        : findingOf('fallback-as-choice', 'bad', [same, rows], {
            what: 'took several attempts and were all served by the choice: is the model that answered logged as chosen?',
            forbids: 'every estimate: the action is the first choice, whoever answered',
            remedy: 'Log the first choice as chosen, and who answered as outcome.served.',
          }),
  }
}

/** Whether feedback is missing more often for slow answers than for fast ones, or the other way round. */
export const censoredFeedback = (): Question => {
  const [missing, known] = [new Float64Array(binsMax), new Float64Array(binsMax)]
  return {
    add: ({ outcome }) => {
      if (outcome?.status !== 'ok' || outcome.latency_ms === null) return
      const bin = Math.min(binsMax - 1, Math.floor(binsPerOctave * Math.log2(1 + outcome.latency_ms)))
      const counts = outcome.quality === null ? missing : known
      counts[bin] = (counts[bin] as number) + 1
    },
    close: () => {
      const bins = Array.from(missing, (lost, bin) => ({ lost, rows: lost + (known[bin] as number) }))
      const [fast, slow] = [thirdOf(bins), thirdOf(bins.reverse())]
      if (known.every((rows) => rows === 0) || Math.min(fast.rows, slow.rows) < rowsMin / 3) return null
      const [fastShare, slowShare] = [fast.lost / fast.rows, slow.lost / slow.rows]
      const pooled = (fast.lost + slow.lost) / (fast.rows + slow.rows)
      const se = Math.sqrt(pooled * (1 - pooled) * (1 / fast.rows + 1 / slow.rows))
      const gap = Math.abs(slowShare - fastShare)
      if (gap < missingGapMin || gap < standardErrorsMin * se) return null
      const worse = slowShare > fastShare ? slow : fast
      return findingOf('censored-feedback', 'bad', [worse.lost, worse.rows], {
        what: `of the ${worse === slow ? 'slowest' : 'fastest'} third have no feedback, against ${percent(Math.min(fastShare, slowShare))} at the other end: whether it comes depends on latency`,
        forbids: 'estimates of quality, and --missing-at-random',
        remedy: 'Wait until feedback on slow answers has come, or join it without a time limit.',
      })
    },
  }
}

/** The first bins that hold at least a third of all rows. */
const thirdOf = (bins: readonly { readonly lost: number; readonly rows: number }[]) => {
  const all = bins.reduce((sum, { rows }) => sum + rows, 0)
  let [lost, rows] = [0, 0]
  for (const bin of bins) {
    if (rows >= all / 3) break
    lost += bin.lost
    rows += bin.rows
  }
  return { lost, rows }
}

/** A number that hardly ever varies was not measured. */
const constant = (field: string, gravity: Gravity, read: (record: DecisionRecord) => number | null): Question => {
  const counts = new Map<number, number>()
  let rows = 0
  return {
    add: (record) => {
      const value = read(record)
      if (value === null) return
      rows++
      if (counts.has(value) || counts.size < valuesMax) counts.set(value, (counts.get(value) ?? 0) + 1)
    },
    close: () => {
      const [value = 0, count = 0] = [...counts].sort((a, b) => b[1] - a[1])[0] ?? []
      if (rows < rowsMin || count / rows < constantShare) return null
      return findingOf(`constant-${field}`, gravity, [count, rows], {
        what: `have ${field} = ${value}: a count that never varies was not measured`,
        forbids: 'estimates of cost, and everything told apart by length',
        remedy: "Take token counts from the provider's usage, or leave them null.",
      })
    },
  }
}

const outcomeFields = ['cost_usd', 'latency_ms', 'ttft_ms', 'quality'] as const
type OutcomeField = (typeof outcomeFields)[number]
type Pair = {
  rows: number
  equal: number
  values: Set<number>
  x: number
  y: number
  xx: number
  yy: number
  xy: number
}

const measured = (outcome: Outcome, field: OutcomeField): number | null =>
  field === 'cost_usd' && outcome.cost_source !== 'measured' ? null : outcome[field]

/** One step of Welford's algorithm for two variables: running means and centred sums. */
const addPair = (pair: Pair, x: number, y: number): void => {
  pair.rows++
  if (x === y) {
    pair.equal++
    if (pair.values.size < equalValuesMin) pair.values.add(x)
  }
  const [dx, dy] = [x - pair.x, y - pair.y]
  pair.x += dx / pair.rows
  pair.y += dy / pair.rows
  pair.xx += dx * (x - pair.x)
  pair.yy += dy * (y - pair.y)
  pair.xy += dx * (y - pair.y)
}

const isLeak = ({ rows, equal, values, xx, yy, xy }: Pair, field: OutcomeField): boolean => {
  if (rows < rowsMin) return false
  if (equal / rows > equalShareMin && values.size >= equalValuesMin) return true
  // A cost may well be predicted exactly, from the same tokens and prices; nothing else can.
  return field !== 'cost_usd' && xx > 0 && yy > 0 && Math.abs(xy) / Math.sqrt(xx * yy) >= correlationMin
}

/**
 * Features of the choice that equal what came of it, or say it to three digits: they were not known beforehand. Closed with a set, it
 * speaks of those features only.
 */
export const leakage = () => {
  const pairs = new Map<string, Readonly<Record<OutcomeField, Pair>>>()
  const start = (): Pair => ({ rows: 0, equal: 0, values: new Set(), x: 0, y: 0, xx: 0, yy: 0, xy: 0 })
  return {
    add: ({ chosen, candidates, outcome }: DecisionRecord): void => {
      const features = outcome && candidates.find(({ model }) => model === chosen)?.features
      if (!features || outcome.served !== chosen) return
      for (const name in features) {
        const value = features[name]
        if (typeof value !== 'number') continue
        let pair = pairs.get(name)
        if (!pair) {
          if (pairs.size >= featuresMax) continue
          pair = { cost_usd: start(), latency_ms: start(), ttft_ms: start(), quality: start() }
          pairs.set(name, pair)
        }
        for (const field of outcomeFields) {
          const came = measured(outcome, field)
          if (came !== null) addPair(pair[field], value, came)
        }
      }
    },
    close: (among: ReadonlySet<string> | null = null): AuditFinding | null => {
      const leaks = [...pairs].flatMap(([feature, of]) =>
        outcomeFields
          .filter((field) => (among?.has(feature) ?? true) && isLeak(of[field], field))
          .map((field) => ({ feature, field, ...of[field] })),
      )
      const [first] = leaks.sort((a, b) => b.equal - a.equal || b.rows - a.rows)
      if (!first) return null
      const named = leaks.map(({ feature, field }) => `${short(feature)} (outcome.${field})`)
      return findingOf('leakage', 'bad', [first.equal || first.rows, first.rows], {
        what: `carry features that know what came of the request: ${[...new Set(named)].join(', ')}`,
        forbids: 'every estimate for policies that read them: they would decide by the answer',
        remedy: 'Record features before the call, from what was known then.',
      })
    },
  }
}

export const outcomeQuestions = (): readonly Question[] => [
  fallbackAsChoice(),
  censoredFeedback(),
  constant('request.input_tokens', 'warning', ({ request }) => request.input_tokens),
  constant('outcome.input_tokens', 'bad', ({ outcome }) => outcome?.input_tokens ?? null),
  constant('outcome.output_tokens', 'bad', ({ outcome }) => outcome?.output_tokens ?? null),
  leakage(),
]
