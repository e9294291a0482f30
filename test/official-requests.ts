// The requests of which the official collector's rows are recorded: a router's spans, every kind of judgement and payload, all the
// values that may be spelled in more than one way, and requests of any shape. All times are of 2100, so that nothing expires.
import fc from 'fast-check'
import { type Attributes, spanNames } from '../router/policy/attributes.ts'
import { jsonRequest, jsonSpan, otlpAttributes } from './collector-fixtures.ts'
import { demoSpans } from './grafana-data.ts'
import type { Request, Signal } from './official-stage.ts'
import { requestsOf, type SignalName } from './otlp-oracle.ts'

const seed = 7
const anyRequestsCount = 25
const decisionsRecorded = 60
const endMs = Date.UTC(2100, 0, 1)
const firstDecision = '018f0000-0000-7000-8000-000000000001'
const nanos = (ms: number): string => `${endMs + ms}000000`

/** Values of every kind, alone and in lists and maps: where Go and JavaScript could print differently. */
const values: readonly object[] = [
  {},
  { stringValue: '<a> & ü \u2028 \u0000 😀 "q" \\' },
  { boolValue: false },
  { intValue: '-9223372036854775808' },
  { doubleValue: 0.1 },
  { doubleValue: -0 },
  { doubleValue: 1e21 },
  { doubleValue: 1e-7 },
  { doubleValue: 5e-324 },
  { doubleValue: 'NaN' },
  { doubleValue: '-Infinity' },
  { bytesValue: '+/8=' },
  { bytesValue: '' },
  { arrayValue: {} },
  { kvlistValue: {} },
]
const nested = [
  { arrayValue: { values } },
  { arrayValue: { values: values.filter((value) => !('doubleValue' in value)) } },
  { kvlistValue: { values: values.map((value, at) => ({ key: `k${(at * 7) % 10}`, value })) } },
  { kvlistValue: { values: [{ key: '\u2028😀', value: { stringValue: '<>&' } }, { key: '\ufffd' }] } },
]
const spelled = [...values, ...nested]
const attributes = spelled.map((value, at) => ({ key: `${'zyx'[at % 3]}${at}`, value }))

const valueSpan = jsonSpan({
  traceId: 'ABCDEF00'.repeat(4),
  startTimeUnixNano: nanos(1),
  endTimeUnixNano: nanos(2),
  attributes: [...attributes, ...otlpAttributes({ '😀': 1, '\ufffd': 2 })],
  events: [{ timeUnixNano: nanos(1), name: 'e', attributes }],
  links: [{ traceId: 'ab'.repeat(16), spanId: 'cd'.repeat(8), traceState: 'a=b', attributes }],
})

/** The first and the last moments that a column can hold. */
const extremes = [jsonSpan({ startTimeUnixNano: '0', endTimeUnixNano: '1' })].concat(
  jsonSpan({
    startTimeUnixNano: '9223372036854775806',
    endTimeUnixNano: '9223372036854775807',
    events: [{ timeUnixNano: '1' }],
  }),
)

const judgement = (score: object): object =>
  jsonSpan({
    name: spanNames.evaluation,
    startTimeUnixNano: nanos(1),
    endTimeUnixNano: nanos(1),
    attributes: [
      ...otlpAttributes({
        'signalbox.decision.id': firstDecision,
        'gen_ai.evaluation.name': JSON.stringify(score),
        'gen_ai.evaluation.explanation': 'why',
      }),
      { key: 'gen_ai.evaluation.score.value', value: score },
    ],
  })
const policy = jsonSpan({
  name: spanNames.policy,
  startTimeUnixNano: nanos(0),
  endTimeUnixNano: nanos(0),
  attributes: otlpAttributes({
    'signalbox.policy.hash': 'sha256:00',
    'signalbox.policy.name': 'balanced',
    'signalbox.policy.engine': '1',
    'signalbox.policy.source': 'name: balanced\n',
  }),
})

const payload = (kind: string, body: string): object => ({
  timeUnixNano: nanos(3),
  eventName: 'gen_ai.client.inference.operation.details',
  severityNumber: 5,
  body: { stringValue: Buffer.from(body).toString('base64') },
  traceId: 'ab'.repeat(16),
  spanId: 'cd'.repeat(8),
  attributes: otlpAttributes({
    'signalbox.decision.id': firstDecision,
    'signalbox.tenant': 'acme',
    'signalbox.payload.kind': kind,
    'signalbox.payload.attempt': 1,
    'signalbox.capture.keep_probability': 0.25,
    'signalbox.payload.content_type': 'application/json',
    'signalbox.payload.redaction': 'full',
    'signalbox.payload.sha256': '0f'.repeat(32),
    'signalbox.payload.bytes': body.length,
    'signalbox.payload.encoding': 'gzip',
    'signalbox.payload.key_id': 'k1',
    'signalbox.payload.nonce': Buffer.from('twelve bytes').toString('base64'),
    'signalbox.payload.expires_at': '2105-01-01T00:00:00.000Z',
  }),
})
/** What is made of these is made by views on otel_logs. */
const events: readonly object[] = [
  { 'gen_ai.evaluation.name': 'judge', 'gen_ai.evaluation.score.label': 'pass', 'signalbox.tenant': 'acme' },
  { 'gen_ai.evaluation.name': 'rule', 'gen_ai.evaluation.score.value': 0.25, 'signalbox.decision.id': firstDecision },
].map((named) => ({
  timeUnixNano: nanos(4),
  eventName: 'gen_ai.evaluation.result',
  traceId: 'ab'.repeat(16),
  spanId: 'cd'.repeat(8),
  attributes: otlpAttributes(named as Attributes),
}))
const epoch = {
  timeUnixNano: nanos(5),
  eventName: 'signalbox.epoch',
  attributes: otlpAttributes({
    'signalbox.epoch': 'e1',
    'signalbox.epoch.decisions': 60,
    'signalbox.epoch.ended': true,
  }),
}

const logs = {
  resourceLogs: [
    {
      resource: { attributes: [...attributes, ...otlpAttributes({ 'service.name': 'signalbox' })] },
      schemaUrl: 'https://r',
      scopeLogs: [
        {
          scope: { name: 'lib', version: '2', attributes },
          schemaUrl: 'https://s',
          logRecords: [
            ...spelled.map((body, at) => ({ timeUnixNano: nanos(at), body, attributes: [{ key: 'k', value: body }] })),
            { observedTimeUnixNano: nanos(9), severityNumber: 17, severityText: 'ERR', flags: 257, eventName: 'seen' },
            ...events,
            epoch,
            payload('request', '{"q":1}'),
            payload('response', '{"a":1}'),
            payload('neither', 'let fall'),
          ],
        },
      ],
    },
  ],
}

const dayNanos = 86_400_000_000_000n
/** The same moment of the one day: each day more is a partition more. */
const onOneDay = (time: string): string => String(BigInt(endMs) * 1_000_000n + (BigInt(time) % dayNanos))
const earlierFirst = (a: string, b: string): number => (BigInt(a) < BigInt(b) ? -1 : 1)

/** Requests of any shape, but that no span ends before it starts: there we differ on purpose. */
const anyOf = (name: SignalName): object[] =>
  fc.sample(requestsOf[name], { seed, numRuns: anyRequestsCount }).map((request) =>
    JSON.parse(JSON.stringify(request), (key, value) => {
      if (key.endsWith('UnixNano')) return onOneDay(value)
      if (value?.endTimeUnixNano === undefined) return value
      const [startTimeUnixNano, endTimeUnixNano] = [value.startTimeUnixNano, value.endTimeUnixNano].toSorted(
        earlierFirst,
      )
      return { ...value, startTimeUnixNano, endTimeUnixNano }
    }),
  )

const signals: Readonly<Record<Signal, SignalName>> = { traces: 'Traces', logs: 'Logs', metrics: 'Metrics' }

/** All of them, the same each time. */
export const officialRequests = (): Request[] => {
  const scores = [{ doubleValue: 0.5 }, { intValue: '1' }, { doubleValue: 'NaN' }, { stringValue: 'good' }]
  const spans = [valueSpan, ...extremes, policy, ...scores.map(judgement)]
  const traces = [jsonRequest(...demoSpans(endMs, decisionsRecorded)), jsonRequest(...spans)]
  return [
    ...traces.map((request): Request => ({ signal: 'traces', request: JSON.parse(request) })),
    { signal: 'logs', request: logs },
    ...Object.entries(signals).flatMap(([signal, name]) =>
      anyOf(name).map((request): Request => ({ signal: signal as Signal, request })),
    ),
  ]
}
