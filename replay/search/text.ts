// A search for a terminal, and the words that its page shares: what was found in a sentence, how the log was used, every
// finalist with both of its axes, and what choosing had made of the estimates. Colours only when asked for.
import { styleText } from 'node:util'
import { metrics } from '../estimate/metrics.ts'
import { count, intervalText, percent, plain, refusalText, relative, short, signed, units } from '../report/words.ts'
import type { Finalist, Finding } from './certify.ts'
import type { Search } from './search.ts'
import { parameterText } from './template.ts'

const findingText: Readonly<Record<Finding, string>> = {
  better: 'certified better',
  harm: 'harm shown',
  open: 'not certified, still open',
  thin: 'too little evidence to decide',
  refused: 'evidence refused',
}

/** What was found, in one sentence. */
export const searchSentence = ({ finalists, options, tried, exitCode }: Search): string => {
  const better = finalists.filter(({ finding }) => finding === 'better')
  const [best] = better[0]?.axes ?? []
  const share = best ? relative(best.alone.value, best.production.value) : ''
  const most = share === '' ? '' : `, the best by ${share}`
  const claim = `certified better on ${plain[options.goal]} with every guardrail within ${options.margin}${most}`
  const among = `${count(tried.length)} ${tried.length === 1 ? 'policy' : 'policies'} tried`
  if (exitCode === 3) return `None of ${among} can be certified: the evidence of every finalist is refused.`
  return `${exitCode === 0 ? better.length : 'None'} of ${among} ${better.length > 1 ? 'are' : 'is'} ${claim}.`
}

/** Over whom intervals hold at once. */
export const togetherText = (finalists: number): string =>
  finalists === 1 ? 'for the one finalist' : `for all ${count(finalists)} finalists together`

/** How the log was used, line by line. */
export const searchFacts = (search: Search): readonly (readonly [name: string, text: string])[] => {
  const { window, rounds, selection, holdOut, reach, finalists } = search
  const time = (iso: string) => `${iso.slice(0, 16).replace('T', ' ')} UTC`
  const left =
    holdOut.leftOut > 0 ? `; ${count(holdOut.leftOut)} more belong with earlier ones and count for neither` : ''
  const steps = rounds.map(
    ({ share, tried }) =>
      `${count(tried)} on ${share < 1 ? percent(share) : 'all'} of ${count(selection.clusters)} clusters`,
  )
  return [
    ['template', short(search.template)],
    [
      'chosen on',
      `${count(selection.rows)} decisions, ${time(window.from)} to ${time(window.cut)}: ${steps.join(', ')}`,
    ],
    ['certified on', `${count(holdOut.rows)} decisions, ${time(window.cut)} to ${time(window.to)}${left}`],
    ['intervals', `95 % ${togetherText(finalists.length)}: ${reach.toFixed(2)} standard errors to either side`],
  ]
}

/** How much of the gain that finalists were chosen for is there where nothing was chosen. */
export const curseText = ({ shrinkage: { selected, heldOut }, options: { goal } }: Search): string => {
  const say = (gain: number) => `${metrics[goal].say(gain)}${units[goal]}`
  const kept = selected > 0 && Number.isFinite(heldOut) ? `, ${percent(heldOut / selected)} of it` : ''
  return `Winner's curse: the finalists' mean gain in ${plain[goal]} was ${say(selected)} where they were chosen, and is ${say(heldOut)}${kept}, where they were not.`
}

const marks: Readonly<Record<Finding, readonly [Parameters<typeof styleText>[0], string]>> = {
  better: ['green', '✓'],
  harm: ['red', '✗'],
  open: ['yellow', '?'],
  thin: ['yellow', '?'],
  refused: ['magenta', '✗'],
}

const heads = ['', 'production', 'candidate', 'difference', '95 % together', 'when chosen']

/** The cells of a finalist's axes, under the heads above; shared with the page. */
export const axisCells = ({ axes }: Finalist): string[][] =>
  axes.map(({ metric, production, candidate, alone, low, high, selected }) => [
    metrics[metric].title,
    metrics[metric].say(production.value),
    metrics[metric].say(candidate.value),
    signed(metric, alone.value),
    intervalText(metric, { ...alone, low, high }),
    signed(metric, selected.value),
  ])

/** `certified better, on the front`; `harm shown: quality` */
export const finalistResult = ({ finding, isOnFront, failing }: Finalist): string => {
  const what = failing.length > 0 ? `: ${failing.map((metric) => plain[metric]).join(', ')}` : ''
  return `${findingText[finding]}${what}${isOnFront ? ', on the front' : ''}`
}

/** The report of `replay search`. */
export const searchText = (search: Search, { colour }: { readonly colour: boolean }): string => {
  const paint = (style: Parameters<typeof styleText>[0], text: string): string =>
    colour ? styleText(style, text, { validateStream: false }) : text
  const { finalists } = search
  const rows = [heads, ...finalists.flatMap(axisCells)]
  const widths = heads.map((_, at) => Math.max(...rows.map((cells) => cells[at]?.length ?? 0)))
  const line = (cells: readonly string[]) =>
    `  ${cells.map((cell, at) => (at === 0 ? cell.padEnd(widths[at] ?? 0) : cell.padStart(widths[at] ?? 0))).join('   ')}`
  const blocks = finalists.map((finalist) => {
    const [style, mark] = marks[finalist.finding]
    const title = `${paint(style, mark)} ${parameterText(finalist.parameters)}: ${paint(style, finalistResult(finalist))}`
    const reasons = finalist.refusals.map((refusal) => `  ${paint(style, '·')} ${refusalText(refusal)}`)
    return [title, ...axisCells(finalist).map(line), ...reasons].join('\n')
  })
  const sections = [
    paint('bold', searchSentence(search)),
    searchFacts(search)
      .map(([name, text]) => `${name.padEnd(12)}  ${text}`)
      .join('\n'),
    [paint('dim', line(heads)), ...blocks].join('\n'),
    curseText(search),
  ]
  return `${sections.join('\n\n')}\n`
}
