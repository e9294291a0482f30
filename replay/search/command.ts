// `signalbox replay search`: the best settings of a policy, chosen on the earlier part of a log and certified on the later. Exit
// codes: 0 something is certified better, 2 nothing is, 3 the evidence is refused, 64 usage.
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type Command, InvalidArgumentError, Option } from 'commander'
import {
  type CandidateOptions,
  example,
  exitWith,
  goals,
  number,
  policiesOf,
  progressBar,
  quoted,
  readPolicyFile,
  sourceCommand,
  timeOf,
  withFeedbackHorizon,
  withoutPassword,
  withSource,
} from '../log-command.ts'
import { SourceError } from '../read/source.ts'
import { count, intervalText, plain, signed, units } from '../report/words.ts'
import type { Finalist } from './certify.ts'
import { searchHtml } from './page.ts'
import { type OnProgress, type Search, search, searchDefaults } from './search.ts'
import { type Dimension, parameterText, pointsMax, pointsOf, readDimension } from './template.ts'
import { searchText, togetherText } from './text.ts'

const pointsDefault = 64
const roundsMax = 6
const finalistsMax = 32
const replicatesMax = 10_000
const barSteps = 1000
const hashDigits = 8

type SearchArguments = CandidateOptions & {
  readonly vary: readonly Dimension[]
  readonly goal: string
  readonly points: number
  readonly rounds: number
  readonly finalists: number
  readonly selectUntil?: string
  readonly holdOut: number
  readonly margin: number
  readonly replicates: number
  readonly seed: number
  readonly trustPropensities?: boolean
  readonly missingAtRandom?: boolean
  readonly feedbackWithin?: number
  readonly json?: boolean
  readonly html?: string
  readonly output?: string
}

const dimensionOf = (text: string, before: readonly Dimension[] = []): readonly Dimension[] => {
  const dimension = readDimension(text)
  if (typeof dimension === 'string') throw new InvalidArgumentError(dimension)
  return [...before, dimension]
}

const wholeTo = (max: number, min = 1) => number(`a whole number from ${min} to ${max}`, min - 1, max, true)

export const searchCommand = (): Command =>
  withJudgement(
    sourceCommand('search')
      .description(
        'Search a policy’s parameters on the earlier part of a log and certify the best on the later one (exit 0 something is certified better, 2 nothing, 3 evidence refused).',
      )
      .requiredOption('--policy <template>', `a policy in which \${NAME} stands for a number`)
      .requiredOption('--vary <name=values>', 'NAME=LOW..HIGH or NAME=A,B,C (repeatable)', dimensionOf)
      .option('--points <count>', 'how many policies to try', wholeTo(pointsMax), pointsDefault)
      .option(
        '--rounds <count>',
        'rounds of halving, on ever more of the log',
        wholeTo(roundsMax),
        searchDefaults.rounds,
      )
      .option('--finalists <count>', 'how many to certify at most', wholeTo(finalistsMax), searchDefaults.finalists)
      .addOption(
        new Option('--select-until <time>', 'choose on decisions before this time, certify on those after it')
          .argParser(timeOf)
          .conflicts('holdOut'),
      )
      .option(
        '--hold-out <share>',
        'the share of decisions to certify on',
        number('a share between 0 and 1', 0, 1 - Number.EPSILON),
        0.5,
      ),
  )
    .option('--html <file>', 'also write the search as one HTML file')
    .option('--output <folder>', 'also write each certified policy there')
    .option('--json', 'print everything as JSON')
    .addHelpText(
      'after',
      example("search --policy template.yaml --vary 'weight=10..200' --vary 'rate=0.5,1,2' --output policies"),
    )
    .action(exitWith(run))

/** What a certificate needs, and on whose word. */
const withJudgement = (command: Command): Command =>
  withFeedbackHorizon(command)
    .addOption(new Option('--goal <metric>', 'what must get better').choices(Object.keys(goals)).default('cost'))
    .option(
      '--margin <amount>',
      'how much quality, and the shares of failures and of given-up requests, may get worse',
      number('a number above 0 and below 1', 0, 1 - Number.EPSILON),
      searchDefaults.margin,
    )
    .option('--replicates <count>', 'bootstrap replicates', wholeTo(replicatesMax, 100), searchDefaults.replicates)
    .option('--seed <number>', 'of points, samples and bootstrap', wholeTo(2 ** 31, 0), searchDefaults.seed)
    .option('--trust-propensities', 'use decisions that cannot be verified, on your word')
    .option('--missing-at-random', 'take requests without an outcome to be like the others, on your word')

const run = async (options: SearchArguments): Promise<number> => {
  const { policy, vary, selectUntil, seed } = options
  const points = pointsOf(await readPolicyFile(policy), vary, options.points, seed, policy)
  const feedbackWithinMs = options.feedbackWithin ?? null
  const result = await withSource({ ...options, feedbackTimes: feedbackWithinMs !== null }, async (source) =>
    withBar(async (onProgress) =>
      search(
        source,
        await policiesOf(source, options),
        points,
        {
          ...searchDefaults,
          goal: goals[options.goal] ?? searchDefaults.goal,
          margin: options.margin,
          rounds: options.rounds,
          finalists: options.finalists,
          replicates: options.replicates,
          seed,
          trustPropensities: options.trustPropensities === true,
          missingAtRandom: options.missingAtRandom === true,
          feedbackWithinMs,
          cut: selectUntil === undefined ? { holdOut: options.holdOut } : { untilMs: Date.parse(selectUntil) },
        },
        onProgress,
      ),
    ),
  )
  const written = await writeAll(result, options)
  if (options.json) process.stdout.write(`${JSON.stringify(result, null, 2)}\n`)
  else {
    const colour = process.stdout.isTTY === true && process.stdout.hasColors()
    process.stdout.write(searchText(result, { colour }) + written.map((path) => `written: ${path}\n`).join(''))
  }
  return result.exitCode
}

const withBar = async <Result>(run: (onProgress: OnProgress) => Promise<Result>): Promise<Result> => {
  const bar = progressBar('{stage} {bar} {percentage} %  {eta_formatted} left')
  bar?.start(barSteps, 0, { stage: 'cutting' })
  try {
    return await run(({ stage, share }) => bar?.update(Math.round(share * barSteps), { stage }))
  } finally {
    bar?.stop()
  }
}

/** Writes the page and the certified policies that options ask for; gives their paths. */
const writeAll = async (result: Search, options: SearchArguments): Promise<string[]> => {
  const { html, output } = options
  const files = html === undefined ? [] : [[html, searchHtml(result, commandLine(options))] as const]
  const certified = result.finalists.filter(({ finding }) => finding === 'better')
  const policies =
    output === undefined ? [] : certified.map((one) => [join(output, fileName(one)), policyFile(result, one)] as const)
  try {
    if (output !== undefined) await mkdir(output, { recursive: true })
    for (const [path, text] of [...files, ...policies]) await writeFile(path, text)
  } catch (error) {
    throw new SourceError('source-unreadable', `writing what was found: ${(error as Error).message}`)
  }
  return [...files, ...policies].map(([path]) => path)
}

const fileName = ({ name, hash }: Finalist): string =>
  `${name}-${hash.replace('sha256:', '').slice(0, hashDigits)}.yaml`

/** A certified policy as a file, which says where it comes from. */
export const policyFile = (
  { window, tried, holdOut, finalists }: Search,
  { axes, parameters, text }: Finalist,
): string => {
  const found = axes.map(
    ({ metric, alone, low, high }) =>
      `${plain[metric]} ${signed(metric, alone.value)}${units[metric]} ${intervalText(metric, { ...alone, low, high })}`,
  )
  return [
    `# Found by signalbox replay search: ${parameterText(parameters)}, one of ${count(tried.length)} policies tried.`,
    `# Chosen on decisions from ${window.from} to ${window.cut}, certified on ${count(holdOut.rows)} from then to ${window.to}.`,
    `# Against production: ${found.join('; ')} (95 %, ${togetherText(finalists.length)}).`,
    text,
  ].join('\n')
}

/** The command that makes this search again, passwords left out. */
const commandLine = ({ json, html, output, vary, loggedPolicy = [], holdOut, ...others }: SearchArguments): string => {
  const valuesOf = (one: Dimension) => (one.kind === 'list' ? one.values.join(',') : `${one.low}..${one.high}`)
  const source = withoutPassword(others.source)
  const cut = others.selectUntil === undefined ? { holdOut } : {}
  const within = others.feedbackWithin === undefined ? {} : { feedbackWithin: `${others.feedbackWithin / 1000}s` }
  const flags = Object.entries({ ...others, source, ...cut, ...within }).map(([name, value]) => {
    const flag = name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)
    return value === true ? `--${flag}` : `--${flag} ${quoted(String(value))}`
  })
  const varied = vary.map((one) => `--vary ${quoted(`${one.name}=${valuesOf(one)}`)}`)
  const logged = loggedPolicy.length > 0 ? [`--logged-policy ${loggedPolicy.map(quoted).join(' ')}`] : []
  return ['signalbox replay search', ...varied, ...flags, ...logged].join(' ')
}
