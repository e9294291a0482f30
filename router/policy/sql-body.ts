// One strategy as SQL, in the order in which decide.ts judges: raw scores, exclusions, weights, probabilities, the choice. Each
// is a column over the one before it; arrays stand beside `candidates.model`.
import type { Expression } from './cel.ts'
import type { Body } from './decide.ts'
import { type Compiler, drawSql, type Judged, overCandidates, pickSql } from './sql-columns.ts'
import { sqlNumber, sqlString } from './sql-text.ts'

/** Adds the columns of one strategy; `at` is where it stands in the policy, which names its draws. */
export const compileBody = (compiler: Compiler, body: Body, at: string): Judged => {
  const number = compiler.number()
  const column: Column = (layer, what, sql) => compiler.column(layer, `${number}_${what}`, sql)
  const score = column(1, 'score', rawScores(compiler, body))
  const reasons = reasonsOf(compiler, body)
  const codes = column(2, 'codes', codesOf(compiler, body, reasons, score))
  const open = column(3, 'open', `arrayMap(x -> x = 0, ${codes})`)
  const texts = reasons.map(([, reason]) => sqlString(reason)).join(', ')
  const exclusions = column(3, 'exclusions', `arrayMap(x -> ['', ${texts}][x + 1], ${codes})`)
  const scores = column(4, 'scores', `arrayMap((s, o) -> if(o AND isFinite(s), s, NULL), ${score}, ${open})`)
  const count = column(4, 'count', `countEqual(${codes}, 0)`)
  const only = column(4, 'first', `arrayFirst((m, o) -> o, ${compiler.own.models}, ${open})`)
  const rate = body.explore && column(5, 'rate', rateOf(compiler, body.explore, count))
  const { layer, weights, chosen } = weigh(compiler, body, column, { score, open, count, at })
  const share = rate === null ? 'w' : `if(${rate} > 0, (1.0 - ${rate}) * w + ${rate} / ${count}, w)`
  const probabilities = `arrayMap((w, o) -> multiIf(NOT o, 0.0, ${count} = 1, 1.0, ${share}), ${weights}, ${open})`
  return {
    layer: layer + 1,
    open,
    exclusions,
    scores,
    probabilities: column(layer, 'probabilities', probabilities),
    chosen: column(
      layer,
      'chosen',
      `multiIf(${count} <= 1, ${only}, ${explored(compiler, body, { open, count, rate, at })}${chosen})`,
    ),
  }
}

type Column = (layer: number, what: string, sql: string) => string
type Open = { readonly open: string; readonly count: string; readonly at: string }

const known = ({ names }: Compiler, { needs }: Expression): string[] => needs.map((name) => names.known(name))

/** NaN where a feature that the score needs is unknown, or where there is no score. */
const rawScores = (compiler: Compiler, { score }: Body): string => {
  if (!score) return `arrayMap(m -> nan, ${compiler.own.models})`
  const isKnown = known(compiler, score)
  const sql = score.sql(compiler.names)
  return overCandidates(
    compiler,
    score.reads,
    {},
    isKnown.length === 0 ? sql : `if(${isKnown.join(' AND ')}, ${sql}, nan)`,
  )
}

type Reason = readonly [test: string, reason: string]

/** The tests of a candidate and what it is excluded for, in the order of decide.ts; a pinned model needs no score. */
const reasonsOf = ({ names, own }: Compiler, { candidates, filters, score }: Body): Reason[] => {
  const unknown = (expression: Expression, also: string): Reason[] =>
    expression.needs.map((name) => [`${also}NOT ${names.known(name)}`, `feature-unknown:${name}`])
  const listed = candidates && `[${[...candidates].map(sqlString).join(', ')}]`
  const unlisted: Reason[] = listed ? [[`NOT ${own.pinned} AND NOT has(${listed}, c_model)`, 'not-in-policy']] : []
  const unscored: Reason[] = [[`NOT ${own.pinned} AND NOT isFinite(raw)`, 'score-not-finite']]
  return [
    [`${own.pinned} AND c_model != requested_model`, 'not-requested'],
    ...unlisted,
    [`ifNull(${own.tokens} > c_context_tokens_max, false)`, 'context-window'],
    ["c_breaker = 'open'", 'breaker-open'],
    ...filters.flatMap(({ name, test }): Reason[] => [
      ...unknown(test, ''),
      [`NOT ${test.sql(names)}`, `rule:${name}`],
    ]),
    ...(score ? [...unknown(score, `NOT ${own.pinned} AND `), ...unscored] : []),
  ]
}

/** For each candidate the number of the first test that holds, or 0: numbers, because texts would cost more than all else. */
const codesOf = (compiler: Compiler, { filters, score }: Body, reasons: readonly Reason[], scored: string): string => {
  const features = [
    'context_tokens_max',
    'breaker',
    ...filters.flatMap(({ test }) => test.reads),
    ...(score?.needs ?? []),
  ]
  const tests = reasons.map(([test], at) => `${test}, ${at + 1},`).join('\n          ')
  return overCandidates(compiler, features, score ? { raw: scored } : {}, `multiIf(\n          ${tests}\n          0)`)
}

/** Epsilon, raised so that every eligible model has at least the floor; 0 where there is no choice. */
const rateOf = ({ names }: Compiler, explore: NonNullable<Body['explore']>, count: string): string => {
  const rate = `least(1.0, greatest(${sqlNumber(explore.rate)}, ${sqlNumber(explore.floor)} * ${count}))`
  return explore.unless ? `if(${explore.unless.sql(names)}, 0.0, ${rate})` : rate
}

/** The part of the choice that exploration makes: condition and value, for a multiIf. */
const explored = (
  compiler: Compiler,
  { explore }: Body,
  { open, count, rate, at }: Open & { readonly rate: string | null },
): string => {
  if (!explore || rate === null) return ''
  const sorted = `arraySort(arrayFilter((m, o) -> o, ${compiler.own.models}, ${open}))`
  const draw = (stream: string) => drawSql(compiler, explore.per, `${stream}:${at}`)
  return `${draw('explore')} < ${rate}, ${sorted}[1 + toUInt32(floor(${draw('explore-arm')} * ${count}))], `
}

/** The probabilities before exploration, meant where at least two are eligible, and the choice by them. */
const weigh = (
  compiler: Compiler,
  { choose }: Body,
  column: Column,
  { score, open, count, at }: Open & { readonly score: string },
): { readonly layer: number; readonly weights: string; readonly chosen: string } => {
  const { models } = compiler.own
  const extreme = (name: 'arrayMax' | 'arrayMin') =>
    column(4, 'best', `${name}(arrayFilter((s, o) -> o, ${score}, ${open}))`)
  const normalised = (layer: number, odds: string) => {
    const total = column(layer, 'total', `arraySum(${odds})`)
    const share = `if(${total} > 0, w / ${total}, 1.0 / ${count})`
    const weights = column(layer + 1, 'weights', `arrayMap((w, o) -> if(o, ${share}, 0.0), ${odds}, ${open})`)
    const sorted = column(layer + 2, 'sorted', `arraySort((w, m) -> m, ${weights}, ${models})`)
    const draw = column(layer + 2, 'draw', drawSql(compiler, 'per' in choose ? choose.per : 'request', `choose:${at}`))
    const certain = `arrayFirst((m, w) -> w = 1, ${models}, ${weights})`
    const drawn = `arraySort(${models})[${pickSql(sorted, draw)}]`
    return { layer: layer + 3, weights, chosen: `if(has(${weights}, 1.0), ${certain}, ${drawn})` }
  }
  switch (choose.kind) {
    case 'highest':
    case 'lowest': {
      const best = extreme(choose.kind === 'highest' ? 'arrayMax' : 'arrayMin')
      const isBest = `arrayFilter((m, s, o) -> o AND s = ${best}, ${models}, ${score}, ${open})`
      const winner = column(5, 'winner', `arrayMin(${isBest})`)
      return {
        layer: 7,
        weights: column(6, 'weights', `arrayMap(m -> toFloat64(m = ${winner}), ${models})`),
        chosen: winner,
      }
    }
    case 'weighted': {
      const entries = Object.entries(choose.weights)
      const weight = `transform(m, [${entries.map(([model]) => sqlString(model)).join(', ')}], [${entries.map(([, weight]) => sqlNumber(weight)).join(', ')}], 0.0)`
      return normalised(5, column(4, 'odds', `arrayMap((m, o) -> if(o, ${weight}, 0.0), ${models}, ${open})`))
    }
    case 'softmax': {
      const best = extreme('arrayMax')
      const odds = `exp((s - ${best}) / ${sqlNumber(choose.temperature)})`
      return normalised(6, column(5, 'odds', `arrayMap((s, o) -> if(o, ${odds}, 0.0), ${score}, ${open})`))
    }
  }
}
