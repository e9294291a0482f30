// docker-compose.yml and collector/otelcol.yaml where no container engine runs: held to the parts of their specifications
// that they use, to each other, and to the ports and names of the code.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Ajv } from 'ajv'
import { DOMParser } from 'linkedom'
import { parse } from 'yaml'
import { parseConfig } from '../router/config.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
const read = (path: string): string => readFileSync(`${root}${path}`, 'utf8')

type Service = {
  readonly image: string
  readonly build?: string
  readonly command?: readonly string[]
  readonly environment?: Readonly<Record<string, string>>
  readonly ports?: readonly string[]
  readonly volumes?: readonly string[]
  readonly healthcheck?: { readonly test: readonly string[] }
  readonly depends_on?: Readonly<Record<string, { readonly condition: string }>>
}
const compose = parse(read('docker-compose.yml')) as {
  services: Record<string, Service>
  volumes: Record<string, unknown>
}
const services = Object.entries(compose.services)
const service = (name: string): Service => {
  const found = compose.services[name]
  assert.ok(found, `docker-compose.yml has a service '${name}'`)
  return found
}
const otelcol = parse(read('collector/otelcol.yaml'), { merge: true })
type Exporter = {
  readonly create_schema: boolean
  readonly async_insert: boolean
  readonly sending_queue: { readonly enabled: boolean; readonly storage: string; readonly block_on_overflow: boolean }
  readonly retry_on_failure: object
  readonly connection_params: object
}
const exporters = Object.values<Exporter>(otelcol.exporters)
const config = parseConfig(read('signalbox.compose.yaml'), root, 'signalbox.compose.yaml', {
  ...process.env,
  ...service('router').environment,
})

const text = { type: 'string' }
const list = (items: object) => ({ type: 'array', items, minItems: 1 })
const closed = (properties: Record<string, object>, required: string[] = []) => ({
  type: 'object',
  properties,
  required,
  additionalProperties: false,
})
const named = (values: object) => ({ type: 'object', additionalProperties: values })
const duration = { type: 'string', pattern: '^[0-9]+(ms|s|m|h)$' }

/** The compose specification, as far as the file uses it; a key that is not here fails. */
const composeSchema = closed(
  {
    name: { type: 'string', pattern: '^[a-z0-9][a-z0-9_-]*$' },
    services: named(
      closed(
        {
          image: { type: 'string', pattern: '^[a-z0-9/_-]+:(?!latest)[a-z0-9._-]+$' },
          build: text,
          user: { type: 'string', pattern: '^[0-9]+:[0-9]+$' },
          command: list(text),
          environment: named(text),
          ports: list({ type: 'string', pattern: '^127\\.0\\.0\\.1:[0-9]+:[0-9]+$' }),
          volumes: list({ type: 'string', pattern: '^(\\./)?[a-z0-9][a-z0-9./_-]*:/[^:]+(:ro)?$' }),
          ulimits: named({ type: 'integer' }),
          healthcheck: closed(
            { test: list(text), interval: duration, timeout: duration, retries: { type: 'integer', minimum: 1 } },
            ['test', 'interval', 'timeout', 'retries'],
          ),
          depends_on: named(
            closed({ condition: { enum: ['service_started', 'service_healthy', 'service_completed_successfully'] } }, [
              'condition',
            ]),
          ),
          restart: { enum: ['no', 'always', 'on-failure', 'unless-stopped'] },
          stop_grace_period: { type: 'string', pattern: '^\\d+(s|m)$' },
        },
        ['image', 'restart'],
      ),
    ),
    volumes: named({ type: 'null' }),
  },
  ['name', 'services', 'volumes'],
)

test('docker-compose.yml uses only keys and values of the compose specification', () => {
  const ajv = new Ajv({ allErrors: true })
  assert.ok(ajv.validate(composeSchema, compose), ajv.errorsText())
})

test('every dependency is a service that can meet its condition, and none waits for itself', () => {
  const above = (name: string, below: readonly string[]): void => {
    assert.ok(!below.includes(name), `${[...below, name].join(' waits for ')}`)
    for (const [other, { condition }] of Object.entries(service(name).depends_on ?? {})) {
      if (condition === 'service_healthy') assert.ok(service(other).healthcheck, `${other} has a health check`)
      if (condition === 'service_completed_successfully') assert.ok(!service(other).ports, `${other} ends by itself`)
      above(other, [...below, name])
    }
  }
  for (const [name] of services) above(name, [])
})

test('every volume is declared and used, and every mounted path is in the repository', () => {
  const sources = services.flatMap(([, { volumes = [] }]) => volumes.map((volume) => volume.split(':')[0] ?? ''))
  for (const path of sources.filter((source) => source.startsWith('./')))
    assert.ok(existsSync(`${root}${path}`), `${path} is not in the repository`)
  const volumes = sources.filter((source) => !source.startsWith('./'))
  assert.deepEqual(volumes.toSorted(), Object.keys(compose.volumes).toSorted())
})

test('the ports outside are those inside, each taken once, and the ones the code uses', () => {
  const ports = Object.fromEntries(services.flatMap(([name, { ports = [] }]) => ports.map((port) => [port, name])))
  const code = {
    router: config.listen.port,
    otelcol: config.collector.otlp_port,
    clickhouse: config.collector.clickhouse_port,
  }
  const wanted = Object.entries({ ...code, grafana: 3000 }).map(([name, port]) => [`127.0.0.1:${port}:${port}`, name])
  assert.deepEqual(ports, Object.fromEntries(wanted))
  assert.deepEqual(code, { router: 8080, otelcol: 4318, clickhouse: 8123 })
})

test('every password and key comes from the environment, and is the same wherever it is used', () => {
  const seen = new Map<string, string>()
  for (const [name, { environment = {} }] of services)
    for (const [key, value] of Object.entries(environment)) {
      if (!/PASSWORD|KEY|TOKEN|SECRET/.test(key)) continue
      assert.match(value, /^\$\{[A-Z_]+:[-?][^}]+\}$/, `${name}: ${key}`)
      assert.equal(seen.get(key) ?? value, value, `${key} differs between services`)
      seen.set(key, value)
    }
})

test('health checks ask the port the service is published at', () => {
  for (const [name, { healthcheck, ports = [] }] of services)
    if (healthcheck) {
      const port = /:\/\/127\.0\.0\.1:(\d+)\//.exec(healthcheck.test.join(' '))?.[1]
      assert.ok(
        ports.some((published) => published.endsWith(`:${port}`)),
        name,
      )
    }
})

test('the router reads its configuration, and sends its spans to the collector of the compose file', () => {
  const { command, volumes } = service('router')
  assert.deepEqual(command, ['router', '--config', 'signalbox.compose.yaml'])
  assert.ok(volumes?.includes('./signalbox.compose.yaml:/signalbox/signalbox.compose.yaml:ro'))
  assert.ok(config.telemetry)
  assert.equal(config.telemetry.endpoint, `http://otelcol:${config.collector.otlp_port}`)
  assert.equal(config.listen.host, '0.0.0.0')
  assert.equal(config.keys.length, 1, 'off loopback it asks for a key')
  assert.deepEqual(config.warnings, [], 'every model of it has a price')
})

test('the image holds what it needs and starts the command', () => {
  const dockerfile = read('Dockerfile')
  const { node } = JSON.parse(read('package.json')).devDependencies
  assert.match(
    dockerfile,
    new RegExp(`^FROM node:${node.split('.')[0]}-slim$`, 'm'),
    'the Node that the project carries',
  )
  const copied = /^COPY (?!\.)(.*) \.\/$/m.exec(dockerfile)?.[1]?.split(' ') ?? []
  for (const file of copied) assert.ok(existsSync(`${root}${file}`), file)
  assert.match(dockerfile, /^ENTRYPOINT \["node", "signalbox.js"\]$/m)
  assert.match(dockerfile, /^USER node$/m)
  const ignored = read('.dockerignore').split('\n')
  for (const path of ['node_modules', '.git', '.signalbox', '.env']) assert.ok(ignored.includes(path), path)
})

test('the schema is made by our migrations before anything writes or reads', () => {
  const { command = [], depends_on: waitsFor } = service('migrate')
  assert.deepEqual(command.slice(0, 2), ['migrate', '--clickhouse-url'])
  const url = new URL((command[2] ?? '').replace(/\$\{\w+:-(.*)\}/, '$1'))
  assert.equal(url.host, `clickhouse:${config.collector.clickhouse_port}`)
  assert.equal(url.username, service('clickhouse').environment?.CLICKHOUSE_USER)
  assert.ok(command[2]?.includes(service('clickhouse').environment?.CLICKHOUSE_PASSWORD ?? '-'))
  assert.equal(waitsFor?.clickhouse?.condition, 'service_healthy')
  for (const name of ['otelcol', 'grafana'])
    assert.equal(service(name).depends_on?.migrate?.condition, 'service_completed_successfully', name)
  for (const { create_schema: creates } of exporters) assert.equal(creates, false)
})

test('otelcol.yaml defines all that its service uses, and uses all that it defines', () => {
  assert.deepEqual(Object.keys(otelcol), ['extensions', 'receivers', 'processors', 'exporters', 'service'])
  const { extensions, pipelines } = otelcol.service
  const used = (part: string) => [
    ...new Set(Object.values<Record<string, string[]>>(pipelines).flatMap((p) => p[part] ?? [])),
  ]
  assert.deepEqual(extensions, Object.keys(otelcol.extensions))
  assert.deepEqual(used('receivers'), Object.keys(otelcol.receivers))
  assert.deepEqual(used('processors'), Object.keys(otelcol.processors))
  assert.deepEqual(used('exporters'), Object.keys(otelcol.exporters))
  assert.deepEqual(Object.keys(pipelines), ['traces', 'metrics', 'logs', 'logs/payloads'])
})

test('captured content goes to its own table only, and every other log record to otel_logs only', () => {
  const { logs, 'logs/payloads': payloads } = otelcol.service.pipelines
  const dropped = (pipeline: { processors: string[] }) => otelcol.processors[pipeline.processors[0] ?? '']
  const name = '"gen_ai.client.inference.operation.details"'
  const wanted = (sign: string) => ({ error_mode: 'propagate', log_conditions: [`log.event_name ${sign} ${name}`] })
  assert.deepEqual([dropped(logs), dropped(payloads)], [wanted('=='), wanted('!=')])
  assert.deepEqual([logs.exporters, payloads.exporters], [['clickhouse'], ['clickhouse/payloads']])
  assert.equal(otelcol.exporters['clickhouse/payloads'].logs_table_name, 'payload_events')
})

test('the collector loses nothing it has answered for: its queues are on disk, wait when full and never give up', () => {
  const volume = service('otelcol')
    .volumes?.find((mount) => mount.startsWith('otelcol:'))
    ?.split(':')[1]
  for (const { sending_queue: queue, retry_on_failure: retry, async_insert: asyncInsert, ...rest } of exporters) {
    const storage = otelcol.extensions[queue.storage]
    assert.equal(storage.fsync, true)
    assert.ok(volume && storage.directory.startsWith(`${volume}/`), 'the queue is on the volume')
    assert.equal(storage.compaction.directory, storage.directory)
    assert.deepEqual([queue.enabled, queue.block_on_overflow], [true, true])
    assert.deepEqual(retry, { enabled: true, max_elapsed_time: 0 })
    assert.equal(asyncInsert, false)
    assert.deepEqual(rest.connection_params, {
      deduplicate_blocks_in_dependent_materialized_views: '1',
      distributed_foreground_insert: '1',
      max_partitions_per_insert_block: '0',
    })
  }
})

test('the collector inserts in batches that ClickHouse likes, and soon', () => {
  const { queue_size: size, batch, sizer } = otelcol.exporters.clickhouse.sending_queue
  assert.equal(sizer, 'items')
  assert.ok(batch.min_size >= 10_000 && batch.max_size >= batch.min_size && size >= batch.max_size)
  assert.match(batch.flush_timeout, /^\d+s$/)
})

test('the collector listens where the router sends, and writes to the ClickHouse of the compose file', () => {
  const { endpoint } = otelcol.receivers.otlp.protocols.http
  assert.equal(endpoint, `0.0.0.0:${config.collector.otlp_port}`)
  const { command, volumes, environment } = service('otelcol')
  const path = command?.[0]?.replace('--config=', '')
  assert.ok(volumes?.includes(`./collector/otelcol.yaml:${path}:ro`))
  const { endpoint: target, username, password, database } = otelcol.exporters.clickhouse
  assert.equal(new URL(target).host, 'clickhouse:9000')
  assert.equal(username, service('clickhouse').environment?.CLICKHOUSE_USER)
  assert.equal(password, `\${env:CLICKHOUSE_PASSWORD}`)
  assert.equal(environment?.CLICKHOUSE_PASSWORD, service('clickhouse').environment?.CLICKHOUSE_PASSWORD)
  assert.equal(database, 'otel')
})

test('Grafana reads as a user that can change nothing', () => {
  const file = 'grafana/clickhouse-reader.xml'
  assert.ok(
    service('clickhouse').volumes?.some(
      (mount) => /:\/etc\/clickhouse-server\/users\.d\/.*\.xml:ro$/.test(mount) && mount.includes(file),
    ),
  )
  const users = new DOMParser().parseFromString(read(file), 'text/xml')
  const only = (selector: string) => {
    const found = users.querySelectorAll(selector)
    assert.equal(found.length, 1, selector)
    return found[0]
  }
  const [datasource] = parse(read('grafana/provisioning/datasources/clickhouse.yaml')).datasources
  const user = `users > ${datasource.jsonData.username}`
  const profile = only(`${user} > profile`)?.textContent
  assert.equal(only(`profiles > ${profile} > readonly`)?.textContent, '1')
  only(`profiles > ${profile} > constraints > max_execution_time > changeable_in_readonly`)
  assert.equal(only(`${user} > grants > query`)?.textContent, 'GRANT SELECT ON otel.*')
  const variable = only(`${user} > password`)?.getAttribute('from_env')
  assert.equal(datasource.secureJsonData.password, `$${variable}`)
  for (const name of ['clickhouse', 'grafana'])
    assert.ok(service(name).environment?.[variable ?? ''], `${name}: ${variable}`)
  assert.equal(
    `${datasource.jsonData.host}:${datasource.jsonData.port}`,
    new URL(otelcol.exporters.clickhouse.endpoint).host,
  )
})

const dockerCompose = spawnSync('docker', ['compose', 'version']).status === 0
test('docker itself takes the compose file', { skip: !dockerCompose && 'docker compose is not installed' }, () => {
  const { status, stderr } = spawnSync('docker', ['compose', 'config', '--quiet'], {
    cwd: root,
    env: { ...process.env, OPENAI_API_KEY: 'k' },
    encoding: 'utf8',
  })
  assert.equal(status, 0, stderr)
})
