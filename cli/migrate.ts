// `signalbox migrate`: brings the schema of a ClickHouse server up to date. The collector does the same when it starts;
// this is for a server that the official OpenTelemetry Collector writes to.
import { Command } from 'commander'
import { migrate } from '../collector/migrate.ts'
import { serverStore } from '../collector/store.ts'

export const migrateCommand = (): Command =>
  new Command('migrate')
    .description('Creates or updates the tables of a ClickHouse server.')
    .requiredOption('--clickhouse-url <url>', 'as in http://user:password@127.0.0.1:8123')
    .addHelpText('after', '\nExample:\n  signalbox migrate --clickhouse-url http://127.0.0.1:8123')
    .action(async ({ clickhouseUrl }: { clickhouseUrl: string }) => {
      const store = serverStore(clickhouseUrl)
      try {
        const applied = await migrate(store)
        process.stdout.write(applied.length > 0 ? `applied: ${applied.join(', ')}\n` : 'the schema is up to date\n')
      } finally {
        await store.close()
      }
    })
