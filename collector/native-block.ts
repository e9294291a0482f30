// Rows as ClickHouse's Native format has them: a block of columns, each one run of bytes. The spans' decoders write
// straight into these buffers, so that no row exists as an object, and ClickHouse reads a column as it will store it, for a
// quarter of what it spends on JSON. Blocks that follow each other are a valid stream, so requests merge by concatenation.

const bytesAtFirst = 65_536
/** A column that needed more for one block gives its memory back. */
const bytesKeptMax = 8_388_608
/** Below this a loop copies faster than a call. */
const loopBytesMax = 48
const varintBytesMax = 5
/** Entries of one map that are put in order here. */
const entriesMax = 65_536
/** Sets of keys that are remembered in their order. */
const shapesMax = 64
const nanosPerSecond = 1_000_000_000
const half = 0x10000
const word = 0x1_0000_0000

/** One column's bytes, growing at the end and used again for the next block. */
export class Bytes {
  buffer = Buffer.allocUnsafe(bytesAtFirst)
  at = 0

  clear(): void {
    this.at = 0
    if (this.buffer.length > bytesKeptMax) this.buffer = Buffer.allocUnsafe(bytesAtFirst)
  }

  reserve(bytes: number): void {
    if (this.at + bytes <= this.buffer.length) return
    const larger = Buffer.allocUnsafe(Math.max(this.at + bytes, this.buffer.length * 2))
    this.buffer.copy(larger, 0, 0, this.at)
    this.buffer = larger
  }

  varint(value: number): void {
    this.reserve(varintBytesMax)
    let rest = value
    while (rest > 0x7f) {
      this.buffer[this.at++] = (rest & 0x7f) | 0x80
      rest >>>= 7
    }
    this.buffer[this.at++] = rest
  }

  /** Bytes as they are, without a length. */
  raw(source: Uint8Array, start: number, end: number): void {
    this.reserve(end - start)
    const { buffer } = this
    let { at } = this
    if (end - start > loopBytesMax) {
      buffer.set(source.subarray(start, end), at)
      at += end - start
    } else for (let from = start; from < end; from++) buffer[at++] = source[from] as number
    this.at = at
  }

  /** A String cell of bytes that are UTF-8 already. */
  text(source: Uint8Array, start: number, end: number): void {
    this.varint(end - start)
    this.raw(source, start, end)
  }

  /** A String cell; half a surrogate pair becomes U+FFFD. */
  string(text: string): void {
    const bytes = Buffer.byteLength(text)
    this.varint(bytes)
    this.reserve(bytes)
    this.at += this.buffer.write(text, this.at, 'utf8')
  }

  /** A 64-bit count, for offsets. */
  count(value: number): void {
    this.reserve(8)
    this.at = this.buffer.writeUInt32LE(value >>> 0, this.at)
    this.at = this.buffer.writeUInt32LE(Math.floor(value / word), this.at)
  }

  /** Nanoseconds in 64 bits, in parts that doubles hold exactly; `seconds` is not negative and below 2^34. */
  nanoseconds(seconds: number, nanos: number): void {
    const high = Math.floor(seconds / half) * nanosPerSecond
    const low = (high % half) * half + (seconds % half) * nanosPerSecond + nanos
    this.reserve(8)
    this.at = this.buffer.writeUInt32LE(low % word, this.at)
    this.at = this.buffer.writeUInt32LE(Math.floor(high / half) + Math.floor(low / word), this.at)
  }
}

/** A set of keys in the order they came, and what puts them in the order of their bytes; null where they are in it. */
type Shape = { readonly run: Buffer; readonly sorted: Buffer; readonly order: readonly number[] | null }

/** A Map(String, String) column with each row's entries in the order of their keys' bytes, as the exporter writes them. */
export class TextMap {
  readonly offsets = new Bytes()
  readonly keys = new Bytes()
  readonly values = new Bytes()
  entries = 0
  #rowKeysAt = 0
  #rowValuesAt = 0
  /** Where the row's entries' values end. */
  #ends: number[] = []
  /** Spans of one kind have the same keys in the same order, which is sorted once. */
  #shapes: Shape[] = []
  #shape: Shape | null = null
  #scratch = Buffer.alloc(0)

  /** Ends an entry, whose key and value were written to `keys` and `values`. */
  endEntry(): void {
    this.#ends.push(this.values.at)
    this.entries += 1
  }

  endRow(): void {
    if (this.#ends.length > entriesMax) throw new RangeError(`a map has more than ${entriesMax} entries`)
    if (this.#ends.length > 1) this.#sort()
    this.offsets.count(this.entries)
    this.#beginRow()
  }

  /** A row with the entries of another map that has one row. */
  copyRow(other: TextMap): void {
    this.keys.raw(other.keys.buffer, 0, other.keys.at)
    this.values.raw(other.values.buffer, 0, other.values.at)
    this.entries += other.entries
    this.offsets.count(this.entries)
  }

  clear(): void {
    for (const bytes of this.parts) bytes.clear()
    this.entries = 0
    this.#beginRow()
  }

  get parts(): readonly Bytes[] {
    return [this.offsets, this.keys, this.values]
  }

  #beginRow(): void {
    this.#rowKeysAt = this.keys.at
    this.#rowValuesAt = this.values.at
    this.#ends.length = 0
  }

  #sort(): void {
    const { sorted, order } = this.#shapeOfRow()
    if (order === null) return
    sorted.copy(this.keys.buffer, this.#rowKeysAt)
    const start = this.#rowValuesAt
    const length = this.values.at - start
    if (this.#scratch.length < length) this.#scratch = Buffer.allocUnsafe(length * 2)
    this.values.buffer.copy(this.#scratch, 0, start, this.values.at)
    this.values.at = start
    for (const entry of order) {
      const from = entry === 0 ? start : (this.#ends[entry - 1] as number)
      this.values.raw(this.#scratch, from - start, (this.#ends[entry] as number) - start)
    }
  }

  #shapeOfRow(): Shape {
    const [start, end] = [this.#rowKeysAt, this.keys.at]
    const isIt = ({ run }: Shape): boolean =>
      run.length === end - start && this.keys.buffer.compare(run, 0, run.length, start, end) === 0
    if (this.#shape !== null && isIt(this.#shape)) return this.#shape
    let shape = this.#shapes.find(isIt)
    if (shape === undefined) {
      shape = shapeOf(Buffer.from(this.keys.buffer.subarray(start, end)))
      if (this.#shapes.length === shapesMax) this.#shapes = []
      this.#shapes.push(shape)
    }
    this.#shape = shape
    return shape
  }
}

const shapeOf = (run: Buffer): Shape => {
  const cells: { readonly key: Buffer; readonly cell: Buffer; readonly index: number }[] = []
  for (let at = 0; at < run.length; ) {
    let [length, shift, keyAt] = [0, 0, at]
    for (;;) {
      const byte = run[keyAt++] as number
      length |= (byte & 0x7f) << shift
      shift += 7
      if (byte < 0x80) break
    }
    const end = keyAt + length
    cells.push({ key: run.subarray(keyAt, end), cell: run.subarray(at, end), index: cells.length })
    at = end
  }
  const sorted = cells.toSorted((a, b) => Buffer.compare(a.key, b.key))
  const order = sorted.map(({ index }) => index)
  const isSorted = order.every((index, place) => index === place)
  return { run, sorted: Buffer.concat(sorted.map(({ cell }) => cell)), order: isSorted ? null : order }
}

/** A column under way: its name and type as a block spells them, and the runs of bytes that are its data. */
export type Column = { readonly header: Buffer; readonly parts: readonly Bytes[] }

/** Names and types are short, so their lengths are one byte. */
export const column = (name: string, type: string, ...parts: readonly Bytes[]): Column => ({
  header: Buffer.from(`${String.fromCharCode(name.length)}${name}${String.fromCharCode(type.length)}${type}`, 'latin1'),
  parts,
})

/** The columns, which all have `rows` rows, as one block. */
export const blockOf = (columns: readonly Column[], rows: number): Buffer => {
  const head = new Bytes()
  head.varint(columns.length)
  head.varint(rows)
  const pieces: Uint8Array[] = [head.buffer.subarray(0, head.at)]
  for (const { header, parts } of columns) {
    pieces.push(header)
    for (const { buffer, at } of parts) pieces.push(buffer.subarray(0, at))
  }
  return Buffer.concat(pieces)
}
