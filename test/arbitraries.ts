// Random contexts, policies and records for the laws, shared by every test that states one.
import fc from 'fast-check'
import type { FeatureTypes } from '../router/policy/cel.ts'
import { parsePolicy } from '../router/policy/policy.ts'
import {
  type Context,
  type DecisionRecord,
  type Outcome,
  outcomeStatuses,
  recordOf,
  streamEnds,
} from '../router/policy/record.ts'

// One seed for all laws, printed by fast-check when a law fails; SEED=… tries another.
fc.configureGlobal({ seed: Number(process.env.SEED ?? 7) })

export const featureTypes: FeatureTypes = {
  cost_usd: 'double',
  quality: 'double',
  ttft_ms: 'double',
  region: 'string',
  breaker: 'string',
  context_tokens_max: 'double',
}

const positive = fc.double({ min: 0, max: 1e6, noNaN: true })
const unit = fc.double({ min: 0, max: 1, noNaN: true })
const models = ['alpha', 'beta', 'gamma', 'delta', 'épsilon']
const word = fc.constantFrom('', 'free', 'premium', 'a b', 'ü"\\\n', '日本')

const features = fc.record(
  {
    cost_usd: fc.option(positive),
    quality: fc.option(unit),
    ttft_ms: positive,
    region: fc.constantFrom('eu', 'us'),
    breaker: fc.constantFrom('closed', 'closed', 'closed', 'half-open', 'open'),
    context_tokens_max: fc.constantFrom(1000, 100_000),
  },
  { noNullPrototype: true },
)

export const contexts: fc.Arbitrary<Context> = fc.record({
  id: fc.uuid(),
  time: fc.constant('2026-11-01T08:00:00.000Z'),
  session: word,
  request: fc.record({
    model: fc.constantFrom('auto', 'auto', 'auto', 'alpha'),
    input_tokens: fc.nat(5000),
    output_tokens_max: fc.option(fc.nat(5000)),
    stream: fc.boolean(),
    tier: word,
    tenant: word,
    user: word,
    tags: fc.dictionary(fc.constantFrom('category', 'region'), word, { noNullPrototype: true }),
  }),
  candidates: fc
    .uniqueArray(fc.constantFrom(...models), { minLength: 1 })
    .chain((names) => fc.tuple(...names.map((model) => features.map((known) => ({ model, features: known }))))),
})

const per = fc.constantFrom('request', 'session', 'user', 'tenant')
const choose = fc.oneof(
  fc.constant({ kind: 'highest' }),
  fc.constant({ kind: 'lowest' }),
  fc.record({
    kind: fc.constant('weighted'),
    weights: fc.dictionary(fc.constantFrom(...models), fc.integer({ min: 1, max: 9 }), {
      minKeys: 1,
      noNullPrototype: true,
    }),
    per,
  }),
  fc.record({ kind: fc.constant('softmax'), temperature: fc.double({ min: 0.01, max: 100, noNaN: true }), per }),
)
export const bodies = fc.record(
  {
    filter: fc.constantFrom({}, { near: 'candidate.region == "eu"' }, { cheap: 'candidate.cost_usd < 100' }),
    score: fc.constantFrom(
      'candidate.quality - 40.0 * candidate.cost_usd',
      '1.0',
      'candidate.ttft_ms / request.input_tokens',
    ),
    choose,
    explore: fc.record({ rate: unit, floor: unit, per }),
    fallback: fc.record({ attempts_max: fc.integer({ min: 1, max: 6 }) }),
  },
  { requiredKeys: ['score', 'choose'] },
)
const uses = fc.oneof(
  bodies,
  fc.tuple(bodies, bodies).map(([a, b]) => ({
    rules: [
      { name: 'first', when: 'request.tier == "premium"', use: a },
      { name: 'rest', use: b },
    ],
  })),
  fc.tuple(bodies, bodies, fc.integer({ min: 0, max: 8 }), per).map(([a, b, eighths, by]) => ({
    split: {
      per: by,
      arms: [
        { name: 'a', share: eighths / 8, use: a },
        { name: 'b', share: 1 - eighths / 8, use: b },
      ],
    },
  })),
)
/** Policies of every shape, compiled. */
export const policies = uses.map((use) => parsePolicy(JSON.stringify({ name: 'random', ...use }), featureTypes))

export const outcomes: fc.Arbitrary<Outcome> = fc.record({
  status: fc.constantFrom(...outcomeStatuses),
  served: fc.option(fc.constantFrom(...models)),
  attempts: fc.nat(5),
  http_status: fc.constantFrom(200, 429, 502, 503),
  error_type: fc.option(fc.constantFrom('429', 'connect')),
  cost_usd: fc.option(positive),
  cost_source: fc.constantFrom('measured', 'estimated', 'unknown'),
  latency_ms: fc.option(positive),
  ttft_ms: fc.option(positive),
  input_tokens: fc.option(fc.nat()),
  output_tokens: fc.option(fc.nat()),
  tokens_source: fc.constantFrom('measured', 'estimated', 'unknown'),
  stream_end: fc.option(fc.constantFrom(...streamEnds)),
  quality: fc.option(unit),
})

/** Records as the router writes them. */
export const records: fc.Arbitrary<DecisionRecord> = fc
  .tuple(policies, contexts, outcomes)
  // Cloned, because fast-check's objects have no prototype and those that are parsed do.
  .map(([policy, context, outcome]) => structuredClone(recordOf(context, policy.decide(context), outcome)))
