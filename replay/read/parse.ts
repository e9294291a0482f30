// One line of NDJSON to one checked record, and the error of everything that reads records. It stands apart because lines
// come from files, and from ClickHouse for the few rows whose columns do not say all of their record.
import { type DecisionRecord, decisionRecordSchema } from '../../router/policy/record.ts'
import { issueText } from '../../router/policy/yaml.ts'

const problemsShownMax = 5

/** The input could not be read as decision records. */
export class SourceError extends Error {
  readonly code: 'record-invalid' | 'source-unreadable' | 'source-empty'
  constructor(code: SourceError['code'], message: string) {
    super(message)
    this.code = code
  }
}

/** One record from its JSON. `where` names the line, `readBefore` counts the good ones before it. Throws a SourceError. */
export const parseRecord = (line: string, where: string, readBefore: number): DecisionRecord => {
  const fail = (problem: string): never => {
    throw new SourceError(
      'record-invalid',
      `reading decision records: ${where}: ${problem} (${readBefore} good records before it; nothing was computed)`,
    )
  }
  let input: unknown
  try {
    input = JSON.parse(line)
  } catch (error) {
    return fail(`not JSON: ${(error as Error).message}`)
  }
  const result = decisionRecordSchema.safeParse(input)
  if (result.success) return result.data
  const issues = result.error.issues.slice(0, problemsShownMax).map((issue) => issueText(issue, input))
  const more = result.error.issues.length - issues.length
  return fail(issues.join('; ') + (more > 0 ? `; and ${more} more` : ''))
}
