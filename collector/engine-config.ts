// What the embedded engine may do, written where the engine reads it as it starts: no login, but no right to read or write
// anything outside its folder either, whatever a statement says. Without a file named to it, it would obey whatever `config.xml` lies
// in the working directory.
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'

/** All but other servers, other files, and the end of this process. */
const grants = ['GRANT ALL ON *.*', 'REVOKE SOURCES ON *.*', 'REVOKE SYSTEM SHUTDOWN ON *.*']

const escaped = (text: string): string => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;')

/** Writes the engine's configuration into its folder; gives the arguments that name it to the engine. */
export const writeEngineConfig = async (folder: string): Promise<string[]> => {
  const path = join(folder, 'engine.xml')
  const text = `<clickhouse>
  <!-- written by signalbox each time it opens this folder -->
  <users_config>${escaped(path)}</users_config>
  <user_files_path>${escaped(join(folder, 'user_files'))}</user_files_path>
  <profiles><default/></profiles>
  <quotas><default/></quotas>
  <users><default>
    <no_password/>
    <networks><ip>::/0</ip></networks>
    <profile>default</profile>
    <quota>default</quota>
    <grants>${grants.map((grant) => `<query>${grant}</query>`).join('')}</grants>
  </default></users>
</clickhouse>
`
  await writeFile(path, text, { mode: 0o600 })
  return [`--config-file=${path}`]
}
