// What a promotion does about what happens to it: worse outcomes than foreseen, time running out, somebody else's change, a router that
// restarts, does not answer or refuses. Time is compressed by looking often; nothing else is changed.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { drive } from '../replay/promote/drive.ts'
import { canaryOf, plan } from '../replay/promote/promotion.ts'
import { type RouterAdmin, routerAdmin } from '../replay/promote/router.ts'
import { policyText } from '../router/policy/policy.ts'
import {
  candidateText,
  currentRouter,
  evidenceOf,
  gate,
  ledger,
  planned,
  putInForce,
  router,
  start,
  statesOf,
  testMsMax,
  token,
  traffic,
  weighted,
  world,
} from './promote-stage.ts'

describe('a promotion', { timeout: testMsMax }, () => {
  test('whose candidate turns out worse than the gate saw is rolled back by itself', async () => {
    await start()
    const promotion = await planned('p-bad')
    let isOver = false
    const [ended] = await Promise.all([
      drive(promotion, world()).finally(() => {
        isOver = true
      }),
      traffic(
        3000,
        () => isOver,
        (isFirst) => !isFirst,
      ),
    ])
    assert.deepEqual([ended.state, ended.cause, ended.reason], ['rolled-back', 'harm', 'harm shown: quality'])
    assert.equal((await currentRouter.inForce()).hash, promotion.production.hash)
    assert.deepEqual(await statesOf('p-bad'), ['planned', 'canary', 'rolling-back', 'rolled-back'])
  })

  test('that shows nothing in its time is rolled back', async () => {
    await start()
    const promotion = await planned('p-late', 0.00001)
    const ended = await drive(promotion, world())
    assert.deepEqual([ended.state, ended.cause], ['rolled-back', 'time'])
    assert.equal((await currentRouter.inForce()).hash, promotion.production.hash)
  })

  test('gives way to whoever changes the policy meanwhile', async () => {
    await start()
    const promotion = await planned('p-other')
    let looks = 0
    const tell = (): void => {
      looks += 1
    }
    const change = async (ms: number): Promise<void> => {
      if (looks > 3) await putInForce(weighted('other', 'second: 1'))
      await sleep(ms)
    }
    const ended = await drive(promotion, world({ sleep: change, tell }))
    assert.deepEqual(
      [ended.state, ended.cause, ended.reason],
      ['abandoned', 'changed', "a test put 'other' in force (set up)"],
    )
    assert.equal((await currentRouter.inForce()).name, 'other')
  })

  test('puts its canary back into a router that was restarted, and takes a rollback by hand for an answer', async () => {
    await start()
    const policy = await currentRouter.inForce()
    const candidate = policyText(candidateText, 'candidate')
    const canary = canaryOf(policy, candidate, 0.5)
    const production = { name: policy.name, hash: policy.hash, source: policy.source }
    const promotion = plan(
      { ...(await evidenceOf()), gate },
      { production, candidate, canary },
      'p-restart',
      Date.now(),
    )
    let slept = 0
    const pause = async (): Promise<void> => {
      slept += 1
      if (slept === 2) {
        await router.close()
        await start()
        assert.equal((await currentRouter.inForce()).hash, production.hash, 'the router reads its own file again')
      }
      if (slept === 4) {
        assert.equal((await currentRouter.inForce()).hash, canary.hash)
        await currentRouter.rollBack('by hand')
      }
    }
    const ended = await drive(promotion, world({ sleep: pause }))
    assert.deepEqual([ended.state, ended.cause], ['rolled-back', 'changed'])
    assert.match(ended.reason, /by hand/)
  })

  test('that nobody drives any more gives the router back to production, and stays ended when it is resumed', async () => {
    await start()
    const promotion = await planned('p-alone')
    const killed = new Error('killed')
    const kill = async (): Promise<void> => {
      throw killed
    }
    await assert.rejects(drive(promotion, world({ sleep: kill, leaseSeconds: 1.5 })), killed)
    const stored = await ledger.load('p-alone')
    assert.deepEqual([stored.state, (await currentRouter.inForce()).hash], ['canary', promotion.canary.hash])
    await sleep(1800)
    assert.equal((await currentRouter.inForce()).hash, promotion.production.hash)
    const ended = await drive(stored, world())
    assert.deepEqual([ended.state, ended.cause], ['rolled-back', 'changed'])
    assert.match(ended.reason, /the router put 'prod' in force \(its lease was not renewed\)/)
  })

  test('waits for a router that does not answer, and says so', async () => {
    await start()
    const promotion = await planned('p-gone')
    const gone = routerAdmin('http://127.0.0.1:1', token, 'a test')
    let isGone = true
    const warnings: string[] = []
    const flaky: RouterAdmin = { ...currentRouter, inForce: () => (isGone ? gone : currentRouter).inForce() }
    const pause = async (): Promise<void> => {
      isGone = warnings.length < 2
      if (!isGone) await currentRouter.put(promotion.candidate.source, (await currentRouter.inForce()).hash, 'enough')
    }
    const ended = await drive(
      promotion,
      world({ router: flaky, sleep: pause, warn: (message) => warnings.push(message) }),
    )
    assert.equal(ended.state, 'abandoned')
    assert.match(warnings[0] ?? '', /no answer .*is it running\?/)
  })

  test('ends at once when the router cannot use the candidate', async () => {
    await start()
    const text = 'name: odd\nscore: candidate.nowhere\nchoose: { kind: highest }\n'
    const ended = await drive(await planned('p-odd', 1, text), world())
    assert.deepEqual([ended.state, ended.cause], ['abandoned', 'refused'])
    assert.match(ended.reason, /nowhere/)
  })
})
