// Lines for a terminal, whatever is in them: names come from policy files and logs, so control and direction characters are
// taken out, and columns are aligned on what is left.

/** Text without what could act on a terminal, a page or an XML reader. */
export const clean = (text: string): string => text.toWellFormed().replace(/[\p{Cc}\p{Cf}\uFFFE\uFFFF]/gu, ' ')

/** Rows in columns, the first to the left, the others to the right. */
export const aligned = (rows: readonly (readonly string[])[]): string[] => {
  const widths = (rows[0] ?? []).map((_, at) => Math.max(...rows.map((row) => (row[at] ?? '').length)))
  const cell = (text: string, at: number) => (at === 0 ? text.padEnd(widths[at] ?? 0) : text.padStart(widths[at] ?? 0))
  return rows.map((row) => row.map(cell).join('   '))
}

/** One text of all lines, each clean. */
export const linesOf = (lines: readonly string[]): string => lines.map((line) => `${clean(line).trimEnd()}\n`).join('')
