// A policy with holes: what fills them, and what is said when it cannot be filled.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type Dimension, type Point, pointsMax, pointsOf, readDimension } from '../replay/search/template.ts'
import { PolicyError, parsePolicy } from '../router/policy/policy.ts'
import { truthFeatures } from './replay-truth.ts'

const seed = Number(process.env.SEED ?? 7)
const hole = (name: string): string => `\u0024{${name}}`
const text = `name: tuned
score: candidate.rank - ${hole('weight')} * candidate.cost_usd
choose: {kind: highest}
explore: {rate: ${hole('rate')}}
`
const dimensions = (...specs: readonly string[]): Dimension[] =>
  specs.map((spec) => {
    const dimension = readDimension(spec)
    if (typeof dimension === 'string') throw new Error(dimension)
    return dimension
  })
const pointsFor = (template: string, specs: readonly string[], count = 16): Point[] =>
  pointsOf(template, dimensions(...specs), count, 1, 'template.yaml')

const problemsOf = (template: string, specs: readonly string[], count = 16): readonly string[] => {
  try {
    pointsFor(template, specs, count)
  } catch (error) {
    if (error instanceof PolicyError) return error.problems
    throw error
  }
  return []
}

test('filled holes make ordinary policies, each with its own hash, that parse to the parameters', () => {
  const points = pointsFor(text, ['weight=10..200', 'rate=0,0.05'], 8)
  assert.equal(points.length, 8)
  assert.equal(new Set(points.map(({ hash }) => hash)).size, 8)
  for (const { parameters, text: filled, hash } of points) {
    const policy = parsePolicy(filled, truthFeatures)
    assert.equal(policy.hash, hash)
    assert.ok(policy.source.includes(`- ${parameters.weight} *`))
    assert.ok(policy.source.includes(`"rate":${parameters.rate}`))
  }
})

test('one range is gone through evenly from end to end, by factors where it spans more than tenfold', () => {
  const values = (spec: string) => pointsFor(text, [spec, 'rate=0'], 4).map(({ parameters }) => parameters.weight)
  assert.deepEqual(values('weight=1..4'), [1, 2, 3, 4])
  assert.deepEqual(values('weight=1..1000'), [1, 10, 100, 1000])
  assert.deepEqual(values('weight=0..30'), [0, 10, 20, 30])
})

test('several ranges are covered evenly whatever the seed: no quarter of any is left empty, and no point leaves its range', () => {
  fc.assert(
    fc.property(fc.nat(2 ** 31), fc.integer({ min: 24, max: pointsMax }), (lot, count) => {
      const points = pointsOf(text, dimensions('weight=10..50', 'rate=0.2..0.6'), count, lot)
      for (const [name, low, high] of [['weight', 10, 50] as const, ['rate', 0.2, 0.6] as const]) {
        const places = points.map(({ parameters }) => ((parameters[name] ?? 0) - low) / (high - low))
        assert.ok(places.every((place) => place >= 0 && place <= 1 + 1e-9))
        for (let quarter = 0; quarter < 4; quarter++) {
          const share = places.filter((place) => Math.min(3, Math.floor(place * 4)) === quarter).length / places.length
          assert.ok(share > 0.1 && share < 0.4, `${name}: ${share} of the points in quarter ${quarter}`)
        }
      }
      assert.ok(points.length <= count)
    }),
    { seed, numRuns: 12 },
  )
  const other = pointsOf(text, dimensions('weight=10..50', 'rate=0.2..0.6'), 24, 2)
  assert.notDeepEqual(other, pointsFor(text, ['weight=10..50', 'rate=0.2..0.6'], 24))
})

test('a hole that is not varied, one that is no name, and a name without a hole are named with their lines, all at once', () => {
  assert.deepEqual(problemsOf(`${text}# ${hole('x y')}\n`, ['weight=1..2', 'speed=1,2']), [
    `template.yaml:4: ${hole('rate')} is not varied; add --vary 'rate=LOW..HIGH'`,
    `template.yaml:5: found '${hole('x y')}'; wanted a name, as in ${hole('weight')}`,
    `template.yaml: speed is varied, but ${hole('speed')} does not occur`,
  ])
  const hostile = ['', 'a.b', 'constructor()', '__proto__', 'constructor', hole('weight'), '\u202eweight', '1weight']
  for (const bad of [...hostile.map(hole), hole('weight').slice(0, -1), hole('').slice(0, -1)])
    assert.match(
      problemsOf(`name: t\nscore: ${bad} + ${hole('weight')}\n`, ['weight=1..2'])[0] ?? '',
      /^template\.yaml:2: /,
      bad,
    )
})

test('what a hole makes of the policy is checked like any policy, and says with which parameters', () => {
  const [problem = ''] = problemsOf(text, ['weight=1,2', 'rate=0.5,7'])
  assert.match(problem, /^template\.yaml with weight=1 rate=7:4: explore\.rate: found 7/)
  assert.match(
    problemsOf(`name: t\n# ${hole('weight')}\nscore: candidate.rank\nchoose: {kind: highest}\n`, ['weight=1,2'])[0] ??
      '',
    /changes nothing; wanted holes outside of comments/,
  )
})

test('what is varied is a range upwards or a list of different numbers; all else is told in words', () => {
  for (const bad of [
    'weight',
    'weight=',
    '=1,2',
    'a b=1,2',
    'weight=2..1',
    'weight=1..1',
    'weight=1..x',
    'weight=1,,2',
    'weight=1,1',
    'weight=1..2..3',
    'weight=Infinity',
    'weight=$(id)',
  ])
    assert.equal(typeof readDimension(bad), 'string', bad)
  assert.deepEqual(readDimension('w=-1..1'), { name: 'w', kind: 'range', low: -1, high: 1, isLog: false })
  assert.deepEqual(readDimension('w=5,1e-3'), { name: 'w', kind: 'list', values: [5, 0.001] })
  assert.match(
    problemsOf(text, ['weight=1,2,3', 'rate=0.1,0.2,0.3'], 8)[0] ?? '',
    /make 9 combinations, more than the 8 points/,
  )
  assert.match(problemsOf(text, ['weight=1,2', 'weight=1,2', 'rate=0,1'])[0] ?? '', /weight is varied twice/)
})
