// What the operators and functions of the policy language compute in JavaScript, by name; sql-text.ts has their SQL. They take
// any value of their type and never throw: a division by zero is not finite, and NaN is neither above nor below anything.

type Scalar = number | string | boolean
/** An operand, as what computes it; an operator makes one of two, and reads nothing else when it runs. */
type Run<Scope, Value> = (scope: Scope) => Value
type Operator<Value, Result> = <Scope>(a: Run<Scope, Value>, b: Run<Scope, Value>) => Run<Scope, Result>

export const arithmetic = {
  '+': (a, b) => (scope) => a(scope) + b(scope),
  '-': (a, b) => (scope) => a(scope) - b(scope),
  '*': (a, b) => (scope) => a(scope) * b(scope),
  '/': (a, b) => (scope) => a(scope) / b(scope),
  '%': (a, b) => (scope) => a(scope) % b(scope),
} as const satisfies Record<string, Operator<number, number>>
export const comparison = {
  '<': (a, b) => (scope) => a(scope) < b(scope),
  '<=': (a, b) => (scope) => a(scope) <= b(scope),
  '>': (a, b) => (scope) => a(scope) > b(scope),
  '>=': (a, b) => (scope) => a(scope) >= b(scope),
} as const satisfies Record<string, Operator<Scalar, boolean>>
export const equality = {
  '==': (a, b) => (scope) => a(scope) === b(scope),
  '!=': (a, b) => (scope) => a(scope) !== b(scope),
} as const satisfies Record<string, Operator<Scalar, boolean>>

export type Tags = Readonly<Record<string, string>>
export const tagOf = (tags: Tags, name: string): string | undefined =>
  Object.hasOwn(tags, name) ? tags[name] : undefined

export const textMethods = {
  startsWith: (text: string, part: string) => text.startsWith(part),
  endsWith: (text: string, part: string) => text.endsWith(part),
  contains: (text: string, part: string) => text.includes(part),
} as const
export const mathFunctions = { greatest: Math.max, least: Math.min } as const
