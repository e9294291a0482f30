// `signalbox replay whatif`: the scenario as typed or from a file, the records from a source, and the simulation as text or
// JSON, and as a page. Exit codes: 0 calibrated, 3 the simulator does not reproduce production (or the records themselves), 64 usage.
import { createWriteStream } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { Command } from 'commander'
import { featureTypesOf } from '../../router/policy/policy.ts'
import {
  collect,
  evidenceExitCode,
  exitWith,
  type LogOptions,
  loadPolicy,
  number,
  policiesOf,
  progressBar,
  quoted,
  sourceCommand,
  timeOf,
  withoutPassword,
  withSource,
} from '../log-command.ts'
import { SourceError } from '../read/source.ts'
import { parseWords, partsHelp, readScenario, type Words } from './arguments.ts'
import { whatIfHtml } from './page.ts'
import type { Simulated } from './simulate.ts'
import { whatIfText } from './text.ts'
import { distributionsOf } from './times.ts'
import { whatIf } from './whatif.ts'

type Options = LogOptions & {
  readonly policy?: string
  readonly scenario?: string
  readonly sloMs?: number
  readonly seed: string
  readonly requests?: string
  readonly html?: string
  readonly json?: boolean
}

const help = `
Parts of a scenario, joined by a lone +:
${partsHelp()}

Without a part or a policy, production is simulated by itself: a check of the simulator.
--from <time> and --to <time> before the first part, or after any part but an outage, select decisions by time.

Examples:
  signalbox replay whatif price --model large=+10%
  signalbox replay whatif outage --model large --from 2026-11-01T08:00:00Z --to 2026-11-01T09:00:00Z + traffic --scale 2
  signalbox replay whatif --scenario winter.yaml --policy candidate.yaml --source decisions.ndjson --html whatif.html`

/** The command; mount it under `signalbox replay`. */
export const whatifCommand = (): Command => {
  const command = new Command('whatif')
    .description(
      'Simulate recorded traffic under other prices, limits, outages, models, caches or load. Simulated, never evidence for a gate (exit 0 calibrated, 3 not).',
    )
    .argument('[parts...]', 'what is different: price, outage, ratelimit, retire, cache, traffic')
    .allowUnknownOption()
  // An outage has a time of its own, so the window of the records is read from what the parts leave over.
  for (const option of sourceCommand('whatif').options)
    if (!['from', 'to'].includes(option.name())) command.addOption(option)
  return command
    .option('--policy <file>', 'the policy to simulate; the one that decided each record by default')
    .option('--scenario <file>', 'parts from a YAML file: [{kind: price, factors: {large: 1.1}}, …]')
    .option('--slo-ms <ms>', 'count answers later than this', number('a number of milliseconds above 0', 0))
    .option('--seed <text>', 'what chance is drawn from', '1')
    .option('--requests <file>', 'also write every simulated request, one JSON object a line')
    .option('--html <file>', 'also write it as one HTML page')
    .option('--json', 'print everything as JSON')
    .addHelpText('after', help)
    .action((words: string[], options: Options) =>
      exitWith(() => {
        const read = parseWords(words)
        return run(read, { ...options, ...windowOf(read, command) }, commandLine(words, command))
      })(options),
    )
}

const windowOf = ({ rest }: Words, command: Command): { from?: string; to?: string } => {
  const window = new Command().option('--from <time>', '', timeOf).option('--to <time>', '', timeOf).exitOverride()
  const { operands, unknown } = window.parseOptions([...rest])
  const [word] = [...operands, ...unknown]
  if (word?.startsWith('-')) command.error(`error: unknown option '${word}'`)
  if (word !== undefined) command.error(`error: unknown part '${word}'`)
  return window.opts()
}

/** The command that makes the page again, without what a source's URL may know of passwords. */
const commandLine = (words: readonly string[], command: Command): string => {
  const given = command.options.filter(
    (option) => command.getOptionValueSource(option.attributeName()) === 'cli' && !isOutput(option.name()),
  )
  const flags = given.flatMap((option) => {
    const values: string[] = [command.getOptionValue(option.attributeName())].flat().map(String)
    return [`--${option.name()}`, ...(option.name() === 'source' ? values.map(withoutPassword) : values)]
  })
  return ['signalbox', 'replay', 'whatif', ...words, ...flags].map(quoted).join(' ')
}
const isOutput = (name: string): boolean => ['json', 'requests'].includes(name)

const run = (words: Words, options: Options, commandText: string): Promise<number> =>
  withSource(options, async (source) => {
    const scenario = options.scenario === undefined ? [] : readScenario(options.scenario)
    const records = await collect(source)
    const policies = await policiesOf(source, options)
    const policy = options.policy === undefined ? null : await loadPolicy(options.policy, featureTypesOf(records))
    const bar = progressBar('simulating {bar} {percentage} %  {eta_formatted} left')
    bar?.start(1, 0)
    try {
      const {
        whatIf: result,
        requests,
        production,
      } = whatIf(records, policies, {
        parts: [...scenario, ...words.parts],
        policy,
        seed: options.seed,
        sloMs: options.sloMs ?? null,
        onProgress: (done, of) => {
          bar?.setTotal(of)
          bar?.update(done)
        },
      })
      bar?.stop()
      if (options.requests !== undefined) await writeRequests(options.requests, requests)
      if (options.html !== undefined)
        await writePage(options.html, whatIfHtml(result, distributionsOf(records, production, requests), commandText))
      const colour = process.stdout.isTTY === true && process.stdout.hasColors()
      process.stdout.write(options.json ? `${JSON.stringify(result, null, 2)}\n` : whatIfText(result, { colour }))
      if (!options.json && options.html !== undefined) process.stdout.write(`\nreport: ${options.html}\n`)
      return result.calibration.calibrated ? 0 : evidenceExitCode
    } finally {
      bar?.stop()
    }
  })

const writePage = async (path: string, html: string): Promise<void> => {
  try {
    await writeFile(path, html)
  } catch (error) {
    throw new SourceError('source-unreadable', `writing the page to ${path}: ${(error as Error).message}`)
  }
}

/** What became of every simulated request, in the spelling of records. */
function* linesOf(requests: readonly Simulated[]): Generator<string> {
  for (const { arrival, route, startMs, target, attempts, status, cause, ...figures } of requests)
    yield `${JSON.stringify({
      evidence: 'simulated',
      id: arrival.id,
      time: new Date(startMs).toISOString(),
      chosen: route.chosen,
      target,
      attempts,
      status,
      cause,
      latency_ms: figures.latencyMs,
      ttft_ms: figures.ttftMs,
      cost_usd: figures.costUsd,
      cached_tokens: figures.cachedTokens,
    })}\n`
}

const writeRequests = async (path: string, requests: readonly Simulated[]): Promise<void> => {
  try {
    await pipeline(Readable.from(linesOf(requests)), createWriteStream(path))
  } catch (error) {
    throw new SourceError('source-unreadable', `writing simulated requests to ${path}: ${(error as Error).message}`)
  }
}
