// Personal data and credentials as they stand in ordinary texts, which a pattern for the textbook's form does not see: other scripts'
// digits, typographic dashes and spaces, addresses in URLs, credentials in environment files, in escaped JSON and under other names.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { folded, personalDetectors } from '../router/capture/detectors.ts'
import { keyedMark, plainMark, redactJson, redactorOf, redactText } from '../router/capture/redact.ts'
import { markedSecrets, randomSecrets } from '../router/capture/secrets.ts'
import { parseConfig } from '../router/config.ts'

const runs = { seed: Number(process.env.SEED ?? 7), numRuns: 300 }
const detectors = [...markedSecrets, ...personalDetectors, randomSecrets]
const redactor = redactorOf(detectors, plainMark)

test('a number is found in the digits, dashes and spaces of any script', () => {
  for (const text of [
    ...[
      '＋49 151 12345678',
      '+４９ １５１ １２３４５６７８',
      '+٤٩ ١٥١ ١٢٣٤٥٦٧٨',
      '+४९ १५१ १२३४५६७८',
      '+49\u202f151\u202f12345678',
    ],
    ...['0151–12345678', '555–123–4567', '555\u2011123\u20114567', '+49  151  12345678'],
  ])
    assert.equal(redactText(text, redactor), '<phone>', text)
  for (const text of [
    ...[
      '４１１１ １１１１ １１１１ １１１１',
      '4111\u202f1111\u202f1111\u202f1111',
      '4111–1111–1111–1111',
      '４１１１1111１１１１1111',
    ],
  ])
    assert.equal(redactText(text, redactor), '<card>', text)
  for (const text of [
    'ＤＥ89370400440532013000',
    'DE89\n3704\n0044\n0532\n0130\n00',
    'DE89\u20093704\u20090044 0532 0130 00',
  ])
    assert.equal(redactText(text, redactor), '<iban>', text)
})

test('an address is found in a URL and with a full-width sign, and is the same one', () => {
  const keyed = redactorOf(detectors, keyedMark(Buffer.alloc(32, 1)))
  const marks = ['john@example.com', 'JOHN%40example.com', 'john＠example．com'].map((text) => redactText(text, keyed))
  assert.deepEqual(new Set(marks).size, 1, String(marks))
  assert.equal(
    redactText('https://x.y/?email=john.doe%40example.com&phone=%2B49151123456', redactor),
    'https://x.y/?email=<email>&phone=<phone>',
  )
})

test('folding a text keeps every place in it, and text that is ASCII as it is', () => {
  const text = fc.string({
    unit: fc.constantFrom('a', '1', '１', '٣', '–', '＠', '\u202f', '😀', '𝟙', '信', '\ud800', '％'),
  })
  fc.assert(
    fc.property(text, (sample) => {
      assert.equal(folded(sample).length, sample.length)
    }),
    runs,
  )
  for (const zero of [0x30, 0x660, 0x6f0, 0x966, 0x9e6, 0xe50, 0x1946, 0xff10])
    assert.equal(folded(String.fromCharCode(...Array.from({ length: 10 }, (_, digit) => zero + digit))), '0123456789')
  assert.equal(redactText('信号は２０２４年に – 完了', redactor), '信号は２０２４年に – 完了')
})

test('a credential behind a label is found however the label is written', () => {
  for (const label of [
    ...[
      'DB_PASSWORD=',
      'OPENAI_API_KEY=',
      'MYSQL_PWD=',
      'password:    ',
      'password:\n  ',
      "'password' => '",
      'Passwort: ',
    ],
    ...['{\\"password\\": \\"', 'api key: ', 'Authorization: Token ', 'Cookie: '],
  ])
    assert.equal(redactText(`${label}hunter22`, redactor), `${label}<key>`)
  assert.doesNotMatch(
    redactText('-----BEGIN PGP PRIVATE KEY BLOCK-----\nabc\n-----END PGP PRIVATE KEY BLOCK-----', redactor),
    /abc/,
  )
  for (const text of ['the password must be long', 'max_tokens: 5000', 'a secretary: friendly'])
    assert.equal(redactText(text, redactor), text)
})

test('a property that names a credential holds none afterwards, whatever its value is; a schema that names one stays', () => {
  for (const name of [
    'password',
    'x-api-key',
    'db_password',
    'dbPassword',
    'privateKey',
    'token',
    'set-cookie',
    'OPENAI_API_KEY',
  ]) {
    for (const value of ['hunter2', 12345678, 1234567890123456789n, ['hunter2', 12345678]]) {
      const json = `{"${name}":${Array.isArray(value) ? JSON.stringify(value) : typeof value === 'bigint' ? value : JSON.stringify(value)}}`
      assert.doesNotMatch(redactJson(json, redactor), /hunter2|1234567/, json)
    }
  }
  assert.equal(redactJson('{"authorization":{"token":"abc"}}', redactor), '{"authorization":{"token":"<key>"}}')
  const schema = '{"properties":{"password":{"type":"string"},"max_tokens":{"type":"integer"}},"required":["password"]}'
  assert.equal(redactJson(schema, redactor), schema)
})

test("a provider's key of no known shape does not come back in what is captured", () => {
  const text = `providers: [{ name: p, kind: openai, base_url: "http://127.0.0.1:1", api_key_env: KEY }]
models: [{ name: m, provider: p, price: { input_usd_per_mtok: 1, output_usd_per_mtok: 1 } }]
policy: { name: only, score: candidate.cost_usd, choose: { kind: lowest } }
capture: { mode: full }`
  const key = 'PLAIN.KEY(of)no+shape'
  const { capture } = parseConfig(text, '.', 's.yaml', { KEY: key })
  assert.ok(capture)
  const answer = JSON.stringify({ error: { message: `Incorrect API key provided: ${key}.` } })
  assert.equal(
    redactJson(answer, redactorOf(capture.detectors, plainMark)),
    '{"error":{"message":"Incorrect API key provided: <key>."}}',
  )
})
