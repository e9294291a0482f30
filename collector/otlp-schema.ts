// OTLP's messages as data: a schema lists a message's fields as its .proto does, and both decoders follow from it. A field
// bears its name in OTLP's JSON, unless it says what that is. Unknown fields are ignored in both encodings, and a field
// that is missing is its type's zero, as in protobuf.
import { BinaryReader, WireType } from '@bufbuild/protobuf/wire'
import { countMessages, errorMessages, type KeyValue, OtlpError, type Value } from './otlp.ts'
import {
  jsonDouble,
  jsonEnum,
  jsonInteger,
  jsonKeyValues,
  jsonList,
  jsonObject,
  jsonText,
  jsonValue,
  messageEnd,
  readKeyValue,
  readValue,
  visitFields,
} from './otlp-values.ts'

/** One field of a message: its number, and how it is read. */
export type Field<Type> = {
  readonly number: number
  /** Its name in JSON, where that is not its name in the schema. */
  readonly jsonName?: string
  /** The wire types it may have; packed lists have two. */
  readonly wires: readonly WireType[]
  readonly missing: Type
  json(raw: unknown, name: string): Type
  /** Reads one occurrence; `before` is what earlier ones gave. */
  protobuf(reader: BinaryReader, before: Type, wire: WireType): Type
}
export type Schema = { readonly [name: string]: Field<unknown> }
/** What a schema's message is once decoded. */
export type Message<Fields extends Schema> = {
  readonly [Name in keyof Fields]: Fields[Name] extends Field<infer Type> ? Type : never
}

const field = <Type>(
  number: number,
  wire: WireType,
  missing: Type,
  json: Field<Type>['json'],
  protobuf: Field<Type>['protobuf'],
): Field<Type> => ({ number, wires: [wire], missing, json, protobuf })

export const named = <Type>(jsonName: string, of: Field<Type>): Field<Type> => ({ ...of, jsonName })

/** A field whose absence says something: null. */
export const optional = <Type>(of: Field<Type>): Field<Type | null> => ({ ...of, missing: null }) as Field<Type | null>

export const text = (number: number) =>
  field(number, WireType.LengthDelimited, '', jsonText, (reader) => reader.string())

/** An id: bytes in protobuf, hex in JSON; given as lower-case hex. */
export const id = (number: number) =>
  field(
    number,
    WireType.LengthDelimited,
    '',
    (raw, name) => jsonText(raw, name).toLowerCase(),
    (reader) => {
      const bytes = reader.bytes()
      return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex')
    },
  )

export const flag = (number: number) =>
  field(
    number,
    WireType.Varint,
    false,
    (raw) => raw === true,
    (reader) => reader.bool(),
  )

export const enumeration = (number: number) => field(number, WireType.Varint, 0, jsonEnum, (reader) => reader.int32())

export const double = (number: number) => field(number, WireType.Bit64, 0, jsonDouble, (reader) => reader.double())

const [int32Min, int32Max, uint32Max] = [-(2n ** 31n), 2n ** 31n - 1n, 2n ** 32n - 1n]
const [int64Min, int64Max, uint64Max] = [-(2n ** 63n), 2n ** 63n - 1n, 2n ** 64n - 1n]
const bounded = (min: bigint, max: bigint) => (raw: unknown, name: string) => jsonInteger(raw, name, min, max)
const small = (min: bigint, max: bigint) => (raw: unknown, name: string) => Number(jsonInteger(raw, name, min, max))

export const uint32 = (number: number) =>
  field(number, WireType.Varint, 0, small(0n, uint32Max), (reader) => reader.uint32())
export const sint32 = (number: number) =>
  field(number, WireType.Varint, 0, small(int32Min, int32Max), (reader) => reader.sint32())
export const fixed32 = (number: number) =>
  field(number, WireType.Bit32, 0, small(0n, uint32Max), (reader) => reader.fixed32())
export const fixed64 = (number: number) =>
  field(number, WireType.Bit64, 0n, bounded(0n, uint64Max), (reader) => BigInt(reader.fixed64()))
export const sfixed64 = (number: number) =>
  field(number, WireType.Bit64, 0n, bounded(int64Min, int64Max), (reader) => BigInt(reader.sfixed64()))
export const uint64 = (number: number) =>
  field(number, WireType.Varint, 0n, bounded(0n, uint64Max), (reader) => BigInt(reader.uint64()))

export const value = (number: number) =>
  field<Value>(number, WireType.LengthDelimited, null, jsonValue, (reader) => readValue(reader))

const appended = <Item>(items: readonly Item[], item: Item): readonly Item[] => {
  // The first item makes the list, so that the empty one of `missing` stays empty.
  if (items.length === 0) return [item]
  ;(items as Item[]).push(item)
  return items
}

export const attributes = (number: number) =>
  field<readonly KeyValue[]>(number, WireType.LengthDelimited, [], jsonKeyValues, (reader, before) =>
    appended(before, readKeyValue(reader)),
  )

/** A list of numbers, packed or not. */
export const numbers = <Type>(of: Field<Type>): Field<readonly Type[]> => ({
  number: of.number,
  wires: [WireType.LengthDelimited, ...of.wires],
  missing: [],
  json: (raw, name) => jsonList(raw, name).map((item) => of.json(item, name)),
  protobuf: (reader, before, wire) => {
    if (wire !== WireType.LengthDelimited) return appended(before, of.protobuf(reader, of.missing, wire))
    const end = messageEnd(reader)
    const items = [...before]
    while (reader.pos < end) items.push(of.protobuf(reader, of.missing, wire))
    if (reader.pos !== end) throw new OtlpError('a number runs past the end of its list')
    return items
  },
})

export const message = <Fields extends Schema>(number: number, schema: Fields): Field<Message<Fields>> => {
  const { fromJson, fromReader, zero } = readers(schema)
  // One that comes twice is one in two parts, as protobuf has it.
  const read = (reader: BinaryReader, before: Message<Fields>): Message<Fields> =>
    fromReader(reader, messageEnd(reader), before)
  return field(number, WireType.LengthDelimited, zero, fromJson, read)
}

export const repeated = <Fields extends Schema>(number: number, schema: Fields): Field<readonly Message<Fields>[]> => {
  const { fromJson, fromReader } = readers(schema)
  return field<readonly Message<Fields>[]>(
    number,
    WireType.LengthDelimited,
    [],
    (raw, name) => jsonList(raw, name).map((item) => fromJson(item, `an entry of ${name}`)),
    (reader, before) => appended(before, fromReader(reader, messageEnd(reader))),
  )
}

/** A list whose members stand alone: one that cannot be read is the error that says why. */
export const attempted = <Fields extends Schema>(
  number: number,
  schema: Fields,
): Field<readonly (Message<Fields> | Error)[]> => {
  const { fromJson, fromReader } = readers(schema)
  return field<readonly (Message<Fields> | Error)[]>(
    number,
    WireType.LengthDelimited,
    [],
    (raw, name) => jsonList(raw, name).map((item) => attempt(() => fromJson(item, 'it'))),
    (reader, before) => {
      const end = messageEnd(reader)
      const item = attempt(() => fromReader(reader, end))
      reader.pos = end
      return appended(before, item)
    },
  )
}

const attempt = <Result>(work: () => Result): Result | Error => {
  try {
    return work()
  } catch (error) {
    countMessages(errorMessages)
    return error as Error
  }
}

/** Both decoders of a schema's message; they throw OtlpError, or the wire reader's error on broken protobuf. */
export const readers = <Fields extends Schema>(schema: Fields) => {
  type Decoded = Message<Fields>
  const names = Object.keys(schema)
  const zero = Object.fromEntries(names.map((name) => [name, schema[name]?.missing])) as Decoded
  const byTag: (string | undefined)[] = []
  for (const name of names) {
    const { number, wires } = schema[name] as Field<unknown>
    for (const wire of wires) byTag[(number << 3) | wire] = name
  }
  const fromJson = (raw: unknown, name: string): Decoded => {
    const object = jsonObject(raw, name)
    const decoded: Record<string, unknown> = { ...zero }
    for (const key of names) {
      const { json, jsonName = key } = schema[key] as Field<unknown>
      const raw = object[jsonName]
      if (raw !== undefined && raw !== null) decoded[key] = json(raw, jsonName)
    }
    return decoded as Decoded
  }
  const fromReader = (reader: BinaryReader, end: number, before: Decoded = zero): Decoded => {
    const decoded: Record<string, unknown> = { ...(before ?? zero) }
    visitFields(reader, end, (tag) => {
      const name = byTag[tag]
      if (name === undefined) return false
      decoded[name] = (schema[name] as Field<unknown>).protobuf(reader, decoded[name], tag & 7)
      return true
    })
    return decoded as Decoded
  }
  return { fromJson, fromReader, zero }
}

/** A whole body of protobuf. */
export const readWhole = <Decoded>(
  fromReader: (reader: BinaryReader, end: number) => Decoded,
  body: Uint8Array,
): Decoded => {
  const reader = new BinaryReader(body)
  return fromReader(reader, reader.len)
}
