// A diff for a terminal: how much changes, the churn matrix, the segments where most does, what sets changed requests apart,
// the largest differences in predicted cost, and a few decisions explained before and after by the router's own words.
import { explainDecision } from '../../router/policy/explain.ts'
import { contextOf, recordOf } from '../../router/policy/record.ts'
import { armName, count, percent, short } from '../report/words.ts'
import type { Diff, Move, SegmentDiff } from './diff.ts'

const armsMax = 8
const segmentsShown = 10
const segmentMovesShown = 3
const costChangesShown = 5
const shiftsShown = 8

const named = (arm: string): string => short(armName(arm))
const moveText = ({ from, to, count: n }: Move): string => `${named(from)} → ${named(to)} ${count(n)}`
const isChange = ({ from, to }: Move): boolean => from !== to
const number = (value: number): string => String(Number(value.toPrecision(4)))
const usd = (value: number): string => `${value < 0 ? '−' : '+'}$${Number(Math.abs(value).toPrecision(3))}`
const segmentName = (name: string): string => (name === '' ? '(no segment)' : short(name))

/** Cells of equal width by column: numbers to the right, with what stands above them, and words to the left. */
const table = (rows: readonly (readonly string[])[]): string[] => {
  const columns = (rows[0] ?? []).map((_, at) => ({
    width: Math.max(...rows.map((row) => row[at]?.length ?? 0)),
    isNumber: /^[\d+−·$]/.test(rows.at(-1)?.[at] ?? ''),
  }))
  const padded = (cell: string, at: number): string => {
    const { width = 0, isNumber = false } = columns[at] ?? {}
    return isNumber ? cell.padStart(width) : cell.padEnd(width)
  }
  return rows.map((row) => `  ${row.map(padded).join('   ')}`.trimEnd())
}

const total = (moves: readonly Move[]): number => moves.reduce((sum, move) => sum + move.count, 0)

/** A row or a column of the matrix: one model, or all that are too many to show. */
type Group = { readonly name: string; readonly has: (arm: string) => boolean }

/** From which model in each row to which in each column; beyond eight models the least frequent share one line. */
const matrix = (moves: readonly Move[]): string[] => {
  const size = (arm: string): number => total(moves.filter(({ from, to }) => from === arm || to === arm))
  const arms = [...new Set(moves.flatMap(({ from, to }) => [from, to]))].sort((a, b) => size(b) - size(a))
  const rest = new Set(arms.slice(armsMax))
  const groups: readonly Group[] = [
    ...arms.slice(0, armsMax).map((arm) => ({ name: named(arm), has: (other: string) => other === arm })),
    ...(rest.size > 0 ? [{ name: `${rest.size} others`, has: (arm: string) => rest.has(arm) }] : []),
  ]
  const rows = groups.filter(({ has }) => moves.some(({ from }) => has(from)))
  const columns = groups.filter(({ has }) => moves.some(({ to }) => has(to)))
  const cell = (row: Group, column: Group): string => {
    const n = total(moves.filter(({ from, to }) => row.has(from) && column.has(to)))
    return n === 0 ? '·' : count(n)
  }
  return [
    'From each row to each column:',
    ...table([
      ['', ...columns.map(({ name }) => `→ ${name}`)],
      ...rows.map((row) => [row.name, ...columns.map((column) => cell(row, column))]),
    ]),
  ]
}

const segments = (all: readonly SegmentDiff[]): string[] => {
  const changed = all.filter((segment) => segment.changed > 0)
  if (changed.length === 0) return []
  const rows = changed
    .slice(0, segmentsShown)
    .map(({ name, records, changed: n, moves }) => [
      segmentName(name),
      `${count(n)} of ${count(records)}`,
      percent(n / records),
      moves.filter(isChange).slice(0, segmentMovesShown).map(moveText).join(', '),
    ])
  const more = changed.length - segmentsShown
  return [
    'By segment, most changes first:',
    ...table(rows),
    ...(more > 0 ? [`  and ${count(more)} segments more`] : []),
  ]
}

const cost = ({ predictedCost: { decisions, differenceUsd }, costChanges }: Diff): string[] =>
  decisions === 0
    ? []
    : [
        `Predicted cost of ${count(decisions)} changed decisions: ${usd(differenceUsd)} in all, ${usd(differenceUsd / decisions)} each; most of all:`,
        ...table(
          costChanges
            .slice(0, costChangesShown)
            .map((change) => [
              short(change.id),
              usd(change.differenceUsd),
              `${named(change.from)} → ${named(change.to)}`,
              segmentName(change.segment),
            ]),
        ),
      ]

const shifts = ({ featureShifts }: Diff): string[] =>
  featureShifts.length === 0
    ? []
    : [
        'What sets changed requests apart (means, and the difference in standard deviations):',
        ...table([
          ['', 'changed', 'the others', ''],
          ...featureShifts
            .slice(0, shiftsShown)
            .map(({ feature, changedMean, unchangedMean, standardised }) => [
              short(feature),
              number(changedMean),
              number(unchangedMean),
              `${standardised < 0 ? '−' : '+'}${Math.abs(standardised).toFixed(2)}`,
            ]),
        ]),
      ]

/** Control and direction marks cannot reach the terminal: names come from logs. */
const safe = (text: string): string => text.replace(/[\p{Cc}\p{Cf}]/gu, '�')
const indented = (text: string): string[] => text.split('\n').map((line) => `  ${safe(line)}`)

const sample = ({ sample: changed }: Diff): string[][] =>
  changed.map(({ record, decision }, at) => [
    `${at + 1} of ${changed.length} changed decisions, as it was:`,
    ...indented(explainDecision(record, [])),
    'and as it would be:',
    ...indented(
      explainDecision(recordOf(contextOf(record), decision), [])
        .split('\n')
        .slice(2)
        .join('\n'),
    ),
  ])

/** The whole diff as text. */
export const diffText = (diff: Diff, candidate: string): string => {
  const { records, changed, differingShare } = diff
  const share = records > 0 ? changed / records : 0
  const head = [
    `${count(changed)} of ${count(records)} decisions (${percent(share)}) come out otherwise under '${short(candidate)}'.`,
    `However the draws fall, ${percent(differingShare)} of choices differ between the two policies; the rest is chance.`,
  ]
  if (changed === 0) return `${head[0]}\n`
  const sections = [head, matrix(diff.moves), segments(diff.segments), cost(diff), shifts(diff), ...sample(diff)]
  return `${sections
    .filter((lines) => lines.length > 0)
    .map((lines) => lines.join('\n'))
    .join('\n\n')}\n`
}
