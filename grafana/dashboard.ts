// The dashboard "Signalbox", put together: its variables, its rows in the order they are seen, and the numbers of its
// panels. `npm run grafana:generate` writes its JSON.
import {
  type Dashboard,
  DashboardBuilder,
  DashboardCursorSync,
  DatasourceVariableBuilder,
  QueryVariableBuilder,
  RowBuilder,
  TextBoxVariableBuilder,
  VariableRefresh,
} from '@grafana/grafana-foundation-sdk/dashboard'
import { missing } from './missing.ts'
import { atAGlance, cost, traffic } from './overview.ts'
import { panelBuilder } from './panels.ts'
import { datasource } from './query.ts'
import { choice, eachDecision, time } from './reasons.ts'
import { named } from './sql.ts'

/** A variable that holds any of the names in a column of the decisions. */
const listOf = (name: string, label: string, column: string) =>
  new QueryVariableBuilder(name)
    .label(label)
    .description(`Only decisions with this ${label.toLowerCase()}`)
    .datasource(datasource)
    .query({
      editorType: 'sql',
      rawSql: `SELECT DISTINCT ${named(column)} AS name FROM otel.routing_decisions WHERE $__timeFilter(decision_time) ORDER BY name`,
    })
    .refresh(VariableRefresh.OnTimeRangeChanged)
    .multi(true)
    .includeAll(true)
    .current({ selected: true, text: ['All'], value: ['$__all'] })

export const signalboxDashboard = (): Dashboard => {
  const builder = new DashboardBuilder('Signalbox')
    .description(
      'Where model traffic goes, why, what it costs and how long it takes. Every figure is made of routing decisions.',
    )
    .tags(['signalbox', 'llm'])
    .editable()
    .tooltip(DashboardCursorSync.Crosshair)
    .time({ from: 'now-6h', to: 'now' })
    .refresh('1m')
    .withVariable(new DatasourceVariableBuilder('datasource').label('Data source').type(datasource.type))
    .withVariable(listOf('policy', 'Policy', 'policy_name'))
    .withVariable(listOf('model', 'Chosen model', 'chosen_model'))
    .withVariable(listOf('tenant', 'Tenant', 'tenant'))
    .withVariable(
      new TextBoxVariableBuilder('trace')
        .label('Trace id')
        .description('The trace to show at the end of the dashboard; empty for the latest one'),
    )
  for (const { title, panels } of [atAGlance, traffic, cost, choice, time, eachDecision, missing]) {
    builder.withRow(new RowBuilder(title))
    for (const panel of panels) builder.withPanel(panelBuilder(panel))
  }
  const dashboard = builder.build()
  for (const [index, panel] of (dashboard.panels ?? []).entries()) panel.id = index + 1
  return dashboard
}

/** The dashboard as the file that Grafana reads. */
export const dashboardText = (): string => `${JSON.stringify(signalboxDashboard(), null, 2)}\n`
