// Adds a chunk to what the log shows whoever the candidate is: whether its probabilities can be true, arm by arm, and how well
// the outcome model predicts.
import { type MetricName, metricCount, metricNames, metrics } from '../estimate/metrics.ts'
import { add } from '../estimate/terms.ts'
import type { Chunk, Fit } from './chunk.ts'
import { calibrationBins, type LogTally } from './tallies.ts'

export const tallyLog = (fit: Fit, chunk: Chunk, order: Int32Array, tally: LogTally): void => {
  const { armNames, clusters } = fit.survey
  const arms = armNames.length
  for (const at of order) {
    addArms(chunk, at, 0, chunk.keep[at] as number, arms, clusters.groupCount, tally)
    for (let metric = 0; metric < metricCount; metric++) {
      const r = chunk.outcomes[at * metricCount + metric] as number
      if (!fit.models[metric] || Number.isNaN(r)) continue
      const arm = chunk.arm[at] as number
      const k = (chunk.keep[at] as number) * (fit.keepRatio[metric * arms + arm] as number)
      if (fit.isPartial[metric]) addArms(chunk, at, metric + 1, k, arms, clusters.groupCount, tally)
      addCalibration(metric, chunk.expected[(chunk.chosen[at] as number) * metricCount + metric] as number, r, k, tally)
    }
  }
}

/** For each arm that could have been drawn: 1{a} / π_b, which is 1 on average if the logged probabilities are true. */
const addArms = (
  chunk: Chunk,
  at: number,
  variant: number,
  k: number,
  arms: number,
  groups: number,
  { arms: sums, armScalars }: LogTally,
): void => {
  const place = (variant * groups + (chunk.group[at] as number)) * arms
  const last = chunk.offset[at + 1] as number
  for (let entry = chunk.offset[at] as number; entry < last; entry++) {
    const probability = chunk.production[entry] as number
    if (probability === 0) continue
    const arm = chunk.entryArm[entry] as number
    if (entry === chunk.chosen[at]) add(sums, (place + arm) * 2, k / probability)
    add(sums, (place + arm) * 2 + 1, k)
    const scalars = (variant * arms + arm) * 3
    add(armScalars, scalars, (k * k * (1 - probability)) / probability)
    add(armScalars, scalars + 1, k)
    add(armScalars, scalars + 2, probability)
  }
}

const addCalibration = (metric: number, q: number, r: number, k: number, { calibration }: LogTally): void => {
  const place = (metric * calibrationBins + binOf(q, metricNames[metric] as MetricName)) * 3
  add(calibration, place, k * q)
  add(calibration, place + 1, k * r)
  add(calibration, place + 2, k)
}

/** Where an amount's bins begin, in powers of two: at a quarter of a millionth of a dollar, at a millisecond. */
export const firstOctave: Readonly<Partial<Record<MetricName, number>>> = { cost_usd: -22 }

/** Shares in equal steps, amounts in powers of two. */
const binOf = (q: number, metric: MetricName): number => {
  const bin =
    metrics[metric].range !== null
      ? Math.floor(q * calibrationBins)
      : Math.floor(Math.log2(Math.max(q, Number.MIN_VALUE))) - (firstOctave[metric] ?? 0)
  return Math.max(0, Math.min(calibrationBins - 1, bin))
}
