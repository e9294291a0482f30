// `signalbox replay gate`: a replay held against a gate file, for CI. The same result goes to the terminal, to JUnit, to the
// step's summary and, where asked, into the table of replay runs; the exit code is the verdict's.
import { randomUUID } from 'node:crypto'
import { appendFile, readFile, writeFile } from 'node:fs/promises'
import type { Command } from 'commander'
import { candidateCommand, example, exitWith } from '../log-command.ts'
import { replayDefaults } from '../run.ts'
import { type ReplayOfOptions, replayOf, withAnswers } from '../run-command.ts'
import { type GateResult, judgeGate } from './gate.ts'
import { type Gate, GateError, gateOptions, parseGate } from './gate-file.ts'
import { gateJunit, gateMarkdown, gateSummary, gateText } from './gate-report.ts'
import { recordReplay } from './ledger.ts'

type Options = ReplayOfOptions & {
  readonly gate: string
  readonly junit?: string
  readonly summary?: string
  readonly record?: string
  readonly json?: boolean
}

export const gateCommand = (): Command =>
  withAnswers(candidateCommand('gate'))
    .description(
      'Hold a candidate policy against a gate file, for CI (exit 0 promote, 1 reject, 2 undecided, 3 evidence invalid).',
    )
    .requiredOption('--gate <file>', 'what must be shown, as in examples/gate.yaml')
    .option('--junit <file>', 'also write the conditions as JUnit XML')
    .option('--summary <file>', 'also append a Markdown summary; $GITHUB_STEP_SUMMARY by default, where that is set')
    .option('--record <url>', 'also keep the result in otel.replay_runs, by way of this collector')
    .option('--json', 'print everything as JSON')
    .addHelpText('after', example('gate --policy candidate.yaml --gate examples/gate.yaml --junit gate.xml'))
    .action(exitWith(runGate))

const runGate = async (options: Options): Promise<number> => {
  const result = await judged(options, await loadGate(options.gate))
  // biome-ignore lint/style/noProcessEnv: where a CI job's summary goes is told by its environment and nowhere else
  const summary = options.summary ?? process.env.GITHUB_STEP_SUMMARY
  if (options.junit !== undefined) await written(options.junit, writeFile(options.junit, gateJunit(result)))
  if (summary) await written(summary, appendFile(summary, gateMarkdown(result)))
  if (options.record !== undefined) await recordReplay(options.record, gateSummary(result), randomUUID())
  process.stdout.write(options.json ? `${JSON.stringify(gateSummary(result), null, 2)}\n` : gateText(result))
  return result.exitCode
}

/** Runs the replay that a gate asks for, and judges it. Throws what the input got wrong. */
export const judged = async (options: ReplayOfOptions, gate: Gate): Promise<GateResult> =>
  judgeGate(await replayOf(options, { ...replayDefaults, ...gateOptions(gate) }), gate)

/** Reads and parses a gate file. Throws a GateError. */
export const loadGate = async (path: string): Promise<Gate> => {
  try {
    return parseGate(await readFile(path, 'utf8'), path)
  } catch (error) {
    if (error instanceof GateError) throw error
    throw new GateError(`reading the gate ${path}: ${(error as Error).message}`)
  }
}

const written = async (path: string, writing: Promise<void>): Promise<void> => {
  try {
    await writing
  } catch (error) {
    throw new GateError(`writing the gate's result to ${path}: ${(error as Error).message}`)
  }
}
