// A named event on its way to the collector's /v1/logs: feedback, an evaluation, captured content. It is OpenTelemetry's
// LogRecord in our words, encoded once, like a span, and delivered the same way.
import type { Encoding } from './batch.ts'
import type { Attributes } from './policy/attributes.ts'
import { attributesText } from './span-encoder.ts'

const nanosPerMs = 1_000_000n
const microsPerMs = 1000
const nanosPerMicro = 1000n

export type LogEvent = {
  readonly name: string
  /** When it happened, in milliseconds since 1970. */
  readonly timeMs: number
  /** OpenTelemetry's severity number, 1 to 24: 5 debug, 9 info, 13 warn, 17 error. */
  readonly severity: number
  readonly attributes: Attributes
  readonly body?: string
  /** The span it belongs to: lower-case hex, 32 and 16 digits. */
  readonly trace?: { readonly traceId: string; readonly spanId: string }
}

/** OpenTelemetry's short names: four numbers each, the first without a digit. */
const severityNames = ['TRACE', 'DEBUG', 'INFO', 'WARN', 'ERROR', 'FATAL']

const severityText = (severity: number): string => {
  const step = (severity - 1) % 4
  return `${severityNames[Math.floor((severity - 1) / 4)] ?? ''}${step === 0 ? '' : step + 1}`
}

/** To the microsecond, which is what a double can say of a time in milliseconds. */
const nanosText = (timeMs: number): string => {
  const wholeMs = Math.floor(timeMs)
  const micros = Math.round((timeMs - wholeMs) * microsPerMs)
  return String(BigInt(wholeMs) * nanosPerMs + BigInt(micros) * nanosPerMicro)
}

const eventText = ({ name, timeMs, severity, attributes, body, trace }: LogEvent): string =>
  `{"timeUnixNano":"${nanosText(timeMs)}","observedTimeUnixNano":"${nanosText(Date.now())}"` +
  `,"severityNumber":${severity},"severityText":"${severityText(severity)}","eventName":${JSON.stringify(name)}` +
  `${body === undefined ? '' : `,"body":{"stringValue":${JSON.stringify(body)}}`}` +
  `,"attributes":[${attributesText(attributes)}],"droppedAttributesCount":0` +
  `${trace ? `,"traceId":${JSON.stringify(trace.traceId)},"spanId":${JSON.stringify(trace.spanId)}` : ''}}`

/** How the log events of a service are written. */
export const eventEncoding = (serviceName: string): Encoding<LogEvent> => {
  const resource = attributesText({ 'service.name': serviceName })
  const head =
    `{"resourceLogs":[{"resource":{"attributes":[${resource}],"droppedAttributesCount":0}` +
    `,"scopeLogs":[{"scope":{"name":"signalbox"},"logRecords":[`
  return { head: () => head, text: eventText }
}
