// A query for the official ClickHouse data source, which the dashboard SDK has no builder for: SQL, and the shape its
// answer is shown in. The data source is always the dashboard's variable, so that the dashboard works wherever it is imported.
import type { Builder, Dataquery } from '@grafana/grafana-foundation-sdk/cog'

export const datasource = { type: 'grafana-clickhouse-datasource', uid: `\${datasource}` } as const

/** The plugin's release that the queries are written for; docker-compose.yml installs the same. */
export const pluginVersion = '4.20.0'

/** What the plugin calls each shape: `format` for its backend, `queryType` for its editor. */
export const shapes = {
  timeseries: { format: 0, queryType: 'timeseries' },
  table: { format: 1, queryType: 'table' },
  trace: { format: 3, queryType: 'traces' },
} as const
export type Shape = keyof typeof shapes

/** One SQL query of a panel. */
export class ClickHouseQuery implements Builder<Dataquery> {
  readonly #target: object

  constructor(shape: Shape, rawSql: string) {
    this.#target = { datasource, editorType: 'sql', ...shapes[shape], rawSql, refId: 'A', pluginVersion }
  }

  build(): Dataquery {
    return { ...this.#target, _implementsDataqueryVariant: () => {} }
  }
}
