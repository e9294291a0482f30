// The data source's macros, expanded as the plugin expands them.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { expand, expandConditionalAll, expandMacros, expandVariables } from './grafana-macros.ts'

const range = {
  fromMs: Date.parse('2014-11-12T11:45:26.371Z'),
  toMs: Date.parse('2015-11-12T11:45:26.371Z'),
  intervalMs: 20_000,
}

const expansions: readonly [string, string][] = [
  ['$__fromTime', 'toDateTime(1415792726)'],
  ['$__toTime', 'toDateTime(1447328726)'],
  ['$__fromTime_ms', 'fromUnixTimestamp64Milli(1415792726371)'],
  ['$__toTime_ms', 'fromUnixTimestamp64Milli(1447328726371)'],
  ['$__timeFilter(c)', 'c >= toDateTime(1415792726) AND c <= toDateTime(1447328726)'],
  [
    '$__timeFilter_ms(c)',
    'c >= fromUnixTimestamp64Milli(1415792726371) AND c <= fromUnixTimestamp64Milli(1447328726371)',
  ],
  ['$__dateFilter(d)', "d >= toDate('2014-11-12') AND d <= toDate('2015-11-12')"],
  [
    '$__dateTimeFilter(d, t)',
    "(d >= toDate('2014-11-12') AND d <= toDate('2015-11-12')) AND (t >= toDateTime(1415792726) AND t <= toDateTime(1447328726))",
  ],
  [
    '$__dt(d, t)',
    "(d >= toDate('2014-11-12') AND d <= toDate('2015-11-12')) AND (t >= toDateTime(1415792726) AND t <= toDateTime(1447328726))",
  ],
  ['$__timeInterval(c)', 'toStartOfInterval(toDateTime(c), INTERVAL 20 second)'],
  ['$__timeInterval_ms(c)', 'toStartOfInterval(toDateTime64(c, 3), INTERVAL 20000 millisecond)'],
  ['$__interval_s', '20'],
  ['$__timeFrom(c)', 'c >= toDateTime(1415792726)'],
  ['$__timeTo(c)', 'c <= toDateTime(1447328726)'],
  ['$__timeGroup(c, 5m)', 'toStartOfInterval(toDateTime(c), INTERVAL 300 second)'],
]
for (const [macro, sql] of expansions)
  test(`${macro} expands as the plugin expands it`, () => {
    assert.equal(expandMacros(`before ${macro}, after`, range), `before ${sql}, after`)
  })

test('a macro takes an expression with brackets and spaces of its own', () => {
  assert.equal(
    expandMacros('$__timeFilter(cast(sth as timestamp) )', range),
    'cast(sth as timestamp) >= toDateTime(1415792726) AND cast(sth as timestamp) <= toDateTime(1447328726)',
  )
})

test('an interval is never shorter than a second, or a millisecond', () => {
  assert.equal(expandMacros('$__interval_s', { ...range, intervalMs: 10 }), '1')
  assert.match(expandMacros('$__timeInterval_ms(c)', { ...range, intervalMs: 0 }), /INTERVAL 1 millisecond/)
})

test('a macro without its argument is refused, and an unknown one is left alone', () => {
  assert.throws(() => expandMacros('$__timeFilter c', range), /expected 1 arguments, received 0/)
  assert.throws(() => expandMacros('$__dateTimeFilter(d)', range), /expected 2 arguments, received 1/)
  assert.equal(expandMacros('$__nothing(c)', range), '$__nothing(c)')
})

test('$__conditionalAll holds its condition only while something is picked', () => {
  const sql = `WHERE a AND $__conditionalAll(if(p = '', '(none)', p) IN (\${p:singlequote}), $p) AND b`
  const all = 'WHERE a AND 1=1 AND b'
  assert.equal(expandConditionalAll(sql, { p: ['$__all'] }), all)
  assert.equal(expandConditionalAll(sql, { p: '' }), all)
  assert.equal(
    expandConditionalAll(sql, { p: ['x'] }),
    `WHERE a AND if(p = '', '(none)', p) IN (\${p:singlequote}) AND b`,
  )
})

test('variables are put in raw, as a list, or quoted', () => {
  const variables = { one: "it's", many: ['a', "b'c"] }
  assert.equal(expandVariables(`$one \${one} \${one:singlequote}`, variables), "it's it's 'it\\'s'")
  assert.equal(expandVariables('IN ($many)', { many: ['a', 'b'] }), "IN ('a','b')")
  assert.equal(expandVariables(`IN (\${many:singlequote})`, variables), "IN ('a','b\\'c')")
  assert.equal(expandVariables('$__timeFilter(t) $unknown', variables), '$__timeFilter(t) $unknown')
})

test('a whole query is expanded in the order the plugin does it', () => {
  assert.equal(
    expand(`SELECT 1 WHERE $__timeFrom(t) AND $__conditionalAll(m IN (\${m:singlequote}), $m)`, range, {
      m: ['x', 'y'],
    }),
    "SELECT 1 WHERE t >= toDateTime(1415792726) AND m IN ('x','y')",
  )
})
