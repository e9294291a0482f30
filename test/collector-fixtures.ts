// What the collector's tests share: a collector on a temporary folder, and spans in OTLP's JSON shape.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { type Collector, startCollector } from '../collector/server.ts'
import type { Attributes, AttributeValue } from '../router/policy/attributes.ts'

export const silent = pino({ level: 'silent' })

export const temporaryFolder = async (): Promise<{ path: string; remove: () => Promise<void> }> => {
  const path = await mkdtemp(join(tmpdir(), 'signalbox-collector-'))
  return { path, remove: () => rm(path, { recursive: true, force: true }) }
}

/** A collector on a folder of its own; one at a time in a process, as the engine binds one folder. */
export const temporaryCollector = async (): Promise<Collector> => {
  const folder = await temporaryFolder()
  const collector = await startCollector({ otlpPort: 0, clickhousePort: 0, dataFolder: folder.path, log: silent })
  const close = async (): Promise<void> => {
    await collector.close()
    await folder.remove()
  }
  return { ...collector, close }
}

let spansMade = 0
/** A span in OTLP's JSON shape with ids of its own, a minute ago. */
export const jsonSpan = (fields: Record<string, unknown> = {}): Record<string, unknown> => {
  spansMade += 1
  const start = BigInt(Date.now() - 60_000) * 1_000_000n + BigInt(spansMade)
  return {
    traceId: spansMade.toString(16).padStart(32, 'a'),
    spanId: spansMade.toString(16).padStart(16, 'b'),
    name: 'work',
    kind: 1,
    startTimeUnixNano: String(start),
    endTimeUnixNano: String(start + 5_000_000n),
    ...fields,
  }
}

export const jsonRequest = (...spans: unknown[]): string =>
  JSON.stringify({
    resourceSpans: [
      {
        resource: { attributes: otlpAttributes({ 'service.name': 'signalbox' }) },
        scopeSpans: [{ scope: { name: 'test', version: '1' }, spans }],
      },
    ],
  })

const otlpValue = (value: AttributeValue): Record<string, unknown> => {
  if (typeof value === 'string') return { stringValue: value }
  if (typeof value === 'boolean') return { boolValue: value }
  if (typeof value === 'number') return Number.isInteger(value) ? { intValue: value } : { doubleValue: value }
  return { arrayValue: { values: value.map(otlpValue) } }
}
/** Attributes as the OpenTelemetry SDK writes them in JSON. */
export const otlpAttributes = (attributes: Attributes): { key: string; value: Record<string, unknown> }[] =>
  Object.entries(attributes).map(([key, value]) => ({ key, value: otlpValue(value) }))

/** Posts a body to the collector, as traces unless told otherwise. */
export const post = async (
  collector: { readonly otlpUrl: string },
  body: string | Uint8Array<ArrayBuffer>,
  headers: Record<string, string> = {},
  path = '/v1/traces',
): Promise<{ status: number; headers: Headers; text: string; bytes: Buffer }> => {
  const response = await fetch(collector.otlpUrl + path, {
    method: 'POST',
    body,
    headers: { 'content-type': 'application/json', ...headers },
  })
  const bytes = Buffer.from(await response.arrayBuffer())
  return { status: response.status, headers: response.headers, text: bytes.toString(), bytes }
}

/** Rows that a query gives, over the front. */
export const rowsOf = async <Row = Record<string, unknown>>(
  collector: { readonly clickhouseUrl: string },
  sql: string,
): Promise<Row[]> => {
  const response = await fetch(`${collector.clickhouseUrl}/?default_format=JSONEachRow`, { method: 'POST', body: sql })
  const text = await response.text()
  if (!response.ok) throw new Error(text)
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Row)
}
