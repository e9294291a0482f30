// The scores by which routers are compared in public: RouteLLM's, how many calls of the strong model buy how much of its
// lead, from its recorded answers to MMLU; and RouterArena's, a balance of accuracy and cost.
import { readFileSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
import { draw } from '../../router/policy/chance.ts'
import { type Figure, type FigureSource, figure } from './figure.ts'

const dataFile = new URL('../data/routellm_mmlu.csv.gz', import.meta.url)
/** RouteLLM looks at thresholds that send 0, 10, …, 100 % of calls to the strong model. */
const steps = 10
const randomRuns = 10

type Answers = { readonly weak: readonly number[]; readonly strong: readonly number[] }
/** Accuracy in percent when 0, 10, …, 100 % of calls go to the strong model. */
type AccuracyCurve = readonly number[]

/** The strong calls, in percent, at which a router first has `share` of the strong model's lead (CPT). */
const callsFor = (curve: AccuracyCurve, weak: number, strong: number, share: number): number => {
  const wanted = weak + share * (strong - weak)
  const after = curve.findIndex((accuracy) => accuracy >= wanted)
  const [low = 0, high = 0] = [curve[after - 1], curve[after]]
  return after < 1 ? 0 : (100 / steps) * (after - 1 + (wanted - low) / (high - low))
}

/** (AUC − AUC_weak) / (AUC_strong − AUC_weak) by trapezoids: the average performance gap recovered (APGR). */
const gapRecovered = (curve: AccuracyCurve, weak: number, strong: number): number => {
  const area = curve.slice(1).reduce((sum, accuracy, at) => sum + (accuracy + (curve[at] ?? 0)) / 2 / steps, 0)
  return (area - weak) / (strong - weak)
}

const readAnswers = (): Answers => {
  const lines = gunzipSync(readFileSync(dataFile)).toString().trimEnd().split('\n').slice(1)
  const clean = lines.map((line) => line.split(',')).filter(([contaminated]) => contaminated === '0')
  return { weak: clean.map(([, weak]) => Number(weak)), strong: clean.map(([, , strong]) => Number(strong)) }
}

const percent = (hits: readonly number[]): number => (100 * hits.reduce((sum, hit) => sum + hit, 0)) / hits.length

/** Rows in the order in which they are given to the strong model, as the share of strong calls grows. */
const curveOf = ({ weak, strong }: Answers, order: readonly number[]): AccuracyCurve => {
  const gained = [0]
  for (const [at, row] of order.entries()) gained.push((gained[at] ?? 0) + (strong[row] ?? 0) - (weak[row] ?? 0))
  const base = percent(weak)
  return Array.from(
    { length: steps + 1 },
    (_, step) => base + (100 * (gained[Math.round((step * order.length) / steps)] ?? 0)) / order.length,
  )
}

/** RouteLLM's oracle: strong calls are spent only on questions that the strong model alone gets right. */
const oracleCurve = ({ weak, strong }: Answers): AccuracyCurve => {
  const rows = weak.length
  const gain = weak.filter((hit, row) => hit === 0 && strong[row] === 1).length
  return Array.from(
    { length: steps + 1 },
    (_, step) => percent(weak) + (100 * Math.min(gain, (step / steps) * rows)) / rows,
  )
}

const randomOrder = (rows: number, run: number): number[] => {
  const lots = Float64Array.from({ length: rows }, (_, row) => draw(String(row), 'random router', String(run)))
  return Array.from(lots.keys()).sort((a, b) => (lots[a] ?? 0) - (lots[b] ?? 0))
}

/** Ong et al. 2024, arXiv 2406.18665v4, the table for MMLU; the oracle by the code of its repository. */
export const routeLlmFigures = (): Figure[] => {
  const answers = readAnswers()
  const [weak, strong] = [percent(answers.weak), percent(answers.strong)]
  const curves = Array.from({ length: randomRuns }, (_, run) => curveOf(answers, randomOrder(answers.weak.length, run)))
  const averageOf = (read: (curve: AccuracyCurve) => number) =>
    curves.reduce((sum, curve) => sum + read(curve), 0) / randomRuns
  const oracle = oracleCurve(answers)
  const line = (name: string, source: FigureSource, expected: number, ours: number, decimals: number, tolerance = 0) =>
    figure({ group: 'RouteLLM', name, source, expected, ours, decimals, tolerance })
  // One random router's CPT has a standard error of 1.6 by the binomial law of 14,037 rows, the mean of ten 0.5, and the
  // difference of two such means 0.7.
  return [
    line('GPT-4, % correct', 'published', 80.587, strong, 3),
    line('Mixtral 8x7B, % correct', 'published', 68.091, weak, 3),
    line(
      'random, mean of 10: CPT(50 %)',
      'published',
      50.07,
      averageOf((curve) => callsFor(curve, weak, strong, 0.5)),
      2,
      1.4,
    ),
    line(
      'random, mean of 10: CPT(80 %)',
      'published',
      79.93,
      averageOf((curve) => callsFor(curve, weak, strong, 0.8)),
      2,
      1.4,
    ),
    line(
      'random, mean of 10: APGR',
      'published',
      0.5,
      averageOf((curve) => gapRecovered(curve, weak, strong)),
      3,
      0.014,
    ),
    line('oracle: CPT(50 %)', 'computed', 6.25, callsFor(oracle, weak, strong, 0.5), 2),
    line('oracle: CPT(80 %)', 'computed', 10, callsFor(oracle, weak, strong, 0.8), 1),
    line('oracle: APGR', 'computed', 1.2896, gapRecovered(oracle, weak, strong), 4),
  ]
}

/** S = (1 + β) A C / (β A + C) in percent, C = log(200 / cost) / log(200 / 0.0044), cost in USD per 1,000 requests, β = 0.1. */
const arenaScore = (accuracyPercent: number, costUsd: number): number => {
  const [beta, costMostUsd, costLeastUsd] = [0.1, 200, 0.0044]
  const accuracy = accuracyPercent / 100
  const thrift = Math.log(costMostUsd / costUsd) / Math.log(costMostUsd / costLeastUsd)
  return (100 * (1 + beta) * accuracy * thrift) / (beta * accuracy + thrift)
}

/** What is printed with two digits may be off by half of the last. */
const printed = 0.005

/**
 * RouterArena's leaderboard: accuracy in percent and cost as printed there, and the score it makes of them. The score may be
 * as far off as the rounding of all three allows.
 */
export const routerArenaFigures = (): Figure[] =>
  (
    [
      ['MIRT-BERT', 66.88, 0.15, 66.89],
      ['GPT-5', 73.96, 10.02, 64.32],
      ['NotDiamond', 60.83, 4.1, 57.29],
    ] as const
  ).map(([name, accuracy, cost, expected]) => {
    const ours = arenaScore(accuracy, cost)
    const tolerance = arenaScore(accuracy + printed, cost - printed) - ours + printed
    return figure({
      group: 'RouterArena',
      name: `${name} score`,
      source: 'published',
      expected,
      ours,
      decimals: 2,
      tolerance,
    })
  })
