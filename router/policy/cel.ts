// CEL, type-checked and compiled in one pass over the parser's syntax tree. Numbers are doubles and integer literals
// widen, so nobody is bitten by CEL's int/double split. Every expression is total: an absent tag reads as '', a division
// by zero is not finite, and an unknown feature (null) is reported beforehand through `needs`. That makes an expression
// mean the same as a JavaScript closure here and as SQL, and leaves nothing that can throw while a request waits.
import type { ASTNode } from '@marcbachmann/cel-js'
import { arithmetic, comparison, equality, mathFunctions, type Tags, tagOf, textMethods } from './cel-operators.ts'
import { CelError, parseCel } from './cel-parse.ts'
import { featureReader, unknownFinder, unknownValue } from './features.ts'
import type { Context, Features } from './record.ts'
import {
  declineRemainder,
  type SqlNames,
  sqlConcat,
  sqlExtreme,
  sqlIncludes,
  sqlNumber,
  sqlSize,
  sqlString,
  sqlTextOrder,
  sqlTextTest,
  withinLimit,
} from './sql-text.ts'

export type CelType = 'double' | 'string' | 'bool' | 'map' | 'list<double>' | 'list<string>'
/** The features that expressions may read as `candidate.<name>`, with their types. */
export type FeatureTypes = Readonly<Record<string, 'double' | 'string' | 'bool'>>

/** What an expression is evaluated over; `model` and `features` are absent where only the request is known. */
export type Scope = { readonly context: Context; readonly model: string; readonly features: Features }
type Value = number | string | boolean | readonly (number | string)[] | Tags
/** `sql` means what `run` does, over the columns of a row; it throws SqlDeclined where SQL has no equal. */
type Compiled = {
  readonly type: CelType
  readonly run: (scope: Scope) => Value
  readonly sql: (names: SqlNames) => string
}

type NumberOf = (scope: Scope) => number
type ScalarOf = (scope: Scope) => number | string | boolean

/** A checked expression: `run` never throws, given that every feature it needs is known; `unknownOf` names one that is not. */
export type Expression = Compiled & {
  readonly needs: readonly string[]
  readonly unknownOf: (features: Features) => string | null
  /** All that it looks at. */
  readonly reads: readonly string[]
}

const requestTypes: Readonly<Record<string, CelType>> = {
  model: 'string',
  input_tokens: 'double',
  output_tokens_max: 'double',
  stream: 'bool',
  tier: 'string',
  tenant: 'string',
  user: 'string',
  session: 'string',
  tags: 'map',
}

/** `needs` are the features read, `guarded` those that the expression itself asks about with `has(…)`. */
type Compiler = {
  readonly features: FeatureTypes | null
  readonly needs: Set<string>
  readonly guarded: Set<string>
}

/** An operation on `parts`: `run` computes it, `sql` spells it from the SQL of the parts. */
const operation = (
  type: CelType,
  parts: readonly Compiled[],
  run: Compiled['run'],
  sql: (...parts: string[]) => string,
): Compiled => ({ type, run, sql: (names) => withinLimit(sql(...parts.map((part) => part.sql(names)))) })

const fail = (node: ASTNode, message: string): never => {
  throw new CelError(`column ${node.start + 1}: ${message}`)
}

const names = (of: object): string => Object.keys(of).sort().join(', ')

const requestField = (node: ASTNode, field: string): Compiled => {
  const type = requestTypes[field] ?? fail(node, `request has no '${field}'; it has: ${names(requestTypes)}`)
  const sql = ({ request }: SqlNames) => request(field)
  if (field === 'session') return { type, run: ({ context }) => context.session, sql }
  if (field === 'output_tokens_max') return { type, run: ({ context }) => context.request.output_tokens_max ?? 0, sql }
  const key = field as Exclude<keyof Context['request'], 'output_tokens_max'>
  return { type, run: ({ context }) => context.request[key] as Value, sql }
}

const candidateField = (compiler: Compiler, node: ASTNode, field: string): Compiled => {
  if (!compiler.features) return fail(node, 'candidate cannot be used here: this is asked once per request')
  if (field === 'model') return { type: 'string', run: ({ model }) => model, sql: ({ model }) => model }
  const type = Object.hasOwn(compiler.features, field) ? compiler.features[field] : undefined
  if (!type) return fail(node, `candidate has no '${field}'; it has: model, ${names(compiler.features)}`)
  compiler.needs.add(field)
  const [unknown, read] = [unknownValue[type], featureReader(field)]
  return { type, run: ({ features }) => read(features) ?? unknown, sql: ({ feature }) => feature(field) }
}

const select = (compiler: Compiler, node: ASTNode, [base, field]: [ASTNode, string]): Compiled => {
  if (base.op === 'id' && base.args === 'request') return requestField(node, field)
  if (base.op === 'id' && base.args === 'candidate') return candidateField(compiler, node, field)
  const object = walk(compiler, base)
  if (object.type !== 'map') return fail(node, `'.${field}' needs a map, found ${object.type}`)
  const run = (scope: Scope) => tagOf(object.run(scope) as Tags, field) ?? ''
  return operation('string', [object], run, (map) => `${map}[${sqlString(field)}]`)
}

const index = (compiler: Compiler, node: ASTNode, [base, key]: [ASTNode, ASTNode]): Compiled => {
  const [object, at] = [walk(compiler, base), walk(compiler, key)]
  if (object.type !== 'map') return fail(node, `'[…]' needs a map, found ${object.type}`)
  if (at.type !== 'string') return fail(key, `a tag's name is a string, found ${at.type}`)
  const run = (scope: Scope) => tagOf(object.run(scope) as Tags, at.run(scope) as string) ?? ''
  return operation('string', [object, at], run, (map, name) => `${map}[${name}]`)
}

const binary = (compiler: Compiler, node: ASTNode, [left, right]: [ASTNode, ASTNode]): Compiled => {
  const [a, b] = [walk(compiler, left), walk(compiler, right)]
  const mismatch = (): never => fail(node, `'${node.op}' cannot take ${a.type} and ${b.type}`)
  const infix = (x: string, y: string) => `(${x} ${node.op === '==' ? '=' : node.op} ${y})`
  if (node.op in arithmetic) {
    if (node.op === '+' && a.type === 'string' && b.type === 'string')
      return operation('string', [a, b], (scope) => (a.run(scope) as string) + (b.run(scope) as string), sqlConcat)
    if (a.type !== 'double' || b.type !== 'double') return mismatch()
    const run = arithmetic[node.op as keyof typeof arithmetic](a.run as NumberOf, b.run as NumberOf)
    return operation('double', [a, b], run, node.op === '%' ? declineRemainder : infix)
  }
  const scalar = a.type === b.type && (a.type === 'double' || a.type === 'string' || a.type === 'bool')
  if (!scalar || (node.op in comparison && a.type === 'bool')) return mismatch()
  const test = { ...comparison, ...equality }[node.op as keyof typeof comparison | keyof typeof equality]
  const literals = [left, right].map(({ op, args }) => (op === 'value' ? args : null))
  const inOrder = (x: string, y: string) => sqlTextOrder(node.op, x, y, literals)
  const sql = a.type === 'string' && node.op in comparison ? inOrder : infix
  return operation('bool', [a, b], test(a.run as ScalarOf, b.run as ScalarOf), sql)
}

const membership = (compiler: Compiler, node: ASTNode, [left, right]: [ASTNode, ASTNode]): Compiled => {
  const [item, container] = [walk(compiler, left), walk(compiler, right)]
  if (container.type === 'map' && item.type === 'string')
    return operation(
      'bool',
      [container, item],
      (scope) => tagOf(container.run(scope) as Tags, item.run(scope) as string) !== undefined,
      (map, name) => `mapContains(${map}, ${name})`,
    )
  if (container.type === `list<${item.type}>`)
    return operation(
      'bool',
      [container, item],
      (scope) => (container.run(scope) as readonly (string | number)[]).includes(item.run(scope) as string),
      (values, value) => sqlIncludes(values, value, item.type),
    )
  return fail(node, `'in' cannot look for ${item.type} in ${container.type}`)
}

const logic = (compiler: Compiler, node: ASTNode, args: [ASTNode, ASTNode]): Compiled => {
  const [a, b] = args.map((side) => {
    const compiled = walk(compiler, side)
    return compiled.type === 'bool' ? compiled : fail(side, `'${node.op}' needs bool, found ${compiled.type}`)
  }) as [Compiled, Compiled]
  const both = (scope: Scope) => (a.run(scope) as boolean) && (b.run(scope) as boolean)
  const either = (scope: Scope) => (a.run(scope) as boolean) || (b.run(scope) as boolean)
  if (node.op === '&&') return operation('bool', [a, b], both, (x, y) => `(${x} AND ${y})`)
  return operation('bool', [a, b], either, (x, y) => `(${x} OR ${y})`)
}

const unary = (compiler: Compiler, node: ASTNode, arg: ASTNode): Compiled => {
  const compiled = walk(compiler, arg)
  const wanted = node.op === '!_' ? 'bool' : 'double'
  if (compiled.type !== wanted) return fail(node, `'${node.op[0]}' needs ${wanted}, found ${compiled.type}`)
  if (wanted === 'bool')
    return operation(
      'bool',
      [compiled],
      (scope) => !compiled.run(scope),
      (x) => `(NOT ${x})`,
    )
  return operation(
    'double',
    [compiled],
    (scope) => -(compiled.run(scope) as number),
    (x) => `(-${x})`,
  )
}

const conditional = (compiler: Compiler, node: ASTNode, args: [ASTNode, ASTNode, ASTNode]): Compiled => {
  const [test, yes, no] = args.map((arg) => walk(compiler, arg)) as [Compiled, Compiled, Compiled]
  if (test.type !== 'bool') return fail(node, `the condition of '?:' is bool, found ${test.type}`)
  if (yes.type !== no.type) return fail(node, `the branches of '?:' differ: ${yes.type} and ${no.type}`)
  const run = (scope: Scope) => (test.run(scope) ? yes.run(scope) : no.run(scope))
  return operation(yes.type, [test, yes, no], run, (...parts) => `if(${parts.join(', ')})`)
}

const list = (compiler: Compiler, node: ASTNode, args: ASTNode[]): Compiled => {
  const items = args.map((arg) => walk(compiler, arg))
  const type = items[0]?.type
  if ((type !== 'double' && type !== 'string') || items.some((item) => item.type !== type))
    return fail(node, 'a list holds one or more numbers, or one or more strings')
  const run = (scope: Scope) => items.map((item) => item.run(scope) as string | number)
  return operation(`list<${type}>`, items, run, (...parts) => `[${parts.join(', ')}]`)
}

const method = (compiler: Compiler, node: ASTNode, [name, base, args]: [string, ASTNode, ASTNode[]]): Compiled => {
  if (base.op === 'id' && base.args === 'math') {
    const compute = Object.hasOwn(mathFunctions, name) ? mathFunctions[name as 'least'] : undefined
    const items = args.map((arg) => walk(compiler, arg))
    if (!compute || items.length === 0 || items.some((item) => item.type !== 'double'))
      return fail(node, 'math has greatest(…) and least(…), of one or more numbers')
    const run = (scope: Scope) => compute(...items.map((item) => item.run(scope) as number))
    return operation('double', items, run, (...parts) => sqlExtreme(name as 'least', parts))
  }
  const test = Object.hasOwn(textMethods, name) ? textMethods[name as 'contains'] : undefined
  if (!test) return fail(node, `there is no method '${name}'; there are: ${names(textMethods)}`)
  const [text, part] = [walk(compiler, base), args[0] ? walk(compiler, args[0]) : undefined]
  if (text.type !== 'string' || part?.type !== 'string' || args.length !== 1)
    return fail(node, `'${name}' is asked of a string with one string`)
  const run = (scope: Scope) => test(text.run(scope) as string, part.run(scope) as string)
  return operation('bool', [text, part], run, (whole, piece) => sqlTextTest(name as 'contains', whole, piece))
}

const call = (compiler: Compiler, node: ASTNode, [name, args]: [string, ASTNode[]]): Compiled => {
  const [arg] = args
  if (name === 'has' && arg?.op === '.' && arg.args[0].op === 'id' && arg.args[0].args === 'candidate') {
    const field = arg.args[1]
    candidateField(compiler, arg, field)
    compiler.guarded.add(field)
    const read = featureReader(field)
    const run = ({ features }: Scope) => read(features) !== null
    return { type: 'bool', run, sql: ({ known }) => known(field) }
  }
  if (name === 'size' && arg && args.length === 1) {
    const text = walk(compiler, arg)
    if (text.type === 'string')
      return operation('double', [text], (scope) => (text.run(scope) as string).length, sqlSize)
  }
  return fail(
    node,
    `there is no function '${name}' of these; there are: has(candidate.x), size(string), math.least, math.greatest`,
  )
}

const literal = (node: ASTNode, value: unknown): Compiled => {
  if (typeof value === 'bigint' || typeof value === 'number') {
    const number = Number(value)
    return { type: 'double', run: () => number, sql: () => sqlNumber(number) }
  }
  if (typeof value === 'string') return { type: 'string', run: () => value, sql: () => sqlString(value) }
  if (typeof value === 'boolean') return { type: 'bool', run: () => value, sql: () => String(value) }
  return fail(node, `a literal is a number, a string or a bool, found ${value === null ? 'null' : typeof value}`)
}

const walk = (compiler: Compiler, node: ASTNode): Compiled => {
  switch (node.op) {
    case 'value':
      return literal(node, node.args)
    case '.':
      return select(compiler, node, node.args)
    case '[]':
      return index(compiler, node, node.args)
    case 'in':
      return membership(compiler, node, node.args)
    case '&&':
    case '||':
      return logic(compiler, node, node.args)
    case '!_':
    case '-_':
      return unary(compiler, node, node.args)
    case '?:':
      return conditional(compiler, node, node.args)
    case 'list':
      return list(compiler, node, node.args)
    case 'call':
      return call(compiler, node, node.args)
    case 'rcall':
      return method(compiler, node, node.args)
    case 'id':
      return fail(node, `there is no '${node.args}'; there are request.… and candidate.…`)
    case 'map':
    case '.?':
    case '[?]':
      return fail(node, `'${node.op}' is not part of the policy language`)
    default:
      return binary(compiler, node, node.args)
  }
}

/**
 * Checks and compiles one expression. `features` lists what `candidate` has, or is null where an expression may only look
 * at the request. Throws a CelError that names the column, what was found and what was wanted.
 */
export const compileCel = (source: string, wanted: CelType, features: FeatureTypes | null): Expression => {
  const compiler: Compiler = { features, needs: new Set(), guarded: new Set() }
  const compiled = walk(compiler, parseCel(source))
  if (compiled.type !== wanted) throw new CelError(`column 1: this is ${compiled.type}, wanted ${wanted}`)
  const reads = [...compiler.needs]
  const needs = reads.filter((name) => !compiler.guarded.has(name))
  return { ...compiled, needs, unknownOf: unknownFinder(needs), reads }
}
