// `signalbox doctor`: on one screen whether everything is as it should be, and what to do about what is not; with `--gaps`, whether every
// decision that a router answered is stored, once. Exit code 0 when all is well, 1 when something is wrong.
import { dirname, resolve } from 'node:path'
import { Command, InvalidArgumentError } from 'commander'
import { type Epoch, type Gap, type Range, readEpochs, readGaps } from '../collector/gaps.ts'
import { type Store, serverStore } from '../collector/store.ts'
import type { Config } from '../router/config.ts'
import {
  askRouter,
  checkCollector,
  checkDisk,
  checkEngine,
  checkMissing,
  checkPolicy,
  checkRouter,
  checkSpool,
  checkStore,
  type Finding,
  type RouterState,
} from './doctor-checks.ts'
import { countText, tableText } from './quantities.ts'
import { addressesOf, readConfig } from './where.ts'

const gapsDaysDefault = 7
const dayMs = 86_400_000
const linesMax = 50
const failedExitCode = 1

type Options = {
  readonly config: string
  readonly source?: string
  readonly gaps?: true
  readonly from?: string
  readonly to?: string
  readonly json?: true
}

const print = (text: string): void => void process.stdout.write(`${text}\n`)
const withoutPassword = (url: string): string => url.replace(/\/\/[^/@]*@/, '//')

const withStore = async <Result>(url: string, use: (store: Store) => Promise<Result>): Promise<Result> => {
  const store = serverStore(url)
  try {
    return await use(store)
  } finally {
    await store.close()
  }
}

const checkConfig = (file: string): { config: Config | null; finding: Finding } => {
  const name = 'configuration'
  const { config, problem } = readConfig(file)
  if (!config)
    return { config, finding: { name, state: 'fail', found: problem, todo: 'mend it, or name another: --config' } }
  const found = `${file}: ${config.targets.length} models under policy '${config.policy.name}'`
  const { warnings } = config
  if (warnings.length > 0) return { config, finding: { name, state: 'warn', found, todo: warnings.join('; ') } }
  return { config, finding: { name, state: 'ok', found } }
}

/** Looks at everything; in the order in which one thing depends on another. */
export const examine = async (options: Options): Promise<Finding[]> => {
  const { config, finding } = checkConfig(options.config)
  const urls = addressesOf(config)
  const source = options.source ?? urls.store
  const state = await askRouter(urls.router)
  const telemetry = config?.telemetry || null
  const findings = [
    finding,
    await checkRouter(urls.router, state),
    ...(telemetry?.spool === false ? [] : [checkSpool(state, telemetry?.spool ? telemetry.spool.bytesMax : null)]),
    await checkCollector(urls.collector, telemetry?.token ?? config?.collector.token ?? null),
    ...(config?.collector.clickhouse_url ? [] : [await checkEngine()]),
  ]
  await withStore(source, async (store) => {
    const found = await checkStore(store, withoutPassword(source))
    findings.push(...found)
    if (found[0]?.state === 'fail') return
    if (state) findings.push(await checkPolicy(store, state))
    findings.push(await checkMissing(store))
  })
  if (config) findings.push(await checkDisk('the store', config.collector.data))
  if (telemetry?.spool) findings.push(await checkDisk('the spool', dirname(resolve(telemetry.spool.folder))))
  return findings
}

const findingText = ({ name, state, found, todo }: Finding): string =>
  `${state.padEnd(5)} ${name.padEnd(18)} ${found}${todo ? `\n${' '.repeat(25)}→ ${todo}` : ''}`

const examineCommand = async (options: Options): Promise<number> => {
  const findings = await examine(options)
  const failed = findings.filter(({ state }) => state === 'fail').length
  const warned = findings.filter(({ state }) => state === 'warn').length
  if (options.json) print(JSON.stringify({ ok: failed === 0, findings }, null, 2))
  else {
    print(findings.map(findingText).join('\n'))
    print(failed + warned === 0 ? '\nall is well' : `\n${failed} wrong, ${warned} to look at`)
  }
  return failed > 0 ? failedExitCode : 0
}

/** What is missing and what is on its way, of the epochs of a stretch of time. */
type Reconciled = {
  readonly epochs: readonly Epoch[]
  readonly gaps: readonly (Gap & { readonly on_its_way: boolean })[]
}

/**
 * Holds what is stored against what routers reported and, of the one that answers now, what it says itself: it is asked first, so that
 * what it had delivered by then is stored.
 */
export const reconcile = async (store: Store, range: Range, state: RouterState | null): Promise<Reconciled> => {
  const [epochs, found] = [await readEpochs(store, range), await readGaps(store, range)]
  const live = state?.spans
  const own = epochs.find(({ epoch }) => epoch === live?.epoch)
  const stored = own?.last_seq ?? 0
  const gaps = found.filter(({ kind, epoch }) => kind !== 'end' || epoch !== live?.epoch)
  if (live && live.decisions > stored) {
    gaps.push({
      kind: 'end',
      epoch: live.epoch,
      service_name: own?.service_name ?? '',
      seq_from: stored + 1,
      seq_to: live.decisions,
      decisions: live.decisions - stored,
      since: own?.last_seen_at ?? '',
      until: new Date().toISOString(),
    })
  }
  const isOnItsWay = ({ kind, epoch }: Gap): boolean => kind === 'end' && epoch === live?.epoch && live.queued > 0
  return { epochs, gaps: gaps.map((gap) => ({ ...gap, on_its_way: isOnItsWay(gap) })) }
}

const isWrong = ({ kind, on_its_way: onItsWay }: Reconciled['gaps'][number]): boolean =>
  kind !== 'repeated' && !onItsWay

const kindText = ({ kind, on_its_way: onItsWay }: Reconciled['gaps'][number]): string => {
  if (onItsWay) return 'on its way'
  return { gap: 'missing', end: 'missing at the end', duplicate: 'stored twice', repeated: 'twice before FINAL' }[kind]
}

const cut = <Row>(rows: readonly Row[]): readonly Row[] => rows.slice(0, linesMax)
const more = (rows: readonly unknown[]): string[] =>
  rows.length > linesMax ? [`… and ${rows.length - linesMax} more (--json has them)`] : []

const epochsTable = (epochs: readonly Epoch[]): string => {
  const head = [
    'epoch',
    'service',
    'started',
    'first',
    'last',
    'answered',
    'stored',
    'missing',
    'repeated',
    'late',
    'end',
  ]
  const rows = cut(epochs).map((each) => [
    each.epoch,
    each.service_name,
    each.started_at.slice(0, 19),
    each.first_seq,
    each.last_seq,
    countText(each.answered),
    countText(each.decisions),
    countText(each.missing),
    countText(each.stored_rows - each.decisions),
    countText(each.late),
    each.ended ? 'ended' : each.reported === 0 ? 'no report' : 'no last report',
  ])
  return [tableText([head, ...rows]), ...more(epochs), ''].join('\n')
}

const gapsTable = (gaps: Reconciled['gaps']): string => {
  const rows = cut(gaps).map((gap) => {
    const numbers = gap.seq_from === gap.seq_to ? `${gap.seq_from}` : `${gap.seq_from}–${gap.seq_to}`
    const between = `${gap.since.slice(0, 23)} to ${gap.until.slice(0, 23)}`
    return [kindText(gap), numbers, countText(gap.decisions), gap.epoch, between]
  })
  return [tableText([['what', 'numbers', 'decisions', 'epoch', 'between'], ...rows]), ...more(gaps), ''].join('\n')
}

const gapsText = ({ epochs, gaps }: Reconciled, { from, to }: Range): string => {
  if (epochs.length + gaps.length === 0) return `no router decided or reported anything from ${from} to ${to}`
  const wrong = gaps.filter(isWrong).reduce((sum, { decisions }) => sum + decisions, 0)
  const onTheirWay = gaps.filter((gap) => gap.on_its_way).reduce((sum, { decisions }) => sum + decisions, 0)
  return [
    ...(epochs.length > 0 ? [epochsTable(epochs)] : []),
    ...(gaps.length > 0 ? [gapsTable(gaps)] : []),
    wrong > 0
      ? `${countText(wrong)} decisions are missing or stored twice`
      : `every decision that was answered is stored, once${onTheirWay > 0 ? `, or on its way (${countText(onTheirWay)})` : ''}`,
    ...(epochs.some(({ ended }) => !ended)
      ? ['A router without a last report may have answered up to a minute of decisions more than it ever reported.']
      : []),
  ].join('\n')
}

const gapsCommand = async (options: Options): Promise<number> => {
  const { config } = readConfig(options.config)
  const urls = addressesOf(config)
  const state = await askRouter(urls.router)
  const now = Date.now()
  const range = {
    from: options.from ?? new Date(now - gapsDaysDefault * dayMs).toISOString(),
    to: options.to ?? new Date(now + dayMs).toISOString(),
  }
  const found = await withStore(options.source ?? urls.store, (store) =>
    reconcile(store, range, options.to ? null : state),
  )
  const ok = !found.gaps.some(isWrong)
  print(options.json ? JSON.stringify({ ok, ...range, ...found }, null, 2) : gapsText(found, range))
  return ok ? 0 : failedExitCode
}

const time = (text: string): string => {
  if (!Number.isNaN(Date.parse(text))) return new Date(text).toISOString()
  throw new InvalidArgumentError(`found '${text}'; wanted a time such as 2026-11-01 or 2026-11-01T08:00:00Z`)
}

export const doctorCommand = (): Command =>
  new Command('doctor')
    .description('Says whether everything is as it should be, and what to do about what is not.')
    .option('-c, --config <file>', 'the configuration', 'signalbox.yaml')
    .option('--source <url>', 'where ClickHouse answers, in place of what the configuration says')
    .option('--gaps', 'say of every run of a router whether all it answered is stored, once')
    .option(
      '--from <time>',
      `with --gaps: runs that decided anything since; ${gapsDaysDefault} days back by default`,
      time,
    )
    .option('--to <time>', 'with --gaps: and until then', time)
    .option('--json', 'print as JSON')
    .addHelpText('after', '\nExample:\n  signalbox doctor --gaps --from 2026-11-01')
    .action(async (options: Options) => {
      process.exitCode = await (options.gaps ? gapsCommand(options) : examineCommand(options))
    })
