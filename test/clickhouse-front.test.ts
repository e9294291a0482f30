// The front as ClickHouse's own clients use it beyond single queries: sessions, users, inserts of any format and size, results of any
// format, cancellation, and inserts of the collector that no query delays.
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { type ClickHouseClient, ClickHouseError, ClickHouseLogLevel, createClient } from '@clickhouse/client'
import { clickhouseHttp } from '../collector/clickhouse-http.ts'
import { type Engine, openEngine } from '../collector/engine.ts'
import { type Listening, listen } from '../collector/http.ts'
import { parseConfig } from '../router/config.ts'
import { silent, temporaryFolder } from './collector-fixtures.ts'

let folder: Awaited<ReturnType<typeof temporaryFolder>>
let engine: Engine
let front: Listening
let client: ClickHouseClient
before(async () => {
  folder = await temporaryFolder()
  engine = await openEngine(join(folder.path, 'data'))
  front = await listen(clickhouseHttp(engine, silent), '127.0.0.1', 0)
  client = createClient({ url: front.url, log: { level: ClickHouseLogLevel.OFF } })
  await client.command({ query: 'CREATE TABLE t (a UInt64, b String) ENGINE = MergeTree ORDER BY a' })
})
after(async () => {
  await client.close()
  await front.close()
  await engine.close()
  await folder.remove()
})

const ask = async (search: Record<string, string>, init: RequestInit = {}) => {
  const response = await fetch(`${front.url}/?${new URLSearchParams(search)}`, init)
  return { status: response.status, headers: response.headers, bytes: Buffer.from(await response.arrayBuffer()) }
}
const textOf = async (search: Record<string, string>, init: RequestInit = {}): Promise<string> =>
  (await ask(search, init)).bytes.toString()
const codeOf = async (search: Record<string, string>, init: RequestInit = {}): Promise<number> =>
  Number((await ask(search, init)).headers.get('x-clickhouse-exception-code') ?? 0)
const post = (body: string | Uint8Array<ArrayBuffer> = '') => ({ method: 'POST', body })
const runningOf = async (part: string): Promise<number> => {
  const query = `SELECT count() FROM system.processes WHERE position(query, '${part}') > 0 AND position(query, 'processes') = 0`
  return Number(await textOf({ query }))
}
/** How many statements run whose text has that part; asked past the queue, as KILL is. */
const busyWith = async (part: string): Promise<number> =>
  (await textOf({}, post(`KILL QUERY WHERE position(query, '${part}') > 0 TEST`))).split('\n').length - 1
const until = async (holds: () => Promise<boolean>): Promise<void> => {
  for (let tries = 0; tries < 100; tries++) {
    if (await holds()) return
    await sleep(50)
  }
  assert.fail('it never came to hold')
}

test('a session remembers settings, database and temporary tables; a setting in the URL holds for its request', async () => {
  const session = { session_id: 's-1' }
  await ask(session, post('SET max_threads = 3'))
  await ask(session, post('USE system'))
  await ask(session, post('CREATE TEMPORARY TABLE kept (x UInt8)'))
  await ask({ ...session, query: 'INSERT INTO kept FORMAT CSV' }, post('7\n'))
  const query = "SELECT currentDatabase(), getSetting('max_threads'), x FROM kept"
  assert.equal(await textOf({ ...session, query, max_threads: '5', log_comment: 'mine' }), 'system\t5\t7\n')
  assert.equal(await textOf({ ...session, query }), 'system\t3\t7\n')
  assert.equal(await codeOf({ session_id: 's-2', query: 'SELECT * FROM kept' }), 60)
  assert.equal(await codeOf({ ...session, user: 'other', query: 'SELECT * FROM kept' }), 60)
  const changed = createClient({ url: front.url, session_id: 'js', log: { level: ClickHouseLogLevel.OFF } })
  await changed.command({ query: 'CREATE TEMPORARY TABLE mine AS SELECT 1 AS x' })
  assert.deepEqual(await (await changed.query({ query: 'SELECT * FROM mine', format: 'JSONEachRow' })).json(), [
    { x: 1 },
  ])
  await changed.close()
})

test('a session serves one request at a time, ends after its timeout, and is not made where it must exist', async () => {
  assert.equal(await codeOf({ session_id: 'none', session_check: '1', query: 'SELECT 1' }), 372)
  assert.equal(await codeOf({ session_id: 'x', session_timeout: '9999', query: 'SELECT 1' }), 374)
  assert.equal(await codeOf({ session_id: 'x', session_timeout: 'soon', query: 'SELECT 1' }), 374)
  const busy = { session_id: 'busy', session_timeout: '1' }
  const slow = textOf({ ...busy, query: 'SELECT sleep(1)' })
  await until(async () => (await runningOf('sleep(1)')) === 1)
  assert.equal(await codeOf({ ...busy, query: 'SELECT 1' }), 373)
  assert.equal(await slow, '0\n')
  assert.equal(await textOf({ ...busy, session_check: '1', query: 'SELECT 1' }), '1\n')
  await sleep(1100)
  assert.equal(await codeOf({ ...busy, session_check: '1', query: 'SELECT 1' }), 372)
})

test('a GET cannot write in a session that may, and a session left half-way is soon free again', async () => {
  const session = { session_id: 'get' }
  assert.equal(await codeOf({ ...session, query: 'DROP TABLE t' }), 164)
  assert.equal(await codeOf({ ...session, query: 'SET max_threads = 2' }), 0)
  const leave = new AbortController()
  const response = await fetch(`${front.url}/?session_id=get&query=SELECT+number+FROM+system.numbers`, {
    signal: leave.signal,
  })
  assert.equal(response.status, 200)
  leave.abort()
  await until(async () => (await codeOf({ ...session, query: 'SELECT 1' })) === 0)
})

test('rows of any format are stored from the body, and the summary counts them', async () => {
  await client.command({ query: 'CREATE TABLE formats (a UInt64, b String) ENGINE = MergeTree ORDER BY a' })
  const formats = [
    'RowBinary',
    'Native',
    'Parquet',
    'Arrow',
    'ArrowStream',
    'ORC',
    'Avro',
    'MsgPack',
    'CSVWithNames',
    'JSON',
    'Values',
  ]
  for (const [i, format] of formats.entries()) {
    const query = `SELECT number AS a, toString(number) AS b FROM numbers(3) FORMAT ${format}`
    const { bytes } = await ask({ query })
    const {
      status,
      headers,
      bytes: text,
    } = await ask({ query: `INSERT INTO formats FORMAT ${format}` }, post(new Uint8Array(bytes)))
    assert.deepEqual([status, text.toString()], [200, ''], format)
    assert.equal(JSON.parse(headers.get('x-clickhouse-summary') ?? '').written_rows, '3', format)
    assert.equal(await textOf({ query: 'SELECT count(), sum(a) FROM formats' }), `${3 * (i + 1)}\t${3 * (i + 1)}\n`)
  }
  const structure = "input('x UInt64')"
  await ask({ query: `INSERT INTO formats SELECT x + 1000, 'in' FROM ${structure} FORMAT CSV` }, post('1\n2\n'))
  assert.equal(await textOf({ query: "SELECT groupArray(a) FROM formats WHERE b = 'in'" }), '[1001,1002]\n')
  await ask({ param_x: "it's" }, post("INSERT INTO formats VALUES (1 + 1, {x:String}), (3, ';')"))
  assert.equal(await textOf({ query: "SELECT a FROM formats WHERE b IN ('it''s', ';') ORDER BY a" }), '2\n3\n')
})

test('results in formats with a beginning and an end are whole, however long; an error in them has its status', async () => {
  const numbers = 'SELECT number AS a FROM numbers(200000)'
  const json = JSON.parse(await textOf({ query: `${numbers} FORMAT JSON` }))
  assert.deepEqual([json.rows, json.data.length], [200_000, 200_000])
  for (const format of ['Parquet', 'Arrow', 'CSVWithNames', 'RowBinaryWithNamesAndTypes']) {
    const { bytes } = await ask({ query: numbers, default_format: format })
    await ask({ query: 'CREATE OR REPLACE TABLE back (a UInt64) ENGINE = Memory' }, { method: 'POST' })
    await ask({ query: `INSERT INTO back FORMAT ${format}` }, post(new Uint8Array(bytes)))
    assert.equal(await textOf({ query: 'SELECT count(), sum(a) FROM back' }), '200000\t19999900000\n', format)
  }
  const late = {
    query: 'SELECT throwIf(number = 900000) FROM numbers(1000000) SETTINGS max_block_size = 1000, max_threads = 1',
  }
  assert.equal((await ask({ ...late, default_format: 'JSON' })).status, 500)
  const { status, headers } = await ask({ ...late, wait_end_of_query: '1' })
  assert.deepEqual([status, headers.get('x-clickhouse-exception-code')], [500, '395'])
  assert.equal(await textOf({ query: 'SELECT 1 AS a;', wait_end_of_query: '1' }), '1\n')
  const endless = { query: 'SELECT number FROM system.numbers', default_format: 'JSON', max_result_bytes: '1000000' }
  assert.equal(await codeOf(endless), 396)
})

test('the official client throws the exception that came in the middle of a result', async () => {
  const query =
    'SELECT throwIf(number = 900000) AS x FROM numbers(1000000) SETTINGS max_block_size = 1000, max_threads = 1'
  const result = await client.query({ query, format: 'JSONEachRow' })
  const error = await (async () => {
    for await (const _ of result.stream());
  })().catch((thrown: unknown) => thrown)
  assert.ok(error instanceof ClickHouseError, String(error))
  assert.deepEqual([error.code, error.type], ['395', 'FUNCTION_THROW_IF_VALUE_IS_NON_ZERO'])
})

test('the official client inserts streams of objects, under load, in either direction compressed, and big integers survive', async () => {
  await client.command({
    query: 'CREATE TABLE big (a UInt64, w Int256, d Decimal(38, 10)) ENGINE = MergeTree ORDER BY a',
  })
  const wide = '57896044618658097711785492504343953926634992332820282019728792003956564819967'
  const rows = function* () {
    for (let i = 0; i < 50_000; i++)
      yield { a: `${18_446_744_073_709_500_000n + BigInt(i)}`, w: wide, d: '1.0000000001' }
  }
  for (const codec of ['gzip', 'zstd'] as const) {
    const zipped = createClient({ url: front.url, compression: { request: { codec }, response: { codec } } })
    const { summary, query_id } = await zipped.insert({
      table: 'big',
      values: Readable.from(rows()),
      format: 'JSONEachRow',
    })
    assert.equal(summary?.written_rows, '50000')
    assert.match(query_id, /^[\da-f-]{36}$/)
    const read = await zipped.query({
      query: 'SELECT toString(max(a)) AS a, toString(any(w)) AS w FROM big',
      format: 'JSONEachRow',
    })
    const [row] = await read.json<{ a: string; w: string }>()
    assert.deepEqual([row?.a, row?.w], ['18446744073709549999', wide])
    await zipped.close()
  }
  const { stream } = await client.exec({
    query: 'INSERT INTO t FORMAT RowBinary',
    values: Readable.from([Buffer.from([5, 0, 0, 0, 0, 0, 0, 0, 2, 104, 105])]),
  })
  stream.resume()
  assert.equal(await textOf({ query: "SELECT a FROM t WHERE b = 'hi'" }), '5\n')
  const form = await client.query({
    query: 'SELECT length({long:String}) AS n',
    query_params: { long: 'x'.repeat(100_000) },
    use_multipart_params: true,
    format: 'JSONEachRow',
  })
  assert.deepEqual(await form.json(), [{ n: 100_000 }])
})

test('a query whose client has gone, or that is killed by its id, ends, and the engine is free', async () => {
  const query = (mark: string) => `SELECT sum(sipHash64(number, '${mark}')) FROM numbers(100000000000)`
  const leave = new AbortController()
  const gone = client.query({ query: query('gone'), abort_signal: leave.signal }).catch((error: Error) => error.message)
  await until(async () => (await runningOf('gone')) === 1)
  leave.abort()
  await gone
  await until(async () => (await runningOf('gone')) === 0)

  const killed = [1, 2].map((n) => codeOf({ query: query('killed'), query_id: `q-${n}` }))
  await until(async () => (await engine.progress('q-1')) !== null && (await engine.progress('q-2')) !== null)
  assert.equal(await codeOf({ query: 'SELECT 1', query_id: 'q-1' }), 216)
  for (const n of [1, 2]) await ask({}, post(`KILL QUERY WHERE query_id = 'q-${n}' ASYNC`))
  assert.deepEqual(await Promise.all(killed), [394, 394])
  assert.deepEqual(
    [(await ask({ query: query('slow'), max_execution_time: '1' })).status, await codeOf({ query: 'SELECT 1' })],
    [408, 0],
  )
})

test('progress is told in headers where it is asked for', async () => {
  const query =
    'SELECT count() FROM numbers(40) WHERE sleepEachRow(0.02) = 0 SETTINGS max_block_size = 5, max_threads = 1'
  const { headers } = await ask({ query, send_progress_in_http_headers: '1', http_headers_progress_interval_ms: '50' })
  const [first] = JSON.parse(`[${headers.get('x-clickhouse-progress')}]`)
  assert.equal(typeof first.read_rows, 'string')
  assert.ok(Number(JSON.parse(headers.get('x-clickhouse-summary') ?? '').read_rows) > 0)
  assert.equal((await ask({ query: 'SELECT 1' })).headers.get('x-clickhouse-progress'), null)
})

test("the collector's inserts wait for no query: all are stored while more queries than can run never end", async () => {
  const leave = new AbortController()
  const endless = Array.from({ length: 6 }, (_, n) => {
    const query = `SELECT sum(sipHash64(number, 'endless ${n}')) FROM numbers(100000000000)`
    return fetch(`${front.url}/?${new URLSearchParams({ query })}`, { signal: leave.signal }).catch(() => null)
  })
  await until(async () => (await busyWith('endless')) >= 3)
  for (let n = 0; n < 10; n++) {
    await engine.insert('default.t', Buffer.from(`{"a":${1000 + n},"b":"during"}\n`), `token-${n}`)
  }
  leave.abort()
  await Promise.all(endless)
  assert.equal(await textOf({ query: "SELECT count() FROM t WHERE b = 'during'" }), '10\n')
})

test('users: without any configured, other names than default only read; with some, name and password must be right', async () => {
  const basic = (pair: string) => ({ authorization: `Basic ${Buffer.from(pair).toString('base64')}` })
  const drop = post('DROP TABLE t')
  assert.equal(await codeOf({ user: 'grafana_reader' }, drop), 164)
  assert.equal(await codeOf({}, { ...drop, headers: { 'x-clickhouse-user': 'reader' } }), 164)
  const reader = { name: 'reader', password: 'r', readonly: true }
  const strict = await listen(
    clickhouseHttp(engine, silent, [reader, { name: 'default', password: 'p:1', readonly: false }]),
    '127.0.0.1',
    0,
  )
  const as = async (headers: Record<string, string>, sql: string) => {
    const response = await fetch(strict.url, { method: 'POST', body: sql, headers })
    return [response.status, Number(response.headers.get('x-clickhouse-exception-code') ?? 0)]
  }
  assert.deepEqual(await as({}, 'SELECT 1'), [403, 516])
  assert.deepEqual(await as(basic('reader:wrong'), 'SELECT 1'), [403, 516])
  assert.deepEqual(await as(basic('reader:r'), 'SELECT 1'), [200, 0])
  assert.deepEqual(await as(basic('reader:r'), 'INSERT INTO t VALUES (1, 1)'), [500, 164])
  assert.deepEqual(
    await as({ 'x-clickhouse-user': 'default', 'x-clickhouse-key': 'p:1' }, 'INSERT INTO t VALUES (1, 1)'),
    [200, 0],
  )
  assert.deepEqual(await as({ ...basic('default:p:1'), origin: 'http://evil.example' }, 'SELECT 1'), [403, 1000])
  await strict.close()
})

test('a reader writes by no detour: settings, sessions, forms, tables sent along, statements behind the first', async () => {
  const reader = { user: 'reader' }
  for (const [search, init] of [
    [{ query: 'DROP TABLE t', readonly: '0' }, post()],
    [{ query: 'SELECT 1; DROP TABLE t' }, post()],
    [{ query: 'DROP TABLE t', session_id: 'r' }, post()],
    [{ query: 'SET readonly = 0', session_id: 'r' }, post()],
    [{ query: 'SELECT 1', ex_structure: 'a UInt8); DROP TABLE t; SELECT (1' }, formWith('ex')],
    [{ query: "INSERT INTO t SELECT a, '' FROM input('a UInt8); DROP TABLE t; SELECT (1') FORMAT CSV" }, post('1\n')],
    [{ query: 'SYSTEM SHUTDOWN' }, post()],
  ] as const) {
    assert.notEqual(await codeOf({ ...reader, ...search }, init), 0, JSON.stringify(search))
  }
  assert.notEqual(await codeOf({ query: 'SYSTEM SHUTDOWN' }, post()), 0)
  assert.equal(await textOf({ query: 'EXISTS t' }), '1\n')
  assert.equal(await textOf({ ...reader, query: 'SELECT a FROM ex', ex_structure: 'a UInt8' }, formWith('ex')), '1\n')
})

const formWith = (table: string): RequestInit => {
  const form = new FormData()
  form.set(table, new Blob(['1\n']), table)
  return { method: 'POST', body: form }
}

test('the configuration names users and the variables of their passwords, and misses those that are not there', () => {
  const text = `collector: { clickhouse_users: [{ name: grafana, password_env: A }, { name: admin, password_env: B, write: true }] }
providers: [{ name: p, kind: openai, base_url: "http://127.0.0.1:1" }]
models: [{ name: m, provider: p, price: { input_usd_per_mtok: 1, output_usd_per_mtok: 1 } }]
policy: { name: only, score: candidate.cost_usd, choose: { kind: lowest } }`
  assert.deepEqual(parseConfig(text, '.', 's.yaml', { A: 'a', B: 'b' }).collector.users, [
    { name: 'grafana', password: 'a', readonly: true },
    { name: 'admin', password: 'b', readonly: false },
  ])
  const message = /collector\.clickhouse_users\[1\]: the environment has no B/
  assert.throws(() => parseConfig(text, '.', 's.yaml', { A: 'a', B: '' }), { code: 'config-invalid', message })
})

test('health, unknown paths and methods answer as ClickHouse does', async () => {
  for (const path of ['/ping', '/replicas_status', '/'])
    assert.equal(await (await fetch(front.url + path)).text(), 'Ok.\n')
  const nowhere = await fetch(`${front.url}/nowhere`)
  assert.equal(nowhere.status, 404)
  assert.match(await nowhere.text(), /There is no handle \/nowhere\n\nUse \/ or \/ping for health checks/)
  assert.equal((await fetch(front.url, { method: 'DELETE' })).status, 405)
  assert.equal(await codeOf({ query: 'SELECT 1; SELECT 2' }), 62)
  const { headers } = await ask({ query: 'SELECT 1', query_id: 'a\r\nx-other: ü' })
  assert.deepEqual([headers.get('x-clickhouse-query-id'), headers.get('x-other')], ['a??x-other: ?', null])
  const bad = await ask({}, post('INSERT INTO t FORMAT CSV\n1,2\nx,3\n'))
  assert.match(bad.bytes.toString(), /Code: 27\. DB::Exception: /)
  assert.ok(!bad.bytes.includes(folder.path), bad.bytes.toString())
})
