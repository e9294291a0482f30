// ClickHouse SQL as text: literals that cannot break out, and the operations whose meaning in SQL differs from JavaScript's and
// is brought to it here: NaN, empty needles, UTF-16 lengths. What cannot be brought to it is declined by name.

/** The longest SQL that one expression may become; some operations repeat their operands. */
const expressionSqlMax = 100_000

/** A policy, or a part of it, has no equal in SQL; it decides as ever in JavaScript. */
export class SqlDeclined extends Error {
  readonly code = 'sql-declined'
}

/** How the things that an expression may look at are spelled in SQL. */
export type SqlNames = {
  readonly request: (field: string) => string
  readonly model: string
  /** A feature's value; NaN, '' or false where it is unknown. */
  readonly feature: (name: string) => string
  readonly known: (name: string) => string
}

/** A string literal. */
export const sqlString = (text: string): string =>
  `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'").replaceAll('\0', '\\0')}'`

/** A Float64 literal: with a point or an exponent, as a whole number would be an integer and compute like one. */
export const sqlNumber = (value: number): string => {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? 'nan' : value > 0 ? 'inf' : '-inf'
  const text = Object.is(value, -0) ? '-0' : String(value)
  return /[.e]/.test(text) ? text : `${text}.0`
}

/** A name in backticks. */
export const sqlName = (name: string): string => `\`${name.replaceAll('\\', '\\\\').replaceAll('`', '\\`')}\``

/** The text itself, unless it has grown too long. Throws SqlDeclined. */
export const withinLimit = (sql: string): string => {
  if (sql.length > expressionSqlMax)
    throw new SqlDeclined(`an expression that becomes more than ${expressionSqlMax} characters of SQL`)
  return sql
}

/** `Math.max` and `Math.min`, which are NaN as soon as one operand is; ClickHouse's are only when the last one is. */
export const sqlExtreme = (name: 'greatest' | 'least', operands: readonly string[]): string =>
  operands.reduce((a, b) => withinLimit(`if(isNaN(${a}), ${a}, ${name}(${a}, ${b}))`))

/** `list.includes(item)`, which finds NaN in a list of numbers. */
export const sqlIncludes = (list: string, item: string, type: string): string =>
  type === 'string' ? `has(${list}, ${item})` : `arrayExists(x -> x = ${item} OR isNaN(x) AND isNaN(${item}), ${list})`

/** The length of a text in UTF-16 code units: characters beyond the basic plane count twice. */
export const sqlSize = (text: string): string =>
  `toFloat64(lengthUTF8(${text}) + countMatches(${text}, '[\\\\x{10000}-\\\\x{10FFFF}]'))`

/** `startsWith`, `endsWith` and `includes` of strings. */
export const sqlTextTest = (name: 'startsWith' | 'endsWith' | 'contains', text: string, part: string): string =>
  name === 'contains' ? `(position(${text}, ${part}) > 0)` : `${name}(${text}, ${part})`

/** The texts one after the other. */
export const sqlConcat = (...parts: readonly string[]): string => `concat(${parts.join(', ')})`

/** ClickHouse computes remainders as `a - trunc(a / b) * b`, which is not exact for large numbers. Throws SqlDeclined. */
export const declineRemainder = (): never => {
  throw new SqlDeclined("'%', because its remainders are not exact there")
}

const beforeSurrogates = /^[\0-\uD7FF]*$/

/**
 * Texts by order. JavaScript compares UTF-16 units and ClickHouse bytes, which differ only between characters from U+E000 and those
 * beyond U+FFFF; where one side is a literal without either, they agree. Throws SqlDeclined elsewhere.
 */
export const sqlTextOrder = (operator: string, a: string, b: string, literals: readonly unknown[]): string => {
  if (!literals.some((literal) => typeof literal === 'string' && beforeSurrogates.test(literal)))
    throw new SqlDeclined(`'${operator}' between two strings of which none is a plain literal`)
  return `(${a} ${operator} ${b})`
}
