// The cluster's form of the schema: how each kind of statement is said, and that all of it, but for what needs Keeper, runs and keeps
// its promises on the real engine: the same rows, read by the same names, by the same queries.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { candidateTexts, fill } from '../bench/replay-log.ts'
import { loadDecision } from '../cli/explain.ts'
import { ClusterError, onCluster } from '../collector/cluster.ts'
import { addTextIndexes, migrate, readMigrations, schemaText } from '../collector/migrate.ts'
import type { Collector } from '../collector/server.ts'
import { openSource } from '../replay/read/source.ts'
import { surveyLog } from '../replay/redecide/engine.ts'
import { replayDefaults, replaySource } from '../replay/run.ts'
import { parsePolicy } from '../router/policy/policy.ts'
import { snapshotTypes } from '../router/snapshot.ts'
import { type ClusterStage, openClusterStage, withoutKeeper } from './cluster-stage.ts'
import { post, rowsOf } from './collector-fixtures.ts'
import { panels, targetsOf } from './grafana-file.ts'
import { expand } from './grafana-macros.ts'
import { readFixture, storedIn } from './official-stage.ts'

const filled = 200
const candidate = parsePolicy(candidateTexts[2] as string, snapshotTypes)
let stage: ClusterStage
let collector: Collector
before(async () => {
  stage = await openClusterStage()
})
after(async () => {
  await collector?.close()
  await stage.close()
})

const flat = (sql: string): string => sql.replace(/\s+/g, ' ').trim()
const render = (sql: string): string[] => onCluster(sql, 'prod').map(flat)
const window = 'replicated_deduplication_window'

test('a table of traces becomes a replicated one beside a distributed one; what is joined from everywhere is everywhere', () => {
  assert.deepEqual(
    render(`-- Said in words; FROM otel.otel_logs.
CREATE TABLE IF NOT EXISTS otel.routing_decisions (
    a String DEFAULT 'FROM otel.otel_traces' -- not from otel.otel_traces, it's a comment
) ENGINE = ReplacingMergeTree(ingested_at)
ORDER BY a
SETTINGS ttl_only_drop_parts = 1, non_${window} = 1000`),
    [
      `CREATE TABLE IF NOT EXISTS otel.routing_decisions_local ON CLUSTER 'prod' ( a String DEFAULT 'FROM otel.otel_traces' -- not from otel.otel_traces, it's a comment ) ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/otel/routing_decisions_local', '{replica}', ingested_at) ORDER BY a SETTINGS ttl_only_drop_parts = 1, ${window} = 10000, ${window}_seconds = 604800`,
      "CREATE TABLE IF NOT EXISTS otel.routing_decisions ON CLUSTER 'prod' AS otel.routing_decisions_local ENGINE = Distributed('prod', 'otel', 'routing_decisions_local', cityHash64(trace_id))",
    ],
  )
  assert.deepEqual(
    render(
      `CREATE TABLE IF NOT EXISTS "otel"."feedback" (a UInt8) ENGINE = MergeTree ORDER BY a SETTINGS non_${window} = 1`,
    ),
    [
      `CREATE TABLE IF NOT EXISTS otel.feedback ON CLUSTER 'prod' (a UInt8) ENGINE = ReplicatedMergeTree('/clickhouse/tables/otel/feedback', '{shard}-{replica}') ORDER BY a SETTINGS ${window} = 0`,
    ],
  )
})

test('a view reads its own server’s rows and writes them there; a view for readers reads the whole cluster', () => {
  assert.deepEqual(
    render(`CREATE MATERIALIZED VIEW IF NOT EXISTS "otel"."x_mv" TO otel.routing_attempts AS
SELECT 'otel.otel_traces' AS a FROM "otel"."otel_traces" WHERE a NOT IN (SELECT a FROM otel.payload_erasures)`),
    [
      "CREATE MATERIALIZED VIEW IF NOT EXISTS otel.x_mv ON CLUSTER 'prod' TO otel.routing_attempts_local AS SELECT 'otel.otel_traces' AS a FROM otel.otel_traces_local WHERE a NOT IN (SELECT a FROM otel.payload_erasures)",
    ],
  )
  assert.deepEqual(render('ALTER TABLE otel.x_mv MODIFY QUERY\nSELECT a FROM otel.otel_logs'), [
    "ALTER TABLE otel.x_mv ON CLUSTER 'prod' MODIFY QUERY SELECT a FROM otel.otel_logs_local",
  ])
  assert.deepEqual(render('CREATE OR REPLACE VIEW otel.v AS\nSELECT a FROM otel.routing_decisions FINAL'), [
    "CREATE OR REPLACE VIEW otel.v ON CLUSTER 'prod' AS SELECT a FROM otel.routing_decisions FINAL",
  ])
})

test('a change reaches every table that it must, and no more', () => {
  const column = "ADD COLUMN IF NOT EXISTS a String DEFAULT f('x, y', (1, 2)), ADD COLUMN IF NOT EXISTS b UInt8"
  assert.deepEqual(render(`ALTER TABLE otel.otel_traces ${column}`), [
    `ALTER TABLE otel.otel_traces_local ON CLUSTER 'prod' ${column}`,
    `ALTER TABLE otel.otel_traces ON CLUSTER 'prod' ${column}`,
  ])
  assert.deepEqual(render(`ALTER TABLE otel.otel_traces ${column}, MODIFY ORDER BY (a, b)`), [
    `ALTER TABLE otel.otel_traces_local ON CLUSTER 'prod' ${column}, MODIFY ORDER BY (a, b)`,
    `ALTER TABLE otel.otel_traces ON CLUSTER 'prod' ${column}`,
  ])
  assert.deepEqual(render('ALTER TABLE otel.otel_traces ADD INDEX IF NOT EXISTS i a TYPE minmax'), [
    "ALTER TABLE otel.otel_traces_local ON CLUSTER 'prod' ADD INDEX IF NOT EXISTS i a TYPE minmax",
  ])
  assert.deepEqual(render(`ALTER TABLE otel.feedback ${column}`), [
    `ALTER TABLE otel.feedback ${column} SETTINGS alter_sync = 2`,
  ])
  assert.deepEqual(render('ALTER TABLE otel.feedback MODIFY SETTING a = 1, b = 2'), [
    "ALTER TABLE otel.feedback ON CLUSTER 'prod' MODIFY SETTING a = 1, b = 2",
  ])
})

test('what has no cluster form is refused, and so is a table of which nobody said where its rows go', () => {
  const create = (name: string, engine: string) => `CREATE TABLE IF NOT EXISTS otel.${name} (a UInt8) ${engine}`
  const refused: [sql: string, message: RegExp][] = [
    ['DROP TABLE otel.otel_traces', /no cluster form \(collector\/cluster\.ts\): DROP TABLE/],
    ['CREATE TABLE otel.otel_traces (a UInt8)', /no cluster form/],
    [create('unheard_of', 'ENGINE = MergeTree ORDER BY a'), /on which shard a row of otel\.unheard_of is/],
    ['ALTER TABLE otel.unheard_of ADD COLUMN IF NOT EXISTS a UInt8', /on which shard/],
    ['CREATE MATERIALIZED VIEW IF NOT EXISTS otel.v TO otel.feedback AS SELECT 1 FROM otel.v2', /otel\.v2/],
    [create('feedback', 'ENGINE = MergeTree ORDER BY a'), /is not a MergeTree with a non_replicated/],
    [create('feedback', 'ENGINE = Log SETTINGS non_replicated_deduplication_window = 1'), /is not a MergeTree/],
    ['ALTER TABLE otel.feedback DROP COLUMN a', /a change of otel\.feedback has no cluster form: DROP COLUMN a/],
    ['ALTER TABLE otel.feedback ADD COLUMN IF NOT EXISTS a UInt8, DROP COLUMN b', /no cluster form: DROP COLUMN b/],
  ]
  for (const [sql, message] of refused) assert.throws(() => render(sql), { code: 'cluster-form', message })
  assert.throws(() => onCluster('CREATE DATABASE IF NOT EXISTS otel', "it's"), ClusterError)
})

test('every statement of every step has a cluster form that ClickHouse parses', async () => {
  const statements = (await schemaText('prod', true)).split(/;\s*$/m).filter((sql) => sql.trim() !== '')
  assert.ok(statements.length > 60)
  for (const sql of statements.filter((one) => !one.trim().startsWith('INSERT'))) {
    const quoted = sql.replaceAll('\\', '\\\\').replaceAll("'", "\\'")
    const [row] = await stage.store.query<{ text: string }>(`SELECT formatQuery('${quoted}') AS text`)
    assert.match(row?.text ?? '', /ON CLUSTER prod|SETTINGS alter_sync = 2/, sql.slice(0, 200))
  }
})

test('a schema that stopped half-way is laid to its end, and one that is whole is left alone', async () => {
  const steps = await readMigrations()
  const broken = steps.map((step) =>
    step.number === 2
      ? { ...step, statements: [...step.statements, 'ALTER TABLE otel.feedback MODIFY SETTING a = 1'] }
      : step,
  )
  await assert.rejects(stage.migrate('one', broken), {
    code: 'migration-failed',
    message: /migration 2 'routing_decisions' failed/,
  })
  assert.deepEqual(
    await stage.migrate('one'),
    steps.slice(1).map(({ name }) => name),
  )
  await addTextIndexes(stage.store, 'one')
  stage.statements.length = 0
  assert.deepEqual(await stage.migrate('one'), [])
  assert.deepEqual(stage.statements, [])
  await stage.store.command('TRUNCATE TABLE otel.schema_migrations')
  assert.equal((await stage.migrate('one')).length, steps.length, 'every statement can be repeated')
})

test('a schema is not laid where it cannot keep its promises, and a server’s own migration keeps off it', async () => {
  const refused: [cluster: string, message: RegExp][] = [
    ['three', /the server knows no cluster 'three'; it has: doubling, one, two/],
    ['doubling', /would store each row once a replica: set internal_replication to true/],
  ]
  for (const [cluster, message] of refused) {
    await assert.rejects(stage.migrate(cluster), { code: 'migration-failed', message })
  }
  const steps = await readMigrations()
  assert.deepEqual(await migrate(stage.store), [], 'nothing to do')
  const newer = { number: 9999, name: 'newer', statements: ['ALTER TABLE otel.feedback MODIFY SETTING a = 1'] }
  await assert.rejects(migrate(stage.store, [...steps, newer]), {
    message: /spread over a cluster and lacks migration 9999: run `signalbox migrate --cluster NAME` first/,
  })
})

test('our collector writes to the cluster’s tables, and the plain names hold what the official collector stores on one server', async () => {
  collector = await stage.collect()
  const { requests, tables } = await readFixture()
  const answers = await Promise.all(
    requests.map(({ signal, request }) => post(collector, JSON.stringify(request), {}, `/v1/${signal}`)),
  )
  for (const { status, text } of answers) assert.deepEqual([status, text], [200, '{}'])
  for (const [table, rows] of tables) {
    const engine = table === 'captured_payloads' ? 'ReplacingMergeTree' : 'MergeTree'
    assert.deepEqual(await storedIn(collector, table, engine), rows, table)
  }
})

const oneDay = { fromMs: Date.UTC(2099, 11, 31), toMs: Date.UTC(2100, 0, 2), intervalMs: 60_000 }
/** What docs/operations.md says of who reads a cluster. */
const readersProfile = "SETTINGS distributed_product_mode = 'global'"
const all = { policy: ['$__all'], model: ['$__all'], tenant: ['$__all'], trace: '' }

/** The same schema on the cluster of two shards: of each table only the distributed part differs. */
const spreadOverTwo = async (): Promise<void> => {
  const distributed = await rowsOf<{ name: string }>(
    collector,
    "SELECT name FROM system.tables WHERE database = 'otel' AND engine = 'Distributed'",
  )
  assert.ok(distributed.length >= 12)
  for (const { name } of distributed) {
    const definition = `CREATE TABLE IF NOT EXISTS otel.${name} (a UInt8) ENGINE = MergeTree SETTINGS non_${window} = 1`
    await rowsOf(collector, `DROP TABLE otel.${name}`)
    await rowsOf(collector, withoutKeeper(onCluster(definition, 'two')[1] ?? ''))
  }
}

test('replay, explain, the dashboard and the checks ask a cluster as they ask a server', async () => {
  const id = '018f0000-0000-7000-8000-000000000003'
  const before = await loadDecision(collector.clickhouseUrl, id)
  await fill(collector.clickhouseUrl, 0, filled)
  const source = openSource(collector.clickhouseUrl, { against: 'production' })
  try {
    const policies = await source.policies()
    for (const engine of ['sql', 'js'] as const) {
      const options = { ...replayDefaults, replicates: 20, slowAboveMs: 3000 }
      const [replay] = await replaySource(source, policies, () => [candidate], options, { engine, threads: 1 })
      assert.equal(replay?.verification.reproduced, filled, engine)
      assert.ok(
        replay?.metrics.some(({ metric, missing }) => metric === 'quality' && missing < filled),
        'feedback is joined',
      )
    }
    await spreadOverTwo()
    assert.deepEqual((await loadDecision(collector.clickhouseUrl, id)).record, before.record)
    let rows = 0
    for await (const { id } of source.records()) rows += Number(id !== '')
    assert.equal(rows, 2 * filled, 'both shards are asked')
    assert.ok((await surveyLog(source, policies, { objective: { slowAboveMs: 3000 }, engine: 'auto' })).survey)
  } finally {
    await source.close()
  }
  for (const panel of panels) {
    for (const { rawSql } of targetsOf(panel))
      await rowsOf(collector, `${expand(rawSql, oneDay, all)}\n${readersProfile}`)
  }
  const span = "from_time = '2099-01-01 00:00:00', to_time = '2101-01-01 00:00:00'"
  for (const view of ['decision_epochs', 'decision_gaps']) {
    await rowsOf(collector, `SELECT * FROM otel.${view}(${span}) ${readersProfile}`)
  }
  assert.ok((await rowsOf(collector, `SELECT * FROM otel.feedback_by_decision ${readersProfile}`)).length > 0)
  assert.equal((await rowsOf(collector, 'SELECT * FROM otel.payloads')).length, 4)
})
