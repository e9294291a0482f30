// Feedback: what people or programs say of an answer, late and as often as they like. Each judgement becomes one log event of
// OpenTelemetry's conventions and takes the path of all telemetry. The router keeps nothing of it and asks nobody: whose
// judgement it is goes with it, and whoever reads it lets it count for decisions of that tenant only.
import type { IncomingMessage } from 'node:http'
import { z } from 'zod'
import type { Rejection } from './chat.ts'
import type { ClientKey } from './config.ts'
import { callerOf, readBody } from './intake.ts'
import type { LogEvent } from './log-event.ts'
import { type Attributes, eventNames, attributeNames as n } from './policy/attributes.ts'
import { issueText } from './policy/yaml.ts'

const judgementsMax = 1000
const problemsShownMax = 10
/** How far a sender's clock may be ahead: what is given last wins, so a moment to come would win for long. */
const aheadMsMax = 60_000
const infoSeverity = 9
const msPerMicro = 0.001

/** Without lone surrogates, which no UTF-8 text can hold. */
const text = (lengthMax: number) =>
  z
    .string()
    .max(lengthMax)
    .overwrite((found) => found.toWellFormed())
const word = text(100).default('')
const hex = (digits: number) =>
  z
    .string()
    .toLowerCase()
    .regex(new RegExp(`^(?!0{${digits}}$)[0-9a-f]{${digits}}$`), `wanted ${digits} hex digits, not all zero`)

/** The labels that say a score. */
const labelScores: Readonly<Record<string, number>> = { pass: 1, fail: 0 }

const judgementSchema = z
  .strictObject({
    decision_id: z.uuid().optional(),
    trace_id: hex(32).optional(),
    /** Which span of the trace was judged; without it, all of its decisions were. */
    span_id: hex(16).optional(),
    score: z.union([z.number().min(0).max(1), z.boolean()]).optional(),
    label: word,
    name: text(100).min(1).default('quality'),
    comment: text(4000).default(''),
    /** When it was given, if that was not now: ISO 8601. */
    time: z.iso.datetime({ offset: true }).optional(),
    /** Who says so: human, rule, judge, … */
    source: word,
  })
  .refine((said) => (said.decision_id === undefined) !== (said.trace_id === undefined), {
    error: 'wanted either a decision_id or a trace_id',
  })
  .refine((said) => said.span_id === undefined || said.trace_id !== undefined, {
    path: ['span_id'],
    error: 'wanted with a trace_id only',
  })
  .refine((said) => said.score !== undefined || Object.hasOwn(labelScores, said.label.toLowerCase()), {
    path: ['score'],
    error: 'wanted a score from 0 to 1, or the label pass or fail',
  })
type Judgement = z.infer<typeof judgementSchema>

const listSchema = z.array(judgementSchema).min(1).max(judgementsMax)

const rejection = (code: string, message: string): Rejection => ({ status: 400, code, message, param: null })

const parse = (raw: string, nowMs: number): readonly Judgement[] | Rejection => {
  let json: unknown
  try {
    json = JSON.parse(raw)
  } catch (error) {
    return rejection('invalid_json', `the body is not JSON: ${(error as Error).message}`)
  }
  const parsed = Array.isArray(json) ? listSchema.safeParse(json) : judgementSchema.safeParse(json)
  if (!parsed.success) {
    const problems = parsed.error.issues.slice(0, problemsShownMax).map((issue) => issueText(issue, json))
    return rejection('invalid_body', problems.join('; '))
  }
  const judgements = [parsed.data].flat()
  const wrong = judgements.find(
    ({ time }) => time && !(Date.parse(time) >= 0 && Date.parse(time) <= nowMs + aheadMsMax),
  )
  if (!wrong) return judgements
  return rejection('invalid_body', `time: found ${wrong.time}; wanted a moment since 1970 that is not yet to come`)
}

/** `position` in its list is a microsecond each, so that of two that were given at one moment the later in the list wins. */
const eventOf = (said: Judgement, tenant: string | null, nowMs: number, position: number): LogEvent => {
  const score = said.score ?? labelScores[said.label.toLowerCase()]
  const attributes: Attributes = {
    ...(said.decision_id ? { [n.decisionId]: said.decision_id } : {}),
    [n.evaluationName]: said.name,
    [n.evaluationScore]: Number(score),
    ...(said.label ? { [n.evaluationLabel]: said.label } : {}),
    ...(said.comment ? { [n.evaluationExplanation]: said.comment } : {}),
    ...(said.source ? { [n.evaluationSource]: said.source } : {}),
    ...(tenant === null ? {} : { [n.tenant]: tenant }),
  }
  return {
    name: eventNames.evaluation,
    timeMs: (said.time ? Date.parse(said.time) : nowMs) + position * msPerMicro,
    severity: infoSeverity,
    attributes,
    ...(said.trace_id ? { trace: { traceId: said.trace_id, spanId: said.span_id ?? '' } } : {}),
  }
}

/**
 * Reads one judgement or a list of them, all or none, as log events. A caller with a key judges for its tenant; where there
 * are no keys, everybody on this machine judges for all.
 */
export const readFeedback = async (
  request: IncomingMessage,
  keys: readonly ClientKey[],
): Promise<readonly LogEvent[] | Rejection> => {
  const caller = callerOf(request.headers, keys)
  if ('status' in caller) return caller
  const raw = await readBody(request)
  if (typeof raw !== 'string') return raw
  const nowMs = Date.now()
  const judgements = parse(raw, nowMs)
  if ('status' in judgements) return judgements
  const tenant = keys.length > 0 ? caller.tenant : null
  return judgements.map((said, position) => eventOf(said, tenant, nowMs, position))
}
