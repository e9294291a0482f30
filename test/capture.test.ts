// Capturing through the front door: a real router, a real collector and ClickHouse behind it. What is asserted is what a person
// then reads with `signalbox payloads`, and that nothing anywhere holds what was taken out, or what was not to be kept.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { keptOf } from '../router/capture/capture.ts'
import { openRow, type PayloadRow, payloadColumns } from '../router/capture/sealed.ts'
import type { CaptureSettings } from '../router/capture/settings.ts'
import { ConfigError, parseConfig } from '../router/config.ts'
import { temporaryFolder } from './collector-fixtures.ts'
import { chat, collector, decisionOf, idOf, post, providers, query, router, scripts, start } from './router-stage.ts'
import { fails, json, sse } from './scripted-provider.ts'

const secrets: Readonly<Record<string, string>> = {
  CAPTURE_SECRET: 'a secret of at least thirty-two characters',
  CAPTURE_K1: Buffer.alloc(32, 1).toString('base64'),
  CAPTURE_K2: Buffer.alloc(32, 2).toString('hex'),
  CLIENT_A: 'client-a-key',
  CLIENT_B: 'client-b-key',
}
Object.assign(process.env, secrets)
const keys = new Map([
  ['k1', Buffer.alloc(32, 1)],
  ['k2', Buffer.alloc(32, 2)],
])
const address = 'bob@example.com'
const token = 'sk-proj-abcdef1234567890ABCDEF'
const question = `Write to ${address} with ${token}`
const ask = (extra: object = {}) => chat({ messages: [{ role: 'user', content: question }], ...extra })
const capture = (text: string): string => `capture: { secret_env: CAPTURE_SECRET, ${text} }`

const rowsOf = (id: string) =>
  query<PayloadRow & { keep_probability: number; tenant: string; bytes: number }>(
    `SELECT ${payloadColumns}, keep_probability, tenant, bytes FROM otel.payloads
     WHERE decision_id = {id:UUID} ORDER BY kind, attempt`,
    id,
  )
/** Asks, lets the router hand over all it has, and gives the payloads as a person would see them. */
const captured = async (body: object, init: RequestInit = {}) => {
  const response = await post(body, init)
  const text = await response.text()
  await router.close()
  const rows = await rowsOf(idOf(response))
  return { id: idOf(response), text, rows, contents: rows.map((row) => openRow(row, keys).toString()) }
}
const signalbox = (...args: string[]) =>
  new Promise<{ code: number; out: string; err: string }>((resolve) => {
    const main = fileURLToPath(new URL('../cli/main.ts', import.meta.url))
    execFile(process.execPath, [main, ...args], { encoding: 'utf8' }, (error, out, err) =>
      resolve({ code: error ? Number(error.code) : 0, out, err }),
    )
  })

describe('captured', () => {
  test('in full: what was asked and answered, without what was taken out', async () => {
    await start(capture('mode: full'))
    scripts(json(`Dear ${address}`))
    const { rows, contents, text } = await captured(ask())
    assert.deepEqual(
      rows.map(({ kind, attempt, redaction, key_id }) => [kind, attempt, redaction, key_id]),
      [
        ['request', 0, 'full', ''],
        ['response', 1, 'full', ''],
      ],
    )
    assert.deepEqual(
      JSON.parse(contents[0] ?? ''),
      ask({ messages: [{ role: 'user', content: 'Write to <email> with <key>' }] }),
    )
    assert.equal(JSON.parse(contents[1] ?? '').choices[0].message.content, 'Dear <email>')
    assert.match(text, /Dear bob@example\.com/)
    assert.equal(providers.a.asked.at(-1)?.raw.includes(address), true)
  })

  test('pseudonymised: a conversation stays linked, within its tenant', async () => {
    const asked = async (tenant: string) => {
      await start(capture('mode: pseudonymised'))
      scripts(json(`Dear ${address}`))
      return captured(ask(), { headers: { 'x-signalbox-tenant': tenant } })
    }
    const [one, again, other] = [await asked('acme'), await asked('acme'), await asked('other')]
    const mark = /<email:[a-p]{16}>/.exec(one.contents[0] ?? '')?.[0] ?? assert.fail(one.contents[0])
    assert.ok(one.contents[1]?.includes(mark) && again.contents[0]?.includes(mark))
    assert.ok(!other.contents.join('').includes(mark))
    assert.deepEqual([one.rows[0]?.tenant, other.rows[0]?.tenant], ['acme', 'other'])
  })

  test('a stream: put together, so that an address cut in two is found', async () => {
    await start(capture('mode: full'))
    scripts(sse(['Write to bob@exam', 'ple.com', ' today']))
    const { contents, text } = await captured(ask({ stream: true }))
    const answer = JSON.parse(contents[1] ?? '')
    assert.equal(answer.choices[0].message.content, 'Write to <email> today')
    assert.equal(answer.choices[0].finish_reason, 'stop')
    assert.ok(text.endsWith('data: [DONE]\n\n'))
  })

  test('a stream that was cut: as far as the client got it; an answer that failed: with its attempt', async () => {
    await start(capture('mode: full'))
    scripts(sse(['one ', 'two '], { cutAfter: 1 }))
    const cut = await captured(ask({ stream: true }))
    assert.equal(JSON.parse(cut.contents[1] ?? '').choices[0].message.content, 'one ')
    await start(capture('mode: full'))
    scripts(fails(500), json('from b'))
    const { rows, contents } = await captured(ask())
    assert.deepEqual(
      rows.map(({ attempt }) => attempt),
      [0, 2],
    )
    assert.equal(JSON.parse(contents[1] ?? '').choices[0].message.content, 'from b')
  })

  test('encrypted: nothing to be read without the key, and an old key opens what is old', async () => {
    const keysText = 'keys: [{ id: k1, env: CAPTURE_K1 }, { id: k2, env: CAPTURE_K2 }]'
    for (const active of ['k1', 'k2']) {
      await start(capture(`mode: full, ${keysText}, active: ${active}`))
      scripts(json('The answer'))
      const { rows, contents } = await captured(ask())
      assert.equal(rows[0]?.key_id, active)
      assert.match(contents[0] ?? '', /Write to <email>/)
      assert.match(contents[1] ?? '', /The answer/)
      for (const row of rows) {
        assert.throws(() => openRow(row, new Map()), /gone for good/)
        assert.throws(() => openRow({ ...row, attempt: 7 }, keys), /does not open/)
      }
    }
  })

  test('as features: sizes and hashes, and not a word', async () => {
    await start(capture('mode: features, compression: gzip'))
    scripts(json('A word'))
    const { rows, contents } = await captured(ask())
    assert.equal(rows[0]?.content_type, 'application/vnd.signalbox.features+json')
    assert.equal(JSON.parse(contents[0] ?? '').messages[0].characters, question.length)
    assert.equal(JSON.parse(contents[1] ?? '').choices[0].characters, 6)
    assert.doesNotMatch(contents.join(''), /A word|bob|Write/i)
  })

  test('off, or not drawn: no bytes at all', async () => {
    const before = await query<{ n: string }>('SELECT count() AS n FROM otel.captured_payloads', '')
    for (const text of ['', capture('mode: off'), capture('mode: full, share: 0.000000001')]) {
      await start(text)
      scripts(json('The answer'))
      assert.deepEqual((await captured(ask())).rows, [])
    }
    assert.deepEqual(await query('SELECT count() AS n FROM otel.captured_payloads', ''), before)
  })

  test('larger than the limit: only that it was', async () => {
    await start(capture('mode: full, bytes_max: 100'))
    scripts(json('A long answer '.repeat(20)))
    const { rows, contents } = await captured(ask({ messages: [{ role: 'user', content: 'x'.repeat(200) }] }))
    assert.deepEqual(
      rows.map(({ redaction }) => redaction),
      ['too-large', 'too-large'],
    )
    assert.deepEqual(contents, ['', ''])
    assert.ok((rows[0]?.bytes ?? 0) > 200)
  })

  test('by a person’s own patterns, after whose mark nothing of it is left', async () => {
    await start(capture(String.raw`mode: full, patterns: [{ name: staff, pattern: 'E-\d{5}' }]`))
    scripts(json('Hello E-54321'))
    const { contents } = await captured(ask({ messages: [{ role: 'user', content: 'I am E-12345' }] }))
    assert.match(contents.join(''), /I am <staff>.*Hello <staff>/s)
  })

  test('per client key: its own mode holds, and off is off', async () => {
    await start(
      `${capture('mode: full')}\nkeys: [{ name: a, key_env: CLIENT_A, capture: 'off' }, { name: b, key_env: CLIENT_B, tenant: acme }]`,
    )
    scripts(json('The answer'))
    const as = (name: string) => ({ headers: { authorization: `Bearer ${secrets[name]}` } })
    const first = idOf(await post(ask(), as('CLIENT_A')))
    const { rows } = await captured(ask(), as('CLIENT_B'))
    assert.deepEqual(await rowsOf(first), [])
    assert.deepEqual(
      rows.map(({ tenant }) => tenant),
      ['acme', 'acme'],
    )
  })

  test('what cannot be redacted does not leave the router, and its answer is kept all the same', async () => {
    await start(capture('mode: full'))
    scripts(json('The answer'))
    const deep = `${'['.repeat(50_000)}1${']'.repeat(50_000)}`
    const body = JSON.stringify(ask()).replace(/}$/, `,"deep":${deep}}`)
    const response = await post(body)
    assert.equal(response.status, 200)
    await router.close()
    assert.deepEqual(
      (await rowsOf(idOf(response))).map(({ kind }) => kind),
      ['response'],
    )
  })

  test('once, however often it is delivered', async () => {
    const id = '019a8f6e-5b1c-7cc3-98c4-dc0c0c07398f'
    for (const batch of ['twice', 'twice', 'again'])
      await fetch(`${collector.otlpUrl}/v1/logs`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', 'x-signalbox-batch': batch },
        body: lateDelivery(id),
      })
    await start()
    assert.equal((await rowsOf(id)).length, 1)
  })

  test('leaves nothing else behind: no span, no log record holds the content', async () => {
    await start(capture('mode: full'))
    scripts(json('A very particular answer'))
    await captured(ask({ messages: [{ role: 'user', content: `A very particular question of ${address}` }] }))
    for (const table of ['otel_traces', 'otel_logs', 'routing_decisions', 'captured_payloads', 'routing_attempts'])
      assert.deepEqual(
        await query(`SELECT * FROM otel.${table} WHERE toString(tuple(*)) LIKE '%very particular%'`, ''),
        [],
        table,
      )
    assert.deepEqual(await query("SELECT * FROM otel.otel_logs WHERE EventName LIKE 'gen_ai.client%'", ''), [])
  })
})

describe('who is captured', () => {
  const settings = (fields: Partial<CaptureSettings>) =>
    ({ mode: 'full', share: 1, per: 'request', rules: [], ...fields }) as unknown as CaptureSettings
  const asked = (at: number, session = '', path: string[] = []) =>
    ({
      route: '/v1/chat/completions',
      mode: null,
      context: { id: `request-${at}`, session },
      decision: { path, policy: { hash: 'h' } },
    }) as unknown as Parameters<typeof keptOf>[1]

  test('is drawn with the recorded probability, the same each time', () => {
    const kept = Array.from({ length: 4000 }, (_, at) => keptOf(settings({ share: 0.25 }), asked(at)))
    const count = kept.filter((each) => each !== null).length
    // A fixed sequence of hashes; of chance, 4 standard errors (110) are left once in 16,000.
    assert.ok(Math.abs(count - 1000) < 110, String(count))
    assert.ok(kept.every((each) => each === null || each.keepProbability === 0.25))
    assert.deepEqual(keptOf(settings({ share: 0.25 }), asked(1)), kept[1])
  })

  test('can be whole sessions', () => {
    for (const session of ['a', 'b', 'c', 'd', 'e']) {
      const all = Array.from({ length: 20 }, (_, at) =>
        keptOf(settings({ share: 0.5, per: 'session' }), asked(at, session)),
      )
      assert.equal(new Set(all.map((each) => each === null)).size, 1)
    }
  })

  test('depends on the way through the policy: the first rule that fits', () => {
    const rules = [
      { path: 'arm:canary', mode: 'pseudonymised', share: 1 },
      { route: '/v1/elsewhere', mode: 'off', share: 1 },
      { route: '/v1/chat/completions', mode: 'features', share: 1 },
    ] as const
    assert.equal(keptOf(settings({ rules: [...rules] }), asked(1, '', ['arm:canary']))?.mode, 'pseudonymised')
    assert.equal(keptOf(settings({ rules: [...rules] }), asked(1, '', ['arm:main']))?.mode, 'features')
  })
})

describe('erasing', () => {
  test('a decision: no content is left, what is delivered late is let fall, and replay still works', async () => {
    await start(capture('mode: full'))
    scripts(json('To be erased'))
    const { id, rows } = await captured(ask())
    assert.equal(rows.length, 2)
    const { clickhouseUrl, otlpUrl } = collector
    const tryFirst = await signalbox(
      'payloads',
      'erase',
      '--decision',
      id,
      '--source',
      clickhouseUrl,
      '--dry-run',
      '--json',
    )
    assert.deepEqual([tryFirst.code, JSON.parse(tryFirst.out).payloads], [0, 2])
    assert.equal((await rowsOf(id)).length, 2)
    const erased = await signalbox('payloads', 'erase', '--decision', id, '--source', clickhouseUrl)
    assert.match(erased.out, /erased 2 payloads of 1 decisions/)
    const late = await fetch(`${otlpUrl}/v1/logs`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'x-signalbox-batch': `late-${id}` },
      body: lateDelivery(id),
    })
    assert.equal(late.status, 200)
    assert.deepEqual(
      await query('SELECT decision_id FROM otel.captured_payloads WHERE decision_id = {id:UUID}', id),
      [],
    )
    assert.equal((await decisionOf(id)).outcome, 'ok')
    const verified = await signalbox('replay', 'verify', '--source', clickhouseUrl)
    assert.equal(verified.code, 0, verified.err)
    const shown = await signalbox('payloads', 'show', id, '--source', clickhouseUrl)
    assert.match(shown.err, /was not captured, has expired or was erased/)
  })

  test('a tenant: all of it up to now, and nobody else’s; what comes later is kept', async () => {
    const asked = async (tenant: string) => {
      await start(capture('mode: full'))
      scripts(json('The answer'))
      return captured(ask(), { headers: { 'x-signalbox-tenant': tenant } })
    }
    const [gone, kept] = [await asked('gone'), await asked('kept')]
    const { clickhouseUrl, otlpUrl } = collector
    const { code, out } = await signalbox('payloads', 'erase', '--tenant', 'gone', '--source', clickhouseUrl, '--json')
    assert.deepEqual([code, JSON.parse(out).payloads], [0, 2])
    assert.deepEqual(await rowsOf(gone.id), [])
    assert.equal((await rowsOf(kept.id)).length, 2)
    await fetch(`${otlpUrl}/v1/logs`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: lateDelivery(gone.id, 'gone'),
    })
    assert.deepEqual(
      await query('SELECT decision_id FROM otel.captured_payloads WHERE decision_id = {id:UUID}', gone.id),
      [],
    )
    assert.equal((await asked('gone')).rows.length, 2)
  })
})

/** A payload of an hour ago, as a spool may deliver it. */
const lateDelivery = (id: string, tenant = ''): string => {
  const timeUnixNano = `${BigInt(Date.now() - 3_600_000) * 1_000_000n}`
  const attributes = Object.entries({
    'signalbox.decision.id': id,
    'signalbox.tenant': tenant,
    'signalbox.payload.kind': 'request',
    'signalbox.payload.expires_at': new Date(Date.now() + 86_400_000).toISOString(),
  }).map(([key, stringValue]) => ({ key, value: { stringValue } }))
  const eventName = 'gen_ai.client.inference.operation.details'
  const logRecords = [{ timeUnixNano, eventName, body: { stringValue: 'bGF0ZQ==' }, attributes }]
  return JSON.stringify({ resourceLogs: [{ scopeLogs: [{ logRecords }] }] })
}

describe('reading', () => {
  test('list and show: what was kept, opened with keys from the environment, and never a key', async () => {
    await start(capture('mode: full, keys: [{ id: k1, env: CAPTURE_K1 }], active: k1'))
    scripts(json('Shown'))
    const { id } = await captured(ask(), { headers: { 'x-signalbox-tenant': 'reader' } })
    const { clickhouseUrl } = collector
    const listed = await signalbox('payloads', 'list', '--tenant', 'reader', '--source', clickhouseUrl, '--json')
    assert.deepEqual(
      (JSON.parse(listed.out) as { decision_id: string; kind: string }[]).map((row) => [row.decision_id, row.kind]),
      [
        [id, 'request'],
        [id, 'response'],
      ],
    )
    const shown = await signalbox('payloads', 'show', id, '--source', clickhouseUrl, '--key', 'k1=CAPTURE_K1')
    assert.match(shown.out, /request \(full\)[\s\S]*Write to <email>[\s\S]*response of attempt 1[\s\S]*Shown/)
    const locked = await signalbox('payloads', 'show', id, '--source', clickhouseUrl)
    assert.deepEqual([locked.code, /key 'k1', which is not at hand/.test(locked.err)], [70, true])
    const wrong = await signalbox('payloads', 'show', id, '--source', clickhouseUrl, '--key', 'k1=CAPTURE_K2')
    assert.match(wrong.err, /key 'k1' does not open it/)
    for (const { out, err } of [listed, shown, locked, wrong])
      for (const value of Object.values(secrets)) assert.ok(!(out + err).includes(value))
    assert.equal((await signalbox('payloads', 'erase')).code, 64)
  })

  test('re-execution asks with what was captured', async () => {
    await start(capture('mode: pseudonymised, keys: [{ id: k1, env: CAPTURE_K1 }], active: k1'))
    scripts(json('By the first'), json('By the second'))
    const { id } = await captured(ask(), { headers: { 'x-signalbox-tags': 'run=reexec' } })
    const folder = await temporaryFolder()
    try {
      await start()
      const [policy, output] = [join(folder.path, 'p.yaml'), join(folder.path, 'out.ndjson')]
      await writeFile(
        policy,
        'name: other\nscore: "candidate.quality"\nchoose: { kind: lowest }\ncandidates: [second]\n',
      )
      const { clickhouseUrl } = collector
      const [at] = await query<{ time: string }>(
        "SELECT formatDateTime(decision_time, '%Y-%m-%dT%H:%i:%SZ', 'UTC') AS time FROM otel.routing_decisions WHERE decision_id = {id:UUID}",
        id,
      )
      const asked = ['replay', 'reexec', '--source', clickhouseUrl, '--from', at?.time ?? '', '--policy', policy]
      const how = ['--payloads', 'clickhouse', '--url', `${router.url}/v1`, '--budget-usd', '1', '--output', output]
      const lockedOut = await signalbox(...asked, ...how)
      assert.match(lockedOut.err, /key 'k1', which is not at hand/)
      const done = await signalbox(...asked, ...how, '--payload-key', 'k1=CAPTURE_K1')
      assert.equal(done.code, 0, done.err + done.out)
      assert.match(await readFile(output, 'utf8'), new RegExp(id))
      assert.match(providers.b.asked.at(-1)?.raw ?? '', /Write to <email:[a-p]{16}>/)
    } finally {
      await folder.remove()
    }
  })
})

describe('the configuration', () => {
  const text = (lines: string) => `${lines}
policy: { name: p, score: candidate.quality, choose: { kind: highest } }
providers: [{ name: a, kind: openai, base_url: "http://127.0.0.1:1/v1" }]
models: [{ name: m, provider: a, price: { input_usd_per_mtok: 1, output_usd_per_mtok: 1 }, features: { quality: 1 } }]
`
  const problemsOf = (lines: string): string => {
    try {
      parseConfig(text(lines), '.', 's.yaml', secrets)
    } catch (error) {
      if (error instanceof ConfigError) return error.message
    }
    return assert.fail('it was taken')
  }

  test('names the line of what cannot work, and what is wanted', () => {
    for (const [lines, problem] of [
      ['capture:\n  mode: everything', /s\.yaml:2: capture\.mode: .*"off", "features"/],
      ['capture:\n  mode: features', /s\.yaml:2: capture\.secret_env: found nothing/],
      ['capture:\n  mode: features\n  secret_env: NONE', /s\.yaml:3: capture\.secret_env: NONE is unset/],
      ['capture:\n  active: k9', /s\.yaml:2: capture\.active: 'k9' is not among the keys: there are none/],
      [
        'capture:\n  active: k1\n  keys:\n    - { id: k1, env: CLIENT_A }',
        /s\.yaml:4: .*CLIENT_A is no key; wanted 32 bytes/,
      ],
      ['capture:\n  keys:\n    - { id: k1, env: CAPTURE_K1 }', /s\.yaml:3: capture\.keys: there are keys/],
      [
        "capture:\n  patterns:\n    - { name: x, pattern: '(a)\\1' }",
        /s\.yaml:3: capture\.patterns\[0\]\.pattern: .*RE2/,
      ],
      ['capture:\n  share: 0', /s\.yaml:2: capture\.share/],
    ] as const)
      assert.match(problemsOf(lines), problem)
  })

  test('captures nothing by default, and warns of texts that are not encrypted, leave the machine, or keep personal data', () => {
    const parsed = (lines: string) => parseConfig(text(lines), '.', 's.yaml', secrets)
    assert.equal(parsed('').capture, null)
    assert.deepEqual(parsed('').warnings, [])
    const warnings = parsed(
      'telemetry: { endpoint: "http://collector:4318" }\ncapture: { mode: full, redact: [email] }',
    ).warnings
    assert.match(warnings.join('\n'), /without encryption[\s\S]*other machines[\s\S]*iban, card, phone left in them/)
    const locked = 'capture: { mode: full, keys: [{ id: k1, env: CAPTURE_K1 }], active: k1 }'
    assert.deepEqual(parsed(locked).warnings, [])
  })
})
