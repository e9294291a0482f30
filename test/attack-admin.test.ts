// The admin endpoints under attack and bad luck: what can be gone back to after a trial, who wins a race, what a body may be, and
// who may not ask at all.
import assert from 'node:assert/strict'
import { connect } from 'node:net'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { chat, post, router, scripts, start } from './router-stage.ts'
import { json } from './scripted-provider.ts'

const token = 'a-token-for-tests-only'
process.env.SIGNALBOX_ADMIN_TOKEN = token
const admin = 'admin: { token_env: SIGNALBOX_ADMIN_TOKEN }'
const policyOf = (name: string, model = 'second') =>
  `name: ${name}\ncandidates: [${model}]\nchoose: { kind: weighted, weights: { ${model}: 1 } }\n`

type Entry = { name: string; hash: string }
type Answer = { in_force: Entry; previous: Entry[]; error?: { code: string } }
const ask = async (method: string, path: string, body: string | null = null, headers: Record<string, string> = {}) => {
  const response = await fetch(`${router.url}${path}`, {
    method,
    headers: { authorization: `Bearer ${token}`, ...headers },
    ...(body === null ? {} : { body }),
  })
  return { status: response.status, body: (await response.json()) as Answer }
}
const put = (text: string, search = '', headers: Record<string, string> = {}) =>
  ask('PUT', `/admin/policy${search}`, text, headers)
const namesOf = ({ in_force, previous }: Answer) => [in_force.name, ...previous.map(({ name }) => name)]

describe('the admin endpoints, attacked', () => {
  test('never go back to a policy that was on trial: neither after it was taken for good nor after it was fled from', async () => {
    await start(admin)
    assert.deepEqual(namesOf((await put(policyOf('trial'), '?lease_s=60')).body), ['trial', 'test'])
    assert.deepEqual(namesOf((await put(policyOf('candidate'))).body), ['candidate', 'test'])
    assert.deepEqual(namesOf((await ask('POST', '/admin/rollback')).body), ['test'])
    const { source } = (await ask('GET', '/admin/policies')).body.in_force as Entry & { source: string }
    await put(policyOf('trial'), '?lease_s=60')
    assert.deepEqual(namesOf((await put(source)).body), ['test'], 'there is nothing to go back to')
    assert.equal((await ask('POST', '/admin/rollback')).status, 409)
    // A lease that ran out, or was lifted, leaves no trace on what comes later.
    await put(policyOf('kept'), '?lease_s=60')
    await put(policyOf('kept'))
    assert.deepEqual(namesOf((await put(policyOf('later'))).body), ['later', 'kept', 'test'])
    await put(policyOf('brief'), '?lease_s=0.1')
    await sleep(300)
    assert.deepEqual(namesOf((await put(policyOf('last'))).body), ['last', 'later', 'kept', 'test'])
  })

  test('let one of many win who all expect the same policy', async () => {
    await start(admin)
    const { hash } = (await ask('GET', '/admin/policies')).body.in_force
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, at) => put(policyOf(`racer-${at}`), '', { 'if-match': `"${hash}"` })),
    )
    const statuses = answers.map(({ status }) => status).sort((a, b) => a - b)
    assert.deepEqual(statuses, [200, ...Array.from({ length: 19 }, () => 412)])
    assert.equal((await ask('GET', '/admin/policies')).body.previous.length, 1)
  })

  test('refuse what is no policy without a word of harm: huge, endless, nested, aliased, hostile', async () => {
    await start(admin)
    scripts(json('from a'), json('from b'))
    const before = (await ask('GET', '/admin/policies')).body.in_force.hash
    const aliases = `a: &a [x,x,x,x,x,x,x,x,x]\n${'bcdefghi'.replace(/./g, (c, at: number) => `${c}: &${c} [${Array(9).fill(`*${'abcdefgh'[at]}`)}]\n`)}`
    const nested = `name: n\nrules: ${'[{name: a, use: {rules: '.repeat(2000)}`
    for (const text of [
      aliases,
      nested,
      `name: n\nscore: ${'('.repeat(50_000)}`,
      '\0'.repeat(1000),
      `{"__proto__":{"name":"x"}}`,
      'x'.repeat(2_000_000),
    ])
      assert.equal((await put(text)).status, 400, text.slice(0, 40))
    const huge = await put('x'.repeat((32 << 20) + 1)).catch(() => ({ status: 413 }))
    assert.equal(huge.status, 413)
    assert.equal((await ask('GET', '/admin/policies')).body.in_force.hash, before)
  })

  test('serve everybody else while a body drips in', async () => {
    await start(admin)
    scripts(json('from a'), json('from b'))
    const { hostname, port } = new URL(router.url)
    const slow = connect(Number(port), hostname)
    slow.on('error', () => {})
    slow.write(
      `PUT /admin/policy HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${token}\r\ncontent-length: 100\r\n\r\nname`,
    )
    await sleep(50)
    assert.equal((await post(chat())).status, 200)
    assert.equal((await put(policyOf('other'))).status, 200)
    slow.destroy()
    await sleep(50)
    assert.equal((await ask('GET', '/admin/policies')).body.in_force.name, 'other')
  })

  test("know the admin token only: a client's key, other schemes and doubled headers are nobody", async () => {
    await start(admin)
    for (const shown of [
      'Basic YTpi',
      token,
      `Bearer ${token} `.slice(0, -2),
      `bearer  ${token}`,
      'Bearer null',
      `Bearer ${token},Bearer x`,
    ])
      assert.equal((await ask('GET', '/admin/policies', null, { authorization: shown })).status, 401, shown)
  })
})
