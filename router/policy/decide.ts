// What a policy decides: pure, total, and recorded in full. Every candidate gets an eligibility with its reason, a score
// and a probability; chance is a counter-based draw; ties break by model name. Nothing here reads a clock, rolls a die,
// opens a socket or looks at the environment, so the same context always gives the same bits.
import type { Expression, Scope } from './cel.ts'
import { draw } from './chance.ts'
import { type Candidate, type Context, type Decision, type Exclusion, engineVersion, type Reason } from './record.ts'

export type Per = 'request' | 'session' | 'user' | 'tenant'
type Choose =
  | { readonly kind: 'highest' }
  | { readonly kind: 'lowest' }
  | { readonly kind: 'weighted'; readonly weights: Readonly<Record<string, number>>; readonly per: Per }
  | { readonly kind: 'softmax'; readonly temperature: number; readonly per: Per }

/** One compiled strategy. */
export type Body = {
  readonly kind: 'body'
  /** The models it may choose; null for all. */
  readonly candidates: ReadonlySet<string> | null
  readonly filters: readonly { readonly name: string; readonly test: Expression }[]
  readonly score: Expression | null
  readonly choose: Choose
  readonly explore: {
    readonly rate: number
    readonly floor: number
    readonly per: Per
    readonly unless: Expression | null
  } | null
  readonly attemptsMax: number
}
/** A compiled policy: strategies under rules and splits. */
export type Node =
  | Body
  | {
      readonly kind: 'rules'
      readonly rules: readonly { readonly name: string; readonly when: Expression | null; readonly use: Node }[]
    }
  | {
      readonly kind: 'split'
      readonly per: Per
      readonly arms: readonly { readonly name: string; readonly share: number; readonly use: Node }[]
    }

type Judged = Pick<Decision, 'candidates' | 'chosen' | 'explored' | 'plan' | 'path' | 'reason'>
type Draw = (per: Per, stream: string) => number

const keyOf = (context: Context, per: Per): string => {
  switch (per) {
    case 'request':
      return context.id
    case 'session':
      return context.session || context.id
    case 'user':
      return context.request.user || context.id
    case 'tenant':
      return context.request.tenant || context.id
  }
}

/** Decides one request under a compiled policy. */
export const decide = (root: Node, policy: Decision['policy'], context: Context): Decision => {
  const drawFor: Draw = (per, stream) => draw(keyOf(context, per), policy.hash, stream)
  const judged = judge(root, context, drawFor, '')
  const probability = judged.candidates.find((candidate) => candidate.model === judged.chosen)?.probability ?? 0
  return { engine: engineVersion, policy: { name: policy.name, hash: policy.hash }, ...judged, probability }
}

const judge = (node: Node, context: Context, drawFor: Draw, at: string): Judged => {
  switch (node.kind) {
    case 'body':
      return judgeBody(node, context, drawFor, at)
    case 'rules': {
      const scope: Scope = { context, model: '', features: {} }
      for (const rule of node.rules) {
        if (rule.when && !rule.when.run(scope)) continue
        const judged = judge(rule.use, context, drawFor, `${at}/rule:${rule.name}`)
        return { ...judged, path: [`rule:${rule.name}`, ...judged.path] }
      }
      throw new RangeError('a rules list without a last rule for all other requests cannot be loaded')
    }
    case 'split':
      return judgeSplit(node, context, drawFor, at)
  }
}

/**
 * The probability of a model is the share-weighted sum over the arms, because replay asks how likely the logged choice
 * was before any draw. An arm that can serve nothing passes its share on to the others. The drawn arm gives the rest.
 */
const judgeSplit = (node: Extract<Node, { kind: 'split' }>, context: Context, drawFor: Draw, at: string): Judged => {
  const judgements = node.arms.map((arm) => judge(arm.use, context, drawFor, `${at}/arm:${arm.name}`))
  const open = node.arms.map((arm, a) => (judgements[a]?.chosen === null ? 0 : arm.share))
  const shares = open.some((share) => share > 0) ? normalised(open) : node.arms.map((arm) => arm.share)
  const drawn = pick(shares, drawFor(node.per, `split:${at}`))
  const judged = judgements[drawn] as Judged
  const candidates = judged.candidates.map((candidate, index): Candidate => {
    const arms = judgements.map((judgement) => judgement.candidates[index] as Candidate)
    const eligible = arms.some((arm, a) => arm.eligible && (shares[a] ?? 0) > 0)
    const probability = arms.reduce((sum, arm, a) => sum + (shares[a] ?? 0) * arm.probability, 0)
    return {
      ...candidate,
      eligible,
      exclusion: eligible ? null : candidate.exclusion,
      probability: Math.min(1, probability),
    }
  })
  return { ...judged, candidates, path: [`arm:${node.arms[drawn]?.name}`, ...judged.path] }
}

/** Every request passes here, in the router and a million times in a replay: plain loops, and nothing made twice. */
const judgeBody = (body: Body, context: Context, drawFor: Draw, at: string): Judged => {
  const considered = context.candidates
  const pinned = considered.some(({ model }) => model === context.request.model)
  const judgements = considered.map(({ model, features }) => judgeCandidate(body, { context, model, features }, pinned))
  const open = byModel(considered).filter((place) => !judgements[place]?.exclusion)
  const models = open.map((place) => (considered[place] as Considered).model)
  const scores = open.map((place) => (judgements[place] as Judgement).score ?? 0)
  const choice = choose(body, context, drawFor, at, models, scores)
  const candidates = considered.map(({ model, features }, place): Candidate => {
    const { exclusion, score } = judgements[place] as Judgement
    const probability = exclusion ? 0 : (choice.probabilities[open.indexOf(place)] ?? 0)
    return { model, eligible: !exclusion, exclusion, score, probability, features }
  })
  const reason: Reason =
    models.length === 0 ? 'none-eligible' : pinned ? 'pinned' : models.length === 1 ? 'only-candidate' : choice.reason
  return {
    candidates,
    chosen: models[choice.index] ?? null,
    explored: reason === 'explore',
    plan: planOf(body, models, scores, choice),
    path: [],
    reason,
  }
}

type Considered = Context['candidates'][number]

/** The candidates' places in the order of their models' names: by which ties break, and chance is laid out. */
const byModel = (considered: readonly Considered[]): readonly number[] => {
  if (ordered.of === considered) return ordered.places
  const places = considered.map((_, place) => place)
  places.sort((a, b) => ((considered[a] as Considered).model < (considered[b] as Considered).model ? -1 : 1))
  ordered = { of: considered, places }
  return places
}
/** The order found last: a replay asks several policies about the same candidates. */
let ordered: { readonly of: readonly Considered[]; readonly places: readonly number[] } = { of: [], places: [] }

type Judgement = { readonly exclusion: Exclusion | null; readonly score: number | null }

/** A pinned model needs no score: the client has chosen. */
const judgeCandidate = (body: Body, scope: Scope, pinned: boolean): Judgement => {
  const exclusion = exclusionOf(body, scope, pinned)
  if (exclusion || !body.score) return { exclusion, score: null }
  const unknown = unknownOf(body.score, scope)
  if (unknown) return { exclusion: pinned ? null : unknown, score: null }
  const score = body.score.run(scope) as number
  if (Number.isFinite(score)) return { exclusion: null, score }
  return { exclusion: pinned ? null : { kind: 'score-not-finite' }, score: null }
}

const exclusionOf = (body: Body, scope: Scope, pinned: boolean): Exclusion | null => {
  const { context, model, features } = scope
  if (pinned && model !== context.request.model) return { kind: 'not-requested' }
  if (!pinned && body.candidates && !body.candidates.has(model)) return { kind: 'not-in-policy' }
  const needed = context.request.input_tokens + (context.request.output_tokens_max ?? 0)
  const { context_tokens_max: tokensMax } = features
  if (typeof tokensMax === 'number' && needed > tokensMax)
    return { kind: 'context-window', needed_tokens: needed, tokens_max: tokensMax }
  if (features.breaker === 'open') return { kind: 'breaker-open' }
  for (const { name, test } of body.filters) {
    const unknown = unknownOf(test, scope)
    if (unknown) return unknown
    if (!test.run(scope)) return { kind: 'rule', name }
  }
  return null
}

const unknownOf = (expression: Expression, { features }: Scope): Exclusion | null => {
  for (const feature of expression.needs)
    if (features[feature] === null || features[feature] === undefined) return { kind: 'feature-unknown', feature }
  return null
}

type Choice = { readonly index: number; readonly probabilities: readonly number[]; readonly reason: Reason }

/** The choice among the eligible, `models` sorted by name; every probability in closed form. */
const choose = (
  body: Body,
  context: Context,
  drawFor: Draw,
  at: string,
  models: readonly string[],
  scores: readonly number[],
): Choice => {
  const count = models.length
  if (count <= 1) return { index: count - 1, probabilities: count === 1 ? [1] : [], reason: body.choose.kind }
  const base = baseProbabilities(body.choose, models, scores)
  const rate = explorationRate(body, context, count)
  const probabilities = rate > 0 ? base.map((p) => (1 - rate) * p + rate / count) : base
  const { explore, choose: how } = body
  if (explore && rate > 0 && drawFor(explore.per, `explore:${at}`) < rate)
    return { index: Math.floor(drawFor(explore.per, `explore-arm:${at}`) * count), probabilities, reason: 'explore' }
  const certain = base.indexOf(1)
  const index = certain >= 0 ? certain : pick(base, drawFor('per' in how ? how.per : 'request', `choose:${at}`))
  return { index, probabilities, reason: how.kind }
}

/** Epsilon, raised so that every eligible model has at least the floor: `max(rate, floor × count)`, at most 1. */
const explorationRate = ({ explore }: Body, context: Context, count: number): number => {
  if (!explore || explore.unless?.run({ context, model: '', features: {} })) return 0
  return Math.min(1, Math.max(explore.rate, explore.floor * count))
}

const baseProbabilities = (how: Choose, models: readonly string[], scores: readonly number[]): number[] => {
  switch (how.kind) {
    case 'highest':
    case 'lowest': {
      const best = how.kind === 'highest' ? Math.max(...scores) : Math.min(...scores)
      const winner = scores.indexOf(best)
      return scores.map((_, index) => (index === winner ? 1 : 0))
    }
    case 'weighted':
      // Models without a weight stand by: they share the traffic only when no weighted one is left.
      return normalised(models.map((model) => (Object.hasOwn(how.weights, model) ? (how.weights[model] ?? 0) : 0)))
    case 'softmax': {
      const best = Math.max(...scores)
      return normalised(scores.map((score) => Math.exp((score - best) / how.temperature)))
    }
  }
}

const normalised = (weights: readonly number[]): number[] => {
  const sum = weights.reduce((total, weight) => total + weight, 0)
  return weights.map((weight) => (sum > 0 ? weight / sum : 1 / weights.length))
}

/** The index into which `u` in [0, 1) falls; never one of probability 0. */
const pick = (probabilities: readonly number[], u: number): number => {
  let sum = 0
  let last = 0
  for (let index = 0; index < probabilities.length; index++) {
    const probability = probabilities[index] as number
    if (probability <= 0) continue
    sum += probability
    last = index
    if (u < sum) return index
  }
  return last
}

/** The choice first, then the best of the rest by score (by probability where there is none), within the attempt budget. */
const planOf = (body: Body, models: readonly string[], scores: readonly number[], choice: Choice): string[] => {
  const sign = body.choose.kind === 'lowest' ? -1 : 1
  const rank = (index: number): number =>
    body.score ? sign * (scores[index] ?? 0) : (choice.probabilities[index] ?? 0)
  const plan: string[] = []
  let next = choice.index
  while (next >= 0) {
    plan.push(models[next] as string)
    if (plan.length === body.attemptsMax) break
    next = -1
    for (let index = 0; index < models.length; index++)
      if (!plan.includes(models[index] as string) && (next < 0 || rank(index) > rank(next))) next = index
  }
  return plan
}
