// A policy as ClickHouse SQL over rows of `otel.routing_decisions`: the tree that decide.ts walks once per request becomes columns,
// computed for all rows at once. Each layer of common table expressions uses only the layers before it, so that nothing is
// computed twice and the text stays as long as the policy. The result judges as `decide` does; a property test holds the two together.
import type { FeatureTypes } from './cel.ts'
import type { Node } from './decide.ts'
import type { Policy } from './policy.ts'
import { compileBody } from './sql-body.ts'
import { type Compiler, drawSql, type Judged, namesOf, pickSql } from './sql-columns.ts'
import { sqlNumber } from './sql-text.ts'

/** A policy over a source of rows, and the names of the columns that it adds to them. */
export type PolicySql = {
  /** A query for all columns of `source` (what may stand after FROM: a table, its WHERE, a query in parentheses) and these. */
  readonly over: (source: string) => string
  /** String: the first choice, '' where nothing was eligible. */
  readonly chosen: string
  /** Arrays beside `candidates.model`: Float64, Nullable(Float64), Bool. */
  readonly probabilities: string
  readonly scores: string
  readonly eligible: string
  /** Array(String): '' or the exclusion as in `candidates.exclusion`, with `feature-unknown:` telling which. */
  readonly exclusions: string
}

/** Several policies over one source of rows; what they say alike is computed once. */
export type PoliciesSql = Pick<PolicySql, 'over'> & { readonly judged: readonly Omit<PolicySql, 'over'>[] }

/**
 * Compiles a policy. `features` are the types that it was parsed with; `prefix` begins the names of its columns, so that two
 * policies can judge the same rows. Throws SqlDeclined for what has no equal in SQL. Two limits: a text feature that is ''
 * counts as unknown, and ties between model names with characters beyond U+FFFF may break otherwise.
 */
export const compilePolicySql = (policy: Policy, features: FeatureTypes, prefix = 'policy'): PolicySql => {
  const columns = startColumns()
  return { over: columns.over(prefix), ...compileInto(columns, policy, features, prefix) }
}

/** Compiles policies that judge the same rows, each as `compilePolicySql` would; throws like it. */
export const compilePoliciesSql = (
  policies: readonly Policy[],
  features: FeatureTypes,
  prefix = 'policy',
): PoliciesSql => {
  const columns = startColumns()
  const judged = policies.map((policy, at) => compileInto(columns, policy, features, `${prefix}${at}`))
  return { over: columns.over(prefix), judged }
}

/** Columns by layer. What was written before, in that layer or an earlier one, keeps its first name. */
const startColumns = () => {
  const layers: string[][] = []
  const known = new Map<string, { readonly layer: number; readonly name: string }>()
  const add = (layer: number, name: string, sql: string): string => {
    const before = known.get(sql)
    if (before && before.layer <= layer) return before.name
    while (layers.length <= layer) layers.push([])
    layers[layer]?.push(`${sql} AS ${name}`)
    known.set(sql, { layer, name })
    return name
  }
  const over = (prefix: string) => (source: string) => {
    if (layers.length === 0) return `SELECT * FROM ${source}`
    const steps = layers.map((columns, at) => {
      const from = at === 0 ? source : `${prefix}_layer_${at - 1}`
      const sql = columns.length === 0 ? '' : `,\n    ${columns.join(',\n    ')}`
      return `${prefix}_layer_${at} AS (\n  SELECT *${sql}\n  FROM ${from}\n)`
    })
    return `WITH ${steps.join(', ')}\nSELECT * FROM ${prefix}_layer_${layers.length - 1}`
  }
  return { add, over }
}

const compileInto = (
  { add }: ReturnType<typeof startColumns>,
  policy: Policy,
  features: FeatureTypes,
  prefix: string,
): Omit<PolicySql, 'over'> => {
  if (!/^[a-z]\w*$/.test(prefix)) throw new RangeError(`a prefix is a word in lower case, found '${prefix}'`)
  const column = (layer: number, what: string, sql: string): string => add(layer, `${prefix}_${what}`, sql)
  let numbered = 0
  const compiler: Compiler = {
    policyHash: policy.hash,
    features,
    column,
    number: () => ++numbered,
    names: namesOf(features),
    own: {
      id: column(0, 'id', "ifNull(JSONExtractString(irregular, 'id'), toString(decision_id))"),
      models: column(0, 'models', "CAST(`candidates.model`, 'Array(String)')"),
      pinned: column(0, 'pinned', 'has(`candidates.model`, requested_model)'),
      tokens: column(0, 'tokens', 'request_input_tokens + ifNull(request_output_tokens_max, 0)'),
    },
  }
  const { layer, ...judged } = compileNode(compiler, policy.root, '')
  return {
    chosen: column(layer, 'chosen', judged.chosen),
    probabilities: column(layer, 'probabilities', judged.probabilities),
    scores: column(layer, 'scores', judged.scores),
    exclusions: column(layer, 'exclusions', judged.exclusions),
    eligible: column(layer, 'eligible', `arrayMap(o -> toBool(o), ${judged.open})`),
  }
}

const compileNode = (compiler: Compiler, node: Node, at: string): Judged => {
  switch (node.kind) {
    case 'body':
      return compileBody(compiler, node, at)
    case 'rules':
      return compileRules(compiler, node, at)
    case 'split':
      return compileSplit(compiler, node, at)
  }
}

type Part = Exclude<keyof Judged, 'layer'>

const compileRules = (compiler: Compiler, { rules }: Extract<Node, { kind: 'rules' }>, at: string): Judged => {
  const number = compiler.number()
  const judged = rules.map((rule) => compileNode(compiler, rule.use, `${at}/rule:${rule.name}`))
  const layer = Math.max(...judged.map((one) => one.layer))
  const tests = rules.flatMap(({ when }) => (when ? [when.sql(compiler.names)] : []))
  const first = (what: Part): string => {
    const values = judged.map((one) => one[what])
    return compiler.column(layer, `${number}_${what}`, firstOf(tests, values))
  }
  return {
    layer: layer + 1,
    chosen: first('chosen'),
    probabilities: first('probabilities'),
    scores: first('scores'),
    exclusions: first('exclusions'),
    open: first('open'),
  }
}

/** The value of the first test that holds, or the last value. */
const firstOf = (tests: readonly string[], values: readonly string[]): string =>
  tests.length === 0
    ? (values[0] as string)
    : `multiIf(${tests.map((test, at) => `${test}, ${values[at]}`).join(', ')}, ${values.at(-1)})`

/** The shares pass on from arms that serve nothing; probabilities sum over the arms, the drawn arm gives the rest. */
const compileSplit = (compiler: Compiler, { per, arms }: Extract<Node, { kind: 'split' }>, at: string): Judged => {
  const number = compiler.number()
  const judged = arms.map((arm) => compileNode(compiler, arm.use, `${at}/arm:${arm.name}`))
  const layer = Math.max(...judged.map((one) => one.layer))
  const column = (after: number, what: string, sql: string) => compiler.column(layer + after, `${number}_${what}`, sql)
  const stated = arms.map((arm) => sqlNumber(arm.share))
  const serving = judged.map(({ chosen }, a) => `if(${chosen} = '', 0.0, ${stated[a]})`).join(', ')
  const served = column(0, 'served', `[${serving}]`)
  const total = column(1, 'served_total', `arraySum(${served})`)
  const shares = stated.map((share, a) =>
    column(2, `share_${a + 1}`, `if(${total} > 0, ${served}[${a + 1}] / ${total}, ${share})`),
  )
  const draw = column(2, 'draw', drawSql(compiler, per, `split:${at}`))
  const arm = column(3, 'arm', pickSql(`[${shares.join(', ')}]`, draw))
  const tests = arms.slice(1).map((_, a) => `${arm} = ${a + 1}`)
  const of = (what: Part) => judged.map((one) => one[what])
  const each = (letter: string) => arms.map((_, a) => `${letter}${a + 1}`)
  const overArms = (what: Part, sql: string) => `arrayMap((${each('x').join(', ')}) -> ${sql}, ${of(what).join(', ')})`
  const isOpen = each('x').map((x, a) => `${x} AND ${shares[a]} > 0`)
  const sum = each('x').map((x, a) => `${shares[a]} * ${x}`)
  const open = column(4, 'open', overArms('open', isOpen.join(' OR ')))
  const texts = `arrayMap((o, ${each('x').join(', ')}) -> if(o, '', ${firstOf(tests, each('x'))}), ${[open, ...of('exclusions')].join(', ')})`
  return {
    layer: layer + 6,
    chosen: column(4, 'chosen', firstOf(tests, of('chosen'))),
    scores: column(4, 'scores', firstOf(tests, of('scores'))),
    probabilities: column(4, 'probabilities', overArms('probabilities', `least(1.0, ${sum.join(' + ')})`)),
    open,
    exclusions: column(5, 'exclusions', texts),
  }
}
