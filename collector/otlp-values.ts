// Attribute values in both encodings of OTLP, read by hand because most of a request is attributes. In protobuf each
// comparison is with a tag, field number and wire type together, so a known field of an unexpected type counts as unknown
// and is skipped by its wire type, as protobuf intends.
import { type BinaryReader, WireType } from '@bufbuild/protobuf/wire'
import { countMessages, type KeyValue, OtlpError, type Value, valueDepthMax } from './otlp.ts'

export type Json = { readonly [key: string]: unknown }

const given = (value: unknown): boolean => value !== undefined && value !== null
const kindOf = (value: unknown): string => (value === null ? 'null' : Array.isArray(value) ? 'a list' : typeof value)
const shown = (value: unknown): string => String(JSON.stringify(value)).slice(0, 64)

export const jsonObject = (value: unknown, path: string): Json => {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new OtlpError(`${path} is ${kindOf(value)}, wanted an object`)
  }
  countMessages()
  return value as Json
}

export const jsonList = (value: unknown, path: string): readonly unknown[] => {
  if (!given(value)) return []
  if (!Array.isArray(value)) throw new OtlpError(`${path} is ${kindOf(value)}, wanted a list`)
  return value
}

export const jsonText = (value: unknown, path: string): string => {
  if (!given(value)) return ''
  if (typeof value !== 'string') throw new OtlpError(`${path} is ${kindOf(value)}, wanted a string`)
  return value
}

/** A whole number within the bounds, as a number or as text. */
export const jsonInteger = (value: unknown, path: string, min: bigint, max: bigint): bigint => {
  if (!given(value)) return 0n
  const whole =
    typeof value === 'number' ? Number.isSafeInteger(value) : typeof value === 'string' && /^-?\d{1,20}$/.test(value)
  if (!whole) throw new OtlpError(`${path} is ${shown(value)}, wanted a whole number`)
  const integer = BigInt(value as number | string)
  if (integer < min || integer > max)
    throw new OtlpError(`${path} is ${integer}, wanted a whole number from ${min} to ${max}`)
  return integer
}

/** An enum: an integer, never its name. */
export const jsonEnum = (value: unknown, path: string): number => {
  if (!given(value)) return 0
  if (typeof value !== 'number' || (value | 0) !== value)
    throw new OtlpError(`${path} is ${shown(value)}, wanted an integer`)
  return value
}

const doubleNames = new Map([
  ['NaN', Number.NaN],
  ['Infinity', Number.POSITIVE_INFINITY],
  ['-Infinity', Number.NEGATIVE_INFINITY],
])
export const jsonDouble = (value: unknown, path: string): number => {
  if (!given(value)) return 0
  if (typeof value === 'number') return value
  const named = typeof value === 'string' ? (doubleNames.get(value) ?? Number(value.trim() || 'x')) : Number.NaN
  if (Number.isNaN(named) && value !== 'NaN') throw new OtlpError(`${path} is ${shown(value)}, wanted a number`)
  return named
}

export const jsonKeyValues = (raw: unknown, path: string, depth = 0): KeyValue[] =>
  jsonList(raw, path).map((item) => {
    const pair = jsonObject(item, `an entry of ${path}`)
    const key = jsonText(pair.key, `a key of ${path}`)
    return [key, jsonValue(pair.value, key, depth)]
  })

const [int64Min, int64Max] = [-(2n ** 63n), 2n ** 63n - 1n]

export const jsonValue = (value: unknown, path: string, depth = 0): Value => {
  if (depth > valueDepthMax) throw new OtlpError(`attribute '${path}' nests deeper than ${valueDepthMax}`)
  if (!given(value)) return null
  const raw = jsonObject(value, path)
  if (given(raw.stringValue)) return jsonText(raw.stringValue, path)
  if (given(raw.intValue)) return jsonInteger(raw.intValue, path, int64Min, int64Max)
  if (given(raw.doubleValue)) return jsonDouble(raw.doubleValue, path)
  if (given(raw.boolValue)) return raw.boolValue === true
  if (given(raw.arrayValue)) {
    const values = jsonList(jsonObject(raw.arrayValue, path).values, path)
    return { list: values.map((member) => jsonValue(member, path, depth + 1)) }
  }
  if (given(raw.kvlistValue)) return { map: jsonKeyValues(jsonObject(raw.kvlistValue, path).values, path, depth + 1) }
  if (given(raw.bytesValue)) return Buffer.from(jsonText(raw.bytesValue, path), 'base64')
  return null
}

const tag = (field: number, type: WireType): number => (field << 3) | type
const [key1, value2] = [tag(1, WireType.LengthDelimited), tag(2, WireType.LengthDelimited)]
const [string1, bool2, int3, double4] = [key1, tag(2, WireType.Varint), tag(3, WireType.Varint), tag(4, WireType.Bit64)]
const [list5, map6, bytes7] = [5, 6, 7].map((field) => tag(field, WireType.LengthDelimited))

/** Visits every field up to `end`; a visit that returns false leaves the field to be skipped. */
export const visitFields = (reader: BinaryReader, end: number, visit: (tag: number) => boolean): void => {
  countMessages()
  while (reader.pos < end) {
    const [field, type] = reader.tag()
    if (!visit((field << 3) | type)) reader.skip(type, field)
  }
  if (reader.pos !== end) throw new OtlpError('a field runs past the end of its message')
}

/** Where the message that starts here with its length ends. */
export const messageEnd = (reader: BinaryReader): number => {
  const end = reader.uint32() + reader.pos
  if (end > reader.len) throw new OtlpError('a message is longer than the body')
  return end
}

export const readKeyValue = (reader: BinaryReader, depth = 0): KeyValue => {
  let key = ''
  let value: Value = null
  visitFields(reader, messageEnd(reader), (found) => {
    if (found === key1) key = reader.string()
    else if (found === value2) value = readValue(reader, depth)
    else return false
    return true
  })
  return [key, value]
}

export const readValue = (reader: BinaryReader, depth = 0): Value => {
  if (depth > valueDepthMax) throw new OtlpError(`an attribute nests deeper than ${valueDepthMax}`)
  let value: Value = null
  visitFields(reader, messageEnd(reader), (found) => {
    if (found === string1) value = reader.string()
    else if (found === bool2) value = reader.bool()
    else if (found === int3) value = BigInt(reader.int64())
    else if (found === double4) value = reader.double()
    else if (found === list5) value = { list: repeatedIn(reader, () => readValue(reader, depth + 1)) }
    else if (found === map6) value = { map: repeatedIn(reader, () => readKeyValue(reader, depth + 1)) }
    else if (found === bytes7) value = reader.bytes()
    else return false
    return true
  })
  return value
}

/** The message that holds nothing but a repeated field 1. */
const repeatedIn = <Item>(reader: BinaryReader, read: () => Item): Item[] => {
  const items: Item[] = []
  visitFields(reader, messageEnd(reader), (found) => found === key1 && items.push(read()) > 0)
  return items
}
