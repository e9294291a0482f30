// A cluster in one process: the embedded engine told that its cluster `one` has one shard and its cluster `two` has two, all of them
// itself. There is no Keeper in it, so tables are not replicated and statements run here only; all else is the cluster's schema as it
// is, Distributed tables, views and whatever reads and writes them. On `two` every row is read twice, once from each shard.
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Session } from 'chdb'
import { clickhouseHttp } from '../collector/clickhouse-http.ts'
import { openQueries } from '../collector/engine-queries.ts'
import { listen } from '../collector/http.ts'
import { type Migration, migrate } from '../collector/migrate.ts'
import { type Collector, startCollector } from '../collector/server.ts'
import { embeddedStore, type Store } from '../collector/store.ts'
import { silent, temporaryFolder } from './collector-fixtures.ts'

/** The same statement without what needs Keeper. */
export const withoutKeeper = (sql: string): string =>
  sql
    .replace(/ ON CLUSTER '\w+'/, '')
    .replace(/ENGINE = Replicated(\w+)\('[^']+', '[^']+'(?:, )?/, 'ENGINE = $1(')
    .replace(/(?<!non_)replicated_deduplication_window = \d+/, 'non_replicated_deduplication_window = 1000')
    .replace(/, replicated_deduplication_window_seconds = \d+/, '')

const shard =
  '<shard><internal_replication>true</internal_replication><replica><host>127.0.0.1</host><port>9000</port></replica></shard>'
const configText = (path: string): string => `<clickhouse>
  <users_config>${path}</users_config><tcp_port>9000</tcp_port>
  <remote_servers><one>${shard}</one><two>${shard}${shard}</two>
    <doubling>${shard.replace('true', 'false')}</doubling></remote_servers>
  <macros><shard>1</shard><replica>a</replica></macros>
  <profiles><default/></profiles><quotas><default/></quotas>
  <users><default><no_password/><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota></default></users>
</clickhouse>`

export type ClusterStage = {
  /** Takes statements as a server of the cluster would. */
  readonly store: Store
  /** What was asked of it, in order. */
  readonly statements: string[]
  readonly migrate: (cluster: string, migrations?: readonly Migration[]) => Promise<string[]>
  /** A collector of ours that writes to the cluster. */
  readonly collect: () => Promise<Collector>
  readonly clickhouseUrl: string
  readonly close: () => Promise<void>
}

export const openClusterStage = async (): Promise<ClusterStage> => {
  // The engine takes its time zone from here.
  process.env.TZ = 'UTC'
  const folder = await temporaryFolder()
  const config = join(folder.path, 'cluster.xml')
  await writeFile(config, configText(config))
  const session = new Session(folder.path, { connectionArgs: [`--config-file=${config}`] })
  const version = '26.7.2.1'
  const { close: closeQueries, ...queries } = openQueries(() => new Session(folder.path), version)
  const insert = async (table: string, values: Buffer, token: string): Promise<void> => {
    await session.insert({
      table,
      values,
      format: 'JSONEachRow',
      settings: { async_insert: 0, insert_deduplication_token: token },
    })
  }
  const engine = {
    ...queries,
    version,
    folder: folder.path,
    insert,
    insertFile: insert as never,
    holdInserts: <Value>(work: () => Promise<Value>) => work(),
    close: async () => {},
  }
  const front = await listen(clickhouseHttp(engine, silent, []), '127.0.0.1', 0)
  const statements: string[] = []
  const plain = embeddedStore(engine)
  const command = async (sql: string): Promise<void> => {
    statements.push(sql)
    await plain.command(withoutKeeper(sql))
  }
  const store = { ...plain, command }
  const close = async (): Promise<void> => {
    await front.close()
    closeQueries()
    session.close()
    await folder.remove()
  }
  const collect = () =>
    startCollector({
      otlpPort: 0,
      clickhousePort: 0,
      dataFolder: join(folder.path, 'own'),
      clickhouseUrl: front.url,
      log: silent,
    })
  return {
    store,
    statements,
    migrate: (cluster, migrations) => migrate(store, migrations, cluster),
    collect,
    clickhouseUrl: front.url,
    close,
  }
}
