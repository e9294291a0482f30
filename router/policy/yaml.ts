// YAML (or JSON) against a schema, with every mistake reported at once: file and line, path to the field, what was found,
// what is wanted. Used for signalbox.yaml and for policies; the caller decides which exception carries the problems.
import { isMap, isScalar, LineCounter, parseDocument } from 'yaml'
import type { z } from 'zod'

const textLengthMax = 1_000_000
const aliasesMax = 100
const foundLengthMax = 60

export type Parsed<T> =
  | { readonly ok: true; readonly value: T; readonly raw: unknown; readonly lineOf: (path: Path) => number }
  | { readonly ok: false; readonly problems: readonly string[] }
export type Path = readonly (string | number)[]

/** `models[0].price` */
export const pathText = (path: readonly PropertyKey[]): string =>
  path.map((part, at) => (typeof part === 'number' ? `[${part}]` : `${at === 0 ? '' : '.'}${String(part)}`)).join('') ||
  '(the whole)'

const at = (value: unknown, path: readonly PropertyKey[]): unknown =>
  path.reduce<unknown>((inner, part) => (inner as Record<PropertyKey, unknown> | null | undefined)?.[part], value)

const foundText = (value: unknown): string =>
  value === undefined ? 'nothing' : JSON.stringify(value).slice(0, foundLengthMax)

/** One issue of a schema in words: path, what was found, what was wanted. */
export const issueText = (issue: z.core.$ZodIssue, input: unknown): string => {
  const wanted =
    issue.code === 'invalid_type'
      ? `wanted ${issue.expected}`
      : issue.code === 'invalid_value'
        ? `wanted one of ${issue.values.map((v) => JSON.stringify(v)).join(', ')}`
        : issue.message
  if (issue.code === 'unrecognized_keys')
    return `${pathText(issue.path)}: does not know ${issue.keys.map((k) => `'${k}'`).join(', ')}`
  return `${pathText(issue.path)}: found ${foundText(at(input, issue.path))}; ${wanted}`
}

/** Parses `text` and checks it; `where` is the file's name in the problems. */
export const parseYaml = <T>(text: string, schema: z.ZodType<T>, where: string): Parsed<T> => {
  if (text.length > textLengthMax)
    return { ok: false, problems: [`${where}: ${text.length} characters; the limit is ${textLengthMax}`] }
  const lines = new LineCounter()
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false })
  const syntax = document.errors.map((e) => `${where}:${lines.linePos(e.pos[0]).line}: ${e.message}`)
  if (syntax.length > 0) return { ok: false, problems: syntax }
  let raw: unknown
  try {
    raw = document.toJS({ maxAliasCount: aliasesMax })
  } catch (error) {
    // An alias without its anchor, or more of them than a person would write.
    return { ok: false, problems: [`${where}: ${(error as Error).message}`] }
  }
  const lineOf = (path: Path): number => {
    for (let depth = path.length; depth >= 0; depth -= 1) {
      const node = document.getIn(path.slice(0, depth), true) as { range?: [number, number, number] } | undefined
      if (node?.range) return lines.linePos(node.range[0]).line
    }
    return 1
  }
  const result = schema.safeParse(raw)
  if (result.success) return { ok: true, value: result.data, raw, lineOf }
  const keyLineOf = (path: Path, key: string): number => {
    const map = path.length === 0 ? document.contents : document.getIn(path, true)
    const pair = isMap(map) ? map.items.find((item) => isScalar(item.key) && item.key.value === key) : undefined
    const range = isScalar(pair?.key) ? pair.key.range : null
    return range ? lines.linePos(range[0]).line : lineOf(path)
  }
  const problemsOf = (issue: z.core.$ZodIssue): string[] =>
    issue.code === 'unrecognized_keys'
      ? issue.keys.map((key) => {
          const text = issueText({ ...issue, keys: [key] }, raw)
          return `${where}:${keyLineOf(issue.path as Path, key)}: ${text}`
        })
      : [`${where}:${lineOf(issue.path as Path)}: ${issueText(issue, raw)}`]
  return { ok: false, problems: result.error.issues.flatMap(problemsOf) }
}
