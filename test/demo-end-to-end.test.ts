// The demo as a whole, smaller and faster than a person sees it: every request is found again, the truth stands beside
// each estimate, and a production that leaves nothing to chance gets a refusal.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { runDemo } from '../demo/demo.ts'

const requests = 600
let folder: string
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'signalbox-test-demo-'))
})
after(() => rm(folder, { recursive: true }))

type Compared = { estimate: number; low: number; high: number; truth: number; held: boolean }
type Candidate = {
  verdict: { kind: string; exitCode: number; refusals: { kind: string }[]; remedies: { kind: string }[] }
  compared: Compared[]
  reportFile: string
  command: string
}
type Result = {
  reconciled: Record<string, number> & { exact: boolean; servedBy: Record<string, number> }
  candidates: Candidate[]
  explained: string[]
}

const demo = async (explore: number | null): Promise<Result> => {
  const written: string[] = []
  const code = await runDemo({
    requests,
    seed: 7,
    explore,
    folder,
    json: true,
    compression: 40,
    write: (text) => written.push(text),
  })
  assert.equal(code, 0)
  assert.equal(written.length, 1, 'one JSON object and nothing else')
  return JSON.parse(written[0] ?? '')
}

test('drives real requests, finds every one in the table, and prints the truth beside each estimate', async () => {
  const { reconciled, candidates, explained } = await demo(null)
  const { sent, routed, stored, judged, storedJudged, unmatched, spansLost } = reconciled
  assert.deepEqual(
    { sent, routed, stored, judged, storedJudged, unmatched, spansLost },
    {
      sent: requests,
      routed: requests,
      stored: requests,
      judged: requests,
      storedJudged: requests,
      unmatched: 0,
      spansLost: 0,
    },
  )
  assert.ok(Object.keys(reconciled.servedBy).length === 4)
  const compared = candidates.flatMap((candidate) => candidate.compared)
  assert.equal(compared.length, 12)
  for (const { low, high, truth, held } of compared) assert.equal(held, low <= truth && truth <= high)
  const held = compared.filter((each) => each.held).length
  assert.ok(held >= 9, `${held} of 12 intervals hold the truth`)
  assert.match(explained[0] ?? '', /because exploration drew it/)
  assert.match(explained[1] ?? '', /a fallback after/)
  assert.match(explained[2] ?? '', /excluded: /)

  for (const { reportFile, command, verdict } of candidates) {
    assert.match(await readFile(reportFile, 'utf8'), /^<!doctype html>/)
    const { code, stdout } = await run([...command.split(' ').slice(1), '--json'])
    assert.equal(code, verdict.exitCode)
    assert.deepEqual(JSON.parse(stdout).verdict, verdict)
  }
})

test('refuses both verdicts when production leaves nothing to chance, and says what would mend it', async () => {
  const { candidates, reconciled } = await demo(0)
  assert.equal(reconciled.exact, true)
  for (const { verdict } of candidates) {
    assert.equal(verdict.kind, 'refused')
    assert.equal(verdict.exitCode, 3)
    assert.ok(verdict.refusals.some(({ kind }) => kind === 'zero-support'))
    assert.ok(verdict.remedies.some(({ kind }) => kind === 'explore'))
  }
})

const run = (args: string[]): Promise<{ code: number; stdout: string }> =>
  new Promise((resolve) => {
    const launcher = new URL('../signalbox.js', import.meta.url).pathname
    execFile(process.execPath, [launcher, ...args], { maxBuffer: 1 << 26 }, (error, stdout) =>
      resolve({ code: Number(error?.code ?? 0), stdout }),
    )
  })
