// The completed policy in the router's own file, for when it restarts: one value of signalbox.yaml is replaced, and every other
// value, every comment and their order stay. Pure but for the two functions at the end, which read and replace the file.
import { readFile, rename, writeFile } from 'node:fs/promises'
import { parseDocument } from 'yaml'
import { type PolicyText, policyText } from '../../router/policy/policy.ts'

/** The file cannot take the policy. */
export class WriteBackError extends Error {
  readonly code = 'options-invalid'
}

/**
 * The text of a signalbox.yaml with `policy` in the place of its own, and a comment that says where it comes from. Throws a
 * WriteBackError where the text is not such a file.
 */
export const withPolicy = (text: string, { source, hash }: PolicyText, note: string, where: string): string => {
  const document = parseDocument(text)
  const [error] = document.errors
  if (error) throw new WriteBackError(`writing the policy into ${where}: ${error.message}`)
  if (!document.has('policy'))
    throw new WriteBackError(`writing the policy into ${where}: found no \`policy\` in it; wanted a signalbox.yaml`)
  const node = document.createNode(JSON.parse(source))
  node.commentBefore = ` ${note}`
  document.set('policy', node)
  const written = document.toString({ lineWidth: 0 })
  const kept = policyText(JSON.stringify(parseDocument(written).get('policy')), where)
  if (kept.hash === hash) return written
  throw new WriteBackError(`writing the policy into ${where}: it would become ${kept.hash} there, and not ${hash}`)
}

/** Reads a file that a policy is to be written into later, so that a mistake is told before anything begins. */
export const readConfig = async (path: string, policy: PolicyText): Promise<string> => {
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (error) {
    throw new WriteBackError(`writing the policy into ${path}: ${(error as Error).message}`)
  }
  withPolicy(text, policy, '', path)
  return text
}

/** Writes the policy into the file, all of it or not at all. */
export const writeBack = async (path: string, policy: PolicyText, note: string): Promise<void> => {
  const text = withPolicy(await readConfig(path, policy), policy, note, path)
  const draft = `${path}.new`
  await writeFile(draft, text)
  await rename(draft, path)
}
