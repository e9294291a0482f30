// `signalbox migrate`: brings the schema of a ClickHouse server, or of all servers of a cluster, up to date. The collector does the
// same for one server when it starts; this is for a server that the official OpenTelemetry Collector writes to, and for clusters.
import { Command } from 'commander'
import { addTextIndexes, migrate, schemaText } from '../collector/migrate.ts'
import { serverStore } from '../collector/store.ts'

type Options = {
  readonly clickhouseUrl?: string
  readonly cluster?: string
  readonly textIndexes?: boolean
  readonly print?: boolean
  readonly json?: boolean
}

const examples = `
Example:
  signalbox migrate --clickhouse-url http://127.0.0.1:8123
  signalbox migrate --clickhouse-url http://127.0.0.1:8123 --cluster prod
  signalbox migrate --cluster prod --print > schema.sql`

export const migrateCommand = (): Command =>
  new Command('migrate')
    .description('Creates or updates the tables of a ClickHouse server or cluster.')
    .option('--clickhouse-url <url>', 'as in http://user:password@127.0.0.1:8123; any one server of a cluster')
    .option('--cluster <name>', 'on every server of this cluster: replicated tables, spread over its shards by trace')
    .option('--text-indexes', 'faster search by attribute, for more disk and slower inserts; needs ClickHouse 26.2')
    .option('--print', 'print the whole schema as SQL and change nothing')
    .option('--json', 'print the names of the applied steps as JSON')
    .addHelpText('after', examples)
    .action(async (options: Options, command: Command) => {
      const { clickhouseUrl, cluster = null, textIndexes = false } = options
      if (options.print) return void process.stdout.write(await schemaText(cluster, textIndexes))
      if (clickhouseUrl === undefined) {
        return command.error("error: say which server with '--clickhouse-url <url>', or '--print' to see the SQL")
      }
      const store = serverStore(clickhouseUrl)
      try {
        const applied = await migrate(store, undefined, cluster)
        if (textIndexes) await addTextIndexes(store, cluster)
        const said = applied.length > 0 ? `applied: ${applied.join(', ')}` : 'the schema is up to date'
        process.stdout.write(`${options.json ? JSON.stringify({ applied }) : said}\n`)
      } finally {
        await store.close()
      }
    })
