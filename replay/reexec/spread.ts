// What a log says of each model's outcomes before anything is estimated: their mean and their spread, for planning. No request is
// told from another here, so the spread errs to the large side, and a plan made from it asks for rather too much.
import type { DecisionRecord } from '../../router/policy/record.ts'

/** A model with fewer outcomes says nothing of its own; then all of them stand for it. */
const outcomesMin = 10

export type Spread = { readonly mean: number; readonly sd: number }

const spreadOf = (values: readonly number[]): Spread => {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length
  return { mean, sd: Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length) }
}

/** Outcomes by the chosen model; `read` gives NaN for one that is not known. `unknown` is for a log without any. */
export const spreads = (
  records: readonly DecisionRecord[],
  read: (record: DecisionRecord) => number,
  unknown: Spread,
  sdFloor: number,
): ((model: string | null) => Spread) => {
  const byModel = new Map<string | null, number[]>()
  const all: number[] = []
  for (const record of records) {
    const value = read(record)
    if (Number.isNaN(value)) continue
    const values = byModel.get(record.chosen) ?? []
    byModel.set(record.chosen, values)
    values.push(value)
    all.push(value)
  }
  const floored = (values: readonly number[]): Spread => {
    const { mean, sd } = spreadOf(values)
    return { mean, sd: Math.max(sdFloor, sd) }
  }
  const pooled = all.length >= outcomesMin ? floored(all) : unknown
  const known = new Map(
    Array.from(byModel, ([model, values]) => [model, values.length >= outcomesMin ? floored(values) : pooled]),
  )
  return (model) => known.get(model) ?? pooled
}

/** Of quality: where nothing is known, the widest that values between 0 and 1 can have; never none at all. */
export const qualitySpreads = (records: readonly DecisionRecord[]): ((model: string | null) => Spread) =>
  spreads(records, ({ outcome }) => outcome?.quality ?? Number.NaN, { mean: 0.5, sd: 0.5 }, 0.1)
