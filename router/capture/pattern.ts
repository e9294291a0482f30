// A person's own patterns, run in time that grows with the text and not with its cleverness: RE2's syntax and automata (re2js),
// never a backtracking RegExp. A pattern comes from a configuration, but the text comes from anybody.
import { RE2JS } from 're2js'

const patternLengthMax = 500
/**
 * Characters looked at in one go. Searching for *all* matches is quadratic even in RE2 where each attempt reads to the end,
 * so a text is searched in windows of twice this length: a match up to this long is found whole, a longer one in parts.
 */
const windowLength = 1024

export class PatternError extends Error {
  readonly code = 'pattern-invalid'
}

/** Where a pattern matched: [start, end) in UTF-16 units. */
export type Span = { readonly start: number; readonly end: number }

export type LinearPattern = {
  readonly test: (text: string) => boolean
  /** All matches that are not empty, in order, none over another. */
  readonly find: (text: string) => Span[]
}

/**
 * Compiles a pattern in RE2's syntax (no look-around, no back-references). Throws a PatternError that says what is wrong
 * with it, also when it would match nothing at all, which is everywhere.
 */
export const linearPattern = (source: string): LinearPattern => {
  if (source.length > patternLengthMax)
    throw new PatternError(`found ${source.length} characters; wanted at most ${patternLengthMax}`)
  let compiled: RE2JS
  try {
    compiled = RE2JS.compile(source)
  } catch (error) {
    const { message } = error as Error
    throw new PatternError(`found ${source}; wanted a pattern in RE2's syntax (${message})`)
  }
  if (compiled.test('')) throw new PatternError(`found ${source}; wanted a pattern that does not match the empty text`)
  return { test: (text) => compiled.test(text), find: (text) => (compiled.test(text) ? findAll(compiled, text) : []) }
}

const findAll = (compiled: RE2JS, text: string): Span[] => {
  const spans: Span[] = []
  for (let from = 0; from < text.length; ) {
    // One character before the window lets `\b` see what stands there.
    const base = Math.max(0, from - 1)
    const matcher = compiled.matcher(text.slice(base, from + 2 * windowLength))
    let next = from + windowLength
    for (let at = from - base; matcher.find(at); ) {
      const [start, end] = [base + matcher.start(), base + matcher.end()]
      if (start >= from + windowLength) break
      if (end > start) spans.push({ start, end })
      next = Math.max(next, end)
      at = Math.max(end, start + 1) - base
      if (at > 2 * windowLength) break
    }
    from = next
  }
  return spans
}
