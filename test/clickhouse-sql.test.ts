// The front's look at SQL: what it takes for the rows of an INSERT, a second statement, a result's format, or a reach outside, however the
// text is dressed up in strings, names, comments and heredocs.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  insertHeadOf,
  isQuery,
  outputFormatOf,
  readsOnly,
  refuseMany,
  refuseOutside,
  tokensOf,
} from '../collector/clickhouse-sql.ts'

const runs = { seed: Number(process.env.SEED ?? 7), numRuns: 300 }
const tokens = (sql: string) => [...tokensOf(sql)]
const texts = (sql: string) => tokens(sql).map(({ text }) => text)

test('strings, names, heredocs and comments are each one token or none, with whatever they hold', () => {
  assert.deepEqual(texts("SELECT 'a''b\\'c', `x``y`, \"z\" -- 'no\n, $t$ it's $t$ /* ; */ FROM t # x"), [
    ...['SELECT', "'a''b\\'c'", ',', '`x``y`', ',', '"z"', ',', "$t$ it's $t$", 'FROM', 't'],
  ])
  assert.deepEqual(texts('SELECT ‘a"b’, “c’d”'), ['SELECT', '‘a"b’', ',', '“c’d”'])
  assert.deepEqual(texts("SELECT 'never closed"), ['SELECT', "'never closed"])
})

test('any text is cut into tokens that stand in it in order, in time that grows with its length', () => {
  const piece = fc.constantFrom(
    "'",
    '"',
    '`',
    '\\',
    '--',
    '/*',
    '*/',
    '$$',
    '$a$',
    '\n',
    '#!',
    '(',
    ')',
    ';',
    'a',
    '1',
    'é',
  )
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 60 }), (pieces) => {
      const sql = pieces.join('')
      let end = 0
      for (const token of tokensOf(sql)) {
        assert.ok(token.start >= end && token.end > token.start && token.end <= sql.length)
        assert.equal(sql.slice(token.start, token.end), token.text)
        end = token.end
      }
    }),
    runs,
  )
  const before = process.cpuUsage()
  for (const sql of ["'".repeat(200_001), '('.repeat(200_000), `$${'a'.repeat(200_000)}`, '/*'.repeat(100_000)])
    texts(sql)
  assert.ok(process.cpuUsage(before).user < 3_000_000)
})

test('the rows of an INSERT begin after its format, and its settings stay with it', () => {
  const rowsOf = (sql: string): unknown => {
    const head = insertHeadOf(sql)
    return head && [head.format, sql.slice(head.rows), head.settings, head.input?.structure ?? null]
  }
  assert.deepEqual(rowsOf('INSERT INTO t FORMAT CSV\n1,2\n'), ['CSV', '1,2\n', '', null])
  assert.deepEqual(rowsOf('insert into t (a, format) settings x = 1 format TSV'), ['TSV', '', 'settings x = 1 ', null])
  assert.deepEqual(rowsOf("INSERT INTO t VALUES (1, ';')"), ['Values', "(1, ';')", '', null])
  assert.deepEqual(rowsOf('/* FORMAT X */ INSERT INTO `t FORMAT Y` VALUES (1)'), ['Values', '(1)', '', null])
  assert.deepEqual(rowsOf("INSERT INTO t SELECT a + 1 FROM input('a UInt8') FORMAT CSV\n1"), [
    'CSV',
    '1',
    '',
    'a UInt8',
  ])
  for (const none of [
    'INSERT INTO t SELECT 1 FORMAT CSV',
    'SELECT 1 FORMAT CSV',
    'INSERT INTO t (a)',
    'INSERT INTO t FORMAT',
    '',
  ]) {
    assert.equal(rowsOf(none), null, none)
  }
})

test('a second statement is refused as ClickHouse refuses it; a lone semicolon is not', () => {
  const many = (sql: string) => () => refuseMany(sql, tokens(sql))
  for (const sql of ['SELECT 1;', "SELECT ';', 1 ;; -- ; SELECT 2", 'SELECT $$;$$; /* ; */']) many(sql)()
  assert.throws(many('SELECT 1;\nSELECT 2'), {
    message:
      /^Code: 62\. DB::Exception: Syntax error \(Multi-statements are not allowed\): failed at position 9 .*line 1, col 9/,
  })
})

test("a result's format is the one named last and outside of parentheses, and only reading statements read", () => {
  const format = (sql: string) => outputFormatOf(tokens(sql))?.format ?? null
  assert.equal(format('SELECT format FROM (SELECT 1 FORMAT x) FORMAT Native SETTINGS a = 1;'), 'Native')
  assert.equal(format("SELECT 'FORMAT CSV' -- FORMAT TSV"), null)
  for (const sql of ['SELECT 1', '(SELECT 1)', 'WITH 1 AS a SELECT a', 'SHOW TABLES', 'EXPLAIN SELECT 1']) {
    assert.equal(readsOnly(tokens(sql)), true, sql)
  }
  for (const sql of [
    'INSERT INTO t SELECT 1',
    'WITH x AS (SELECT 1) INSERT INTO t SELECT 1',
    'DROP TABLE t',
    'SET a = 1',
  ]) {
    assert.equal(readsOnly(tokens(sql)), false, sql)
  }
  assert.equal(isQuery(tokens('SHOW TABLES')), false)
})

test('what reaches outside is refused behind any quotes, and not for a word in a string', () => {
  const outside = (sql: string) => () => refuseOutside(tokens(sql))
  for (const sql of [
    "SELECT $$'$$, file('/etc/passwd'), $$'$$",
    `SELECT 1 AS "'", file('/etc/passwd') AS "'"`,
    "SELECT 1 AS `'`, * FROM `url` /* x */ ('http://127.0.0.1/') -- '",
    "SELECT ‘'’, FILE ('/etc/passwd'), ‘'’",
    "SELECT 1 INTO/**/OUTFILE '/tmp/never'",
    "INSERT INTO t FROM INFILE '/etc/passwd'",
  ]) {
    assert.throws(outside(sql), { clickhouseCode: 497 }, sql)
  }
  outside("SELECT 'file(1)', file, url FROM t -- url('x')")()
})
