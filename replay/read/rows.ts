// Decision records from columns: the one place that spells, for reading, which column of `otel.routing_decisions` is which
// field. A record comes out equal to its JSON, key by key and bit by bit: rows whose columns cannot say all of it carry the JSON
// in `irregular` and are parsed. `recordsOf` needs nothing but the bytes of a result, so that a worker can be handed them.
import {
  type DecisionRecord,
  numberSources,
  type Outcome,
  outcomeStatuses,
  reasons,
  streamEnds,
} from '../../router/policy/record.ts'
import { allFeatures, candidateColumns, candidateReader, type ReadFeatures } from './candidates.ts'
import {
  type Block,
  blocksOf,
  boundsOf,
  columnOf,
  type Numbers,
  numberAt,
  type Texts,
  textAt,
  unexpected,
} from './native.ts'
import { parseRecord } from './parse.ts'

/** What to select from `otel.routing_decisions` for `recordsOf` of the same features; the feedback, `quality` and `quality_judge`, is joined to it. */
export const recordColumns = (features: ReadFeatures): readonly string[] => [
  'toString(decision_id) AS id',
  'toFloat64(toUnixTimestamp64Milli(decision_time)) AS time_ms',
  ...['session', 'engine', 'policy_name', 'policy_hash', 'path'],
  ...['requested_model', 'request_input_tokens', 'request_output_tokens_max', 'stream', 'tier', 'tenant', 'user'],
  'mapKeys(tags) AS `tags.keys`',
  'mapValues(tags) AS `tags.values`',
  ...candidateColumns(features).map((name) => `\`candidates.${name}\``),
  "CAST(`candidates.extra`, 'Array(LowCardinality(String))') AS `candidates.extra`",
  ...['chosen_model', 'reason', 'explored', 'plan', 'keep_probability'],
  ...['outcome', 'served_model', 'attempts', 'http_status', 'error_type', 'cost_usd', 'cost_source'],
  ...['latency_ms', 'ttft_ms', 'input_tokens', 'output_tokens', 'tokens_source', 'stream_end', 'irregular'],
]

type Scores = Pick<Outcome, 'quality' | 'quality_judge' | 'quality_time'>
type Feedback = (row: number) => Partial<Scores>

/** The scores of a row that there are, by people and by a judge model, as qualities between 0 and 1. */
const feedbackReader = (block: Block): Feedback => {
  const columns = (['quality', 'quality_judge'] as const).map(
    (name) => [name, columnOf(block, name, 'number')] as const,
  )
  const times = block.columns.has('quality_time_ms') ? columnOf(block, 'quality_time_ms', 'number') : null
  return (row) => {
    const scores: { -readonly [Name in keyof Scores]?: Scores[Name] } = {}
    for (const [name, column] of columns) {
      const score = numberAt(column, row)
      if (score !== null) scores[name] = Math.min(1, Math.max(0, score))
    }
    const timeMs = times && numberAt(times, row)
    if (timeMs !== null) scores.quality_time = timeOf(timeMs)
    return scores
  }
}

const withFeedback = (record: DecisionRecord, feedback: Partial<Scores>): DecisionRecord =>
  record.outcome ? { ...record, outcome: { ...record.outcome, ...feedback } } : record

/**
 * The records in a result in Native format of `recordColumns` and the feedback, by time and then by id. They are made one by one
 * as they are asked for, because a record that is let go before the next is made costs the collector of garbage nothing.
 * Throws a SourceError where the bytes are not such a result. Features with a column that is not among `features` are null.
 */
export function* recordsOf(result: ArrayBuffer, features = allFeatures): Generator<DecisionRecord> {
  const blocks = [...blocksOf(result)]
  const readers = blocks.map((block) => rowReader(block, features))
  let good = 0
  for (const { block, row } of inOrder(blocks)) yield (readers[block] as RowReader)(row, good++)
}

type RowReader = (row: number, readBefore: number) => DecisionRecord

/** Every row of every block. The sort is here because ClickHouse would move all columns of a row, and this moves one number. */
function* inOrder(blocks: readonly Block[]): Generator<{ readonly block: number; readonly row: number }> {
  const count = blocks.reduce((sum, { rows }) => sum + rows, 0)
  const [times, block, row] = [new Float64Array(count), new Uint32Array(count), new Uint32Array(count)]
  let at = 0
  for (const [number, { rows }] of blocks.entries()) {
    times.set(columnOf(blocks[number] as Block, 'time_ms', 'number').values, at)
    for (let within = 0; within < rows; within++, at++) {
      block[at] = number
      row[at] = within
    }
  }
  const ids = blocks.map((of) => columnOf(of, 'id', 'text'))
  const idAt = (place: number): string => textAt(ids[block[place] as number] as Texts, row[place] as number)
  const order = Array.from(times, (_, place) => place)
  order.sort((a, b) => (times[a] as number) - (times[b] as number) || (idAt(a) < idAt(b) ? -1 : 1))
  for (const place of order) yield { block: block[place] as number, row: row[place] as number }
}

/** One of the words that a field may be. */
const oneOf = <Word extends string>(words: readonly Word[], field: string): ((word: string) => Word) => {
  const known = new Set<string>(words)
  return (word) => {
    if (!known.has(word)) throw unexpected(`${field}: found '${word.slice(0, 100)}'; wanted ${words.join(', ')}`)
    return word as Word
  }
}
const reasonOf = oneOf(reasons, 'reason')
const statusOf = oneOf(outcomeStatuses, 'outcome.status')
const sourceOf = oneOf(numberSources, 'outcome source')
const streamEndOf = oneOf(streamEnds, 'outcome.stream_end')
const streamEndAt = (word: string): Outcome['stream_end'] => (word === '' ? null : streamEndOf(word))
const reasonAt = (word: string): Pick<DecisionRecord, 'reason'> => (word === '' ? {} : { reason: reasonOf(word) })

const minuteMs = 60_000
/** The minute said last: rows come by time, and most of what a date says is the same for thousands. */
let minute = { fromMs: Number.NaN, text: '' }

const timeOf = (ms: number): string => {
  const withinMs = ms - minute.fromMs
  if (!(withinMs >= 0 && withinMs < minuteMs)) minute = minuteOf(ms)
  const tail = String(100_000 + ms - minute.fromMs)
  return `${minute.text}${tail.slice(1, 3)}.${tail.slice(3)}Z`
}

const minuteOf = (ms: number): typeof minute => {
  const fromMs = Math.floor(ms / minuteMs) * minuteMs
  try {
    return { fromMs, text: new Date(fromMs).toISOString().slice(0, -'00.000Z'.length) }
  } catch {
    throw unexpected(`decision_time: found ${ms}; wanted milliseconds of the epoch`)
  }
}

/** Reads row by row what a block holds by column. */
const rowReader = (block: Block, features: ReadFeatures): RowReader => {
  const numbers = (name: string): Numbers => columnOf(block, name, 'number')
  const texts = (name: string): Texts => columnOf(block, name, 'text')
  const irregular = columnOf(block, 'irregular', 'text')
  const [id, timeMs, session, engine] = [texts('id'), numbers('time_ms').values, texts('session'), texts('engine')]
  const [policyName, policyHash, path] = [texts('policy_name'), texts('policy_hash'), listReader(block, 'path')]
  const [chosen, reason, explored] = [texts('chosen_model'), texts('reason'), numbers('explored').values]
  const [plan, keepProbability] = [listReader(block, 'plan'), numbers('keep_probability').values]
  const [requestOf, candidatesOf, outcomeOf] = [
    requestReader(block),
    candidateReader(block, features),
    outcomeReader(block),
  ]
  const feedbackOf = feedbackReader(block)
  return (row, readBefore) => {
    if (irregular.nulls?.[row] !== 1) {
      const parsed = parseRecord(textAt(irregular, row), `${textAt(id, row)} of otel.routing_decisions`, readBefore)
      return withFeedback(parsed, feedbackOf(row))
    }
    const outcome = outcomeOf(row, feedbackOf)
    return {
      v: 1,
      id: textAt(id, row),
      time: timeOf(timeMs[row] as number),
      session: textAt(session, row),
      engine: textAt(engine, row),
      policy: { name: textAt(policyName, row), hash: textAt(policyHash, row) },
      path: path(row),
      request: requestOf(row),
      candidates: candidatesOf(row),
      chosen: textAt(chosen, row) || null,
      ...reasonAt(textAt(reason, row)),
      explored: explored[row] === 1,
      plan: plan(row),
      keep_probability: keepProbability[row] as number,
      ...(outcome ? { outcome } : {}),
    }
  }
}

const listReader = (block: Block, name: string): ((row: number) => string[]) => {
  const { ends, items } = columnOf(block, name, 'array')
  if (items.kind !== 'text') throw unexpected(`column ${name} holds ${items.kind}; wanted text`)
  return (row) => {
    const [from, end] = boundsOf(ends, row)
    const texts = new Array<string>(end - from)
    for (let at = from; at < end; at++) texts[at - from] = textAt(items, at)
    return texts
  }
}

const requestReader = (block: Block): ((row: number) => DecisionRecord['request']) => {
  const texts = (name: string): Texts => columnOf(block, name, 'text')
  const inputTokens = columnOf(block, 'request_input_tokens', 'number').values
  const [outputTokensMax, stream] = [
    columnOf(block, 'request_output_tokens_max', 'number'),
    columnOf(block, 'stream', 'number').values,
  ]
  const [model, tier, tenant, user] = [texts('requested_model'), texts('tier'), texts('tenant'), texts('user')]
  const [keys, values] = [listReader(block, 'tags.keys'), listReader(block, 'tags.values')]
  return (row) => {
    const tags: Record<string, string> = {}
    const [names, texts] = [keys(row), values(row)]
    for (let at = 0; at < names.length; at++) {
      const [key, value] = [names[at] as string, texts[at] as string]
      // A client may call a tag `__proto__`, and assigning that would lose it.
      if (key !== '__proto__') tags[key] = value
      else Object.defineProperty(tags, key, { value, enumerable: true, configurable: true, writable: true })
    }
    return {
      model: textAt(model, row),
      input_tokens: inputTokens[row] as number,
      output_tokens_max: numberAt(outputTokensMax, row),
      stream: stream[row] === 1,
      tier: textAt(tier, row),
      tenant: textAt(tenant, row),
      user: textAt(user, row),
      tags,
    }
  }
}

const outcomeReader = (block: Block): ((row: number, feedbackOf: Feedback) => Outcome | null) => {
  const texts = (name: string): Texts => columnOf(block, name, 'text')
  const numbers = (name: string): Numbers => columnOf(block, name, 'number')
  const [status, served, errorType, streamEnd] = [
    texts('outcome'),
    texts('served_model'),
    texts('error_type'),
    texts('stream_end'),
  ]
  const [costSource, tokensSource] = [texts('cost_source'), texts('tokens_source')]
  const [attempts, httpStatus, costUsd] = [
    numbers('attempts').values,
    numbers('http_status').values,
    numbers('cost_usd'),
  ]
  const [latencyMs, ttftMs] = [numbers('latency_ms'), numbers('ttft_ms')]
  const [inputTokens, outputTokens] = [numbers('input_tokens'), numbers('output_tokens')]
  return (row, feedbackOf) => {
    const came = textAt(status, row)
    if (came === '') return null
    return {
      status: statusOf(came),
      served: textAt(served, row) || null,
      attempts: attempts[row] as number,
      http_status: httpStatus[row] as number,
      error_type: textAt(errorType, row) || null,
      cost_usd: numberAt(costUsd, row),
      cost_source: sourceOf(textAt(costSource, row)),
      latency_ms: numberAt(latencyMs, row),
      ttft_ms: numberAt(ttftMs, row),
      input_tokens: numberAt(inputTokens, row),
      output_tokens: numberAt(outputTokens, row),
      tokens_source: sourceOf(textAt(tokensSource, row)),
      stream_end: streamEndAt(textAt(streamEnd, row)),
      quality: null,
      ...feedbackOf(row),
    }
  }
}
