// The scenario as it is typed: parts such as `price --model x=+10%`, joined by a lone `+`. Each kind of part has options of
// its own, and what no part knows is handed back, so that a command's other options may stand anywhere.
import { readFileSync } from 'node:fs'
import { Command, CommanderError, InvalidArgumentError } from 'commander'
import { parseYaml } from '../../router/policy/yaml.ts'
import { type Part, parseScenario, partSchema, pricesSchema, ScenarioError } from './scenario.ts'

export type Words = { readonly parts: readonly Part[]; readonly rest: readonly string[] }

const numberOf = (text: string): number => {
  const value = Number(text)
  if (text.trim() !== '' && Number.isFinite(value)) return value
  throw new InvalidArgumentError(`found '${text}'; wanted a number`)
}

const timeOf = (text: string): string => {
  if (!Number.isNaN(Date.parse(text))) return new Date(text).toISOString()
  throw new InvalidArgumentError(`found '${text}'; wanted a time such as 2026-11-01T08:00:00Z`)
}

/** `x=+10%` as `{x: 1.1}`. */
const factorOf = (text: string, before: Readonly<Record<string, number>> = {}): Record<string, number> => {
  const found = /^(.+)=([+-]\d+(?:\.\d+)?)%$/.exec(text)
  const factor = 1 + Number(found?.[2]) / 100
  if (!found?.[1] || factor < 0) throw new InvalidArgumentError(`found '${text}'; wanted MODEL=+10% or MODEL=-10%`)
  return { ...before, [found[1]]: (before[found[1]] ?? 1) * factor }
}

/** `tag:category=math=0.5` as `{'tag:category=math': 0.5}`. */
const shareOf = (text: string, before: Readonly<Record<string, number>> = {}): Record<string, number> => {
  const split = text.lastIndexOf('=')
  const share = Number(text.slice(split + 1))
  if (split > 0 && text.slice(0, split).includes('=') && share >= 0 && share <= 1)
    return { ...before, [text.slice(0, split)]: share }
  throw new InvalidArgumentError(`found '${text}'; wanted SEGMENT=VALUE=SHARE such as tag:category=math=0.5`)
}

const readText = (path: string): string => {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    throw new ScenarioError(`reading ${path}: ${(error as Error).message}`)
  }
}

const pricesOf = (path: string) => {
  const parsed = parseYaml(readText(path), pricesSchema, path)
  if (parsed.ok) return parsed.value
  throw new ScenarioError(parsed.problems.join('\n'))
}

const kinds: Readonly<Record<Part['kind'], (part: Command) => Command>> = {
  price: (part) =>
    part
      .option('--model <change>', 'scale the prices of a model: MODEL=+10% (repeatable)', factorOf)
      .option('--file <prices.yaml>', 'set prices: MODEL: {input_usd_per_mtok: 1, output_usd_per_mtok: 4}', pricesOf),
  outage: (part) =>
    part
      .option('--model <model>', 'what is down')
      .option('--from <time>', 'from when', timeOf)
      .option('--to <time>', 'until when', timeOf)
      .option('--fail-after-ms <ms>', 'how long a call takes to fail (default 1000)', numberOf),
  ratelimit: (part) =>
    part
      .option('--model <model>', 'what is limited')
      .option('--rpm <n>', 'requests per minute; more are answered 429', numberOf)
      .option('--tpm <n>', 'tokens in and out per minute; more are answered 429', numberOf)
      .option('--concurrency <n>', 'calls at once; more wait in line', numberOf),
  retire: (part) =>
    part
      .option('--model <model>', 'what is gone')
      .option('--successor <model>', 'what takes its place wherever it is named'),
  cache: (part) =>
    part
      .option(
        '--ttl <seconds>',
        'how long a block of a prompt is kept after its last use (default: for ever)',
        numberOf,
      )
      .option('--size <tokens>', 'how much each target keeps (default: all)', numberOf)
      .option('--discount <share>', 'what is taken off the price of cached input (default 0.9)', numberOf),
  traffic: (part) =>
    part
      .option('--scale <factor>', 'so many times the requests', numberOf)
      .option('--mix <share>', 'the share a segment becomes: tag:category=math=0.5 (repeatable)', shareOf),
}

/** What the options of a kind of part are called as data. */
const partOf = (kind: Part['kind'], { model, file, ...options }: Record<string, unknown>): unknown => {
  switch (kind) {
    case 'price':
      return {
        kind,
        ...(file === undefined ? {} : { prices: file }),
        ...(model === undefined ? {} : { factors: model }),
      }
    case 'outage': {
      const { failAfterMs, ...window } = options
      return { kind, model, ...window, ...(failAfterMs === undefined ? {} : { fail_after_ms: failAfterMs }) }
    }
    case 'cache': {
      const { ttl, size, discount } = options
      const given = Object.entries({ ttl_s: ttl, size_tokens: size, discount })
      return { kind, ...Object.fromEntries(given.filter(([, value]) => value !== undefined)) }
    }
    case 'ratelimit':
    case 'retire':
    case 'traffic':
      return { kind, ...(model === undefined ? {} : { model }), ...options }
  }
}

const isKind = (word: string | undefined): word is Part['kind'] => word !== undefined && Object.hasOwn(kinds, word)

/** Cuts words at each lone `+`. */
const cut = (words: readonly string[]): string[][] => {
  const plus = words.indexOf('+')
  return plus < 0 ? [[...words]] : [words.slice(0, plus), ...cut(words.slice(plus + 1))]
}

/**
 * Reads typed parts. What stands before the first part, and every option that no part knows, comes back as `rest`. Throws a
 * ScenarioError that says what was found and wanted.
 */
export const parseWords = (words: readonly string[]): Words => {
  const first = words.findIndex(isKind)
  if (first < 0) return { parts: [], rest: words }
  const read = cut(words.slice(first)).map(parsePart)
  return { parts: read.map(({ part }) => part), rest: [...words.slice(0, first), ...read.flatMap(({ rest }) => rest)] }
}

const parsePart = ([kind, ...words]: readonly string[]): { part: Part; rest: string[] } => {
  if (!isKind(kind))
    throw new ScenarioError(
      `reading the scenario: found '${kind ?? ''}'; wanted one of ${Object.keys(kinds).join(', ')}`,
    )
  const command = kinds[kind](new Command(kind))
    .exitOverride()
    .configureOutput({ writeErr: () => {} })
  const rest = restOf(command, words)
  const result = partSchema.safeParse(partOf(kind, command.opts()))
  if (result.success) return { part: result.data, rest }
  const problems = result.error.issues.map(({ path, message }) => `${path.join('.') || kind}: ${message}`)
  throw new ScenarioError(`reading the scenario: ${kind}: ${problems.join('; ')}`)
}

const restOf = (command: Command, words: readonly string[]): string[] => {
  try {
    const { operands, unknown } = command.parseOptions([...words])
    return [...operands, ...unknown]
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error
    throw new ScenarioError(`reading the scenario: ${command.name()}: ${error.message.replace(/^error: /, '')}`)
  }
}

/** Reads a scenario file. */
export const readScenario = (path: string): Part[] => parseScenario(readText(path), path)

/** Every kind of part with its options, for the help. */
export const partsHelp = (): string =>
  Object.entries(kinds)
    .map(([kind, options]) => {
      const lines = options(new Command(kind)).options.map(
        ({ flags, description }) => `    ${flags.padEnd(22)} ${description}`,
      )
      return [`  ${kind}`, ...lines].join('\n')
    })
    .join('\n')
