// Whole promotions by the command, with real parts: killed in the middle and gone on with, refused by the gate, held by another process,
// written back into the router's own file, and undone by hand.
import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { rollbackCommand } from '../cli/promote.ts'
import { calibrationOf, calibrationText } from '../replay/promote/calibration.ts'
import { calibrationHtml } from '../replay/promote/calibration-page.ts'
import { lookAt } from '../replay/promote/canary.ts'
import { type HoldError, takeHold } from '../replay/promote/hold.ts'
import type { Promotion } from '../replay/promote/promotion.ts'
import { withPolicy } from '../replay/promote/write-back.ts'
import { policyText } from '../router/policy/policy.ts'
import {
  candidateText,
  currentRouter,
  file,
  gate,
  ledger,
  planned,
  productionText,
  promote,
  putInForce,
  query,
  router,
  start,
  statesOf,
  testMsMax,
  traffic,
  weighted,
} from './promote-stage.ts'

const configText = `# who serves
listen: { port: 8080 }
policy: policies/balanced.yaml
models:
  - { name: first, provider: a } # the big one
`

describe('a promotion', { timeout: testMsMax }, () => {
  test('passes the gate, is killed in the middle of its canary, goes on, completes, and has its prediction beside what came', async () => {
    await start()
    const production = await putInForce(productionText)
    await traffic(560)
    const first = promote('--policy', file('cheap.yaml'), '--gate', file('gate.yaml'))
    let isOver = false
    while (!/ canary: /.test(first.said.error)) {
      assert.equal(first.child.exitCode, null, first.said.error + first.said.out)
      await sleep(20)
    }
    await traffic(60)
    first.child.kill('SIGKILL')
    assert.equal(await first.ended, null)
    assert.match(first.said.out, /^Promote +cheap: all 6 conditions are shown$/m)
    const id = /--resume (\S+)/.exec(first.said.error)?.[1] ?? ''
    assert.deepEqual(await statesOf(id), ['planned', 'canary'])

    await writeFile(file('signalbox.yaml'), configText)
    const second = promote('--resume', id, '--json', '--write', file('signalbox.yaml'))
    void second.ended.then(() => {
      isOver = true
    })
    await traffic(4000, () => isOver)
    assert.equal(await second.ended, 0, second.said.error)
    const promotion = JSON.parse(second.said.out) as Promotion
    assert.equal(promotion.state, 'completed')
    assert.deepEqual(await statesOf(id), ['planned', 'canary', 'completing', 'completed'])
    assert.equal((await currentRouter.inForce()).hash, promotion.candidate.hash)
    const config = await readFile(file('signalbox.yaml'), 'utf8')
    assert.equal(
      config,
      withPolicy(
        configText,
        promotion.candidate,
        `Put in force by promotion ${id} on ${promotion.changed_at.slice(0, 10)}.`,
        'x',
      ),
    )
    for (const line of ['# who serves', '# the big one', 'port: 8080']) assert.ok(config.includes(line), config)
    assert.doesNotMatch(config, /balanced/)
    assert.equal(promotion.production.hash, production.hash)

    const [run] = await query(
      `SELECT verdict, exit_code, candidate_name, production_hash FROM otel.replay_runs FINAL WHERE id = '${promotion.replay_id}'`,
    )
    assert.deepEqual(run, {
      verdict: 'promote',
      exit_code: 0,
      candidate_name: 'cheap',
      production_hash: production.hash,
    })
    const cost = promotion.realised?.find(({ metric }) => metric === 'cost_usd')
    assert.ok(
      Math.abs((cost?.value ?? 0) - -0.00003) < 0.000006,
      `half of the requests cost $0.00006 less: ${cost?.value}`,
    )
    const again = await promote('--realised', id).ended
    assert.equal(again, 0)
    const stored = await ledger.load(id)
    assert.deepEqual([stored.state, stored.seq], ['completed', 5])
    const calibration = calibrationOf(await ledger.all())
    assert.equal(calibration.promotions, 1)
    assert.ok(calibration.comparisons.some(({ metric, held }) => metric === 'cost_usd' && held))
    assert.match(calibrationText(calibration), /^1 promotions; predictions that held: \d of \d/)
    assert.match(calibrationHtml(calibration), /<svg[^>]*Realised changes/)
  })

  test('has evidence in ClickHouse that is what was served: its sums are those of the rows', async () => {
    const [promotion] = await ledger.all()
    assert.ok(promotion)
    const sums = await ledger.sums(promotion, Date.now())
    await start()
    const rows = await query<{ record: string; path: string[]; cost_usd: number; score: number | null }>(
      `SELECT d.path AS path, d.cost_usd AS cost_usd, f.score AS score FROM (SELECT * FROM otel.routing_decisions FINAL WHERE policy_hash = '${promotion.canary.hash}') AS d
       LEFT JOIN (SELECT decision_id, toNullable(score) AS score FROM otel.feedback FINAL) AS f ON d.decision_id = f.decision_id`,
    )
    assert.ok(rows.length > 500)
    for (const arm of ['production', 'candidate'] as const) {
      const own = rows.filter(({ path }) => path[0] === `arm:${arm}`)
      const found = (metric: string, fill = 'known') =>
        sums.find((sum) => sum.arm === arm && sum.metric === metric && sum.fill === fill)
      assert.equal(found('failed')?.clusters, own.length)
      const cost = own.reduce((total, { cost_usd: usd }) => total + usd, 0)
      assert.ok(Math.abs((found('cost_usd')?.total ?? 0) - cost) < 1e-9)
      assert.equal(
        found('quality')?.total,
        own.reduce((total, { score }) => total + (score ?? 0), 0),
      )
      assert.equal(found('quality')?.rows, own.filter(({ score }) => score !== null).length)
      assert.equal(found('quality', 'one')?.rows, own.length)
    }
    const before = await ledger.sums(promotion, 0)
    assert.equal(
      before.find(({ metric, fill }) => metric === 'quality' && fill === 'one')?.rows,
      0,
      'nothing is settled yet',
    )
    assert.equal(lookAt(before, gate, 0.5).findings.find(({ metric }) => metric === 'quality')?.result, 'open')
  })

  test('is driven by one process: another is told who has it, and has it when that one is gone', async () => {
    await start()
    const promotion = await planned('p-held')
    const first = promote('--resume', promotion.id, '--by', 'the first')
    while (!/ canary: /.test(first.said.error)) {
      assert.equal(first.child.exitCode, null, first.said.error)
      await sleep(20)
    }
    const second = promote('--resume', promotion.id, '--by', 'the second')
    assert.equal(await second.ended, 64, second.said.error)
    const refusal = new RegExp(
      `driving promotion p-held: the first on \\S+ \\(process ${first.child.pid}\\) is at it; wait for it, or until \\S+Z if it is gone: a hold that is not renewed lapses after 60 s`,
    )
    assert.match(second.said.error, refusal)
    assert.deepEqual(await statesOf('p-held'), ['planned', 'canary'], 'and nothing was done')
    first.child.kill('SIGKILL')
    await first.ended
    const third = promote('--resume', promotion.id)
    await putInForce(productionText)
    assert.equal(await third.ended, 2, third.said.error)
    assert.equal((await statesOf('p-held')).at(-1), 'rolled-back')
    assert.equal((await ledger.load('p-held')).state, 'rolled-back', 'a hold is no state')
  })

  test('is held by the last of two processes that took it at once, and by nobody once its time is over', async () => {
    let nowMs = Date.now()
    const clock = { now: () => nowMs, sleep: async () => {} }
    const elsewhere = { key: 'k', by: 'somebody', host: 'another-machine', pid: 1 }
    await ledger.hold('p-race', { ...elsewhere, until: new Date(nowMs + 60_000).toISOString() })
    const held = (error: HoldError) =>
      error.code === 'promotion-held' && /somebody on another-machine/.test(error.message)
    await assert.rejects(takeHold(ledger, 'p-race', 'me', 60_000, clock), held)
    nowMs += 61_000
    const mine = await takeHold(ledger, 'p-race', 'me', 60_000, clock)
    await sleep(5)
    await ledger.hold('p-race', { ...elsewhere, until: new Date(nowMs + 60_000).toISOString() })
    await assert.rejects(mine.keep(), held, 'whoever was overtaken stops')
    await mine.release()
    assert.equal((await ledger.holder('p-race'))?.by, 'somebody', 'and leaves the other’s hold alone')
    nowMs += 61_000
    const again = await takeHold(ledger, 'p-race', 'me', 60_000, clock)
    await again.keep()
    await sleep(5)
    await again.release()
    await takeHold(ledger, 'p-race', 'the next', 60_000, clock)
    assert.ok(
      (await ledger.all()).every(({ id }) => id !== 'p-race'),
      'a hold alone is no promotion',
    )
  })

  test('does not begin when the gate is not passed: the exit code is the gate’s, and the run is kept', async () => {
    await start()
    const { hash } = await putInForce(productionText)
    const dear = file('dear.yaml')
    await writeFile(dear, weighted('dear', 'second: 1'))
    const { said, ended } = promote('--policy', dear, '--gate', file('gate.yaml'))
    assert.equal(await ended, 1, said.error)
    assert.match(said.out, /^Reject +dear: cost better: harm shown$/m)
    assert.equal((await currentRouter.inForce()).hash, hash)
    const runs = await query("SELECT verdict FROM otel.replay_runs FINAL WHERE candidate_name = 'dear'")
    assert.deepEqual(runs, [{ verdict: 'reject' }])
  })

  test('is undone by hand with one command, once', async () => {
    await start()
    const { hash } = await currentRouter.inForce()
    await putInForce(candidateText)
    const rollBack = () =>
      rollbackCommand().parseAsync(
        ['--router', router.url, '--token-env', 'SIGNALBOX_ADMIN_TOKEN', '--reason', 'too slow', '--json'],
        { from: 'user' },
      )
    await rollBack()
    const inForce = await currentRouter.inForce()
    assert.deepEqual([inForce.hash, inForce.by, inForce.reason], [hash, 'signalbox rollback', 'too slow'])
    await assert.rejects(rollBack(), /no other policy was in force/)
  })

  test('is written back only into a file that has a policy, and as the very policy', () => {
    const candidate = policyText(candidateText, 'candidate')
    const inline = withPolicy(
      'policy: # ours\n  name: old\n  choose: { kind: lowest }\nlisten: {} # here\n',
      candidate,
      'New.',
      'f',
    )
    assert.match(inline, /^policy:.*\n +# New\.\n +choose:[\s\S]*name: cheap\nlisten: \{\} # here\n$/)
    const wanted = { name: 'WriteBackError', code: 'options-invalid' }
    for (const text of ['models: []\n', 'policy: [\n', ''])
      assert.throws(() => withPolicy(text, candidate, '', 'f'), { ...wanted, name: 'Error' })
  })

  test('says in one line what it was not given', async () => {
    await start()
    const { said, ended } = promote('--policy', file('cheap.yaml'))
    assert.equal(await ended, 64)
    assert.match(said.error, /^signalbox: promoting a policy: wanted --policy and --gate/m)
    const fromFile = promote('--resume', 'p-none', '--source', 'log.ndjson')
    assert.equal(await fromFile.ended, 64)
    assert.match(fromFile.said.error, /found --source log\.ndjson; wanted the ClickHouse/)
    const lost = promote('--resume', 'p-none')
    assert.equal(await lost.ended, 64)
    assert.match(lost.said.error, /has no such promotion/)
  })
})
