// `signalbox replay check`: the audit of a log for a terminal, gravest first, or as JSON. Exit codes: 0 nothing forbids
// estimation, 3 something does, 64 usage.
import { styleText } from 'node:util'
import type { Command } from 'commander'
import {
  collect,
  evidenceExitCode,
  example,
  exitWith,
  type LogOptions,
  sourceCommand,
  withSource,
} from '../log-command.ts'
import type { TextOptions } from '../report/text.ts'
import { count, percent } from '../report/words.ts'
import { type Audit, auditRecords } from './audit.ts'
import type { Gravity } from './finding.ts'

const marks = { bad: ['red', '✗'], warning: ['yellow', '!'], note: ['dim', '·'] } as const satisfies Record<
  Gravity,
  readonly [Parameters<typeof styleText>[0], string]
>

/** An audit for a terminal: whether estimates may be made, then what was found, what that forbids and what to do. */
export const auditText = ({ records, findings, passed, forbidsEstimation }: Audit, { colour }: TextOptions): string => {
  const paint = (style: Parameters<typeof styleText>[0], text: string): string =>
    colour ? styleText(style, text, { validateStream: false }) : text
  const verdict = forbidsEstimation ? paint('red', '✗') : paint('green', '✓')
  const asked = `${count(records)} decisions were checked in ${passed + findings.length} ways`
  const head = `${verdict} ${asked}: ${forbidsEstimation ? 'estimates are forbidden.' : 'nothing forbids estimates.'}`
  const list = findings.map((finding) => {
    const [style, mark] = marks[finding.gravity]
    const lines = [
      `${paint(style, mark)} ${count(finding.count)} (${percent(finding.share)}) ${finding.what}`,
      ...(finding.forbids === '' ? [] : [`    forbids ${finding.forbids}`]),
      ...(finding.gravity === 'note' ? [] : [`    → ${finding.remedy}`]),
    ]
    return lines.join('\n')
  })
  return `${[head, ...list].join('\n')}\n`
}

/** The command; mount it under `signalbox replay`. */
export const checkCommand = (): Command =>
  sourceCommand('check')
    .description('Audit what captured decisions lack and what that forbids (exit 0 nothing forbids estimates, 3 not).')
    .option('--json', 'print everything as JSON')
    .addHelpText('after', example('check --source decisions.ndjson --from 2026-11-01'))
    .action(
      exitWith((options: LogOptions & { readonly json?: boolean }) =>
        withSource(options, async (source) => {
          const audit = auditRecords(await collect(source), Date.now())
          const colour = process.stdout.isTTY === true && process.stdout.hasColors()
          process.stdout.write(options.json ? `${JSON.stringify(audit, null, 2)}\n` : auditText(audit, { colour }))
          return audit.forbidsEstimation ? evidenceExitCode : 0
        }),
      ),
    )
