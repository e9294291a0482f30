// Other people's numbers, computed with the estimators that every replay uses, so that a sceptic can check the statistics in
// a second. The data are Open Bandit Pipeline 0.5.4's synthetic quickstart, 100,000 rounds made from its definition, the
// model columns rounded to five decimals.
import { readFileSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
import { accumulate, dm, dr, ips, type Row } from './estimate/estimators.ts'

const dataFile = new URL('data/obp_quickstart.csv.gz', import.meta.url)
const armCount = 10
const decimals = 6

export type SelfTest = {
  readonly name: string
  readonly published: number
  readonly ours: number
  readonly ok: boolean
}

/** The quickstart's table: a policy's true value, and each estimate's relative error |estimate − truth| / truth. */
const published = {
  lr: { title: 'IPW-LR', truth: 0.7976472840228, ips: 0.005126, dm: 0.250047, dr: 0.004002 },
  rf: { title: 'IPW-RF', truth: 0.7246527951246, ips: 0.010095, dm: 0.181911, dr: 0.00512 },
  unif: { title: 'uniform', truth: 0.4999098979106, ips: 0.001533, dm: 0.054871, dr: 0.002189 },
} as const
type PolicyName = keyof typeof published

/** Computes the twelve published figures and compares them to six decimals. */
export const selfTest = (): SelfTest[] => {
  const lines = gunzipSync(readFileSync(dataFile))
    .toString()
    .trimEnd()
    .split('\n')
    .map((line) => line.split(','))
  const header = lines.shift() ?? []
  const column = (name: string) => {
    const at = header.indexOf(name)
    return Float64Array.from(lines, (cells) => Number(cells[at]))
  }
  const log = {
    action: column('action'),
    reward: column('reward'),
    pscore: column('pscore'),
    fitted: column('qhat_logged'),
  }
  return (Object.keys(published) as PolicyName[]).flatMap((policy) => {
    const { title, ...figures } = published[policy]
    const truth = mean(column(`q_${policy}`))
    const chosen = policy === 'unif' ? null : column(`${policy}_action`)
    const rows = rowsOf(log, column(`qhat_${policy}`), chosen)
    const error = (estimator: typeof ips) => Math.abs(accumulate(rows, estimator).close().value - truth) / truth
    return [
      compare(`OBP ${title} true value`, figures.truth, truth),
      compare(`OBP ${title} IPW relative error`, figures.ips, error(ips)),
      compare(`OBP ${title} DM relative error`, figures.dm, error(dm)),
      compare(`OBP ${title} DR relative error`, figures.dr, error(dr)),
    ]
  })
}

const compare = (name: string, wanted: number, ours: number): SelfTest => ({
  name,
  published: wanted,
  ours,
  ok: wanted.toFixed(decimals) === ours.toFixed(decimals),
})

const mean = (values: Float64Array): number => values.reduce((sum, value) => sum + value, 0) / values.length

type Log = Readonly<Record<'action' | 'reward' | 'pscore' | 'fitted', Float64Array>>

/** The log as rows under one policy: the action it chooses in each round, or null for the uniform one. */
const rowsOf = (
  { action, reward, pscore, fitted }: Log,
  fittedCandidate: Float64Array,
  chosen: Float64Array | null,
): Row[] =>
  Array.from(action, (taken, cluster): Row => {
    const probability = chosen === null ? 1 / armCount : Number(chosen[cluster] === taken)
    return {
      cluster,
      keepWeight: 1,
      reward: reward[cluster] ?? 0,
      weight: probability / (pscore[cluster] ?? 1),
      fitted: fitted[cluster] ?? 0,
      fittedCandidate: fittedCandidate[cluster] ?? 0,
      fittedProduction: 0,
      unsupported: 0,
      fittedUnsupported: 0,
    }
  })
