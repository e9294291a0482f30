// The five kinds of panel the dashboard is made of, as data, and how each of them looks: a figure, lines, stacked bars,
// a table, a trace. A panel is a title, a description that says which question it answers, a unit and a query.
import {
  BigValueGraphMode,
  GraphDrawStyle,
  SortOrder,
  StackingConfigBuilder,
  StackingMode,
  TooltipDisplayMode,
  VisibilityMode,
  VizLegendOptionsBuilder,
  VizTooltipOptionsBuilder,
} from '@grafana/grafana-foundation-sdk/common'
import type { DynamicConfigValue } from '@grafana/grafana-foundation-sdk/dashboard'
import { PanelBuilder, ThresholdsConfigBuilder, ThresholdsMode } from '@grafana/grafana-foundation-sdk/dashboard'
import { PanelBuilder as StatBuilder } from '@grafana/grafana-foundation-sdk/stat'
import { PanelBuilder as TableBuilder } from '@grafana/grafana-foundation-sdk/table'
import { PanelBuilder as SeriesBuilder } from '@grafana/grafana-foundation-sdk/timeseries'
import { ClickHouseQuery, datasource } from './query.ts'

type Shown = {
  readonly title: string
  /** The question the panel answers, and what its figures leave out. */
  readonly description: string
  /** Columns of Grafana's 24. */
  readonly span: number
  readonly sql: string
}
/** One number over the whole time range; `warnFrom` is where it turns orange. */
type Figure = Shown & { readonly kind: 'figure'; readonly unit: string; readonly warnFrom?: number }
/** `label` is the text column whose values make a series each; without it every number column is one. */
type Lines = Shown & { readonly kind: 'lines'; readonly unit: string; readonly label?: string }
/** Parts of a whole: added up, or with `percent` as shares of it. */
type Bars = Shown & {
  readonly kind: 'bars'
  readonly unit: string
  readonly label: string
  readonly percent?: boolean
  readonly colors?: Readonly<Record<string, string>>
}
/** `columns` gives a column its unit, its link or its word for nothing. */
type Table = Shown & {
  readonly kind: 'table'
  readonly columns: Readonly<Record<string, readonly DynamicConfigValue[]>>
}
type Trace = Shown & { readonly kind: 'trace' }
export type Panel = Figure | Lines | Bars | Table | Trace
export type Row = { readonly title: string; readonly panels: readonly Panel[] }

export const unit = (name: string): DynamicConfigValue => ({ id: 'unit', value: name })

const figure = ({ unit, warnFrom, sql }: Figure) => {
  const warning = warnFrom === undefined ? [] : [{ value: warnFrom, color: 'orange' }]
  return new StatBuilder()
    .height(4)
    .unit(unit)
    .noValue('unknown')
    .graphMode(BigValueGraphMode.None)
    .thresholds(
      new ThresholdsConfigBuilder().mode(ThresholdsMode.Absolute).steps([{ value: null, color: 'text' }, ...warning]),
    )
    .withTarget(new ClickHouseQuery('table', sql))
}

const series = ({ unit, label, sql }: Lines | Bars) => {
  const builder = new SeriesBuilder()
    .height(8)
    .unit(unit)
    .min(0)
    .legend(new VizLegendOptionsBuilder().showLegend(true).calcs([]))
    .tooltip(new VizTooltipOptionsBuilder().mode(TooltipDisplayMode.Multi).sort(SortOrder.Descending))
    .withTarget(new ClickHouseQuery('timeseries', sql))
  return label ? builder.displayName(`\${__field.labels.${label}}`) : builder
}

const lines = (panel: Lines) =>
  series(panel).drawStyle(GraphDrawStyle.Line).lineWidth(2).showPoints(VisibilityMode.Auto)

const bars = (panel: Bars) => {
  const builder = series(panel)
    .drawStyle(GraphDrawStyle.Bars)
    .lineWidth(0)
    .fillOpacity(80)
    .stacking(new StackingConfigBuilder().group('A').mode(panel.percent ? StackingMode.Percent : StackingMode.Normal))
  for (const [name, color] of Object.entries(panel.colors ?? {}))
    builder.overrideByName(name, [{ id: 'color', value: { mode: 'fixed', fixedColor: color } }])
  return builder
}

const table = ({ columns, span, sql }: Table) => {
  const height = span === 24 ? 10 : 8
  const builder = new TableBuilder().height(height).filterable(true).withTarget(new ClickHouseQuery('table', sql))
  for (const [name, properties] of Object.entries(columns)) builder.overrideByName(name, [...properties])
  return builder
}

const trace = ({ sql }: Trace) =>
  new PanelBuilder().type('traces').height(14).withTarget(new ClickHouseQuery('trace', sql))

const look = (panel: Panel) => {
  switch (panel.kind) {
    case 'figure':
      return figure(panel)
    case 'lines':
      return lines(panel)
    case 'bars':
      return bars(panel)
    case 'table':
      return table(panel)
    case 'trace':
      return trace(panel)
  }
}

/** The panel as Grafana's builder for its kind. */
export const panelBuilder = (panel: Panel) =>
  look(panel).title(panel.title).description(panel.description).span(panel.span).datasource(datasource)
