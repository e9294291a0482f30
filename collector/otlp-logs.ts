// Logs: a log record as OTLP's schema has it, and as a row of otel_logs. Captured content comes as log records too, but
// goes to a table that keeps nothing and feeds captured_payloads, so that content never rests among the logs.
import { checkTime, idOr } from './otlp.ts'
import { attributes, enumeration, fixed32, fixed64, id, type Message, text, value } from './otlp-schema.ts'
import { createSignal, type Origin } from './otlp-signal.ts'
import { asMap, asString, quote, resourceColumns } from './rows.ts'

const payloadEvent = 'gen_ai.client.inference.operation.details'

const recordSchema = {
  timeUnixNano: fixed64(1),
  severityNumber: enumeration(2),
  severityText: text(3),
  body: value(5),
  attributes: attributes(6),
  flags: fixed32(8),
  traceId: id(9),
  spanId: id(10),
  observedTimeUnixNano: fixed64(11),
  eventName: text(12),
}
type LogRecord = Message<typeof recordSchema>

const shared = ({ resource, resourceSchemaUrl, scope, scopeSchemaUrl }: Origin): string =>
  `${resourceColumns(resource.attributes)},"ResourceSchemaUrl":${quote(resourceSchemaUrl)}` +
  `,"ScopeSchemaUrl":${quote(scopeSchemaUrl)},"ScopeName":${quote(scope.name)}` +
  `,"ScopeVersion":${quote(scope.version)},"ScopeAttributes":${asMap(scope.attributes)}`

const row = (record: LogRecord, head: string): string => {
  const time = record.timeUnixNano === 0n ? record.observedTimeUnixNano : record.timeUnixNano
  checkTime('timeUnixNano', time)
  return (
    `{${head},"Timestamp":${time},"TraceId":"${idOr('', record.traceId, 32)}","SpanId":"${idOr('', record.spanId, 16)}"` +
    `,"TraceFlags":${record.flags & 0xff},"SeverityText":${quote(record.severityText)}` +
    `,"SeverityNumber":${record.severityNumber & 0xff},"Body":${quote(asString(record.body))}` +
    `,"LogAttributes":${asMap(record.attributes)},"EventName":${quote(record.eventName)}}\n`
  )
}

export const logs = createSignal({
  path: '/v1/logs',
  rejectedField: 'rejectedLogRecords',
  levels: ['resourceLogs', 'scopeLogs', 'logRecords'],
  entry: recordSchema,
  items: (record) => [['', record]],
  table: ({ eventName }) => (eventName === payloadEvent ? 'otel.payload_events' : 'otel.otel_logs'),
  shared,
  row,
})
