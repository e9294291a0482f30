// Which decisions change: the Sankey of moved traffic with its table, and a few requests before and after. These are facts of
// the log, not estimates: they are shown even when no verdict can be given.
import type { ChangedDecision, Replay } from '../run.ts'
import { flowChart } from './charts/flow.ts'
import { html, type Markup } from './markup.ts'
import { figure, figured, fold, nameOf, section, sideBySide, table } from './page.ts'
import { armName, count, percent, short } from './words.ts'

const tagsShownMax = 6

export const changes = ({ moves, sample, shares, rows }: Replay): Markup =>
  moves.length === 0
    ? html``
    : section(
        'Which decisions change',
        `${percent(1 - shares.observed)} of ${count(rows)} decisions change${moves.length > 1 ? '; the most frequent moves' : ''}.`,
        [
          sideBySide([
            figure(
              html`<b class="key production">production</b> → <b class="key candidate">candidate</b>`,
              flowChart(moves),
            ),
            table(
              ['production', 'candidate', 'decisions'],
              moves.map(
                ({ from, to, count: n }, at) =>
                  html`<tr><th scope="row">${nameOf(armName(from))}</th><td>${nameOf(armName(to))}</td><td class="number">${figured(`moves.${at}.count`, n, count(n))}</td></tr>`,
              ),
              'words moves',
            ),
          ]),
          sample.length > 0
            ? fold('A few of them, before and after', [
                table(['request', 'production', 'candidate', 'its probability before'], sample.map(changed), 'words'),
              ])
            : html``,
        ],
      )

/** The logged probability of what the candidate chooses. */
export const probabilityBefore = ({ record, decision }: ChangedDecision): number =>
  record.candidates.find(({ model }) => model === decision.chosen)?.probability ?? 0

const changed = (change: ChangedDecision, at: number): Markup => {
  const { record, decision } = change
  const { request } = record
  const tags = Object.entries(request.tags).slice(0, tagsShownMax)
  const facts = [
    `${count(request.input_tokens)} tokens`,
    request.tier,
    ...tags.map(([key, value]) => `${key}=${value}`),
  ]
  const before = probabilityBefore(change)
  return html`<tr><th scope="row">${facts.filter(Boolean).map(short).join(', ')}<br><small><code>${nameOf(record.id)}</code></small></th>
<td>${nameOf(armName(record.chosen ?? ''))}<small>${short(record.reason ?? '')}</small></td><td>${nameOf(armName(decision.chosen ?? ''))}<small>${decision.reason}</small></td><td class="number">${figured(`sample.${at}.probability`, before, percent(before))}</td></tr>`
}
