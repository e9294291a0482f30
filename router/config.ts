// signalbox.yaml: the one file a person writes, and the only place that reads the environment. It is parsed once, every
// mistake is reported with its line, and what comes out needs no further checks.
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { type CaptureMode, type CaptureSettings, captureOf, captureWarnings } from './capture/settings.ts'
import { type ConfigFile, configSchema } from './config-schema.ts'
import type { FeatureTypes } from './policy/cel.ts'
import { type Policy, PolicyError, parsePolicy } from './policy/policy.ts'
import { type Path, parseYaml, pathText } from './policy/yaml.ts'
import { bookPrice, configuredPrice, type Price, unknownPrice } from './prices.ts'
import { snapshotTypes } from './snapshot.ts'
import type { Provider, Target } from './target.ts'

const tokenLengthMin = 16
const bytesPerMegabyte = 1_048_576

export type ClientKey = {
  readonly name: string
  readonly sha256: string
  readonly tenant: string
  readonly tier: string
  /** How much of this client's texts is captured; null leaves it to the rest of the configuration. */
  readonly capture: CaptureMode | null
}
/** Where telemetry goes, and what keeps it until it is there. */
export type TelemetryConfig = {
  readonly endpoint: string
  readonly serviceName: string
  /** Shown to the collector as a bearer token; null when it asks for none. */
  readonly token: string | null
  /** False keeps what waits in memory only. */
  readonly spool: { readonly folder: string; readonly bytesMax: number; readonly whenFull: 'drop' | 'refuse' } | false
}
export type Config = Pick<ConfigFile, 'listen'> & {
  /** `token` is what senders must show; null when anyone may send. */
  readonly collector: ConfigFile['collector'] & {
    readonly token: string | null
    readonly users: readonly { readonly name: string; readonly password: string; readonly readonly: boolean }[]
  }
  readonly telemetry: TelemetryConfig | false
  /** Null when nothing is captured. */
  readonly capture: CaptureSettings | null
  /** The file of evaluators for `signalbox up`; null when it evaluates nothing. */
  readonly evaluators: string | null
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
  file.keys.flatMap(({ name: keyName, sha256, key_env: variable, tenant, tier, capture = null }, at) => {
    const key = variable ? env[variable] : undefined
    if (variable && !key) report(['keys', at, 'key_env'], `the environment has no ${variable}`)
    const digest = sha256 ?? (key ? createHash('sha256').update(key).digest('hex') : undefined)
    return digest ? [{ name: keyName, sha256: digest, tenant, tier, capture }] : []
  })

const adminOf = ({ admin }: ConfigFile, env: NodeJS.ProcessEnv, report: Report): ClientKey | null => {
  if (!admin) return null
  const token = env[admin.token_env] ?? ''
  if (token.length < tokenLengthMin)
    report(['admin', 'token_env'], `${admin.token_env} is unset or shorter than ${tokenLengthMin} characters`)
  return {
    name: 'admin',
    sha256: createHash('sha256').update(token).digest('hex'),
    tenant: '',
    tier: '',
    capture: null,
  }
}

const collectorOf = ({ collector }: ConfigFile, env: NodeJS.ProcessEnv, folder: string, report: Report) => {
  const { host, token_env: variable, data } = collector
  const token = variable ? (env[variable] ?? '') : null
  if (token === null && !loopback.has(host))
    report(['collector', 'host'], `${host} is not loopback, so senders must show a token (collector.token_env)`)
  if (token !== null && token.length < tokenLengthMin)
    report(['collector', 'token_env'], `${variable} is unset or shorter than ${tokenLengthMin} characters`)
  const users = collector.clickhouse_users.map((user, index) => {
    const password = env[user.password_env] ?? ''
    if (!password) report(['collector', 'clickhouse_users', index], `the environment has no ${user.password_env}`)
    return { name: user.name, password, readonly: !user.write }
  })
  return { ...collector, token, users, data: resolve(folder, data) }
}

const telemetryOf = (
  { telemetry, collector, listen }: ConfigFile,
  env: NodeJS.ProcessEnv,
  folder: string,
  report: Report,
): TelemetryConfig | false => {
  if (!telemetry) return false
  const { endpoint, service_name: serviceName, spool } = telemetry
  // A collector on this machine is likely the one of this file; its token is shown to no other machine unasked.
  const ours = loopback.has(new URL(endpoint).hostname) ? collector.token_env : undefined
  const variable = telemetry.token_env ?? ours
  const token = variable ? env[variable] : undefined
  if (variable && !token) report(['telemetry', 'token_env'], `the environment has no ${variable}`)
  return {
    endpoint,
    serviceName,
    token: token ?? null,
    spool: spool && {
      folder: resolve(folder, spool.folder ?? join('.signalbox', 'spool', String(listen.port))),
      bytesMax: spool.megabytes_max * bytesPerMegabyte,
      whenFull: spool.when_full,
    },
  }
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
  const collector = collectorOf(file, env, folder, report)
  const telemetry = telemetryOf(file, env, folder, report)
  const keyModes = file.keys.map((key) => key.capture)
  const providerKeys = file.providers.flatMap(({ api_key_env: name }) => (name && env[name]) || [])
  const capture = captureOf(file.capture, keyModes, env, report, providerKeys)
  const collectorHost = telemetry ? new URL(telemetry.endpoint).hostname : ''
  if (!loopback.has(file.listen.host) && file.keys.length === 0)
    report(['listen', 'host'], `${file.listen.host} is not loopback, so client keys are required (keys: …)`)
  if (problems.length > 0 || !policy) throw new ConfigError(problems)
  const warnings = [
    ...targets
      .filter(({ price }) => price.source === 'unknown')
      .map(({ model }) => `no price is known for ${model}: its cost is recorded as unknown; set models[].price`),
    ...captureWarnings(capture, loopback.has(file.listen.host) && loopback.has(collectorHost)),
  ]
  return {
    listen: file.listen,
    telemetry,
    capture,
    evaluators: file.evaluators ? resolve(folder, file.evaluators) : null,
    collector,
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
