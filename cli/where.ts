// Where the parts of a configuration answer, for the commands that ask them; and where they answer by default, for when there is no
// configuration that can be read.
import { type Config, loadConfig } from '../router/config.ts'

export type Addresses = {
  readonly router: string
  readonly collector: string
  readonly store: string
  /** The folder of the embedded store; null where the store is a ClickHouse server. */
  readonly data: string | null
}

const defaults: Addresses = {
  router: 'http://127.0.0.1:8080',
  collector: 'http://127.0.0.1:4318',
  store: 'http://127.0.0.1:8123',
  data: '.signalbox/data',
}

/** An address that this machine can ask, for one that a server listens on. */
const asked = (host: string): string =>
  host === '0.0.0.0' || host === '::' ? '127.0.0.1' : host.includes(':') ? `[${host}]` : host

/** The configuration, or null and what is wrong with it. */
export const readConfig = (file: string): { readonly config: Config | null; readonly problem: string } => {
  try {
    return { config: loadConfig(file), problem: '' }
  } catch (error) {
    return { config: null, problem: (error as Error).message }
  }
}

export const addressesOf = (config: Config | null): Addresses => {
  if (!config) return defaults
  const { listen, collector, telemetry } = config
  return {
    router: `http://${asked(listen.host)}:${listen.port}`,
    collector: telemetry ? telemetry.endpoint : `http://${asked(collector.host)}:${collector.otlp_port}`,
    store: collector.clickhouse_url ?? `http://127.0.0.1:${collector.clickhouse_port}`,
    data: collector.clickhouse_url ? null : collector.data,
  }
}
