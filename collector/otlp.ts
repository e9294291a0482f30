// What the signals of OTLP share: attribute values, and the rules that ids and times must keep. An item (a span, a log
// record, a data point) that breaks a rule is left out and named, so that a mixed batch keeps its good ones; a body whose
// frame is broken is refused whole.

/** How deep lists and maps may nest in an attribute. */
export const valueDepthMax = 32
/** The last instant that DateTime64(9) can hold, 2262-04-11. */
export const nanosecondsMax = 9_223_372_036_854_775_807n

/** An attribute's value: ints are bigint, doubles number, null is an empty value. */
export type Value =
  | null
  | string
  | boolean
  | bigint
  | number
  | Uint8Array
  | { readonly list: readonly Value[] }
  | { readonly map: readonly KeyValue[] }
export type KeyValue = readonly [key: string, value: Value]

/** The body, or one item of it, is not what OTLP says it should be. */
export class OtlpError extends Error {
  readonly code = 'otlp-invalid'
}

/** The body is small, perhaps, and what it says is too large to hold; sent again it would be no smaller. */
export class OtlpSizeError extends Error {
  readonly code = 'otlp-too-large'
}

/** Messages (spans, attributes, values, …) that one request may hold: empty ones take two bytes to send and hundreds to read. */
const messagesMax = 4_000_000
/** An error takes as long as so many messages. */
export const errorMessages = 400
let messagesLeft = messagesMax

/** Begins to count the messages of a request. There is one count, because decoding never waits for anything. */
export const beginCounting = (): void => {
  messagesLeft = messagesMax
}

/** Throws OtlpSizeError once the request holds too many. */
export const countMessages = (count = 1): void => {
  messagesLeft -= count
  if (messagesLeft < 0) {
    const advice = 'send fewer items in one request'
    throw new OtlpSizeError(`the body holds more than ${messagesMax} messages, or too many that are wrong: ${advice}`)
  }
}

const isId = (id: string, digits: number): boolean => id.length === digits && /^[0-9a-f]+$/.test(id) && !/^0+$/.test(id)

/** Throws OtlpError unless the id has that many hex digits and is not all zero. */
export const checkId = (name: string, id: string, digits: number): void => {
  if (!isId(id, digits)) {
    throw new OtlpError(`${name} is '${id.slice(0, 64)}', wanted ${digits} hex digits, not all zero`)
  }
}

/** An id that may be missing: what is no id counts as missing, as the protocol asks for log records and exemplars. */
export const idOr = (otherwise: string, id: string, digits: number): string => (isId(id, digits) ? id : otherwise)

/** Throws OtlpError unless the time, in nanoseconds, is one that its column can hold. */
export const checkTime = (name: string, time: bigint, max = nanosecondsMax): void => {
  if (time < 0n || time > max) throw new OtlpError(`${name} is ${time}, wanted 0 to ${max}`)
}
