// What the operators and functions of the policy language compute in JavaScript, by name; sql-text.ts has their SQL. They take
// any value of their type and never throw: a division by zero is not finite, and NaN is neither above nor below anything.

type Scalar = number | string | boolean

export const arithmetic = {
  '+': (a: number, b: number) => a + b,
  '-': (a: number, b: number) => a - b,
  '*': (a: number, b: number) => a * b,
  '/': (a: number, b: number) => a / b,
  '%': (a: number, b: number) => a % b,
} as const
export const comparison = {
  '<': (a: Scalar, b: Scalar) => a < b,
  '<=': (a: Scalar, b: Scalar) => a <= b,
  '>': (a: Scalar, b: Scalar) => a > b,
  '>=': (a: Scalar, b: Scalar) => a >= b,
} as const
export const equality = { '==': (a: Scalar, b: Scalar) => a === b, '!=': (a: Scalar, b: Scalar) => a !== b } as const

export const textMethods = {
  startsWith: (text: string, part: string) => text.startsWith(part),
  endsWith: (text: string, part: string) => text.endsWith(part),
  contains: (text: string, part: string) => text.includes(part),
} as const
export const mathFunctions = { greatest: Math.max, least: Math.min } as const
