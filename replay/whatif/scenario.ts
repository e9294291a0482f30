// A scenario: what is supposed to be different, as data. Parts are written on the command line or in a YAML file, and put
// together they are one world in which the traffic is simulated. Their order does not matter: prices are set before they are
// scaled, limits are the tighter one, and two parts that contradict each other are refused.
import { z } from 'zod'
import type { DecisionRecord } from '../../router/policy/record.ts'
import { parseYaml } from '../../router/policy/yaml.ts'
import type { CacheSettings } from './prompt-cache.ts'
import { type Limits, noLimits, tighter } from './queue.ts'

const partsMax = 100
const namesShownMax = 12
const scaleMax = 100
/** What most providers take off the price of input that their cache has. */
const cacheDiscount = 0.9
/** A target that is down says so after about a second: a refused connection, or a 503 from the load balancer. */
const failAfterMs = 1000

const model = z.string().min(1).max(200)
const amount = z.number().min(0)
const positive = z.number().gt(0)
const share = z.number().min(0).max(1)
const time = z.iso.datetime({ offset: true })
const price = z.strictObject({ input_usd_per_mtok: amount, output_usd_per_mtok: amount })
export const pricesSchema = z.record(model, price)

export const partSchema = z.discriminatedUnion('kind', [
  /** `prices` are set, then `factors` are applied: 1.1 is ten percent more. */
  z.strictObject({
    kind: z.literal('price'),
    prices: pricesSchema.default({}),
    factors: z.record(model, amount).default({}),
  }),
  z.strictObject({
    kind: z.literal('outage'),
    model,
    from: time,
    to: time,
    fail_after_ms: amount.default(failAfterMs),
  }),
  z.strictObject({
    kind: z.literal('ratelimit'),
    model,
    rpm: positive.optional(),
    tpm: positive.optional(),
    concurrency: z.int().min(1).optional(),
  }),
  /** A successor takes the model's place wherever a policy or a client names it. */
  z.strictObject({ kind: z.literal('retire'), model, successor: model.optional() }),
  z.strictObject({
    kind: z.literal('cache'),
    ttl_s: positive.optional(),
    size_tokens: positive.optional(),
    discount: share.default(cacheDiscount),
  }),
  /** `mix` says which share of the traffic a segment becomes: `tag:category=math`, `tier=free`, `tenant=acme`. */
  z.strictObject({
    kind: z.literal('traffic'),
    scale: positive.max(scaleMax).default(1),
    mix: z.record(z.string().regex(/^(?:tag:[^=]+|tier|tenant|user)=.*$/s), share).default({}),
  }),
])
export type Part = Readonly<z.infer<typeof partSchema>>
export type Price = Readonly<z.infer<typeof price>>

/** The scenario contradicts itself, or the log. */
export class ScenarioError extends Error {
  readonly code = 'scenario-invalid'
}

/** Reads a list of parts from YAML; `where` is the file's name in messages. */
export const parseScenario = (text: string, where: string): Part[] => {
  const parsed = parseYaml(text, z.array(partSchema).max(partsMax), where)
  if (parsed.ok) return parsed.value
  throw new ScenarioError(parsed.problems.join('\n'))
}

export type Outage = { readonly fromMs: number; readonly toMs: number; readonly failAfterMs: number }

/** Everything that is different, in one place. Models that nothing names are as they were. */
export type World = {
  readonly prices: ReadonlyMap<string, Price>
  readonly priceFactors: ReadonlyMap<string, number>
  readonly outages: ReadonlyMap<string, readonly Outage[]>
  readonly limits: ReadonlyMap<string, Limits>
  /** Retired models with what serves in their place; null is nothing. */
  readonly retired: ReadonlyMap<string, string | null>
  readonly cache: (CacheSettings & { readonly discount: number }) | null
  readonly scale: number
  /** Segment → the share of the traffic that it becomes. */
  readonly mix: ReadonlyMap<string, number>
}

type Of<Kind extends Part['kind']> = Extract<Part, { kind: Kind }>

/** Puts parts together. Throws a ScenarioError when two of them contradict each other. */
export const worldOf = (parts: readonly Part[]): World => {
  const of = <Kind extends Part['kind']>(kind: Kind) => parts.filter((part): part is Of<Kind> => part.kind === kind)
  const factors = new Map<string, number>()
  for (const [name, factor] of of('price').flatMap((part) => Object.entries(part.factors)))
    factors.set(name, (factors.get(name) ?? 1) * factor)
  const limits = new Map<string, Limits>()
  for (const { model: name, rpm, tpm, concurrency } of of('ratelimit')) {
    const limit = {
      concurrency: concurrency ?? Infinity,
      requestsPerMinute: rpm ?? Infinity,
      tokensPerMinute: tpm ?? Infinity,
    }
    limits.set(name, tighter(limits.get(name) ?? noLimits, limit))
  }
  const [cache, ...caches] = of('cache')
  if (caches.length > 0) throw new ScenarioError('composing the scenario: there are two caches; wanted one')
  return {
    prices: once(
      'price',
      of('price').flatMap((part) => Object.entries(part.prices)),
    ),
    priceFactors: factors,
    outages: outagesOf(of('outage')),
    limits,
    retired: successorsOf(
      once(
        'successor',
        of('retire').map(({ model: name, successor }) => [name, successor ?? null]),
      ),
    ),
    cache: cache
      ? {
          ttlMs: (cache.ttl_s ?? Infinity) * 1000,
          tokensMax: cache.size_tokens ?? Infinity,
          discount: cache.discount,
        }
      : null,
    scale: of('traffic').reduce((product, part) => product * part.scale, 1),
    mix: mixOf(of('traffic')),
  }
}

/** A map in which nothing is said twice with different values. */
const once = <Value>(what: string, entries: readonly (readonly [string, Value])[]): Map<string, Value> => {
  const map = new Map<string, Value>()
  for (const [name, value] of entries) {
    if (map.has(name) && JSON.stringify(map.get(name)) !== JSON.stringify(value))
      throw new ScenarioError(
        `composing the scenario: '${name}' is given two different values as its ${what}; wanted one`,
      )
    map.set(name, value)
  }
  return map
}

const outagesOf = (parts: readonly Of<'outage'>[]): Map<string, Outage[]> => {
  const outages = new Map<string, Outage[]>()
  for (const { model: name, from, to, fail_after_ms: failAfter } of parts) {
    const outage = { fromMs: Date.parse(from), toMs: Date.parse(to), failAfterMs: failAfter }
    if (outage.fromMs >= outage.toMs)
      throw new ScenarioError(`the outage of '${name}' goes from ${from} to ${to}; wanted an end after its beginning`)
    outages.set(
      name,
      [...(outages.get(name) ?? []), outage].sort((a, b) => a.fromMs - b.fromMs),
    )
  }
  return outages
}

/** Follows successors that are themselves retired, so that each leads to a model that serves, or to none. */
const successorsOf = (direct: ReadonlyMap<string, string | null>): Map<string, string | null> =>
  new Map(
    [...direct].map(([name, successor]) => {
      let last = successor
      for (let hops = 0; last !== null && direct.has(last); hops++) {
        if (hops > direct.size)
          throw new ScenarioError(`retiring '${name}': its successors lead in a circle; wanted one that serves`)
        last = direct.get(last) ?? null
      }
      return [name, last]
    }),
  )

const mixOf = (parts: readonly Of<'traffic'>[]): Map<string, number> => {
  const entries = parts.flatMap((part) => Object.entries(part.mix))
  const mix = once(
    'share',
    entries.sort(([a], [b]) => (a < b ? -1 : 1)),
  )
  const sum = [...mix.values()].reduce((total, part) => total + part, 0)
  if (sum > 1 + 1e-9)
    throw new ScenarioError(`the shares of --mix sum to ${sum}; wanted at most 1, the rest is for all other traffic`)
  return mix
}

/** Checks that every model a scenario names is one that the log knows. */
export const checkNames = (
  { prices, priceFactors, outages, limits, retired }: World,
  known: ReadonlySet<string>,
): void => {
  const successors = [...retired.values()].filter((name) => name !== null)
  const named = [prices, priceFactors, outages, limits, retired].flatMap((map) => [...map.keys()])
  for (const name of [...named, ...successors])
    if (!known.has(name)) {
      const shown = [...known].sort().slice(0, namesShownMax).join(', ')
      throw new ScenarioError(`the scenario names the model '${name}', which no record considers; they have: ${shown}`)
    }
}

/** Whether a request belongs to a segment such as `tag:category=math`. */
export const isIn = (segment: string, { request }: Pick<DecisionRecord, 'request'>): boolean => {
  const split = segment.indexOf('=')
  const [name, value] = [segment.slice(0, split), segment.slice(split + 1)]
  if (name === 'tier' || name === 'tenant' || name === 'user') return request[name] === value
  return (request.tags[name.slice('tag:'.length)] ?? '') === value
}

/** What serves when a model is asked for: itself, its successor, or nothing. */
export const serverOf = ({ retired }: World, name: string): string | null => {
  const successor = retired.get(name)
  return successor === undefined ? name : successor
}

/** The outage a model is in at a moment. */
export const outageAt = ({ outages }: World, name: string, nowMs: number): Outage | undefined =>
  outages.get(name)?.find(({ fromMs, toMs }) => nowMs >= fromMs && nowMs < toMs)

/** A model's price in the world, from the one it had; null stays null unless a price was set. */
export const priceIn = ({ prices, priceFactors }: World, name: string, before: Price | null): Price | null => {
  const price = prices.get(name) ?? before
  const factor = priceFactors.get(name) ?? 1
  return price && factor !== 1
    ? { input_usd_per_mtok: price.input_usd_per_mtok * factor, output_usd_per_mtok: price.output_usd_per_mtok * factor }
    : price
}
