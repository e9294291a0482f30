// Changing the policy of a running router, through its front door: who may, what a bad policy does, the way back, and a swap
// under load. What is asserted is what clients got and what the rows say.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { chat, idOf, post, query, router, scripts, start } from './router-stage.ts'
import { json } from './scripted-provider.ts'

const token = 'a-token-for-tests-only'
process.env.SIGNALBOX_ADMIN_TOKEN = token
const admin = 'admin: { token_env: SIGNALBOX_ADMIN_TOKEN }'
const policyOf = (name: string, model: string) =>
  `name: ${name}\ncandidates: [${model}]\nchoose: { kind: weighted, weights: { ${model}: 1 } }\n`

type Entry = { name: string; hash: string; source: string; change: string; by: string; reason: string }
type Answer = { in_force: Entry; previous: Entry[]; error?: { message: string; code: string } }
const ask = async (method: string, path: string, init: RequestInit = {}, shown = token) => {
  const headers = { authorization: `Bearer ${shown}`, ...(init.headers as Record<string, string>) }
  const response = await fetch(`${router.url}${path}`, { ...init, method, headers })
  return { status: response.status, body: (await response.json()) as Answer }
}
const put = (text: string, search = '', headers: Record<string, string> = {}) =>
  ask('PUT', `/admin/policy${search}`, { body: text, headers })

describe('the admin endpoints', () => {
  test('do not exist without a token in the configuration', async () => {
    await start()
    assert.equal((await ask('GET', '/admin/policies')).status, 404)
    assert.equal((await put(policyOf('other', 'second'))).status, 404)
  })

  test('are closed to everybody without the token', async () => {
    await start(admin)
    const before = (await ask('GET', '/admin/policies')).body.in_force.hash
    for (const shown of ['', 'wrong', `${token}x`]) {
      const { status, body } = await ask('PUT', '/admin/policy', { body: policyOf('other', 'second') }, shown)
      assert.equal(status, 401)
      assert.equal(body.error?.code, 'invalid_api_key')
    }
    assert.equal((await ask('GET', '/admin/policies')).body.in_force.hash, before)
  })

  test('put a policy in force, say since when and by whom, and go back to the one before', async () => {
    await start(admin)
    scripts(json('from a'), json('from b'))
    const { body: at } = await ask('GET', '/admin/policies')
    assert.deepEqual([at.in_force.name, at.in_force.change, at.previous.length], ['test', 'start', 0])
    const { status, body } = await put(policyOf('other', 'second'), '?by=ci&reason=caf%C3%A9')
    assert.equal(status, 200)
    assert.deepEqual([body.in_force.name, body.in_force.by, body.in_force.reason], ['other', 'ci', 'café'])
    assert.equal(body.previous[0]?.hash, at.in_force.hash)
    const answer = await post(chat())
    assert.equal(answer.headers.get('x-signalbox-model'), 'second')
    assert.equal((await post(chat({ model: 'test' }))).status, 200, 'clients may still ask by the old name')
    const back = await ask('POST', '/admin/rollback?by=me')
    assert.deepEqual([back.body.in_force.hash, back.body.in_force.by], [at.in_force.hash, 'me'])
    assert.equal(back.body.previous.length, 0)
    assert.equal((await ask('POST', '/admin/rollback')).status, 409)
    assert.equal((await post(chat())).headers.get('x-signalbox-model'), 'first')
    const changes = await query(
      'SELECT kind, from_hash, to_hash, changed_by, reason FROM otel.policy_changes WHERE from_hash = {id:String} OR to_hash = {id:String} ORDER BY time',
      body.in_force.hash,
    )
    assert.deepEqual(changes, [
      { kind: 'put', from_hash: at.in_force.hash, to_hash: body.in_force.hash, changed_by: 'ci', reason: 'café' },
      { kind: 'rollback', from_hash: body.in_force.hash, to_hash: at.in_force.hash, changed_by: 'me', reason: '' },
    ])
    const stored = await query(
      'SELECT name, source FROM otel.policies FINAL WHERE hash = {id:String}',
      body.in_force.hash,
    )
    assert.deepEqual(
      stored,
      [{ name: 'other', source: body.in_force.source }],
      'replay finds the new policy by its hash',
    )
  })

  test('answer 400 with every problem of a bad policy, and the old one stays', async () => {
    await start(admin)
    const before = (await ask('GET', '/admin/policies')).body.in_force.hash
    const { status, body } = await put(
      'name: bad\nscore: candidate.qualty\nfilter: { f: candidate.quality }\nchoose: { kind: highest }\n',
    )
    assert.equal(status, 400)
    assert.match(body.error?.message ?? '', /policy:2: score: /)
    assert.match(body.error?.message ?? '', /policy:3: filter\.f: /)
    assert.equal((await put('{')).status, 400)
    assert.equal((await ask('GET', '/admin/policies')).body.in_force.hash, before)
  })

  test('change nothing when the policy in force is not the expected one, or is the same already', async () => {
    await start(admin)
    const stale = await put(policyOf('other', 'second'), '', { 'if-match': '"sha256:stale"' })
    assert.equal(stale.status, 412)
    assert.equal((await put(policyOf('other', 'second'))).status, 200)
    const again = await put(policyOf('other', 'second'), '', { 'if-match': '"sha256:stale"' })
    assert.deepEqual([again.status, again.body.previous.length], [200, 1])
    assert.equal((await ask('POST', '/admin/rollback', { headers: { 'if-match': 'sha256:stale' } })).status, 412)
  })

  test('take a policy for a time: it stays while that is renewed, and goes when it is not', async () => {
    await start(admin)
    const { body: at } = await ask('GET', '/admin/policies')
    assert.equal((await put(policyOf('other', 'second'), '?lease_s=forever')).status, 400)
    for (let renewal = 0; renewal < 4; renewal++) {
      await put(policyOf('other', 'second'), '?lease_s=0.8')
      await sleep(300)
      assert.equal((await ask('GET', '/admin/policies')).body.in_force.name, 'other')
    }
    await sleep(1100)
    const { body } = await ask('GET', '/admin/policies')
    assert.deepEqual([body.in_force.hash, body.in_force.by], [at.in_force.hash, 'the router'])
    await put(policyOf('other', 'second'), '?lease_s=0.2')
    await put(policyOf('other', 'second'))
    await sleep(300)
    assert.equal(
      (await ask('GET', '/admin/policies')).body.in_force.name,
      'other',
      'put again without a lease, it stays',
    )
  })

  test('swap under load without losing a request, and every record says under which policy it was decided', async () => {
    await start(admin)
    scripts(json('from a'), json('from b'))
    const policies = [policyOf('one', 'first'), policyOf('two', 'second')]
    const hashes = new Map<string, string>()
    const served = new Map<string, string>()
    let swapping = true
    const client = async (): Promise<void> => {
      while (swapping) {
        const response = await post(chat())
        assert.equal(response.status, 200)
        await response.text()
        served.set(idOf(response), response.headers.get('x-signalbox-model') ?? '')
      }
    }
    const clients = Array.from({ length: 8 }, client)
    for (let swap = 0; swap < 30; swap++) {
      const { status, body } = await put(policies[swap % 2] as string)
      assert.equal(status, 200)
      hashes.set(body.in_force.hash, swap % 2 === 0 ? 'first' : 'second')
    }
    swapping = false
    await Promise.all(clients)
    const rows = await query<{ id: string; hash: string; model: string }>(
      "SELECT toString(decision_id) AS id, policy_hash AS hash, chosen_model AS model FROM otel.routing_decisions FINAL WHERE policy_hash IN splitByChar(',', {id:String})",
      [...hashes.keys()].join(','),
    )
    assert.ok(rows.length > 30, `${rows.length} requests`)
    for (const { id, hash, model } of rows) {
      assert.equal(model, hashes.get(hash))
      assert.equal(served.get(id), model)
    }
    const early = [...served].filter(([id]) => !rows.some((row) => row.id === id))
    assert.ok(
      early.every(([, model]) => model === 'first'),
      'only those before the first swap were decided by the policy before',
    )
  })
})
