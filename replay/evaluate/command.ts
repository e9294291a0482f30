// `signalbox evaluate`: rules and judges over captured answers, once or for ever. 0 when nothing is left to judge, 4 when a cap
// was reached (what was done is stored), 64 for a file of evaluators that is none.
import { Command, Option } from 'commander'
import { progressBar } from '../log-command.ts'
import { linesOf } from '../promote/lines.ts'
import { judgeMost } from '../reexec/judge.ts'
import { usdOf } from '../reexec/plan.ts'
import { type EvaluateStop, type EvaluateSummary, evaluate } from './run.ts'
import { type EvaluateSettings, loadEvaluators } from './settings.ts'
import { openEvaluationStore } from './store.ts'

const budgetExitCode = 4
const cacheDefault = '.signalbox/evaluate'
/** A guess at what a judge is told beside the texts, and at what it says, for the estimate alone. */
const guess = { promptTokens: 200, answerTokens: 60, bytesPerToken: 4 }

type Options = {
  readonly config: string
  readonly cache: string
  readonly source?: string
  readonly collector?: string
  readonly follow?: boolean
  readonly again?: boolean
  readonly dryRun?: boolean
  readonly json?: boolean
}

type Estimate = {
  readonly evaluators: readonly {
    readonly name: string
    readonly answers: number
    readonly usd: number
    readonly usd_most: number
  }[]
  readonly spent_today_usd: number
  readonly budget_usd_per_day: number
}

const estimateOf = async (settings: EvaluateSettings, again: boolean): Promise<Estimate> => {
  const store = openEvaluationStore(settings, again)
  const price = {
    input: settings.judge?.price.input_usd_per_mtok ?? 0,
    output: settings.judge?.price.output_usd_per_mtok ?? 0,
  }
  const options = { model: '', price, repeatShare: 0, seed: 0 }
  try {
    const open = new Map((await store.open()).map((row) => [row.name, row]))
    const evaluators = settings.evaluators.map(({ name, kind }) => {
      const { answers = 0, bytes = 0 } = open.get(name) ?? {}
      if ('rule' in kind) return { name, answers, usd: 0, usd_most: 0 }
      const inputTokens =
        bytes / guess.bytesPerToken + answers * (guess.promptTokens + kind.rubric.length / guess.bytesPerToken)
      const most =
        judgeMost('', 0, false, options).usd * answers + usdOf(price, bytes + answers * kind.rubric.length, 0)
      return { name, answers, usd: usdOf(price, inputTokens, answers * guess.answerTokens), usd_most: most }
    })
    return {
      evaluators,
      spent_today_usd: await store.spentTodayUsd(),
      budget_usd_per_day: settings.budget.usd_per_day,
    }
  } finally {
    await store.close()
  }
}

const usdText = (usd: number): string => `$${usd.toFixed(4)}`

const estimateText = ({ evaluators, spent_today_usd: spent, budget_usd_per_day: budget }: Estimate): string =>
  linesOf([
    ...evaluators.map(
      ({ name, answers, usd, usd_most: most }) =>
        `${name}: ${answers} answers to judge${most > 0 ? `, about ${usdText(usd)}, ${usdText(most)} at most` : ''}`,
    ),
    `${usdText(spent)} of today's ${usdText(budget)} are spent`,
  ])

const stopWords: Readonly<Record<EvaluateStop, string>> = {
  done: 'done: nothing is left to judge',
  stopped: 'stopped',
  budget: "stopped: the rest of today's budget could not pay for another judgement",
  calls: 'stopped: no calls are left',
  minutes: 'stopped: the time is up',
}

const summaryText = ({ stop, stored, failed, calls, spentUsd, scores }: EvaluateSummary): string =>
  linesOf([
    stopWords[stop],
    `${stored} judgements stored, ${failed} without one; ${calls} calls, ${usdText(spentUsd)} spent`,
    ...scores.map(({ name, count, mean }) => `  ${name}: ${mean.toFixed(3)} on average of ${count}`),
  ])

const print = (text: string): void => void process.stdout.write(text)

const run = async (options: Options): Promise<number> => {
  const { config, cache, source, collector, follow = false, again = false, dryRun = false, json = false } = options
  // biome-ignore lint/style/noProcessEnv: keys come from the environment and from nowhere else.
  const file = await loadEvaluators(config, process.env)
  const settings = { ...file, ...(source ? { source } : {}), ...(collector ? { collector } : {}) }
  if (dryRun) {
    const estimate = await estimateOf(settings, again)
    print(json ? `${JSON.stringify(estimate)}\n` : estimateText(estimate))
    return 0
  }
  const stop = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => stop.abort())
  // As a part of `up` it ends with it, whatever became of that.
  process.once('disconnect', () => stop.abort())
  process.send?.({})
  const bar = progressBar('evaluating: {value} stored  {spent} spent')
  bar?.start(0, 0, { spent: usdText(0) })
  const onProgress = (stored: number, spentUsd: number): void => bar?.update(stored, { spent: usdText(spentUsd) })
  const onTrouble = ({ message }: Error): void =>
    void process.stderr.write(`signalbox evaluate: ${message}; trying on\n`)
  const how = { follow, again, cacheFolder: cache, signal: stop.signal, onProgress, onTrouble }
  const summary = await evaluate(settings, how).finally(() => bar?.stop())
  if (process.connected) process.disconnect?.()
  const { spentUsd, ...rest } = summary
  print(json ? `${JSON.stringify({ ...rest, spent_usd: spentUsd })}\n` : summaryText(summary))
  return summary.stop === 'done' || summary.stop === 'stopped' ? 0 : budgetExitCode
}

export const evaluateCommand = (): Command =>
  new Command('evaluate')
    .description(
      'Judges captured answers by rules and by a judge model, within a budget, and stores the scores as feedback.',
    )
    .option('-c, --config <file>', 'the evaluators', 'evaluators.yaml')
    .option('--follow', 'go on with what is captured later, until stopped')
    .addOption(new Option('--again', 'judge also what was judged before').conflicts('follow'))
    .option('--dry-run', 'only say how much there is to judge, and what it may cost')
    .option('--cache <folder>', "where a judge's answers are kept", cacheDefault)
    .option('--source <url>', 'where ClickHouse answers, in place of `source` in the file')
    .option('--collector <url>', 'where scores go, in place of `collector` in the file')
    .option('--json', 'print as JSON')
    .addHelpText('after', '\nExample:\n  signalbox evaluate --config evaluators.yaml --dry-run')
    .action(async (options: Options) => {
      process.exitCode = await run(options)
    })
