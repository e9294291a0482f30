// A policy with holes: `${weight}` stands for a number that a search may vary. The holes are filled in the text, before it is
// read as YAML, so that they may stand anywhere a number may: in a score, a weight, a rate. Only numbers are ever put in, so
// that nothing can change the text's structure; what comes out is an ordinary policy.
import { PolicyError, policyText } from '../../router/policy/policy.ts'

export const pointsMax = 256
const dimensionsMax = 6
const listMax = 100
/** From this ratio of its ends on, a range of positive numbers is gone through in equal factors, not in equal steps. */
const logRatioMin = 10
/** Enough for any weight, and short enough to be read in a policy. */
const digitsShown = 4
/** The bases of the low-discrepancy sequence, one a dimension. */
const primes = [2, 3, 5, 7, 11, 13] as const

/** What one parameter may be: anything in a range, or one of a list. */
export type Dimension = { readonly name: string } & (
  | { readonly kind: 'range'; readonly low: number; readonly high: number; readonly isLog: boolean }
  | { readonly kind: 'list'; readonly values: readonly number[] }
)

/** One policy to try: its parameters, and the template filled with them. */
export type Point = {
  readonly parameters: Readonly<Record<string, number>>
  readonly name: string
  readonly hash: string
  /** The policy as YAML. */
  readonly text: string
}

/** Reads `weight=10..200` or `rate=0.5,1,2`. Gives what is wrong with it as a string. */
export const readDimension = (spec: string): Dimension | string => {
  const [, name, wanted] = /^([A-Za-z_]\w*)=(.+)$/.exec(spec) ?? []
  if (name === undefined || wanted === undefined) return `found '${spec}'; wanted NAME=LOW..HIGH or NAME=A,B,C`
  const ends = wanted.split('..')
  const values = (ends.length === 2 ? ends : wanted.split(',')).map((text) => (text.trim() ? Number(text) : Number.NaN))
  if (!values.every(Number.isFinite)) return `found '${spec}'; wanted numbers, as in ${name}=1..10 or ${name}=1,2,5`
  if (ends.length !== 2) {
    if (values.length > listMax || new Set(values).size < values.length)
      return `found '${spec}'; wanted at most ${listMax} different numbers`
    return { name, kind: 'list', values }
  }
  const [low, high] = values as [number, number]
  if (low >= high) return `found '${spec}'; wanted the lower end first, as in ${name}=${high}..${low}`
  return { name, kind: 'range', low, high, isLog: low > 0 && high / low >= logRatioMin }
}

/**
 * The policies that a template stands for: all combinations of the lists, and with each as many points of the ranges as make
 * at most `count` in all. Throws a PolicyError that names the line of a hole that is not varied or not a name, a varied name
 * without a hole, and whatever is wrong with a filled policy.
 */
export const pointsOf = (
  text: string,
  dimensions: readonly Dimension[],
  count: number,
  seed: number,
  where = 'template',
): Point[] => {
  const problems = [...dimensionProblems(dimensions, where), ...holeProblems(text, dimensions, where)]
  if (problems.length > 0) throw new PolicyError(problems)
  const points = new Map<string, Point>()
  for (const parameters of parameterPoints(dimensions, count, seed, where)) {
    const filled = text.replace(/\$\{(\w+)\}/g, (_, name: string) => String(parameters[name]))
    const { name, hash } = policyText(filled, `${where} with ${parameterText(parameters)}`)
    if (!points.has(hash)) points.set(hash, { parameters, name, hash, text: filled })
  }
  if (points.size === 1 && count > 1)
    throw new PolicyError([
      `${where}: filling ${dimensions.map(({ name }) => `\${${name}}`).join(', ')} changes nothing; wanted holes outside of comments`,
    ])
  return [...points.values()]
}

/** `weight=40 rate=0.5` */
export const parameterText = (parameters: Point['parameters']): string =>
  Object.entries(parameters)
    .map(([name, value]) => `${name}=${value}`)
    .join(' ')

const dimensionProblems = (dimensions: readonly Dimension[], where: string): string[] => {
  if (dimensions.length === 0 || dimensions.length > dimensionsMax)
    return [`${where}: ${dimensions.length} parameters are varied; wanted 1 to ${dimensionsMax}`]
  const names = dimensions.map(({ name }) => name)
  return names.flatMap((name, at) => (names.indexOf(name) < at ? [`${where}: ${name} is varied twice`] : []))
}

const holeProblems = (text: string, dimensions: readonly Dimension[], where: string): string[] => {
  const names = dimensions.map(({ name }) => name)
  const found = new Set<string>()
  const problems = text.split('\n').flatMap((line, at) =>
    Array.from(line.matchAll(/\$\{([^}]*)(\}?)/g)).flatMap(([hole, name = '', end]) => {
      if (end === '' || !/^[A-Za-z_]\w*$/.test(name))
        return [`${where}:${at + 1}: found '${hole}'; wanted a name, as in \${weight}`]
      found.add(name)
      if (names.includes(name)) return []
      return [`${where}:${at + 1}: \${${name}} is not varied; add --vary '${name}=LOW..HIGH'`]
    }),
  )
  const absent = names.filter((name) => !found.has(name))
  return [...problems, ...absent.map((name) => `${where}: ${name} is varied, but \${${name}} does not occur`)]
}

const parameterPoints = (
  dimensions: readonly Dimension[],
  count: number,
  seed: number,
  where: string,
): Point['parameters'][] => {
  const ranges = dimensions.filter((dimension) => dimension.kind === 'range')
  const combinations = dimensions
    .filter((dimension) => dimension.kind === 'list')
    .reduce<Point['parameters'][]>(
      (made, { name, values }) => made.flatMap((before) => values.map((value) => ({ ...before, [name]: value }))),
      [{}],
    )
  const each = ranges.length > 0 ? Math.floor(count / combinations.length) : 1
  if (combinations.length > count || each < 1)
    throw new PolicyError([
      `${where}: the lists make ${combinations.length} combinations, more than the ${count} points to try; raise --points or shorten a list`,
    ])
  return combinations.flatMap((listed, at) =>
    Array.from({ length: each }, (_, index) => {
      const lots = ranges.length === 1 ? [each > 1 ? index / (each - 1) : 0.5] : spread(at * each + index, ranges, seed)
      const ranged = Object.fromEntries(
        ranges.map((range, place) => [range.name, valueAt(range, lots[place] as number)]),
      )
      return Object.fromEntries(dimensions.map(({ name }) => [name, (listed[name] ?? ranged[name]) as number]))
    }),
  )
}

const valueAt = ({ low, high, isLog }: Extract<Dimension, { kind: 'range' }>, lot: number): number =>
  Number((isLog ? low * (high / low) ** lot : low + (high - low) * lot).toPrecision(digitsShown))

/**
 * The index-th point of the Halton sequence (Halton 1960: the digits of the index in base p, mirrored at the point), each
 * dimension turned by a shift of its own modulo 1 (Cranley & Patterson 1976), so that a seed gives another even spread.
 */
const spread = (index: number, ranges: readonly unknown[], seed: number): number[] =>
  ranges.map((_, place) => {
    const base = primes[place] as number
    let [lot, part] = [0, 1]
    for (let rest = index + 1; rest > 0; rest = Math.floor(rest / base)) {
      part /= base
      lot += part * (rest % base)
    }
    return (lot + seed * Math.sqrt(base)) % 1
  })
