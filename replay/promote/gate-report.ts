// What a gate says, for whoever reads it: a terminal, a CI system (JUnit), a pull request (Markdown), a program (JSON). All are
// pure functions of the result. Names come from policy files and logs, so each format escapes everything it is given.
import { metrics } from '../estimate/metrics.ts'
import { figuresOf } from '../report/cells.ts'
import { html, markup } from '../report/markup.ts'
import { remedyText } from '../report/remedies.ts'
import {
  count,
  duration,
  intervalText,
  percent,
  plain,
  refusalText,
  reproducedShare,
  shortHash,
  units,
} from '../report/words.ts'
import type { Replay } from '../run.ts'
import type { Condition, GateResult, RequirementName } from './gate.ts'
import { judgedMetrics } from './gate-file.ts'
import { aligned, clean, linesOf } from './lines.ts'

const remediesShownMax = 3
const hoursPerDay = 24

const titles: Readonly<Record<GateResult['kind'], string>> = {
  promote: 'Promote',
  reject: 'Reject',
  inconclusive: 'Undecided',
  refused: 'No verdict',
}

const nextTexts: Partial<Readonly<Record<GateResult['kind'], string>>> = {
  promote: 'signalbox promote starts the canary',
  reject: 'keep production as it is',
}

const resultOf = ({ metrics: results }: Replay, name: string) => results.find(({ metric }) => metric === name)

/** What a condition asks for, as in `quality at most 0.020 worse`. */
const askedText = (condition: Condition): string => {
  if (condition.kind === 'requirement') return requirementTexts[condition.name](condition.wanted)
  const { metric, role, tolerated } = condition
  return role === 'goal'
    ? `${plain[metric]} better`
    : `${plain[metric]} at most ${metrics[metric].say(tolerated)}${units[metric]} worse`
}

const requirementTexts: Readonly<Record<RequirementName, (wanted: number) => string>> = {
  effective_rows: (rows) => `at least ${count(rows)} effective rows`,
  changed_effective_rows: (rows) => `at least ${count(rows)} effective rows behind what changes`,
  answers: (answers) => `at least ${count(answers)} answers asked anew`,
  window_hours: (hours) => `at least ${duration(hours / hoursPerDay)} of traffic`,
  changed_share_max: (share) => `at most ${percent(share)} of the decisions changed`,
}

/** What was found of it. */
const foundText = ({ replay }: GateResult, condition: Condition): string => {
  if (condition.kind === 'metric') {
    const result = resultOf(replay, condition.metric)
    return result
      ? `difference ${intervalText(condition.metric, result.difference)}${units[condition.metric]}`
      : 'not measured'
  }
  switch (condition.name) {
    case 'window_hours':
      return duration(condition.found / hoursPerDay)
    case 'changed_share_max':
      return percent(condition.found)
    case 'answers':
      return count(condition.found)
    case 'effective_rows':
    case 'changed_effective_rows':
      return Number.isFinite(condition.found) ? count(condition.found) : 'nothing changes'
  }
}

const refusalsOf = ({ kind, replay }: GateResult) => (kind === 'refused' ? replay.verdict.refusals : [])

const words = { held: 'shown', harm: 'harm shown', open: 'not shown' } as const

const because = (result: GateResult): string => {
  const { kind, conditions, replay } = result
  if (kind === 'refused') return replay.verdict.refusals.map(refusalText)[0] ?? 'the evidence may not be used'
  if (kind === 'promote') return `all ${conditions.length} conditions are shown`
  const telling = conditions.filter(({ result: found }) => found === (kind === 'reject' ? 'harm' : 'open'))
  return telling.map((condition) => `${askedText(condition)}: ${words[condition.result]}`).join('; ')
}

/** The verdict in six lines, each a label and a text. */
const verdictLines = (result: GateResult): (readonly [label: string, text: string])[] => {
  const { replay } = result
  const { candidate, production, rows, window, shares, verification, verdict } = replay
  const logged = production.map(({ name, hash }) => `${name} ${shortHash(hash)}`).join(', ') || 'nothing'
  const span = window ? `, ${window.from.slice(0, 16)}Z to ${window.to.slice(0, 16)}Z` : ''
  const remedies = verdict.remedies.slice(0, remediesShownMax).map(remedyText).join(' ')
  return [
    [titles[result.kind], `${candidate.name}: ${because(result)}`],
    ['Candidate', `${candidate.name} ${shortHash(candidate.hash)} against ${logged}`],
    ['Evidence', `${count(rows)} decisions${span}`],
    ['Fidelity', `${reproducedShare(verification)} % of the logged decisions come out the same`],
    [
      'Known from',
      `${percent(shares.observed)} observed, ${percent(shares.estimated)} estimated, ${shares.reexecuted > 0 ? `${percent(shares.reexecuted)} re-executed, ` : ''}${percent(shares.unsupported)} never tried`,
    ],
    ['Next', nextTexts[result.kind] ?? (remedies || 'keep production, and replay again when there is more traffic')],
  ]
}

const table = ({ replay, gate }: GateResult): string[][] =>
  judgedMetrics(gate).flatMap((metric) => {
    const result = resultOf(replay, metric)
    if (!result || result.rows === 0) return []
    const { production, candidate, difference, interval } = figuresOf(replay, result)
    return [[metrics[metric].title, production, candidate, difference, interval]]
  })
const columns = ['per request', 'production', 'candidate', 'difference', '95 % interval']

export const gateText = (result: GateResult): string => {
  const marks = { held: '✓', harm: '✗', open: '?' } as const
  const conditions = result.conditions.map(
    (condition) => `${marks[condition.result]} ${askedText(condition)} (${foundText(result, condition)})`,
  )
  const refusals = refusalsOf(result).map((refusal) => `✗ ${refusalText(refusal)}`)
  const lines = verdictLines(result).map(([label, text]) => `${label.padEnd(10)}  ${text}`)
  return linesOf([...lines, '', ...aligned([columns, ...table(result)]), '', ...conditions, ...refusals])
}

/** As entities, so that no name can open a tag, a link, an emphasis, a table cell or a mention, or be taken for an address. */
const escapeMarkdown = (text: string): string =>
  clean(text).replace(/[\\`*_{}[\]<>()#!|~&@]|:(?=\/\/)|(?<=www)\./gi, (character) => `&#${character.codePointAt(0)};`)

/** Six lines and a table with intervals, for a CI step's summary or a comment. */
export const gateMarkdown = (result: GateResult): string => {
  const row = (cells: readonly string[]) => `| ${cells.map(escapeMarkdown).join(' | ')} |`
  const [[title, text] = ['', ''], ...rest] = verdictLines(result)
  const lines = [
    `**${escapeMarkdown(title)}** ${escapeMarkdown(text)}`,
    ...rest.map(([label, said]) => `${label}: ${escapeMarkdown(said)}`),
  ]
  const conditions = result.conditions.map((condition) =>
    row([askedText(condition), words[condition.result], foundText(result, condition)]),
  )
  return [
    lines.join('  \n'),
    [row(columns), '| --- | ---: | ---: | ---: | ---: |', ...table(result).map(row)].join('\n'),
    ...(conditions.length > 0
      ? [['| condition | result | found |', '| --- | --- | --- |', ...conditions].join('\n')]
      : []),
  ]
    .map((part) => `${part}\n`)
    .join('\n')
}

/**
 * JUnit XML as CI systems read it: a test case per condition, harm and what is not shown as failures, and a refusal as an
 * error, because nothing was tested then.
 */
export const gateJunit = (result: GateResult): string => {
  const { replay, conditions, kind } = result
  const suite = clean(`gate ${replay.candidate.name}`)
  const named = (name: string) => ({ name: clean(name), suite })
  const cases = conditions.map((condition) => {
    const { name } = named(askedText(condition))
    if (condition.result === 'held') return html`    <testcase classname="${suite}" name="${name}"/>\n`
    const message = clean(`${words[condition.result]}: ${foundText(result, condition)}`)
    return html`    <testcase classname="${suite}" name="${name}"><failure type="${condition.result}" message="${message}"/></testcase>\n`
  })
  const errors = refusalsOf(result).map(
    (refusal) =>
      html`    <testcase classname="${suite}" name="evidence"><error type="${refusal.kind}" message="${clean(refusalText(refusal))}"/></testcase>\n`,
  )
  const failures = conditions.filter(({ result: found }) => found !== 'held').length
  const counts = markup(`tests="${cases.length + errors.length}" failures="${failures}" errors="${errors.length}"`)
  return html`<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="signalbox replay gate" ${counts}>
  <testsuite name="${suite}" ${counts} skipped="0">
    <properties><property name="verdict" value="${kind}"/><property name="candidate" value="${clean(replay.candidate.hash)}"/><property name="rows" value="${replay.rows}"/></properties>
${cases}${errors}  </testsuite>
</testsuites>
`.markup
}

/** The result as data: what `--json` prints and what is kept of a replay in `otel.replay_runs`. */
export const gateSummary = ({ kind, exitCode, conditions, gate, replay }: GateResult) => {
  const { candidate, production, rows, clusters, window, shares, verification, verdict } = replay
  return {
    v: 1 as const,
    verdict: kind,
    exit_code: exitCode,
    candidate,
    production: { name: production[0]?.name ?? '', hash: production[0]?.hash ?? '' },
    rows,
    clusters,
    window: window && { from: window.from, to: window.to },
    shares,
    fidelity: { records: verification.records, reproduced: verification.reproduced },
    gate,
    conditions,
    metrics: replay.metrics
      .filter((result) => result.rows > 0)
      .map(({ metric, production: before, candidate: after, difference }) => ({
        metric,
        production: before.value,
        candidate: after.value,
        difference: { value: difference.value, low: difference.low, high: difference.high },
      })),
    refusals: verdict.refusals,
    remedies: verdict.remedies.map(remedyText),
  }
}
export type GateSummary = ReturnType<typeof gateSummary>
