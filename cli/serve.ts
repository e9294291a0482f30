// The commands that run: `up` (both parts, one log), `router` and `collector` alone.
import { Command } from 'commander'
import { pino } from 'pino'
import { startCollector } from '../collector/server.ts'
import { type Config, loadConfig } from '../router/config.ts'
import { startRouter } from '../router/server.ts'
import { type Child, serveUntilStopped, startCollectorChild, startEvaluateChild, startRouterChild } from './children.ts'

const logLevels = ['trace', 'debug', 'info', 'warn', 'error', 'silent']
type Options = { config: string; logLevel: string }

const withConfig = (command: Command): Command =>
  command
    .option('-c, --config <file>', 'the configuration', 'signalbox.yaml')
    .option('--log-level <level>', `how much to log: ${logLevels.join(', ')}`, 'info')

/** One log for all parts: the same stream, each line naming its part. */
const logFor = (name: string, level: string) => pino({ name, level, base: { name } })

const collectorOptions = ({ collector }: Config) => ({
  host: collector.host,
  token: collector.token,
  otlpPort: collector.otlp_port,
  clickhousePort: collector.clickhouse_port,
  clickhouseUsers: collector.users,
  dataFolder: collector.data,
  fsync: collector.fsync,
  ...(collector.clickhouse_url ? { clickhouseUrl: collector.clickhouse_url } : {}),
})

export const collectorCommand = (): Command =>
  withConfig(new Command('collector'))
    .description('Takes spans over OTLP/HTTP and stores them in ClickHouse, embedded or a server.')
    .addHelpText('after', '\nExample:\n  signalbox collector --config signalbox.yaml')
    .action(async (options: Options) => {
      const config = loadConfig(options.config)
      const log = logFor('collector', options.logLevel)
      const { otlpUrl, clickhouseUrl, close } = await startCollector({ ...collectorOptions(config), log })
      log.info({ otlpUrl, clickhouseUrl }, 'collector ready')
      await serveUntilStopped({ otlpUrl, clickhouseUrl }, close)
      log.info('collector stopped')
    })

export const routerCommand = (): Command =>
  withConfig(new Command('router'))
    .description('Routes OpenAI-compatible requests by the policy, and sends a span per decision to the collector.')
    .option('--otlp-url <url>', 'where spans go, in place of telemetry.endpoint')
    .addHelpText('after', '\nExample:\n  signalbox router --config signalbox.yaml --otlp-url http://127.0.0.1:4318')
    .action(async (options: Options & { otlpUrl?: string }) => {
      const config = loadConfig(options.config)
      const log = logFor('router', options.logLevel)
      const telemetry =
        config.telemetry && options.otlpUrl ? { ...config.telemetry, endpoint: options.otlpUrl } : config.telemetry
      const { url, close } = await startRouter({ ...config, telemetry }, { log })
      log.info({ url, policy: config.policy.name, hash: config.policy.hash }, 'router ready')
      await serveUntilStopped({ routerUrl: url }, close)
      log.info('router stopped')
    })

const banner = (urls: { routerUrl: string; otlpUrl: string; clickhouseUrl: string }, config: Config): string =>
  [
    '',
    `  Signalbox is up: ${config.targets.length} models under policy '${config.policy.name}'`,
    '',
    `  OpenAI-compatible API   ${urls.routerUrl}/v1      (model "auto" lets the policy choose)`,
    `  Spans (OTLP/HTTP)       ${urls.otlpUrl}/v1/traces`,
    `  ClickHouse              ${urls.clickhouseUrl}         (database otel)`,
    '',
    `  curl ${urls.routerUrl}/v1/chat/completions -H 'content-type: application/json' \\`,
    `    -d '{"model":"auto","messages":[{"role":"user","content":"Hello"}]}'`,
    '',
    '  Ctrl-C stops it.',
    '',
  ].join('\n')

export const upCommand = (): Command =>
  withConfig(new Command('up'))
    .description('Starts collector and router together, until Ctrl-C.')
    .addHelpText('after', '\nExample:\n  signalbox up --config examples/signalbox.yaml')
    .action(async (options: Options) => {
      const config = loadConfig(options.config)
      const stopped = new Promise<string>((resolve) => {
        for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => resolve(signal))
      })
      const child = { configFile: options.config, logLevel: options.logLevel }
      const collector = await startCollectorChild(child)
      let evaluating: Child<object> | null = null
      try {
        // Requests go on being answered whatever becomes of it.
        if (config.evaluators)
          evaluating = await startEvaluateChild({
            ...child,
            configFile: config.evaluators,
            collector: collector.urls,
            logTo: 'stderr',
          })
        const router = await startRouterChild({ ...child, otlpUrl: collector.urls.otlpUrl })
        process.stderr.write(banner({ ...collector.urls, ...router.urls }, config))
        const end = await Promise.race([stopped, collector.ended, router.ended])
        const failed = !end.startsWith('SIG')
        process.stderr.write(
          failed ? `signalbox: ${end}; stopping\n` : '\nStopping: requests finish, spans are delivered…\n',
        )
        // The router first: its last spans still find the collector.
        await router.stop()
        if (failed) process.exitCode = 1
      } finally {
        await evaluating?.stop()
        await collector.stop()
      }
    })
