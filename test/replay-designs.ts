// Ways of logging and policies to judge by what they logged, on traffic whose truth is known (replay-truth.ts), and how often
// the intervals hold it. A logger gives probabilities that are the same for every prompt, so the true value of what it
// did is known whatever its draws were; one of them learns as it goes, and its probabilities depend on what it drew.
import { metricNames, metrics } from '../replay/estimate/metrics.ts'
import { type Replay, type ReplayOptions, replay, replayDefaults } from '../replay/run.ts'
import { type Policy, parsePolicy } from '../router/policy/policy.ts'
import { type Decision, type DecisionRecord, type Outcome, recordOf } from '../router/policy/record.ts'
import { contextFor, prompts, truthFeatures } from './replay-truth.ts'

/** Answers longer than this count as cut off, so that real failures, rare and tied to the prompt, can be watched too. */
const failsAboveTokens = 900
export const watched = ['quality', 'cost_usd', 'latency_ms', 'failed'] as const
export type Watched = (typeof watched)[number]

const models = [...(prompts[0]?.outcomes.keys() ?? [])]
const cutOff = (outcome: Outcome): Outcome =>
  (outcome.output_tokens ?? 0) > failsAboveTokens ? { ...outcome, status: 'upstream-cut' } : outcome
const answers = prompts.map(({ outcomes }) => models.map((model) => cutOff(outcomes.get(model) as Outcome)))
const contexts = prompts.map((prompt) => contextFor(prompt, 'prompt'))

const outcomeValue = (outcome: Outcome, metric: Watched): number =>
  metrics[metric].read({ outcome } as DecisionRecord, { slowAboveMs: null })
const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length
/** By metric and model: the mean over all prompts. */
const worth = Object.fromEntries(
  watched.map((metric) => [
    metric,
    models.map((_, arm) => mean(answers.map((of) => outcomeValue(of[arm] as Outcome, metric)))),
  ]),
) as Readonly<Record<Watched, number[]>>

/** Probabilities before each row, and what is learned from it. */
type Logger = {
  readonly next: (row: number) => readonly number[]
  readonly learn: (arm: number, reward: number) => void
}
export type Logging = (random: () => number) => Logger

const probabilitiesOf = (policy: Policy): readonly number[] => {
  const { candidates } = policy.decide(contexts[0] as (typeof contexts)[number])
  return models.map((model) => candidates.find((candidate) => candidate.model === model)?.probability ?? 0)
}
/** Logs as a policy decides; its probabilities must not depend on the prompt. */
const as = (text: string): Logging => {
  const probabilities = probabilitiesOf(parsePolicy(`name: production\n${text}`, truthFeatures))
  return () => ({ next: () => probabilities, learn: () => {} })
}

/** A Gamma(shape ≥ 1) draw (Marsaglia & Tsang 2000). */
const gamma = (shape: number, random: () => number): number => {
  const d = shape - 1 / 3
  for (;;) {
    const z = Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random())
    const v = (1 + z / Math.sqrt(9 * d)) ** 3
    if (v > 0 && Math.log(1 - random()) < (z * z) / 2 + d - d * v + d * Math.log(v)) return d * v
  }
}
const beta = (a: number, b: number, random: () => number): number => {
  const x = gamma(a, random)
  return x / (x + gamma(b, random))
}

/** Thompson sampling on quality: probabilities of being best by 300 draws of the posteriors, every 100 rows, and 15 % at random. */
const thompson: Logging = (random) => {
  const [batch, draws, explored] = [100, 300, 0.15]
  const [good, bad] = [models.map(() => 1), models.map(() => 1)]
  let probabilities: readonly number[] = []
  return {
    next: (row) => {
      if (row % batch !== 0) return probabilities
      const wins = models.map(() => 0)
      for (let draw = 0; draw < draws; draw++) {
        const lots = models.map((_, arm) => beta(good[arm] as number, bad[arm] as number, random))
        const best = lots.indexOf(Math.max(...lots))
        wins[best] = (wins[best] as number) + 1
      }
      probabilities = wins.map((won) => ((1 - explored) * won) / draws + explored / models.length)
      return probabilities
    },
    learn: (arm, reward) => {
      const counts = reward === 1 ? good : bad
      counts[arm] = (counts[arm] as number) + 1
    },
  }
}

const toLlama = `score: 'candidate.rank == 3.0 ? 1.0 : 0.0'\nchoose: {kind: highest}`
const epsilonGreedy = (rate: number) => `score: candidate.rank\nchoose: {kind: highest}\nexplore: {rate: ${rate}}`
const softmax = (temperature: number) => `score: candidate.rank\nchoose: {kind: softmax, temperature: ${temperature}}`
/** Short requests to another model, the rest as before. */
const partly = (rate: number) =>
  `rules:\n  - {name: short, when: request.input_tokens < 60.0, use: {score: 'candidate.rank == 3.0 ? 1.0 : 0.0', choose: {kind: highest}}}\n  - {name: rest, use: {score: candidate.rank, choose: {kind: highest}, explore: {rate: ${rate}}}}`

export type Design = {
  readonly name: string
  readonly rows: number
  readonly logging: Logging
  readonly candidate: string
  /** How many logs a quick test makes of it. */
  readonly quick: number
}
/** The rows give each an effective size above 250, of all rows and of those that speak for the change. */
export const designs: readonly Design[] = [
  { name: 'ε 2 %, nearly disjoint', rows: 72_000, logging: as(epsilonGreedy(0.02)), candidate: toLlama, quick: 1 },
  { name: 'ε 2 %, overlapping', rows: 108_000, logging: as(epsilonGreedy(0.02)), candidate: partly(0.02), quick: 1 },
  { name: 'ε 10 %, nearly disjoint', rows: 14_400, logging: as(epsilonGreedy(0.1)), candidate: toLlama, quick: 2 },
  { name: 'ε 10 %, overlapping', rows: 22_000, logging: as(epsilonGreedy(0.1)), candidate: partly(0.1), quick: 2 },
  { name: 'ε 30 %, nearly disjoint', rows: 4800, logging: as(epsilonGreedy(0.3)), candidate: toLlama, quick: 14 },
  { name: 'ε 30 %, overlapping', rows: 7200, logging: as(epsilonGreedy(0.3)), candidate: partly(0.3), quick: 12 },
  { name: 'softmax, nearly disjoint', rows: 1400, logging: as(softmax(2)), candidate: toLlama, quick: 60 },
  { name: 'softmax, overlapping', rows: 1000, logging: as(softmax(2)), candidate: softmax(0.8), quick: 60 },
  { name: 'Thompson, nearly disjoint', rows: 8000, logging: thompson, candidate: toLlama, quick: 10 },
  { name: 'Thompson, overlapping', rows: 4000, logging: thompson, candidate: softmax(2), quick: 14 },
]

/** By model: what is tried after it. */
const plans = models.map((model) => [model, ...models.filter((other) => other !== model)])

/** What a record has besides probabilities and a choice. */
const anyone = parsePolicy('name: logger\nscore: candidate.rank\nchoose: {kind: highest}', truthFeatures)

const drawnArm = (probabilities: readonly number[], lot: number): number => {
  let sum = 0
  return Math.max(
    0,
    probabilities.findIndex((probability) => {
      sum += probability
      return lot < sum
    }),
  )
}

/** Makes logs of a design, and says what the difference from what was logged truly is. */
export const logsOf = ({ logging, candidate: text, rows }: Design, random: () => number) => {
  const policy = parsePolicy(`name: candidate\n${text}`, truthFeatures)
  const decided = contexts.map((context) => policy.decide(context))
  const byRequest = new Map(contexts.map(({ request }, at) => [request, decided[at] as Decision]))
  const logged = contexts.map((context) => recordOf(context, anyone.decide(context)))
  const remembered: Policy = { ...policy, decide: ({ request }) => byRequest.get(request) as Decision }
  const value = (metric: Watched): number =>
    mean(
      decided.map(({ candidates }, at) =>
        candidates.reduce(
          (sum, { model, probability }) =>
            sum + probability * outcomeValue(answers[at]?.[models.indexOf(model)] as Outcome, metric),
          0,
        ),
      ),
    )
  const values = watched.map(value)
  // The candidates of a prompt are made anew only when the probabilities are others.
  const shown = contexts.map(() => ({
    probabilities: [] as readonly number[],
    candidates: [] as DecisionRecord['candidates'],
  }))
  const candidatesOf = (at: number, probabilities: readonly number[]): DecisionRecord['candidates'] => {
    const last = shown[at]
    if (last?.probabilities === probabilities) return last.candidates
    const candidates = (logged[at] as DecisionRecord).candidates.map((candidate) => ({
      ...candidate,
      probability: probabilities[models.indexOf(candidate.model)] as number,
    }))
    shown[at] = { probabilities, candidates }
    return candidates
  }
  const draw = (name: string) => {
    const logger = logging(random)
    const drawn = models.map(() => 0)
    const records = Array.from({ length: rows }, (_, row): DecisionRecord => {
      const probabilities = logger.next(row)
      const at = Math.floor(random() * prompts.length)
      const candidates = candidatesOf(at, probabilities)
      const arm = drawnArm(probabilities, random())
      const outcome = answers[at]?.[arm] as Outcome
      logger.learn(arm, outcome.quality ?? 0)
      for (const [of, probability] of probabilities.entries()) drawn[of] = (drawn[of] as number) + probability / rows
      const chosen = models[arm] as string
      return {
        ...(logged[at] as DecisionRecord),
        id: `${name}-${row}`,
        candidates,
        chosen,
        plan: plans[arm] as string[],
        outcome,
      }
    })
    const production = (metric: Watched): number =>
      drawn.reduce((sum, share, arm) => sum + share * (worth[metric][arm] as number), 0)
    const truth = Object.fromEntries(
      watched.map((metric, at) => [metric, (values[at] as number) - production(metric)]),
    ) as Readonly<Record<Watched, number>>
    return { records, truth }
  }
  return { candidate: remembered, values, draw }
}

/** One log's result for a metric, and whether Student's interval, the reported one and the bootstrap's hold the truth. */
export type Held = {
  readonly metric: Watched
  readonly verdict: Replay['verdict']
  readonly changeEss: number
  readonly truth: number
  /** Standard errors of the gap between DR and SNIPS. */
  readonly gapSe: number
  readonly student: boolean
  readonly reported: boolean
  readonly bootstrap: boolean | null
  /** Whether the direct method's interval holds the candidate's own value. */
  readonly direct: boolean
  /** The reported interval misses on the side where the truth is higher. */
  readonly isAbove: boolean
}

/** Judges `repetitions` logs of a design. */
export const judgedLogs = (
  design: Design,
  repetitions: number,
  random: () => number,
  options: Partial<ReplayOptions> = {},
): Held[] => {
  const { candidate, values, draw } = logsOf(design, random)
  return Array.from({ length: repetitions }, (_, repetition) => {
    const { records, truth: truths } = draw(`${repetition}`)
    const result = replay(records, [], candidate, {
      ...replayDefaults,
      trustPropensities: true,
      replicates: 0,
      ...options,
    })
    return watched.map((metric, at): Held => {
      const { difference, bootstrap, disagreementSe, diagnostics, drSupported, estimators } = result.metrics[
        metricNames.indexOf(metric)
      ] as Replay['metrics'][number]
      const truth = truths[metric]
      const holds = ({ low, high }: { readonly low: number; readonly high: number }) => low <= truth && truth <= high
      const reach = 1.96 * difference.se
      return {
        metric,
        verdict: result.verdict,
        changeEss: diagnostics.change.ess,
        truth,
        gapSe: Math.sign(drSupported - estimators.snips.value) * disagreementSe,
        student: holds({ low: difference.value - reach, high: difference.value + reach }),
        reported: holds(difference),
        bootstrap: bootstrap && holds(bootstrap),
        direct: estimators.dm.low <= (values[at] as number) && (values[at] as number) <= estimators.dm.high,
        isAbove: truth > difference.high,
      }
    })
  }).flat()
}

/** Whether a verdict was given: the evidence may be used and suffices, whatever it shows. */
export const isGiven = ({ verdict: { kind, thin } }: Held): boolean => kind !== 'refused' && thin === null
