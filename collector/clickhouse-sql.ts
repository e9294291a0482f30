// SQL looked at just closely enough for the front: where words, names, strings and comments begin and end. From that it knows where
// the rows of an INSERT begin, which format a result has, that a request holds one statement, and what reaches outside.
import { refusal } from './engine-error.ts'

/** A word, a quoted text or name, or a single sign; `depth` counts the parentheses around it. */
export type Token = {
  readonly kind: 'word' | 'quoted' | 'sign'
  readonly text: string
  readonly start: number
  readonly end: number
  readonly depth: number
}

const blank = /\s+|--[^\n]*|#[ !][^\n]*|\/\*[\s\S]*?(?:\*\/|$)/y
const word = /[\p{L}_]\w*|\d[\w.]*/uy
const heredoc = /\$\w*\$/y
const closing: Readonly<Record<string, string>> = { "'": "'", '"': '"', '`': '`', '‘': '’', '“': '”' }

const at = (pattern: RegExp, sql: string, index: number): string | null => {
  pattern.lastIndex = index
  return pattern.exec(sql)?.[0] ?? null
}

/** Where the quoted text ends that begins at `start`; at the end of the SQL when it never does. */
const quotedEnd = (sql: string, start: number): number => {
  const close = closing[sql[start] as string] as string
  const doubles = close === sql[start]
  for (let index = start + 1; index < sql.length; index++) {
    if (doubles && sql[index] === '\\') index += 1
    else if (sql[index] === close) {
      if (!doubles || sql[index + 1] !== close) return index + 1
      index += 1
    }
  }
  return sql.length
}

/** The tokens of a text of SQL, without its blanks and comments. */
export function* tokensOf(sql: string): Generator<Token, undefined> {
  let depth = 0
  for (let start = 0; start < sql.length; ) {
    const nothing = at(blank, sql, start)
    if (nothing !== null) {
      start += nothing.length
      continue
    }
    const sign = sql[start] as string
    const name = at(word, sql, start)
    const tag = sign === '$' ? at(heredoc, sql, start) : null
    let end = start + (name?.length ?? 1)
    if (tag !== null) {
      const close = sql.indexOf(tag, start + tag.length)
      end = close < 0 ? sql.length : close + tag.length
    } else if (sign in closing) end = quotedEnd(sql, start)
    if (sign === ')') depth -= 1
    const kind = name !== null ? 'word' : tag !== null || sign in closing ? 'quoted' : 'sign'
    yield { kind, text: sql.slice(start, end), start, end, depth }
    if (sign === '(') depth += 1
    start = end
  }
}

const isWord = (token: Token | undefined, ...words: readonly string[]): boolean =>
  token?.kind === 'word' && words.includes(token.text.toUpperCase())

/** An INSERT that brings its rows: its SQL up to where they begin, and where the name of a file of rows could stand instead. */
export type InsertHead = {
  readonly format: string
  /** Where `FROM INFILE` may be put in, up to `rest`. */
  readonly at: number
  /** The settings that stand before the format, as SQL. */
  readonly settings: string
  /** Where the rows begin. */
  readonly rows: number
  /** The `input(…)` that a SELECT reads the rows by: from where to where, and the columns it names. */
  readonly input: { readonly start: number; readonly end: number; readonly structure: string } | null
}

/** What the beginning of a body says of the rows it brings; null when it brings none, or is no INSERT. */
export const insertHeadOf = (sql: string): InsertHead | null => {
  let settingsAt: number | null = null
  let input: InsertHead['input'] = null
  let [select, first, count] = [false, true, 0]
  let before: Token[] = []
  for (const token of tokensOf(sql)) {
    if (first && !isWord(token, 'INSERT')) return null
    first = false
    count += 1
    const [previous, last] = [before.at(-1), before.at(-2)]
    if (token.kind === 'quoted' && isWord(last, 'INPUT') && previous?.text === '(') {
      input = { start: last?.start as number, end: sql.indexOf(')', token.end) + 1, structure: token.text.slice(1, -1) }
    }
    before = [...before.slice(-1), token]
    if (token.depth > 0 || token.kind !== 'word' || count < 3) continue
    if (isWord(token, 'SELECT', 'WITH')) select = true
    else if (isWord(token, 'SETTINGS')) settingsAt ??= token.start
    else if (isWord(token, 'VALUES', 'FORMAT') && (isWord(token, 'VALUES') ? !select : !select || input)) {
      const format = isWord(token, 'VALUES') ? 'Values' : at(/\s+\w+/y, sql, token.end)
      if (format === null) return null
      const end = isWord(token, 'VALUES') ? token.end : token.end + format.length
      const from = settingsAt ?? token.start
      return { format: format.trim(), at: from, settings: sql.slice(from, token.start), rows: rowsAt(sql, end), input }
    }
  }
  return null
}

/** After the format, blanks up to and with one line end are not rows; nor is a semicolon. */
const rowsAt = (sql: string, end: number): number => end + (at(/[ \t]*;?[ \t]*(?:\r?\n)?/y, sql, end)?.length ?? 0)

/** Where a result's format is named, and its name. */
export type OutputFormat = { readonly format: string; readonly start: number }

/** The format that a query names for its result, or null. */
export const outputFormatOf = (tokens: readonly Token[]): OutputFormat | null => {
  const index = tokens.findLastIndex((token, i) => token.depth === 0 && isWord(token, 'FORMAT') && tokens[i + 1])
  const [token, format] = [tokens[index], tokens[index + 1]]
  return token && format?.kind === 'word' ? { format: format.text, start: token.start } : null
}

const readingWords = ['SELECT', 'WITH', 'FROM', 'SHOW', 'DESC', 'DESCRIBE', 'EXPLAIN', 'EXISTS', 'CHECK']

/** Whether a statement reads: it gives a result and leaves everything as it was. */
export const readsOnly = (tokens: readonly Token[]): boolean => {
  const first = tokens.find(({ text }) => text !== '(')
  return isWord(first, ...readingWords) && !tokens.some((token) => token.depth === 0 && isWord(token, 'INSERT'))
}

/** Whether a statement is a query whose result can be long. */
export const isQuery = (tokens: readonly Token[]): boolean =>
  readsOnly(tokens) &&
  isWord(
    tokens.find(({ text }) => text !== '('),
    'SELECT',
    'WITH',
    'FROM',
  )

/** Refuses a second statement, as ClickHouse's HTTP interface does. */
export const refuseMany = (sql: string, tokens: readonly Token[]): void => {
  const end = tokens.findIndex(({ text }) => text === ';')
  const next = end < 0 ? undefined : tokens.slice(end).find(({ text }) => text !== ';')
  if (!next) return
  const semicolon = tokens[end] as Token
  const lines = sql.slice(0, semicolon.start).split('\n')
  const where = `position ${semicolon.start + 1} (end of query) (line ${lines.length}, col ${(lines.at(-1)?.length ?? 0) + 1})`
  const rest = sql.slice(semicolon.start, semicolon.start + 100)
  throw refusal(62, `Syntax error (Multi-statements are not allowed): failed at ${where}: ${rest}. (SYNTAX_ERROR)`)
}

/**
 * Functions that read files or run programs although the engine has no right to other sources, and its most used sources, so
 * that these are refused before the statement has any effect.
 */
const outside =
  /^(?:file|filesystem|url|executable|remote|remoteSecure|python|s3|hdfs|azureBlobStorage|(?:Materialized)?(?:SQLite|MySQL|PostgreSQL)|DataLakeCatalog|Redis|MongoDB|Kafka)(?:Cluster)?$/i

/** What a reader's statement may begin with; of these the engine itself refuses what changes anything. */
const readersWords = [...readingWords, 'SET', 'USE', 'CREATE', 'DROP', 'TRUNCATE', 'ALTER', 'INSERT']

/** Refuses a reader what the engine would let pass though it changes how the engine works: `SYSTEM STOP MERGES`, KILL, BACKUP. */
export const refuseToReader = (tokens: readonly Token[]): void => {
  const first = tokens.find(({ text }) => text !== '(')
  if (isWord(first, ...readersWords)) return
  throw refusal(164, `Cannot execute query in readonly mode: ${(first?.text ?? '').slice(0, 100)}. (READONLY)`)
}

/** Refuses what reads or writes outside the data folder. */
export const refuseOutside = (tokens: readonly Token[]): void => {
  for (const [index, token] of tokens.entries()) {
    const next = tokens[index + 1]
    const name = token.kind === 'quoted' && /^["`“]/.test(token.text) ? token.text.slice(1, -1) : token.text
    const calls = next?.text === '(' && outside.test(name)
    const reaches = isWord(next, 'OUTFILE', 'INFILE') && isWord(token, 'INTO', 'FROM')
    if (!calls && !reaches) continue
    const what = calls ? name : `${token.text} ${next?.text}`
    throw refusal(497, `'${what}' is not served here: it reaches outside the database. (ACCESS_DENIED)`)
  }
}
