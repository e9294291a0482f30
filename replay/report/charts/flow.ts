// Where traffic moves: a Sankey diagram from production's choices to the candidate's. d3-sankey lays it out; names stand at
// their own bars, so no legend is needed.
import { type SankeyLink, type SankeyNode, sankey, sankeyLinkHorizontal } from 'd3-sankey'
import type { Move } from '../../account.ts'
import { html, type Markup, markup } from '../markup.ts'
import { armName, count } from '../words.ts'
import { chartWidth, label } from './draw.ts'

const nodeHeight = 46
const nodePadding = 22
const edge = 12
const nodeWidth = 10
const pathDigits = 1
/** Names of both sides share the width. */
const nameLengthMax = 28

type Node = { readonly id: string; readonly name: string }
type Placed = SankeyNode<Node, object>
type Link = SankeyLink<Node, object>

/** The moves as ribbons, as wide as their number of decisions. */
export const flowChart = (moves: readonly Move[]): Markup => {
  const ids = new Map<string, Node>()
  const idOf = (side: 'from' | 'to', name: string): string => {
    const id = `${side}:${name}`
    ids.set(id, { id, name })
    return id
  }
  const links = moves.map(({ from, to, count: value }) => ({
    source: idOf('from', from),
    target: idOf('to', to),
    value,
  }))
  const nodes = [...ids.values()].map((node) => ({ ...node }))
  const most = Math.max(
    ...(['from:', 'to:'] as const).map((side) => nodes.filter(({ id }) => id.startsWith(side)).length),
  )
  const height = Math.max(150, most * nodeHeight + 2 * edge)
  const graph = sankey<Node, object>()
    .nodeId(({ id }) => id)
    .nodeWidth(nodeWidth)
    .nodePadding(nodePadding)
    .extent([
      [2, edge],
      [chartWidth - 2, height - edge],
    ])({ nodes, links })
  const title = `Where decisions move: ${moves.map(({ from, to, count: n }) => `${count(n)} from ${label(armName(from))} to ${label(armName(to))}`).join(', ')}`
  return html`<svg class="plot" role="img" aria-label="${title}" width="${chartWidth}" height="${height}" viewBox="0 0 ${chartWidth} ${height}">
<g fill="none" stroke="var(--candidate)" stroke-opacity="0.22">${graph.links.map(ribbon)}</g>
${graph.nodes.map(bar)}</svg>`
}

const round = (path: string): string => path.replace(/\d+\.\d+/g, (number) => Number(number).toFixed(pathDigits))

const ribbon = (link: Link): Markup =>
  markup(
    `<path d="${round(sankeyLinkHorizontal<Node, object>()(link) ?? '')}" stroke-width="${Math.max(1, link.width ?? 0).toFixed(pathDigits)}"/>`,
  )

const bar = ({ name, id, value = 0, x0 = 0, x1 = 0, y0 = 0, y1 = 0 }: Placed): Markup => {
  const isSource = id.startsWith('from:')
  const x = isSource ? x1 + 6 : x0 - 6
  return html`<rect x="${x0}" y="${y0.toFixed(1)}" width="${nodeWidth}" height="${Math.max(1, y1 - y0).toFixed(1)}" rx="2" fill="${isSource ? 'var(--production)' : 'var(--candidate)'}"/>
<text x="${x}" y="${((y0 + y1) / 2).toFixed(1)}" dy="0.32em" text-anchor="${isSource ? 'start' : 'end'}" class="halo" font-size="11"><tspan font-weight="600">${label(armName(name), nameLengthMax)}</tspan> <tspan fill="var(--quiet)">${count(value)}</tspan></text>`
}
