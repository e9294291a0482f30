// The embedded engine's HTTP front, asked by ClickHouse's official client and as curl asks.
import assert from 'node:assert/strict'
import { request as httpRequest } from 'node:http'
import { after, before, test } from 'node:test'
import { gunzipSync, gzipSync } from 'node:zlib'
import { type ClickHouseClient, ClickHouseError, ClickHouseLogLevel, createClient } from '@clickhouse/client'
import type { Collector } from '../collector/server.ts'
import { temporaryCollector } from './collector-fixtures.ts'

let collector: Collector
let client: ClickHouseClient
before(async () => {
  collector = await temporaryCollector()
  client = createClient({ url: collector.clickhouseUrl, log: { level: ClickHouseLogLevel.OFF } })
  const query = 'CREATE TABLE default.t (a UInt64, b String) ENGINE = MergeTree ORDER BY a'
  await client.command({ query })
})
after(async () => {
  await client.close()
  await collector.close()
})

const ask = async (search: Record<string, string>, init: RequestInit = {}) => {
  const response = await fetch(`${collector.clickhouseUrl}/?${new URLSearchParams(search)}`, init)
  return { status: response.status, headers: response.headers, text: await response.text() }
}
/** A request without fetch's own headers and decompression. */
const raw = (
  path: string,
  headers: Record<string, string>,
): Promise<{ headers: Record<string, unknown>; body: Buffer }> =>
  new Promise((resolve, reject) => {
    const request = httpRequest(collector.clickhouseUrl + path, { headers }, async (response) => {
      const chunks: Buffer[] = []
      for await (const chunk of response) chunks.push(chunk)
      resolve({ headers: response.headers, body: Buffer.concat(chunks) })
    })
    request.on('error', reject)
    request.end()
  })

test('the official client pings, inserts, binds parameters and reads', async () => {
  assert.deepEqual(await client.ping(), { success: true })
  const values = [
    { a: 1, b: "it's \\ \t\n" },
    { a: '18446744073709551615', b: 'ü' },
  ]
  const { summary } = await client.insert({ table: 'default.t', values, format: 'JSONEachRow' })
  assert.ok(summary)
  const result = await client.query({
    query: 'SELECT b, {n:Nullable(String)} AS n, {list:Array(String)} AS list FROM default.t WHERE b = {b:String}',
    query_params: { b: "it's \\ \t\n", n: null, list: ['x', "y'"] },
    format: 'JSONEachRow',
  })
  assert.deepEqual(await result.json(), [{ b: "it's \\ \t\n", n: null, list: ['x', "y'"] }])
  const json = await client.query({ query: 'SELECT toString(max(a)) AS a FROM default.t', format: 'JSON' })
  assert.deepEqual((await json.json<{ a: string }>()).data, [{ a: '18446744073709551615' }])
})

test('the official client streams a long result, compressed or not, and may stop half-way', async () => {
  const query = 'SELECT number AS n FROM numbers(300000)'
  const zipped = createClient({ url: collector.clickhouseUrl, compression: { response: true, request: true } })
  for (const some of [client, zipped]) {
    let rows = 0
    for await (const part of (await some.query({ query, format: 'JSONEachRow' })).stream()) rows += part.length
    assert.equal(rows, 300_000)
  }
  await zipped.insert({ table: 'default.t', values: [{ a: 5, b: 'zipped' }], format: 'JSONEachRow' })
  await zipped.close()
  const endless = await client.query({ query: 'SELECT number FROM system.numbers', format: 'JSONEachRow' })
  for await (const part of endless.stream()) if (part.length > 0) break
  endless.close()
  assert.deepEqual(await client.ping(), { success: true })
})

test('errors are the classes and codes of ClickHouse', async () => {
  const failing = async (query: string): Promise<ClickHouseError> => {
    const error = await client.query({ query }).then(
      () => assert.fail(query),
      (error: unknown) => error,
    )
    assert.ok(error instanceof ClickHouseError, String(error))
    return error
  }
  const unknown = await failing('SELECT * FROM nowhere')
  assert.deepEqual([unknown.code, unknown.type], ['60', 'UNKNOWN_TABLE'])
  const syntax = await failing('nonsense')
  assert.deepEqual([syntax.code, syntax.type], ['62', 'SYNTAX_ERROR'])
  const late = await failing("SELECT throwIf(1, 'on purpose')")
  assert.deepEqual([late.code, late.type], ['395', 'FUNCTION_THROW_IF_VALUE_IS_NON_ZERO'])
})

test('a result that fails on its way is cut off, so that nobody takes it for whole', async () => {
  const query = 'SELECT throwIf(number = 900000) FROM numbers(1000000) SETTINGS max_block_size = 1000, max_threads = 1'
  await assert.rejects(ask({ query }), /terminated|other side closed|fetch failed/)
  assert.equal((await ask({ query: 'SELECT 1' })).text, '1\n')
})

test('a raw request answers with the headers and spellings of ClickHouse', async () => {
  const answer = await ask({ query: 'SELECT 1 AS x, version()', query_id: 'q-1' })
  assert.equal(answer.status, 200)
  assert.match(answer.text, /^1\t\d+\.\d+\.\d+\.\d+\n$/)
  assert.equal(answer.headers.get('x-clickhouse-query-id'), 'q-1')
  assert.equal(answer.headers.get('x-clickhouse-format'), 'TabSeparated')
  assert.ok(answer.headers.get('x-clickhouse-server-display-name'))
  assert.ok(JSON.parse(answer.headers.get('x-clickhouse-summary') ?? '').read_rows)
  const missing = await ask({ query: 'SELECT nope' })
  assert.deepEqual([missing.status, missing.headers.get('x-clickhouse-exception-code')], [404, '47'])
  assert.match(missing.text, /^Code: 47\. DB::Exception: [\s\S]*\(UNKNOWN_IDENTIFIER\) \(version [\d.]+\)\n$/)
  for (const path of ['/ping', '/']) assert.equal((await raw(path, {})).body.toString(), 'Ok.\n')
})

test('query, body, default_format, database, settings and parameters play together', async () => {
  const post = { method: 'POST' }
  assert.equal((await ask({ default_format: 'CSV' }, { ...post, body: "SELECT 1, 'a'" })).text, '1,"a"\n')
  assert.equal((await ask({ query: 'SELECT 1 AS a FORMAT JSONEachRow' })).text, '{"a":1}\n')
  assert.equal((await ask({ query: 'SELECT currentDatabase()', database: 'otel' })).text, 'otel\n')
  assert.equal((await ask({ query: 'SELECT currentDatabase()' })).text, 'default\n')
  assert.equal((await ask({ query: "SELECT getSetting('max_threads')", max_threads: '1' })).text, '1\n')
  assert.equal((await ask({ query: 'SELECT {x:Int32} + {y:Int32}', param_x: '40', param_y: '2' })).text, '42\n')
  assert.equal(
    (await ask({ query: 'SELECT {s:String}', param_s: "a\\tb'; DROP TABLE t" })).text,
    "a\\tb\\'; DROP TABLE t\n",
  )
  const unset = await ask({ query: 'SELECT {x:Int32}' })
  assert.deepEqual([unset.status, unset.headers.get('x-clickhouse-exception-code')], [400, '456'])
  const unknown = await ask({ query: 'SELECT 1', no_such_setting: '1' })
  assert.deepEqual([unknown.status, unknown.headers.get('x-clickhouse-exception-code')], [404, '115'])
  assert.equal((await ask({}, { ...post, body: ' ' })).status, 400)
})

test('data may follow an INSERT in the body, plain or zipped, and a bad row stores none of them', async () => {
  const insert = (format: string, body: string | Uint8Array<ArrayBuffer>, headers: Record<string, string> = {}) =>
    ask({ query: `INSERT INTO default.t FORMAT ${format}` }, { method: 'POST', body, headers })
  const stored = async () => (await ask({ query: "SELECT count() FROM default.t WHERE b LIKE 'raw%'" })).text
  assert.equal((await insert('JSONEachRow', '{"a":10,"b":"raw;1"}\n{"a":11,"b":"raw\'2"}\n')).status, 200)
  assert.equal((await insert('CSV', gzipSync('12,"raw ""3"""\n'), { 'content-encoding': 'gzip' })).status, 200)
  assert.equal((await insert('Values', "(13,'raw4')")).status, 200)
  assert.equal(await stored(), '4\n')
  const bad = await insert('JSONEachRow', '{"a":20,"b":"raw"}\n{"a":"x"}\n')
  assert.deepEqual([bad.status, bad.headers.get('x-clickhouse-exception-code')], [400, '27'])
  assert.equal(await stored(), '4\n')
  assert.equal((await insert('RowBinary', new Uint8Array([255, 255, 255]))).status, 400)
})

test('a GET cannot change anything, and a page in a browser cannot ask at all', async () => {
  const get = await ask({ query: 'DROP TABLE default.t' })
  assert.deepEqual([get.status, get.headers.get('x-clickhouse-exception-code')], [500, '164'])
  assert.equal(
    (await ask({}, { method: 'POST', body: 'DROP TABLE default.t', headers: { origin: 'null' } })).status,
    403,
  )
  const rebound = await raw('/?query=SELECT+1', { host: 'evil.example:8123' })
  assert.match(rebound.body.toString(), /host 'evil.example:8123' is not this server/)
})

test('one request leaves nothing behind for the next', async () => {
  await ask({}, { method: 'POST', body: 'SET max_threads = 1' })
  await ask({}, { method: 'POST', body: 'USE otel' })
  const { text } = await ask({ query: "SELECT currentDatabase(), getSetting('readonly')" })
  assert.equal(text, 'default\t2\n')
  const threads = await ask({ query: "SELECT changed FROM system.settings WHERE name = 'max_threads'" })
  assert.equal(threads.text, '0\n')
})

test('a result is zipped when the client asks for it twice, as ClickHouse has it', async () => {
  const accept = { 'accept-encoding': 'gzip' }
  const zipped = await raw('/?enable_http_compression=1&query=SELECT+7', accept)
  assert.equal(zipped.headers['content-encoding'], 'gzip')
  assert.equal(gunzipSync(zipped.body).toString(), '7\n')
  assert.equal((await raw('/?query=SELECT+7', accept)).body.toString(), '7\n')
})

test('binary formats and the statements of a schema browser work', async () => {
  const native = await raw("/?default_format=Native&query=SELECT+1+AS+a,'x'+AS+b", {})
  assert.equal(native.body.toString('hex'), '020101610555496e74380101620653' + '7472696e670178')
  for (const query of ['SHOW DATABASES', 'SHOW TABLES FROM otel', 'DESC TABLE otel.otel_traces', 'EXISTS default.t']) {
    const answer = await ask({ query })
    assert.equal(answer.status, 200, answer.text)
    assert.notEqual(answer.text, '')
  }
})

test('many queries at once all get their answer while inserts go on', async () => {
  const slow = Array.from({ length: 12 }, (_, i) =>
    ask({ query: `SELECT ${i}, sum(sipHash64(number)) > 0 FROM numbers(2000000)` }),
  )
  await client.insert({ table: 'default.t', values: [{ a: 99, b: 'meanwhile' }], format: 'JSONEachRow' })
  const answers = await Promise.all(slow)
  assert.deepEqual(
    answers.map(({ text }) => text),
    answers.map((_, i) => `${i}\t1\n`),
  )
})

test('nothing outside the database is read or written, by no method and under no spelling', async () => {
  for (const query of [
    "SELECT * FROM file('/etc/hostname', 'LineAsString')",
    "SELECT file('/etc/hostname')",
    "SELECT * FROM /* x */ `url` ('http://127.0.0.1/', 'RawBLOB')",
    "SELECT 1 INTO OUTFILE '/tmp/signalbox-never'",
    "INSERT INTO FUNCTION file('/tmp/signalbox-never', 'CSV', 'a UInt8') SELECT 1",
    'CREATE TABLE default.x (a UInt8) ENGINE = File(CSV)',
    "SELECT * FROM s3Cluster('c', 'http://127.0.0.1/x')",
  ])
    for (const method of ['GET', 'POST']) {
      const { status, text } = await ask({ query }, { method })
      assert.equal(status, 403, query)
      assert.match(text, /Code: 497\. DB::Exception: .*ACCESS_DENIED/)
    }
  assert.equal((await ask({ query: "SELECT 'file(1)' -- url('x')" })).text, 'file(1)\n')
  const data = '{"a":77,"b":"file(\'x\') into outfile"}'
  assert.equal(
    (await ask({ query: 'INSERT INTO default.t FORMAT JSONEachRow' }, { method: 'POST', body: data })).status,
    200,
  )
  const page = { headers: { 'sec-fetch-site': 'cross-site' } }
  assert.equal((await ask({ query: 'SELECT 1' }, page)).status, 403)
})
