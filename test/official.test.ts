// The same requests through our collector as through the official one, whose rows are recorded: every column of every row is the
// same, and the views make the same of its rows as of ours.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import type { Collector } from '../collector/server.ts'
import { post, rowsOf, temporaryCollector } from './collector-fixtures.ts'
import { isBase, type Row, readFixture, storedIn, tablesOf } from './official-stage.ts'

let collector: Collector
before(async () => {
  collector = await temporaryCollector()
})
after(() => collector.close())

const { requests, tables: official } = await readFixture()
const storedNow = async (): Promise<Map<string, Row[]>> => {
  const stored = new Map<string, Row[]>()
  for (const { name, engine } of await tablesOf(collector)) stored.set(name, await storedIn(collector, name, engine))
  return stored
}

const emptied = async (): Promise<void> => {
  for (const { name } of await tablesOf(collector)) await rowsOf(collector, `TRUNCATE TABLE otel.${name}`)
}

const assertSameRows = (ours: readonly Row[], theirs: readonly Row[], table: string): void => {
  for (const [at, row] of theirs.entries()) assert.deepEqual(ours[at], row, `${table}, row ${at}`)
  assert.equal(ours.length, theirs.length, table)
}

let ours: Map<string, Row[]>
test('what the official collector was sent is stored as it stored it, in every column', async () => {
  const answers = await Promise.all(
    requests.map(({ signal, request }) => post(collector, JSON.stringify(request), {}, `/v1/${signal}`)),
  )
  for (const { status, text } of answers) assert.deepEqual([status, text], [200, '{}'])
  ours = await storedNow()
  assert.deepEqual(
    [...official.keys()],
    [...ours.keys()].filter((table) => isBase(table) || table === 'captured_payloads'),
  )
  for (const [table, rows] of official) assertSameRows(ours.get(table) ?? [], rows, table)
})

test('the views make the same of the official rows as of ours', async () => {
  await emptied()
  for (const [table, rows] of official) {
    if (!isBase(table)) continue
    const lines = rows.map((row) => JSON.stringify(row)).join('\n')
    await rowsOf(
      collector,
      `INSERT INTO otel.${table} SETTINGS max_partitions_per_insert_block = 0 FORMAT JSONEachRow ${lines}`,
    )
  }
  const theirs = await storedNow()
  const filled = [...theirs].filter(([table, rows]) => !isBase(table) && rows.length > 0).map(([table]) => table)
  const wanted = [
    'feedback',
    'otel_traces_trace_id_ts',
    'policies',
    'router_epochs',
    'routing_attempts',
    'routing_decisions',
  ]
  for (const table of wanted) assert.ok(filled.includes(table), `${table} has rows`)
  for (const table of filled) assertSameRows(ours.get(table) ?? [], theirs.get(table) ?? [], table)
})
