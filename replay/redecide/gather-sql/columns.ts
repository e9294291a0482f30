// What every row contributes whoever the candidate is, as columns over `otel.routing_decisions`: its group, its outcomes, the
// logged probability of each arm and what the outcome model expects of it. Arms are columns of their own rather than arrays,
// because ClickHouse multiplies columns many times faster than it walks arrays. The fitted model comes along as bytes.
import { sqlNumber, sqlString } from '../../../router/policy/sql-text.ts'
import { metricNames, metrics } from '../../estimate/metrics.ts'
import { foldCount } from '../../estimate/outcome-cells.ts'
import type { Fit } from '../chunk.ts'
import { octaveMax } from '../survey.ts'
import { clusterSql, outcomeSql } from '../survey-sql.ts'
import { kindsShownMax } from '../tallies.ts'

/** Metrics that the log knows anything about, by index. */
export const measuredOf = ({ models }: Fit): number[] =>
  models.flatMap((model, metric) => (model === null ? [] : [metric]))

/** Without it ClickHouse computes what lazy columns share again and again, layer by layer: four times the work in all. */
export const settings = "SETTINGS short_circuit_function_evaluation = 'disable'"

/** The rows that a condition holds for, to stand after FROM. */
export const loggedRows = (selected: string): string => `(SELECT * FROM otel.routing_decisions FINAL WHERE ${selected})`

/** What a query of sums gives: one row of numbers and arrays. */
export type SumsRow = Readonly<Record<string, number | null | readonly number[] | readonly string[]>>

/** `SELECT *` and more, to stand after FROM. */
export const layer = (source: string, columns: readonly string[]): string =>
  `(SELECT *,\n  ${columns.join(',\n  ')}\nFROM ${source})`

/** Σ by a whole number below `count`; an array of Float64. */
export const sumBy = (sql: string, key: string, count: number): string =>
  `sumResample(0, ${count}, 1)(toFloat64(${sql}), toUInt32(${key}))`

/** a + b + …, or 0. */
export const plus = (parts: readonly string[]): string => (parts.length === 0 ? '0.0' : parts.join(' + '))

/** The value that belongs to the row's own arm. */
export const ofArm = (values: readonly string[]): string => plus(values.map((value, arm) => `x_is_${arm} * ${value}`))

/** Numbers as a constant: eight bytes each, where decimal text would take twenty. */
const constant = (numbers: Float64Array | BigUint64Array, type: 'Float64' | 'UInt64'): string =>
  `(SELECT reinterpret(base64Decode('${Buffer.from(numbers.buffer).toString('base64')}'), 'Array(${type})'))`

const indexes = (count: number): string => `range(${count})`

/** An arm's number, in the order of the survey; 0 for the choice of nothing. */
export const armSql = ({ survey: { armNames } }: Fit, model: string): string =>
  `transform(toString(${model}), [${armNames.map(sqlString).join(', ')}], ${indexes(armNames.length)}, 0)`

const groupSql = ({ survey: { clusters } }: Fit): string => {
  if (!clusters.groupOf) return `(${clusterSql}) % ${clusters.groupCount}`
  const hashes = BigUint64Array.from([...clusters.groupOf.keys()], (hash) => BigInt(hash))
  // Groups are numbered in the order of the map.
  return `transform(${clusterSql}, ${constant(hashes, 'UInt64')}, ${indexes(hashes.length)}, 0)`
}

const kindSql = ({ survey: { kinds } }: Fit): string => {
  const named = kinds.slice(1)
  if (named.length === 0) return '0'
  const keys = named.map(({ tier, category }) => sqlString(`${Buffer.byteLength(tier)}:${tier}${category}`))
  const key = "concat(toString(length(tier)), ':', tier, tags['category'])"
  return `transform(${key}, [${keys.join(', ')}], arrayMap(x -> x + 1, ${indexes(named.length)}), 0)`
}

/** What the model expects, by cell and arm, as a table to join: one row for each cell that the log has. */
const modelSql = (fit: Fit): string => {
  const { cells, armNames, kinds } = fit.survey
  const measured = measuredOf(fit)
  const rows = new Map<number, number[]>()
  for (let cell = 0; cell < cells.count; cell++) {
    const place = [cells.fold, cells.octave, cells.kind].map((of) => of[cell] as number) as [number, number, number]
    const [fold, octave, kind] = place
    const key = (fold * (octaveMax + 1) + octave) * kinds.length + kind
    if (rows.has(key)) continue
    const values = measured.flatMap((metric) =>
      armNames.map((_, arm) => fit.models[metric]?.(fold, arm, octave, kind) ?? 0),
    )
    rows.set(key, values)
  }
  const names = measured.flatMap((metric) => armNames.map((_, arm) => `x_q_${metric}_${arm}`))
  const keys = constant(Float64Array.from(rows.keys()), 'Float64')
  const values = constant(Float64Array.from([...rows.values()].flat()), 'Float64')
  const columns = names.map((name, at) => `x_values[number * ${names.length} + ${at + 1}] AS ${name}`)
  return `(WITH ${keys} AS x_keys, ${values} AS x_values
    SELECT toUInt32(x_keys[number + 1]) AS x_key, ${columns.join(', ')} FROM numbers(${rows.size}))`
}

/** 1/ρ times all over known outcomes of the arm's rows; 0 where the outcome is not known. */
const keepSql = ({ isPartial, keepRatio, survey: { armNames } }: Fit, metric: number): string => {
  if (!isPartial[metric]) return 'x_keep'
  const ratios = armNames.map((_, arm) => sqlNumber(keepRatio[metric * armNames.length + arm] ?? 0))
  return `if(isNull(m_${metric}), 0.0, x_keep * [${ratios.join(', ')}][x_arm + 1])`
}

/**
 * The rows of `logged` with, besides all of its columns: `x_group`, `x_keep` (1/ρ), `x_arm`, `x_kind` (0 beyond those shown),
 * `x_later`, `x_cut`, by arm `x_ix_A` (place among the candidates), `x_is_A` (1 for the logged choice), `x_b_A` (π_b), and by metric `m_M` (Nullable), `x_r_M`,
 * `x_k_M`, `x_q_M` (expected of the logged choice), `x_q_M_A` and `x_qb_M` (Σ π_b q).
 */
export const rowsSql = (fit: Fit, logged: string): string => {
  const { armNames, kinds, objective } = fit.survey
  const outcomes = outcomeSql(objective)
  const judged = `(SELECT decision_id AS x_judged, toNullable(least(1, greatest(0, score))) AS quality
    FROM otel.feedback FINAL WHERE name = 'quality')`
  const joined = `(SELECT * FROM ${logged} AS d ANY LEFT JOIN ${judged} AS f ON d.decision_id = f.x_judged)`
  const measured = measuredOf(fit)
  const octave = `toUInt32(least(${octaveMax}, round(log2(1 + request_input_tokens))))`
  const first = layer(joined, [
    `toUInt32(${groupSql(fit)}) AS x_group`,
    '1 / keep_probability AS x_keep',
    `toUInt32(${armSql(fit, 'chosen_model')}) AS x_arm`,
    `toUInt32(${kindSql(fit)}) AS x_any_kind`,
    `toUnixTimestamp64Milli(decision_time) >= ${sqlNumber(fit.middleMs)} AS x_later`,
    `(outcome = 'client-abort' OR positionCaseInsensitive(error_type, 'timeout') > 0) AS x_cut`,
    `toUInt32(((${clusterSql}) % ${foldCount} * ${octaveMax + 1} + ${octave}) * ${kinds.length} + x_any_kind) AS x_key`,
    `if(x_any_kind > ${kindsShownMax}, 0, x_any_kind) AS x_kind`,
    ...armNames.map((name, arm) => `indexOf(candidates.model, ${sqlString(name)}) AS x_ix_${arm}`),
    ...measured.map((metric) => `${outcomes[metricNames[metric] as keyof typeof metrics]} AS m_${metric}`),
  ])
  const expected = `(SELECT * FROM ${first} AS r ANY LEFT JOIN ${modelSql(fit)} AS q USING x_key)`
  const each = (metric: number) => armNames.map((_, arm) => `x_q_${metric}_${arm}`)
  const known = layer(expected, [
    "toFloat64(chosen_model = '') AS x_b_0",
    ...armNames.map((_, arm) => `toFloat64(x_arm = ${arm}) AS x_is_${arm}`),
    ...armNames.slice(1).map((_, at) => `candidates.probability[x_ix_${at + 1}] AS x_b_${at + 1}`),
    ...measured.flatMap((metric) => [
      `ifNull(m_${metric}, 0.0) AS x_r_${metric}`,
      `${keepSql(fit, metric)} AS x_k_${metric}`,
      `${plus(each(metric).map((q, arm) => `x_b_${arm} * ${q}`))} AS x_qb_${metric}`,
    ]),
  ])
  return layer(
    known,
    measured.map((metric) => `${ofArm(each(metric))} AS x_q_${metric}`),
  )
}

/** What the router predicted of an arm, for what production never tries: Nullable; null where nothing is predicted of the metric. */
export const predictedSql = (metric: number, arm: number): string | null => {
  const { predictedBy } = metrics[metricNames[metric] as keyof typeof metrics]
  if (!predictedBy) return null
  if (arm > 0) return `\`candidates.${predictedBy}\`[x_ix_${arm}]`
  // To serve nothing costs nothing; how long that takes is not predicted.
  return predictedBy === 'cost_usd' ? 'toNullable(0.0)' : 'CAST(NULL AS Nullable(Float64))'
}
