// The dashboard's JSON is what its code makes, and every panel has what a person needs to read it.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { parse } from 'yaml'
import { dashboardText } from '../grafana/dashboard.ts'
import { pluginVersion, shapes } from '../grafana/query.ts'
import { panels, targetsOf, variables } from './grafana-file.ts'

const read = (path: string): string => readFileSync(new URL(`../${path}`, import.meta.url), 'utf8')
const shown = panels.filter((panel) => panel.type !== 'row')

test('the committed dashboard is what the code generates, to the byte, every time', () => {
  assert.equal(read('grafana/dashboards/signalbox.json'), dashboardText(), 'run `npm run grafana:generate`')
  assert.equal(dashboardText(), dashboardText())
})

test('the dashboard can be edited, and names no data source and no id of one Grafana', () => {
  const dashboard = JSON.parse(dashboardText())
  assert.equal(dashboard.editable, true)
  assert.equal(dashboard.uid, undefined)
  assert.equal(dashboard.id, undefined)
  const uids = dashboardText().match(/"uid": ".*"/g) ?? []
  assert.deepEqual([...new Set(uids)], [`"uid": "\${datasource}"`])
})

test('every panel has a title, and a description that says which question it answers', () => {
  for (const panel of shown) {
    assert.ok(panel.title, `panel ${panel.id}`)
    assert.match(panel.description ?? '', /\?/, panel.title)
  }
  assert.equal(new Set(shown.map((panel) => panel.title)).size, shown.length, 'titles are not repeated')
})

test('every number says its unit', () => {
  for (const panel of shown.filter(({ type }) => type === 'stat' || type === 'timeseries'))
    assert.ok(panel.fieldConfig?.defaults.unit, panel.title)
  for (const panel of shown.filter(({ type }) => type === 'table')) {
    const withUnit = panel.fieldConfig?.overrides.filter(({ properties }) => properties.some(({ id }) => id === 'unit'))
    for (const column of targetsOf(panel)[0]?.rawSql.match(/AS \w*(?:_usd|_ms)\b/g) ?? [])
      assert.ok(
        withUnit?.some(({ matcher }) => matcher.options === column.slice(3)),
        `${panel.title}: ${column}`,
      )
  }
})

test('panels have ids of their own and do not lie on each other', () => {
  assert.equal(new Set(panels.map((panel) => panel.id)).size, panels.length)
  const taken = new Map<string, string>()
  for (const { title, gridPos } of panels) {
    assert.ok(gridPos.x + gridPos.w <= 24, `${title} ends right of the grid`)
    for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++)
      for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
        assert.equal(taken.get(`${x},${y}`), undefined, `${title} lies on another panel`)
        taken.set(`${x},${y}`, title)
      }
  }
})

test('every target is SQL of a known shape, read from the data source variable', () => {
  const known = Object.values(shapes).map(({ format }) => format as number)
  for (const panel of shown) {
    assert.equal(targetsOf(panel).length, 1, panel.title)
    for (const target of targetsOf(panel)) {
      assert.ok(known.includes(target.format), panel.title)
      assert.ok(target.rawSql.startsWith('SELECT') || target.rawSql.startsWith('WITH'), panel.title)
      assert.deepEqual(target.datasource, { type: 'grafana-clickhouse-datasource', uid: `\${datasource}` })
    }
  }
})

test('a person can pick the data source, policies, models and tenants, and every panel obeys', () => {
  assert.deepEqual(
    variables.map(({ name, type }) => `${type} ${name}`),
    ['datasource datasource', 'query policy', 'query model', 'query tenant', 'textbox trace'],
  )
  for (const panel of shown)
    for (const name of ['policy', 'model', 'tenant'])
      assert.ok(targetsOf(panel)[0]?.rawSql.includes(`\${${name}:singlequote}`), `${panel.title} ignores ${name}`)
})

test('no query turns an unknown cost into a number', () => {
  for (const panel of shown)
    assert.doesNotMatch(targetsOf(panel)[0]?.rawSql ?? '', /(?:ifNull|coalesce|assumeNotNull|OrZero)\([^()]*cost/i)
})

test('the decisions link to their traces', () => {
  const decisions = shown.find(({ title }) => title === 'Decisions')
  assert.match(
    decisions ? (targetsOf(decisions)[0]?.rawSql ?? '') : '',
    /AS trace_id/,
    'the data source links this name',
  )
  assert.match(JSON.stringify(decisions?.fieldConfig?.overrides), /var-trace=\$\{__data\.fields\.trace_id\}/)
})

test('Grafana is provisioned with the official data source and this dashboard', () => {
  const { datasources } = parse(read('grafana/provisioning/datasources/clickhouse.yaml'))
  assert.equal(datasources.length, 1)
  const [{ type, jsonData, secureJsonData }] = datasources
  assert.equal(type, 'grafana-clickhouse-datasource')
  assert.equal(jsonData.defaultDatabase, 'otel')
  assert.deepEqual([jsonData.traces.defaultDatabase, jsonData.traces.defaultTable], ['otel', 'otel_traces'])
  assert.equal(jsonData.traces.traceTimestampTableSuffix, '_trace_id_ts')
  assert.match(secureJsonData.password, /^\$\w+$/, 'the password comes from the environment')

  const compose = parse(read('docker-compose.yml'))
  assert.equal(
    compose.services.grafana.environment.GF_PLUGINS_PREINSTALL_SYNC,
    `grafana-clickhouse-datasource@${pluginVersion}`,
  )
  const { providers } = parse(read('grafana/provisioning/dashboards/signalbox.yaml'))
  const mounts: string[] = compose.services.grafana.volumes
  assert.ok(mounts.includes(`./grafana/dashboards:${providers[0].options.path}:ro`), 'the provider reads the mount')
  assert.ok(mounts.includes('./grafana/provisioning:/etc/grafana/provisioning:ro'))
})
