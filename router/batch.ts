// One request body under way: OTLP/JSON that grows item by item, in one buffer outside the heap. Each item is a line of its
// own, so that a file that was cut off while it grew can be cut back to its last whole item and closed.

/** Where a batch's buffer begins, unless the one before it needed more. */
const bytesAtFirst = 65_536
const bytesExpectedMax = 8_388_608
const utf8BytesPerUnitMax = 3

/** What closes every batch, of spans or of log events: their heads open the same brackets. */
export const batchTail = ']}]}]}'

/** How a signal's items are written; `head` comes before the first of a batch. Neither may contain a line break. */
export type Encoding<Item> = {
  readonly head: (first: Item) => string
  readonly text: (item: Item) => string
}

export class Batch {
  #bytes: Buffer
  #at = 0
  #items = 0

  /** `bytesExpected` spares growing: what the batch before came to. */
  constructor(bytesExpected = 0) {
    this.#bytes = Buffer.allocUnsafeSlow(Math.min(bytesExpectedMax, Math.max(bytesAtFirst, bytesExpected)))
  }

  get items(): number {
    return this.#items
  }

  get byteLength(): number {
    return this.#at
  }

  /** What is there so far. What it returns stays as it is when more is added. */
  get bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#at)
  }

  add<Item>({ head, text }: Encoding<Item>, item: Item): void {
    this.#write(this.#items === 0 ? `${head(item)}\n${text(item)}\n` : `,${text(item)}\n`)
    this.#items += 1
  }

  /** Closes the batch: from here on its bytes are a request body, and nothing may be added. */
  close(): Uint8Array {
    this.#write(batchTail)
    if (this.#at < this.#bytes.length / 2) this.#bytes = Buffer.from(this.bytes)
    return this.bytes
  }

  #write(text: string): void {
    const needed = this.#at + text.length * utf8BytesPerUnitMax
    if (needed > this.#bytes.length) {
      const larger = Buffer.allocUnsafeSlow(Math.max(needed, this.#bytes.length * 2))
      this.#bytes.copy(larger, 0, 0, this.#at)
      this.#bytes = larger
    }
    this.#at += this.#bytes.write(text, this.#at, 'utf8')
  }
}
