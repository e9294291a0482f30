// What the tests of promotions share: router, collector and ClickHouse, scripted providers, traffic with feedback, and the command as
// a process that can be killed. Whoever imports it has its stage set up before its tests and taken down after them.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, before } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { request } from 'undici'
import type { Collector } from '../collector/server.ts'
import type { World } from '../replay/promote/drive.ts'
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

export const token = 'a-token-for-tests-only'
process.env.SIGNALBOX_ADMIN_TOKEN = token
export const weighted = (name: string, weights: string) =>
  `name: ${name}\nchoose: { kind: weighted, weights: { ${weights} } }\nfallback: { attempts_max: 1 }\n`
export const productionText = weighted('prod', 'first: 1, second: 1')
export const candidateText = weighted('cheap', 'first: 1')
const gateText =
  'goal: cost_usd\nmargins: { quality: 0.2, failed: 0.1, abandoned: 0.1 }\ncanary: { share: 0.5, hours_max: 1, settle_minutes: 0 }\n'
export const gate = parseGate(gateText)
const random = seeded(Number(process.env.SEED ?? 7))

/** The command as a process of its own, so that it can be killed. */
const commandUrl = new URL('../cli/promote.ts', import.meta.url).href
const script = `import { promoteCommand } from ${JSON.stringify(commandUrl)}\nawait promoteCommand().parseAsync()\n`

let folder: string
export let collector: Collector
let providers: [ScriptedProvider, ScriptedProvider]
export let router: Router
export let ledger: Ledger
export const start = async (): Promise<void> => {
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
export const query = async <Row = Record<string, unknown>>(sql: string): Promise<Row[]> => {
  await router.telemetry.flush()
  return rowsOf<Row>(collector, sql)
}
export const file = (name: string) => join(folder, name)
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
export const traffic = async (
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
export const currentRouter: RouterAdmin = {
  inForce: () => routerAdmin(router.url, token, 'a test').inForce(),
  put: (...given) => routerAdmin(router.url, token, 'a test').put(...given),
  rollBack: (reason) => routerAdmin(router.url, token, 'a test').rollBack(reason),
}
export const world = (overrides: Partial<World> = {}): World => ({
  router: currentRouter,
  ledger,
  pollMs: 200,
  now: Date.now,
  sleep: (ms) => sleep(ms),
  tell: () => {},
  warn: () => {},
  leaseSeconds: 60,
  hold: async () => {},
  ...overrides,
})
export const putInForce = async (text: string) => {
  const { hash } = await currentRouter.inForce()
  return currentRouter.put(text, hash, 'set up')
}
export const statesOf = async (id: string) =>
  (
    await query<{ state: string }>(
      `SELECT state FROM otel.promotions FINAL WHERE id = '${id}' AND seq > 0 ORDER BY seq`,
    )
  ).map(({ state }) => state)

type Evidence = ReturnType<typeof gateSummary> & { readonly id: string }
let evidence: Evidence | undefined
/** What a gate made of half a thousand requests of production and the cheaper candidate; gathered once. */
export const evidenceOf = async (): Promise<Evidence> => {
  if (evidence) return evidence
  const { hash } = await putInForce(productionText)
  await traffic(560)
  const options = { source: collector.clickhouseUrl, policy: file('cheap.yaml'), against: hash }
  evidence = { ...gateSummary(await judged(options, gate)), id: 'r-1' }
  return evidence
}

/** A promotion whose gate was passed, as the command plans it. */
export const planned = async (id: string, hoursMax = 1, text = candidateText): Promise<Promotion> => {
  const passed = await evidenceOf()
  const { name, hash, source } = await putInForce(productionText)
  const [production, candidate] = [{ name, hash, source }, policyText(text, 'candidate')]
  const of = { ...passed, candidate, gate: { ...gate, canary: { ...gate.canary, hours_max: hoursMax } } }
  const promotion = plan(of, { production, candidate, canary: canaryOf(production, candidate, 0.5) }, id, Date.now())
  await ledger.record(promotion)
  return promotion
}

const children: ChildProcess[] = []
after(() => children.map((child) => child.kill('SIGKILL')))
export const promote = (...flags: string[]) => {
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
export const testMsMax = 120_000
