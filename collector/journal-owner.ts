// One folder, one collector: a file names the process that owns the folder, for where the engine's own lock does not, as
// with a ClickHouse server. A process is named by its number and by when it started, because after a restart of a
// machine, and always in containers, the number soon belongs to somebody else.
import { open, readFile, unlink } from 'node:fs/promises'
import { join } from 'node:path'

/** How often a stale file is taken away before that counts as a failure. */
const attemptsMax = 5
/** Where Linux says, in ticks since the machine started, when a process did; counted after the command's name. */
const startedField = 19

/** The folder belongs to a collector that is running. */
export class OwnerError extends Error {
  readonly code = 'journal-locked'
}

/** Makes this process the folder's owner; gives what ends that. Throws OwnerError. */
export const own = async (folder: string): Promise<() => Promise<void>> => {
  const file = join(folder, 'owner')
  const self = `${process.pid} ${await startOf(process.pid)}`
  for (let attempt = 1; attempt <= attemptsMax; attempt++) {
    try {
      const handle = await open(file, 'wx')
      await handle.writeFile(self)
      await handle.close()
      return () => unlink(file).catch(() => {})
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    }
    const [pid = '', ...started] = (await readFile(file, 'utf8').catch(() => '')).split(' ')
    if (Number(pid) > 0 && (await startOf(Number(pid))) === started.join(' ')) break
    await unlink(file).catch(() => {})
  }
  const owner = (await readFile(file, 'utf8').catch(() => '')).split(' ')[0]
  throw new OwnerError(`cannot use ${folder}: process ${owner} owns it; give each collector a folder of its own`)
}

/** When a living process started, in the system's own spelling; '' for one that does not live, '?' where nobody says. */
const startOf = async (pid: number): Promise<string> => {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => null)
  if (stat !== null) return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[startedField] ?? '?'
  try {
    process.kill(pid, 0)
    return process.platform === 'linux' ? '' : '?'
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM' ? '?' : ''
  }
}
