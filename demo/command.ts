// `signalbox demo`: the options of the demo, and nothing else.
import { Command, InvalidArgumentError } from 'commander'

/** Everything that was driven is replayed in memory. */
const requestsMax = 50_000

const integer = (min: number, max: number) => (text: string) => {
  const value = Number(text)
  if (!Number.isInteger(value) || value < min || value > max)
    throw new InvalidArgumentError(`wanted a whole number from ${min} to ${max}`)
  return value
}
const share = (text: string): number => {
  const value = Number(text)
  if (!(value >= 0 && value <= 1)) throw new InvalidArgumentError('wanted a number from 0 to 1')
  return value
}

type Options = { requests: number; seed: number; explore?: number; folder?: string; json?: true }

export const demoCommand = (): Command =>
  new Command('demo')
    .description(
      'Routes recorded traffic, replays it under two other policies, and prints the truth beside the estimate.',
    )
    .option('-n, --requests <count>', 'how many requests to drive', integer(1, requestsMax), 4000)
    .option('--seed <number>', 'which questions are asked, and how every draw falls', integer(0, 2 ** 31), 7)
    .option('--explore <rate>', 'have production take the best score, save for this share left to chance', share)
    .option('--folder <folder>', 'where data and report go; a temporary folder when not given')
    .option('--json', 'print the result as one JSON object')
    .addHelpText(
      'after',
      '\nExamples:\n  signalbox demo\n  signalbox demo --explore 0     # no chance, no evidence: see it refuse',
    )
    .action(async ({ requests, seed, explore, folder, json }: Options) => {
      const { runDemo } = await import('./demo.ts')
      process.exitCode = await runDemo({
        requests,
        seed,
        explore: explore ?? null,
        folder: folder ?? null,
        json: json === true,
      })
    })
