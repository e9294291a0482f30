// The survey where the data is: what a pass over all records would find, asked of ClickHouse in four questions. It is the same
// survey, up to rounding of sums; a test holds the two together. Where something is out of the ordinary — rows that columns
// cannot say, repeated ids, impossible probabilities, draws by user or tenant, a judge's scores, feedback that may be late — it
// gives null, and the records are read.
import type { FeatureTypes } from '../../router/policy/cel.ts'
import { columnFeatures } from '../../router/policy/sql-columns.ts'
import { type MetricName, metricNames, type Objective } from '../estimate/metrics.ts'
import { type Cell, collected, foldCount } from '../estimate/outcome-cells.ts'
import type { Source } from '../read/source.ts'
import { type ClusterKey, clusterKeysOf, groupCountOf, groupsMax } from './clusters.ts'
import { byRows, type Kind, keptLeast, kindsMax, modelled, octaveMax, type Survey, sumTolerance } from './survey.ts'
import type { LoggedPolicy } from './verify.ts'

type Ask = NonNullable<Source['ask']>

/** The cluster of a row that only sessions link: the hash of clusters.ts. */
export const clusterSql = `bitShiftRight(if(session != '', xxHash64(concat(session, '|session|cluster')),
    xxHash64(concat(toString(decision_id), '|id|cluster'))), 11)`

const impossibleSql = `(keep_probability < ${keptLeast} OR NOT abs(arraySum(candidates.probability) - (chosen_model != '')) <= ${sumTolerance}
    OR length(arrayDistinct(candidates.model)) < length(candidates.model)
    OR (chosen_model != '' AND arraySum((model, p) -> if(model = chosen_model, p, 0), candidates.model, candidates.probability) = 0))`

/** Metrics as columns of `decisions`, NULL where not known. */
export const outcomeSql = ({ slowAboveMs }: Objective): Readonly<Record<MetricName, string>> => ({
  cost_usd: 'cost_usd',
  latency_ms: 'latency_ms',
  ttft_ms: 'ttft_ms',
  slow: slowAboveMs === null ? 'CAST(NULL AS Nullable(Float64))' : `toFloat64(latency_ms > ${Number(slowAboveMs)})`,
  quality: 'quality',
  failed: "if(outcome = '', NULL, toNullable(toFloat64(outcome IN ('error', 'upstream-cut', 'no-candidate'))))",
  abandoned: "if(outcome = '', NULL, toNullable(toFloat64(outcome = 'client-abort')))",
})

export const surveySql = async (
  ask: Ask,
  policies: readonly LoggedPolicy[],
  objective: Objective,
): Promise<Survey | null> => {
  if (objective.horizon) return null
  const decided = await ask<{ name: string; hash: string; rows: string }>(
    (selected) => `SELECT policy_name AS name, policy_hash AS hash, toString(count()) AS rows
    FROM otel.routing_decisions FINAL WHERE ${selected} GROUP BY name, hash ORDER BY count() DESC, hash`,
  )
  const keys = clusterKeysOf(
    decided.map(({ hash }) => hash),
    policies,
  )
  if ([...keys.values()].some((of) => of.length > 1)) return null
  if (await isJudged(ask)) return null
  const facts = await factsOf(ask)
  if (!facts || Number(facts.unusual) > 0 || facts.ids !== facts.rows || Number(facts.rows) === 0) return null
  const [clusters, features] = [await clustersOf(ask, keys), await featuresOf(ask)]
  const armNames = facts.arms
  const rows = Number(facts.rows)
  return modelled({
    rows,
    duplicates: 0,
    impossibleCount: 0,
    impossible: [],
    fromMs: Number(facts.from_ms),
    toMs: Number(facts.to_ms),
    policies: decided.map(({ name, hash, rows: count }) => ({ name, hash, rows: Number(count) })),
    armNames,
    clusters,
    eligible: Number(facts.eligible),
    features,
    objective,
    judging: null,
    feedback: null,
    ...(await cellsOf(ask, armNames, objective, rows)),
  })
}

/** Whether a judge model scored any of the answers: correcting it takes two looks. */
const isJudged = async (ask: Ask): Promise<boolean> => {
  const found = await ask<{ name: string }>(
    // Few logs have such scores at all, and then nothing needs to be looked up.
    (selected) => `SELECT policy_name AS name FROM otel.routing_decisions WHERE ${selected}
      AND decision_id IN (SELECT decision_id FROM otel.judgements WHERE name = 'quality_judge') LIMIT 1`,
  )
  return found.length > 0
}

type Facts = Readonly<Record<'rows' | 'ids' | 'unusual' | 'from_ms' | 'to_ms' | 'eligible', string>> & {
  readonly arms: readonly string[]
}

const factsOf = async (ask: Ask): Promise<Facts | undefined> => {
  const [facts] = await ask<Facts>(
    (selected) => `SELECT toString(count()) AS rows, toString(uniqExact(decision_id)) AS ids,
      toString(countIf(irregular IS NOT NULL OR ${impossibleSql})) AS unusual,
      toString(toUnixTimestamp64Milli(min(decision_time))) AS from_ms, toString(toUnixTimestamp64Milli(max(decision_time))) AS to_ms,
      toString(sum(arrayCount(candidates.eligible))) AS eligible,
      arraySort(arrayDistinct(arrayConcat(groupUniqArrayArray(candidates.model), groupUniqArray(chosen_model), ['']))) AS arms
    FROM otel.routing_decisions FINAL WHERE ${selected}`,
  )
  return facts
}

const clustersOf = async (
  ask: Ask,
  keysOfPolicy: ReadonlyMap<string, readonly ClusterKey[]>,
): Promise<Survey['clusters']> => {
  const [found] = await ask<{ count: string; later: string; some: string[] }>(
    (selected) => `SELECT toString(uniqExact(${clusterSql})) AS count,
      toString(countIf(session != '') - uniqExactIf(session, session != '')) AS later,
      arrayMap(c -> toString(c), arraySort(groupUniqArray(${groupsMax + 1})(${clusterSql}))) AS some
    FROM otel.routing_decisions FINAL WHERE ${selected}`,
  )
  const count = Number(found?.count ?? 0)
  return {
    keys: ['session'],
    keysOfPolicy,
    count,
    laterTurns: Number(found?.later ?? 0),
    groupCount: groupCountOf(count),
    rootOf: new Map(),
    groupOf: count > groupsMax ? null : new Map(found?.some.map((cluster, at) => [Number(cluster), at])),
  }
}

/** What signalbox.yaml added, beside what every router knows. */
const featuresOf = async (ask: Ask): Promise<FeatureTypes> => {
  const extra = await ask<{ name: string; type: string }>(
    (
      selected,
    ) => `SELECT kv.1 AS name, max(multiIf(kv.2 = 'null', '', startsWith(kv.2, '"'), 'string', kv.2 IN ('true', 'false'), 'bool', 'double')) AS type
    FROM (SELECT arrayJoin(JSONExtractKeysAndValuesRaw(arrayJoin(arrayDistinct(candidates.extra)))) AS kv
      FROM otel.routing_decisions FINAL WHERE ${selected} AND arrayExists(text -> text != '', candidates.extra))
    GROUP BY name`,
  )
  const types = Object.fromEntries(extra.map(({ name, type }) => [name, type || 'double']))
  return { ...columnFeatures, ...(types as FeatureTypes) }
}

type CellRow = {
  readonly fold: number
  readonly arm: string
  readonly octave: number
  readonly tier: string
  readonly category: string
  readonly rows: number
  readonly keep: number
  readonly sums: readonly number[]
}

const cellsOf = async (
  ask: Ask,
  armNames: readonly string[],
  objective: Objective,
  rows: number,
): Promise<Pick<Survey, 'kinds' | 'cells'>> => {
  const outcomes = outcomeSql(objective)
  const sums = metricNames.flatMap((name) => {
    const r = `m_${name}`
    return [
      `toFloat64(count(${r}))`,
      `sumIf(k, isNotNull(${r}))`,
      `sum(k * ifNull(${r}, 0))`,
      `sum(k * ifNull(${r} * ${r}, 0))`,
    ]
  })
  const found = await ask<CellRow>(
    (
      selected,
    ) => `SELECT fold, arm, octave, tier, category, toFloat64(count()) AS rows, sum(k) AS keep, [${sums.join(', ')}] AS sums
    FROM (
      SELECT toUInt8(${clusterSql} % ${foldCount}) AS fold, chosen_model AS arm, tier, tags['category'] AS category, 1 / keep_probability AS k,
        toUInt8(least(${octaveMax}, round(log2(1 + request_input_tokens)))) AS octave,
        ${metricNames.map((name) => `${outcomes[name]} AS m_${name}`).join(', ')}
      FROM (SELECT * FROM otel.routing_decisions FINAL WHERE ${selected}) AS d
      LEFT JOIN (
        SELECT decision_id AS judged, toNullable(least(1, greatest(0, score))) AS quality
        FROM otel.feedback_by_decision WHERE name = 'quality'
      ) AS f ON d.decision_id = f.judged
    ) GROUP BY fold, arm, octave, tier, category ORDER BY fold, arm, octave, tier, category`,
  )
  const kinds = kindsOf(found, rows)
  const armOf = new Map(armNames.map((name, at) => [name, at]))
  const kindOf = new Map(
    kinds.map(({ tier, category }, at) => [JSON.stringify([tier, category]), at] as const).slice(1),
  )
  const cells = found.map(
    ({ fold, arm, octave, tier, category }): Cell => ({
      fold,
      arm: armOf.get(arm) ?? 0,
      octave,
      kind: kindOf.get(JSON.stringify([tier, category])) ?? 0,
    }),
  )
  const keep = Float64Array.from(found, (row) => row.keep)
  const all = Float64Array.from(found.flatMap((row) => row.sums))
  return { kinds, cells: collected(cells, keep, all, metricNames.length) }
}

const kindsOf = (cells: readonly CellRow[], all: number): Kind[] => {
  const counts = new Map<string, { tier: string; category: string; rows: number }>()
  for (const { tier, category, rows } of cells) {
    const key = JSON.stringify([tier, category])
    const kind = counts.get(key) ?? { tier, category, rows: 0 }
    kind.rows += rows
    counts.set(key, kind)
  }
  const kept = [...counts.values()].sort(byRows).slice(0, kindsMax - 1)
  return [{ tier: '', category: '', rows: all - kept.reduce((sum, { rows }) => sum + rows, 0) }, ...kept]
}
