// The judge on a real socket: that it cannot win by place, that it may abstain, and that what it fails to say is counted.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Answered, readResults } from '../replay/reexec/result.ts'
import { judgeFor, logFor, provide, runOn, stageFor } from './reexec-stage.ts'
import { seeded } from './replay-truth.ts'
import { json, type Script } from './scripted-provider.ts'

const asJudge =
  (judge: (shown: string) => string): Script =>
  (response, asked) => {
    const messages = asked.body.messages as { content: string }[]
    return json(asked.body.model === 'judge' ? judge(messages[1]?.content ?? '') : 'the new answer')(response, asked)
  }
/** Under which name the new answer is shown. */
const newName = (shown: string) => (/\nA: "the new answer"/.test(shown) ? 'A' : 'B')
const results = async (output: string) => [...(await readResults(output)).values()] as Answered[]

test('a judge that always prefers the first has said nothing: both labels are tried, and it counts as a tie', async (t) => {
  const stage = await stageFor(t, logFor(20), 'the logged answer')
  const provider = await provide(
    t,
    asJudge(() => 'A is better. {"better":"A"}'),
  )
  const { output, summary } = await runOn(stage, provider.url, { judge: judgeFor() })
  const shown = provider.asked
    .filter(({ body }) => body.model === 'judge')
    .map(({ body }) => (body.messages as { content: string }[])[1]?.content ?? '')
  const first = shown.filter((text) => newName(text) === 'A').length
  assert.deepEqual([shown.length, first], [40, 20])
  for (const { quality, quality_logged, judge } of await results(output))
    assert.deepEqual([quality, quality_logged, judge?.status, judge?.mode], [0.5, 0.5, 'abstained', 'pair'])
  assert.deepEqual([summary.judge?.abstained, summary.judge?.failed], [20, 0])
  assert.doesNotMatch(shown.join(), /logged:|candidate|"B"|model/, 'nothing tells whose answer is whose')
})

test('a judge that knows the better answer says so under either name, and none is named first by rule', async (t) => {
  const stage = await stageFor(t, logFor(40), 'the logged answer')
  const provider = await provide(
    t,
    asJudge((shown) => `{"better":"${newName(shown)}"}`),
  )
  const { output } = await runOn(stage, provider.url, { judge: judgeFor(), concurrency: 1 })
  assert.ok((await results(output)).every(({ quality, judge }) => quality === 1 && judge?.status === 'ok'))
  const firsts = provider.asked.flatMap(({ body }, at) => {
    const before = provider.asked[at - 1]?.body.model
    return body.model === 'judge' && before === 'B'
      ? [newName((body.messages as { content: string }[])[1]?.content ?? '')]
      : []
  })
  const shareA = firsts.filter((name) => name === 'A').length / firsts.length
  // Of 40 fair draws, fewer than 10 or more than 30 fall to one side once in 1,500 times.
  assert.ok(firsts.length === 40 && shareA >= 0.25 && shareA <= 0.75, `${shareA}`)
})

test('garbage is no judgement: it is counted, leaves quality unknown, and its cost counts', async (t) => {
  const stage = await stageFor(t, logFor(12), 'the logged answer')
  const said = ['no idea', '{"better":"C"}', '{"better":', '{"score":0.5}']
  let calls = 0
  const provider = await provide(
    t,
    asJudge(() => said[calls++ % said.length] ?? ''),
  )
  const { output, summary } = await runOn(stage, provider.url, { judge: judgeFor() })
  for (const { quality, status, judge } of await results(output))
    assert.deepEqual([quality, status, judge?.status, judge?.failures], [null, 'ok', 'failed', 2])
  assert.deepEqual([summary.judge?.failed, summary.ok, summary.effect], [12, 12, null])
  assert.ok(Math.abs(summary.spentUsd - 36 * 0.00006) < 1e-12)
})

test('without a logged answer each is marked by itself; its own repeats measure the judge', async (t) => {
  const stage = await stageFor(t, logFor(300))
  const random = seeded(Number(process.env.SEED ?? 7))
  // Two marks, 0.2 apart, at even chance: the error of one is 0.1.
  const provider = await provide(
    t,
    asJudge(() => `Fair enough.\n{"score":${random() < 0.5 ? 0.5 : 0.7}}`),
  )
  const { output, summary } = await runOn(stage, provider.url, { judge: judgeFor(1), concurrency: 16 })
  const [one] = await results(output)
  assert.deepEqual(
    [one?.judge?.mode, one?.judge?.calls, one?.quality_logged],
    ['score', 2, Number(one?.id.slice(2)) % 2],
  )
  assert.equal(summary.judge?.repeats, 300)
  // The share of unequal pairs is binomial (300, 1/2): outside 0.4 to 0.6 once in 2,000 times.
  const { disagreement, sd } = summary.judge ?? {}
  assert.ok(disagreement && disagreement > 0.4 && disagreement < 0.6, `${disagreement}`)
  assert.ok(sd && Math.abs(sd - 0.1) < 0.012, `${sd}`)
})
