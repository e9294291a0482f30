// `signalbox replay calibration`: every promotion's prediction beside what came of it, as text, JSON or a page.
import { writeFile } from 'node:fs/promises'
import { Command } from 'commander'
import { calibrationOf, calibrationText } from './calibration.ts'
import { calibrationHtml } from './calibration-page.ts'
import { openLedger } from './ledger.ts'

const sourceDefault = 'http://127.0.0.1:8123'

type Options = { readonly source: string; readonly html?: string; readonly json?: boolean }

export const calibrationCommand = (): Command =>
  new Command('calibration')
    .description('Show how often the change that a replay predicted is the one that its promotion brought.')
    .option('--source <url>', 'the ClickHouse that holds the promotions', sourceDefault)
    .option('--html <file>', 'also write a page with a chart')
    .option('--json', 'print everything as JSON')
    .addHelpText('after', '\nExample:\n  signalbox replay calibration --html calibration.html')
    .action(async ({ source, html, json }: Options) => {
      const ledger = openLedger(source, source)
      try {
        const calibration = calibrationOf(await ledger.all())
        if (html !== undefined) await writeFile(html, calibrationHtml(calibration))
        process.stdout.write(json ? `${JSON.stringify(calibration, null, 2)}\n` : calibrationText(calibration))
      } finally {
        await ledger.close()
      }
    })
