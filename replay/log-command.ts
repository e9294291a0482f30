// What the sub-commands of `replay` that read a log have in common: which records, the policies that decided them, a bar while
// they are read, and what becomes of mistakes.
import { readFile } from 'node:fs/promises'
import { SingleBar } from 'cli-progress'
import { Command, InvalidArgumentError, Option } from 'commander'
import type { FeatureTypes } from '../router/policy/cel.ts'
import { featureTypesOf, type Policy, PolicyError, parsePolicy, policyText } from '../router/policy/policy.ts'
import type { DecisionRecord } from '../router/policy/record.ts'
import { durationMsOf, durationWanted } from './estimate/feedback.ts'
import type { Goal } from './judge/gate.ts'
import { openSource, type Selection, type Source, SourceError } from './read/source.ts'
import type { Progress } from './redecide/engine.ts'
import type { LoggedPolicy } from './redecide/verify.ts'

const sourceDefault = 'http://127.0.0.1:8123'
/** Commands that look at each record need them in memory; those that only estimate do not. */
const recordsMax = 1_000_000
const usageExitCode = 64
export const evidenceExitCode = 3
const barFps = 10
/** A log is gone through twice: once to know it, once to decide it again. */
const passes = 2

/** What says which records: a source and a selection, and the files of policies that decided. */
export type LogOptions = Selection & { readonly source: string; readonly loggedPolicy?: readonly string[] }

export type CandidateOptions = LogOptions & { readonly policy: string }

/** What may be asked to get better, as people say it on a command line. */
export const goals: Readonly<Record<string, Goal>> = { cost: 'cost_usd', latency: 'latency_ms', quality: 'quality' }

/** A word as a shell takes it. */
export const quoted = (text: string): string =>
  /^[\w./:@%+=-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`
/** An address without what it may know of users and passwords. */
export const withoutPassword = (where: string): string => where.replace(/\/\/[^@/]*@/, '//')

export const example = (line: string): string => `\nExample:\n  signalbox replay ${line}`

export const timeOf = (text: string): string => {
  if (!Number.isNaN(Date.parse(text))) return new Date(text).toISOString()
  throw new InvalidArgumentError(`found '${text}'; wanted a time such as 2026-11-01 or 2026-11-01T08:00:00Z`)
}

/** A parser of numbers within (`above`, `max`], for commander; `wanted` says so in words. */
export const number =
  (wanted: string, above: number, max = Infinity, isWhole = false) =>
  (text: string): number => {
    const value = Number(text)
    if (text.trim() !== '' && value > above && value <= max && (!isWhole || Number.isInteger(value))) return value
    throw new InvalidArgumentError(`found '${text}'; wanted ${wanted}`)
  }
/** `24h` as milliseconds. */
export const durationOf = (text: string): number => {
  const ms = durationMsOf(text)
  if (ms !== null) return ms
  throw new InvalidArgumentError(`found '${text}'; wanted ${durationWanted}`)
}

/** The horizon of feedback, in milliseconds. */
export const withFeedbackHorizon = (command: Command): Command =>
  command.option(
    '--feedback-within <duration>',
    'feedback counts if it came this soon after its decision (24h), and decisions younger than that are not yet known; by default whenever it came',
    durationOf,
  )

export const whole = (wanted: string) => number(wanted, 0, Number.MAX_SAFE_INTEGER, true)

/** A sub-command with the options that say which records. */
export const sourceCommand = (name: string): Command =>
  new Command(name)
    .option(
      '--source <where>',
      'a ClickHouse URL, or a file of decision records, one JSON object a line',
      sourceDefault,
    )
    .option('--against <policy>', 'only decisions of this logged policy: its name, or the first 8 digits of its hash')
    .option('--from <time>', 'only decisions at or after this time', timeOf)
    .option('--to <time>', 'only decisions before this time', timeOf)
    .addOption(new Option('--logged-policy <file...>', 'the sources of policies that decided; ClickHouse has its own'))

/** The same for a command that needs a candidate. */
export const candidateCommand = (name: string): Command =>
  sourceCommand(name).requiredOption('--policy <file>', 'the candidate policy')

/** Mistakes of the input that are told in a line, by the codes of their errors, and what the command then exits with. */
const mistakes: Readonly<Record<string, number>> = {
  'record-invalid': evidenceExitCode,
  'source-empty': evidenceExitCode,
  'source-unreadable': usageExitCode,
  'policy-invalid': usageExitCode,
  'sql-declined': usageExitCode,
  'gate-invalid': usageExitCode,
  'scenario-invalid': usageExitCode,
  'payload-invalid': usageExitCode,
  'options-invalid': usageExitCode,
  'output-mismatch': usageExitCode,
  'output-invalid': evidenceExitCode,
}

/** Runs a sub-command and turns what the input got wrong into a line and an exit code. */
export const exitWith =
  <Options>(run: (options: Options) => Promise<number>) =>
  async (options: Options): Promise<void> => {
    try {
      process.exitCode = await run(options)
    } catch (error) {
      const { code = '', message } = error as Error & { code?: string }
      const exitCode = Object.hasOwn(mistakes, code) ? mistakes[code] : undefined
      if (exitCode === undefined) throw error
      process.stderr.write(`signalbox replay: ${message}\n`)
      process.exitCode = exitCode
    }
  }

export const withSource = async <Result>(
  { source: where, from, to, against, feedbackTimes = false }: LogOptions,
  use: (source: Source) => Promise<Result>,
): Promise<Result> => {
  const source = openSource(where, {
    ...(from === undefined ? {} : { from }),
    ...(to === undefined ? {} : { to }),
    ...(against === undefined ? {} : { against }),
    feedbackTimes,
  })
  try {
    return await use(source)
  } finally {
    await source.close()
  }
}

/** A bar on a terminal, nothing in a pipe; `format` as cli-progress takes it. */
export const progressBar = (format: string): SingleBar | null =>
  process.stderr.isTTY ? new SingleBar({ format, clearOnComplete: true, fps: barFps }) : null

/**
 * How far a replay of `source` is, in the unit of its size: rows of a table, bytes of a file. Of a file the first reading tells bytes,
 * and the second goes by the rows that the first found, because a small file is not read twice. `watched` is what to replay.
 */
export const measured = (source: Source, size: number) => {
  let [bytes, rowsSeen] = [0, 0]
  const batches: Source['batches'] = (onProgress) =>
    source.batches((done) => {
      bytes = Math.max(bytes, done)
      onProgress?.(done)
    })
  const doneOf: (...progress: Parameters<Progress>) => number = ({ pass, rows }) => {
    if (pass === 'survey') rowsSeen = rows
    const of = source.slices ? size : rowsSeen
    const done = pass === 'survey' && !source.slices ? bytes : (size * Math.min(rows, of)) / Math.max(1, of)
    return (pass === 'survey' ? 0 : size) + Math.min(size, done)
  }
  return { watched: source.slices ? source : { ...source, batches }, doneOf }
}

/** Calls `run` with what tells the bar of each pass how far it is, and the source to go through; ends the bar whatever happens. */
export const withProgress = async <Result>(
  source: Source,
  run: (onProgress: Progress, watched: Source) => Promise<Result>,
): Promise<Result> => {
  const total = process.stderr.isTTY ? ((await source.size()) ?? 0) : 0
  const { watched, doneOf } = measured(source, total)
  const format = '{pass} {bar} {percentage} %  {rate} rows/s  {eta_formatted} left'
  const bar = total > 0 ? progressBar(format) : null
  bar?.start(total * passes, 0, { pass: 'surveying', rate: '0' })
  const startMs = performance.now()
  try {
    let surveyed = 0
    return await run(({ pass, rows }) => {
      if (pass === 'survey') surveyed = rows
      const gone = pass === 'survey' ? rows : surveyed + rows
      const rate = Math.round((gone * 1000) / Math.max(1, performance.now() - startMs))
      const words = { pass: pass === 'survey' ? 'surveying' : 'deciding again', rate: rate.toLocaleString('en-US') }
      bar?.update(doneOf({ pass, rows }), words)
    }, watched)
  } finally {
    bar?.stop()
  }
}

export const nothingFound = ({ name }: Source): SourceError =>
  new SourceError(
    'source-empty',
    `reading decision records: ${name} has none that match; see --against, --from and --to`,
  )

/** All records in memory, with a progress bar on a terminal. */
export const collect = async (source: Source): Promise<DecisionRecord[]> => {
  const bar = progressBar('reading {bar} {percentage} %  {eta_formatted} left')
  bar?.start(bar ? Math.max(1, (await source.size()) ?? 1) : 1, 0)
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
    if (records.length === 0) throw nothingFound(source)
    return records
  } finally {
    bar?.stop()
  }
}

export const readPolicyFile = async (path: string): Promise<string> => {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    throw new PolicyError([`reading the policy ${path}: ${(error as Error).message}`])
  }
}

/** Reads and compiles a policy file against the features of a log. */
export const loadPolicy = async (path: string, features: FeatureTypes): Promise<Policy> =>
  parsePolicy(await readPolicyFile(path), features, path)

/** The policies in the files that the options name, by their texts. */
export const policyFiles = ({ loggedPolicy = [] }: LogOptions): Promise<LoggedPolicy[]> =>
  Promise.all(loggedPolicy.map(async (path) => policyText(await readPolicyFile(path), path)))

/** All policies that may have decided: those the source holds, and those in the files that the options name. */
export const policiesOf = async (source: Source, options: LogOptions): Promise<LoggedPolicy[]> => [
  ...(await source.policies()),
  ...(await policyFiles(options)),
]

/** All records, and the candidate that is to decide them. */
export const readLog = (options: CandidateOptions): Promise<{ records: DecisionRecord[]; candidate: Policy }> =>
  withSource(options, async (source) => {
    const records = await collect(source)
    return { records, candidate: await loadPolicy(options.policy, featureTypesOf(records)) }
  })
