// What a policy decides: pure, total, and recorded in full. Every candidate gets an eligibility with its reason, a score
// and a probability; chance is a counter-based draw; ties break by model name. Nothing here reads a clock, rolls a die,
// opens a socket or looks at the environment, so the same context always gives the same bits.
import type { Expression, Scope } from './cel.ts'
import { draw } from './chance.ts'
import { type Choose, choose, type Explore, keyOf, normalised, nothingKnown, type Per, pick } from './choose.ts'
import {
  type Candidate,
  type Context,
  type Decision,
  type Exclusion,
  engineVersion,
  type Features,
  type Reason,
} from './record.ts'

/** One compiled strategy. */
export type Body = {
  readonly kind: 'body'
  /** The models it may choose; null for all. */
  readonly candidates: ReadonlySet<string> | null
  readonly filters: readonly { readonly name: string; readonly test: Expression }[]
  readonly score: Expression | null
  readonly choose: Choose
  readonly explore: Explore | null
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

/**
 * A decision before it is put into words, everything by the candidate's place: all that a replay adds up. To name it for a
 * record costs as much again.
 */
export type Judged = {
  /** Null where the candidate is eligible. */
  readonly exclusions: readonly (Exclusion | null)[]
  readonly scores: readonly (number | null)[]
  readonly probabilities: readonly number[]
  /** The place of the choice; −1 where nothing is eligible. */
  readonly chosen: number
  readonly reason: Reason
  readonly path: readonly string[]
  /** The judgement of the strategy that chose, by which the others follow the choice. */
  readonly ranked: { readonly body: Body } & Pick<Judged, 'exclusions' | 'scores' | 'probabilities'>
}

/** Decides one request under a compiled policy. */
export const decide = (root: Node, policy: Decision['policy'], context: Context): Decision => {
  const { name, hash } = policy
  const judged = judge(root, hash, context)
  const { exclusions, scores, probabilities, reason } = judged
  const candidates = context.candidates.map(({ model, features }, place): Candidate => {
    const exclusion = exclusions[place] as Exclusion | null
    const probability = probabilities[place] as number
    return { model, eligible: exclusion === null, exclusion, score: scores[place] ?? null, probability, features }
  })
  return {
    engine: engineVersion,
    policy: { name, hash },
    candidates,
    chosen: candidates[judged.chosen]?.model ?? null,
    explored: reason === 'explore',
    plan: planOf(judged, context.candidates),
    path: [...judged.path],
    reason,
    probability: probabilities[judged.chosen] ?? 0,
  }
}

/** The same decision without its words; `hash` is the policy's, by which chance goes, and `at` the way to the node. */
export const judge = (node: Node, hash: string, context: Context, at = ''): Judged => {
  switch (node.kind) {
    case 'body':
      return judgeBody(node, hash, context, at)
    case 'rules': {
      const scope: Scope = { context, model: '', features: {} }
      for (const rule of node.rules) {
        if (rule.when && !rule.when.run(scope)) continue
        const judged = judge(rule.use, hash, context, `${at}/rule:${rule.name}`)
        return { ...judged, path: [`rule:${rule.name}`, ...judged.path] }
      }
      throw new RangeError('a rules list without a last rule for all other requests cannot be loaded')
    }
    case 'split':
      return judgeSplit(node, hash, context, at)
  }
}

/**
 * The probability of a model is the share-weighted sum over the arms, because replay asks how likely the logged choice
 * was before any draw. An arm that can serve nothing passes its share on to the others. The drawn arm gives the rest.
 */
const judgeSplit = (node: Extract<Node, { kind: 'split' }>, hash: string, context: Context, at: string): Judged => {
  const judgements = node.arms.map((arm) => judge(arm.use, hash, context, `${at}/arm:${arm.name}`))
  const open = node.arms.map((arm, a) => (judgements[a]?.chosen === -1 ? 0 : arm.share))
  const shares = open.some((share) => share > 0) ? normalised(open) : node.arms.map((arm) => arm.share)
  const drawn = pick(shares, draw(keyOf(context, node.per), hash, `split:${at}`))
  const judged = judgements[drawn] as Judged
  const isOpen = (place: number) => judgements.some((arm, a) => arm.exclusions[place] === null && (shares[a] ?? 0) > 0)
  const probabilities = context.candidates.map((_, place) =>
    Math.min(
      1,
      judgements.reduce((sum, arm, a) => sum + (shares[a] ?? 0) * (arm.probabilities[place] as number), 0),
    ),
  )
  const exclusions = judged.exclusions.map((exclusion, place) => (isOpen(place) ? null : exclusion))
  return { ...judged, exclusions, probabilities, path: [`arm:${node.arms[drawn]?.name}`, ...judged.path] }
}

/** Every request passes here, in the router and a million times in a replay: plain loops, and nothing made twice. */
const judgeBody = (body: Body, hash: string, context: Context, at: string): Judged => {
  const { candidates: considered, request } = context
  const { places, models } = rosterOf(considered)
  const pinned = models.has(request.model)
  const count = considered.length
  const exclusions = new Array<Exclusion | null>(count)
  const scores = new Array<number | null>(count)
  const probabilities = new Array<number>(count)
  const scope = { context, model: '', features: nothingKnown }
  for (let place = 0; place < count; place++) {
    const { model, features } = considered[place] as Considered
    scope.model = model
    scope.features = features
    const excluded = exclusionOf(body, scope, pinned)
    const scored = excluded || !body.score ? null : scoreOf(body.score, scope)
    const isScore = typeof scored === 'number'
    exclusions[place] = excluded ?? (isScore || pinned ? null : scored)
    scores[place] = isScore ? scored : null
    probabilities[place] = 0
  }
  const open: number[] = []
  for (const place of places) if (exclusions[place] === null) open.push(place)
  const choice = choose(body, hash, context, at, open, scores)
  for (let index = 0; index < open.length; index++)
    probabilities[open[index] as number] = choice.probabilities[index] as number
  const reason: Reason =
    open.length === 0 ? 'none-eligible' : pinned ? 'pinned' : open.length === 1 ? 'only-candidate' : choice.reason
  const ranked = { body, exclusions, scores, probabilities }
  return { exclusions, scores, probabilities, chosen: open[choice.index] ?? -1, reason, path: noPath, ranked }
}

const noPath: readonly string[] = []

type Considered = Context['candidates'][number]

/** The candidates' places in the order of their models' names, by which ties break and chance is laid out; and these names. */
type Roster = {
  readonly listed: readonly string[]
  readonly places: readonly number[]
  readonly models: ReadonlySet<string>
}

const rosterOf = (considered: readonly Considered[]): Roster => {
  const { listed } = roster
  let at = 0
  while (at < considered.length && considered[at]?.model === listed[at]) at++
  if (at === considered.length && at === listed.length) return roster
  const places = considered.map((_, place) => place)
  places.sort((a, b) => ((considered[a] as Considered).model < (considered[b] as Considered).model ? -1 : 1))
  const models = considered.map(({ model }) => model)
  roster = { listed: models, places, models: new Set(models) }
  return roster
}
/** The one found last: most requests of a router, and of a log, consider the same models. */
let roster: Roster = { listed: [], places: [], models: new Set() }

const notRequested: Exclusion = { kind: 'not-requested' }
const notInPolicy: Exclusion = { kind: 'not-in-policy' }
const breakerOpen: Exclusion = { kind: 'breaker-open' }
const scoreNotFinite: Exclusion = { kind: 'score-not-finite' }

const exclusionOf = (body: Body, scope: Scope, pinned: boolean): Exclusion | null => {
  const { context, model, features } = scope
  if (pinned && model !== context.request.model) return notRequested
  if (!pinned && body.candidates && !body.candidates.has(model)) return notInPolicy
  const needed = context.request.input_tokens + (context.request.output_tokens_max ?? 0)
  const { context_tokens_max: tokensMax } = features
  if (typeof tokensMax === 'number' && needed > tokensMax)
    return { kind: 'context-window', needed_tokens: needed, tokens_max: tokensMax }
  if (features.breaker === 'open') return breakerOpen
  for (const { name, test } of body.filters) {
    const unknown = unknownOf(test, features)
    if (unknown) return unknown
    if (!test.run(scope)) return { kind: 'rule', name }
  }
  return null
}

/** A candidate's score, or why it has none. A pinned model needs none: the client has chosen. */
const scoreOf = (score: Expression, scope: Scope): number | Exclusion => {
  const unknown = unknownOf(score, scope.features)
  if (unknown) return unknown
  const value = score.run(scope) as number
  return Number.isFinite(value) ? value : scoreNotFinite
}

const unknownOf = (expression: Expression, features: Features): Exclusion | null => {
  const feature = expression.unknownOf(features)
  return feature === null ? null : { kind: 'feature-unknown', feature }
}

/** The choice first, then the best of the rest by score (by probability where there is none), within the attempt budget. */
export const planOf = ({ chosen, ranked }: Judged, considered: readonly Considered[]): string[] => {
  const { body, exclusions, scores, probabilities } = ranked
  const sign = body.choose.kind === 'lowest' ? -1 : 1
  const rank = (place: number): number => (body.score ? sign * (scores[place] ?? 0) : (probabilities[place] as number))
  const planned: number[] = []
  for (let next = chosen; next >= 0; ) {
    planned.push(next)
    if (planned.length === body.attemptsMax) break
    next = -1
    for (const place of rosterOf(considered).places)
      if (exclusions[place] === null && !planned.includes(place) && (next < 0 || rank(place) > rank(next))) next = place
  }
  return planned.map((place) => (considered[place] as Considered).model)
}
