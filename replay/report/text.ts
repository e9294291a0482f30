// The report for a terminal: the verdict first, then where the evidence comes from, the figures, the checks, and what would
// help. Colours only when asked for; every line makes sense without them.
import { styleText } from 'node:util'
import { metrics } from '../estimate/metrics.ts'
import { isDisproof, type Verification } from '../redecide/verify.ts'
import type { Replay } from '../run.ts'
import {
  bySensitivity,
  detailOf,
  figuresOf,
  quantileName,
  segmentName,
  sensitivityText,
  worstSegments,
} from './cells.ts'
import { checksOf } from './checks.ts'
import { remedyText } from './remedies.ts'
import {
  armName,
  causeText,
  count,
  differenceText,
  duration,
  exactness,
  findingText,
  intervalText,
  isShown,
  percent,
  plain,
  refusalText,
  reproducedShare,
  shortHash,
  shownFindings,
  signed,
  verdictSentence,
} from './words.ts'

const barWidth = 40
const movesShown = 5
const segmentsShown = 3
const lineWidth = 100

export type TextOptions = { readonly colour: boolean }
type Style = Parameters<typeof styleText>[0]
type Paint = (style: Style, text: string) => string

const painter =
  ({ colour }: TextOptions): Paint =>
  (style, text) =>
    colour ? styleText(style, text, { validateStream: false }) : text

const verdictStyle: Readonly<Record<Replay['verdict']['kind'], Style>> = {
  promote: ['bold', 'green'],
  reject: ['bold', 'red'],
  inconclusive: ['bold', 'yellow'],
  refused: ['bold', 'magenta'],
}

/** Control characters cannot reach the terminal: names come from policy files and logs. */
const safe = (text: string): string => text.replace(/[\p{Cc}\p{Cf}]/gu, (c) => (c === '\n' ? ' ' : '�'))

/** Breaks at spaces, continuing with an indent. */
const wrap = (text: string, indent: string): string => {
  const lines: string[] = []
  let line = ''
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + word.length + 1 > lineWidth - indent.length) {
      lines.push(line)
      line = word
    } else line = line === '' ? word : `${line} ${word}`
  }
  return [...lines, line].join(`\n${indent}`)
}

export const reportText = (replay: Replay, options: TextOptions): string => {
  const paint = painter(options)
  const sections = [
    paint(verdictStyle[replay.verdict.kind], wrap(safe(verdictSentence(replay)), '')),
    subject(replay),
    ...(replay.rows > 0 ? [evidence(replay, paint), table(replay, paint), detail(replay, paint), moves(replay)] : []),
    checks(replay, paint),
    conditions(replay, paint),
    remedies(replay),
  ]
  return `${sections.filter((section) => section !== '').join('\n\n')}\n`
}

const subject = ({ candidate, production, rows, window, options }: Replay): string => {
  const logged = production.map(
    ({ name, hash, rows: decided }) => `${safe(name)} ${shortHash(hash)} (${count(decided)} rows)`,
  )
  const span = window
    ? `, ${window.from.slice(0, 16).replace('T', ' ')} to ${window.to.slice(0, 16).replace('T', ' ')} UTC`
    : ''
  const rate = window?.rowsPerDay ? ` (${duration(rows / window.rowsPerDay)})` : ''
  return [
    `candidate   ${safe(candidate.name)} ${shortHash(candidate.hash)}`,
    `production  ${logged.join(', ') || '(none)'}`,
    `evidence    ${count(rows)} decisions${span}${rate}`,
    `gate        ${metrics[options.goal].title.split(',')[0]} better; quality, failures and requests given up at most ${options.margin} worse; 95 % intervals${options.missingAtRandom ? '; outcomes taken to be missing at random' : ''}`,
  ].join('\n')
}

const evidence = ({ shares }: Replay, paint: Paint): string => {
  const estimated = Math.round(shares.estimated * barWidth)
  const reexecuted = Math.round(shares.reexecuted * barWidth)
  const unsupported = Math.round(shares.unsupported * barWidth)
  const observed = Math.max(0, barWidth - estimated - reexecuted - unsupported)
  const bar =
    paint('green', '█'.repeat(observed)) +
    paint('cyan', '▓'.repeat(estimated)) +
    paint('blue', '▒'.repeat(reexecuted)) +
    paint('magenta', '░'.repeat(unsupported))
  const parts = [
    `█ ${percent(shares.observed)} observed (same choice, outcome reused)`,
    `▓ ${percent(shares.estimated)} estimated`,
    ...(shares.reexecuted > 0 ? [`▒ ${percent(shares.reexecuted)} re-executed (asked anew)`] : []),
    ...(shares.unsupported > 0 ? [`░ ${percent(shares.unsupported)} never tried`] : []),
  ]
  return `${bar}  ${parts.join('  ')}`
}

const table = (replay: Replay, paint: Paint): string => {
  const results = replay.metrics.filter((result) => result.rows > 0 && isShown(result))
  const rows = results.map((result) => {
    const { production, candidate, difference, interval, relative } = figuresOf(replay, result)
    return [metrics[result.metric].title, production, candidate, difference, interval, relative]
  })
  const logged = results.map(({ metric, logged: mean }) => `${plain[metric]} ${metrics[metric].say(mean.value)}`)
  const header = ['per request', 'production', 'candidate', 'difference', '95 % interval', '']
  return [aligned(header, rows, paint), paint('dim', wrap(`as logged: ${logged.join(' · ')}`, '  '))].join('\n')
}

/** Columns as wide as their widest cell, the first to the left and the others to the right. */
const aligned = (header: readonly string[], rows: readonly (readonly string[])[], paint: Paint): string => {
  const widths = header.map((title, at) => Math.max(...[header, ...rows].map((row) => (row[at] ?? title).length)))
  const line = (cells: readonly string[]) =>
    cells
      .map((cell, at) => (at === 0 ? cell.padEnd(widths[at] ?? 0) : cell.padStart(widths[at] ?? 0)))
      .join('   ')
      .trimEnd()
  return [paint('bold', line(header)), ...rows.map(line)].join('\n')
}

/** Quantiles, the segments that do worst, and how wrong the log would have to be. */
const detail = (replay: Replay, paint: Paint): string => {
  const found = detailOf(replay)
  if (!found) return ''
  const { goal } = replay.options
  const quantiles = found.quantiles.map(({ metric, p, production, candidate, difference }) => [
    `${plain[metric]} ${quantileName(p)}`,
    ...[production, candidate].map(({ value }) => metrics[metric].say(value)),
    signed(metric, difference.value),
    intervalText(metric, difference),
  ])
  const worst = found.segments.length > 1 ? worstSegments(found, replay, segmentsShown) : []
  const segments = worst.flatMap(({ name, rows, metrics: results }) =>
    results
      .filter(({ metric }) => metric === goal)
      .map(({ difference }) => [
        segmentName(name),
        count(rows),
        signed(goal, difference.value),
        intervalText(goal, difference),
      ]),
  )
  const [first] = bySensitivity(replay)
  const sections = [
    quantiles.length > 0
      ? aligned(['milliseconds', 'production', 'candidate', 'difference', '95 % interval'], quantiles, paint)
      : '',
    segments.length > 0
      ? aligned([`worst for ${plain[goal]}`, 'rows', 'difference', '95 % interval'], segments, paint)
      : '',
    first ? wrap(safe(sensitivityText(first)), '') : '',
  ]
  return sections.filter((section) => section !== '').join('\n\n')
}

const moves = ({ moves: all, shares, rows }: Replay): string => {
  if (all.length === 0) return ''
  const shown = all.slice(0, movesShown)
  const width = Math.max(...shown.map(({ count: n }) => count(n).length))
  const list = shown.map(
    ({ from, to, count: n }) => `  ${count(n).padStart(width)}  ${safe(armName(from))} → ${safe(armName(to))}`,
  )
  return [`${percent(1 - shares.observed)} of ${count(rows)} decisions change; most of all:`, ...list].join('\n')
}

const marks = { good: ['green', '✓'], warning: ['yellow', '!'], bad: ['red', '✗'] } as const

const checks = (replay: Replay, paint: Paint): string =>
  checksOf(replay)
    .map(({ name, found, state }) => {
      const [style, mark] = marks[state]
      return `${paint(style, mark)} ${name.padEnd(20)} ${wrap(safe(found), ' '.repeat(23))}`
    })
    .join('\n')

const conditions = (replay: Replay, paint: Paint): string => {
  const { refusals, findings, kind } = replay.verdict
  if (kind === 'refused')
    return [
      'Why there is no verdict:',
      ...refusals.map((refusal) => `${paint('red', '✗')} ${wrap(safe(refusalText(refusal)), '  ')}`),
    ].join('\n')
  const mark = { held: marks.good, harm: marks.bad, open: ['yellow', '?'] as const }
  return shownFindings(replay, findings)
    .map((finding) => {
      const [style, sign] = mark[finding.result]
      return `${paint(style, sign)} ${wrap(safe(findingText(replay, finding)), '  ')}`
    })
    .join('\n')
}

const remedies = ({ verdict }: Replay): string =>
  verdict.remedies.length === 0
    ? ''
    : ['What would help:', ...verdict.remedies.map((remedy) => `→ ${wrap(safe(remedyText(remedy)), '  ')}`)].join('\n')

/** The report of `replay verify`. */
export const verificationText = (verification: Verification, options: TextOptions): string => {
  const paint = painter(options)
  const { records, reproduced, unverifiable, groups } = verification
  const good = records > 0 && reproduced === records
  const open = unverifiable > 0 ? ` ${count(unverifiable)} could not be decided again.` : ''
  const head = `${paint(good ? 'green' : 'red', good ? '✓' : '✗')} ${reproducedShare(verification)} % of ${count(records)} decisions come out as logged: choice, plan, exclusions, scores and probabilities, ${exactness(verification)}.${open}`
  const { logged, redecided } = verification.digest
  const digest =
    logged === redecided
      ? `  digest ${redecided} over them; the log's own is the same`
      : `  digest ${redecided} of what comes out now; the log's own is ${logged}`
  const list = groups.flatMap(({ cause, count: n, examples }) => [
    `  ${count(n)} × ${safe(causeText(cause))}`,
    ...(isDisproof(cause) ? examples.map((example) => `      ${safe(differenceText(example))}`) : []),
  ])
  return `${[head, digest, ...list].join('\n')}\n`
}
