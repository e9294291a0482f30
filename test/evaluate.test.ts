// Evaluation of captured answers: a real router captures them, a scripted judge on a real socket marks them, and what is said of
// them is read back as replay reads it. Budgets, kills and repetitions included.
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { ruleOf } from '../replay/evaluate/rules.ts'
import { EvaluatorsError, parseEvaluators } from '../replay/evaluate/settings.ts'
import { linearPattern } from '../router/capture/pattern.ts'
import { draw } from '../router/policy/chance.ts'
import { temporaryFolder } from './collector-fixtures.ts'
import { chat, collector, idOf, post, query, router, scripts, start } from './router-stage.ts'
import { json, type Script, startProvider } from './scripted-provider.ts'

process.env.CAPTURE_SECRET = 'a secret of at least thirty-two characters'
const main = fileURLToPath(new URL('../cli/main.ts', import.meta.url))
const price = '{ input_usd_per_mtok: 1000, output_usd_per_mtok: 1000 }'
const judgeUsd = 2.5
let runs = 0

/** Answers that the router captured, `count` of them, by decision id. */
const captured = async (count: number): Promise<string[]> => {
  await start('capture: { secret_env: CAPTURE_SECRET, mode: full }')
  const ids: string[] = []
  for (let at = 0; at < count; at++) {
    scripts(json(at % 2 === 0 ? `answer ${at}` : `I'm sorry, I can't help with that (${at}).`))
    const response = await post(chat({ metadata: { expected: `answer ${at}` } }))
    await response.text()
    ids.push(idOf(response))
  }
  await router.close()
  return ids
}

const stage = async (t: TestContext, script: Script) => {
  const [folder, judge] = [await temporaryFolder(), await startProvider(script)]
  t.after(async () => {
    await judge.close()
    await folder.remove()
  })
  runs += 1
  const tag = `r${runs}`
  const configure = (evaluators: string, budget = '{ usd_per_day: 1000 }') =>
    writeFile(
      join(folder.path, 'evaluators.yaml'),
      `source: "${collector.clickhouseUrl}"
collector: "${collector.otlpUrl}"
budget: ${budget}
judge: { url: "${judge.url}/v1", model: judge, price: ${price}, concurrency: 2 }
evaluators:
${evaluators}`,
    )
  const command = ['evaluate', '--config', join(folder.path, 'evaluators.yaml'), '--cache', join(folder.path, 'cache')]
  return { folder, judge, tag, configure, command }
}

type Ended = { readonly code: number | null; readonly out: string; readonly err: string }
const running = (args: readonly string[]): { child: ChildProcess; ended: Promise<Ended> } => {
  const child = spawn(process.execPath, [main, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  const ended = new Promise<Ended>((resolve) => {
    const [out, err] = [[] as Buffer[], [] as Buffer[]]
    child.stdout.on('data', (chunk: Buffer) => out.push(chunk))
    child.stderr.on('data', (chunk: Buffer) => err.push(chunk))
    child.on('close', (code) =>
      resolve({ code, out: Buffer.concat(out).toString(), err: Buffer.concat(err).toString() }),
    )
  })
  return { child, ended }
}
const signalbox = (...args: readonly string[]): Promise<Ended> => running(args).ended

type Scored = Readonly<Record<'id' | 'name' | 'source', string>> & {
  readonly score: number
  readonly keep_probability: number
}
const scoresUnder = (name: string): Promise<Scored[]> =>
  query<Scored>(
    `SELECT toString(decision_id) AS id, name, source, score, keep_probability FROM otel.feedback_by_decision
     WHERE name = {id:String} ORDER BY id`,
    name,
  )

test('rules and a judge say of captured answers what there is to say, once, and the scores are feedback', async (t) => {
  const ids = await captured(6)
  const { judge, tag, configure, command } = await stage(t, json('Well.\n{"score":0.25}'))
  await configure(`  - { name: ${tag}-exact, exact: { metadata: expected } }
  - { name: ${tag}-refusal, refusal: true }
  - { name: ${tag}-judge, judge: { rubric: "is it kind?" } }`)
  const estimate = await signalbox(...command, '--dry-run', '--json')
  const { evaluators } = JSON.parse(estimate.out) as {
    evaluators: { name: string; answers: number; usd: number; usd_most: number }[]
  }
  assert.deepEqual(
    evaluators.map(({ answers }) => answers),
    [6, 6, 6],
  )
  assert.ok((evaluators[2]?.usd ?? 0) > 0 && (evaluators[2]?.usd_most ?? 0) > (evaluators[2]?.usd ?? 0))
  assert.equal(judge.asked.length, 0, 'an estimate asks nobody')
  const first = await signalbox(...command, '--json')
  assert.equal(first.code, 0, first.err)
  assert.equal(JSON.parse(first.out).stored, 18)
  assert.equal(judge.asked.length, 6)
  assert.match(judge.asked[0]?.raw ?? '', /is it kind\?/)
  const byId = new Map((await scoresUnder(`${tag}-exact`)).map(({ id, score }) => [id, score]))
  assert.deepEqual(
    ids.map((id) => byId.get(id)),
    [1, 0, 1, 0, 1, 0],
  )
  assert.deepEqual(
    (await scoresUnder(`${tag}-refusal`)).map(({ source }) => source),
    ids.map(() => 'rule'),
  )
  assert.ok((await scoresUnder(`${tag}-judge`)).every(({ score, source }) => score === 0.25 && source === 'judge'))
  const second = await signalbox(...command, '--json')
  assert.deepEqual([second.code, JSON.parse(second.out).stored, judge.asked.length], [0, 0, 6])
  const again = await signalbox(...command, '--again', '--json')
  assert.deepEqual([JSON.parse(again.out).stored, judge.asked.length], [18, 6], 'kept answers are not paid for again')
})

test('a sample is drawn by the id, and its probability is stored with the score', async (t) => {
  const ids = await captured(8)
  const { tag, configure, command } = await stage(t, json('{"score":1}'))
  await configure(`  - { name: ${tag}-some, share: 0.5, length: { max: 9 } }`)
  assert.equal((await signalbox(...command)).code, 0)
  const found = (await scoresUnder(`${tag}-some`)).filter(({ id }) => ids.includes(id))
  assert.deepEqual(
    found.map(({ id }) => id).sort(),
    ids.filter((id) => draw(id, 'evaluate', `${tag}-some`) < 0.5).sort(),
  )
  assert.ok(found.every(({ keep_probability: keep }) => keep === 0.5))
})

test('the budget of a day holds, over restarts, and ends with exit code 4; rules go on', async (t) => {
  await captured(3)
  const { judge, tag, configure, command } = await stage(t, json('{"score":1}', { input: 2000, output: 500 }))
  const text = `  - { name: ${tag}-judge, judge: { rubric: "good?" } }
  - { name: ${tag}-rule, contains: answer }`
  await configure(text, '{ usd_per_day: 1000, calls: 2 }')
  const capped = await signalbox(...command, '--json')
  assert.deepEqual([capped.code, JSON.parse(capped.out).stop, judge.asked.length], [4, 'calls', 2])
  const open = (await scoresUnder(`${tag}-rule`)).length - (await scoresUnder(`${tag}-judge`)).length
  assert.ok(open > 0, 'rules cost nothing and go on')
  // A budget for one more judgement at its dearest, had not the two that are stored taken of it.
  const { evaluators, spent_today_usd: spent } = JSON.parse((await signalbox(...command, '--dry-run', '--json')).out)
  assert.ok(spent >= 2 * judgeUsd)
  await configure(text, `{ usd_per_day: ${evaluators[0].usd_most / evaluators[0].answers + judgeUsd} }`)
  const broke = await signalbox(...command, '--json')
  assert.deepEqual([broke.code, JSON.parse(broke.out).stop, judge.asked.length], [4, 'budget', 2])
})

test('killed in the middle and run again, it asks nobody twice and judges all', async (t) => {
  const ids = await captured(6)
  const asked = new Map<string, number>()
  const slow: Script = async (response, request) => {
    asked.set(request.raw, (asked.get(request.raw) ?? 0) + 1)
    await new Promise((resolve) => setTimeout(resolve, 60))
    return json('{"score":0.5}')(response, request)
  }
  const { judge, tag, configure, command } = await stage(t, slow)
  await configure(`  - { name: ${tag}-judge, judge: { rubric: "brief?" } }`)
  const { child, ended } = running(command)
  const stored = async () => (await scoresUnder(`${tag}-judge`)).length
  for (let look = 0; look < 400 && (await stored()) < 2; look++) await new Promise((resolve) => setTimeout(resolve, 10))
  child.kill('SIGKILL')
  await ended
  const before = await stored()
  assert.ok(before >= 2)
  assert.equal((await signalbox(...command)).code, 0)
  const found = await scoresUnder(`${tag}-judge`)
  assert.ok(ids.every((id) => found.some((row) => row.id === id)))
  const [row] = await query<{ rows: string }>(
    `SELECT toString(count()) AS rows FROM otel.otel_logs WHERE LogAttributes['gen_ai.evaluation.name'] = {id:String}`,
    `${tag}-judge`,
  )
  assert.ok(Number(row?.rows) - found.length <= 2, 'only what was in flight can have been sent again')
  // Two may have been cut off by the kill: their answers had not come.
  assert.ok(judge.asked.length <= found.length + 2, `${judge.asked.length} calls for ${found.length} answers`)
})

test('a judge that gives no judgement is counted, paid for, and asked again another time', async (t) => {
  await captured(1)
  const { judge, tag, configure, command } = await stage(t, json('I would rather not say'))
  await configure(`  - { name: ${tag}-judge, judge: { rubric: "true?" } }`)
  const first = JSON.parse((await signalbox(...command, '--json')).out)
  assert.ok(first.failed > 0 && first.spent_usd > 0)
  assert.deepEqual(await scoresUnder(`${tag}-judge`), [])
  assert.ok(judge.asked.length > 0)
})

test('every rule marks as it says', () => {
  const asked = { messages: [{ role: 'user', content: 'x' }], metadata: { wanted: '42' } }
  const mark = (rule: Parameters<typeof ruleOf>[0], answer: string) => ruleOf(rule, linearPattern)(answer, asked)
  const shape = { type: 'object', properties: { n: { type: 'integer' } }, required: ['n'] }
  const cases: readonly [Parameters<typeof ruleOf>[0], string, number | null][] = [
    [{ exact: 'yes' }, ' yes\n', 1],
    [{ exact: 'yes' }, 'yes!', 0],
    [{ exact: { metadata: 'wanted' } }, '42', 1],
    [{ exact: { metadata: 'absent' } }, '42', null],
    [{ exact: { metadata: 'constructor' } }, '42', null],
    [{ contains: ['Paris', 'seine'] }, 'PARIS lies on the Seine', 1],
    [{ contains: 'Rome' }, 'Paris', 0],
    [{ regex: '^\\d+$' }, '123', 1],
    [{ regex: '^\\d+$' }, 'a', 0],
    [{ regex: '(a+)+$' }, `${'a'.repeat(50_000)}b`, 0],
    [{ json_schema: shape }, '```json\n{"n": 1}\n```', 1],
    [{ json_schema: shape }, '{"n": "1"}', 0],
    [{ json_schema: shape }, 'n is 1', 0],
    [{ length: { min: 2, max: 3 } }, 'abcd', 0],
    [{ length: { min: 2, max: 3 } }, 'abc', 1],
    [{ refusal: true }, 'I’m sorry, I can’t help with that.', 0],
    [{ refusal: true }, 'Paris', 1],
  ]
  for (const [rule, answer, score] of cases)
    assert.equal(mark(rule, answer), score, JSON.stringify([rule, answer.slice(0, 50)]))
})

test('a file of evaluators that is none is refused with every problem and its line', () => {
  const parse = (text: string) => () => parseEvaluators(text, 'evaluators.yaml', {})
  const refused = (text: string, message: RegExp) =>
    assert.throws(parse(text), (error) => error instanceof EvaluatorsError && message.test(error.message))
  refused('evaluators: [{ name: a, regex: "(" }]', /evaluators\[0\].*RE2/)
  refused('evaluators: [{ name: a, exact: x, refusal: true }]', /wanted one of exact, contains/)
  refused('evaluators: [{ name: a, judge: { rubric: x } }]', /judge: .*wanted url, model and price/)
  refused('evaluators: [{ name: a, exact: x }, { name: a, exact: y }]', /wanted a name of its own/)
  refused(
    'payload_keys: { k1: NO_KEY }\ncollector_token_env: NO_TOKEN\nevaluators: [{ name: a, exact: x }]',
    /no key in NO_KEY[\s\S]*no NO_TOKEN/,
  )
})

test('`signalbox up` judges what it captures, in the background, where evaluators are configured', async (t) => {
  const [folder, provider] = [await temporaryFolder(), await startProvider(json('Paris'))]
  await writeFile(
    join(folder.path, 'evaluators.yaml'),
    'poll_seconds: 1\nevaluators: [{ name: capital, contains: paris }]\n',
  )
  const config = join(folder.path, 'signalbox.yaml')
  await writeFile(
    config,
    `listen: { port: 0 }
collector: { otlp_port: 0, clickhouse_port: 0 }
capture: { secret_env: CAPTURE_SECRET, mode: full }
evaluators: evaluators.yaml
policy: { name: only, score: "1.0", choose: { kind: highest } }
providers: [{ name: a, kind: openai, base_url: "${provider.url}/v1" }]
models: [{ name: only, provider: a }]
`,
  )
  const { child, ended } = running(['up', '--config', config])
  t.after(async () => {
    child.kill('SIGTERM')
    await ended
    await provider.close()
    await folder.remove()
  })
  const [routerUrl, clickhouseUrl] = await new Promise<[string, string]>((resolve) => {
    let text = ''
    child.stderr?.on('data', (chunk: Buffer) => {
      text += chunk
      const found = /API {3}(\S+)\/v1[\s\S]*ClickHouse +(\S+)/.exec(text)
      if (found) resolve([found[1] as string, found[2] as string])
    })
  })
  const answer = await fetch(`${routerUrl}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(chat()),
  })
  const id = idOf(answer)
  let scores = ''
  for (let look = 0; look < 150 && scores === ''; look++) {
    await new Promise((resolve) => setTimeout(resolve, 100))
    const sql = `SELECT score, source FROM otel.feedback_by_decision WHERE decision_id = '${id}' AND name = 'capital' FORMAT TSV`
    scores = await (await fetch(clickhouseUrl, { method: 'POST', body: sql })).text()
  }
  assert.equal(scores, '1\trule\n')
})
