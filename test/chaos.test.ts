// One short round of every scenario of `npm run chaos`, on one stage, under load: whatever is killed, stopped, filled, delayed
// or damaged, what was acknowledged is stored, once, and no run's numbers have a gap. SEED asks for other moments.
import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { playRound } from './chaos/chaos.ts'
import { scenarios } from './chaos/scenarios.ts'
import { openStage, type Stage } from './chaos/stage.ts'

const firstSeed = Number(process.env.SEED ?? 7)
/** About how long those parts of a scenario take that take time. */
const paceMs = 600

describe('nothing acknowledged is lost, and nothing is stored twice', async () => {
  let stage: Stage | null = null
  let smallDisks = true
  const folders: string[] = []
  /** The stage of the round before, unless something went wrong on it. */
  const stageNow = async (): Promise<Stage> => {
    if (stage) return stage
    const folder = await mkdtemp(join(tmpdir(), 'signalbox-chaos-'))
    folders.push(folder)
    stage = await openStage(folder, smallDisks)
    if (stage) return stage
    smallDisks = false
    return stageNow()
  }
  after(async () => {
    await stage?.close(false)
    for (const folder of folders) await rm(folder, { recursive: true, force: true })
  })
  for (const [at, scenario] of scenarios.entries()) {
    const seed = firstSeed + at
    test(`${scenario.name}: ${scenario.what}`, async (t) => {
      const now = await stageNow()
      if (scenario.needsSmallDisks && !now.disks) return t.skip('a small disk needs root, to mount it')
      const { failures, acknowledged, stored } = await playRound(now, scenario, seed, paceMs)
      if (failures.length > 0) {
        await now.close(false)
        stage = null
      }
      const again = `npm run chaos -- --minutes 1 --only ${scenario.name} --seed ${seed}`
      assert.deepEqual(failures, [], `${again}   asks for it again`)
      return t.diagnostic(`seed ${seed}: ${acknowledged} answered so far, ${stored} stored`)
    })
  }
})
