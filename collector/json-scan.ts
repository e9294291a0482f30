// A walk over the bytes of a JSON text that copies strings and numbers without making values of them. It is strict: what
// JSON does not allow throws `irregular`, and so does what is allowed but never written, because whoever calls this has a
// slower way to read those. Only what needs no value is tolerant of white space.
import type { Bytes } from './native-block.ts'
import { type Instant, irregular } from './span-columns.ts'

/** How deep a value that is skipped may nest. */
const depthMax = 64
/** Doubles of no more digits print as they were written. */
const exactDigitsMax = 15
const instantDigitsMax = 19
const nanosDigits = 9
const [quote, backslash, colon, comma, openList, closeList] = [0x22, 0x5c, 0x3a, 0x2c, 0x5b, 0x5d]
const [openObject, closeObject, minus, plus, dot, zero, nine] = [0x7b, 0x7d, 0x2d, 0x2b, 0x2e, 0x30, 0x39]
const [letterA, letterE, letterF, letterN, letterT, lowerCase] = [0x61, 0x65, 0x66, 0x6e, 0x74, 0x20]

export const bytesOf = (text: string): Uint8Array => new Uint8Array(Buffer.from(text))
const [yes, no, nothing] = [bytesOf('true'), bytesOf('false'), bytesOf('null')]

type Known<Name> = { readonly name: Name; readonly bytes: Uint8Array; readonly bit: number }

const shapeOf = (bytes: Uint8Array, start: number, end: number): number =>
  ((end - start) << 16) | ((bytes[start] ?? 0) << 8) | (bytes[end - 1] ?? 0)

/** At most 31 member names, found by length, first and last letter, in which they must differ. */
export const namesByShape = <Name extends string>(names: readonly Name[]): ReadonlyMap<number, Known<Name>> =>
  new Map(
    names.map((name, index) => {
      const bytes = bytesOf(name)
      return [shapeOf(bytes, 0, bytes.length), { name, bytes, bit: 1 << index }]
    }),
  )

export class JsonScan<Name extends string> {
  bytes: Uint8Array = new Uint8Array()
  at = 0
  readonly #names: ReadonlyMap<number, Known<Name>>
  #textStart = 0
  #textEnd = 0
  #escaped = false

  constructor(names: ReadonlyMap<number, Known<Name>>) {
    this.#names = names
  }

  open(bytes: Uint8Array): void {
    this.bytes = bytes
    this.at = 0
  }

  end(): void {
    this.#space()
    if (this.at !== this.bytes.length) throw irregular
  }

  /** The text from `start` to here. */
  slice(start: number): string {
    return Buffer.from(this.bytes.buffer, this.bytes.byteOffset + start, this.at - start).toString()
  }

  /** Visits the members of an object; the visit reads the value. Unknown names are null, and none may come twice. */
  members(visit: (name: Name | null) => void): void {
    this.#space()
    this.#byte(openObject)
    this.#space()
    if (this.#took(closeObject)) return
    let seen = 0
    for (;;) {
      this.#space()
      this.#token()
      const known = this.#known()
      if (known !== null && seen & known.bit) throw irregular
      seen |= known?.bit ?? 0
      this.#space()
      this.#byte(colon)
      this.#space()
      visit(known?.name ?? null)
      this.#space()
      if (this.#took(closeObject)) return
      this.#byte(comma)
    }
  }

  list(visit: () => void): void {
    this.#byte(openList)
    this.#space()
    if (this.#took(closeList)) return
    for (;;) {
      this.#space()
      visit()
      this.#space()
      if (this.#took(closeList)) return
      this.#byte(comma)
    }
  }

  /** Passes over any value. */
  skip(depth = 0): void {
    if (depth > depthMax) throw irregular
    const first = this.bytes[this.at]
    if (first === openObject) this.members(() => this.skip(depth + 1))
    else if (first === openList) this.list(() => this.skip(depth + 1))
    else if (first === quote) this.#skipString()
    else if (first === letterT) this.expect(yes)
    else if (first === letterF) this.expect(no)
    else if (first === letterN) this.expect(nothing)
    else this.number()
  }

  #skipString(): void {
    const start = this.at
    this.#token()
    if (this.#escaped) JSON.parse(this.slice(start))
  }

  /** Whether the next bytes are these; they are then passed. */
  matches(wanted: Uint8Array): boolean {
    const { bytes, at } = this
    for (let index = 0; index < wanted.length; index++) if (bytes[at + index] !== wanted[index]) return false
    this.at = at + wanted.length
    return true
  }

  expect(wanted: Uint8Array): void {
    if (!this.matches(wanted)) throw irregular
  }

  isEmptyString(): boolean {
    return this.bytes[this.at] === quote && this.bytes[this.at + 1] === quote
  }

  string(into: Bytes): void {
    const start = this.at
    this.#token()
    if (!this.#escaped) into.text(this.bytes, this.#textStart, this.#textEnd)
    else into.string((JSON.parse(this.slice(start)) as string).toWellFormed())
  }

  /** A string of so many hex digits, not all zero. */
  id(into: Bytes, digits: number): void {
    this.#token()
    if (this.#textEnd - this.#textStart !== digits) throw irregular
    into.varint(digits)
    into.reserve(digits)
    let any = 0
    for (let at = this.#textStart; at < this.#textEnd; at++) {
      const byte = this.bytes[at] as number
      const letter = byte | lowerCase
      const isLetter = letter >= letterA && letter <= letterF
      if (!isLetter && !isDigit(byte)) throw irregular
      any |= byte ^ zero
      into.buffer[into.at++] = isLetter ? letter : byte
    }
    if (any === 0) throw irregular
  }

  /** Passes digits, and says how many. */
  digits(): number {
    const start = this.at
    while (isDigit(this.bytes[this.at])) this.at += 1
    return this.at - start
  }

  /** An integer of one digit, which ends a member. */
  digit(): number {
    const start = this.at
    if (this.digits() !== 1 || !this.#atEnd()) throw irregular
    return (this.bytes[start] as number) - zero
  }

  /** Passes a number, and says whether JavaScript would print it as it is written. */
  number(): boolean {
    const start = this.at
    if (this.bytes[start] === minus) this.at += 1
    const first = this.at
    let digits = this.digits()
    const leadingZero = this.bytes[first] === zero
    if (digits === 0 || (leadingZero && digits > 1)) throw irregular
    let usual = !leadingZero || first === start
    if (this.bytes[this.at] === dot) {
      this.at += 1
      const fraction = this.at
      digits += this.digits()
      if (this.at === fraction) throw irregular
      // Below a millionth JavaScript prints an exponent, and never a zero at the end.
      usual = this.bytes[this.at - 1] !== zero && (!leadingZero || this.bytes[fraction] !== zero)
    }
    if (((this.bytes[this.at] ?? 0) | lowerCase) === letterE) {
      usual = false
      this.at += 1
      if (this.bytes[this.at] === minus || this.bytes[this.at] === plus) this.at += 1
      if (this.digits() === 0) throw irregular
    }
    return usual && digits <= exactDigitsMax
  }

  /** Nanoseconds since the epoch, as digits with or without quotes. */
  instant(into: Instant): void {
    const quoted = this.#took(quote)
    const start = this.at
    const digits = this.digits()
    const leadingZero = this.bytes[start] === zero && digits > 1
    if (digits === 0 || digits > instantDigitsMax || (leadingZero && !quoted)) throw irregular
    const split = Math.max(start, this.at - nanosDigits)
    into.seconds = this.#decimal(start, split)
    into.nanos = this.#decimal(split, this.at)
    if (quoted) this.#byte(quote)
    if (!this.#atEnd()) throw irregular
  }

  #decimal(start: number, end: number): number {
    let value = 0
    for (let at = start; at < end; at++) value = value * 10 + (this.bytes[at] as number) - zero
    return value
  }

  #token(): void {
    const { bytes } = this
    if (bytes[this.at] !== quote) throw irregular
    let at = this.at + 1
    this.#textStart = at
    this.#escaped = false
    for (;;) {
      const byte = bytes[at]
      if (byte === quote) break
      if (byte === undefined || byte < 0x20) throw irregular
      if (byte === backslash) {
        this.#escaped = true
        at += 1
      }
      at += 1
    }
    this.#textEnd = at
    this.at = at + 1
  }

  /** Which known name the string just read is. */
  #known(): Known<Name> | null {
    if (this.#escaped) throw irregular
    const [start, end] = [this.#textStart, this.#textEnd]
    const known = this.#names.get(shapeOf(this.bytes, start, end))
    if (known === undefined) return null
    for (let at = start; at < end; at++) if (this.bytes[at] !== known.bytes[at - start]) return null
    return known
  }

  #space(): void {
    for (let byte = this.bytes[this.at]; byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09; ) {
      this.at += 1
      byte = this.bytes[this.at]
    }
  }

  #atEnd(): boolean {
    const byte = this.bytes[this.at]
    return byte === comma || byte === closeObject || byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09
  }

  #took(wanted: number): boolean {
    if (this.bytes[this.at] !== wanted) return false
    this.at += 1
    return true
  }

  #byte(wanted: number): void {
    if (!this.#took(wanted)) throw irregular
  }
}

const isDigit = (byte: number | undefined): boolean => byte !== undefined && byte >= zero && byte <= nine
