// The dashboard as Grafana reads it: the committed JSON, with as much of its shape as the tests look at.
import { readFileSync } from 'node:fs'

export type Target = { readonly rawSql: string; readonly format: number; readonly datasource: unknown }
export type Panel = {
  readonly id: number
  readonly type: string
  readonly title: string
  readonly description?: string
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number }
  readonly targets?: readonly Target[]
  readonly fieldConfig?: {
    readonly defaults: { readonly unit?: string; readonly displayName?: string }
    readonly overrides: readonly {
      readonly matcher: { readonly options: string }
      readonly properties: readonly { readonly id: string }[]
    }[]
  }
}
export type Variable = { readonly name: string; readonly type: string; readonly query?: { readonly rawSql: string } }

const file = readFileSync(new URL('../grafana/dashboards/signalbox.json', import.meta.url), 'utf8')
const dashboard = JSON.parse(file) as { panels: Panel[]; templating: { list: Variable[] } }

export const panels: readonly Panel[] = dashboard.panels
export const variables: readonly Variable[] = dashboard.templating.list
export const targetsOf = (panel: Panel): readonly Target[] => panel.targets ?? []
