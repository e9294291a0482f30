// What the SQL of a policy is written with: the columns of `otel.routing_decisions` that a policy may look at, lambdas over the
// candidates of a row, draws, and the columns that are added layer by layer. Everything here only spells; nothing decides.
import type { FeatureTypes } from './cel.ts'
import type { Per } from './choose.ts'
import { SqlDeclined, type SqlNames, sqlString } from './sql-text.ts'

/** The features that have a column `candidates.<name>` of their own; all others stand in `candidates.extra` as JSON. */
export const columnFeatures = {
  provider: 'string',
  breaker: 'string',
  context_tokens_max: 'double',
  input_usd_per_mtok: 'double',
  output_usd_per_mtok: 'double',
  cost_usd: 'double',
  quality: 'double',
  output_tokens_expected: 'double',
  ttft_ms: 'double',
  tokens_per_s: 'double',
  latency_ms: 'double',
  error_rate: 'double',
  samples: 'double',
  in_flight: 'double',
} as const satisfies FeatureTypes

/** A judgement as columns: their names, and the first layer in which they can be used. */
export type Judged = {
  readonly layer: number
  readonly chosen: string
  readonly probabilities: string
  readonly scores: string
  readonly exclusions: string
  /** Array(UInt8): 1 where a candidate is eligible. */
  readonly open: string
}

export type Compiler = {
  readonly policyHash: string
  readonly features: FeatureTypes
  /** Adds a column to a layer; gives its name. */
  readonly column: (layer: number, what: string, sql: string) => string
  /** A number for each node, so that names are unique. */
  readonly number: () => number
  readonly names: SqlNames
  readonly own: { readonly id: string; readonly models: string; readonly pinned: string; readonly tokens: string }
}

const requestColumns: Readonly<Record<string, string>> = {
  model: 'requested_model',
  input_tokens: 'request_input_tokens',
  output_tokens_max: 'ifNull(request_output_tokens_max, 0)',
}

/** Within a lambda over the candidates, `c_cost_usd` is the feature of one of them. */
export const namesOf = (features: FeatureTypes): SqlNames => ({
  request: (field) => requestColumns[field] ?? field,
  model: 'c_model',
  feature: (name) => {
    if (isTextColumn(name)) return `c_${name}`
    const unknown = { double: 'nan', string: "''", bool: 'false' }[features[name] ?? 'double']
    return `ifNull(c_${name}, ${unknown})`
  },
  known: (name) => (isTextColumn(name) ? `(c_${name} != '')` : `isNotNull(c_${name})`),
})

const isTextColumn = (name: string): boolean => name === 'provider' || name === 'breaker'
const isColumnFeature = (name: string): name is keyof typeof columnFeatures => Object.hasOwn(columnFeatures, name)

/** The array that holds a feature of all candidates of a row. */
const arrayOf = ({ features, column }: Compiler, name: string): string => {
  const type = features[name] ?? 'double'
  if (isColumnFeature(name)) {
    if (type === columnFeatures[name]) return `\`candidates.${name}\``
    throw new SqlDeclined(`candidate.${name} as ${type}: its column holds ${columnFeatures[name]}`)
  }
  const wanted = { double: 'Float64', string: 'String', bool: 'Bool' }[type]
  const value = `JSONExtract(x, ${sqlString(name)}, 'Nullable(${wanted})')`
  return column(0, `feature_${name}`, `arrayMap(x -> ${value}, \`candidates.extra\`)`)
}

/** A lambda over the candidates of a row, which sees these features and arrays. */
export const overCandidates = (
  compiler: Compiler,
  features: Iterable<string>,
  arrays: Readonly<Record<string, string>>,
  sql: string,
): string => {
  const names = [...new Set(features)]
  const parameters = ['c_model', ...names.map((name) => `c_${name}`), ...Object.keys(arrays)]
  const columns = [compiler.own.models, ...names.map((name) => arrayOf(compiler, name)), ...Object.values(arrays)]
  return `arrayMap((${parameters.join(', ')}) ->\n        ${sql},\n      ${columns.join(', ')})`
}

/** A draw as in chance.ts, by the same key. */
export const drawSql = ({ policyHash, own }: Compiler, per: Per, stream: string): string => {
  const key = per === 'request' ? own.id : `if(${per} = '', ${own.id}, ${per})`
  return `bitShiftRight(xxHash64(concat(${key}, ${sqlString(`|${policyHash}|${stream}`)})), 11) / 9007199254740992`
}

/**
 * The place in which a draw falls among probabilities, the first being 1: the first whose sum with those before it is above the
 * draw, which is never one of probability 0; the last above 0 where rounding leaves the whole sum below the draw.
 */
export const pickSql = (probabilities: string, draw: string): string =>
  `coalesce(nullIf(arrayFirstIndex(u -> u > ${draw}, arrayCumSum(${probabilities})), 0), arrayLastIndex(p -> p > 0, ${probabilities}))`
