// The SQL that a policy compiles to, on the real engine: it chooses what its function chooses, for policies and expressions of
// every shape over hostile contexts, and it is declined by name where SQL has no equal.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { after, before, test } from 'node:test'
import fc from 'fast-check'
import type { Collector } from '../collector/server.ts'
import { toAttributes } from '../router/policy/attributes.ts'
import type { FeatureTypes } from '../router/policy/cel.ts'
import { type Policy, parsePolicy } from '../router/policy/policy.ts'
import { type Context, type Exclusion, recordOf } from '../router/policy/record.ts'
import { compilePoliciesSql, compilePolicySql } from '../router/policy/sql.ts'
import { columnFeatures } from '../router/policy/sql-columns.ts'
import { snapshotTypes } from '../router/snapshot.ts'
import * as arbitraries from './arbitraries.ts'
import { jsonRequest, jsonSpan, otlpAttributes, post, rowsOf, temporaryCollector } from './collector-fixtures.ts'

/** Policies of the one kind, and half of those of the other; each judges every context. */
const runs = Number(process.env.RUNS ?? 10)

const { featureTypes } = arbitraries
const startMs = Date.now() - 3_600_000
const snapshot = Object.fromEntries(Object.keys(snapshotTypes).map((name) => [name, null]))
/** Some as the router makes them, with every feature of the snapshot; some with an id of another kind. */
const contexts = fc.sample(arbitraries.contexts, 60).map((context, at): Context => {
  const id = at % 5 === 0 ? `d-${at}` : context.id
  const time = new Date(startMs + at * 1000).toISOString()
  const known = at % 2 === 0 ? { ...snapshot, provider: 'openai' } : {}
  const candidates = context.candidates.map(({ model, features }) => ({ model, features: { ...known, ...features } }))
  return JSON.parse(JSON.stringify({ ...context, id, time, candidates })) as Context
})

// Expressions of every operation that SQL has too; texts hold quotes, backslashes and characters beyond U+FFFF.
const text = fc.constantFrom('""', '"eu"', '"premium"', '"a b"', '"it\'s \\\\ `x`"', '"日本"', '"𝄞"', '"ü\\"\\\\\\n"')
const binary = (operators: readonly string[], a: fc.Arbitrary<string>, b = a) =>
  fc.tuple(a, fc.constantFrom(...operators), b).map(([x, operator, y]) => `(${x} ${operator} ${y})`)
const expressions = (fields: {
  readonly doubles: readonly string[]
  readonly texts: readonly string[]
  readonly bools: readonly string[]
}) =>
  fc.letrec<{ double: string; text: string; bool: string }>((tie) => ({
    double: fc.oneof(
      { depthSize: 'small', withCrossShrink: true },
      fc.constantFrom(...fields.doubles, '0.0', '1', '-2.5', '1e21', '1000.0', '0.1'),
      binary(['+', '-', '*', '/'], tie('double')),
      fc.tuple(tie('bool'), tie('double'), tie('double')).map(([when, x, y]) => `(${when} ? ${x} : ${y})`),
      fc
        .tuple(fc.constantFrom('least', 'greatest'), fc.array(tie('double'), { minLength: 1, maxLength: 3 }))
        .map(([name, of]) => `math.${name}(${of.join(', ')})`),
      tie('double').map((x) => `-(${x})`),
      tie('text').map((x) => `size(${x})`),
    ),
    text: fc.oneof(
      { depthSize: 'small', withCrossShrink: true },
      fc.constantFrom(...fields.texts, 'request.tags["category"]', 'request.tags.region'),
      text,
      fc.tuple(tie('text'), tie('text')).map(([x, y]) => `(${x} + ${y})`),
      tie('text').map((x) => `request.tags[${x}]`),
    ),
    bool: fc.oneof(
      { depthSize: 'small', withCrossShrink: true },
      fc.constantFrom(...fields.bools, 'true', 'request.stream'),
      binary(['<', '<=', '>', '>=', '==', '!='], tie('double')),
      binary(['==', '!='], tie('text')),
      binary(['<', '<=', '>', '>='], fc.constantFrom(...fields.texts), fc.constantFrom('"eu"', '"日本"', '""')),
      binary(['&&', '||'], tie('bool')),
      tie('bool').map((x) => `!(${x})`),
      fc
        .tuple(tie('text'), fc.constantFrom('startsWith', 'endsWith', 'contains'), tie('text'))
        .map(([x, name, y]) => `${x}.${name}(${y})`),
      tie('text').map((x) => `(${x} in request.tags)`),
      fc
        .tuple(tie('text'), fc.array(tie('text'), { minLength: 1, maxLength: 3 }))
        .map(([x, of]) => `(${x} in [${of.join(', ')}])`),
      fc
        .tuple(tie('double'), fc.array(tie('double'), { minLength: 1, maxLength: 3 }))
        .map(([x, of]) => `(${x} in [${of.join(', ')}])`),
    ),
  }))
const requestFields = {
  doubles: ['request.input_tokens', 'request.output_tokens_max'],
  texts: ['request.model', 'request.tier', 'request.tenant', 'request.user', 'request.session'],
  bools: ['request.stream'],
}
const ofRequest = expressions(requestFields)
const ofCandidate = expressions({
  doubles: [
    ...requestFields.doubles,
    'candidate.cost_usd',
    'candidate.quality',
    'candidate.ttft_ms',
    'candidate.context_tokens_max',
  ],
  texts: [...requestFields.texts, 'candidate.model', 'candidate.region', 'candidate.breaker'],
  bools: ['has(candidate.cost_usd)', 'has(candidate.quality)', 'has(candidate.region)'],
})

const bodies = fc
  .tuple(
    arbitraries.bodies,
    fc.array(ofCandidate.bool, { maxLength: 2 }),
    ofCandidate.double,
    fc.option(ofRequest.bool),
    fc.boolean(),
  )
  .map(([{ filter, explore, ...body }, tests, score, unless, listed]) => ({
    ...body,
    score,
    filter: Object.fromEntries(tests.map((source, at) => [`test-${at}`, source])),
    ...(explore ? { explore: { ...explore, ...(unless === null ? {} : { unless }) } } : {}),
    ...(listed ? { candidates: ['alpha', 'gamma', 'épsilon'] } : {}),
  }))
const uses: fc.Arbitrary<unknown> = fc.letrec((tie) => ({
  use: fc.oneof(
    { depthSize: 'small', maxDepth: 2 },
    bodies,
    fc.tuple(ofRequest.bool, tie('use'), tie('use')).map(([when, a, b]) => ({
      rules: [
        { name: 'first', when, use: a },
        { name: 'rest', use: b },
      ],
    })),
    fc.tuple(fc.constantFrom(0, 0.25, 1 / 3, 1), tie('use'), tie('use')).map(([share, a, b]) => ({
      split: {
        per: 'session',
        arms: [
          { name: 'a', share, use: a },
          { name: 'b', share: 1 - share, use: b },
        ],
      },
    })),
  ),
})).use
const compiled = uses.map((use) => parsePolicy(JSON.stringify({ name: 'random', ...(use as object) }), featureTypes))

let collector: Collector
before(async () => {
  collector = await temporaryCollector()
  const fixed = parsePolicy('{"name":"fixed","score":"1.0","choose":{"kind":"highest"}}', featureTypes)
  const spans = contexts.map((context) =>
    jsonSpan({
      kind: 2,
      startTimeUnixNano: `${Date.parse(context.time)}000000`,
      attributes: otlpAttributes(toAttributes(recordOf(context, fixed.decide(context)))),
    }),
  )
  assert.equal((await post(collector, jsonRequest(...spans))).status, 200)
})
after(() => collector.close())

type Row = {
  readonly id: string
  readonly chosen: string
  readonly probabilities: number[]
  readonly scores: (number | null)[]
  readonly eligible: boolean[]
  readonly exclusions: string[]
}

const judgedBySql = async (
  policy: Policy,
  types: FeatureTypes,
  sql = compilePolicySql(policy, types),
): Promise<Map<string, Row>> => {
  const names = ['chosen', 'probabilities', 'scores', 'eligible', 'exclusions'] as const
  const columns = names.map((name) => `${sql[name]} AS ${name}`).join(', ')
  const rows = await rowsOf<Row>(
    collector,
    `SELECT toString(decision_id) AS decision, if(irregular IS NULL, decision, JSONExtractString(irregular, 'id')) AS id, ${columns}
      FROM (${sql.over('otel.routing_decisions FINAL')})`,
  )
  return new Map(rows.map((row) => [row.id, row]))
}

/** Without the sign of a zero, which JSON does not keep. */
const plain = (score: number | null): number | null => (score === null ? null : score + 0)

const wordOf = (exclusion: Exclusion | null): string => {
  if (exclusion === null) return ''
  if (exclusion.kind === 'rule') return `rule:${exclusion.name}`
  return exclusion.kind === 'feature-unknown' ? `feature-unknown:${exclusion.feature}` : exclusion.kind
}

const assertAlike = async (policy: Policy, types = featureTypes): Promise<void> => {
  const rows = await judgedBySql(policy, types)
  assert.equal(rows.size, contexts.length)
  for (const context of contexts) {
    const decision = policy.decide(context)
    const row = rows.get(context.id) as Row
    const about = `${policy.source}\n${JSON.stringify(context)}\n${JSON.stringify(row)}`
    assert.deepEqual(
      row.exclusions,
      decision.candidates.map(({ exclusion }) => wordOf(exclusion)),
      about,
    )
    assert.deepEqual(
      row.eligible,
      decision.candidates.map(({ eligible }) => eligible),
      about,
    )
    assert.deepEqual(
      row.scores.map(plain),
      decision.candidates.map(({ score }) => plain(score)),
      about,
    )
    for (const [at, { probability }] of decision.candidates.entries())
      assert.ok(Math.abs((row.probabilities[at] ?? 2) - probability) <= 1e-12, about)
    assert.equal(row.chosen, decision.chosen ?? '', about)
  }
}

test('the SQL a policy compiles to chooses what its function chooses', async () => {
  const counted = 'SELECT toFloat64(countIf(irregular IS NULL)) AS regular FROM otel.routing_decisions FINAL'
  const [row] = await rowsOf<{ regular: number }>(collector, counted)
  assert.ok(row && row.regular > 10 && row.regular < 50)
  for (const policy of fc.sample(arbitraries.policies, runs)) await assertAlike(policy)
  for (const policy of fc.sample(compiled, 2 * runs)) await assertAlike(policy)
})

test('policies compiled together judge as each does alone, and what they say alike is computed once', async () => {
  const policies = [...fc.sample(arbitraries.policies, 2), ...fc.sample(compiled, 3)]
  const again = policies.map(({ source }) =>
    parsePolicy(JSON.stringify({ ...JSON.parse(source), name: 'again' }), featureTypes),
  )
  const together = compilePoliciesSql([...policies, ...again], featureTypes)
  for (const [at, policy] of policies.entries()) {
    const sql = { over: together.over, ...(together.judged[at] as (typeof together.judged)[number]) }
    assert.deepEqual(
      await judgedBySql(policy, featureTypes, sql),
      await judgedBySql(policy, featureTypes),
      policy.source,
    )
  }
  // Another name is another hash, and so other draws; all else is the same.
  for (const what of ['eligible', 'exclusions', 'scores'] as const)
    for (const [at, { kind }] of policies.map(({ root }) => root).entries())
      if (kind === 'body')
        assert.equal(
          together.judged[at + policies.length]?.[what],
          together.judged[at]?.[what],
          policies[at]?.source ?? '',
        )
})

test('hostile names and strings are data in SQL', async () => {
  const models = { "') OR 1 = 1 --": 1, 'back\\slash `tick`': 2, alpha: 3 }
  const text = 'it\'s \\ ` " ; DROP TABLE otel.routing_decisions --'
  const use = {
    name: 'hostile',
    filter: { near: `candidate.region != ${JSON.stringify(text)} && !(${JSON.stringify(text)} in request.tags)` },
    choose: { kind: 'weighted', weights: models },
    candidates: Object.keys(models),
  }
  await assertAlike(parsePolicy(JSON.stringify(use), featureTypes))
})

test('a feature may be called as the SQL calls its own columns', async () => {
  const types = { ...featureTypes, score: 'double', raw: 'double', x: 'string' } as const
  const use = {
    name: 'own',
    score: 'has(candidate.score) ? candidate.raw : candidate.ttft_ms',
    choose: { kind: 'highest' },
  }
  await assertAlike(parsePolicy(JSON.stringify(use), types), types)
})

test('what has no equal in SQL is declined by name', () => {
  const sqlOf = (score: string, types = featureTypes) =>
    compilePolicySql(parsePolicy(JSON.stringify({ name: 'x', score, choose: { kind: 'highest' } }), types), types)
  assert.throws(() => sqlOf('candidate.cost_usd % 2.0'), { code: 'sql-declined', message: /'%'/ })
  assert.throws(() => sqlOf('candidate.region < request.tier ? 1.0 : 2.0'), {
    code: 'sql-declined',
    message: /'<' between two strings/,
  })
  assert.throws(() => sqlOf('size(candidate.cost_usd)', { cost_usd: 'string' }), {
    message: /cost_usd as string: its column holds double/,
  })
  let deep = 'candidate.cost_usd'
  for (let depth = 0; depth < 60; depth += 1) deep = `math.least(${deep}, 1.0)`
  assert.throws(() => sqlOf(deep), { code: 'sql-declined', message: /more than 100000 characters/ })
})

test('the features that have columns are those of the snapshot', () => {
  assert.deepEqual(columnFeatures, snapshotTypes)
})

test('a small policy reads in SQL as it was meant', () => {
  const source =
    'name: small\nscore: candidate.quality - 40.0 * candidate.cost_usd\nchoose: {kind: highest}\nfilter: {near: request.tier != "free"}'
  const { over, ...columns } = compilePolicySql(parsePolicy(source, columnFeatures), columnFeatures)
  assert.deepEqual(columns, {
    chosen: 'policy_chosen',
    probabilities: 'policy_probabilities',
    scores: 'policy_scores',
    eligible: 'policy_eligible',
    exclusions: 'policy_exclusions',
  })
  assert.equal(
    over('rows'),
    `WITH policy_layer_0 AS (
  SELECT *,
    ifNull(JSONExtractString(irregular, 'id'), toString(decision_id)) AS policy_id,
    CAST(\`candidates.model\`, 'Array(String)') AS policy_models,
    has(\`candidates.model\`, requested_model) AS policy_pinned,
    request_input_tokens + ifNull(request_output_tokens_max, 0) AS policy_tokens
  FROM rows
), policy_layer_1 AS (
  SELECT *,
    arrayMap((c_model, c_quality, c_cost_usd) ->
        if(isNotNull(c_quality) AND isNotNull(c_cost_usd), (ifNull(c_quality, nan) - (40.0 * ifNull(c_cost_usd, nan))), nan),
      policy_models, \`candidates.quality\`, \`candidates.cost_usd\`) AS policy_1_score
  FROM policy_layer_0
), policy_layer_2 AS (
  SELECT *,
    arrayMap((c_model, c_context_tokens_max, c_breaker, c_quality, c_cost_usd, raw) ->
        multiIf(
          policy_pinned AND c_model != requested_model, 1,
          ifNull(policy_tokens > c_context_tokens_max, false), 2,
          c_breaker = 'open', 3,
          NOT (tier != 'free'), 4,
          NOT policy_pinned AND NOT isNotNull(c_quality), 5,
          NOT policy_pinned AND NOT isNotNull(c_cost_usd), 6,
          NOT policy_pinned AND NOT isFinite(raw), 7,
          0),
      policy_models, \`candidates.context_tokens_max\`, \`candidates.breaker\`, \`candidates.quality\`, \`candidates.cost_usd\`, policy_1_score) AS policy_1_codes
  FROM policy_layer_1
), policy_layer_3 AS (
  SELECT *,
    arrayMap(x -> x = 0, policy_1_codes) AS policy_1_open,
    arrayMap(x -> ['', 'not-requested', 'context-window', 'breaker-open', 'rule:near', 'feature-unknown:quality', 'feature-unknown:cost_usd', 'score-not-finite'][x + 1], policy_1_codes) AS policy_1_exclusions
  FROM policy_layer_2
), policy_layer_4 AS (
  SELECT *,
    arrayMap((s, o) -> if(o AND isFinite(s), s, NULL), policy_1_score, policy_1_open) AS policy_1_scores,
    countEqual(policy_1_codes, 0) AS policy_1_count,
    arrayFirst((m, o) -> o, policy_models, policy_1_open) AS policy_1_first,
    arrayMax(arrayFilter((s, o) -> o, policy_1_score, policy_1_open)) AS policy_1_best
  FROM policy_layer_3
), policy_layer_5 AS (
  SELECT *,
    arrayMin(arrayFilter((m, s, o) -> o AND s = policy_1_best, policy_models, policy_1_score, policy_1_open)) AS policy_1_winner
  FROM policy_layer_4
), policy_layer_6 AS (
  SELECT *,
    arrayMap(m -> toFloat64(m = policy_1_winner), policy_models) AS policy_1_weights
  FROM policy_layer_5
), policy_layer_7 AS (
  SELECT *,
    arrayMap((w, o) -> multiIf(NOT o, 0.0, policy_1_count = 1, 1.0, w), policy_1_weights, policy_1_open) AS policy_1_probabilities,
    multiIf(policy_1_count <= 1, policy_1_first, policy_1_winner) AS policy_1_chosen
  FROM policy_layer_6
), policy_layer_8 AS (
  SELECT *,
    policy_1_chosen AS policy_chosen,
    policy_1_probabilities AS policy_probabilities,
    policy_1_scores AS policy_scores,
    policy_1_exclusions AS policy_exclusions,
    arrayMap(o -> toBool(o), policy_1_open) AS policy_eligible
  FROM policy_layer_7
)
SELECT * FROM policy_layer_8`,
  )
})

const signalbox = (...args: string[]) =>
  spawnSync(
    process.execPath,
    [
      '-e',
      "import('./replay/policy-command.ts').then((m) => m.policyCommand().parseAsync(process.argv.slice(1), { from: 'user' }))",
      '--',
      ...args,
    ],
    {
      cwd: new URL('..', import.meta.url),
      encoding: 'utf8',
    },
  )

test('policy check and policy compile say what a file is, and exit 64 where it is none', () => {
  const checked = signalbox('check', 'policies/balanced.yaml', '--json')
  assert.deepEqual([checked.status, JSON.parse(checked.stdout).sql], [0, true])
  const compiled = signalbox('compile', '--sql', 'policies/balanced.yaml', '--rows', '(SELECT * FROM mine)')
  assert.equal(compiled.status, 0)
  assert.match(compiled.stdout, /FROM \(SELECT \* FROM mine\)[\s\S]*AS policy_chosen/)
  const absent = signalbox('check', 'policies/absent.yaml')
  assert.equal(absent.status, 64)
  assert.match(absent.stderr, /^signalbox policy: reading the policy policies\/absent\.yaml: ENOENT/)
})
