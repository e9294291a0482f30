// `signalbox replay`: what a person or a CI job types. Each sub-command is a function from options to an exit code; the
// numbers and words come from the folders beside this file. 0 promote, 1 reject, 2 undecided, 3 evidence invalid, 4 budget
// hit, 64 usage.
import { once } from 'node:events'
import { createWriteStream } from 'node:fs'
import type { Writable } from 'node:stream'
import { Command } from 'commander'
import { checkCommand } from './audit/command.ts'
import { diffCommand } from './diff/command.ts'
import {
  evidenceExitCode,
  example,
  exitWith,
  type LogOptions,
  nothingFound,
  policiesOf,
  sourceCommand,
  withProgress,
  withSource,
} from './log-command.ts'
import { powerCommand } from './power/command.ts'
import { calibrationCommand } from './promote/calibration-command.ts'
import { gateCommand } from './promote/gate-command.ts'
import { surveyLog } from './redecide/engine.ts'
import { closeVerification } from './redecide/verify.ts'
import { reexecCommand } from './reexec/command.ts'
import { verificationText } from './report/text.ts'
import { runCommand } from './run-command.ts'
import { searchCommand } from './search/command.ts'
import { selfTest, selfTestText } from './selftest.ts'
import { whatifCommand } from './whatif/command.ts'

export const replayCommand = (): Command =>
  new Command('replay')
    .description(
      'Decide captured traffic again: prove that it comes out the same, or estimate what another policy would do.',
    )
    .addHelpText('after', example('run --policy policies/candidate.yaml'))
    .addCommand(runCommand())
    .addCommand(
      sourceCommand('verify')
        .description('Decide every record again with its own policy and compare to the bit (exit 0 all alike, 3 not).')
        .option('--json', 'print everything as JSON')
        .addHelpText('after', example('verify --source decisions.ndjson --logged-policy policies/balanced.yaml'))
        .action(exitWith(verifyAll)),
    )
    .addCommand(checkCommand())
    .addCommand(diffCommand())
    .addCommand(powerCommand())
    .addCommand(reexecCommand())
    .addCommand(whatifCommand())
    .addCommand(searchCommand())
    .addCommand(gateCommand())
    .addCommand(calibrationCommand())
    .addCommand(
      sourceCommand('export')
        .description('Write decision records with their outcomes and feedback, one JSON object a line.')
        .option('--output <file>', 'where to; standard output by default')
        .addHelpText('after', example('export --from 2026-11-01 --output decisions.ndjson'))
        .action(exitWith(exportRecords)),
    )
    .addCommand(
      new Command('selftest')
        .description('Compute published figures with our estimators and print both.')
        .option('--json', 'print everything as JSON')
        .addHelpText('after', example('selftest'))
        .action(exitWith(selftest)),
    )

const print = (text: string): void => void process.stdout.write(text)
const printJson = (value: unknown): void => print(`${JSON.stringify(value, null, 2)}\n`)

const verifyAll = (options: LogOptions & { readonly json?: boolean }): Promise<number> =>
  withSource(options, async (source) => {
    const policies = await policiesOf(source, options)
    const { verification: fold } = await withProgress(source, async (onProgress, watched) => {
      const log = await surveyLog(watched, policies, { objective: { slowAboveMs: null }, onProgress })
      return log.gather([])
    })
    const verification = closeVerification(fold)
    if (verification.records === 0) throw nothingFound(source)
    if (options.json) printJson(verification)
    else print(verificationText(verification, { colour: process.stdout.isTTY === true && process.stdout.hasColors() }))
    return verification.reproduced === verification.records ? 0 : evidenceExitCode
  })

const exportRecords = (options: LogOptions & { readonly output?: string }): Promise<number> =>
  withSource({ ...options, feedbackTimes: true }, async (source) => {
    const output: Writable = options.output === undefined ? process.stdout : createWriteStream(options.output)
    for await (const record of source.records())
      if (!output.write(`${JSON.stringify(record)}\n`)) await once(output, 'drain')
    if (options.output !== undefined) {
      output.end()
      await once(output, 'close')
    }
    return 0
  })

const selftest = async (options: { readonly json?: boolean }): Promise<number> => {
  const figures = selfTest()
  if (options.json) printJson(figures)
  else print(selfTestText(figures))
  return figures.every(({ ok }) => ok) ? 0 : evidenceExitCode
}
