// `signalbox replay run`: a candidate policy on captured decisions, as text, JSON or a page, and the verdict as an exit code.
import { writeFile } from 'node:fs/promises'
import { type Command, Option } from 'commander'
import { type ConversationMode, conversationModes } from './judge/conversations.ts'
import type { Goal } from './judge/gate.ts'
import {
  type CandidateOptions,
  candidateCommand,
  example,
  exitWith,
  loadPolicy,
  nothingFound,
  number,
  policiesOf,
  withFeedbackHorizon,
  withProgress,
  withSource,
} from './log-command.ts'
import { SourceError } from './read/source.ts'
import { type Engine, engines, threadsMax } from './redecide/engine.ts'
import { readReexecuted } from './reexec/answers.ts'
import { reportHtml } from './report/html.ts'
import { reportText } from './report/text.ts'
import { type Replay, type ReplayOptions, replayDefaults, replaySource } from './run.ts'

const goals: Readonly<Record<string, Goal>> = { cost: 'cost_usd', latency: 'latency_ms', quality: 'quality' }
const replicatesMax = 10_000

/** How a candidate's replay is made, whoever judges it. */
export type ReplayOfOptions = CandidateOptions & {
  readonly threads?: number
  readonly checkpoint?: string
  readonly reexecuted?: string
  readonly engine?: Engine
}

type RunOptions = ReplayOfOptions & {
  readonly goal: string
  readonly margin: number
  readonly weightBound?: number
  readonly slowAboveMs?: number
  readonly replicates: number
  readonly seed: number
  readonly json?: boolean
  readonly html?: string
  readonly trustPropensities?: boolean
  readonly missingAtRandom?: boolean
  readonly trustJudge?: boolean
  readonly feedbackWithin?: number
  readonly conversations: ConversationMode
}

/** What a person may vouch for, and how conversations are taken. */
const withAssumptions = (command: Command): Command =>
  withFeedbackHorizon(command)
    .option('--trust-propensities', 'use decisions that cannot be verified, on your word; the report says so')
    .option(
      '--missing-at-random',
      'take requests without an outcome to be like the others, on your word; the report says so',
    )
    .option(
      '--trust-judge',
      "take a judge model's word for quality where people scored too few answers to correct it; the report says so",
    )
    .addOption(
      new Option(
        '--conversations <how>',
        'where sessions have several turns: keep them all and mark what rests on them, estimate on the first turn within the window only, or decline',
      )
        .choices(conversationModes)
        .default(replayDefaults.conversations),
    )

/** The answers of the candidate's own choices. */
export const withAnswers = (command: Command): Command =>
  command.option('--reexecuted <file>', 'what `replay reexec` wrote: metrics that its answers tell are judged by them')

export const runCommand = (): Command =>
  withAnswers(withAssumptions(candidateCommand('run')))
    .description(
      'Estimate a candidate policy on captured decisions and give a verdict (exit 0 promote, 1 reject, 2 undecided, 3 evidence invalid).',
    )
    .addOption(new Option('--goal <metric>', 'what must get better').choices(Object.keys(goals)).default('cost'))
    .option(
      '--margin <amount>',
      'how much quality, and the shares of failures and of given-up requests, may get worse',
      number('a number above 0 and below 1', 0, 1 - Number.EPSILON),
      replayDefaults.margin,
    )
    .option(
      '--slow-above-ms <ms>',
      'also compare the share of requests slower than this',
      number('a number above 0', 0),
    )
    .option(
      '--replicates <count>',
      'bootstrap replicates beside the formulas; 0 for none',
      number(`a whole number from 0 to ${replicatesMax}`, -1, replicatesMax, true),
      replayDefaults.replicates,
    )
    .option(
      '--weight-bound <weight>',
      'the largest importance weight that exploration allows, as 1 / floor; adds an interval that no distribution breaks',
      number('a number above 0', 0),
    )
    .option('--seed <number>', 'of the bootstrap', number('a whole number', -1, 2 ** 32, true), replayDefaults.seed)
    .option(
      '--threads <count>',
      'how many threads decide',
      number(`a whole number from 1 to ${threadsMax}`, 0, threadsMax, true),
    )
    .addOption(
      new Option(
        '--engine <name>',
        'where decisions are made again: in ClickHouse (sql), here (js), or in ClickHouse as long as it can say all of it (auto)',
      )
        .choices(engines)
        .default('auto'),
    )
    .option('--checkpoint <file>', 'keep progress here every million rows, and go on from it when started again')
    .option('--html <file>', 'also write the report as one HTML file')
    .option('--json', 'print everything as JSON')
    .addHelpText(
      'after',
      example('run --policy candidate.yaml --against balanced --from 2026-11-01 --html report.html'),
    )
    .action(exitWith(run))

/** What the gate and the page share: one candidate's replay, as options say. */
export const replayOf = async (options: ReplayOfOptions, judged: ReplayOptions): Promise<Replay> =>
  withSource({ ...options, feedbackTimes: judged.feedbackWithinMs !== null }, async (source) => {
    const policies = await policiesOf(source, options)
    const { threads, checkpoint } = options
    const engine = {
      reexecuted: options.reexecuted === undefined ? null : await readReexecuted(options.reexecuted),
      ...(threads === undefined ? {} : { threads }),
      ...(checkpoint === undefined ? {} : { checkpoint }),
      // A file of progress is the other engine's.
      engine: checkpoint === undefined ? (options.engine ?? 'auto') : 'js',
      onDeclined: (because: string): void => {
        process.stderr.write(`signalbox replay: deciding in JavaScript, as SQL declines ${because}\n`)
      },
    }
    const [replay] = await withProgress(source, (onProgress, watched) =>
      replaySource(
        watched,
        policies,
        async ({ rows, duplicates, impossibleCount, features }) => {
          if (rows + duplicates + impossibleCount === 0) throw nothingFound(source)
          return [await loadPolicy(options.policy, features)]
        },
        judged,
        { ...engine, onProgress },
      ),
    )
    return replay as Replay
  })

const run = async (options: RunOptions): Promise<number> => {
  const result = await replayOf(options, {
    goal: goals[options.goal] ?? 'cost_usd',
    margin: options.margin,
    trustPropensities: options.trustPropensities === true,
    missingAtRandom: options.missingAtRandom === true,
    trustJudge: options.trustJudge === true,
    feedbackWithinMs: options.feedbackWithin ?? null,
    conversations: options.conversations,
    slowAboveMs: options.slowAboveMs ?? null,
    replicates: options.replicates,
    seed: options.seed,
    weightBound: options.weightBound ?? null,
  })
  if (options.html !== undefined) await writeReport(options.html, reportHtml(result, commandLine(options)))
  if (options.json) process.stdout.write(`${JSON.stringify(result, null, 2)}\n`)
  else {
    const colour = process.stdout.isTTY === true && process.stdout.hasColors()
    process.stdout.write(reportText(result, { colour }))
    if (options.html !== undefined) process.stdout.write(`\nreport: ${options.html}\n`)
  }
  return result.verdict.exitCode
}

const writeReport = async (path: string, html: string): Promise<void> => {
  try {
    await writeFile(path, html)
  } catch (error) {
    throw new SourceError('source-unreadable', `writing the report to ${path}: ${(error as Error).message}`)
  }
}

/** The command that makes this report again. */
const commandLine = (options: RunOptions): string => {
  const quote = (text: string) => (/^[\w./:@%+=-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`)
  const flag = (name: string, value: string | number | undefined) =>
    value === undefined ? [] : [`--${name}`, quote(String(value))]
  return [
    'signalbox replay run',
    ...flag('policy', options.policy),
    ...flag('source', options.source.replace(/\/\/[^@/]*@/, '//')),
    ...flag('against', options.against),
    ...flag('from', options.from),
    ...flag('to', options.to),
    ...flag('goal', options.goal),
    ...flag('margin', options.margin),
    ...flag('slow-above-ms', options.slowAboveMs),
    ...flag('reexecuted', options.reexecuted),
    ...(options.replicates === replayDefaults.replicates ? [] : flag('replicates', options.replicates)),
    ...flag('weight-bound', options.weightBound),
    ...(options.seed === replayDefaults.seed ? [] : flag('seed', options.seed)),
    ...(options.engine === 'auto' ? [] : flag('engine', options.engine)),
    ...(options.loggedPolicy ? ['--logged-policy', ...options.loggedPolicy.map(quote)] : []),
    ...(options.trustPropensities ? ['--trust-propensities'] : []),
    ...(options.missingAtRandom ? ['--missing-at-random'] : []),
    ...(options.trustJudge ? ['--trust-judge'] : []),
    ...flag('feedback-within', options.feedbackWithin && `${options.feedbackWithin / 1000}s`),
    ...(options.conversations === replayDefaults.conversations ? [] : flag('conversations', options.conversations)),
  ].join(' ')
}
