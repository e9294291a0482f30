// `signalbox promote` and `signalbox rollback`: from a replay's verdict to a policy in force, and back. The commands read what
// was typed and the token from the environment, and print; what a promotion does is in replay/promote/drive.ts.
import { randomUUID } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { SingleBar } from 'cli-progress'
import { Command } from 'commander'
import { type CandidateOptions, number, sourceCommand } from '../replay/log-command.ts'
import { comparisonsOf, promotionText } from '../replay/promote/calibration.ts'
import type { Look } from '../replay/promote/canary.ts'
import { drive, lookInto } from '../replay/promote/drive.ts'
import { judged, loadGate } from '../replay/promote/gate-command.ts'
import { type Gate, withCanary } from '../replay/promote/gate-file.ts'
import { gateSummary, gateText } from '../replay/promote/gate-report.ts'
import { takeHold } from '../replay/promote/hold.ts'
import { type Ledger, openLedger, recordReplay } from '../replay/promote/ledger.ts'
import { canaryOf, enter, isFinal, type Promotion, plan, realise } from '../replay/promote/promotion.ts'
import { type RouterAdmin, routerAdmin } from '../replay/promote/router.ts'
import { readConfig, writeBack } from '../replay/promote/write-back.ts'
import { policyText } from '../router/policy/policy.ts'

const routerDefault = 'http://127.0.0.1:8080'
const otlpDefault = 'http://127.0.0.1:4318'
const pollSecondsDefault = 30
const secondsMax = 3600
const hoursMax = 24 * 365
/** A canary that nobody watches goes back after so many missed looks, but not before this time. */
const leasePolls = 10
const leaseSecondsMin = 300
/** A process that drives a promotion and is heard of no more loses it after so many missed looks, but not before this time. */
const holdPolls = 3
const holdSecondsMin = 60
const hourMs = 3_600_000
const barMsMin = 100

/** A promotion cannot begin as it was asked for. */
export class PromoteError extends Error {
  readonly code: 'usage-invalid' | 'evidence-of-another-policy'
  constructor(code: PromoteError['code'], message: string) {
    super(message)
    this.code = code
  }
}

type RouterOptions = { readonly router: string; readonly tokenEnv?: string; readonly by?: string }
type Options = Omit<CandidateOptions, 'policy'> &
  RouterOptions & {
    readonly policy?: string
    readonly gate?: string
    readonly otlpUrl: string
    readonly share?: number
    readonly maxHours?: number
    readonly strict?: true
    readonly pollSeconds: number
    readonly resume?: string
    readonly write?: string
    readonly realised?: string
    readonly json?: boolean
  }

const withRouter = (command: Command): Command =>
  command
    .option('--router <url>', 'the router', routerDefault)
    .option('--token-env <name>', 'the environment variable that holds its admin token')
    .option('--by <name>', 'in whose name, for the record')

const adminOf = ({ router, tokenEnv, by = 'signalbox promote' }: RouterOptions): RouterAdmin => {
  // biome-ignore lint/style/noProcessEnv: a token on the command line would be seen by everybody on the machine
  const token = tokenEnv === undefined ? undefined : process.env[tokenEnv]
  if (token) return routerAdmin(router, token, by)
  const found = tokenEnv === undefined ? 'no --token-env was given' : `the environment has no ${tokenEnv}`
  throw new PromoteError(
    'usage-invalid',
    `asking the router at ${router}: ${found}; it names the variable with the admin token`,
  )
}

export const promoteCommand = (): Command =>
  withRouter(sourceCommand('promote'))
    .description(
      'Hold a candidate policy against a gate, try it on a share of the sessions, and complete or roll back by itself (exit 0 completed, 1 harm, 2 undecided, 3 evidence invalid).',
    )
    .option('--policy <file>', 'the candidate policy')
    .option('--gate <file>', 'what must be shown, as in examples/gate.yaml')
    .option('--otlp-url <url>', 'the collector that records what happens', otlpDefault)
    .option(
      '--share <share>',
      "the candidate's share of the sessions, in place of the gate's",
      number('a number above 0 and at most 0.5', 0, 0.5),
    )
    .option(
      '--max-hours <hours>',
      "how long the canary may take, in place of the gate's",
      number('a number above 0', 0, hoursMax),
    )
    .option(
      '--strict',
      "watch by betting, which holds from the first session on whatever the amounts are like; the gate's canary.bounds say how large they can be",
    )
    .option(
      '--poll-seconds <seconds>',
      'how often to look',
      number(`a number above 0 and at most ${secondsMax}`, 0, secondsMax),
      pollSecondsDefault,
    )
    .option('--resume <id>', 'go on with a promotion that was stopped')
    .option('--write <file>', 'when it is completed, also write the policy into this signalbox.yaml, comments kept')
    .option('--realised <id>', 'attach what its canary came to again, with the feedback that came since')
    .option('--json', 'print the promotion as JSON')
    .addHelpText(
      'after',
      '\nExample:\n  signalbox promote --policy candidate.yaml --gate examples/gate.yaml --token-env SIGNALBOX_ADMIN_TOKEN',
    )
    .action((options: Options) => exitWith(() => promote(options)))

export const rollbackCommand = (): Command =>
  withRouter(new Command('rollback'))
    .description('Put the policy back in force that was there before.')
    .option('--reason <text>', 'why, for the record', '')
    .option('--json', 'print the policy now in force as JSON')
    .addHelpText('after', '\nExample:\n  signalbox rollback --token-env SIGNALBOX_ADMIN_TOKEN --reason "too slow"')
    .action((options: RouterOptions & { reason: string; json?: boolean }) =>
      exitWith(async () => {
        const inForce = await adminOf({ by: 'signalbox rollback', ...options }).rollBack(options.reason)
        print(options.json ? JSON.stringify(inForce) : `'${inForce.name}' is in force again (${inForce.hash})`)
        return 0
      }),
    )

/** What the input got wrong, by the code of the error; everything else is a failure. */
const exitCodes: Readonly<Record<string, number>> = {
  ...{
    'usage-invalid': 64,
    'gate-invalid': 64,
    'policy-invalid': 64,
    'promotion-not-found': 64,
    'source-unreadable': 64,
    'promotion-held': 64,
    'options-invalid': 64,
  },
  ...{ 'evidence-of-another-policy': 3, 'promotion-invalid': 3, 'source-empty': 3, 'record-invalid': 3 },
}

const exitWith = async (run: () => Promise<number>): Promise<void> => {
  try {
    process.exitCode = await run()
  } catch (error) {
    const { code = '', message } = error as Error & { code?: string }
    if (!Object.hasOwn(exitCodes, code)) throw error
    say(`signalbox: ${message}`)
    process.exitCode = exitCodes[code]
  }
}

const print = (text: string): void => void process.stdout.write(text.endsWith('\n') ? text : `${text}\n`)
const say = (text: string): void => void process.stderr.write(`${text}\n`)

const promote = async (options: Options): Promise<number> => {
  if (!/^https?:\/\//.test(options.source))
    throw new PromoteError(
      'usage-invalid',
      `promoting a policy: found --source ${options.source}; wanted the ClickHouse in which its canary can be watched`,
    )
  const ledger = openLedger(options.otlpUrl, options.source)
  const show = (promotion: Promotion): void =>
    print(options.json ? JSON.stringify(promotion, null, 2) : promotionText(promotion))
  try {
    if (options.realised !== undefined) {
      show(await attachRealised(options.realised, ledger))
      return 0
    }
    const router = adminOf(options)
    const start =
      options.resume === undefined ? await begin(options, router, ledger) : await ledger.load(options.resume)
    if (typeof start === 'number') return start
    say(`promotion ${start.id}: if this is stopped, --resume ${start.id} goes on with it`)
    const { pollSeconds, write } = options
    if (write !== undefined) await readConfig(write, start.candidate)
    const leaseSeconds = Math.max(leaseSecondsMin, leasePolls * pollSeconds)
    const clock = { now: Date.now, sleep: (ms: number) => sleep(ms), pollMs: pollSeconds * 1000, leaseSeconds }
    const holdMs = Math.max(holdSecondsMin, holdPolls * pollSeconds) * 1000
    const hold = await takeHold(ledger, start.id, options.by ?? 'signalbox promote', holdMs, clock)
    const watch = watching(start)
    const ended = await drive(start, { router, ledger, hold: hold.keep, ...clock, ...watch.say }).finally(watch.stop)
    await hold.release().catch(() => {})
    show(ended)
    if (ended.state === 'completed') await keepPolicy(ended, options)
    return ended.state === 'completed' ? 0 : ended.cause === 'harm' ? 1 : 2
  } finally {
    await ledger.close()
  }
}

/** Writes a completed policy where it was asked for, and says what is left to do. */
const keepPolicy = async ({ id, candidate, changed_at: at }: Promotion, { write, json }: Options): Promise<void> => {
  if (write !== undefined) await writeBack(write, candidate, `Put in force by promotion ${id} on ${at.slice(0, 10)}.`)
  if (json) return
  print(
    write === undefined
      ? 'Write it into signalbox.yaml too (--write FILE does): a router that restarts reads its policy from there.'
      : `written into ${write}`,
  )
}

const gateFor = async ({ gate, share, maxHours, strict }: Options): Promise<Gate> => {
  return withCanary(
    await loadGate(gate ?? ''),
    {
      ...(share === undefined ? {} : { share }),
      ...(maxHours === undefined ? {} : { hours_max: maxHours }),
      ...(strict === undefined ? {} : { strict }),
    },
    gate,
  )
}

/** Runs the gate and records its evidence; a promotion in its first state, or the exit code of a gate that was not passed. */
const begin = async (options: Options, router: RouterAdmin, ledger: Ledger): Promise<Promotion | number> => {
  const { policy, gate, otlpUrl } = options
  if (policy === undefined || gate === undefined)
    throw new PromoteError(
      'usage-invalid',
      'promoting a policy: wanted --policy and --gate, or --resume, or --realised',
    )
  const inForce = await router.inForce()
  const { against = inForce.hash } = options
  const result = await judged({ ...options, policy, against }, await gateFor(options))
  const evidence = { ...gateSummary(result), id: randomUUID() }
  await recordReplay(otlpUrl, evidence, evidence.id)
  if (!options.json) print(gateText(result))
  else if (result.exitCode !== 0) print(JSON.stringify(evidence, null, 2))
  if (result.exitCode !== 0) return result.exitCode
  if (!result.replay.production.some(({ hash }) => hash === inForce.hash))
    throw new PromoteError(
      'evidence-of-another-policy',
      `promoting ${policy}: the evidence is of ${evidence.production.name} ${evidence.production.hash}, but the router has ${inForce.name} ${inForce.hash} in force; leave --against out`,
    )
  const production = { name: inForce.name, hash: inForce.hash, source: inForce.source }
  const candidate = policyText(await readFile(policy, 'utf8'), policy)
  const canary = canaryOf(production, candidate, evidence.gate.canary.share)
  const promotion = plan(evidence, { production, candidate, canary }, randomUUID(), Date.now())
  await ledger.record(promotion)
  return promotion
}

/** Looks once more at a canary that is over, when all its feedback is in, and stores what it came to. */
const attachRealised = async (id: string, ledger: Ledger): Promise<Promotion> => {
  const promotion = await ledger.load(id)
  if (!isFinal(promotion))
    throw new PromoteError(
      'usage-invalid',
      `attaching what promotion ${id} came to: it is in state ${promotion.state}; --resume ends it`,
    )
  const look = await lookInto(ledger, promotion, Date.now())
  const { state, cause, reason } = promotion
  const next = enter(realise(promotion, look), state, { cause, reason }, Date.now())
  await ledger.record(next)
  if (comparisonsOf(next).length === 0) say(`promotion ${id}: its canary shows nothing that was predicted`)
  return next
}

/** States as lines; on a terminal also a bar of the time that is left, with what the canary has seen. */
const watching = ({ started_at: startedAt, gate }: Promotion) => {
  const format = 'watching {bar} {percentage} % of the time  {sessions} sessions under the candidate'
  const bar = process.stderr.isTTY ? new SingleBar({ format, clearOnComplete: true, fps: 1000 / barMsMin }) : null
  const span = gate.canary.hours_max * hourMs
  const elapsed = () => Math.min(span, Date.now() - Date.parse(startedAt))
  const tell = (promotion: Promotion, look: Look | null): void => {
    if (look === null) {
      say(`${promotion.changed_at}  ${promotion.state}: ${promotion.reason}`)
      return
    }
    const sessions = look.clusters.candidate
    if (bar?.isActive) bar.update(elapsed(), { sessions })
    else bar?.start(span, elapsed(), { sessions })
  }
  let warned = ''
  const warn = (message: string): void => {
    if (message !== warned) say(`waiting: ${message}`)
    warned = message
  }
  return { say: { tell, warn }, stop: () => bar?.stop() }
}
