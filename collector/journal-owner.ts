// One folder, one collector, also where the engine's own lock does not hold it, as with a ClickHouse server. The lock is SQLite's, the
// only one that Node can hold and that ends with its process whatever ended it: numbers of processes are soon somebody else's.
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'

const sqliteBusy = 5

/** The folder belongs to a collector that is running. */
export class OwnerError extends Error {
  readonly code = 'journal-locked'
}

/** Makes this process the folder's owner; gives what ends that. Throws OwnerError. */
export const own = async (folder: string): Promise<() => void> => {
  const ownerFile = join(folder, 'owner')
  const database = new DatabaseSync(join(folder, 'lock'))
  try {
    database.exec('PRAGMA journal_mode = MEMORY; PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE')
  } catch (error) {
    database.close()
    if ((error as { errcode?: number }).errcode !== sqliteBusy) throw error
    const owner = await readFile(ownerFile, 'utf8').catch(() => '')
    throw new OwnerError(`cannot use ${folder}: process ${owner} owns it; give each collector a folder of its own`)
  }
  // Only a message loses by it when this fails, and a full disk is no reason not to start.
  await writeFile(ownerFile, String(process.pid)).catch(() => {})
  return () => database.isOpen && database.close()
}
