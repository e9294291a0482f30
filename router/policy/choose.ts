// How one of the eligible is chosen: every probability in closed form, and the choice by counter-based draws among them. What is
// eligible and what each scores is decided in decide.ts; here they are places in the list of candidates, in the order of their names.
import type { Expression } from './cel.ts'
import { draw } from './chance.ts'
import type { Context, Features, Reason } from './record.ts'

export type Per = 'request' | 'session' | 'user' | 'tenant'
export type Choose =
  | { readonly kind: 'highest' }
  | { readonly kind: 'lowest' }
  | { readonly kind: 'weighted'; readonly weights: Readonly<Record<string, number>>; readonly per: Per }
  | { readonly kind: 'softmax'; readonly temperature: number; readonly per: Per }
export type Explore = {
  readonly rate: number
  readonly floor: number
  readonly per: Per
  readonly unless: Expression | null
}
/** As much of a strategy as chooses. */
type Chooser = { readonly choose: Choose; readonly explore: Explore | null }
type Scores = readonly (number | null)[]

/** The features of a candidate where only the request is asked about. */
export const nothingKnown: Features = {}

/** Who draws. */
export const keyOf = (context: Context, per: Per): string => {
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

type Choice = { readonly index: number; readonly probabilities: readonly number[]; readonly reason: Reason }

/** The choice among the eligible, whose places are `open`, sorted by model; every probability in closed form. */
export const choose = (
  { choose: how, explore }: Chooser,
  hash: string,
  context: Context,
  at: string,
  open: readonly number[],
  scores: Scores,
): Choice => {
  const count = open.length
  if (count <= 1) return { index: count - 1, probabilities: certainty, reason: how.kind }
  const base = baseProbabilities(how, context.candidates, open, scores)
  const rate = explorationRate(explore, context, count)
  const probabilities = rate > 0 ? base.map((p) => (1 - rate) * p + rate / count) : base
  if (explore && rate > 0) {
    const key = keyOf(context, explore.per)
    if (draw(key, hash, `explore:${at}`) < rate)
      return { index: Math.floor(draw(key, hash, `explore-arm:${at}`) * count), probabilities, reason: 'explore' }
  }
  const certain = base.indexOf(1)
  const per = 'per' in how ? how.per : 'request'
  const index = certain >= 0 ? certain : pick(base, draw(keyOf(context, per), hash, `choose:${at}`))
  return { index, probabilities, reason: how.kind }
}

const certainty: readonly number[] = [1]

/** Epsilon, raised so that every eligible model has at least the floor: `max(rate, floor × count)`, at most 1. */
const explorationRate = (explore: Explore | null, context: Context, count: number): number => {
  if (!explore || explore.unless?.run({ context, model: '', features: nothingKnown })) return 0
  return Math.min(1, Math.max(explore.rate, explore.floor * count))
}

const baseProbabilities = (
  how: Choose,
  considered: Context['candidates'],
  open: readonly number[],
  scores: Scores,
): number[] => {
  const scoreAt = (place: number): number => scores[place] ?? 0
  switch (how.kind) {
    case 'highest':
    case 'lowest': {
      const sign = how.kind === 'highest' ? 1 : -1
      const winner = open.reduce((best, place) => (sign * scoreAt(place) > sign * scoreAt(best) ? place : best))
      return open.map((place) => (place === winner ? 1 : 0))
    }
    case 'weighted':
      // Models without a weight stand by: they share the traffic only when no weighted one is left.
      return normalised(
        open.map((place) => {
          const { model } = considered[place] as Context['candidates'][number]
          return Object.hasOwn(how.weights, model) ? (how.weights[model] ?? 0) : 0
        }),
      )
    case 'softmax': {
      let best = -Infinity
      for (const place of open) best = Math.max(best, scoreAt(place))
      const weights = new Array<number>(open.length)
      for (let at = 0; at < open.length; at++)
        weights[at] = Math.exp((scoreAt(open[at] as number) - best) / how.temperature)
      return normalised(weights)
    }
  }
}

/** Shares of the whole; equal where there is no whole. */
export const normalised = (weights: readonly number[]): number[] => {
  let sum = 0
  for (const weight of weights) sum += weight
  const shares = new Array<number>(weights.length)
  for (let at = 0; at < weights.length; at++) shares[at] = sum > 0 ? (weights[at] as number) / sum : 1 / weights.length
  return shares
}

/** The index into which `u` in [0, 1) falls; never one of probability 0. */
export const pick = (probabilities: readonly number[], u: number): number => {
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
