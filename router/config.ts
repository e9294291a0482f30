// signalbox.yaml: the one file a person writes, and the only place that reads the environment. It is parsed once, every
// mistake is reported with its line, and what comes out needs no further checks.
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { z } from 'zod'
import type { FeatureTypes } from './policy/cel.ts'
import { type Policy, PolicyError, parsePolicy } from './policy/policy.ts'
import { textMax } from './policy/record.ts'
import { type Path, parseYaml, pathText } from './policy/yaml.ts'
import { bookPrice, configuredPrice, type Price, unknownPrice } from './prices.ts'
import { snapshotTypes } from './snapshot.ts'
import type { Provider, Target } from './target.ts'

const timeoutMsMax = 3_600_000
const timeout = (otherwise: number) => z.int().min(1).max(timeoutMsMax).default(otherwise)
const name = z.string().min(1).max(200)
/** Names that a header can carry. */
const modelName = name
  .regex(/^[\x21-\x7e]+$/, 'wanted printable ASCII without spaces')
  .refine((text) => text !== 'auto', {
    error: "'auto' is what clients ask for when the policy is to choose",
  })
const usd = z.number().min(0)
const tokenLengthMin = 16
const featureName = z.string().regex(/^[a-z][a-z0-9_]*$/, 'wanted a name in snake_case')

const configSchema = z.strictObject({
  listen: z
    .strictObject({ host: z.string().default('127.0.0.1'), port: z.int().min(0).max(65_535).default(8080) })
    .prefault({}),
  /** Client keys. Without any, the router listens on loopback only. */
  keys: z
    .array(
      z
        .strictObject({
          name,
          sha256: z
            .string()
            .regex(/^[0-9a-f]{64}$/, 'wanted 64 hex digits')
            .optional(),
          key_env: z.string().optional(),
          tenant: z.string().max(textMax.tenant).default(''),
          tier: z.string().max(textMax.tier).default(''),
        })
        .refine((key) => (key.sha256 === undefined) !== (key.key_env === undefined), {
          error: 'wanted either sha256 (of the key) or key_env (the variable that holds it)',
        }),
    )
    .default([]),
  /** Who may change the policy at run time; without it there is no such endpoint. */
  admin: z.strictObject({ token_env: name }).nullable().default(null),
  telemetry: z
    .union([
      z.literal(false),
      z.strictObject({
        endpoint: z.url({ protocol: /^https?$/ }).default('http://127.0.0.1:4318'),
        service_name: name.default('signalbox'),
      }),
    ])
    .prefault({}),
  policy: z.union([name, z.looseObject({ name })]),
  providers: z
    .array(
      z.strictObject({
        name,
        kind: z.literal('openai'),
        base_url: z.url({ protocol: /^https?$/ }).refine((url) => !/[?#]|\/\/[^/]*@/.test(url), {
          error: 'wanted an address without a query, a fragment or credentials; keys go into api_key_env',
        }),
        api_key_env: z.string().optional(),
        /** Whether the provider is to continue the trace: it then gets a `traceparent` naming the attempt's span. */
        pass_traceparent: z.boolean().default(false),
        timeouts_ms: z
          .strictObject({
            connect: timeout(3000),
            first_byte: timeout(60_000),
            idle: timeout(30_000),
            total: timeout(600_000),
          })
          .prefault({}),
      }),
    )
    .min(1),
  models: z
    .array(
      z.strictObject({
        name: modelName,
        provider: name,
        upstream_model: name.optional(),
        context_tokens_max: z.int().min(1).optional(),
        price: z
          .union([
            z.strictObject({
              input_usd_per_mtok: usd,
              output_usd_per_mtok: usd,
              cached_input_usd_per_mtok: usd.optional(),
            }),
            z.strictObject({ book: z.string().regex(/^[^/]+\/.+$/, 'wanted provider/model, as in openai/gpt-5-mini') }),
          ])
          .optional(),
        features: z.record(featureName, z.union([z.number(), z.string().max(500), z.boolean()])).default({}),
      }),
    )
    .min(1)
    .max(1000),
  collector: z
    .strictObject({
      data: z.string().default('.signalbox/data'),
      clickhouse_url: z.url().nullable().default(null),
      otlp_port: z.int().min(0).max(65_535).default(4318),
      clickhouse_port: z.int().min(0).max(65_535).default(8123),
    })
    .prefault({}),
})
type ConfigFile = z.infer<typeof configSchema>

export type ClientKey = {
  readonly name: string
  readonly sha256: string
  readonly tenant: string
  readonly tier: string
}
export type Config = Pick<ConfigFile, 'listen' | 'telemetry' | 'collector'> & {
  readonly keys: readonly ClientKey[]
  /** The key of the admin endpoints; null when there are none. */
  readonly admin: ClientKey | null
  /** Sorted by model name. */
  readonly targets: readonly Target[]
  readonly policy: Policy
  /** What a policy may read as `candidate.<name>`. */
  readonly features: FeatureTypes
  /** Things that work but that a person should know, such as a model without a price. */
  readonly warnings: readonly string[]
}

export class ConfigError extends Error {
  readonly code = 'config-invalid'
  constructor(problems: readonly string[]) {
    super(problems.join('\n'))
  }
}

type Report = (path: Path, message: string) => void

const priceOf = (model: ConfigFile['models'][number], report: Report, at: number): Price => {
  const { price } = model
  if (price && 'input_usd_per_mtok' in price) return configuredPrice(price)
  const [provider, ...rest] = (price?.book ?? `${model.provider}/${model.upstream_model ?? model.name}`).split('/')
  const found = bookPrice(provider as string, rest.join('/'))
  if (!found && price) report(['models', at, 'price', 'book'], `the price book has no ${price.book}`)
  return found ?? unknownPrice
}

const targetsOf = (file: ConfigFile, env: NodeJS.ProcessEnv, report: Report): Target[] => {
  const providers = new Map<string, Provider>()
  for (const [at, provider] of file.providers.entries()) {
    if (providers.has(provider.name)) report(['providers', at, 'name'], `'${provider.name}' is there twice`)
    const { connect, first_byte: firstByte, idle, total } = provider.timeouts_ms
    const apiKey = provider.api_key_env ? env[provider.api_key_env] : undefined
    if (provider.api_key_env && !apiKey)
      report(['providers', at, 'api_key_env'], `the environment has no ${provider.api_key_env}`)
    providers.set(provider.name, {
      name: provider.name,
      kind: provider.kind,
      baseUrl: new URL(provider.base_url.endsWith('/') ? provider.base_url : `${provider.base_url}/`),
      apiKey: apiKey ?? null,
      passTraceparent: provider.pass_traceparent,
      timeoutsMs: { connect, firstByte, idle, total },
    })
  }
  const seen = new Set<string>()
  const targets = file.models.flatMap((model, at): Target[] => {
    if (seen.has(model.name)) report(['models', at, 'name'], `'${model.name}' is there twice`)
    seen.add(model.name)
    for (const feature of Object.keys(model.features))
      if (Object.hasOwn(snapshotTypes, feature) && feature !== 'quality')
        report(['models', at, 'features', feature], `'${feature}' is measured by the router and cannot be set`)
    const provider = providers.get(model.provider)
    if (!provider) {
      report(
        ['models', at, 'provider'],
        `'${model.provider}' is not among the providers: ${[...providers.keys()].join(', ')}`,
      )
      return []
    }
    return [
      {
        model: model.name,
        upstreamModel: model.upstream_model ?? model.name,
        provider,
        contextTokensMax: model.context_tokens_max ?? null,
        price: priceOf(model, report, at),
        features: model.features,
      },
    ]
  })
  return targets.sort((a, b) => (a.model < b.model ? -1 : 1))
}

/** What policies may read as `candidate.<name>` under this configuration. */
const featureTypesOf = (file: ConfigFile, report: Report): FeatureTypes => {
  const types: Record<string, FeatureTypes[string]> = { ...snapshotTypes }
  for (const [at, { features }] of file.models.entries())
    for (const [feature, value] of Object.entries(features)) {
      const type = typeof value === 'number' ? 'double' : typeof value === 'string' ? 'string' : 'bool'
      const known = Object.hasOwn(types, feature) ? types[feature] : undefined
      if (known && known !== type)
        report(['models', at, 'features', feature], `found ${type}, but it is ${known} on another model`)
      types[feature] = type
    }
  return types
}

const keysOf = (file: ConfigFile, env: NodeJS.ProcessEnv, report: Report): ClientKey[] =>
  file.keys.flatMap(({ name: keyName, sha256, key_env: variable, tenant, tier }, at) => {
    const key = variable ? env[variable] : undefined
    if (variable && !key) report(['keys', at, 'key_env'], `the environment has no ${variable}`)
    const digest = sha256 ?? (key ? createHash('sha256').update(key).digest('hex') : undefined)
    return digest ? [{ name: keyName, sha256: digest, tenant, tier }] : []
  })

const adminOf = ({ admin }: ConfigFile, env: NodeJS.ProcessEnv, report: Report): ClientKey | null => {
  if (!admin) return null
  const token = env[admin.token_env] ?? ''
  if (token.length < tokenLengthMin)
    report(['admin', 'token_env'], `${admin.token_env} is unset or shorter than ${tokenLengthMin} characters`)
  return { name: 'admin', sha256: createHash('sha256').update(token).digest('hex'), tenant: '', tier: '' }
}

const loopback = new Set(['127.0.0.1', '::1', 'localhost'])

const policyOf = (
  policy: ConfigFile['policy'],
  features: FeatureTypes,
  folder: string,
  report: Report,
): Policy | null => {
  const file = typeof policy === 'string' ? resolve(folder, policy) : null
  try {
    return file
      ? parsePolicy(readFileSync(file, 'utf8'), features, policy as string)
      : parsePolicy(JSON.stringify(policy), features, 'policy')
  } catch (error) {
    if (error instanceof PolicyError) for (const problem of error.problems) report(['policy'], problem)
    else if ((error as NodeJS.ErrnoException).syscall)
      report(['policy'], `${file} cannot be read (${(error as NodeJS.ErrnoException).code})`)
    else throw error
    return null
  }
}

/**
 * Parses a configuration. `folder` is where relative paths in it start; `where` is its name in messages.
 * Throws a ConfigError that lists every problem as `file:line: path: found, wanted`.
 */
export const parseConfig = (text: string, folder: string, where = 'signalbox.yaml', env = process.env): Config => {
  const parsed = parseYaml(text, configSchema, where)
  if (!parsed.ok) throw new ConfigError(parsed.problems)
  const file = parsed.value
  const problems: string[] = []
  const report: Report = (path, message) =>
    problems.push(`${where}:${parsed.lineOf(path)}: ${pathText(path)}: ${message}`)
  const targets = targetsOf(file, env, report)
  const features = featureTypesOf(file, report)
  const policy = policyOf(file.policy, features, folder, report)
  const keys = keysOf(file, env, report)
  const admin = adminOf(file, env, report)
  if (!loopback.has(file.listen.host) && file.keys.length === 0)
    report(['listen', 'host'], `${file.listen.host} is not loopback, so client keys are required (keys: …)`)
  if (problems.length > 0 || !policy) throw new ConfigError(problems)
  const warnings = targets
    .filter(({ price }) => price.source === 'unknown')
    .map(({ model }) => `no price is known for ${model}: its cost is recorded as unknown; set models[].price`)
  return {
    listen: file.listen,
    telemetry: file.telemetry,
    collector: { ...file.collector, data: resolve(folder, file.collector.data) },
    keys,
    admin,
    targets,
    policy,
    features,
    warnings,
  }
}

/** Reads and parses a configuration file. Throws a ConfigError. */
export const loadConfig = (file: string): Config => {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (error) {
    throw new ConfigError([
      `${file}: cannot be read (${(error as NodeJS.ErrnoException).code}); --config names the file`,
    ])
  }
  return parseConfig(text, dirname(resolve(file)), file)
}
