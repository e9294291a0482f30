// What the embedded engine says when it cannot: one error with a stable code of ours, ClickHouse's own number beside it, and the
// text spelled as a ClickHouse server spells it, so that its clients know what they read.

export type EngineErrorCode = 'engine-missing' | 'engine-locked' | 'engine-busy' | 'engine-failed' | 'engine-query'

/** The engine could not be opened or refused a statement; the message of a refusal is ClickHouse's own. */
export class EngineError extends Error {
  readonly code: EngineErrorCode
  /** ClickHouse's number for the error, where it has one. */
  readonly clickhouseCode: number | null
  constructor(code: EngineErrorCode, message: string, clickhouseCode: number | null = null, cause?: unknown) {
    super(message, { cause })
    this.code = code
    this.clickhouseCode = clickhouseCode
  }
}

/** Days that the rows of one insert may be of: each day is a folder, and thousands of them would hold up everybody else. */
export const daysPerInsertMax = 200

/** A refusal of our own, spelled as ClickHouse spells its own. */
export const refusal = (clickhouseCode: number, text: string): EngineError =>
  new EngineError('engine-query', `Code: ${clickhouseCode}. DB::Exception: ${text}`, clickhouseCode)

/** ClickHouse's code for an error that has none. */
const unknownException = 1002

/** Gives ClickHouse's text its usual form: one `Code: N. DB::Exception:` before it, one version after it. */
export const queryError = (error: unknown, version: string): EngineError => {
  if (error instanceof EngineError) return error
  const text = (error as Error).message.trim()
  const code = Number(/Code: (\d+)\./.exec(text)?.[1] ?? unknownException)
  const plain = text
    .replaceAll(/ \(version [\d.]+\)(?:\. \([A-Z_]+\))?/g, '')
    .replace(/^(?:Code: \d+\. DB::Exception: )+/, '')
    // Rows come from files of our own, which nobody who sent them has heard of.
    .replace(/:? ?\(in file\/uri [^)]*\)/, '')
    .replace(': While executing File: data for INSERT was parsed from file', '')
  return new EngineError('engine-query', `Code: ${code}. DB::Exception: ${plain} (version ${version})`, code, error)
}
