// The candidates of a decision from the parallel arrays of `otel.routing_decisions`: item by item, feature by feature, in one
// shape of object for all, because there are fourteen features to each candidate and several candidates to each row.
import type { DecisionRecord, Exclusion, Features } from '../../router/policy/record.ts'
import { columnFeatures } from '../../router/policy/sql-columns.ts'
import {
  type Block,
  boundsOf,
  type Column,
  columnOf,
  type Numbers,
  numberAt,
  type Texts,
  textAt,
  unexpected,
} from './native.ts'

/** How many different texts of extra features are kept parsed while a block is read. */
const extrasKeptMax = 10_000

type NumericFeature = Exclude<keyof typeof columnFeatures, 'provider' | 'breaker'>
const numericFeatures = Object.entries(columnFeatures)
  .filter(([, type]) => type === 'double')
  .map(([name]) => name as NumericFeature)

/** The features with a column of their own, all or those that somebody will look at; the others are read as unknown. */
export type ReadFeatures = ReadonlySet<string>
export const allFeatures: ReadFeatures = new Set(Object.keys(columnFeatures))

/** The columns beside `candidates.extra` that candidates are made of. */
export const candidateColumns = (features: ReadFeatures): readonly string[] => [
  ...['model', 'eligible', 'exclusion', 'unknown', 'score', 'probability'],
  ...[...allFeatures].filter((name) => features.has(name)),
]

/** Reads the candidates of a row. */
export const candidateReader = (
  block: Block,
  features: ReadFeatures,
): ((row: number) => DecisionRecord['candidates']) => {
  const { ends } = columnOf(block, 'candidates.model', 'array')
  const items = <Kind extends 'text' | 'number'>(name: string, kind: Kind): Extract<Column, { kind: Kind }> => {
    const found = columnOf(block, `candidates.${name}`, 'array')
    const total = (of: ArrayLike<number>): number => (of.length === 0 ? 0 : (of[of.length - 1] as number))
    if (found.items.kind !== kind || total(found.ends) !== total(ends))
      throw unexpected(`column candidates.${name} does not stand beside candidates.model, item by item, as ${kind}`)
    return found.items as Extract<Column, { kind: Kind }>
  }
  const model = items('model', 'text')
  const [eligible, probability] = [items('eligible', 'number').values, items('probability', 'number').values]
  const [exclusion, unknown, score] = [items('exclusion', 'text'), items('unknown', 'text'), items('score', 'number')]
  const featuresOf = featureReader(items, features)
  const [inputTokens, outputTokensMax] = [
    columnOf(block, 'request_input_tokens', 'number'),
    columnOf(block, 'request_output_tokens_max', 'number'),
  ]
  const neededAt = (row: number): number => (numberAt(inputTokens, row) ?? 0) + (numberAt(outputTokensMax, row) ?? 0)
  return (row) => {
    const candidates: DecisionRecord['candidates'] = []
    const [from, end] = boundsOf(ends, row)
    for (let at = from; at < end; at += 1) {
      const features = featuresOf(at)
      const excluded = textAt(exclusion, at)
      candidates.push({
        model: textAt(model, at),
        eligible: eligible[at] === 1,
        exclusion: excluded === '' ? null : exclusionOf(excluded, textAt(unknown, at), neededAt(row), features),
        score: numberAt(score, at),
        probability: probability[at] as number,
        features,
      })
    }
    return candidates
  }
}

const exclusionOf = (text: string, feature: string, neededTokens: number, features: Features): Exclusion => {
  if (text.startsWith('rule:')) return { kind: 'rule', name: text.slice('rule:'.length) }
  const kind = text as Exclude<Exclusion['kind'], 'rule'>
  switch (kind) {
    case 'feature-unknown':
      return { kind, feature }
    case 'context-window':
      return { kind, needed_tokens: neededTokens, tokens_max: features.context_tokens_max as number }
    case 'not-requested':
    case 'not-in-policy':
    case 'breaker-open':
    case 'score-not-finite':
      return { kind }
  }
  throw unexpected(`an exclusion: found '${text.slice(0, 100)}'`)
}

type Items = <Kind extends 'text' | 'number'>(name: string, kind: Kind) => Extract<Column, { kind: Kind }>

const featureReader = (
  items: Items,
  wanted: ReadFeatures,
): ((at: number) => DecisionRecord['candidates'][number]['features']) => {
  const text = (name: string): Texts | null => (wanted.has(name) ? items(name, 'text') : null)
  const [provider, breaker, extra] = [text('provider'), text('breaker'), items('extra', 'text')]
  const extras = new Map<string, Features>()
  const extrasOf = (text: string): Features => {
    const parsed = extras.get(text) ?? jsonOf(text)
    if (extras.size < extrasKeptMax) extras.set(text, parsed)
    return parsed
  }
  const of = Object.fromEntries(
    numericFeatures.map((name) => [name, wanted.has(name) ? items(name, 'number') : null]),
  ) as Record<NumericFeature, Numbers | null>
  const number = (column: Numbers | null, at: number): number | null => (column === null ? null : numberAt(column, at))
  return (at) => {
    const features = {
      provider: provider === null ? null : textAt(provider, at),
      context_tokens_max: number(of.context_tokens_max, at),
      input_usd_per_mtok: number(of.input_usd_per_mtok, at),
      output_usd_per_mtok: number(of.output_usd_per_mtok, at),
      cost_usd: number(of.cost_usd, at),
      quality: number(of.quality, at),
      output_tokens_expected: number(of.output_tokens_expected, at),
      ttft_ms: number(of.ttft_ms, at),
      tokens_per_s: number(of.tokens_per_s, at),
      latency_ms: number(of.latency_ms, at),
      error_rate: number(of.error_rate, at),
      samples: number(of.samples, at),
      in_flight: number(of.in_flight, at),
      breaker: breaker === null ? null : textAt(breaker, at),
    } satisfies Record<keyof typeof columnFeatures, string | number | null>
    const more = textAt(extra, at)
    return more === '' ? features : { ...features, ...extrasOf(more) }
  }
}

const jsonOf = (text: string): Features => {
  try {
    return JSON.parse(text) as Features
  } catch (error) {
    throw unexpected(`candidates.extra: not JSON: ${(error as Error).message}`)
  }
}
