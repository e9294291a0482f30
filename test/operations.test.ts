// docs/operations.md says what is so: its figures are the last measurement's, its commands exist, and its tables are those of the
// schema.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { storageText } from '../bench/storage-text.ts'
import { migrateCommand } from '../cli/migrate.ts'
import { schemaText } from '../collector/migrate.ts'

const page = readFileSync(new URL('../docs/operations.md', import.meta.url), 'utf8')

test('the figures of the operations page are those that the benchmark measured last', () => {
  assert.ok(page.includes(storageText()), 'node bench/storage.ts writes them')
})

test('the operations page names the command’s own options, and puts each table where the schema puts it', async () => {
  const help = migrateCommand().helpInformation()
  for (const [option] of page.matchAll(/(?<=signalbox migrate.*)--[a-z-]+/g)) assert.ok(help.includes(option), option)
  const sql = await schemaText('prod', false)
  const [, spread = '', whole = ''] = /\n- (`otel_traces`[\s\S]*?)\n- (`feedback`[\s\S]*?)\n- /.exec(page) ?? []
  const made = [
    ...sql.matchAll(
      /CREATE TABLE IF NOT EXISTS otel\.(\w+) ON CLUSTER 'prod'(?: AS otel\.\w+ (ENGINE = Distributed))?/g,
    ),
  ]
  for (const [, table = '', isDistributed] of made) {
    if (table.endsWith('_local') || table === 'schema_migrations') continue
    const text = isDistributed ? spread : whole
    const name = table.replace(/^otel_metrics_\w+/, 'otel_metrics_*')
    assert.ok(text.includes(`\`${name}\``) || /_ts$|^payload_events$/.test(table), table)
  }
})
