// A spool that others have been in: files that no router wrote must neither stop what comes behind them nor keep a router from starting.
import assert from 'node:assert/strict'
import { mkdir, readdir, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { namesIn, scriptedCollector, startDelivery, temporarySpool } from './delivery-stage.ts'

test("nobody else's files in a spool are sent, counted or touched, and what a router left is delivered beside them", async (t) => {
  const folder = await temporarySpool(t)
  const traces = join(folder, 'traces')
  await mkdir(traces)
  const foreign = [
    '信号.1.json',
    'a\nb.1.json',
    'a b.1.json',
    `huge.${'9'.repeat(23)}.json`,
    `${'x'.repeat(101)}.1.json`,
  ]
  const body = (name: string) => `{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"span-${name}"}]}]}]}`
  for (const name of foreign) await writeFile(join(traces, name), body('foreign'))
  await writeFile(join(traces, 'run0-001.1.json'), body('left'))
  await writeFile(join(folder, 'elsewhere'), body('elsewhere'))
  await symlink(join(folder, 'elsewhere'), join(traces, 'link.1.json'))
  await symlink('/nonexistent', join(traces, 'dangling.1.json'))
  await mkdir(join(traces, 'folder.5.json'))

  const collector = await scriptedCollector(t)
  const { delivery, end, close } = startDelivery(t, collector.url, folder)
  end('span-new')
  await Promise.race([delivery.flush(), sleep(5_000, null, { ref: false })])
  assert.deepEqual(
    collector.received.map((batch) => namesIn(batch.body)),
    [['span-left'], ['span-new']],
  )
  const { queued, delivered, dropped, refused } = delivery.counts
  assert.deepEqual({ queued, delivered, dropped, refused }, { queued: 0, delivered: 2, dropped: 0, refused: 0 })
  await close()
  const kept = [...foreign, 'link.1.json', 'dangling.1.json', 'folder.5.json']
  assert.deepEqual((await readdir(traces)).sort(), kept.sort())
})
