// What every row contributes whoever the candidate is, as columns over `otel.routing_decisions`: its group, its outcomes, the
// logged probability of each arm and what the outcome model expects of it. Arms are columns of their own rather than arrays,
// because ClickHouse multiplies columns many times faster than it walks arrays. The fitted model comes along as bytes.
import { sqlNumber, sqlString } from '../../../router/policy/sql-text.ts'
import { metricCount, metricNames, metrics } from '../../estimate/metrics.ts'
import { foldCount } from '../../estimate/outcome-cells.ts'
import type { Fit } from '../chunk.ts'
import { octaveMax } from '../survey.ts'
import { clusterSql, outcomeSql } from '../survey-sql.ts'
import { type CandidateTally, kindsShownMax, partGroups, partTerms } from '../tallies.ts'

/** Metrics that the log knows anything about, by index. */
export const measuredOf = ({ models }: Fit): number[] =>
  models.flatMap((model, metric) => (model === null ? [] : [metric]))

/**
 * With short circuits ClickHouse computes what lazy columns share again and again, layer by layer: four times the work in all. The
 * two optimizations find nothing in these queries, and take longer to look for it than all other planning. Hundreds of columns
 * stay in the processor's cache only in small blocks. Rows that replace one another are of one day, which is a partition. The size of
 * the syntax tree is held by that of the text.
 */
export const settings = `SETTINGS short_circuit_function_evaluation = 'disable', optimize_and_compare_chain = 0,
  optimize_syntax_fuse_functions = 0, max_block_size = 8192, do_not_merge_across_partitions_select_final = 1, max_ast_elements = 200000`

/** The rows that a condition holds for, to stand after FROM. */
export const loggedRows = (selected: string): string => `(SELECT * FROM otel.routing_decisions FINAL WHERE ${selected})`

/** What a query of sums gives: one row of numbers, lists, ends of ids, and pairs of a key and a sum. */
export type SumsRow = Readonly<Record<string, number | null | readonly number[] | readonly string[] | readonly Pair[]>>
export type Pair = readonly [key: number, sum: number]

/** `SELECT *` and more, to stand after FROM. */
export const layer = (source: string, columns: readonly string[]): string =>
  columns.length === 0 ? source : `(SELECT *,\n  ${columns.join(',\n  ')}\nFROM ${source})`

/** Σ by a whole number below `count`; an array of Float64. */
export const sumBy = (sql: string, key: string, count: number): string =>
  `sumResample(0, ${count}, 1)(toFloat64(${sql}), toUInt32(${key}))`

/** The same as pairs of a key and its sum, without those that are 0: most of them, where there are many. */
export const pairsBy = (sql: string, key: string, count: number): string =>
  `arrayFilter(pair -> pair.2 != 0, arrayZip(range(${count}), ${sumBy(sql, key, count)}))`

/** Σ by kind, half of the window and group: the parts of a log that are compared on their own. */
export const sumByPart = (sql: string): string =>
  sumBy(sql, `(x_kind * 2 + x_later) * ${partGroups} + x_group % ${partGroups}`, (kindsShownMax + 1) * 2 * partGroups)

/** Takes such sums: a row counts in the part of its kind, where that is shown, and in its half of the window. */
export const readParts = (sums: readonly number[], metric: number, at: number, { parts }: CandidateTally): void => {
  for (const [key, sum] of sums.entries()) {
    const [group, later, kind] = [
      key % partGroups,
      Math.floor(key / partGroups) % 2,
      Math.floor(key / (2 * partGroups)),
    ]
    for (const part of kind > 0 ? [kind - 1, kindsShownMax + later] : [kindsShownMax + later]) {
      const place = ((part * partGroups + group) * metricCount + metric) * partTerms + at
      parts[place] = (parts[place] as number) + sum
    }
  }
}

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
  if (!clusters.groupOf) return `x_cluster % ${clusters.groupCount}`
  const hashes = BigUint64Array.from([...clusters.groupOf.keys()], (hash) => BigInt(hash))
  // Groups are numbered in the order of the map.
  return `transform(x_cluster, ${constant(hashes, 'UInt64')}, ${indexes(hashes.length)}, 0)`
}

const kindSql = ({ survey: { kinds } }: Fit): string => {
  const named = kinds.slice(1)
  if (named.length === 0) return '0'
  const keys = named.map(({ tier, category }) => sqlString(`${Buffer.byteLength(tier)}:${tier}${category}`))
  const key = "concat(toString(length(tier)), ':', tier, tags['category'])"
  return `transform(${key}, [${keys.join(', ')}], arrayMap(x -> x + 1, ${indexes(named.length)}), 0)`
}

/**
 * What the model expects, by cell and arm: one list of values each, which beside `x_cells` is a small hash table. To look forty
 * values up in it takes a third of joining them.
 */
const expectedSql = (fit: Fit): { readonly constants: string; readonly columns: readonly string[] } => {
  const { cells, armNames, kinds } = fit.survey
  const keys = new Map<number, readonly [fold: number, octave: number, kind: number]>()
  for (let cell = 0; cell < cells.count; cell++) {
    const place = [cells.fold, cells.octave, cells.kind].map((of) => of[cell] as number) as [number, number, number]
    const [fold, octave, kind] = place
    keys.set((fold * (octaveMax + 1) + octave) * kinds.length + kind, place)
  }
  const places = [...keys.values()]
  const lists = measuredOf(fit).flatMap((metric) =>
    armNames.map((_, arm) => ({
      name: `x_q_${metric}_${arm}`,
      values: places.map(([fold, octave, kind]) => fit.models[metric]?.(fold, arm, octave, kind) ?? 0),
    })),
  )
  const all = Float64Array.from(lists.flatMap(({ values }) => values))
  const list = (at: number) => `arraySlice(x_expected, ${at * places.length + 1}, ${places.length})`
  return {
    constants: `${constant(BigUint64Array.from(keys.keys(), BigInt), 'UInt64')} AS x_cells, ${constant(all, 'Float64')} AS x_expected`,
    columns: lists.map(({ name }, at) => `transform(x_cell, x_cells, ${list(at)}, 0.0) AS ${name}`),
  }
}

/** 1/ρ times all over known outcomes of the arm's rows; 0 where the outcome is not known. */
const keepSql = ({ isPartial, keepRatio, survey: { armNames } }: Fit, metric: number): string => {
  if (!isPartial[metric]) return 'x_keep'
  const ratios = armNames.map((_, arm) => sqlNumber(keepRatio[metric * armNames.length + arm] ?? 0))
  return `if(isNull(m_${metric}), 0.0, x_keep * [${ratios.join(', ')}][x_arm + 1])`
}

/**
 * The rows of `logged` with, besides all of its columns: `x_group`, `x_keep` (1/ρ), `x_arm`, `x_kind` (0 beyond those shown),
 * `x_later`, `x_cut`, `x_end` (of the id), `x_lot`; by arm `x_ix_A` (place among the candidates), `x_is_A` (1 for the logged choice),
 * `x_b_A` (π_b), `x_usd_A` (predicted); and by metric `m_M` (Nullable), `x_r_M`, `x_k_M`, `x_q_M` (expected of the logged choice),
 * `x_q_M_A`, `x_qb_M` (Σ π_b q) and `x_left_M` (r − q).
 */
export const rowsSql = (fit: Fit, logged: string): string => {
  const { armNames, kinds, objective } = fit.survey
  const outcomes = outcomeSql(objective)
  const judged = `(SELECT decision_id AS x_judged, toNullable(least(1, greatest(0, score))) AS quality
    FROM otel.feedback_by_decision WHERE name = 'quality')`
  const joined = `(SELECT * FROM ${logged} AS d ANY LEFT JOIN ${judged} AS f ON d.decision_id = f.x_judged)`
  const measured = measuredOf(fit)
  const octave = `toUInt32(least(${octaveMax}, round(log2(1 + request_input_tokens))))`
  const expected = expectedSql(fit)
  const first = layer(joined, [
    `${clusterSql} AS x_cluster`,
    '1 / keep_probability AS x_keep',
    `toUInt32(${armSql(fit, 'chosen_model')}) AS x_arm`,
    `toUInt32(${kindSql(fit)}) AS x_any_kind`,
    `toUnixTimestamp64Milli(decision_time) >= ${sqlNumber(fit.middleMs)} AS x_later`,
    `(outcome = 'client-abort' OR positionCaseInsensitive(error_type, 'timeout') > 0) AS x_cut`,
    `${endOfId} AS x_end`,
    "bitShiftRight(xxHash64(concat(toString(decision_id), '|replay|sample')), 11) AS x_lot",
    ...armNames.map((name, arm) => `indexOf(candidates.model, ${sqlString(name)}) AS x_ix_${arm}`),
    ...measured.map((metric) => `${outcomes[metricNames[metric] as keyof typeof metrics]} AS m_${metric}`),
  ])
  const placed = layer(first, [
    `toUInt32(${groupSql(fit)}) AS x_group`,
    `(x_cluster % ${foldCount} * ${octaveMax + 1} + ${octave}) * ${kinds.length} + x_any_kind AS x_cell`,
    `if(x_any_kind > ${kindsShownMax}, 0, x_any_kind) AS x_kind`,
    "toFloat64(chosen_model = '') AS x_b_0",
    'CAST(0.0 AS Nullable(Float64)) AS x_usd_0',
    ...armNames.map((_, arm) => `toFloat64(x_arm = ${arm}) AS x_is_${arm}`),
    ...armNames.slice(1).map((_, at) => `candidates.probability[x_ix_${at + 1}] AS x_b_${at + 1}`),
    ...armNames.slice(1).map((_, at) => `\`candidates.cost_usd\`[x_ix_${at + 1}] AS x_usd_${at + 1}`),
    ...measured.flatMap((metric) => [
      `ifNull(m_${metric}, 0.0) AS x_r_${metric}`,
      `${keepSql(fit, metric)} AS x_k_${metric}`,
    ]),
  ])
  const looked = `(WITH ${expected.constants} SELECT *,\n  ${expected.columns.join(',\n  ')}\nFROM ${placed})`
  const each = (metric: number) => armNames.map((_, arm) => `x_q_${metric}_${arm}`)
  const known = layer(
    looked,
    measured.flatMap((metric) => [
      `${plus(each(metric).map((q, arm) => `x_b_${arm} * ${q}`))} AS x_qb_${metric}`,
      `${ofArm(each(metric))} AS x_q_${metric}`,
    ]),
  )
  return layer(
    known,
    measured.map((metric) => `x_r_${metric} - x_q_${metric} AS x_left_${metric}`),
  )
}

/** The end of an id as a number, by which its row can be found: its beginning is a time, and shared by many. */
export const endOfId = 'toUInt64(bitShiftRight(reinterpretAsUInt128(decision_id), 64))'

/** What the router predicted of an arm, for what production never tries: Nullable; null where nothing is predicted of the metric. */
export const predictedSql = (metric: number, arm: number): string | null => {
  const { predictedBy } = metrics[metricNames[metric] as keyof typeof metrics]
  if (!predictedBy) return null
  if (arm > 0) return `\`candidates.${predictedBy}\`[x_ix_${arm}]`
  // To serve nothing costs nothing; how long that takes is not predicted.
  return predictedBy === 'cost_usd' ? 'toNullable(0.0)' : 'CAST(NULL AS Nullable(Float64))'
}
