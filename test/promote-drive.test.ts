// Whole promotions with real parts: router, collector and ClickHouse, scripted providers, traffic with feedback, and the command
// in a process that is killed in the middle. Time is compressed by looking often; nothing else is changed.
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { request } from 'undici'
import { rollbackCommand } from '../cli/promote.ts'
import type { Collector } from '../collector/server.ts'
import { calibrationOf, calibrationText } from '../replay/promote/calibration.ts'
import { calibrationHtml } from '../replay/promote/calibration-page.ts'
import { lookAt } from '../replay/promote/canary.ts'
import { drive, type World } from '../replay/promote/drive.ts'
import { judged } from '../replay/promote/gate-command.ts'
import { parseGate } from '../replay/promote/gate-file.ts'
import { gateSummary } from '../replay/promote/gate-report.ts'
import { type Ledger, openLedger } from '../replay/promote/ledger.ts'
import { canaryOf, type Promotion, plan } from '../replay/promote/promotion.ts'
import { type RouterAdmin, routerAdmin } from '../replay/promote/router.ts'
import { parseConfig } from '../router/config.ts'
import { policyText } from '../router/policy/policy.ts'
import { type Router, startRouter } from '../router/server.ts'
import { rowsOf, silent, temporaryCollector } from './collector-fixtures.ts'
import { seeded } from './replay-truth.ts'
import { json, type ScriptedProvider, startProvider } from './scripted-provider.ts'

const token = 'a-token-for-tests-only'
process.env.SIGNALBOX_ADMIN_TOKEN = token
const weighted = (name: string, weights: string) =>
  `name: ${name}\nchoose: { kind: weighted, weights: { ${weights} } }\nfallback: { attempts_max: 1 }\n`
const productionText = weighted('prod', 'first: 1, second: 1')
const candidateText = weighted('cheap', 'first: 1')
const gateText =
  'goal: cost_usd\nmargins: { quality: 0.2, failed: 0.1, abandoned: 0.1 }\ncanary: { share: 0.5, hours_max: 1, settle_minutes: 0 }\n'
const gate = parseGate(gateText)
const random = seeded(Number(process.env.SEED ?? 7))

/** The command as a process of its own, so that it can be killed. */
const commandUrl = new URL('../cli/promote.ts', import.meta.url).href
const script = `import { promoteCommand } from ${JSON.stringify(commandUrl)}\nawait promoteCommand().parseAsync()\n`

let folder: string
let collector: Collector
let providers: [ScriptedProvider, ScriptedProvider]
let router: Router
let ledger: Ledger
const start = async (): Promise<void> => {
  const [a, b] = providers
  const text = `
listen: { port: 0 }
admin: { token_env: SIGNALBOX_ADMIN_TOKEN }
telemetry: { endpoint: "${collector.otlpUrl}" }
policy: { name: start, choose: { kind: weighted, weights: { first: 1 } } }
providers:
  - { name: a, kind: openai, base_url: "${a.url}/v1" }
  - { name: b, kind: openai, base_url: "${b.url}/v1" }
models:
  - { name: first, provider: a, price: { input_usd_per_mtok: 1, output_usd_per_mtok: 10 } }
  - { name: second, provider: b, price: { input_usd_per_mtok: 2, output_usd_per_mtok: 20 } }
`
  router = await startRouter(parseConfig(text, folder), { log: silent })
}
const query = async <Row = Record<string, unknown>>(sql: string): Promise<Row[]> => {
  await router.telemetry.flush()
  return rowsOf<Row>(collector, sql)
}
const file = (name: string) => join(folder, name)
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'signalbox-promote-'))
  collector = await temporaryCollector()
  providers = [await startProvider(json('from a')), await startProvider(json('from b'))]
  ledger = openLedger(collector.otlpUrl, collector.clickhouseUrl)
  for (const [name, text] of Object.entries({
    'promote.mjs': script,
    'cheap.yaml': candidateText,
    'gate.yaml': gateText,
  }))
    await writeFile(file(name), text)
})
afterEach(() => router?.close())
after(async () => {
  await ledger.close()
  await Promise.all(providers.map((provider) => provider.close()))
  await collector.close()
  await rm(folder, { recursive: true, force: true })
})

/** Sessions of one request each, eight at a time, every answer judged; until `count` or until told to stop. */
const traffic = async (
  count: number,
  isOver = (): boolean => false,
  judge: (isFirst: boolean) => boolean = () => random() < 0.8,
): Promise<void> => {
  let left = count
  const send = (path: string, body: object, headers = {}) =>
    request(`${router.url}${path}`, { method: 'POST', headers, body: JSON.stringify(body) })
  const client = async (): Promise<void> => {
    while (left-- > 0 && !isOver()) {
      const chat = { model: 'auto', messages: [{ role: 'user', content: 'Hi' }] }
      const { headers, body } = await send('/v1/chat/completions', chat, { 'x-signalbox-session': `s-${random()}` })
      await body.dump()
      const score = Number(judge(headers['x-signalbox-model'] === 'first'))
      await (await send('/v1/feedback', { decision_id: headers['x-signalbox-decision-id'], score })).body.dump()
    }
  }
  await Promise.all(Array.from({ length: 8 }, client))
  await router.telemetry.flush()
}
/** The router of the moment, which a test may restart. */
const currentRouter: RouterAdmin = {
  inForce: () => routerAdmin(router.url, token, 'a test').inForce(),
  put: (...given) => routerAdmin(router.url, token, 'a test').put(...given),
  rollBack: (reason) => routerAdmin(router.url, token, 'a test').rollBack(reason),
}
const world = (overrides: Partial<World> = {}): World => ({
  router: currentRouter,
  ledger,
  pollMs: 200,
  now: Date.now,
  sleep: (ms) => sleep(ms),
  tell: () => {},
  warn: () => {},
  leaseSeconds: 60,
  ...overrides,
})
const putInForce = async (text: string) => {
  const { hash } = await currentRouter.inForce()
  return currentRouter.put(text, hash, 'set up')
}
const statesOf = async (id: string) =>
  (await query<{ state: string }>(`SELECT state FROM otel.promotions FINAL WHERE id = '${id}' ORDER BY seq`)).map(
    ({ state }) => state,
  )

/** A promotion whose gate was passed, as the command plans it; the evidence is that of the first test. */
let evidence: ReturnType<typeof gateSummary> & { id: string }
const planned = async (id: string, hoursMax = 1, text = candidateText): Promise<Promotion> => {
  const { name, hash, source } = await putInForce(productionText)
  const [production, candidate] = [{ name, hash, source }, policyText(text, 'candidate')]
  const of = { ...evidence, candidate, gate: { ...gate, canary: { ...gate.canary, hours_max: hoursMax } } }
  const promotion = plan(of, { production, candidate, canary: canaryOf(production, candidate, 0.5) }, id, Date.now())
  await ledger.record(promotion)
  return promotion
}

const children: ChildProcess[] = []
after(() => children.map((child) => child.kill('SIGKILL')))
const promote = (...flags: string[]) => {
  const urls = ['--router', router.url, '--source', collector.clickhouseUrl, '--otlp-url', collector.otlpUrl]
  const named = ['--token-env', 'SIGNALBOX_ADMIN_TOKEN', '--poll-seconds', '0.3']
  const child = spawn(process.execPath, [file('promote.mjs'), ...urls, ...named, ...flags], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  children.push(child)
  const said = { out: '', error: '' }
  child.stdout.on('data', (chunk) => (said.out += chunk))
  child.stderr.on('data', (chunk) => (said.error += chunk))
  const ended = once(child, 'close').then(([code]) => code as number | null)
  return { child, said, ended }
}

/** A promotion that never ends is a failure, not a wait. */
const testMsMax = 120_000

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

    const second = promote('--resume', id, '--json')
    void second.ended.then(() => {
      isOver = true
    })
    await traffic(4000, () => isOver)
    assert.equal(await second.ended, 0, second.said.error)
    const promotion = JSON.parse(second.said.out) as Promotion
    assert.equal(promotion.state, 'completed')
    assert.deepEqual(await statesOf(id), ['planned', 'canary', 'completing', 'completed'])
    assert.equal((await currentRouter.inForce()).hash, promotion.candidate.hash)
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
    evidence = {
      ...gateSummary(
        await judged(
          { source: collector.clickhouseUrl, policy: file('cheap.yaml'), against: promotion.production.hash },
          gate,
        ),
      ),
      id: 'r-1',
    }
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

  test('whose candidate turns out worse than the gate saw is rolled back by itself', async () => {
    await start()
    const promotion = await planned('p-bad')
    let isOver = false
    const [ended] = await Promise.all([
      drive(promotion, world()).finally(() => {
        isOver = true
      }),
      traffic(
        3000,
        () => isOver,
        (isFirst) => !isFirst,
      ),
    ])
    assert.deepEqual([ended.state, ended.cause, ended.reason], ['rolled-back', 'harm', 'harm shown: quality'])
    assert.equal((await currentRouter.inForce()).hash, promotion.production.hash)
    assert.deepEqual(await statesOf('p-bad'), ['planned', 'canary', 'rolling-back', 'rolled-back'])
  })

  test('that shows nothing in its time is rolled back', async () => {
    await start()
    const promotion = await planned('p-late', 0.00001)
    const ended = await drive(promotion, world())
    assert.deepEqual([ended.state, ended.cause], ['rolled-back', 'time'])
    assert.equal((await currentRouter.inForce()).hash, promotion.production.hash)
  })

  test('gives way to whoever changes the policy meanwhile', async () => {
    await start()
    const promotion = await planned('p-other')
    let looks = 0
    const tell = (): void => {
      looks += 1
    }
    const change = async (ms: number): Promise<void> => {
      if (looks > 3) await putInForce(weighted('other', 'second: 1'))
      await sleep(ms)
    }
    const ended = await drive(promotion, world({ sleep: change, tell }))
    assert.deepEqual(
      [ended.state, ended.cause, ended.reason],
      ['abandoned', 'changed', "a test put 'other' in force (set up)"],
    )
    assert.equal((await currentRouter.inForce()).name, 'other')
  })

  test('puts its canary back into a router that was restarted, and takes a rollback by hand for an answer', async () => {
    await start()
    const policy = await currentRouter.inForce()
    const candidate = policyText(candidateText, 'candidate')
    const canary = canaryOf(policy, candidate, 0.5)
    const production = { name: policy.name, hash: policy.hash, source: policy.source }
    const promotion = plan({ ...evidence, gate }, { production, candidate, canary }, 'p-restart', Date.now())
    let slept = 0
    const pause = async (): Promise<void> => {
      slept += 1
      if (slept === 2) {
        await router.close()
        await start()
        assert.equal((await currentRouter.inForce()).hash, production.hash, 'the router reads its own file again')
      }
      if (slept === 4) {
        assert.equal((await currentRouter.inForce()).hash, canary.hash)
        await currentRouter.rollBack('by hand')
      }
    }
    const ended = await drive(promotion, world({ sleep: pause }))
    assert.deepEqual([ended.state, ended.cause], ['rolled-back', 'changed'])
    assert.match(ended.reason, /by hand/)
  })

  test('that nobody drives any more gives the router back to production, and stays ended when it is resumed', async () => {
    await start()
    const promotion = await planned('p-alone')
    const killed = new Error('killed')
    const kill = async (): Promise<void> => {
      throw killed
    }
    await assert.rejects(drive(promotion, world({ sleep: kill, leaseSeconds: 1.5 })), killed)
    const stored = await ledger.load('p-alone')
    assert.deepEqual([stored.state, (await currentRouter.inForce()).hash], ['canary', promotion.canary.hash])
    await sleep(1800)
    assert.equal((await currentRouter.inForce()).hash, promotion.production.hash)
    const ended = await drive(stored, world())
    assert.deepEqual([ended.state, ended.cause], ['rolled-back', 'changed'])
    assert.match(ended.reason, /the router put 'prod' in force \(its lease was not renewed\)/)
  })

  test('waits for a router that does not answer, and says so', async () => {
    await start()
    const promotion = await planned('p-gone')
    const gone = routerAdmin('http://127.0.0.1:1', token, 'a test')
    let isGone = true
    const warnings: string[] = []
    const flaky: RouterAdmin = { ...currentRouter, inForce: () => (isGone ? gone : currentRouter).inForce() }
    const pause = async (): Promise<void> => {
      isGone = warnings.length < 2
      if (!isGone) await currentRouter.put(promotion.candidate.source, (await currentRouter.inForce()).hash, 'enough')
    }
    const ended = await drive(
      promotion,
      world({ router: flaky, sleep: pause, warn: (message) => warnings.push(message) }),
    )
    assert.equal(ended.state, 'abandoned')
    assert.match(warnings[0] ?? '', /no answer .*is it running\?/)
  })

  test('ends at once when the router cannot use the candidate', async () => {
    await start()
    const text = 'name: odd\nscore: candidate.nowhere\nchoose: { kind: highest }\n'
    const ended = await drive(await planned('p-odd', 1, text), world())
    assert.deepEqual([ended.state, ended.cause], ['abandoned', 'refused'])
    assert.match(ended.reason, /nowhere/)
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
