// `signalbox replay power`: what it would take to know, printed before anybody explores or pays. Always exits 0 when a plan could
// be made: it judges nothing.
import { type Command, Option } from 'commander'
import { momentOf } from '../estimate/feedback.ts'
import type { Goal } from '../judge/gate.ts'
import {
  type CandidateOptions,
  candidateCommand,
  exitWith,
  number,
  readLog,
  withFeedbackHorizon,
} from '../log-command.ts'
import { type Needed, type Power, power, type RatePlan, withOpinions } from './plan.ts'

const defaults = { margin: 0.02, seed: 7 }
const goals: Readonly<Record<'cost' | 'latency' | 'quality', Goal>> = {
  cost: 'cost_usd',
  latency: 'latency_ms',
  quality: 'quality',
}

type Options = CandidateOptions & {
  readonly goal: keyof typeof goals
  readonly margin: number
  readonly rowsPerDay?: number
  readonly feedbackWithin?: number
  readonly trustJudge?: true
  readonly json?: true
}

/** The command; `replay` mounts it. */
export const powerCommand = (): Command =>
  withFeedbackHorizon(candidateCommand('power'))
    .description('Plan exploration and re-execution: how many requests, days and dollars an answer will take.')
    .addOption(new Option('--goal <metric>', 'what is to get better').choices(Object.keys(goals)).default('cost'))
    .option(
      '--margin <amount>',
      'how closely the difference in quality is to be known',
      number('a number above 0 and up to 1', 0, 1),
      defaults.margin,
    )
    .option('--trust-judge', "take a judge model's word for quality where no person scored the answer")
    .option('--rows-per-day <count>', 'the traffic to come; by default as in the log', number('a number above 0', 0))
    .option('--json', 'print everything as JSON')
    .addHelpText(
      'after',
      '\nExample:\n  signalbox replay power --policy candidate.yaml --margin 0.01 --rows-per-day 50000',
    )
    .action(exitWith(run))

const run = async (options: Options): Promise<number> => {
  const { margin, goal, rowsPerDay = null, feedbackWithin: withinMs } = options
  const { records, candidate } = await readLog({ ...options, feedbackTimes: withinMs !== undefined })
  const untilMs = records.reduce((lastMs, record) => Math.max(lastMs, momentOf(record)), -Infinity)
  const opinions = {
    horizon: withinMs === undefined ? null : { withinMs, untilMs },
    trustJudge: options.trustJudge === true,
  }
  const plan = power(withOpinions(records, opinions), candidate, {
    margin,
    goal: goals[goal],
    rowsPerDay,
    seed: defaults.seed,
    prices: new Map(),
    judge: null,
  })
  process.stdout.write(options.json ? `${JSON.stringify(plan, null, 2)}\n` : powerText(plan))
  return 0
}

const count = (value: number): string => Math.round(value).toLocaleString('en-US')
const usdText = (usd: number): string => `${usd < 0 ? '−' : ''}$${Math.abs(usd).toFixed(Math.abs(usd) < 1 ? 4 : 2)}`
const daysText = (days: number): string => (days < 10 ? days.toFixed(1) : count(days))

const neededText = (needed: Needed | null): string => {
  if (needed === null) return '—'
  if (needed.rows === null) return 'never'
  return needed.days === null ? count(needed.rows) : `${count(needed.rows)} (${daysText(needed.days)} d)`
}

const columns: readonly { readonly title: string; readonly read: (plan: RatePlan, power: Power) => string }[] = [
  { title: 'explored', read: ({ rate }) => (rate === 0 ? 'as logged' : `+${(rate * 100).toFixed(1)} %`) },
  { title: 'until ESS suffices', read: ({ untilEss }) => neededText(untilEss) },
  { title: 'until quality ± margin', read: ({ untilMargin }) => neededText(untilMargin) },
  { title: 'until the goal shows', read: ({ untilGoal }) => neededText(untilGoal) },
  {
    title: 'dollars it costs by then',
    read: ({ regretUsdUntilMargin: usd }) => (usd === null ? '—' : usdText(usd)),
  },
  { title: 'quality lost a request', read: ({ regretQuality }) => regretQuality.toFixed(5).replace('-', '−') },
]

/** The plan as a table; requests, with days in brackets. */
export const powerText = (plan: Power): string => {
  const lines = [
    columns.map(({ title }) => title),
    ...plan.rates.map((rate) => columns.map(({ read }) => read(rate, plan))),
  ]
  const widths = columns.map((_, at) => Math.max(...lines.map((line) => line[at]?.length ?? 0)))
  const table = lines.map((line) => line.map((cell, at) => cell.padStart(widths[at] ?? 0)).join('   '))
  const { reexecution, margin, rows, rowsPerDay, changedShare } = plan
  const { answers, usd, halfWidth, reaches, changed, askable } = reexecution
  const traffic = rowsPerDay === null ? '' : `, ${count(rowsPerDay)} a day`
  const asking =
    askable === 0
      ? `the cost of none of the ${count(changed)} changed decisions is predicted`
      : `${count(answers)} of ${count(changed)} changed decisions asked anew, ${usdText(usd)}, give ±${halfWidth.toFixed(4)}${reaches ? '' : ', and more than this log it cannot give'}`
  return [
    `from ${count(rows)} requests${traffic}; the candidate decides ${(100 * changedShare).toFixed(1)} % otherwise; margin ${margin}`,
    '',
    ...table,
    '',
    'a verdict needs the larger of the three; exploration is planned as drawn per request',
    `or re-execution: ${asking}`,
    '',
  ].join('\n')
}
