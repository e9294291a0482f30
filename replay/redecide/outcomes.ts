// What came of a decision, as numbers: one a metric. Quality alone may have two sources, people and a judge model, whose scores
// are summed in the first look at a log, so that the second can correct the judge by people.
import type { DecisionRecord } from '../../router/policy/record.ts'
import { type Horizon, qualityWithin } from '../estimate/feedback.ts'
import { metricNames, metrics, type Objective } from '../estimate/metrics.ts'
import {
  addJudged,
  type JudgeSums,
  type Judging,
  judgeSums,
  judgingOf,
  qualityBy,
} from '../estimate/prediction-powered.ts'

const qualityAt = metricNames.indexOf('quality')

const numberOf = (value: number | null | undefined): number => value ?? Number.NaN

/** Both opinions on quality, by arm in the order of first sight. */
export const startOpinions = (horizon: Horizon | null) => {
  const arms: JudgeSums[] = []
  let byPeople = 0
  return {
    add: (record: DecisionRecord, arm: number): void => {
      const human = qualityWithin(record, horizon)
      byPeople += Number(!Number.isNaN(human))
      const judge = numberOf(record.outcome?.quality_judge)
      if (Number.isNaN(judge)) return
      arms[arm] ??= judgeSums()
      addJudged(arms[arm], judge, human)
    },
    close: (count: number, armOf: readonly number[], { trustJudge = false }: Objective): Judging | null => {
      const sorted = Array.from({ length: count }, judgeSums)
      arms.forEach((sums, arm) => {
        sorted[armOf[arm] ?? 0] = sums
      })
      return judgingOf(sorted, byPeople, trustJudge)
    },
  }
}

/** Reads all metrics of a record, from place `from` on; NaN where not known. `arm` is its choice. */
export const readOutcomes = (
  { objective, judging }: { readonly objective: Objective; readonly judging: Judging | null },
  record: DecisionRecord,
  arm: number,
  outcomes: Float64Array,
  from = 0,
): void => {
  for (const [at, name] of metricNames.entries()) outcomes[from + at] = metrics[name].read(record, objective)
  const judge = numberOf(record.outcome?.quality_judge)
  if (!judging || Number.isNaN(judge)) return
  outcomes[from + qualityAt] = qualityBy(judging, arm, judge, outcomes[from + qualityAt] as number)
}
