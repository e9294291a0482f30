// What `signalbox doctor` looks at, one function for each thing that can be wrong at three in the morning. A check never throws:
// it gives a line that says how things are and, unless all is well, what to do.
import { statfs } from 'node:fs/promises'
import { literal } from '../collector/engine-run.ts'
import { readEpochs } from '../collector/gaps.ts'
import { readMigrations } from '../collector/migrate.ts'
import type { Store } from '../collector/store.ts'
import { bytesText, countText, durationText } from './quantities.ts'

const answerMsMax = 5_000
const clockSkewMsMax = 2_000
const spoolAgeMsMax = 60_000
const spoolShareMax = 0.5
const diskShareWarn = 0.1
const diskBytesWarn = 5 * 1024 ** 3
const diskShareFail = 0.02
const diskBytesFail = 1024 ** 3
const dayMs = 86_400_000

/** One line of the report. `todo` says what to do about it. */
export type Finding = {
  readonly name: string
  readonly state: 'ok' | 'warn' | 'fail'
  readonly found: string
  readonly todo?: string
}

/** What a router says at /readyz, as far as it is used here. */
export type RouterState = {
  readonly ready: boolean
  readonly policy: { readonly name: string; readonly hash: string }
  readonly spans: {
    readonly epoch: string
    readonly decisions: number
    readonly queued: number
    readonly dropped: number
    readonly refused: number
    readonly queuedBytes: number
    readonly oldestMs: number
    readonly diskErrors: number
  }
}

const reason = (error: unknown): string => {
  const { message, cause } = error as Error & { cause?: { code?: string; message?: string } }
  return cause?.code ?? cause?.message ?? (error as { code?: string }).code ?? message
}

const ask = (url: string, options: RequestInit = {}): Promise<Response> =>
  fetch(url, { ...options, signal: AbortSignal.timeout(answerMsMax) })

/** Asks the router of an address how it is; null when nobody answers as a router does. */
export const askRouter = async (url: string): Promise<RouterState | null> => {
  const answer = await ask(`${url}/readyz`)
    .then((response) => response.json() as Promise<Partial<RouterState>>)
    .catch(() => null)
  return answer?.policy && answer.spans ? (answer as RouterState) : null
}

export const checkRouter = async (url: string, state: RouterState | null): Promise<Finding> => {
  const name = 'router'
  if (state) {
    const { spans, ready } = state
    const found = `${url}: ${countText(spans.decisions)} decisions answered since it started`
    if (!ready)
      return {
        name,
        state: 'fail',
        found: `${url} is not ready`,
        todo: 'it is stopping, or its spool is full and it is set to refuse (telemetry.spool.when_full)',
      }
    if (spans.dropped + spans.refused > 0) {
      const lost = `${found}; ${spans.dropped} spans dropped, ${spans.refused} refused by the collector`
      return {
        name,
        state: 'warn',
        found: lost,
        todo: 'its log says why; `signalbox doctor --gaps` says which decisions',
      }
    }
    return { name, state: 'ok', found }
  }
  const other = await ask(url).catch(reason)
  if (typeof other !== 'string')
    return {
      name,
      state: 'fail',
      found: `something at ${url} answers that is not a router`,
      todo: 'free the port, or set listen.port',
    }
  return {
    name,
    state: 'fail',
    found: `nobody answers at ${url} (${other})`,
    todo: 'start it: signalbox up, or signalbox router',
  }
}

export const checkSpool = (state: RouterState | null, bytesMax: number | null): Finding => {
  const name = 'spool'
  if (!state)
    return {
      name,
      state: 'warn',
      found: 'unknown, as no router answers',
      todo: 'what it holds is delivered when the router starts again',
    }
  const { queuedBytes, queued, oldestMs, diskErrors } = state.spans
  const found = `${countText(queued)} spans wait, ${bytesText(queuedBytes)}${bytesMax ? ` of ${bytesText(bytesMax)}` : ''}, the oldest for ${durationText(oldestMs)}`
  if (diskErrors > 0)
    return {
      name,
      state: 'fail',
      found: `${found}; its disk failed ${diskErrors} times`,
      todo: 'see the disk of telemetry.spool.folder: what waits is in memory only',
    }
  const isOld = oldestMs > spoolAgeMsMax
  if (isOld || queuedBytes > spoolShareMax * (bytesMax ?? Number.POSITIVE_INFINITY))
    return {
      name,
      state: 'warn',
      found,
      todo: 'the collector is away or too slow: see its log; nothing is lost until the spool is full',
    }
  return { name, state: 'ok', found }
}

/** The OTLP side of the collector; an empty request is taken by whoever shows the right token. */
export const checkCollector = async (url: string, token: string | null): Promise<Finding> => {
  const name = 'collector'
  const headers = { 'content-type': 'application/json', ...(token ? { authorization: `Bearer ${token}` } : {}) }
  const answer = await ask(`${url}/v1/traces`, { method: 'POST', body: '{}', headers }).catch(reason)
  if (typeof answer === 'string')
    return {
      name,
      state: 'fail',
      found: `nobody answers at ${url} (${answer})`,
      todo: 'start it: signalbox up, or signalbox collector; the router keeps its spans until then',
    }
  if (answer.ok) return { name, state: 'ok', found: `${url} takes spans` }
  const todo =
    answer.status === 401 ? 'telemetry.token_env and collector.token_env must name the same token' : 'its log says why'
  return { name, state: 'fail', found: `${url} answers ${answer.status}: ${(await answer.text()).slice(0, 200)}`, todo }
}

export const checkStore = async (store: Store, where: string): Promise<Finding[]> => {
  try {
    const askedMs = Date.now()
    const [row] = await store.query<{ version: string; now: number }>(
      'SELECT version() AS version, toFloat64(now64(3)) * 1000 AS now',
    )
    const answeredMs = Date.now()
    const skewMs = Math.max(askedMs - (row?.now ?? 0), (row?.now ?? 0) - answeredMs, 0)
    const clock: Finding =
      skewMs <= clockSkewMsMax
        ? { name: 'clock', state: 'ok', found: 'this machine and the store agree' }
        : {
            name: 'clock',
            state: 'warn',
            found: `this machine and the store differ by ${durationText(skewMs)}`,
            todo: 'synchronise the clocks (NTP)',
          }
    return [
      { name: 'store', state: 'ok', found: `ClickHouse ${row?.version} at ${where}` },
      await checkSchema(store),
      clock,
    ]
  } catch (error) {
    const todo = 'start the collector, or say where the store is: --source http://user:password@host:8123'
    return [{ name: 'store', state: 'fail', found: `cannot be read at ${where}: ${reason(error).slice(0, 300)}`, todo }]
  }
}

const checkSchema = async (store: Store): Promise<Finding> => {
  const name = 'schema'
  const wanted = await readMigrations()
  const done = await store
    .query<{ number: number }>('SELECT DISTINCT number FROM otel.schema_migrations')
    .catch(() => [])
  const has = new Set(done.map((row) => Number(row.number)))
  const lacks = wanted.filter(({ number }) => !has.has(number)).map((step) => step.name)
  const known = new Set(wanted.map(({ number }) => number))
  const newer = [...has].filter((number) => !known.has(number))
  if (newer.length > 0)
    return {
      name,
      state: 'fail',
      found: `has migration ${newer.join(', ')}, which this version does not know`,
      todo: 'use a newer Signalbox',
    }
  if (lacks.length > 0)
    return {
      name,
      state: 'fail',
      found: `lacks ${lacks.join(', ')}`,
      todo: 'start the collector again, or: signalbox migrate --clickhouse-url …',
    }
  return { name, state: 'ok', found: `up to date, ${wanted.length} migrations` }
}

/** Whether the policy in force can be found again by its hash, without which no replay of its decisions is possible. */
export const checkPolicy = async (store: Store, state: RouterState): Promise<Finding> => {
  const name = 'policy'
  const { hash, name: policy } = state.policy
  const text = `'${policy}' ${hash.slice(0, 8)}`
  try {
    const rows = await store.query(`SELECT hash FROM otel.policies WHERE hash = ${literal(hash)} LIMIT 1`)
    if (rows.length > 0) return { name, state: 'ok', found: `${text} is in force, and the store has it` }
    return {
      name,
      state: 'warn',
      found: `${text} is in force, and the store does not have it`,
      todo: 'see whether spans arrive; its decisions cannot be replayed without it',
    }
  } catch (error) {
    return {
      name,
      state: 'warn',
      found: `${text} is in force; the store cannot say whether it has it: ${reason(error).slice(0, 200)}`,
    }
  }
}

/** What the last day's epochs lack, in one line. */
export const checkMissing = async (store: Store): Promise<Finding> => {
  const name = 'missing'
  try {
    const now = Date.now()
    const epochs = await readEpochs(store, {
      from: new Date(now - dayMs).toISOString(),
      to: new Date(now).toISOString(),
    })
    const sum = (of: (epoch: (typeof epochs)[number]) => number): number =>
      epochs.reduce((total, each) => total + of(each), 0)
    const missing = sum((epoch) => epoch.missing)
    const found = `${countText(sum((epoch) => epoch.decisions))} decisions of ${countText(sum((epoch) => epoch.answered))} answered are stored, of routers that ran in the last 24 h`
    if (missing === 0) return { name, state: 'ok', found }
    return {
      name,
      state: 'warn',
      found,
      todo: `${countText(missing)} are missing or on their way: signalbox doctor --gaps says which`,
    }
  } catch (error) {
    return {
      name,
      state: 'fail',
      found: `cannot be told: ${reason(error).slice(0, 300)}`,
      todo: 'bring the schema up to date',
    }
  }
}

export const checkDisk = async (what: string, folder: string): Promise<Finding> => {
  const name = `disk of ${what}`
  const stats = await statfs(folder).catch(reason)
  if (typeof stats === 'string')
    return {
      name,
      state: 'warn',
      found: `${folder} cannot be looked at (${stats})`,
      todo: 'it is made when the part that uses it starts',
    }
  const [free, all] = [stats.bavail * stats.bsize, stats.blocks * stats.bsize]
  const found = `${bytesText(free)} free of ${bytesText(all)} at ${folder}`
  const todo = 'free some, or keep less: signalbox db size says what is kept and how long'
  if (free < Math.min(diskBytesFail, diskShareFail * all)) return { name, state: 'fail', found, todo }
  if (free < Math.min(diskBytesWarn, diskShareWarn * all)) return { name, state: 'warn', found, todo }
  return { name, state: 'ok', found }
}

export const checkEngine = async (): Promise<Finding> => {
  const name = 'engine'
  try {
    await import('chdb')
    return { name, state: 'ok', found: 'the embedded ClickHouse can be loaded' }
  } catch (error) {
    const todo = 'run `npm install chdb`, or set collector.clickhouse_url to use a ClickHouse server'
    return {
      name,
      state: 'fail',
      found: `the embedded ClickHouse cannot be loaded: ${reason(error).slice(0, 200)}`,
      todo,
    }
  }
}
