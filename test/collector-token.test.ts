// Who may send to the collector, as signalbox.yaml says it: the token's variable, where one is required, and which router
// shows it unasked.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseConfig } from '../router/config.ts'

const text = (...lines: string[]): string =>
  [
    ...lines,
    'providers: [{ name: p, kind: openai, base_url: "http://127.0.0.1:1" }]',
    'models: [{ name: m, provider: p, price: { input_usd_per_mtok: 1, output_usd_per_mtok: 1 } }]',
    'policy: { name: only, score: candidate.cost_usd, choose: { kind: lowest } }',
  ].join('\n')
const token = 'twenty-four-characters-x'
const env = { COLLECTOR_TOKEN: token, OTHER: 'another-token-altogether', SHORT: 'short' }
const parse = (...lines: string[]) => parseConfig(text(...lines), '.', 's.yaml', env)

test('a collector that others can reach needs a token, and one on loopback does not', () => {
  assert.equal(parse().collector.token, null)
  assert.equal(parse('collector: { host: "::1" }').collector.host, '::1')
  assert.equal(parse('collector: { host: 0.0.0.0, token_env: COLLECTOR_TOKEN }').collector.token, token)
  const refused: [line: string, message: RegExp][] = [
    [
      'collector: { host: 0.0.0.0 }',
      /^s\.yaml:1: collector\.host: 0\.0\.0\.0 is not loopback, so senders must show a token/,
    ],
    ['collector: { token_env: MISSING }', /collector\.token_env: MISSING is unset or shorter than 16 characters/],
    ['collector: { token_env: SHORT }', /collector\.token_env: SHORT is unset or shorter than 16 characters/],
  ]
  for (const [line, message] of refused) assert.throws(() => parse(line), { code: 'config-invalid', message })
})

test("the router shows its collector's token on this machine, and to another machine only what it is told to show", () => {
  const shown = (...lines: string[]): string | null => {
    const { telemetry } = parse('collector: { token_env: COLLECTOR_TOKEN }', ...lines)
    assert.ok(telemetry)
    return telemetry.token
  }
  assert.equal(shown(), token)
  assert.equal(shown('telemetry: { endpoint: "http://localhost:4318" }'), token)
  assert.equal(shown('telemetry: { endpoint: "http://collector.example:4318" }'), null)
  assert.equal(shown('telemetry: { endpoint: "http://collector.example:4318", token_env: OTHER }'), env.OTHER)
  assert.equal(shown('telemetry: { token_env: OTHER }'), env.OTHER)
})
