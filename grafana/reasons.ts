// The later rows of the dashboard, for whoever asks why: why traffic goes where it goes, where its time goes, and what
// happened to one request.
import { Dollars, Milliseconds, PercentUnit, Short } from '@grafana/grafana-foundation-sdk/units'
import { type Row, unit } from './panels.ts'
import { attempts, candidates, chosenModel, decisions, knownCost, named, overTime, traceOf } from './sql.ts'

const decisionsShownMax = 200

export const choice: Row = {
  title: 'Why it goes where it goes',
  panels: [
    {
      kind: 'bars',
      title: 'Share of choices by model',
      description:
        'Which model is chosen first, and when did that change? Fallbacks are not choices and are not in here.',
      span: 12,
      unit: Short,
      label: 'model',
      percent: true,
      sql: overTime('count() AS choices', decisions, chosenModel),
    },
    {
      kind: 'bars',
      title: 'Share of choices by reason',
      description: 'Is traffic placed by score, by weight, by exploration, or because nothing else was left?',
      span: 12,
      unit: Short,
      label: 'reason',
      percent: true,
      sql: overTime('count() AS choices', decisions, { name: 'reason', of: named('reason') }),
    },
    {
      kind: 'lines',
      title: 'Probability and exploration',
      description:
        'Can this traffic be replayed under another policy? That needs choices whose probability is below one: with no exploration there is nothing to compare with.',
      span: 8,
      unit: PercentUnit,
      sql: overTime('avg(probability) AS mean_probability, countIf(explored) / count() AS explored', decisions),
    },
    {
      kind: 'bars',
      title: 'Exclusions by reason',
      description:
        'Why are models not even considered? Each bar counts models ruled out, so one decision may count several times.',
      span: 16,
      unit: Short,
      label: 'reason',
      sql: overTime(
        'count() AS exclusions',
        { ...candidates, from: `${candidates.from}\n  AND NOT candidate.eligible` },
        { name: 'reason', of: named('candidate.exclusion') },
      ),
    },
    {
      kind: 'table',
      title: 'Candidates',
      description:
        'How does each model fare in the competition: how often is it considered, eligible and chosen, and what rules it out most?',
      span: 24,
      columns: {
        eligible: [unit(PercentUnit)],
        chosen: [unit(PercentUnit)],
        mean_probability: [unit(PercentUnit)],
        predicted_cost_usd: [unit(Dollars)],
        predicted_ttft_ms: [unit(Milliseconds)],
      },
      sql: `SELECT candidate.model AS model, count() AS considered,
  countIf(candidate.eligible) / count() AS eligible, countIf(candidate.model = chosen_model) / count() AS chosen,
  avg(candidate.probability) AS mean_probability, avg(candidate.score) AS mean_score,
  avg(candidate.cost_usd) AS predicted_cost_usd, avg(candidate.ttft_ms) AS predicted_ttft_ms,
  topKIf(1)(${named('candidate.exclusion')}, NOT candidate.eligible)[1] AS mostly_excluded_by
${candidates.from}
GROUP BY model
ORDER BY considered DESC, model`,
    },
  ],
}

export const time: Row = {
  title: 'Where the time goes',
  panels: [
    {
      kind: 'bars',
      title: 'Mean time by phase',
      description:
        'Is it us or them? Where a mean request spends its time: queue, parse, admit, cache, decide and finish are ours, the others a provider’s.',
      span: 8,
      unit: Milliseconds,
      label: 'phase',
      sql: `SELECT time, phase, total / requests AS ms
FROM (
  ${overTime('sumMap(phases) AS totals, count() AS requests', decisions).replaceAll('\n', '\n  ')}
)
ARRAY JOIN mapKeys(totals) AS phase, mapValues(totals) AS total
ORDER BY time, phase`,
    },
    {
      kind: 'table',
      title: 'Targets',
      description: 'How well does each target answer when it is called? Slow and failing ones stand on top.',
      span: 16,
      columns: {
        failed: [unit(PercentUnit)],
        ttft_p50: [unit(Milliseconds)],
        ttft_p95: [unit(Milliseconds)],
        duration_p95: [unit(Milliseconds)],
        known_cost_usd: [unit(Dollars)],
      },
      sql: `SELECT model, provider, server_address AS server, count() AS attempts,
  countIf(error_type != '') / count() AS failed,
  quantile(0.5)(ttft_ms) AS ttft_p50, quantile(0.95)(ttft_ms) AS ttft_p95, quantile(0.95)(duration_ms) AS duration_p95,
  1000 * sum(output_tokens) / nullIf(sumIf(duration_ms, output_tokens IS NOT NULL), 0) AS tokens_per_s,
  ${knownCost('sum')} AS known_cost_usd, countIf(cost_usd IS NULL) AS unknown_cost
${attempts.from}
GROUP BY model, provider, server
ORDER BY failed DESC, ttft_p95 DESC, model`,
    },
  ],
}

/** Shows the row's trace in the panel below, keeping what is selected. */
const selection = ['datasource', 'policy', 'model', 'tenant'].map((name) => `\${${name}:queryparam}`).join('&')
const showTraceBelow = {
  id: 'links',
  value: [
    {
      title: 'Show the trace below',
      url: `/d/\${__dashboard.uid}?\${__url_time_range}&${selection}&var-trace=\${__data.fields.trace_id}`,
    },
  ],
}

/** `model: reason` of each candidate that was ruled out. */
const excluded = `arrayStringConcat(arrayMap(c -> c.1 || ': ' || c.2,
    arrayFilter(c -> c.2 != '', arrayZip(candidates.model, candidates.exclusion))), ', ')`

const latestTrace = `(
    SELECT toString(trace_id) ${decisions.from.replaceAll('\n', '\n    ')}
    ORDER BY decision_time DESC LIMIT 1
  )`

export const eachDecision: Row = {
  title: 'Each decision',
  panels: [
    {
      kind: 'table',
      title: 'Decisions',
      description: `What happened to one request? The latest ${decisionsShownMax} that are selected; trace_id opens the trace in Explore, decision_id shows it below.`,
      span: 24,
      columns: {
        decision_id: [showTraceBelow],
        probability: [unit(PercentUnit)],
        cost_usd: [unit(Dollars), { id: 'noValue', value: 'unknown' }],
        latency_ms: [unit(Milliseconds)],
        ttft_ms: [unit(Milliseconds)],
      },
      sql: `SELECT decision_time AS time, toString(trace_id) AS trace_id, toString(decision_id) AS decision_id,
  policy_name AS policy, requested_model AS requested, chosen_model AS chosen, served_model AS served,
  reason, probability, explored, outcome, http_status, error_type, attempts,
  ${excluded} AS excluded,
  cost_usd, latency_ms, ttft_ms, input_tokens, output_tokens, tenant
${decisions.from}
ORDER BY decision_time DESC
LIMIT ${decisionsShownMax}`,
    },
    {
      kind: 'trace',
      title: 'Trace',
      description:
        'Where did this one request spend its time, attempt by attempt? The trace named above the dashboard, or else the latest one selected.',
      span: 24,
      sql: traceOf(`coalesce(nullIf(\${trace:singlequote}, ''), ${latestTrace})`),
    },
  ],
}
