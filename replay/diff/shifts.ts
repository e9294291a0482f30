// What sets the requests that change apart from those that do not: for every number that is known of a request or of a
// candidate, the means of both groups and how far apart they are. Running sums, so that two parts of a log add up.
import type { DecisionRecord } from '../../router/policy/record.ts'

const shiftsMax = 12
/** A feature known for fewer requests of either kind says nothing. */
const rowsMin = 20
/** A spread this small beside the mean is what the sums of a constant leave over. */
const spreadMin = 1e-9
/** Where neither group varies at all, they could not be farther apart; JSON has no infinity. */
const standardisedMax = 100

/** How changed requests differ from the others in one feature. */
export type FeatureShift = {
  /** `request.x`, or `x of model`. */
  readonly feature: string
  readonly changedMean: number
  readonly unchangedMean: number
  /** The difference in standard deviations. */
  readonly standardised: number
}

type Moments = { rows: number; sum: number; squares: number }
type Contrast = { readonly changed: Moments; readonly unchanged: Moments }
/** By whom a feature belongs to (a model; '' for the request), then by its name. */
export type Contrasts = Map<string, Map<string, Contrast>>

const contrastOf = (contrasts: Contrasts, owner: string, feature: string): Contrast => {
  const features = contrasts.get(owner) ?? new Map<string, Contrast>()
  const known = features.get(feature)
  if (known) return known
  const contrast = { changed: { rows: 0, sum: 0, squares: 0 }, unchanged: { rows: 0, sum: 0, squares: 0 } }
  contrasts.set(owner, features.set(feature, contrast))
  return contrast
}

/** Adds what is known of one request and its candidates. */
export const addFeatures = (
  contrasts: Contrasts,
  { request, candidates }: DecisionRecord,
  isChanged: boolean,
): void => {
  const tell = (owner: string, feature: string, value: number): void => {
    const contrast = contrastOf(contrasts, owner, feature)
    const moments = isChanged ? contrast.changed : contrast.unchanged
    moments.rows++
    moments.sum += value
    moments.squares += value * value
  }
  tell('', 'input_tokens', request.input_tokens)
  tell('', 'output_tokens_max', request.output_tokens_max ?? 0)
  tell('', 'stream', Number(request.stream))
  for (const { model, eligible, features } of candidates) {
    tell(model, 'eligible', Number(eligible))
    for (const feature in features) {
      const value = features[feature]
      if (typeof value === 'number') tell(model, feature, value)
    }
  }
}

/** Adds the sums of another part of the log. */
export const addContrasts = (to: Contrasts, from: Contrasts): void => {
  for (const [owner, features] of from)
    for (const [feature, contrast] of features) {
      const sums = contrastOf(to, owner, feature)
      for (const group of ['changed', 'unchanged'] as const) {
        sums[group].rows += contrast[group].rows
        sums[group].sum += contrast[group].sum
        sums[group].squares += contrast[group].squares
      }
    }
}

/** The features in which both groups differ most, first the farthest apart. */
export const shiftsOf = (contrasts: Contrasts): FeatureShift[] => {
  const shifts: FeatureShift[] = []
  for (const [owner, features] of contrasts)
    for (const [name, { changed, unchanged }] of features) {
      if (Math.min(changed.rows, unchanged.rows) < rowsMin) continue
      const feature = owner === '' ? `request.${name}` : `${name} of ${owner}`
      const [changedMean, unchangedMean] = [meanOf(changed), meanOf(unchanged)]
      const standardised = standardisedOf(changed, unchanged)
      if (standardised !== 0) shifts.push({ feature, changedMean, unchangedMean, standardised })
    }
  const size = ({ standardised }: FeatureShift): number => Math.abs(standardised)
  return shifts.sort((a, b) => size(b) - size(a) || (a.feature < b.feature ? -1 : 1)).slice(0, shiftsMax)
}

const meanOf = ({ rows, sum }: Moments): number => sum / rows
const squaresWithin = (of: Moments): number => Math.max(0, of.squares - of.rows * meanOf(of) ** 2)

/** The difference of the means over the standard deviation within the groups (Cohen 1988, d). */
const standardisedOf = (changed: Moments, unchanged: Moments): number => {
  const spread = Math.sqrt((squaresWithin(changed) + squaresWithin(unchanged)) / (changed.rows + unchanged.rows))
  const difference = meanOf(changed) - meanOf(unchanged)
  const rounding = spreadMin * Math.max(Math.abs(meanOf(changed)), Math.abs(meanOf(unchanged)))
  if (Math.abs(difference) <= rounding) return 0
  return Math.max(-standardisedMax, Math.min(standardisedMax, difference / spread))
}
