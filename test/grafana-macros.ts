// What the ClickHouse data source (4.20) does to a query before ClickHouse sees it, so that tests run the SQL that a
// dashboard runs: in the browser `$__conditionalAll` and the dashboard's variables, in the backend the time macros.
// Macros that no query of ours uses are not here; like unknown ones they are left as they are, and ClickHouse refuses them.

export type TimeRange = { readonly fromMs: number; readonly toMs: number; readonly intervalMs: number }
/** A variable's value, or its values; `$__all` is the choice of all. */
export type Variables = Readonly<Record<string, string | readonly string[]>>

/** The arguments of the call whose opening bracket is at `open`, untrimmed, and where it ends; null without an end. */
const argumentsAt = (sql: string, open: number): { args: string[]; end: number } | null => {
  const args: string[] = []
  let depth = 0
  let start = open + 1
  for (let at = open; at < sql.length; at++) {
    const character = sql[at]
    if (character === '(') depth++
    if (character === ')') depth--
    if ((character === ',' && depth === 1) || depth === 0) {
      args.push(sql.slice(start, at))
      start = at + 1
    }
    if (depth === 0) return { args, end: at + 1 }
  }
  return null
}

const conditional = '$__conditionalAll('

/** `$__conditionalAll(condition, $variable)`: the condition, or `1=1` while the variable is empty or all. */
export const expandConditionalAll = (sql: string, variables: Variables): string => {
  let text = sql
  for (let at = text.lastIndexOf(conditional); at !== -1; at = text.lastIndexOf(conditional)) {
    const call = argumentsAt(text, at + conditional.length - 1)
    if (call?.args.length !== 2) return text
    const name = /(?<=\$\{)\w+(?=\})|(?<=\$)\w+/.exec(call.args[1] ?? '')?.[0]
    const value = name === undefined ? undefined : variables[name]?.toString()
    text = text.slice(0, at) + (value === '' || value === '$__all' ? '1=1' : call.args[0]) + text.slice(call.end)
  }
  return text
}

const quoted = (value: string): string => `'${value.replaceAll("'", "\\'")}'`

/** `${name}`, `$name` and `${name:singlequote}`. */
export const expandVariables = (sql: string, variables: Variables): string =>
  sql.replace(/\$\{(\w+)(?::(\w+))?\}|\$(\w+)/g, (whole, braced?: string, format?: string, bare?: string) => {
    const value = variables[braced ?? bare ?? '']
    if (value === undefined) return whole
    if (format === 'singlequote') return [value].flat().map(quoted).join(',')
    if (format !== undefined) throw new Error(`the port of the macros knows no variable format '${format}' in ${whole}`)
    return typeof value === 'string' ? value : `'${value.join("','")}'`
  })

const date = (ms: number): string => `toDate('${new Date(ms).toISOString().slice(0, 10)}')`
const seconds = (ms: number): string => `toDateTime(${Math.floor(ms / 1000)})`
const milliseconds = (ms: number): string => `fromUnixTimestamp64Milli(${ms})`
const between = (column: string, ends: readonly [string, string]): string =>
  `${column} >= ${ends[0]} AND ${column} <= ${ends[1]}`
const unitSeconds: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 86_400, w: 604_800 }
const durationSeconds = (text: string): number =>
  Number.parseInt(text, 10) * (unitSeconds[text.slice(-1)] ?? Number.NaN)

type Macro = { readonly args: number; readonly expand: (range: TimeRange, args: readonly string[]) => string }

const dateTimeFilter: Macro = {
  args: 2,
  expand: ({ fromMs, toMs }, [day, time]) =>
    `(${between(`${day}`, [date(fromMs), date(toMs)])}) AND (${between(`${time}`, [seconds(fromMs), seconds(toMs)])})`,
}
const intervalSeconds = ({ intervalMs }: TimeRange): number => Math.max(1, Math.floor(intervalMs / 1000))

const macros: Readonly<Record<string, Macro>> = {
  fromTime: { args: 0, expand: ({ fromMs }) => seconds(fromMs) },
  toTime: { args: 0, expand: ({ toMs }) => seconds(toMs) },
  fromTime_ms: { args: 0, expand: ({ fromMs }) => milliseconds(fromMs) },
  toTime_ms: { args: 0, expand: ({ toMs }) => milliseconds(toMs) },
  timeFilter: { args: 1, expand: (r, [column]) => between(`${column}`, [seconds(r.fromMs), seconds(r.toMs)]) },
  timeFilter_ms: {
    args: 1,
    expand: (r, [column]) => between(`${column}`, [milliseconds(r.fromMs), milliseconds(r.toMs)]),
  },
  dateFilter: { args: 1, expand: (r, [column]) => between(`${column}`, [date(r.fromMs), date(r.toMs)]) },
  dateTimeFilter,
  dt: dateTimeFilter,
  timeInterval: {
    args: 1,
    expand: (range, [column]) => `toStartOfInterval(toDateTime(${column}), INTERVAL ${intervalSeconds(range)} second)`,
  },
  timeInterval_ms: {
    args: 1,
    expand: ({ intervalMs }, [column]) =>
      `toStartOfInterval(toDateTime64(${column}, 3), INTERVAL ${Math.max(1, Math.floor(intervalMs))} millisecond)`,
  },
  interval_s: { args: 0, expand: (range) => `${intervalSeconds(range)}` },
  timeFrom: { args: 1, expand: ({ fromMs }, [column]) => `${column} >= ${seconds(fromMs)}` },
  timeTo: { args: 1, expand: ({ toMs }, [column]) => `${column} <= ${seconds(toMs)}` },
  timeGroup: {
    args: 2,
    expand: (_, [column, every]) =>
      `toStartOfInterval(toDateTime(${column}), INTERVAL ${durationSeconds(`${every}`)} second)`,
  },
}

/** The time macros of the backend. Throws when one gets too many or too few arguments, as the plugin refuses the query. */
export const expandMacros = (sql: string, range: TimeRange): string => {
  let text = ''
  let rest = sql
  for (let match = /\$__(\w+)/.exec(rest); match; match = /\$__(\w+)/.exec(rest)) {
    const [whole, name = ''] = match
    const macro = macros[name]
    const after = match.index + whole.length
    const call = macro?.args && rest[after] === '(' ? argumentsAt(rest, after) : null
    const args = (call?.args ?? []).map((arg) => arg.trim())
    if (macro && args.length !== macro.args)
      throw new Error(`$__${name}: expected ${macro.args} arguments, received ${args.length}`)
    text += rest.slice(0, match.index) + (macro ? macro.expand(range, args) : whole)
    rest = rest.slice(call?.end ?? after)
  }
  return text + rest
}

/** The SQL that ClickHouse gets for a panel's `rawSql`. */
export const expand = (rawSql: string, range: TimeRange, variables: Variables): string =>
  expandMacros(expandVariables(expandConditionalAll(rawSql, variables), variables), range)
