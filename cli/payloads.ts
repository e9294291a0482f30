// `signalbox payloads`: captured texts, listed, read and erased. Reading opens what the router sealed, with keys from the
// environment; erasing removes rows for good and leaves a note, so that what is delivered late is not kept after all.
import { setTimeout as sleep } from 'node:timers/promises'
import { ClickHouseLogLevel, createClient } from '@clickhouse/client'
import { Command, InvalidArgumentError } from 'commander'
import { openRow, type PayloadRow, parseNamedKey, payloadColumns } from '../router/capture/sealed.ts'

const defaultUrl = 'http://127.0.0.1:8123'
/** Rewriting the parts of a large table takes its time. */
const requestMsMax = 600_000
const listDefault = 50
const listMax = 10_000
const payloadsPerDecisionMax = 100
/** Rounds of deleting and looking again, and the wait between, in which inserts that were on their way end. */
const roundsMax = 30
const settleMs = 1000
const idPattern = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i

class PayloadsError extends Error {
  readonly code: 'payload-missing' | 'payload-unreadable' | 'erasure-incomplete' | 'source-unreadable'
  constructor(code: PayloadsError['code'], message: string) {
    super(message)
    this.code = code
  }
}

type Store = {
  readonly rows: <Row>(sql: string, parameters?: Record<string, unknown>) => Promise<Row[]>
  readonly command: (sql: string, parameters: Record<string, unknown>) => Promise<void>
}

const withStore = async <Result>(url: string, use: (store: Store) => Promise<Result>): Promise<Result> => {
  const client = createClient({ url, request_timeout: requestMsMax, log: { level: ClickHouseLogLevel.OFF } })
  try {
    await client.query({ query: 'SELECT 1' }).catch((error: Error & { code?: string }) => {
      const why = `${error.code ?? error.message}; is it running (signalbox up), or is it elsewhere (--source)?`
      throw new PayloadsError('source-unreadable', `asking ClickHouse at ${new URL(url).host} for payloads: ${why}`)
    })
    return await use({
      rows: async <Row>(query: string, parameters = {}) =>
        (await client.query({ query, query_params: parameters, format: 'JSONEachRow' })).json<Row>() as Promise<Row[]>,
      command: async (query, parameters) => {
        await client.command({ query, query_params: parameters })
      },
    })
  } finally {
    await client.close()
  }
}

type Listed = {
  readonly captured_at: string
  readonly decision_id: string
  readonly tenant: string
  readonly kind: string
  readonly attempt: number
  readonly redaction: string
  readonly bytes: number
  readonly stored_bytes: number
  readonly key_id: string
  readonly keep_probability: number
  readonly expires_at: string
}

const listQuery = `
  SELECT captured_at, decision_id, tenant, kind, attempt,
         redaction, bytes, toUInt32(length(body)) AS stored_bytes, key_id, keep_probability, expires_at
  FROM otel.payloads WHERE {tenant:String} = '*' OR tenant = {tenant:String}
  ORDER BY captured_at DESC, decision_id, kind LIMIT {limit:UInt32}`

const listLine = (row: Listed): string =>
  [
    row.captured_at,
    row.decision_id,
    row.kind.padEnd(8),
    row.redaction.padEnd(13),
    `${row.bytes} bytes`.padStart(14),
    row.key_id ? `key ${row.key_id}` : 'not encrypted',
    `until ${row.expires_at}`,
    row.tenant,
  ].join('  ')

const showQuery = `
  SELECT ${payloadColumns} FROM otel.payloads WHERE decision_id = {id:UUID}
  ORDER BY kind, attempt LIMIT ${payloadsPerDecisionMax}`

/** The payloads of a decision, opened. Throws when there is none, or one cannot be opened. */
const loadPayloads = async (store: Store, id: string, keys: ReadonlyMap<string, Buffer>) => {
  const found = await store.rows<PayloadRow>(showQuery, { id })
  if (found.length === 0)
    throw new PayloadsError(
      'payload-missing',
      `no payload of decision ${id} is stored: it was not captured, has expired or was erased`,
    )
  return found.map((row) => ({
    kind: row.kind,
    attempt: row.attempt,
    content_type: row.content_type,
    redaction: row.redaction,
    content: openRow(row, keys).toString('utf8'),
  }))
}

/** What is to be erased: one decision for ever, or all of a tenant up to now. */
type Scope = { readonly decision: string } | { readonly tenant: string }

export type Erased = {
  readonly payloads: number
  readonly decisions: number
  readonly bytes: number
  readonly dry_run: boolean
}

/** Where rows can be deleted: on a cluster that is the table of each server. */
const tableOf = async (store: Store): Promise<string> => {
  const [row] = await store.rows<{ cluster: string }>(
    `SELECT extract(engine_full, '^Distributed\\(\\'?([^\\',]+)') AS cluster
     FROM system.tables WHERE database = 'otel' AND name = 'captured_payloads'`,
  )
  return row?.cluster
    ? `otel.captured_payloads_local ON CLUSTER '${row.cluster.replaceAll(/[\\']/g, '')}'`
    : 'otel.captured_payloads'
}

/** Erases for good and looks whether it is so. Throws when something is left after `roundsMax` rounds. */
const erase = async (store: Store, scope: Scope, reason: string, isDryRun: boolean): Promise<Erased> => {
  const isTenant = 'tenant' in scope
  const where = isTenant
    ? 'tenant = {tenant:String} AND captured_at <= {up_to:DateTime64(3)}'
    : 'decision_id = {decision:UUID}'
  // A router's clock may be ahead of this one: what it has captured by now is erased too.
  const [clock] = await store.rows<{ up_to: string }>(
    `SELECT toString(greatest(now64(3), least(max(captured_at), now64(3) + INTERVAL 1 DAY))) AS up_to
     FROM otel.captured_payloads WHERE ${isTenant ? 'tenant = {tenant:String}' : '0'}`,
    { ...scope },
  )
  const parameters = { ...scope, up_to: clock?.up_to, reason }
  const count = async (): Promise<Omit<Erased, 'dry_run'>> => {
    const [row] = await store.rows<Omit<Erased, 'dry_run'>>(
      `SELECT toUInt32(count()) AS payloads, toUInt32(uniqExact(decision_id)) AS decisions,
         toFloat64(sum(length(body))) AS bytes FROM otel.captured_payloads WHERE ${where}`,
      parameters,
    )
    return row ?? { payloads: 0, decisions: 0, bytes: 0 }
  }
  const found = await count()
  if (isDryRun) return { ...found, dry_run: true }
  // The note comes first: from now on the view lets fall what is delivered late.
  await store.command(
    `INSERT INTO otel.payload_erasures (scope, decision_id, tenant, up_to, payloads, reason)
     SELECT ${isTenant ? "'tenant', toUUIDOrZero(''), {tenant:String}" : "'decision', {decision:UUID}, ''"},
       {up_to:DateTime64(3)}, {payloads:UInt64}, {reason:String}`,
    { ...parameters, payloads: found.payloads },
  )
  const table = await tableOf(store)
  for (let round = 0; round < roundsMax; round += 1) {
    await store.command(`ALTER TABLE ${table} DELETE WHERE ${where} SETTINGS mutations_sync = 2`, parameters)
    await sleep(settleMs)
    if ((await count()).payloads === 0) return { ...found, dry_run: false }
  }
  throw new PayloadsError(
    'erasure-incomplete',
    'erasing payloads: new ones arrive faster than they are removed; run it again',
  )
}

const erasedText = ({ payloads, decisions, bytes, dry_run }: Erased): string => {
  const what = `${payloads} payloads of ${decisions} decisions, ${bytes} bytes`
  if (dry_run) return `would erase ${what}`
  return [
    `erased ${what}; none is left, and what is delivered late will not be kept`,
    'The decisions stay and can be replayed. Spools of routers, backups and exports may still hold copies: encrypted ones',
    'become unreadable when their key is deleted.',
  ].join('\n')
}

const key = (text: string, before: ReadonlyMap<string, Buffer> = new Map()): ReadonlyMap<string, Buffer> => {
  // biome-ignore lint/style/noProcessEnv: a key comes from the environment and from nowhere else.
  const found = parseNamedKey(text, process.env)
  if (typeof found === 'string') throw new InvalidArgumentError(found)
  return new Map([...before, found])
}

const decisionId = (text: string): string => {
  if (idPattern.test(text)) return text
  throw new InvalidArgumentError(`found '${text}'; wanted a decision id (response header x-signalbox-decision-id)`)
}

const limit = (text: string): number => {
  const value = Number(text)
  if (Number.isInteger(value) && value > 0 && value <= listMax) return value
  throw new InvalidArgumentError(`found '${text}'; wanted a whole number from 1 to ${listMax}`)
}

const print = (text: string): void => void process.stdout.write(`${text}\n`)
const subCommand = (name: string): Command =>
  new Command(name).option('--source <url>', 'where ClickHouse answers', defaultUrl).option('--json', 'print as JSON')
type Common = { readonly source: string; readonly json?: true }

const listCommand = (): Command =>
  subCommand('list')
    .description('Lists what was captured, newest first; never its content.')
    .option('--tenant <name>', 'only of this tenant', '*')
    .option('--limit <count>', 'how many', limit, listDefault)
    .addHelpText('after', '\nExample:\n  signalbox payloads list --tenant acme')
    .action(async ({ source, json, ...parameters }: Common & { tenant: string; limit: number }) => {
      const found = await withStore(source, (store) => store.rows<Listed>(listQuery, parameters))
      if (json) print(JSON.stringify(found))
      else print(found.length === 0 ? 'nothing is captured' : found.map(listLine).join('\n'))
    })

const showCommand = (): Command =>
  subCommand('show')
    .description('Shows what a client asked and was answered, as it was kept.')
    .argument('<decision>', "the decision's id", decisionId)
    .option('--key <id=VARIABLE>', 'a key and the environment variable that holds it; may be repeated', key)
    .addHelpText(
      'after',
      '\nExample:\n  signalbox payloads show 019a8f6e-5b1c-7cc3-98c4-dc0c0c07398f --key k1=SIGNALBOX_KEY_1',
    )
    .action(
      async (id: string, { source, json, key: keys = new Map() }: Common & { key?: ReadonlyMap<string, Buffer> }) => {
        const found = await withStore(source, (store) => loadPayloads(store, id, keys))
        if (json) print(JSON.stringify(found))
        else
          for (const { kind, attempt, redaction, content } of found)
            print(`${kind}${attempt > 0 ? ` of attempt ${attempt}` : ''} (${redaction})\n${content}\n`)
      },
    )

const eraseCommand = (): Command =>
  subCommand('erase')
    .description('Erases what was captured of a decision, or of a tenant up to now, for good; the decisions stay.')
    .option('--tenant <name>', 'all of this tenant up to now')
    .option('--decision <id>', 'of this decision, for ever', decisionId)
    .option('--reason <text>', 'is noted with the erasure', '')
    .option('--dry-run', 'only say what it would erase')
    .addHelpText('after', '\nExample:\n  signalbox payloads erase --tenant acme --reason "request 4711"')
    .action(
      async (
        options: Common & { tenant?: string; decision?: string; reason: string; dryRun?: true },
        command: Command,
      ) => {
        const { source, json, tenant, decision, reason, dryRun = false } = options
        if ((tenant === undefined) === (decision === undefined)) command.error('wanted either --tenant or --decision')
        const scope = decision === undefined ? { tenant: tenant ?? '' } : { decision }
        const erased = await withStore(source, (store) => erase(store, scope, reason, dryRun))
        print(json ? JSON.stringify(erased) : erasedText(erased))
      },
    )

export const payloadsCommand = (): Command =>
  new Command('payloads')
    .description('Captured requests and answers: list, show, erase.')
    .addHelpText('after', '\nExample:\n  signalbox payloads list')
    .addCommand(listCommand())
    .addCommand(showCommand())
    .addCommand(eraseCommand())
