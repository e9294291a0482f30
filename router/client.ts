// The client's side of a request: one response, begun once. It tells when the client has gone and when it can take more,
// so that an attempt can be cancelled and a provider slowed down.
import type { ServerResponse } from 'node:http'

/** An error in the shape that OpenAI's clients read, with what the router did about it. */
export type ErrorBody = {
  readonly error: {
    readonly message: string
    readonly type: string
    readonly code: string
    readonly param: string | null
    readonly signalbox?: unknown
  }
}

export class Client {
  readonly #response: ServerResponse
  /** Set by whoever feeds the client at the moment. */
  onGone: (() => void) | null = null
  onDrain: (() => void) | null = null
  /** Sees every piece of a stream that leaves for the client. */
  tap: ((piece: Buffer) => void) | null = null
  gone = false
  /** When the request came in, milliseconds since the epoch. */
  readonly startedAtMs = Date.now()
  readonly #start = performance.now()
  /** Until the first content left for the client; null before. */
  ttftMs: number | null = null

  constructor(response: ServerResponse) {
    this.#response = response
    response.on('close', () => {
      if (response.writableFinished) return
      this.gone = true
      this.onGone?.()
    })
    response.on('drain', () => this.onDrain?.())
  }

  /** Milliseconds since the request came in, by a clock that never steps back. */
  elapsedMs(): number {
    return performance.now() - this.#start
  }

  /** Now, milliseconds since the epoch, by the same clock. */
  nowMs(): number {
    return this.startedAtMs + this.elapsedMs()
  }

  get begun(): boolean {
    return this.#response.headersSent
  }

  begin(status: number, headers: Record<string, string | string[]>): void {
    if (!this.gone) this.#response.writeHead(status, headers)
  }

  /** Writes a piece; false means: wait for `onDrain`. */
  write(piece: Buffer): boolean {
    if (this.gone) return true
    this.ttftMs ??= this.elapsedMs()
    this.tap?.(piece)
    return this.#response.write(piece)
  }

  end(piece?: Buffer | string): void {
    if (!this.gone) this.#response.end(piece)
  }

  /** Tells the client that the stream it is reading ends early: an error event, and no `[DONE]`. */
  cut(body: ErrorBody): void {
    this.end(`data: ${JSON.stringify(body)}\n\n`)
  }
}
