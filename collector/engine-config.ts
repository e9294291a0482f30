// What the embedded engine may do, written where the engine reads it as it starts: no login, but no right to read or write
// anything outside its folder either, whatever a statement says. Without a file named to it, it would obey whatever `config.xml` lies
// in the working directory.
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'

/** All but other servers, other files and programs, which a dictionary may have for its source, and the end of this process. */
const grants = [
  'GRANT ALL ON *.*',
  'REVOKE SOURCES ON *.*',
  'REVOKE CREATE DICTIONARY ON *.*',
  'REVOKE SYSTEM SHUTDOWN ON *.*',
]

/** Settings by which a format reads or writes files, or asks other servers, without any right to do so; none may be changed. */
const outsideSettings = [
  'format_template_row',
  'format_template_resultset',
  'format_schema',
  'output_format_schema',
  'format_avro_schema_registry_url',
  'input_format_record_errors_file_path',
  'rename_files_after_processing',
]

const escaped = (text: string): string => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;')

/** The one folder where the engine may write backups to and read them from. */
export const backupsFolderOf = (folder: string): string => join(folder, 'backups')

/** Writes the engine's configuration into its folder; gives the arguments that name it to the engine. */
export const writeEngineConfig = async (folder: string): Promise<string[]> => {
  const path = join(folder, 'engine.xml')
  const text = `<clickhouse>
  <!-- written by signalbox each time it opens this folder -->
  <users_config>${escaped(path)}</users_config>
  <backups><allowed_path>${escaped(backupsFolderOf(folder))}</allowed_path></backups>
  <user_files_path>${escaped(join(folder, 'user_files'))}</user_files_path>
  <profiles><default><constraints>${outsideSettings.map((name) => `<${name}><const/></${name}>`).join('')}</constraints></default></profiles>
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
