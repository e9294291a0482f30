// From the text of an expression to its syntax tree, within limits: what comes out is shallow enough to be walked at every
// decision, and every mistake is a CelError that names its column.
import { type ASTNode, ParseError, parse } from '@marcbachmann/cel-js'

const expressionLengthMax = 4000
const depthMax = 500

export class CelError extends Error {
  readonly code = 'cel-invalid'
}

/** The syntax tree of one expression. Throws a CelError. */
export const parseCel = (source: string): ASTNode => {
  if (source.length > expressionLengthMax)
    throw new CelError(`the expression has ${source.length} characters; the limit is ${expressionLengthMax}`)
  try {
    return limited(parse(source).ast)
  } catch (error) {
    if (error instanceof RangeError) throw new CelError('column 1: the expression is nested too deeply')
    if (!(error instanceof ParseError)) throw error
    throw new CelError(`column ${(error.range?.start ?? 0) + 1}: ${error.summary}`)
  }
}

/** Refuses what would overflow the stack later: an expression is walked once here and then as deep at each decision. */
const limited = (root: ASTNode): ASTNode => {
  let level: unknown[] = [root]
  for (let depth = 0; level.length > 0; depth += 1) {
    if (depth > depthMax) throw new CelError(`column 1: the expression is nested more than ${depthMax} deep`)
    level = level.flatMap((part) => {
      if (Array.isArray(part)) return part as unknown[]
      const args = (part as { args?: unknown } | null)?.args
      return args !== null && typeof args === 'object' ? [args] : []
    })
  }
  return root
}
