// A small disk that can be filled to the last byte: a folder of its own in memory, which the system refuses to let grow past
// its size. Only root may make one, so elsewhere the scenarios that fill disks say so and are passed over.
import { spawnSync } from 'node:child_process'
import { closeSync, cpSync, mkdirSync, openSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'

const blockBytes = 1_048_576
const byteBytes = 512

export type Disk = {
  readonly folder: string
  readonly fill: () => void
  readonly free: () => void
  /** Gives the memory back; what is on it is kept in the folder when asked for. */
  readonly close: (keep: boolean) => void
}

const run = (command: string, ...args: string[]): boolean => spawnSync(command, args, { stdio: 'ignore' }).status === 0

/** A disk of so many megabytes at `folder`, or null where none can be made. */
export const smallDisk = (folder: string, megabytes: number): Disk | null => {
  mkdirSync(folder, { recursive: true })
  if (!run('mount', '-t', 'tmpfs', '-o', `size=${megabytes}m`, 'tmpfs', folder)) return null
  const ballast = join(folder, 'ballast')
  const fill = (): void => {
    const file = openSync(ballast, 'a')
    for (let bytes = blockBytes; bytes >= byteBytes; ) {
      try {
        if (writeSync(file, Buffer.alloc(bytes)) < bytes) bytes /= 2
      } catch {
        bytes /= 2
      }
    }
    closeSync(file)
  }
  const free = (): void => rmSync(ballast, { force: true })
  const close = (keep: boolean): void => {
    free()
    if (keep) cpSync(folder, `${folder}.kept`, { recursive: true })
    run('umount', '-l', folder)
    if (keep) cpSync(`${folder}.kept`, folder, { recursive: true })
    rmSync(`${folder}.kept`, { recursive: true, force: true })
  }
  return { folder, fill, free, close }
}
