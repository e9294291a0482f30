// A policy is data whose expressions are CEL, parsed and checked once and then a pure function of the context. Around a
// body (filter, score, choose, explore, fallback) stand `rules` (first match wins) and `split` (arms with shares); both
// nest. This file is the text's side: schema, checks, compilation. What the compiled tree decides is in decide.ts.
import { createHash } from 'node:crypto'
import { z } from 'zod'
import { type CelType, compileCel, type Expression, type FeatureTypes } from './cel.ts'
import { CelError } from './cel-parse.ts'
import { type Body, decide, type Node } from './decide.ts'
import type { Context, Decision, DecisionRecord, FeatureValue } from './record.ts'
import { type Path, parseYaml, pathText } from './yaml.ts'

const nestingMax = 8
const weightMax = 1e9
const armsMax = 50
const shareTolerance = 1e-9

const per = z.enum(['request', 'session', 'user', 'tenant'])
const share = z.number().min(0).max(1)
const name = z
  .string()
  .min(1)
  .max(100)
  .regex(/^[\w.-]+$/, 'wanted letters, digits, dot, dash or underscore')

const bodyShape = {
  candidates: z.array(z.string().min(1)).min(1).optional(),
  filter: z.record(name, z.string()).optional(),
  score: z.string().optional(),
  choose: z.discriminatedUnion('kind', [
    z.strictObject({ kind: z.literal('highest') }),
    z.strictObject({ kind: z.literal('lowest') }),
    z.strictObject({
      kind: z.literal('weighted'),
      weights: z
        .record(z.string(), z.number().min(0).max(weightMax))
        .refine((w) => Object.values(w).some((value) => value > 0), {
          error: 'wanted at least one weight above 0',
        }),
      per: per.default('request'),
    }),
    z.strictObject({ kind: z.literal('softmax'), temperature: z.number().gt(0), per: per.default('request') }),
  ]),
  explore: z
    .strictObject({
      rate: share,
      floor: share.default(0),
      per: per.default('request'),
      unless: z.string().optional(),
    })
    .optional(),
  fallback: z.strictObject({ attempts_max: z.int().min(1).max(20) }).default({ attempts_max: 3 }),
}
const bodySchema = z.strictObject(bodyShape).refine((b) => b.choose.kind === 'weighted' || b.score !== undefined, {
  path: ['score'],
  error: 'wanted a score, because the choice goes by it',
})

type Use = z.infer<typeof bodySchema> | Rules | Split
type Rules = { rules: { name: string; when?: string | undefined; use: Use }[] }
type Split = { split: { per: z.infer<typeof per>; arms: { name: string; share: number; use: Use }[] } }

const rulesSchema: z.ZodType<Rules> = z.strictObject({
  rules: z
    .array(z.strictObject({ name, when: z.string().optional(), use: z.lazy(() => useSchema) }))
    .min(1)
    .max(armsMax)
    .refine((rules) => rules.every((rule, at) => (rule.when === undefined) === (at === rules.length - 1)), {
      error: 'wanted `when` on every rule but the last, which is for all other requests',
    }),
})
const splitSchema: z.ZodType<Split> = z.strictObject({
  split: z.strictObject({
    per: per.default('request'),
    arms: z
      .array(z.strictObject({ name, share, use: z.lazy(() => useSchema) }))
      .min(1)
      .max(armsMax)
      .refine((arms) => Math.abs(arms.reduce((sum, arm) => sum + arm.share, 0) - 1) <= shareTolerance, {
        error: 'wanted shares that sum to 1',
      }),
  }),
})

/** Chooses the schema by the key that is present, so that mistakes are reported against the shape that was meant. */
const useSchema: z.ZodType<Use> = z.unknown().transform((value, context) => {
  const schema =
    value !== null && typeof value === 'object' && 'rules' in value
      ? rulesSchema
      : value !== null && typeof value === 'object' && 'split' in value
        ? splitSchema
        : bodySchema
  const result = (schema as z.ZodType<Use>).safeParse(value)
  if (result.success) return result.data
  for (const issue of result.error.issues) context.addIssue({ ...issue } as never)
  return z.NEVER
}) as never

const policySchema = z.looseObject({ name }).transform(({ name: policyName, ...use }, context) => {
  const result = useSchema.safeParse(use)
  if (result.success) return { name: policyName, use: result.data }
  for (const issue of result.error.issues) context.addIssue({ ...issue } as never)
  return z.NEVER
})

/** A policy in force: the same function in the router and in replay. */
export type Policy = {
  readonly name: string
  /** `sha256:` and the hex digest of `source`. */
  readonly hash: string
  /** The policy as canonical JSON: parsing it again gives the same policy and the same hash. */
  readonly source: string
  readonly decide: (context: Context) => Decision
  /** The compiled tree, for what compiles it further. */
  readonly root: Node
}

export class PolicyError extends Error {
  readonly code = 'policy-invalid'
  readonly problems: readonly string[]
  constructor(problems: readonly string[]) {
    super(problems.join('\n'))
    this.problems = problems
  }
}

/** JSON with sorted keys and no spaces: equal data gives equal bytes. */
export const canonicalJson = (value: unknown): string =>
  JSON.stringify(value, (_key, inner: unknown) =>
    inner !== null && typeof inner === 'object' && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  )

type Compiler = { readonly features: FeatureTypes; readonly problem: (path: Path, message: string) => void }

const expression = (
  compiler: Compiler,
  path: Path,
  source: string | undefined,
  type: CelType,
  scope: 'candidate' | 'request',
): Expression | null => {
  if (source === undefined) return null
  try {
    return compileCel(source, type, scope === 'candidate' ? compiler.features : null)
  } catch (error) {
    if (!(error instanceof CelError)) throw error
    compiler.problem(path, error.message)
    return null
  }
}

const compileBody = (compiler: Compiler, path: Path, body: z.infer<typeof bodySchema>): Body => ({
  kind: 'body',
  candidates: body.candidates ? new Set(body.candidates) : null,
  filters: Object.entries(body.filter ?? {}).flatMap(([rule, source]) => {
    const test = expression(compiler, [...path, 'filter', rule], source, 'bool', 'candidate')
    return test ? [{ name: rule, test }] : []
  }),
  score: expression(compiler, [...path, 'score'], body.score, 'double', 'candidate'),
  choose: body.choose,
  explore: body.explore
    ? {
        rate: body.explore.rate,
        floor: body.explore.floor,
        per: body.explore.per,
        unless: expression(compiler, [...path, 'explore', 'unless'], body.explore.unless, 'bool', 'request'),
      }
    : null,
  attemptsMax: body.fallback.attempts_max,
})

const compileUse = (compiler: Compiler, path: Path, use: Use, depth = 0): Node => {
  if (depth > nestingMax) {
    compiler.problem(path, `rules and splits nest at most ${nestingMax} deep`)
    return { kind: 'rules', rules: [] }
  }
  if ('rules' in use)
    return {
      kind: 'rules',
      rules: use.rules.map((rule, at) => ({
        name: rule.name,
        when: expression(compiler, [...path, 'rules', at, 'when'], rule.when, 'bool', 'request'),
        use: compileUse(compiler, [...path, 'rules', at, 'use'], rule.use, depth + 1),
      })),
    }
  if ('split' in use)
    return {
      kind: 'split',
      per: use.split.per,
      arms: use.split.arms.map((arm, at) => ({
        name: arm.name,
        share: arm.share,
        use: compileUse(compiler, [...path, 'split', 'arms', at, 'use'], arm.use, depth + 1),
      })),
    }
  return compileBody(compiler, path, use)
}

/** What a policy is known by, without what it reads of candidates: its name, its canonical text and that text's hash. */
export type PolicyText = Pick<Policy, 'name' | 'hash' | 'source'>

const readText = (text: string, where: string) => {
  const parsed = parseYaml(text, policySchema, where)
  if (!parsed.ok) throw new PolicyError(parsed.problems)
  const source = canonicalJson(parsed.raw)
  const hash = `sha256:${createHash('sha256').update(source).digest('hex')}`
  return { ...parsed, identity: { name: parsed.value.name, hash }, source }
}

/** Reads a policy's identity; its expressions are not checked. Throws a PolicyError with every problem of its shape. */
export const policyText = (text: string, where = 'policy'): PolicyText => {
  const { identity, source } = readText(text, where)
  return { ...identity, source }
}

/**
 * Parses, checks and compiles a policy written as YAML or JSON. `features` lists what expressions may read as
 * `candidate.<name>`; `where` is the file's name in messages. Throws a PolicyError with every problem found.
 */
export const parsePolicy = (text: string, features: FeatureTypes, where = 'policy'): Policy => {
  const { value, lineOf, identity, source } = readText(text, where)
  const problems: string[] = []
  const problem = (path: Path, message: string) =>
    problems.push(`${where}:${lineOf(path)}: ${pathText(path)}: ${message}`)
  const root = compileUse({ features, problem }, [], value.use)
  if (problems.length > 0) throw new PolicyError(problems)
  return { ...identity, source, root, decide: (context) => decide(root, identity, context) }
}

const featureType = (value: Exclude<FeatureValue, null>): FeatureTypes[string] =>
  typeof value === 'number' ? 'double' : typeof value === 'string' ? 'string' : 'bool'

type Considered = readonly { readonly features: DecisionRecord['candidates'][number]['features'] }[]

/** Gathers the feature types that records show, one by one. A feature that is null everywhere counts as a number. */
export const startFeatureTypes = () => {
  const types = new Map<string, FeatureTypes[string] | null>()
  return {
    add: (candidates: Considered): void => {
      for (const { features } of candidates)
        for (const feature in features) {
          if (types.get(feature)) continue
          const value = features[feature] ?? null
          types.set(feature, value === null ? null : featureType(value))
        }
    },
    close: (): FeatureTypes => Object.fromEntries([...types].map(([feature, type]) => [feature, type ?? 'double'])),
  }
}

/** The feature types that a set of records shows. */
export const featureTypesOf = (records: Iterable<{ readonly candidates: Considered }>): FeatureTypes => {
  const types = startFeatureTypes()
  for (const { candidates } of records) types.add(candidates)
  return types.close()
}
