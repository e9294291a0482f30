// How much may wait for the collector, in all signals together: so many bytes in the spool, so many in memory. When there is
// no room, either what is new is dropped and counted, or, so that nothing is, new requests are refused.
import type { TelemetryConfig } from './config.ts'

/** Bytes in memory, whether they are on disk too or not: a disk that fails for long must not take the process with it. */
const memoryBytesMax = 268_435_456
/** What requests that were accepted before it was full may still add, where requests are refused. */
const slackBytes = 67_108_864

export type Room = {
  readonly bytesMax: number
  readonly refuses: boolean
  /** Bytes that wait, wherever they are. */
  queuedBytes: number
  /** Those of them that are in memory. */
  memoryBytes: number
}

/** Room for `bytesMax` in a spool, or, without one, for what memory may hold. */
export const roomFor = (spool: TelemetryConfig['spool']): Room => ({
  bytesMax: spool ? spool.bytesMax : memoryBytesMax,
  refuses: spool && spool.whenFull === 'refuse',
  queuedBytes: 0,
  memoryBytes: 0,
})

/** Whether requests are to be refused. */
export const isRefusing = (room: Room): boolean =>
  room.refuses && (room.queuedBytes >= room.bytesMax || room.memoryBytes >= memoryBytesMax)

/** Whether one more item may be added. */
export const hasRoom = ({ bytesMax, refuses, queuedBytes, memoryBytes }: Room): boolean => {
  const slack = refuses ? slackBytes : 0
  return queuedBytes < bytesMax + slack && memoryBytes < memoryBytesMax + slack
}
