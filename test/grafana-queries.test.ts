// Every query of the dashboard on the real engine, over rows that the real views made of real spans.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { json } from 'node:stream/consumers'
import { after, before, test } from 'node:test'
import { parse } from 'yaml'
import { type Engine, openEngine } from '../collector/engine.ts'
import { migrate } from '../collector/migrate.ts'
import { embeddedStore } from '../collector/store.ts'
import { decisionsCount, demoRows, unpriced } from './grafana-data.ts'
import { panels, targetsOf, variables } from './grafana-file.ts'
import { expand, type Variables } from './grafana-macros.ts'

// The tables keep 90 days, so the traffic is of the last hour.
const endMs = Math.floor(Date.now() / 60_000) * 60_000
const range = { fromMs: endMs - 3_600_000, toMs: endMs, intervalMs: 60_000 }
const all: Variables = { policy: ['$__all'], model: ['$__all'], tenant: ['$__all'], trace: '' }
// NaN is told apart from NULL, which a JSON answer otherwise spells the same.
const settings = { output_format_json_quote_denormals: '1' }

type Answer = { readonly meta: { name: string; type: string }[]; readonly data: Record<string, unknown>[] }
let folder: string
let engine: Engine

const ask = async (rawSql: string, picked: Variables = {}): Promise<Answer> => {
  const sql = expand(rawSql, range, { ...all, ...picked })
  assert.doesNotMatch(sql, /\$/, 'every macro and variable is expanded')
  const { chunks } = await engine.run({ sql, format: 'JSON', settings, readonly: true })
  return (await json(chunks)) as Answer
}
const panel = (title: string): string => {
  const found = panels.find((one) => one.title === title)
  assert.ok(found, `there is a panel '${title}'`)
  return targetsOf(found)[0]?.rawSql ?? ''
}
const figure = async (title: string, picked: Variables = {}): Promise<unknown> => {
  const { data } = await ask(panel(title), picked)
  return Object.values(data[0] ?? {})[0]
}

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'signalbox-grafana-'))
  engine = await openEngine(folder)
  await migrate(embeddedStore(engine))
  await engine.insert('otel.otel_traces', demoRows(endMs), 'first')
  // The router says that it answered more than what is stored.
  const report = { epoch: 'e1', reported_at: `${endMs / 1000}.0`, decisions: decisionsCount + 10 }
  await engine.insert('otel.router_epochs', Buffer.from(JSON.stringify(report)), 'report')
})
after(async () => {
  await engine.close()
  await rm(folder, { recursive: true, force: true })
})

const isTime = (type: string): boolean => type.startsWith('DateTime')
const isNumber = (type: string): boolean => /^(?:Nullable\()?(?:U?Int|Float)/.test(type)
const isText = (type: string): boolean => /^(?:LowCardinality\()?String/.test(type)

for (const one of panels.filter(({ type }) => type !== 'row')) {
  test(`the panel '${one.title}' has something to show, in the shape its kind needs`, async () => {
    const [target] = targetsOf(one)
    const { meta, data } = await ask(target?.rawSql ?? '')
    assert.ok(data.length > 0, 'rows')
    if (target?.format === 0) {
      assert.deepEqual(meta.map(({ name, type }) => [name, isTime(type)])[0], ['time', true])
      const times = data.map(({ time }) => String(time))
      assert.deepEqual(times, times.toSorted(), 'Grafana takes only series in the order of time')
      const labels = meta.slice(1).filter(({ type }) => isText(type))
      assert.equal(one.fieldConfig?.defaults.displayName, labels[0] && `\${__field.labels.${labels[0].name}}`)
      assert.equal(meta.slice(1).filter(({ type }) => isNumber(type)).length, meta.length - 1 - labels.length)
      for (const { name } of meta.slice(1))
        assert.ok(
          data.some((row) => row[name] !== null && row[name] !== ''),
          `${name} is never known`,
        )
    }
    if (one.type === 'stat') {
      assert.equal(data.length, 1)
      assert.ok(meta.length === 1 && isNumber(meta[0]?.type ?? ''), 'one number')
      assert.notEqual(Object.values(data[0] ?? {})[0], null)
    }
    if (target?.format === 3) {
      const columns = meta
        .map(({ name }) => name)
        .slice(0, 8)
        .join(' ')
      assert.equal(columns, 'traceID spanID parentSpanID serviceName operationName startTime duration tags')
      assert.equal(data[0]?.parentSpanID, '', 'the trace starts with its root')
      assert.ok(Math.abs(Number(data[0]?.startTime) - endMs) < 3_600_001, 'startTime is in milliseconds')
    }
  })

  test(`the panel '${one.title}' answers for whatever is picked, and for nothing at all`, async () => {
    const rawSql = targetsOf(one)[0]?.rawSql ?? ''
    await ask(rawSql, {
      policy: ['balanced', 'frugal'],
      model: ['gpt-5-mini', '(none)'],
      tenant: ["o'neill", '(none)'],
    })
    const { data } = await ask(rawSql, { policy: ['no such policy'] })
    if (one.type !== 'stat') assert.deepEqual(data, [])
    else assert.ok([null, '0', 0].includes(Object.values(data[0] ?? {})[0] as null), 'nothing, and no NaN')
  })
}

for (const { name, query } of variables.filter(({ type }) => type === 'query'))
  test(`the variable '${name}' lists names, the empty one too under a name of its own`, async () => {
    const { meta, data } = await ask(query?.rawSql ?? '')
    assert.equal(meta.length, 1)
    assert.ok(data.length > 1)
    assert.ok(data.every((row) => row.name !== ''))
    if (name !== 'policy') assert.ok(data.some((row) => row.name === '(none)'))
  })

test('the engine that is embedded is of the release that docker-compose.yml starts', () => {
  const { services } = parse(readFileSync(new URL('../docker-compose.yml', import.meta.url), 'utf8'))
  assert.equal(services.clickhouse.image, `clickhouse/clickhouse-server:${engine.version.split('.', 2).join('.')}`)
})

test('picking narrows the figures to what was picked', async () => {
  const whole = Number(await figure('Requests'))
  assert.equal(whole, decisionsCount)
  const parts: number[] = []
  for (const tenant of ['(none)', 'acme', "o'neill"]) parts.push(Number(await figure('Requests', { tenant: [tenant] })))
  assert.ok(parts.every((part) => part > 0 && part < whole))
  assert.equal(
    parts.reduce((sum, part) => sum + part, 0),
    whole,
  )
})

test('a cost that nobody knows is shown as unknown and counted, never as nothing', async () => {
  const { data: byModel } = await ask(panel('Known cost by model called'))
  const { data: targets } = await ask(panel('Targets'))
  for (const rows of [byModel, targets]) {
    const unknown = rows.filter((row) => row.model === unpriced)
    assert.ok(unknown.length > 0 && unknown.every((row) => row.known_cost_usd === null))
    assert.ok(rows.some((row) => Number(row.known_cost_usd) > 0))
  }
  assert.ok(targets.some((row) => row.model === unpriced && Number(row.unknown_cost) > 0))
  assert.ok(Number(await figure('Requests of unknown cost', { model: [unpriced] })) > 0)
})

test('a row that was delivered twice is counted once', async () => {
  const figures = async () => [
    Number(await figure('Requests')),
    Number(await figure('Known cost')).toFixed(9),
    Number(await figure('Requests of unknown cost')),
  ]
  const once = await figures()
  await engine.insert('otel.otel_traces', demoRows(endMs, 50), 'again, under another token')
  assert.deepEqual(await figures(), once)
})

test('the trace panel shows the trace that is asked for', async () => {
  const { data: decisions } = await ask(panel('Decisions'))
  const retried = decisions.find((row) => Number(row.attempts) === 2)
  const { data } = await ask(panel('Trace'), { trace: String(retried?.trace_id) })
  assert.deepEqual(
    data.map((span) => (span.parentSpanID === '' ? 'POST' : String(span.operationName).split(' ')[0])),
    ['POST', 'chat', 'chat'],
  )
  assert.ok(data.every((span) => span.traceID === retried?.trace_id))
})

test('the table says why each model was ruled out', async () => {
  const { data } = await ask(panel('Decisions'))
  assert.ok(data.some((row) => /^[\w.-]+: rule:affordable/.test(String(row.excluded))))
  const reasons = new Set((await ask(panel('Exclusions by reason'))).data.map((row) => row.reason))
  assert.deepEqual([...reasons].toSorted(), ['breaker-open', 'context-window', 'rule:affordable'])
})
