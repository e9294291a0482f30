// The policy language and what it decides: laws over random policies and contexts, and examples a reader can check.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { compileCel } from '../router/policy/cel.ts'
import { draw } from '../router/policy/chance.ts'
import { type Policy, PolicyError, parsePolicy } from '../router/policy/policy.ts'
import { type Context, contextOf, recordOf } from '../router/policy/record.ts'
import { bodies, contexts, featureTypes, policies } from './arbitraries.ts'

const decideWith = (yaml: string, context: Context) => parsePolicy(yaml, featureTypes).decide(context)

const context = (overrides: Partial<Context> = {}): Context => ({
  id: 'd-1',
  time: '2026-11-01T08:00:00.000Z',
  session: '',
  request: {
    model: 'auto',
    input_tokens: 100,
    output_tokens_max: null,
    stream: false,
    tier: 'free',
    tenant: '',
    user: '',
    tags: { category: 'math' },
  },
  candidates: [
    { model: 'large', features: { cost_usd: 0.01, quality: 0.9, region: 'eu', context_tokens_max: 1000 } },
    { model: 'small', features: { cost_usd: 0.001, quality: 0.6, region: 'us', context_tokens_max: 1000 } },
    { model: 'dark', features: { cost_usd: null, quality: 0.7, region: 'eu', context_tokens_max: 1000 } },
  ],
  ...overrides,
})

describe('decide', () => {
  test('probabilities sum to one, the choice is eligible and possible, and the plan starts with it', () => {
    fc.assert(
      fc.property(policies, contexts, (policy, at) => {
        const decision = policy.decide(at)
        if (decision.chosen === null) return assert.ok(decision.candidates.every((c) => !c.eligible))
        const sum = decision.candidates.reduce((total, c) => total + c.probability, 0)
        assert.ok(Math.abs(sum - 1) < 1e-12, `the sum is ${sum}`)
        const chosen = decision.candidates.find((c) => c.model === decision.chosen)
        assert.ok(chosen?.eligible && chosen.probability > 0 && chosen.probability === decision.probability)
        assert.equal(decision.plan[0], decision.chosen)
        assert.equal(new Set(decision.plan).size, decision.plan.length)
      }),
      { numRuns: 500 },
    )
  })

  test('is a function of the record: decided again from its own record, nothing changes', () => {
    fc.assert(
      fc.property(policies, contexts, (policy, at) => {
        const decision = policy.decide(at)
        const written = JSON.parse(JSON.stringify(recordOf(at, decision)))
        assert.deepEqual(policy.decide(contextOf(written)), decision)
      }),
      { numRuns: 300 },
    )
  })

  test('does not depend on the order in which candidates are listed', () => {
    fc.assert(
      fc.property(policies, contexts, (policy, at) => {
        const turned = policy.decide({ ...at, candidates: at.candidates.toReversed() })
        const straight = policy.decide(at)
        assert.deepEqual(turned.candidates.toReversed(), straight.candidates)
        assert.deepEqual(turned.plan, straight.plan)
      }),
      { numRuns: 200 },
    )
  })

  test('draws each model as often as it says it will', () => {
    // 20,000 draws; a correct implementation fails with probability below 1e-5 (4.5 standard errors, three cells).
    const policy = parsePolicy(
      'name: p\nscore: candidate.quality\nchoose: {kind: softmax, temperature: 0.5}\nexplore: {rate: 0.2}',
      featureTypes,
    )
    const counts = new Map<string, number>()
    const total = 20_000
    let decision = policy.decide(context())
    for (let at = 0; at < total; at += 1) {
      decision = policy.decide(context({ id: `d-${at}` }))
      counts.set(decision.chosen ?? '', (counts.get(decision.chosen ?? '') ?? 0) + 1)
    }
    for (const { model, probability: p } of decision.candidates) {
      const error = Math.abs((counts.get(model) ?? 0) / total - p)
      assert.ok(error < 4.5 * Math.sqrt((p * (1 - p)) / total), `${model}: off by ${error}`)
    }
  })

  test('says why each candidate was excluded', () => {
    const { candidates, chosen } = decideWith(
      'name: p\ncandidates: [large, small, dark]\nfilter: {affordable: candidate.cost_usd < 0.005}\nscore: candidate.quality\nchoose: {kind: highest}',
      context(),
    )
    assert.deepEqual(Object.fromEntries(candidates.map((c) => [c.model, c.exclusion])), {
      large: { kind: 'rule', name: 'affordable' },
      small: null,
      dark: { kind: 'feature-unknown', feature: 'cost_usd' },
    })
    assert.equal(chosen, 'small')
  })

  test('excludes what cannot hold the request, what is broken, and what the policy does not list', () => {
    const at = context({
      request: { ...context().request, input_tokens: 900, output_tokens_max: 200 },
      candidates: [
        { model: 'a', features: { quality: 1, context_tokens_max: 1000 } },
        { model: 'b', features: { quality: 1, breaker: 'open' } },
        { model: 'c', features: { quality: 1 } },
        { model: 'd', features: { quality: 1 } },
      ],
    })
    const decision = decideWith('name: p\ncandidates: [a, b, d]\nscore: candidate.quality\nchoose: {kind: highest}', at)
    assert.deepEqual(
      decision.candidates.map((c) => c.exclusion),
      [
        { kind: 'context-window', needed_tokens: 1100, tokens_max: 1000 },
        { kind: 'breaker-open' },
        { kind: 'not-in-policy' },
        null,
      ],
    )
    assert.equal(decision.reason, 'only-candidate')
  })

  test('a client that names a model gets that model or nothing', () => {
    const decision = decideWith(
      'name: p\nscore: candidate.quality\nchoose: {kind: highest}\nexplore: {rate: 1}',
      context({ request: { ...context().request, model: 'small' } }),
    )
    assert.deepEqual([decision.chosen, decision.reason, decision.probability], ['small', 'pinned', 1])
    assert.deepEqual(decision.plan, ['small'])
  })

  test('takes the first rule that matches and says which', () => {
    const yaml = `name: p
rules:
  - { name: premium, when: 'request.tier == "premium"', use: { score: candidate.quality, choose: { kind: highest } } }
  - { name: rest, use: { score: candidate.cost_usd, choose: { kind: lowest } } }`
    assert.deepEqual(decideWith(yaml, context()).path, ['rule:rest'])
    assert.equal(decideWith(yaml, context()).chosen, 'small')
    const premium = decideWith(yaml, context({ request: { ...context().request, tier: 'premium' } }))
    assert.deepEqual([premium.path, premium.chosen], [['rule:premium'], 'large'])
  })

  test('a split logs the probability over its arms, not within the drawn one, and is sticky per session', () => {
    const yaml = `name: p
split:
  per: session
  arms:
    - { name: control, share: 0.9, use: { candidates: [large], score: candidate.quality, choose: { kind: highest } } }
    - { name: canary, share: 0.1, use: { candidates: [small], score: candidate.quality, choose: { kind: highest } } }`
    const decisions = Array.from({ length: 200 }, (_, at) =>
      decideWith(yaml, context({ id: `d-${at}`, session: `s-${at % 20}` })),
    )
    for (const { candidates } of decisions)
      assert.deepEqual(
        candidates.map((c) => c.probability),
        [0.9, 0.1, 0],
      )
    for (const [at, decision] of decisions.entries()) assert.equal(decision.chosen, decisions[at % 20]?.chosen)
    assert.equal(new Set(decisions.map((d) => d.chosen)).size, 2)
  })

  test('explores at least at the floor, and not where `unless` says', () => {
    const yaml = (unless: string) =>
      `name: p\ncandidates: [large, small]\nscore: candidate.quality\nchoose: {kind: highest}\nexplore: {rate: 0.01, floor: 0.125${unless}}`
    assert.deepEqual(
      decideWith(yaml(''), context()).candidates.map((c) => c.probability),
      [0.875, 0.125, 0],
    )
    assert.equal(decideWith(yaml(`, unless: 'request.tier == "free"'`), context()).probability, 1)
  })

  test('a weighted choice falls to the models without a weight only when no other is left', () => {
    const yaml = 'name: p\nchoose: {kind: weighted, weights: {large: 1}}\nfallback: {attempts_max: 5}'
    const healthy = decideWith(yaml, context())
    assert.deepEqual([healthy.chosen, healthy.probability, healthy.plan], ['large', 1, ['large', 'dark', 'small']])
    const [large, ...others] = context().candidates
    const broken = { model: 'large', features: { ...large?.features, breaker: 'open' } }
    const decision = decideWith(yaml, context({ candidates: [broken, ...others] }))
    assert.deepEqual(
      decision.candidates.map((c) => c.probability),
      [0, 0.5, 0.5],
    )
  })
})

describe('draw', () => {
  test('is the number ClickHouse computes', () => {
    // SELECT bitShiftRight(xxHash64('d-1|sha256:x|choose:'), 11) / 9007199254740992
    assert.equal(draw('d-1', 'sha256:x', 'choose:'), 0.39539898784589833)
  })
})

describe('CEL', () => {
  const run = (source: string, at = context(), candidate = 0) => {
    const { model, features } = at.candidates[candidate] as Context['candidates'][number]
    return compileCel(source, 'bool', featureTypes).run({ context: at, model, features })
  }

  test('mixes integers and doubles, reads tags that are absent as empty, and guards with has()', () => {
    assert.equal(run('1 + candidate.quality * 2 > 2.7 && 3 / 2 == 1.5'), true)
    assert.equal(
      run('request.tags["region"] == "" && !("region" in request.tags) && request.tags.category == "math"'),
      true,
    )
    assert.equal(run('!("region" in request.tags) || candidate.region == request.tags["region"]'), true)
    assert.equal(run('has(candidate.cost_usd) ? candidate.cost_usd > 0 : true', context(), 2), true)
    assert.equal(
      run('request.tier in ["free", "trial"] && candidate.model.startsWith("lar") && size(request.tier) == 4'),
      true,
    )
    assert.equal(run('math.least(3, 2) == 2 && -(1) < 0 && 7 % 4 == 3'), true)
  })

  test('does not reach an object’s prototype through a tag', () => {
    assert.equal(run('"constructor" in request.tags || request.tags["__proto__"] != ""'), false)
  })

  for (const [source, problem] of [
    ['candidate.qualty > 1', /column 1: candidate has no 'qualty'; it has: model, /],
    ['candidate.quality + "a" > 1', /column \d+: '\+' cannot take double and string/],
    ['request.tier > 1 &&', /column \d+: /],
    ['request.nope == ""', /column 1: request has no 'nope'; it has: input_tokens, /],
    ['candidate.quality', /column 1: this is double, wanted bool/],
    ['foo(1)', /column 1: there is no function 'foo'/],
    ['null == null', /a literal is a number, a string or a bool/],
  ] as const)
    test(`refuses ${source}`, () => {
      assert.throws(() => compileCel(source, 'bool', featureTypes), { message: problem, code: 'cel-invalid' })
    })
})

describe('a policy file', () => {
  const problemsOf = (yaml: string): readonly string[] => {
    try {
      parsePolicy(yaml, featureTypes, 'p.yaml')
    } catch (error) {
      if (error instanceof PolicyError) return error.problems
      throw error
    }
    return []
  }

  test('is refused with every mistake, each with its line, path, what was found and what is wanted', () => {
    assert.deepEqual(
      problemsOf(
        'name: p\nfilter:\n  cheap: candidate.price < 1\nscore: candidate.quality +\nchoose: {kind: highest}\nexplore: {rate: 0.1, unless: candidate.quality > 1}',
      ).map((p) => p.replace(/; it has.*/, '')),
      [
        "p.yaml:3: filter.cheap: column 1: candidate has no 'price'",
        'p.yaml:4: score: column 20: Unexpected token: EOF',
        'p.yaml:6: explore.unless: column 1: candidate cannot be used here: this is asked once per request',
      ],
    )
    assert.deepEqual(
      problemsOf('name: p\nscore: "1"\nchoose: {kind: best}\nfallback: {attempts_max: 0}\ntypo: 1').length,
      3,
    )
    assert.match(problemsOf('name: p\nchoose: {kind: highest}').join(), /p.yaml:\d: score: .*wanted a score/)
    assert.match(
      problemsOf(
        'name: p\nsplit: {arms: [{name: a, share: 0.5, use: {score: "1.0", choose: {kind: highest}}}]}',
      ).join(),
      /split.arms: .*wanted shares that sum to 1/,
    )
    assert.match(problemsOf('name: [').join(), /^p.yaml:1: /)
    assert.match(problemsOf('').join(), /p.yaml:1: /)
  })

  test('is refused, not crashed on, where it is an alias bomb, nested without end, or weighted beyond measure', () => {
    assert.match(problemsOf('name: p\nscore: *missing').join(), /^p.yaml: /)
    const bomb = `name: p\na: &a [x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nd: [${'*c,'.repeat(40)}*c]`
    assert.match(problemsOf(bomb).join(), /^p.yaml: /)
    for (const deep of [
      `${'('.repeat(1900)}1.0${')'.repeat(1900)}`,
      `${'-'.repeat(3900)}1.0`,
      `1.0${' + 1.0'.repeat(600)}`,
    ])
      assert.match(problemsOf(`name: p\nscore: "${deep}"\nchoose: {kind: highest}`).join(), /nested more than|maxDepth/)
    assert.match(problemsOf('name: p\nchoose: {kind: weighted, weights: {a: 1.0e+308}}').join(), /weights/)
    assert.equal(
      decideWith(
        `name: p\nscore: '"x".contains(request.tags.constructor) ? 1.0 : 0.0'\nchoose: {kind: highest}`,
        context(),
      ).reason,
      'highest',
    )
  })

  test('has a hash of what it says, not of how it is written', () => {
    const a = parsePolicy('name: p\nscore: candidate.quality\nchoose: {kind: highest}', featureTypes)
    const b = parsePolicy('{"choose": {"kind": "highest"}, "score": "candidate.quality", "name": "p"}', featureTypes)
    assert.equal(a.hash, b.hash)
    assert.match(a.hash, /^sha256:[0-9a-f]{64}$/)
  })

  test('parsed again from its recorded source is the same policy', () => {
    fc.assert(
      fc.property(bodies, contexts, (body, at) => {
        const first: Policy = parsePolicy(JSON.stringify({ name: 'p', ...body }), featureTypes)
        const again = parsePolicy(first.source, featureTypes)
        assert.equal(again.hash, first.hash)
        assert.deepEqual(again.decide(at), first.decide(at))
      }),
    )
  })
})
