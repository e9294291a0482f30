// How often a 95 % interval holds the truth, by logging design, candidate and metric: the table behind the gate's limits. Run
// by hand, `node bench/coverage.ts`, about ten minutes; the test replay-coverage.test.ts makes a small part of the same logs.
import { type Design, designs, type Held, isGiven, judgedLogs, watched } from '../test/replay-designs.ts'
import { seeded } from '../test/replay-truth.ts'

/** Logs of each design, as far as so many rows go. */
const logsMax = 200
const rowsMax = 2_500_000

const share = (results: readonly Held[], holds: (held: Held) => boolean | null): string =>
  ((100 * results.filter(holds).length) / results.length).toFixed(1)

const spread = (values: readonly number[]): string => {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length
  return Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length).toFixed(2)
}

const tableOf = (name: string, results: readonly Held[]): string[] =>
  watched.map((metric) => {
    const all = results.filter((held) => held.metric === metric)
    const given = all.filter(isGiven)
    const cells = [
      name,
      metric,
      `${given.length} of ${all.length}`,
      share(given, ({ student }) => student),
      share(given, ({ bootstrap }) => bootstrap),
      share(given, ({ reported }) => reported),
      share(given, ({ isAbove }) => isAbove),
      spread(all.map(({ gapSe }) => gapSe)),
    ]
    return `| ${cells.join(' | ')} |`
  })

const run = (design: Design, random: () => number): Held[] =>
  judgedLogs(design, Math.min(logsMax, Math.floor(rowsMax / design.rows)), random, { replicates: 1000 })

const header = ['log, candidate', 'metric', 'verdicts', 'Student', 'BCa', 'reported', 'truth above', 'SD of DR − SNIPS']
const lines = [header, header.map(() => '---')].map((cells) => `| ${cells.join(' | ')} |`)
process.stdout.write(`${lines.join('\n')}\n`)
const random = seeded(Number(process.env.SEED ?? 7))
const everything: Held[] = []
for (const design of designs) {
  const results = run(design, random)
  everything.push(...results)
  process.stdout.write(`${tableOf(design.name, results).join('\n')}\n`)
}
process.stdout.write(`${tableOf('all', everything).join('\n')}\n`)
