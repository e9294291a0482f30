// A signal of OTLP (traces, logs or metrics) from the bytes of an export request to the rows of its tables. All three have
// one frame, resources that hold scopes that hold entries, so that a signal is: where it is posted, what its levels are
// called, the schema of an entry, which items an entry has, and the row of an item.
import { beginCounting, countMessages, errorMessages, OtlpError, OtlpSizeError } from './otlp.ts'
import {
  attempted,
  attributes,
  type Message,
  message,
  named,
  readers,
  readWhole,
  repeated,
  type Schema,
  text,
  uint32,
} from './otlp-schema.ts'
import { batchBytesMax, type Write } from './writer.ts'

/** How many refused items an answer names. */
const problemsNamedMax = 10

/** Rows for one table, not yet under a token. */
export type TableRows = Omit<Write, 'token'>
/** An export request as rows: what is to be stored, and what was wrong with the rest. */
export type ExportRows = {
  readonly tables: readonly TableRows[]
  readonly accepted: number
  readonly rejected: number
  /** The first of the refused items, each with its path in the request. */
  readonly problems: readonly string[]
}
/** Reads a whole body; throws OtlpError when its frame is broken. */
export type ReadExport = (body: Uint8Array) => ExportRows
export type Signal = {
  readonly path: string
  /** What an answer calls the number of refused items. */
  readonly rejectedField: string
  readonly json: ReadExport
  readonly protobuf: ReadExport
}

const resourceSchema = { attributes: attributes(1) }
const scopeSchema = { name: text(1), version: text(2), attributes: attributes(3), droppedAttributesCount: uint32(4) }

/** Where an item comes from. */
export type Origin = {
  readonly resource: Message<typeof resourceSchema>
  readonly resourceSchemaUrl: string
  readonly scope: Message<typeof scopeSchema>
  readonly scopeSchemaUrl: string
}

export type SignalParts<Entry extends Schema, Item> = {
  readonly path: string
  readonly rejectedField: string
  /** The names of the three levels, such as resourceSpans, scopeSpans, spans. */
  readonly levels: readonly [resources: string, scopes: string, entries: string]
  readonly entry: Entry
  /** The items of an entry, each with its path below the entry; an Error in the place of one that could not be read. */
  readonly items: (entry: Message<Entry>) => readonly (readonly [path: string, item: Item | Error])[]
  readonly table: (item: Item) => string
  /** The columns that all items of a scope share, as JSON members without braces. */
  readonly shared: (origin: Origin) => string
  /** One row of JSONEachRow with its end of line; throws OtlpError when the item breaks a rule. */
  readonly row: (item: Item, shared: string) => string
}

export const createSignal = <Entry extends Schema, Item>(parts: SignalParts<Entry, Item>): Signal => {
  const [resources, scopes, entries] = parts.levels
  const { fromJson, fromReader } = readers({
    resources: named(
      resources,
      repeated(1, {
        resource: message(1, resourceSchema),
        scopes: named(
          scopes,
          repeated(2, {
            scope: message(1, scopeSchema),
            entries: named(entries, attempted(2, parts.entry)),
            schemaUrl: text(3),
          }),
        ),
        schemaUrl: text(3),
      }),
    ),
  })
  return {
    path: parts.path,
    rejectedField: parts.rejectedField,
    json: (body) => {
      beginCounting()
      return toRows(parts, fromJson(parseJson(body), 'the body').resources)
    },
    protobuf: (body) => {
      beginCounting()
      return toRows(parts, fromProtobuf(parts.path, fromReader, body).resources)
    },
  }
}

type Reader<Decoded> = Parameters<typeof readWhole<Decoded>>[0]
const fromProtobuf = <Decoded>(path: string, read: Reader<Decoded>, body: Uint8Array): Decoded => {
  try {
    return readWhole(read, body)
  } catch (error) {
    if (error instanceof OtlpSizeError) throw error
    throw new OtlpError(`the body is not an export request for ${path} in protobuf: ${(error as Error).message}`)
  }
}

const parseJson = (body: Uint8Array): unknown => {
  try {
    const json = new TextDecoder('utf-8', { fatal: true }).decode(body)
    // 64-bit fields may be bare numbers, which a double cannot hold; the slower parse is for bodies that have any.
    return /[:[,]\s*-?\d{16}/.test(json) ? JSON.parse(json, exactIntegers) : JSON.parse(json)
  } catch (error) {
    throw new OtlpError(`the body is not JSON: ${(error as Error).message}`)
  }
}

const exactIntegers = (_key: string, value: unknown, context?: { readonly source?: string }): unknown =>
  typeof value === 'number' && context?.source && /^-?\d{16,}$/.test(context.source) ? context.source : value

type ResourceLevel<Entry extends Schema> = {
  readonly resource: Origin['resource']
  readonly schemaUrl: string
  readonly scopes: readonly {
    readonly scope: Origin['scope']
    readonly schemaUrl: string
    readonly entries: readonly (Message<Entry> | Error)[]
  }[]
}

const toRows = <Entry extends Schema, Item>(
  { levels, items, table, shared, row }: SignalParts<Entry, Item>,
  resources: readonly ResourceLevel<Entry>[],
): ExportRows => {
  const lines = new Map<string, string[]>()
  const problems: string[] = []
  let [accepted, rejected, length] = [0, 0, 0]
  const attempt = (path: () => string, work: () => void): void => {
    try {
      work()
    } catch (error) {
      if (error instanceof OtlpSizeError) throw error
      countMessages(errorMessages)
      rejected += 1
      if (problems.length < problemsNamedMax) problems.push(`${path()}: ${(error as Error).message}`)
    }
  }
  const store = (item: Item, head: string): void => {
    const name = table(item)
    const line = row(item, head)
    length += line.length
    checkRowsLength(length)
    const of = lines.get(name)
    if (of) of.push(line)
    else lines.set(name, [line])
    accepted += 1
  }
  for (const [r, resource] of resources.entries()) {
    for (const [s, { scope, schemaUrl, entries }] of resource.scopes.entries()) {
      const origin = {
        resource: resource.resource,
        resourceSchemaUrl: resource.schemaUrl,
        scope,
        scopeSchemaUrl: schemaUrl,
      }
      const head = shared(origin)
      for (const [e, entry] of entries.entries()) {
        const path = (): string => `${levels[0]}[${r}].${levels[1]}[${s}].${levels[2]}[${e}]`
        attempt(path, () => {
          for (const [below, item] of items(known(entry)))
            attempt(
              () => path() + below,
              () => store(known(item), head),
            )
        })
      }
    }
  }
  const tables = [...lines].map(([name, of]) => ({ table: name, rows: Buffer.from(of.join('')), count: of.length }))
  return { tables, accepted, rejected, problems }
}

/** What a resource says is in each of its rows, so that rows may be a thousand times as long as the body. */
export const checkRowsLength = (length: number): void => {
  if (length <= batchBytesMax) return
  const advice = 'send fewer items in one request, or shorter attributes of their resource'
  throw new OtlpSizeError(`the rows of the body are longer than ${batchBytesMax}: ${advice}`)
}

const known = <Thing>(thing: Thing | Error): Thing => {
  if (thing instanceof Error) throw thing
  return thing
}
