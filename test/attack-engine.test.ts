// The JavaScript engine when things break under it: threads that fail or vanish, slices that are garbage, a disk that is full, and a
// log that is cut otherwise when a replay is gone on with. It must say so, soon, and never hand out half a result.
import assert from 'node:assert/strict'
import { mkdir, mkdtemp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { createServer, request } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { candidateTexts, fill } from '../bench/replay-log.ts'
import type { Collector } from '../collector/server.ts'
import { openSource, type Slice, type Source, SourceError } from '../replay/read/source.ts'
import { replayDefaults, replaySource } from '../replay/run.ts'
import { parsePolicy } from '../router/policy/policy.ts'
import { snapshotTypes } from '../router/snapshot.ts'
import { rowsOf, temporaryCollector } from './collector-fixtures.ts'

const candidate = parsePolicy(candidateTexts[2] as string, snapshotTypes)
const quick = { ...replayDefaults, replicates: 0 }
const hangMs = 15_000
let collector: Collector
let source: Source
let folder: string
let slices: readonly Slice[]
before(async () => {
  collector = await temporaryCollector()
  await fill(collector.clickhouseUrl, 0, 1200)
  source = openSource(collector.clickhouseUrl)
  folder = await mkdtemp(join(tmpdir(), 'signalbox-attack-'))
  slices = await cutAt(200)
})
after(async () => {
  await source.close()
  await collector.close()
  await rm(folder, { recursive: true })
})

const cutAt = async (every: number): Promise<Slice[]> => {
  const times: string[] = []
  for await (const { time } of source.records()) times.push(time)
  const found: Slice[] = []
  for (let at = 0; at < times.length; at += every) {
    const [start, end] = [times[at] as string, times[at + every]]
    const part = openSource(collector.clickhouseUrl, { from: start, ...(end ? { to: end } : {}) })
    if (part.slices) for await (const slice of part.slices()) found.push({ ...slice, end: end ?? 'never' })
    await part.close()
  }
  return found
}
/** The same source, whose slices are these; copies, as a thread takes its bytes away. */
const withSlices = (slices: readonly (Slice | Error)[], gapMs = 0): Source => ({
  ...source,
  slices: async function* () {
    for (const slice of slices) {
      if (gapMs > 0) await sleep(gapMs)
      if (slice instanceof Error) throw slice
      yield { ...slice, bytes: slice.bytes.slice(0) }
    }
  },
})
const soon = <Result>(run: Promise<Result>): Promise<Result> =>
  Promise.race([run, sleep(hangMs, null, { ref: false }).then(() => assert.fail('it hangs'))])
type Options = { threads?: number; checkpoint?: string; roundSlices?: number }
const run = async (from: Source, options: Options = {}) =>
  soon(
    replaySource(from, await source.policies(), () => [candidate], quick, { threads: 1, roundSlices: 2, ...options }),
  )

test('a slice that is garbage ends in an error, also where nobody waits for the thread when it fails', async () => {
  const garbage = { rows: 1, end: '', bytes: new Uint8Array(Buffer.from('Code: 241. DB::Exception')).buffer }
  // The thread fails on both while the third slice is still on its way.
  for (const [threads, gapMs] of [
    [1, 500],
    [2, 0],
  ] as const) {
    const from = withSlices([garbage, garbage, ...slices.slice(0, 2)], gapMs)
    const error = await run(from, { threads, roundSlices: 32 }).catch((thrown: unknown) => thrown)
    assert.ok(error instanceof SourceError, String(error))
    assert.match(error.message, /Native format/)
  }
})

test('a thread that ends by itself is an error, and not a wait without end', async () => {
  const error = await soon(
    replaySource(
      withSlices(slices, 30),
      await source.policies(),
      // A policy whose text is not one: the thread dies of it as it starts.
      () => [{ ...candidate, source: '{' }],
      quick,
      { threads: 1 },
    ),
  ).catch((thrown: unknown) => thrown)
  assert.ok(error instanceof Error)
  assert.match(error.message, /policy|thread/)
})

test('a replay is not gone on with where the log is cut otherwise by now, and no row counts twice', async () => {
  const checkpoint = join(folder, 'cut')
  const cut = new Error('the connection was cut')
  await assert.rejects(run(withSlices([...slices.slice(0, 3), cut]), { checkpoint }), /the connection was cut/)
  await assert.rejects(run(withSlices(await cutAt(150)), { checkpoint }), {
    code: 'source-unreadable',
    message: /no longer cut into the same slices/,
  })
  await assert.rejects(run(withSlices(slices.slice(0, 1)), { checkpoint }), /no longer cut into the same slices/)
  const [whole] = await run(withSlices(slices), { checkpoint })
  assert.equal(whole?.verification.records, 1200)
  assert.deepEqual(await readdir(folder), [])
})

test('a replay is not gone on with after feedback has come, which half of its sums would lack', async () => {
  const checkpoint = join(folder, 'judged')
  await assert.rejects(run(withSlices([...slices.slice(0, 3), new Error('cut')]), { checkpoint }), /cut/)
  await rowsOf(
    collector,
    `INSERT INTO otel.feedback (time, decision_id, name, score, trace_id, span_id)
     SELECT now64(9), decision_id, 'quality', 0.5, repeat('a', 32), repeat('b', 16) FROM otel.routing_decisions LIMIT 100`,
  )
  await assert.rejects(run(withSlices(slices), { checkpoint }), /the progress of another log/)
  await rm(checkpoint)
})

test('progress cut short, a folder in its place, or a disk that takes no more: said, and nothing is left half-written', async () => {
  const checkpoint = join(folder, 'progress')
  await assert.rejects(run(withSlices([...slices.slice(0, 3), new Error('cut')]), { checkpoint }), /cut/)
  const { length } = await readFile(checkpoint)
  for (const bytes of [0, 1, 100, Math.floor(length / 2), length - 1]) {
    await truncate(checkpoint, bytes)
    await assert.rejects(run(withSlices(slices), { checkpoint }), /something else; wanted/)
    await writeFile(checkpoint, Buffer.alloc(length))
  }
  await rm(checkpoint)
  await mkdir(checkpoint)
  await assert.rejects(run(withSlices(slices), { checkpoint }), /it cannot be read \(EISDIR/)
  await rm(checkpoint, { recursive: true })
  await assert.rejects(run(withSlices(slices), { checkpoint: join(folder, 'none', 'progress') }), {
    code: 'source-unreadable',
    message: /keeping the replay's progress in .*: ENOENT/,
  })
  assert.deepEqual(await readdir(folder), [])
})

test('a log with a model of its own for each request is refused by their number, and not tried until memory is gone', async () => {
  const file = join(folder, 'models.ndjson')
  const [record] = await (async () => {
    for await (const first of source.records()) return [first]
    return []
  })()
  assert.ok(record)
  const lines = Array.from({ length: 700 }, (_, at) => {
    const candidates = record.candidates.map((candidate) => ({ ...candidate, model: `${candidate.model}-${at}` }))
    return `${JSON.stringify({ ...record, id: `d-${at}`, candidates, chosen: `${record.chosen}-${at}`, plan: [] })}\n`
  })
  await writeFile(file, lines.join(''))
  await assert.rejects(run(openSource(file)), {
    code: 'record-invalid',
    message: /models\.ndjson names 3500 models, such as 'large-0'; a replay compares up to 1000/,
  })
  await rm(file)
})

test('a server that goes away, cuts a slice off or answers something else in its place is an error with its address', async () => {
  let broken: 'never' | 'cut' | 'gone' | 'page' = 'never'
  const proxy = createServer((asked, response) => {
    void asked.toArray().then((parts) => {
      const body = Buffer.concat(parts)
      if (broken === 'gone' && body.includes('FORMAT Native')) return asked.socket.destroy()
      const { method, headers, url } = asked
      const onward = request(
        `${collector.clickhouseUrl}${url}`,
        { ...(method ? { method } : {}), headers },
        (found) => {
          if (broken === 'never' || !body.includes('FORMAT Native')) {
            response.writeHead(found.statusCode ?? 500, found.headers)
            return void found.pipe(response)
          }
          found.resume()
          response.writeHead(200, broken === 'page' ? {} : { ...found.headers })
          if (broken === 'page') return void response.end('<html>upstream is restarting</html>')
          found.once('data', (bytes: Buffer) => response.write(bytes.subarray(0, 1000), () => asked.socket.destroy()))
        },
      )
      onward.end(body)
    })
  })
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve))
  const { port } = proxy.address() as AddressInfo
  const from = openSource(`http://127.0.0.1:${port}`)
  const [whole] = await run(from)
  assert.equal(whole?.rows, 1200)
  for (const how of ['cut', 'gone', 'page'] as const) {
    broken = how
    const error = await run(from).catch((thrown: unknown) => thrown)
    assert.ok(error instanceof SourceError, `${how}: ${error}`)
    assert.match(error.message, how === 'page' ? /Native format: byte/ : /ClickHouse at http:\/\/127\.0\.0\.1/)
  }
  await from.close()
  proxy.closeAllConnections()
  await new Promise((resolve) => proxy.close(resolve))
})

test('rows that come while a log is read are left for the next replay: both looks see the same', async () => {
  const policies = await source.policies()
  let rows = 1200
  for (const threads of [1, 2]) {
    const before = rows
    const grow = async () => {
      await fill(collector.clickhouseUrl, rows, rows + 300)
      rows += 300
      return [candidate]
    }
    const [result] = await soon(replaySource(source, policies, grow, quick, { threads }))
    assert.deepEqual([result?.rows, result?.verification.records], [before, before])
  }
  const [all] = await run(source)
  assert.deepEqual([all?.rows, all?.verification.records], [rows, rows])
})
