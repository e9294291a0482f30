// Other people's numbers, computed with the functions that every replay uses, so that a sceptic can check the statistics in
// a few seconds. What somebody printed and what was only computed with their software or definition are told apart.
import { type Figure, figureSources } from './selftest/figure.ts'
import { bootstrapFigures, sequenceFigures } from './selftest/intervals.ts'
import { openBanditFigures } from './selftest/open-bandit.ts'
import { routeLlmFigures, routerArenaFigures } from './selftest/router-scores.ts'
import { mooncakeFigures, queueFigures } from './selftest/what-if.ts'

/** Computes all figures, in the order in which they are shown; takes a few seconds and reads only files of the package. */
export const selfTest = (): Figure[] => [
  ...openBanditFigures(),
  ...routeLlmFigures(),
  ...routerArenaFigures(),
  ...sequenceFigures(),
  ...bootstrapFigures(),
  ...queueFigures(),
  ...mooncakeFigures(),
]

const nameWidth = 46
const valueWidth = 16

/** The table of all figures under their groups, and the tally in one line. */
export const selfTestText = (figures: readonly Figure[]): string => {
  const groups = Map.groupBy(figures, ({ group }) => group)
  const blocks = [...groups].map(([group, members]) => [group, ...members.map(lineOf)].join('\n'))
  const tally = [...groups].map(
    ([group, members]) => `${group} ${members.filter(({ ok }) => ok).length}/${members.length}`,
  )
  const sources = figureSources.map((source) => {
    const all = figures.filter((figure) => figure.source === source)
    return `${all.filter(({ ok }) => ok).length} of ${all.length} ${source}`
  })
  return `${blocks.join('\n\n')}\n\n${tally.join(', ')}\n${sources.join(', ')} figures reproduced\n`
}

const lineOf = ({ name, source, expected, ours, decimals, tolerance, ok }: Figure): string => {
  const [theirs, mine] = [expected, ours].map((value) => value.toFixed(decimals).padStart(valueWidth))
  const within = tolerance > 0 ? `   within ${Number(tolerance.toPrecision(2))}` : ''
  return `  ${ok ? '✓' : '✗'} ${name.padEnd(nameWidth)}${source.padEnd(10)}${theirs}   ours${mine}${within}`
}
