// evaluators.yaml: what is said of captured answers, by which rules and judges, of how many, and what it may cost. What comes
// out of it needs no further checks: patterns and schemas are compiled, keys are read.
import { readFile } from 'node:fs/promises'
import { z } from 'zod'
import { linearPattern } from '../../router/capture/pattern.ts'
import { parseNamedKey } from '../../router/capture/sealed.ts'
import { parseYaml, pathText } from '../../router/policy/yaml.ts'
import { type Rule, ruleOf, ruleSchemas } from './rules.ts'

const evaluatorsMax = 50
const name = z.string().min(1).max(100)
const address = z.url({ protocol: /^https?$/ })
const usd = z.number().min(0)

const evaluatorSchema = z
  .strictObject({
    name,
    /** The share of captured answers that it sees, drawn by a hash of the decision's id. */
    share: z.number().gt(0).max(1).default(1),
    ...ruleSchemas,
    judge: z.strictObject({ rubric: z.string().min(1).max(4000) }).optional(),
  })
  .refine(
    (of) =>
      [...Object.keys(ruleSchemas), 'judge'].filter((kind) => of[kind as keyof typeof of] !== undefined).length === 1,
    { error: `wanted one of ${[...Object.keys(ruleSchemas), 'judge'].join(', ')}` },
  )

const fileSchema = z
  .strictObject({
    source: address.default('http://127.0.0.1:8123'),
    collector: address.default('http://127.0.0.1:4318'),
    collector_token_env: name.optional(),
    /** Key ids of encrypted payloads, and the variables that hold the keys. */
    payload_keys: z.record(z.string(), z.string()).default({}),
    /** Answers captured this many days ago at most are looked at. */
    days: z.number().gt(0).max(3650).default(7),
    /** How often it looks for new ones, when it follows. */
    poll_seconds: z.number().min(1).max(86_400).default(30),
    budget: z
      .strictObject({
        usd_per_day: usd.default(1),
        calls: z.int().min(0).default(1000),
        minutes: z.number().gt(0).optional(),
      })
      .prefault({}),
    judge: z
      .strictObject({
        /** An OpenAI-compatible API, the router itself among them. */
        url: address,
        key_env: name.optional(),
        model: name,
        price: z.strictObject({ input_usd_per_mtok: usd, output_usd_per_mtok: usd }),
        concurrency: z.int().min(1).max(64).default(4),
      })
      .optional(),
    evaluators: z.array(evaluatorSchema).min(1).max(evaluatorsMax),
  })
  .refine((file) => file.judge || file.evaluators.every(({ judge }) => !judge), {
    path: ['judge'],
    error: 'wanted url, model and price, because an evaluator asks a judge',
  })
  .refine((file) => new Set(file.evaluators.map((of) => of.name)).size === file.evaluators.length, {
    path: ['evaluators'],
    error: 'wanted a name of its own for each',
  })
type File = z.infer<typeof fileSchema>

export type Evaluator = {
  readonly name: string
  readonly share: number
  readonly kind: { readonly rule: Rule } | { readonly rubric: string }
}
export type EvaluateSettings = Pick<File, 'source' | 'collector' | 'days' | 'poll_seconds' | 'budget'> & {
  readonly evaluators: readonly Evaluator[]
  readonly token: string | null
  readonly keys: ReadonlyMap<string, Buffer>
  readonly judge: (Omit<NonNullable<File['judge']>, 'key_env'> & { readonly key: string | null }) | null
}

/** The file of evaluators is not one. */
export class EvaluatorsError extends Error {
  readonly code = 'config-invalid'
}

type Environment = Readonly<Record<string, string | undefined>>

/** Parses a file of evaluators; `where` is its name in messages. Throws an EvaluatorsError that lists every problem. */
export const parseEvaluators = (text: string, where: string, env: Environment): EvaluateSettings => {
  const parsed = parseYaml(text, fileSchema, where)
  if (!parsed.ok) throw new EvaluatorsError(parsed.problems.join('\n'))
  const { evaluators, judge, payload_keys: keyNames, collector_token_env: tokenEnv, ...file } = parsed.value
  const problems: string[] = []
  const report = (path: readonly (string | number)[], message: string): void => {
    problems.push(`${where}:${parsed.lineOf([...path])}: ${pathText([...path])}: ${message}`)
  }
  const secret = (path: readonly string[], variable: string | undefined): string | null => {
    if (variable !== undefined && !env[variable]) report(path, `the environment has no ${variable}`)
    return (variable && env[variable]) || null
  }
  const keys = Object.entries(keyNames).flatMap(([id, variable]) => {
    const found = parseNamedKey(`${id}=${variable}`, env)
    if (typeof found !== 'string') return [found]
    report(['payload_keys', id], found)
    return []
  })
  const compiled = evaluators.flatMap(({ name: called, share, judge: asked, ...rule }, at): Evaluator[] => {
    try {
      return [{ name: called, share, kind: asked ? { rubric: asked.rubric } : { rule: ruleOf(rule, linearPattern) } }]
    } catch (error) {
      report(['evaluators', at], (error as Error).message)
      return []
    }
  })
  const token = secret(['collector_token_env'], tokenEnv)
  const key = secret(['judge', 'key_env'], judge?.key_env)
  if (problems.length > 0) throw new EvaluatorsError(problems.join('\n'))
  return { ...file, evaluators: compiled, token, keys: new Map(keys), judge: judge ? { ...judge, key } : null }
}

/** Reads and parses a file of evaluators. Throws an EvaluatorsError. */
export const loadEvaluators = async (path: string, env: Environment): Promise<EvaluateSettings> => {
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    throw new EvaluatorsError(`${path}: cannot be read (${error.code}); --config names the file`)
  })
  return parseEvaluators(text, path, env)
}
