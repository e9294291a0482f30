// What redaction and sealing promise, as laws: nothing that was looked for is left, looking twice changes nothing, JSON stays
// JSON, equal values of a tenant become equal marks and of another tenant others; and what is sealed can be opened by whoever has
// the key, at its own place, and by nobody else.
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { assembleStream } from '../router/capture/assemble.ts'
import { isIban, isLuhn, personalDetectors } from '../router/capture/detectors.ts'
import { requestFeatures, responseFeatures } from '../router/capture/features.ts'
import { linearPattern, PatternError } from '../router/capture/pattern.ts'
import { keyedMark, plainMark, redactJson, redactorOf, redactText } from '../router/capture/redact.ts'
import { encodings, nonceBytes, open, PayloadError, type Place, parseKey, seal } from '../router/capture/sealed.ts'
import { looksRandom, markedSecrets, randomSecrets } from '../router/capture/secrets.ts'
import { tenantKey } from '../router/capture/settings.ts'

const seed = Number(process.env.SEED ?? 7)
const holds = <Values extends [unknown, ...unknown[]]>(
  property: fc.IProperty<Values> | fc.IAsyncProperty<Values>,
  numRuns = 300,
): Promise<void> => Promise.resolve(fc.assert(property as fc.IAsyncProperty<Values>, { seed, numRuns }))

const detectors = [...markedSecrets, ...personalDetectors, randomSecrets]
const plain = redactorOf(detectors, plainMark)
const secret = Buffer.from('a secret of at least thirty-two characters')
const keyedFor = (tenant: string) => redactorOf(detectors, keyedMark(tenantKey(secret, tenant)))
const keyed = keyedFor('acme')

const digits = (count: number) => fc.stringMatching(new RegExp(`^\\d{${count}}$`))
const withCheckDigit = (payload: string): string =>
  [...'0123456789'].map((digit) => payload + digit).find(isLuhn) ?? assert.fail('one of ten digits is right')
const card = fc.integer({ min: 12, max: 18 }).chain(digits).map(withCheckDigit)
/** As cards are written: in one piece, in fours, or as American Express does. */
const writtenCard = fc
  .tuple(card, fc.constantFrom('', ' ', '-', '.', ' - '), fc.boolean())
  .map(([number, separator, inFours]) =>
    inFours
      ? (number.match(/\d{1,4}/g) ?? []).join(separator)
      : [number.slice(0, 4), number.slice(4, 10), number.slice(10, 16), number.slice(16)]
          .filter(Boolean)
          .join(separator),
  )
const checkDigits = (country: string, account: string): string => {
  const found = Array.from({ length: 97 }, (_, at) => `${country}${String(at + 2).padStart(2, '0')}${account}`).find(
    isIban,
  )
  return found ?? assert.fail('one of 97 pairs is right')
}
const iban = fc.oneof(
  digits(18).map((account) => checkDigits('DE', account)),
  fc.tuple(fc.stringMatching(/^[A-Z]{4}$/), digits(14)).map(([bank, account]) => checkDigits('GB', bank + account)),
  digits(11).map((account) => checkDigits('NO', account)),
)
const writtenIban = fc
  .tuple(iban, fc.constantFrom('', ' ', '-'))
  .map(([number, separator]) => (number.match(/.{1,4}/g) ?? []).join(separator))
const email = fc
  .tuple(
    fc.stringMatching(/^[a-zA-Z0-9][a-zA-Z0-9._+-]{0,20}$/),
    fc.stringMatching(/^[a-z0-9-]{1,20}(\.[a-zA-Z]{2,8}){1,3}$/),
  )
  .map(([local, domain]) => `${local}@${domain}`)
const phone = fc
  .tuple(fc.integer({ min: 1, max: 99 }), digits(2), digits(3), digits(4), fc.constantFrom(' ', '-', '.', '/'))
  .map(([country, area, exchange, line, s]) => `+${country}${s}(${area})${s}${exchange}${s}${line}`)
const base62 = fc.stringMatching(/^[A-Za-z0-9]{40}$/)
const token = fc.oneof(
  base62.map((text) => `sk-${text}`),
  base62.map((text) => `sk-ant-api03-${text}`),
  base62.map((text) => `ghp_${text.slice(0, 36)}`),
  fc.stringMatching(/^[A-Z0-9]{16}$/).map((text) => `AKIA${text}`),
  base62.map((text) => `xoxb-${text}`),
  base62.map((text) => `eyJ${text}.eyJ${text}.${text}`),
)
const prose = fc.constantFrom(
  '',
  ' ',
  'pay with ',
  ', or ',
  '\n',
  ' (',
  '): ',
  'x',
  '"',
  ' 2026-11-22 ',
  ' < ',
  ' <b>',
  'é😀',
)
const value = fc.oneof(writtenCard, writtenIban, email, phone, token)
const texts = fc
  .array(fc.tuple(prose, fc.oneof(value, fc.string({ unit: 'grapheme', maxLength: 12 }))), { maxLength: 8 })
  .map((parts) => parts.flat().join(''))

/** Whether a card is left, looked for independently: digits in one piece, or in groups of four to six. */
const hasCard = (text: string): boolean => {
  const runs = text.match(/\d+(?:[ .\-\u00a0]{1,3}\d+)*/g) ?? []
  return runs.some((run) => {
    const groups = run.match(/\d+/g) ?? []
    return groups.some((_, from) =>
      groups.some((_last, to) => {
        const stretch = groups.slice(from, to + 1)
        const number = stretch.join('')
        const printed = stretch.slice(0, -1).every(({ length }) => length >= 4 && length <= 6)
        return number.length >= 13 && number.length <= 19 && printed && isLuhn(number)
      }),
    )
  })
}

describe('redaction', () => {
  test('leaves no card with a right check digit, wherever it stands', async () => {
    await holds(
      fc.property(texts, (text) => !hasCard(redactText(text, plain)) && !hasCard(redactText(text, keyed))),
      1000,
    )
    await holds(
      fc.property(prose, writtenCard, (before, number) => redactText(`${before}${number}`, plain).includes('<')),
    )
  })

  test('finds e-mail addresses, telephone numbers, bank accounts and tokens in any prose', async () => {
    const around = fc.constantFrom('', ' ', 'see ', '(', '"', '\n', ': ')
    const found = (values: fc.Arbitrary<string>, mark: string) =>
      holds(
        fc.property(around, values, around, (before, found, after) => {
          const redacted = redactText(`${before}${found}${after}`, plain)
          assert.ok(redacted.includes(mark) && !redacted.includes(found), redacted)
        }),
      )
    await found(email, '<email>')
    await found(phone, '<phone>')
    await found(writtenIban, '<iban>')
    await found(token, '<key>')
  })

  test('redacting twice is redacting once', async () => {
    const words = {
      kind: 'word',
      find: (text: string) =>
        linearPattern('[a-z]{3,}')
          .find(text)
          .map((span) => ({ ...span, value: 'w' })),
    }
    for (const redactor of [plain, keyed, redactorOf([words, ...detectors], keyedMark(secret))])
      await holds(
        fc.property(texts, (text) => {
          const once = redactText(text, redactor)
          assert.equal(redactText(once, redactor), once)
        }),
        1000,
      )
  })

  test('JSON stays JSON of the same shape, also inside a text that is JSON', async () => {
    const json = fc.jsonValue({ maxDepth: 3 })
    const withValues = fc.tuple(json, texts, fc.dictionary(texts, json, { maxKeys: 4 })).map(([any, text, named]) => ({
      messages: [{ role: 'user', content: text }, { any }],
      named,
      tool_calls: [{ function: { name: 'send', arguments: JSON.stringify({ to: text, any }) } }],
    }))
    await holds(
      fc.property(withValues, (body) => {
        const redacted = JSON.parse(redactJson(JSON.stringify(body), plain)) as typeof body
        assert.equal(redacted.messages.length, 2)
        assert.equal(redacted.messages[0]?.role, 'user')
        assert.equal(Object.keys(redacted.named).length, Object.keys(body.named).length)
        const inner = JSON.parse(redacted.tool_calls[0]?.function.arguments ?? '') as { to: string }
        assert.equal(typeof inner.to, 'string')
        assert.equal(redactJson(JSON.stringify(redacted), plain), JSON.stringify(redacted))
      }),
    )
  })

  test('numbers in JSON: cards go, and long ones keep every digit', () => {
    const text = '{"card":4111111111111111,"id":12345678901234567890123,"p":0.30000000000000004,"n":-7}'
    assert.equal(
      redactJson(text, plain),
      '{"card":"<card>","id":12345678901234567890123,"p":0.30000000000000004,"n":-7}',
    )
  })

  test('names of properties are redacted, none is lost, and a credential is known by its name', () => {
    const text = JSON.stringify({
      'a@x.de': 1,
      'b@x.de': 2,
      password: 'kitten',
      note: 'ok',
      logprobs: { content: ['a@'] },
    })
    assert.equal(redactJson(text, plain), '{"<email>":1,"<email> 2":2,"password":"<key>","note":"ok","logprobs":null}')
  })

  test('the same value is the same mark within a tenant, however it is written, and another for another tenant', async () => {
    await holds(
      fc.property(email, prose, (address, before) => {
        const mark = redactText(address, keyed)
        assert.match(mark, /^<email:[a-p]{16}>$/)
        assert.equal(redactText(address.toUpperCase(), keyed), mark)
        assert.notEqual(redactText(address, keyedFor('other')), mark)
        assert.ok(!before || redactText(`${before} ${address}`, keyed).endsWith(mark))
      }),
    )
    assert.equal(redactText('4111 1111 1111 1111', keyed), redactText('4111-1111-1111-1111', keyed))
    assert.equal(redactText('DE89 3704 0044 0532 0130 00', keyed), redactText('de89370400440532013000', keyed))
  })

  test('what is no secret stays as it is', () => {
    for (const text of [
      'Numbers 1 2 3 4 5 6 7 8 9 10 11 12 13 14 of 2026-11-22 17:05:33, version 1.2.3.4, pi is 3.14159265358979.',
      'gpt-5-mini, claude-3-5-sonnet-20241022, src/components/Button2/IndexPage.tsx, 550e8400-e29b-41d4-a716-446655440000',
      'call_abcdEFGH1234567890abcdEF of chatcmpl-AbCdEf0123456789AbCdEf0123456',
      'a basic understanding of bearer bonds; max_tokens: 512; <email> is a tag, and @decorator a decorator',
      'internationalization_of_the_configuration_registry and a-very-long-hyphenated-expression-indeed',
    ])
      assert.equal(redactText(text, plain), text)
  })

  test('what looks drawn at random is a secret: fewer than one in a hundred of base62 is missed', () => {
    let missed = 0
    for (let at = 0; at < 1000; at += 1)
      if (!looksRandom(randomBytes(30).toString('base64').replaceAll(/[+/=]/g, 'x'))) missed += 1
    // The rule misses 0.01 % of them; ten or more of a thousand would come about by chance once in 10^20 runs.
    assert.ok(missed < 10, `${missed} of 1000`)
  })

  test('a text made to be slow costs no more than a long one', () => {
    const length = 262_144
    const made = [
      'a',
      '1',
      '1 ',
      '+',
      '+1',
      '(1)',
      'a@',
      'a.',
      'eyJaa.',
      'DE89 ',
      '0123 ',
      '://a:',
      'password=',
      '-----BEGIN ',
      '<email:',
    ]
    const from = process.cpuUsage()
    for (const piece of made) redactText(piece.repeat(length / piece.length), keyed)
    const { user, system } = process.cpuUsage(from)
    // About 60 ms each on a slow core; a quadratic pattern takes minutes.
    assert.ok((user + system) / 1000 < 10_000, `${(user + system) / 1000} ms of CPU`)
  })
})

describe("a person's own patterns", () => {
  test('find every match, across the windows in which a long text is searched', async () => {
    const { find } = linearPattern(String.raw`\bE-\d{5}\b`)
    await holds(
      fc.property(fc.array(fc.nat(3000), { minLength: 1, maxLength: 6 }), (gaps) => {
        const text = gaps.map((gap) => `${'lorem '.repeat(gap / 6)} E-12345`).join('')
        assert.deepEqual(
          find(text),
          Array.from(text.matchAll(/\bE-\d{5}\b/g), ({ index }) => ({ start: index, end: index + 7 })),
        )
      }),
    )
  })

  test('see what stands before a window', () => {
    const { find } = linearPattern(String.raw`\bE-\d{5}\b`)
    for (const length of [1023, 1024, 1025, 2048, 4096])
      assert.deepEqual(find(`${'x'.repeat(length)}E-12345 E-12345`), [{ start: length + 8, end: length + 15 }])
  })

  test('a pattern that would take exponential time elsewhere takes none here', () => {
    const from = process.cpuUsage()
    assert.deepEqual(linearPattern('(a+)+$').find(`${'a'.repeat(100_000)}!`), [])
    assert.ok(process.cpuUsage(from).user < 5_000_000)
  })

  test('what RE2 does not have, or what matches nothing, is refused with the reason', () => {
    for (const source of [String.raw`(a)\1`, '(?=a)', '(', 'a*', 'x'.repeat(501)])
      assert.throws(
        () => linearPattern(source),
        (error) => error instanceof PatternError && /wanted/.test(error.message),
      )
  })
})

const place: Place = { decisionId: '019a8f6e-5b1c-7cc3-98c4-dc0c0c07398f', kind: 'request', attempt: 0 }
const key = { id: 'k1', secret: Buffer.alloc(32, 7) }
const keys = new Map([[key.id, key.secret]])
const nonce = Buffer.alloc(nonceBytes, 3)
const isPayloadError = (code: string) => (error: unknown) => error instanceof PayloadError && error.code === code

describe('a sealed payload', () => {
  test('opens to what was sealed, with and without a key', () =>
    holds(
      fc.property(
        fc.uint8Array({ maxLength: 2000 }),
        fc.constantFrom(...encodings),
        fc.constantFrom(key, null),
        (bytes, encoding, with_) => {
          const plainBytes = Buffer.from(bytes)
          const sealed = seal(plainBytes, place, encoding, with_, nonce)
          assert.deepEqual(open(sealed, place, keys), plainBytes)
          if (with_ && bytes.length > 8) assert.ok(!sealed.body.includes(plainBytes))
        },
      ),
      100,
    ))

  test('does not open at another place, with another key or nonce, or when a bit of it is another', async () => {
    const sealed = seal(Buffer.from('the content'), place, 'zstd', key, nonce)
    const flipped = Buffer.from(sealed.body)
    flipped[5] = (flipped[5] ?? 0) ^ 1
    const damaged = isPayloadError('payload-damaged')
    assert.throws(() => open(sealed, { ...place, kind: 'response' }, keys), damaged)
    assert.throws(() => open(sealed, { ...place, attempt: 1 }, keys), damaged)
    assert.throws(() => open(sealed, { ...place, decisionId: place.decisionId.replace('9', '8') }, keys), damaged)
    assert.throws(() => open(sealed, place, new Map([[key.id, Buffer.alloc(32, 8)]])), damaged)
    assert.throws(() => open({ ...sealed, nonce: Buffer.alloc(nonceBytes, 4) }, place, keys), damaged)
    assert.throws(() => open({ ...sealed, body: flipped }, place, keys), damaged)
    assert.throws(() => open({ ...sealed, body: sealed.body.subarray(0, 4) }, place, keys), damaged)
    assert.throws(() => open({ ...sealed, sha256: '0'.repeat(64) }, place, keys), damaged)
  })

  test('whose key was deleted says that it is gone for good, and its digest confirms no guess', async () => {
    const sealed = seal(Buffer.from('yes'), place, 'gzip', key, nonce)
    assert.throws(
      () => open(sealed, place, new Map()),
      (error) => isPayloadError('payload-key-missing')(error) && /gone for good/.test(String(error)),
    )
    const open_ = seal(Buffer.from('yes'), place, 'gzip', null, nonce)
    assert.notEqual(sealed.sha256, open_.sha256)
  })

  test('keys rotate: what an old key sealed still opens', async () => {
    const next = { id: 'k2', secret: Buffer.alloc(32, 9) }
    const both = new Map([...keys, [next.id, next.secret]])
    for (const each of [key, next])
      assert.equal(String(open(seal(Buffer.from(each.id), place, 'zstd', each, nonce), place, both)), each.id)
  })

  test('a key is 32 bytes, in base64 or hexadecimal', () => {
    const bytes = Buffer.alloc(32, 5)
    for (const text of [bytes.toString('base64'), bytes.toString('hex'), ` ${bytes.toString('hex')}\n`])
      assert.deepEqual(parseKey(text), bytes)
    for (const text of ['', 'short', bytes.subarray(1).toString('base64')]) assert.equal(parseKey(text), null)
  })
})

describe('features', () => {
  test('say nothing of the text but sizes and a hash that only the tenant has', () => {
    const body = {
      messages: [{ role: 'user', content: 'My mail is bob@example.com\nwhy?' }],
      tools: [{}],
      temperature: 0.2,
    }
    const [one, other] = [requestFeatures(body, tenantKey(secret, 'a')), requestFeatures(body, tenantKey(secret, 'b'))]
    assert.doesNotMatch(JSON.stringify(one), /bob|mail|why/)
    const [message] = one.messages
    assert.deepEqual([message?.characters, message?.lines, message?.words, message?.question_marks], [31, 2, 5, 1])
    assert.notEqual(message?.hash, other.messages[0]?.hash)
    assert.deepEqual(requestFeatures(body, tenantKey(secret, 'a')), one)
  })

  test('of anything at all are features', () =>
    holds(
      fc.property(fc.jsonValue(), (json) => {
        assert.equal(typeof requestFeatures(json, secret).messages_count, 'number')
        assert.equal(typeof responseFeatures(json, secret).choices_count, 'number')
      }),
    ))
})

describe('a stream put together', () => {
  const event = (delta: object, more: object = {}, index = 0) =>
    `data: ${JSON.stringify({ id: 'c1', model: 'm', choices: [{ index, delta, ...more }] })}\n\n`

  test('is the chat completion that it amounts to, with every choice and tool call', () => {
    const call = (index: number, fields: object) => ({ tool_calls: [{ index, ...fields }] })
    const stream = [
      event({ role: 'assistant', content: 'Write to bob@exam' }),
      event({ content: 'ple.com' }),
      event({ content: 'other' }, {}, 1),
      event(call(0, { id: 'call_1', type: 'function', function: { name: 'send', arguments: '{"to":' } })),
      event(call(0, { function: { arguments: '"bob@example.com"}' } })),
      event({}, { finish_reason: 'stop' }),
      'data: [DONE]\n\n',
    ].join('')
    const answer = assembleStream(stream)
    assert.deepEqual(answer, {
      object: 'chat.completion',
      id: 'c1',
      created: undefined,
      model: 'm',
      choices: [
        {
          index: 0,
          message: {
            role: 'assistant',
            content: 'Write to bob@example.com',
            tool_calls: [
              { id: 'call_1', type: 'function', function: { name: 'send', arguments: '{"to":"bob@example.com"}' } },
            ],
          },
          finish_reason: 'stop',
        },
        { index: 1, message: { role: 'assistant', content: 'other' }, finish_reason: null },
      ],
    })
    assert.doesNotMatch(redactJson(JSON.stringify(answer), plain), /bob|ple\.com/)
  })

  test('of anything at all is a chat completion', () =>
    holds(
      fc.property(
        fc.array(
          fc.oneof(
            fc.string(),
            fc.jsonValue().map((json) => `data: ${JSON.stringify(json)}`),
          ),
        ),
        (lines) => Array.isArray(assembleStream(lines.join('\n')).choices),
      ),
    ))
})
