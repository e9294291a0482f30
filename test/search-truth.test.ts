// Whether a search keeps its promise: on traffic whose truth is known its certificates cover it, on traffic in which nothing
// differs it certifies next to nothing, and halving leads where trying everything leads.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { poissonDraws } from '../replay/estimate/bootstrap.ts'
import type { Estimate } from '../replay/estimate/estimators.ts'
import type { Source } from '../replay/read/source.ts'
import { type Member, simultaneousReach } from '../replay/search/certify.ts'
import { cutLog } from '../replay/search/parts.ts'
import { type SearchOptions, search, searchDefaults } from '../replay/search/search.ts'
import { frontmost, plannedRounds, type Tried } from '../replay/search/select.ts'
import { type Dimension, type Point, pointsOf, readDimension } from '../replay/search/template.ts'
import { parsePolicy } from '../router/policy/policy.ts'
import type { DecisionRecord, Outcome } from '../router/policy/record.ts'
import { logOf, seeded, truthFeatures, truthOf } from './replay-truth.ts'

const seed = Number(process.env.SEED ?? 7)
const searches = 100
const noiseSearches = 60

const production = parsePolicy(
  'name: production\nchoose: {kind: weighted, weights: {gemma-7b: 1, Phi-3-mini-4k-instruct: 1, Meta-Llama-3_1-8B-Instruct: 1}}',
  truthFeatures,
)
const template = `name: mixed
choose:
  kind: weighted
  weights:
    gemma-7b: \${a}
    Phi-3-mini-4k-instruct: \${b}
    Meta-Llama-3_1-8B-Instruct: 1
`
const pointsFor = (count: number, a: string, b: string): Point[] =>
  pointsOf(template, [readDimension(a), readDimension(b)] as Dimension[], count, seed)

/** Records as a source. */
const sourceOf = (records: readonly DecisionRecord[]): Source => ({
  name: 'memory',
  size: async () => null,
  batches: async function* () {
    yield records
  },
  records: async function* () {
    yield* records
  },
  slices: null,
  ask: null,
  find: null,
  policies: async () => [],
  lastMomentMs: async () => Math.max(...records.map(({ time }) => Date.parse(time))),
  close: async () => {},
})

/** Only cost and quality are known: the others take time and say nothing here. */
const withoutTimes = (record: DecisionRecord, outcome: Partial<Outcome> = {}): DecisionRecord => ({
  ...record,
  outcome: { ...(record.outcome as Outcome), latency_ms: null, ttft_ms: null, ...outcome },
})

const fast: SearchOptions = {
  ...searchDefaults,
  trustPropensities: true,
  rounds: 1,
  finalists: 2,
  replicates: 200,
  margin: 0.5,
  cut: { holdOut: 0.6 },
}

// The seed is fixed, so the outcome is too. Over seeds: with true simultaneous coverage 95 %, 100 searches fall below 92 with
// probability 6.3 % (binomial).
test(`the intervals of all finalists and both axes hold the truth together in 92 % of ${searches} searches (seed ${seed})`, async (t) => {
  const random = seeded(seed)
  const points = pointsFor(4, 'a=0.4..2.5', 'b=0.4..2.5')
  const value = { cost_usd: (o: Outcome) => o.cost_usd ?? 0, quality: (o: Outcome) => o.quality ?? 0 }
  const truths = new Map(
    points.map(({ hash, text }) => {
      const policy = parsePolicy(text, truthFeatures)
      const difference = (read: (outcome: Outcome) => number) => truthOf(policy, read) - truthOf(production, read)
      return [hash, { cost_usd: difference(value.cost_usd), quality: difference(value.quality) }]
    }),
  )
  let [together, alone] = [0, 0]
  for (let at = 0; at < searches; at++) {
    const log = logOf(production, 1000, random).map((record) => withoutTimes(record))
    const { finalists } = await search(sourceOf(log), [], points, { ...fast, seed: at })
    assert.ok(finalists.length > 0)
    const held = (ends: (axis: (typeof finalists)[number]['axes'][number]) => { low: number; high: number }) =>
      finalists.every(({ hash, axes }) =>
        axes.every((axis) => {
          const truth = truths.get(hash)?.[axis.metric as 'cost_usd' | 'quality'] ?? Number.NaN
          return ends(axis).low <= truth && truth <= ends(axis).high
        }),
      )
    together += Number(held((axis) => axis))
    alone += Number(held((axis) => axis.alone))
  }
  t.diagnostic(`together ${together}, each alone ${alone}, of ${searches}`)
  assert.ok(together >= 0.92 * searches, `${together} of ${searches}`)
  assert.ok(alone < together, 'intervals for one each would not have been enough')
})

// Certifying is one-sided: a search that keeps its promise certifies something in at most 2.5 % where nothing differs, and more
// than 4 of 60 with probability 2 % (binomial).
test(`where nothing differs hardly a search certifies anything, and picking the best on sight finds much (seed ${seed})`, async (t) => {
  const random = seeded(seed + 1)
  const points = pointsFor(10, 'a=0.4..2.5', 'b=0.4..2.5')
  let [certified, onSight, judged] = [0, 0, 0]
  for (let at = 0; at < noiseSearches; at++) {
    const log = logOf(production, 1200, random).map((record) =>
      withoutTimes(record, { cost_usd: random() / 1e4, quality: Number(random() < 0.7) }),
    )
    const found = await search(sourceOf(log), [], points, { ...fast, cut: { holdOut: 0.75 }, seed: at })
    certified += Number(found.exitCode === 0)
    judged += Number(found.finalists.some(({ failing }) => failing.length > 0) || found.exitCode === 0)
    onSight += Number(found.tried.some(({ differences: [cost] }) => cost.high < 0))
  }
  t.diagnostic(`certified ${certified}, on sight ${onSight}, judged ${judged}, of ${noiseSearches}`)
  assert.ok(certified <= 4, `${certified} of ${noiseSearches} certify something`)
  assert.ok(judged > noiseSearches / 2, 'it is not for want of evidence')
  assert.ok(onSight >= 4 && onSight > 2 * certified, `on sight ${onSight} of ${noiseSearches} find something`)
})

test('halving finds what trying everything on everything finds, with a fraction of the decisions', async () => {
  const points = pointsFor(30, 'a=0.05..20', 'b=0.05..20')
  const log = logOf(production, 6600, seeded(seed)).map((record) => withoutTimes(record))
  const options = { ...fast, finalists: 3, margin: 0.05, cut: { holdOut: 0.4 } } as const
  const halved = await search(sourceOf(log), [production], points, { ...options, rounds: 3 })
  const exhaustive = await search(sourceOf(log), [production], points, { ...options, rounds: 1 })
  assert.equal(halved.exitCode, 0)
  assert.deepEqual(halved.finalists[0]?.parameters, exhaustive.finalists[0]?.parameters)
  assert.equal(halved.finalists[0]?.finding, 'better')
  const work = ({ rounds }: typeof halved) => rounds.reduce((sum, { share, tried }) => sum + share * tried, 0)
  assert.ok(work(halved) < 0.75 * work(exhaustive), `${work(halved)} against ${work(exhaustive)}`)
  assert.equal(halved.tried.length, 30)
  assert.ok(halved.tried.some(({ round }) => round === 1) && halved.tried.some(({ round }) => round === 2))
})

test('rounds take a third of the policies to three times the clusters, and none is too small to tell', () => {
  const options = { goal: 'cost_usd', margin: 0.02, rounds: 3, finalists: 4 } as const
  assert.deepEqual(
    plannedRounds({ clusters: 90_000 }, 64, options).map(({ share, tried, kept }) => [share.toFixed(3), tried, kept]),
    [
      ['0.111', 64, 22],
      ['0.333', 22, 8],
      ['1.000', 8, 4],
    ],
  )
  assert.deepEqual(
    plannedRounds({ clusters: 800 }, 64, options).map(({ share }) => share),
    [1],
  )
})

const standing = (cost: number, quality: number, isBarred = false): Tried => {
  const at = (value: number): Estimate => ({ value, se: 1, low: value - 2, high: value + 2, clusters: 100 })
  const point = { parameters: { cost, quality }, name: 'p', hash: `${cost} ${quality}`, text: '' }
  return { point, round: 1, standing: { differences: [at(cost), at(quality)], isBarred } }
}

test('who is beaten on both axes goes before who beats it, and who is barred goes first', () => {
  const value = fc.integer({ min: -20, max: 20 })
  fc.assert(
    fc.property(fc.array(fc.tuple(value, value), { minLength: 2, maxLength: 12 }), fc.nat(11), (pairs, most) => {
      const tried = pairs.map(([cost, quality]) => standing(cost, quality))
      const kept = frontmost(tried, 'cost_usd', 1 + most, Infinity)
      assert.ok(kept.length === Math.min(tried.length, 1 + most))
      const beats = ({ point: { parameters: a } }: Tried, { point: { parameters: b } }: Tried) =>
        (a.cost ?? 0) < (b.cost ?? 0) && (a.quality ?? 0) > (b.quality ?? 0)
      for (const gone of tried.filter((one) => !kept.includes(one)))
        for (const one of kept) assert.ok(!beats(gone, one), `${gone.point.hash} went, ${one.point.hash} stayed`)
    }),
    { seed },
  )
  const best = standing(-10, 10, true)
  assert.deepEqual(frontmost([best, standing(-1, 0)], 'cost_usd', 1, Infinity), [standing(-1, 0)])
  assert.deepEqual(frontmost([best], 'cost_usd', 1, 2), [best], 'one always stays, to be shown as refused')
})

test('the reach grows with what is claimed at once, and not with what says the same twice', () => {
  const random = seeded(seed)
  const groups = 400
  const member = (): Member => {
    const a = Float64Array.from({ length: groups }, () => random() - 0.5)
    return { a, b: new Float64Array(groups).fill(1) }
  }
  const draws = poissonDraws(groups, 2000, seed)
  const one = member()
  const ten = [one, ...Array.from({ length: 9 }, member)]
  const [single, same, many] = [[one], Array(10).fill(one) as Member[], ten].map((f) =>
    simultaneousReach(f, draws),
  ) as [number, number, number]
  assert.equal(single, same)
  assert.ok(single >= 1.96 && single < 2.15, `${single}`)
  // Ten independent intervals at 95 % together take 2.80 standard errors each (Šidák 1967); 0.15 is three times the spread.
  assert.ok(Math.abs(many - 2.8) < 0.2, `${many}`)
})

test('the hold-out shares no cluster and no moment with what policies were chosen on', async () => {
  const log = logOf(production, 300, seeded(seed)).map((record, at) => ({ ...record, session: `s-${at % 170}` }))
  const parts = await cutLog(sourceOf(log), [production], { holdOut: 0.5 }, 1)
  const read = async (source: Source) => {
    const found: DecisionRecord[] = []
    for await (const record of source.records()) found.push(record)
    return found
  }
  const [earlier, later, third] = await Promise.all([
    read(parts.selection(1)),
    read(parts.holdOut),
    read(parts.selection(1 / 3)),
  ])
  assert.equal(earlier.length, 150)
  assert.equal(parts.leftOut + later.length, 150)
  assert.equal(later.length, 20, 'sessions 150 to 169 begin after the cut')
  const sessions = new Set(earlier.map(({ session }) => session))
  assert.ok(later.every(({ session, time }) => !sessions.has(session) && time >= (earlier.at(-1)?.time ?? '')))
  assert.ok(third.length > 20 && third.length < 80 && third.every((record) => earlier.includes(record)))
  await assert.rejects(cutLog(sourceOf(log), [production], { untilMs: 0 }, 1), /wanted decisions of their own on both/)
  const oneSession = log.map((record) => ({ ...record, session: 's' }))
  await assert.rejects(cutLog(sourceOf(oneSession), [production], { holdOut: 0.5 }, 1), /150 of these in clusters that/)
})

test('what comes after the cut has no say in who is chosen, and what comes before it none in how they are judged', async () => {
  const log = logOf(production, 1200, seeded(seed)).map((record) => withoutTimes(record))
  const points = pointsFor(5, 'a=0.4..2.5', 'b=0.4..2.5')
  const cut = Date.parse(log[600]?.time ?? '')
  /** The same log with other costs on one side. */
  const dearer = (isTouched: (timeMs: number) => boolean) =>
    log.map((record) => {
      const costUsd = record.chosen === 'gemma-7b' ? 0.002 : (record.outcome?.cost_usd ?? 0)
      return isTouched(Date.parse(record.time)) ? withoutTimes(record, { cost_usd: costUsd }) : record
    })
  const found = async (records: readonly DecisionRecord[], tried = points) =>
    search(sourceOf(records), [production], tried, { ...fast, cut: { untilMs: cut } })
  const hashes = ({ finalists }: Awaited<ReturnType<typeof found>>) => finalists.map(({ hash }) => hash).sort()
  const [plain, laterDearer] = [await found(log), await found(dearer((timeMs) => timeMs >= cut))]
  assert.deepEqual(laterDearer.tried, plain.tried)
  assert.deepEqual(hashes(laterDearer), hashes(plain))
  assert.notDeepEqual(laterDearer.finalists, plain.finalists)
  const one = points.slice(0, 1)
  const [before, after] = [
    await found(log, one),
    await found(
      dearer((timeMs) => timeMs < cut),
      one,
    ),
  ]
  const judged = ({ finalists: [only] }: typeof before) => only?.axes.map(({ selected, ...heldOut }) => heldOut)
  assert.notDeepEqual(after.tried, before.tried)
  assert.deepEqual(judged(after), judged(before))
})

test('what the log never tried is refused, not certified, however cheap it looks', async () => {
  const log = logOf(production, 1200, seeded(seed)).map((record) => withoutTimes(record))
  const untried = `name: t
choose: {kind: weighted, weights: {gemini-1.5-pro-002: \${a}, gemma-7b: 1}}`
  const points = pointsOf(untried, [readDimension('a=1,2,3')] as Dimension[], 3, seed)
  const { exitCode, finalists } = await search(sourceOf(log), [production], points, fast)
  assert.equal(exitCode, 3)
  for (const { finding, refusals } of finalists) {
    assert.equal(finding, 'refused')
    assert.ok(refusals.some(({ kind }) => kind === 'zero-support'))
  }
})

test('a policy that harms quality beyond the margin is not certified, and the condition is named', async () => {
  const log = logOf(production, 2000, seeded(seed)).map((record) =>
    withoutTimes(record, { quality: Number(record.chosen !== 'gemma-7b') }),
  )
  const points = pointsFor(1, 'a=5', 'b=0.1')
  const { exitCode, finalists } = await search(sourceOf(log), [production], points, { ...fast, margin: 0.01 })
  assert.equal(exitCode, 2)
  assert.equal(finalists[0]?.finding, 'harm')
  assert.deepEqual(finalists[0]?.failing, ['quality'])
})
