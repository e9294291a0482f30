// `signalbox replay reexec`: what a person types to have changed decisions asked anew, and what they are told before and after.
// 0 carried out, 3 when nothing could be answered, 4 a cap was reached (what was done is kept), 64 usage.
import { type Command, InvalidArgumentError } from 'commander'
import { parseNamedKey } from '../../router/capture/sealed.ts'
import type { DecisionRecord } from '../../router/policy/record.ts'
import {
  type CandidateOptions,
  candidateCommand,
  exitWith,
  number,
  progressBar,
  readLog,
  whole,
} from '../log-command.ts'
import { clean } from '../promote/lines.ts'
import { openPayloads, type Payloads } from './payloads.ts'
import { type Forecast, type Frame, frameOf, type JudgePlan, type Price, priceOf } from './plan.ts'
import { ReexecError } from './result.ts'
import { planOf, type RunOptions, reexecute, type Summary } from './run.ts'
import { openStoredPayloads } from './stored-payloads.ts'

const evidenceExitCode = 3
const budgetExitCode = 4
const defaults = { concurrency: 4, outputTokensMax: 4096, judgeRepeat: 0.1, seed: 7, output: 'reexec.ndjson' }
const concurrencyMax = 256

type Options = CandidateOptions & {
  readonly payloads: string
  readonly payloadKey?: ReadonlyMap<string, Buffer>
  readonly url: string
  readonly budgetUsd: number
  readonly judge?: string
  readonly judgeRepeat: number
  readonly price?: ReadonlyMap<string, Price>
  readonly callsMax?: number
  readonly tenantsMax?: number
  readonly minutesMax?: number
  readonly outputTokensMax: number
  readonly concurrency: number
  readonly margin?: number
  readonly seed: number
  readonly keyEnv?: string
  readonly output: string
  readonly dryRun?: true
  readonly json?: true
}

const price = (text: string, before: ReadonlyMap<string, Price> = new Map()): ReadonlyMap<string, Price> => {
  const [, model, input, output] = /^(.+)=([\d.]+),([\d.]+)$/.exec(text) ?? []
  const found = { input: Number(input), output: Number(output) }
  if (model && Number.isFinite(found.input) && Number.isFinite(found.output))
    return new Map([...before, [model, found]])
  throw new InvalidArgumentError(
    `found '${text}'; wanted model=input,output in US dollars per million tokens, as in small=0.25,2`,
  )
}

const url = (text: string): string => {
  if (/^https?:\/\//.test(text) && URL.canParse(text)) return text
  throw new InvalidArgumentError(`found '${text}'; wanted a URL such as http://127.0.0.1:8080/v1`)
}

const payloadKey = (text: string, before: ReadonlyMap<string, Buffer> = new Map()): ReadonlyMap<string, Buffer> => {
  // biome-ignore lint/style/noProcessEnv: a key comes from the environment and from nowhere else.
  const found = parseNamedKey(text, process.env)
  if (typeof found === 'string') throw new InvalidArgumentError(found)
  return new Map([...before, found])
}

const integerOrZero = number('a whole number from 0', -1, Number.MAX_SAFE_INTEGER, true)

/** Options that bound what is spent. */
const withCaps = (command: Command): Command =>
  command
    .requiredOption('--budget-usd <amount>', 'never spend more, judge included', number('an amount above 0', 0))
    .option('--calls-max <count>', "never send more requests, the judge's included", whole('a whole number above 0'))
    .option('--minutes-max <minutes>', 'never take longer', number('a number above 0', 0))
    .option(
      '--tenants-max <count>',
      'ask the requests of so many tenants only, drawn by a hash',
      whole('a whole number above 0'),
    )
    .option(
      '--output-tokens-max <count>',
      'for requests that set no limit',
      whole('a whole number above 0'),
      defaults.outputTokensMax,
    )
    .option('--price <model=in,out>', 'US dollars per million tokens, where the log has none; may be repeated', price)
    .option(
      '--margin <amount>',
      'stop once the difference in quality is known within this much',
      number('a number above 0 and up to 1', 0, 1),
    )

/** The command; `replay` mounts it. */
export const reexecCommand = (): Command =>
  withCaps(candidateCommand('reexec'))
    .description(
      "Ask the candidate's choices anew where they differ from the logged ones, within a budget (exit 0 done, 4 cap reached).",
    )
    .requiredOption(
      '--payloads <where>',
      'the requests: a file of {"id", "body", "response"?} a line, or `clickhouse` for what the router captured',
    )
    .option(
      '--payload-key <id=VARIABLE>',
      'a key of captured requests and the environment variable that holds it; may be repeated',
      payloadKey,
    )
    .requiredOption('--url <url>', 'any OpenAI-compatible API; the router itself is one', url)
    .option(
      '--judge <model>',
      'judge answers with this model, blind, against the logged answer where the payload has it',
    )
    .option(
      '--judge-repeat <share>',
      'judge this share twice, to measure the judge',
      number('a share from 0 to 1', -1e-9, 1),
      defaults.judgeRepeat,
    )
    .option(
      '--concurrency <count>',
      'requests in flight',
      number(`a whole number from 1 to ${concurrencyMax}`, 0, concurrencyMax, true),
      defaults.concurrency,
    )
    .option('--seed <number>', 'which decisions are drawn', integerOrZero, defaults.seed)
    .option('--key-env <name>', 'the environment variable that holds the API key')
    .option(
      '--output <file>',
      'the results; started again with the same file, it goes on where it stopped',
      defaults.output,
    )
    .option('--dry-run', 'only say what it would take')
    .option('--json', 'print everything as JSON')
    .addHelpText(
      'after',
      '\nExample:\n  signalbox replay reexec --policy candidate.yaml --payloads payloads.ndjson --url http://127.0.0.1:8080/v1 --budget-usd 5 --judge large',
    )
    .action(exitWith(run))

const run = async (options: Options): Promise<number> => {
  const key = keyOf(options.keyEnv)
  const { records, candidate } = await readLog(options)
  const payloads = await payloadsOf(options, records)
  try {
    const { prices, judge } = pricing(options, records)
    const tenantsMax = options.tenantsMax ?? Infinity
    const frame = frameOf(records, candidate, (id) => payloads.notes.get(id), {
      seed: options.seed,
      prices,
      judge,
      tenantsMax,
    })
    const settings: RunOptions = {
      ...options,
      key,
      judge,
      policyHash: candidate.hash,
      callsMax: options.callsMax ?? Infinity,
      minutesMax: options.minutesMax ?? Infinity,
      margin: options.margin ?? null,
    }
    const forecast = planOf(frame, settings)
    if (!options.json) print(planText(frame, forecast, options))
    if (options.dryRun) {
      if (options.json) printJson({ v: 1, plan: planJson(frame, forecast), result: null })
      return 0
    }
    const bar = progressBar('asking {bar} {value}/{total}  {spent} spent  {eta_formatted} left')
    bar?.start(Math.round(forecast.answers), 0, { spent: usdText(0) })
    const summary = await reexecute(frame, payloads, settings, (asked, usd) =>
      bar?.update(asked, { spent: usdText(usd) }),
    ).finally(() => bar?.stop())
    if (options.json) printJson({ v: 1, plan: planJson(frame, forecast), result: summary })
    else print(summaryText(summary, options))
    return exitCodeOf(summary)
  } finally {
    await payloads.close()
  }
}

const payloadsOf = (
  { payloads, source, payloadKey: keys = new Map() }: Options,
  records: readonly DecisionRecord[],
): Promise<Payloads> =>
  payloads === 'clickhouse'
    ? openStoredPayloads(source, new Set(records.map(({ id }) => id)), keys)
    : openPayloads(payloads)

const exitCodeOf = ({ stop, asked, ok }: Summary): number => {
  if (stop === 'budget' || stop === 'calls' || stop === 'minutes') return budgetExitCode
  return asked > 0 && ok === 0 ? evidenceExitCode : 0
}

const keyOf = (name: string | undefined): string | null => {
  if (name === undefined) return null
  // biome-ignore lint/style/noProcessEnv: a key comes from the environment and from nowhere else.
  const key = process.env[name]
  if (key) return key
  throw new ReexecError(
    'options-invalid',
    `reading the API key: the environment has no ${name}; set it, or leave --key-env out`,
  )
}

const pricing = (
  { price: prices = new Map(), judge: model, judgeRepeat: repeatShare }: Options,
  records: readonly DecisionRecord[],
): { prices: ReadonlyMap<string, Price>; judge: JudgePlan | null } => {
  if (model === undefined) return { prices, judge: null }
  const listed = records.at(-1)?.candidates.find((candidate) => candidate.model === model)
  const price = prices.get(model) ?? (listed ? priceOf(listed) : null)
  if (price) return { prices, judge: { model, price, repeatShare } }
  throw new ReexecError(
    'options-invalid',
    `planning the judge: the log has no price of '${model}', and without one no budget holds; give --price ${model}=input,output`,
  )
}

const print = (text: string): void => void process.stdout.write(text)
const printJson = (value: unknown): void => print(`${JSON.stringify(value, null, 2)}\n`)

const planJson = ({ rows, changed, asks, unasked, tenantShare }: Frame, forecast: Forecast) => ({
  rows,
  changed,
  askable: asks.length,
  unasked: countOf(unasked.map(({ reason }) => reason)),
  tenant_share: tenantShare,
  ...forecast,
})

const countOf = (names: readonly string[]): Readonly<Record<string, number>> =>
  Object.fromEntries([...new Set(names)].map((name) => [name, names.filter((each) => each === name).length]))

const usdText = (usd: number): string => `$${usd.toFixed(usd < 1 ? 4 : 2)}`
const unaskedWords: Readonly<Record<string, string>> = {
  'no-payload': 'have no payload',
  unpriced: 'have no known price (see --price)',
  'none-eligible': 'find no eligible model',
}

const planText = (frame: Frame, { answers, calls, usd, halfWidth }: Forecast, { budgetUsd }: Options): string => {
  const missing = Object.entries(countOf(frame.unasked.map(({ reason }) => reason)))
  const strata = Object.entries(countOf(frame.asks.map(({ from, model }) => `${from ?? 'none'} → ${model}`)))
  const share = ((100 * frame.changed) / frame.rows).toFixed(1)
  return [
    `plan: ${Math.round(frame.changed)} of ${Math.round(frame.rows)} decisions change (${share} %)`,
    ...strata.map(([name, count]) => `  ${String(count).padStart(7)}  ${clean(name)}`),
    ...missing.map(
      ([reason, count]) => `  ${String(count).padStart(7)}  cannot be asked: they ${unaskedWords[reason] ?? reason}`,
    ),
    `expected: ${Math.round(answers)} answers, ${Math.round(calls)} calls, ${usdText(usd)} of ${usdText(budgetUsd)}; quality's difference known within ±${halfWidth.toFixed(4)}`,
    '',
  ].join('\n')
}

const stopWords: Readonly<Record<Summary['stop'], string>> = {
  done: 'done: everything planned was asked',
  precise: 'done early: the difference is known closely enough',
  budget: 'stopped: the rest of the budget could not pay for another answer',
  calls: 'stopped: no calls are left',
  minutes: 'stopped: the time is up',
}

const summaryText = (summary: Summary, { output }: Options): string => {
  const { stop, asked, ok, errors, spentUsd, lostUsd, calls, unpriced, effect, judge } = summary
  const lost = lostUsd > 0 ? `, ${usdText(lostUsd)} of it set aside for calls that were cut off` : ''
  const priced = unpriced > 0 ? `; the cost of ${unpriced} is unknown and counts in full` : ''
  const lines = [
    stopWords[stop],
    `asked ${asked}: ${ok} answered, ${errors} failed; ${calls} calls, ${usdText(spentUsd)} spent${lost}${priced}`,
  ]
  if (judge) {
    const { judged, failed, abstained, repeats, disagreement, sd } = judge
    const error =
      sd === null || disagreement === null
        ? 'its error was not measured'
        : `${repeats} judged twice, ${(100 * disagreement).toFixed(0)} % of them otherwise, error of one judgement ±${sd.toFixed(3)}`
    lines.push(`judge: ${judged} judged, ${failed} without a judgement, ${abstained} abstained; ${error}`)
  }
  if (effect)
    lines.push(
      `quality: ${effect.difference >= 0 ? '+' : '−'}${Math.abs(effect.difference).toFixed(4)} ± ${effect.halfWidth.toFixed(4)} over all requests, from ${effect.answers} answers`,
    )
  return `${[...lines, `results: ${output}`].join('\n')}\n`
}
