// Open Bandit Pipeline 0.5.4's synthetic quickstart, 100,000 rounds made from its definition, through the estimators that every
// replay uses. Twelve figures its documentation prints; nine more were computed from the same rows with its own classes.
import { readFileSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
import { dm, dr, estimate, ips, type Ratio, type Row, sndr, snips, sumsOfRows } from '../estimate/estimators.ts'
import { type Figure, type FigureSource, figure } from './figure.ts'

const dataFile = new URL('../data/obp_quickstart.csv.gz', import.meta.url)
const armCount = 10

type Expected = Readonly<Record<'truth' | 'ips' | 'dm' | 'dr' | 'snips' | 'sndr' | 'ess', number>>

/** A policy's true value, the relative error |estimate − truth| / truth of each estimate, and the effective sample size. */
const expected = {
  lr: {
    title: 'IPW-LR',
    truth: 0.7976472840228,
    ips: 0.005126,
    dm: 0.250047,
    dr: 0.004002,
    snips: 0.003258,
    sndr: 0.00354,
    ess: 13_129.3,
  },
  rf: {
    title: 'IPW-RF',
    truth: 0.7246527951246,
    ips: 0.010095,
    dm: 0.181911,
    dr: 0.00512,
    snips: 0.003404,
    sndr: 0.003881,
    ess: 12_254.4,
  },
  unif: {
    title: 'uniform',
    truth: 0.4999098979106,
    ips: 0.001533,
    dm: 0.054871,
    dr: 0.002189,
    snips: 0.00171,
    sndr: 0.00218,
    ess: 96_101.7,
  },
} as const satisfies Readonly<Record<string, Expected & { readonly title: string }>>
type PolicyName = keyof typeof expected

export const openBanditFigures = (): Figure[] => {
  const column = readColumns()
  const log = {
    action: column('action'),
    reward: column('reward'),
    pscore: column('pscore'),
    fitted: column('qhat_logged'),
  }
  return (Object.keys(expected) as PolicyName[]).flatMap((policy) => {
    const chosen = policy === 'unif' ? null : column(`${policy}_action`)
    return compare(policy, mean(column(`q_${policy}`)), rowsOf(log, column(`qhat_${policy}`), chosen))
  })
}

const compare = (policy: PolicyName, truth: number, rows: readonly Row[]): Figure[] => {
  const wanted = expected[policy]
  const error = (value: number) => Math.abs(value - truth) / truth
  const sums = sumsOfRows(rows)
  const errorOf = (ratio: Ratio) => error(estimate(sums, ratio).value)
  const line = (name: string, source: FigureSource, theirs: number, ours: number, decimals = 6) =>
    figure({ group: 'OBP', name: `${wanted.title} ${name}`, source, expected: theirs, ours, decimals })
  return [
    line('true value', 'published', wanted.truth, truth),
    line('IPW relative error', 'published', wanted.ips, errorOf(ips)),
    line('DM relative error', 'published', wanted.dm, errorOf(dm)),
    line('DR relative error', 'published', wanted.dr, errorOf(dr)),
    line('SNIPS relative error', 'computed', wanted.snips, errorOf(snips)),
    line('SNDR relative error', 'computed', wanted.sndr, error(sndr(sums).value)),
    line('effective sample size', 'computed', wanted.ess, effectiveSize(rows), 1),
  ]
}

const readColumns = (): ((name: string) => Float64Array) => {
  const lines = gunzipSync(readFileSync(dataFile)).toString().trimEnd().split('\n')
  const cells = lines.map((line) => line.split(','))
  const header = cells.shift() ?? []
  return (name) => {
    const at = header.indexOf(name)
    return Float64Array.from(cells, (row) => Number(row[at]))
  }
}

const mean = (values: Float64Array): number => values.reduce((sum, value) => sum + value, 0) / values.length

/** (Σ w)² / Σ w² (Kish 1965). */
const effectiveSize = (rows: readonly Row[]): number => {
  let [sum, squares] = [0, 0]
  for (const { weight } of rows) {
    sum += weight
    squares += weight * weight
  }
  return sum ** 2 / squares
}

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
