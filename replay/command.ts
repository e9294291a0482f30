// `signalbox replay`: what a person or a CI job types. Each sub-command is a function from options to an exit code; the
// numbers and words come from the files beside this one. 0 promote, 1 reject, 2 undecided, 3 evidence invalid, 64 usage.
import { once } from 'node:events'
import { createWriteStream } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import type { Writable } from 'node:stream'
import { SingleBar } from 'cli-progress'
import { Command, InvalidArgumentError, Option } from 'commander'
import { featureTypesOf, type Policy, PolicyError, parsePolicy } from '../router/policy/policy.ts'
import type { DecisionRecord } from '../router/policy/record.ts'
import type { Goal } from './judge/gate.ts'
import { openSource, type Selection, type Source, SourceError } from './read/source.ts'
import { type LoggedPolicy, shelve, verify } from './redecide/verify.ts'
import { reportHtml } from './report/html.ts'
import { reportText, type TextOptions, verificationText } from './report/text.ts'
import { replay, replayDefaults } from './run.ts'
import { selfTest } from './selftest.ts'

const sourceDefault = 'http://127.0.0.1:8123'
const recordsMax = 1_000_000
const usageExitCode = 64
const evidenceExitCode = 3
const barMsMin = 100

type SourceOptions = Selection & { readonly source: string; readonly loggedPolicy?: readonly string[] }
type RunOptions = SourceOptions & {
  readonly policy: string
  readonly goal: 'cost' | 'latency' | 'quality'
  readonly margin: number
  readonly json?: boolean
  readonly html?: string
  readonly trustPropensities?: boolean
  readonly missingAtRandom?: boolean
}

const goals: Readonly<Record<RunOptions['goal'], Goal>> = {
  cost: 'cost_usd',
  latency: 'latency_ms',
  quality: 'quality',
}

const marginOf = (text: string): number => {
  const margin = Number(text)
  if (text.trim() !== '' && margin > 0 && margin < 1) return margin
  throw new InvalidArgumentError(`found '${text}'; wanted a number above 0 and below 1`)
}

const timeOf = (text: string): string => {
  if (!Number.isNaN(Date.parse(text))) return new Date(text).toISOString()
  throw new InvalidArgumentError(`found '${text}'; wanted a time such as 2026-11-01 or 2026-11-01T08:00:00Z`)
}

const example = (line: string): string => `\nExample:\n  signalbox replay ${line}`

const sourceCommand = (name: string): Command =>
  new Command(name)
    .option(
      '--source <where>',
      'a ClickHouse URL, or a file of decision records, one JSON object a line',
      sourceDefault,
    )
    .option('--against <policy>', 'only decisions of this logged policy: its name, or the first 8 digits of its hash')
    .option('--from <time>', 'only decisions at or after this time', timeOf)
    .option('--to <time>', 'only decisions before this time', timeOf)

const loggedPolicyOption = () =>
  new Option('--logged-policy <file...>', 'the sources of policies that decided; ClickHouse has its own')

/** Runs a sub-command and turns what the input got wrong into a line and an exit code. */
const exitWith =
  <Options>(run: (options: Options) => Promise<number>) =>
  async (options: Options): Promise<void> => {
    try {
      process.exitCode = await run(options)
    } catch (error) {
      if (!(error instanceof SourceError || error instanceof PolicyError)) throw error
      process.stderr.write(`signalbox replay: ${error.message}\n`)
      process.exitCode =
        error.code === 'record-invalid' || error.code === 'source-empty' ? evidenceExitCode : usageExitCode
    }
  }

export const replayCommand = (): Command =>
  new Command('replay')
    .description(
      'Decide captured traffic again: prove that it comes out the same, or estimate what another policy would do.',
    )
    .addHelpText('after', example('run --policy policies/candidate.yaml'))
    .addCommand(runSubcommand())
    .addCommand(
      sourceCommand('verify')
        .description('Decide every record again with its own policy and compare to the bit (exit 0 all alike, 3 not).')
        .addOption(loggedPolicyOption())
        .option('--json', 'print everything as JSON')
        .addHelpText('after', example('verify --source decisions.ndjson --logged-policy policies/balanced.yaml'))
        .action(exitWith(verifyCommand)),
    )
    .addCommand(
      sourceCommand('export')
        .description('Write decision records with their outcomes and feedback, one JSON object a line.')
        .option('--output <file>', 'where to; standard output by default')
        .addHelpText('after', example('export --from 2026-11-01 --output decisions.ndjson'))
        .action(exitWith(exportCommand)),
    )
    .addCommand(
      new Command('selftest')
        .description('Compute published figures with our estimators and print both.')
        .option('--json', 'print everything as JSON')
        .addHelpText('after', example('selftest'))
        .action(exitWith(selftestCommand)),
    )

const runSubcommand = (): Command =>
  sourceCommand('run')
    .description(
      'Estimate a candidate policy on captured decisions and give a verdict (exit 0 promote, 1 reject, 2 undecided, 3 evidence invalid).',
    )
    .requiredOption('--policy <file>', 'the candidate policy')
    .addOption(new Option('--goal <metric>', 'what must get better').choices(Object.keys(goals)).default('cost'))
    .option(
      '--margin <amount>',
      'how much quality, and the shares of failures and of given-up requests, may get worse',
      marginOf,
      replayDefaults.margin,
    )
    .addOption(loggedPolicyOption())
    .option('--trust-propensities', 'use decisions that cannot be verified, on your word; the report says so')
    .option(
      '--missing-at-random',
      'take requests without an outcome to be like the others, on your word; the report says so',
    )
    .option('--html <file>', 'also write the report as one HTML file')
    .option('--json', 'print everything as JSON')
    .addHelpText(
      'after',
      example('run --policy candidate.yaml --against balanced --from 2026-11-01 --html report.html'),
    )
    .action(exitWith(runCommand))

const textOptions = (): TextOptions => ({ colour: process.stdout.isTTY === true && process.stdout.hasColors() })
const print = (text: string): void => void process.stdout.write(text)
const printJson = (value: unknown): void => print(`${JSON.stringify(value, null, 2)}\n`)

const runCommand = async (options: RunOptions): Promise<number> => {
  const candidateText = await readPolicyFile(options.policy)
  return withSource(options, async (source) => {
    const records = await collect(source)
    const features = featureTypesOf(records)
    const candidate = parsePolicy(candidateText, features, options.policy)
    const policies = [...(await source.policies()), ...(await loggedPolicies(options, records))]
    const result = replay(records, policies, candidate, {
      goal: goals[options.goal],
      margin: options.margin,
      trustPropensities: options.trustPropensities === true,
      missingAtRandom: options.missingAtRandom === true,
    })
    if (options.html !== undefined) await writeReport(options.html, reportHtml(result, commandLine(options)))
    if (options.json) printJson(result)
    else print(reportText(result, textOptions()))
    if (options.html !== undefined && !options.json) print(`\nreport: ${options.html}\n`)
    return result.verdict.exitCode
  })
}

const verifyCommand = (options: SourceOptions & { readonly json?: boolean }): Promise<number> =>
  withSource(options, async (source) => {
    const records = await collect(source)
    const policies = [...(await source.policies()), ...(await loggedPolicies(options, records))]
    const verification = verify(records, shelve(policies, featureTypesOf(records)))
    if (options.json) printJson(verification)
    else print(verificationText(verification, textOptions()))
    return verification.reproduced === records.length ? 0 : evidenceExitCode
  })

const exportCommand = (options: SourceOptions & { readonly output?: string }): Promise<number> =>
  withSource(options, async (source) => {
    const output: Writable = options.output === undefined ? process.stdout : createWriteStream(options.output)
    for await (const record of source.records())
      if (!output.write(`${JSON.stringify(record)}\n`)) await once(output, 'drain')
    if (options.output !== undefined) {
      output.end()
      await once(output, 'close')
    }
    return 0
  })

const selftestCommand = async (options: { readonly json?: boolean }): Promise<number> => {
  const results = selfTest()
  const passed = results.filter(({ ok }) => ok).length
  if (options.json) printJson(results)
  else {
    for (const { name, published, ours, ok } of results)
      print(`${ok ? '✓' : '✗'} ${name.padEnd(32)} published ${published.toFixed(6)}   ours ${ours.toFixed(6)}\n`)
    print(`${passed}/${results.length} published figures reproduced\n`)
  }
  return passed === results.length ? 0 : evidenceExitCode
}

const withSource = async (options: SourceOptions, use: (source: Source) => Promise<number>): Promise<number> => {
  const { from, to, against } = options
  const source = openSource(options.source, {
    ...(from === undefined ? {} : { from }),
    ...(to === undefined ? {} : { to }),
    ...(against === undefined ? {} : { against }),
  })
  try {
    return await use(source)
  } finally {
    await source.close()
  }
}

/** All records in memory, with a progress bar on a terminal. */
const collect = async (source: Source): Promise<DecisionRecord[]> => {
  const bar = process.stderr.isTTY
    ? new SingleBar({
        format: 'reading {bar} {percentage} %  {eta_formatted} left',
        clearOnComplete: true,
        stopOnComplete: true,
        fps: 1000 / barMsMin,
      })
    : null
  bar?.start(Math.max(1, (await source.size()) ?? 1), 0)
  try {
    const records: DecisionRecord[] = []
    for await (const record of source.records((done) => bar?.update(done))) {
      if (records.length === recordsMax)
        throw new SourceError(
          'source-unreadable',
          `reading decision records: ${source.name} holds more than ${recordsMax}; narrow it with --from, --to or --against`,
        )
      records.push(record)
    }
    if (records.length === 0)
      throw new SourceError(
        'source-empty',
        `reading decision records: ${source.name} has none that match; see --against, --from and --to`,
      )
    return records
  } finally {
    bar?.stop()
  }
}

const readPolicyFile = async (path: string): Promise<string> => {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    throw new PolicyError([`reading the policy ${path}: ${(error as Error).message}`])
  }
}

const loggedPolicies = async (
  { loggedPolicy = [] }: SourceOptions,
  records: readonly DecisionRecord[],
): Promise<LoggedPolicy[]> => {
  const features = featureTypesOf(records)
  const policies: Policy[] = []
  for (const path of loggedPolicy) policies.push(parsePolicy(await readPolicyFile(path), features, path))
  return policies
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
  const flag = (name: string, value: string | undefined) => (value === undefined ? [] : [`--${name}`, quote(value)])
  return [
    'signalbox replay run',
    ...flag('policy', options.policy),
    ...flag('source', options.source.replace(/\/\/[^@/]*@/, '//')),
    ...flag('against', options.against),
    ...flag('from', options.from),
    ...flag('to', options.to),
    ...flag('goal', options.goal),
    ...flag('margin', String(options.margin)),
    ...(options.loggedPolicy ? ['--logged-policy', ...options.loggedPolicy.map(quote)] : []),
    ...(options.trustPropensities ? ['--trust-propensities'] : []),
    ...(options.missingAtRandom ? ['--missing-at-random'] : []),
  ].join(' ')
}
