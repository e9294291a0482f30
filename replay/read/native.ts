// ClickHouse's Native format: a result as columns of raw bytes, which cost a tenth of JSON to make and to read. Each block
// says how many columns and rows follow; each column its name, its type and its values. Only the types that the query for
// records asks for are known, and no count is believed that the bytes left could not hold, so that what is not Native ends
// in an error and never in an endless loop or a huge allocation.
import { SourceError } from './parse.ts'

const columnsMax = 200
const varintBytesMax = 8
const seenTextsMax = 10_000

/** The values of a column. Of an array column, row `r` owns the items from `ends[r - 1]` (0 for the first) to `ends[r]`. */
export type Column =
  | Texts
  | { readonly kind: 'number'; readonly values: ArrayLike<number>; readonly nulls: Uint8Array | null }
  | { readonly kind: 'array'; readonly ends: ArrayLike<number>; readonly items: Column }

/**
 * Texts, to be asked for by `textAt`: text `at` is `keys[codes[at]]` where there are codes, and else the bytes from `starts[at]` to
 * `ends[at]`. They become strings as late as that, because what is made late dies young.
 */
export type Texts = {
  readonly kind: 'text'
  readonly nulls: Uint8Array | null
  readonly keys: readonly string[]
  readonly codes: ArrayLike<number> | null
  readonly bytes: Buffer
  readonly starts: Uint32Array
  readonly ends: Uint32Array
}
export type Numbers = Extract<Column, { kind: 'number' }>

/** Some rows of a result, by column. */
export type Block = { readonly rows: number; readonly columns: ReadonlyMap<string, Column> }

/** What is read, and how far. */
type Cursor = { readonly bytes: Buffer; at: number }

const malformed = (cursor: Cursor, problem: string): never => {
  throw new SourceError(
    'source-unreadable',
    `reading ClickHouse's Native format: byte ${cursor.at} of ${cursor.bytes.length}: ${problem}`,
  )
}

/** The blocks of a whole result in Native format. Throws a SourceError where the bytes are not one. */
export function* blocksOf(result: ArrayBuffer): Generator<Block> {
  const cursor: Cursor = { bytes: Buffer.from(result), at: 0 }
  while (cursor.at < cursor.bytes.length) {
    const width = varint(cursor)
    if (width === 0 || width > columnsMax) malformed(cursor, `found ${width} columns; wanted 1 to ${columnsMax}`)
    const rows = count(cursor, varint(cursor), 'rows')
    const columns = new Map<string, Column>()
    for (let index = 0; index < width; index += 1) {
      const name = text(cursor)
      columns.set(name, column(cursor, text(cursor), rows))
    }
    yield { rows, columns }
  }
}

const varint = (cursor: Cursor): number => {
  let value = 0
  for (let part = 0; part < varintBytesMax; part += 1) {
    const byte = cursor.bytes[cursor.at++] ?? malformed(cursor, 'it ends within a number')
    value += (byte & 127) * 2 ** (7 * part)
    if (byte < 128) return value
  }
  return malformed(cursor, `found a number of more than ${varintBytesMax} bytes`)
}

/** A count of things that take at least one byte each. */
const count = (cursor: Cursor, value: number, what: string): number =>
  value <= cursor.bytes.length - cursor.at
    ? value
    : malformed(cursor, `found ${value} ${what}, more than the bytes that are left`)

/** The next bytes as they are, in an array of their own only where the numbers in them must be aligned. */
const take = (cursor: Cursor, length: number, alignedTo = 1): Uint8Array<ArrayBuffer> => {
  const from = cursor.at
  const end = from + length
  if (end > cursor.bytes.length) malformed(cursor, `it ends ${end - cursor.bytes.length} bytes too early`)
  cursor.at = end
  const whole = cursor.bytes.buffer as ArrayBuffer
  return from % alignedTo === 0 ? new Uint8Array(whole, from, length) : new Uint8Array(whole.slice(from, end))
}

const texts = (cursor: Cursor, rows: number): Texts => {
  const [starts, ends] = [new Uint32Array(rows), new Uint32Array(rows)]
  for (let row = 0; row < rows; row += 1) {
    const length = varint(cursor)
    starts[row] = cursor.at
    cursor.at += count(cursor, length, 'bytes of text')
    ends[row] = cursor.at
  }
  return { kind: 'text', nulls: null, keys: [], codes: null, bytes: cursor.bytes, starts, ends }
}

/** One text of a column. */
export const textAt = ({ codes, keys, bytes, starts, ends }: Texts, at: number): string => {
  if (codes !== null) return keys[codes[at] as number] as string
  const [from, end] = [starts[at] as number, ends[at] as number]
  return from === end ? '' : bytes.toString('utf8', from, end)
}

const text = (cursor: Cursor): string => textAt(texts(cursor, 1), 0)

/** Unsigned whole numbers of eight bytes as doubles: exact below 2^53, which is more than any count here. */
const wide = (bytes: Uint8Array<ArrayBuffer>): Float64Array => {
  const halves = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4)
  const values = new Float64Array(bytes.length / 8)
  for (let row = 0; row < values.length; row += 1)
    values[row] = (halves[2 * row] as number) + (halves[2 * row + 1] as number) * 2 ** 32
  return values
}

const numbers: Readonly<Record<string, (cursor: Cursor, rows: number) => ArrayLike<number>>> = {
  Float64: (cursor, rows) => {
    const { buffer, byteOffset } = take(cursor, 8 * rows, 8)
    return new Float64Array(buffer, byteOffset, rows)
  },
  Bool: (cursor, rows) => take(cursor, rows),
  UInt8: (cursor, rows) => take(cursor, rows),
  UInt16: (cursor, rows) => {
    const { buffer, byteOffset } = take(cursor, 2 * rows, 2)
    return new Uint16Array(buffer, byteOffset, rows)
  },
  UInt32: (cursor, rows) => {
    const { buffer, byteOffset } = take(cursor, 4 * rows, 4)
    return new Uint32Array(buffer, byteOffset, rows)
  },
  UInt64: (cursor, rows) => wide(take(cursor, 8 * rows, 4)),
}

const inside = (type: string, outer: string): string | null =>
  type.startsWith(`${outer}(`) && type.endsWith(')') ? type.slice(outer.length + 1, -1) : null

const column = (cursor: Cursor, type: string, rows: number): Column => {
  const item = inside(type, 'Array')
  // A dictionary announces its version before everything else of its column, even before the ends of an array.
  const dictionary = (item ?? type) === 'LowCardinality(String)'
  if (dictionary && rows > 0) versionOf(cursor)
  if (item === null) return values(cursor, type, rows)
  const ends = wide(take(cursor, 8 * rows, 4))
  for (let row = 1; row < rows; row += 1)
    if ((ends[row] as number) < (ends[row - 1] as number))
      malformed(cursor, `the arrays of row ${row} end before they begin`)
  const items = count(cursor, rows === 0 ? 0 : (ends[rows - 1] as number), 'items')
  return { kind: 'array', ends, items: values(cursor, item, items) }
}

const values = (cursor: Cursor, type: string, rows: number): Column => {
  if (type === 'LowCardinality(String)') return dictionary(cursor, rows)
  const known = inside(type, 'Nullable')
  const nulls = known === null ? null : take(cursor, rows)
  const plain = known ?? type
  if (plain === 'String') return { ...texts(cursor, rows), nulls }
  const read = Object.hasOwn(numbers, plain) ? numbers[plain] : undefined
  if (!read) return malformed(cursor, `a column of type ${type.slice(0, 100)} is not read here`)
  return { kind: 'number', values: read(cursor, rows), nulls }
}

const dictionaryVersion = 1
const additionalKeys = 1 << 9
const globalKeys = 1 << 8

const wholeNumber = (cursor: Cursor): number => wide(take(cursor, 8, 4))[0] as number

const versionOf = (cursor: Cursor): void => {
  const version = wholeNumber(cursor)
  if (version !== dictionaryVersion) malformed(cursor, `found a dictionary of version ${version}; wanted 1`)
}

/** Texts of dictionaries: the same string wherever a text comes again, which is then found to be equal without a look at it. */
const seenTexts = new Map<string, string>()

const sameText = (text: string): string => {
  const seen = seenTexts.get(text)
  if (seen !== undefined) return seen
  if (seenTexts.size < seenTextsMax) seenTexts.set(text, text)
  return text
}

/** Texts as indexes into a dictionary: each different text is decoded once. */
const dictionary = (cursor: Cursor, rows: number): Texts => {
  if (rows === 0) return texts(cursor, 0)
  const flags = wholeNumber(cursor)
  if ((flags & globalKeys) !== 0 || (flags & additionalKeys) === 0)
    malformed(cursor, `found dictionary flags ${flags}; wanted one dictionary for each block`)
  const known = texts(cursor, count(cursor, wholeNumber(cursor), 'texts'))
  const keys = Array.from(known.starts, (_, at) => sameText(textAt(known, at)))
  const found = wholeNumber(cursor)
  if (found !== rows) malformed(cursor, `found ${found} dictionary indexes; wanted ${rows}`)
  const read = numbers[['UInt8', 'UInt16', 'UInt32', 'UInt64'][flags & 255] ?? '']
  if (!read) return malformed(cursor, `found dictionary indexes of width ${flags & 255}; wanted 0 to 3`)
  const codes = read(cursor, rows)
  for (let row = 0; row < rows; row += 1)
    if ((codes[row] as number) >= keys.length) malformed(cursor, `a dictionary of ${keys.length} has no ${codes[row]}`)
  return { ...known, keys, codes }
}

/** A column by its name. Throws a SourceError where it is missing or holds something else. */
export const columnOf = <Kind extends Column['kind']>(
  block: Block,
  name: string,
  kind: Kind,
): Extract<Column, { kind: Kind }> => {
  const column = block.columns.get(name)
  if (column?.kind === kind) return column as Extract<Column, { kind: Kind }>
  throw unexpected(`column ${name} is ${column?.kind ?? 'missing'}; wanted ${kind}`)
}

/** The error of a result that is in Native format and not what was asked for. */
export const unexpected = (problem: string): SourceError =>
  new SourceError('source-unreadable', `reading decision records from ClickHouse: ${problem}`)

/** One number of a column; null where it is NULL. */
export const numberAt = ({ values, nulls }: Numbers, at: number): number | null =>
  nulls !== null && nulls[at] === 1 ? null : (values[at] as number)

/** The first item of each row's array, and the one after its last. */
export const boundsOf = (ends: ArrayLike<number>, row: number): readonly [number, number] => [
  row === 0 ? 0 : (ends[row - 1] as number),
  ends[row] as number,
]
