// The writer and its journal on the real engine: what arrives together is stored together, once, whatever fails in between.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { appendFile, cp, mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { openEngine } from '../collector/engine.ts'
import { openJournal } from '../collector/journal.ts'
import { migrate } from '../collector/migrate.ts'
import { embeddedStore, type Store } from '../collector/store.ts'
import { openWriter, type Write, type Writer } from '../collector/writer.ts'
import { silent, temporaryFolder } from './collector-fixtures.ts'

const row = (name: string): string =>
  `${JSON.stringify({ Timestamp: `${Date.now()}000000`, TraceId: name, SpanId: name, SpanName: name })}\n`
const write = (token: string, rows = 1): Write => ({
  table: 'otel.otel_traces',
  rows: Buffer.from(row(token).repeat(rows)),
  count: rows,
  token,
})

let folder: Awaited<ReturnType<typeof temporaryFolder>>
let store: Store
let journals = 0
const journalFolder = (): string => join(folder.path, `journal-${++journals}`)
const open = (path: string, of = store): Promise<Writer> => openWriter(of, { folder: path, fsync: false, log: silent })

before(async () => {
  folder = await temporaryFolder()
  store = embeddedStore(await openEngine(join(folder.path, 'data')))
  await migrate(store)
})
after(async () => {
  await store.close()
  await folder.remove()
})

const rowsNamed = async (prefix: string): Promise<Record<string, number>> => {
  const found = await store.query<{ name: string; n: string }>(
    `SELECT SpanName AS name, count() AS n FROM otel.otel_traces WHERE startsWith(SpanName, '${prefix}') GROUP BY name`,
  )
  return Object.fromEntries(found.map(({ name, n }) => [name, Number(n)]))
}
const once = (tokens: readonly string[]): Record<string, number> => Object.fromEntries(tokens.map((name) => [name, 1]))
const named = (prefix: string, count: number): string[] => Array.from({ length: count }, (_, n) => `${prefix}-${n}`)

describe('the writer', () => {
  test('stores a lone batch at once, and batches that come while an insert runs together in the next', async () => {
    let inserts = 0
    const { promise: begun, resolve: begin } = Promise.withResolvers<void>()
    const counting: Store = {
      ...store,
      insertFile: (...insertion) => {
        inserts += 1
        begin()
        return store.insertFile(...insertion)
      },
    }
    const writer = await open(journalFolder(), counting)
    const tokens = named('together', 200)
    const [lone, ...others] = tokens
    const first = writer.write(write(lone as string))
    await begun
    await Promise.all([first, ...others.map((token) => writer.write(write(token)))])
    assert.equal(inserts, 2, 'the first by itself, the others together')
    assert.deepEqual(await rowsNamed('together'), once(tokens))
    await writer.close()
  })

  test('starts another group at ten thousand rows, and keeps tables and formats apart', async () => {
    const groups: string[] = []
    const naming: Store = {
      ...store,
      insertFile: (table, file, format, token) => {
        groups.push(`${table} ${format}`)
        return store.insertFile(table, file, format, token)
      },
    }
    await store.command('CREATE TABLE IF NOT EXISTS otel.other AS otel.otel_traces ENGINE = Null')
    const writer = await open(journalFolder(), naming)
    const others = [{ ...write('groups-c', 9_000) }, { ...write('groups-d', 2_000) }, write('groups-e')]
    const elsewhere = { ...write('groups-f'), table: 'otel.other' }
    await Promise.all([write('groups-a'), ...others, elsewhere].map(writer.write))
    const traces = 'otel.otel_traces JSONEachRow'
    assert.deepEqual(groups, [traces, traces, 'otel.other JSONEachRow'])
    await writer.close()
  })

  test('waits under load for batches that follow one another closely, and never for long', async () => {
    let inserts = 0
    const counting: Store = {
      ...store,
      insertFile: (...insertion) => {
        inserts += 1
        return store.insertFile(...insertion)
      },
    }
    const writer = await open(journalFolder(), counting)
    const rounds = named('close', 5).map((round) => named(round, 20))
    // Senders that send again as soon as they are answered, not all at once.
    await Promise.all(
      Array.from({ length: 20 }, async (_, sender) => {
        for (const round of rounds) {
          await sleep(sender % 5)
          await writer.write(write(round[sender] as string))
        }
      }),
    )
    assert.ok(inserts <= 3 * rounds.length, `${inserts} inserts of 100 batches`)
    assert.deepEqual(await rowsNamed('close'), once(rounds.flat()))
    await writer.close()
  })

  test('answers a batch that it has, also after a restart, without storing it again', async () => {
    const path = journalFolder()
    const first = await open(path)
    await Promise.all([first.write(write('again-0')), first.write(write('again-0')), first.write(write('again-1'))])
    await first.write(write('again-1'))
    await first.close()
    const second = await open(path)
    await Promise.all([second.write(write('again-1')), second.write(write('again-0')), second.write(write('again-2'))])
    assert.deepEqual(await rowsNamed('again'), once(['again-0', 'again-1', 'again-2']))
    await second.close()
  })

  test('finishes after a crash what was begun, in the same groups, whether or not it had been stored', async () => {
    const path = journalFolder()
    const journal = await openJournal(path, true, silent)
    const begin = (token: string, members: readonly string[]) =>
      journal.begin(
        { table: 'otel.otel_traces', format: 'JSONEachRow', token, members },
        members.map((member) => Buffer.from(row(member))),
      )
    const stored = await begin('crash-group-1', named('crash-a', 3))
    await store.insertFile(stored.table, journal.fileOf(stored), stored.format, stored.token)
    await begin('crash-group-2', named('crash-b', 3))
    // A process that is killed leaves its files and takes its lock along; here it is this one, so its files go elsewhere.
    const left = journalFolder()
    await cp(path, left, { recursive: true })
    const writer = await open(left)
    assert.deepEqual(writer.recovered, { groups: 2, setAside: 0 })
    assert.deepEqual(await rowsNamed('crash'), once([...named('crash-a', 3), ...named('crash-b', 3)]))
    await Promise.all([...named('crash-b', 3), ...named('crash-a', 3)].map((token) => writer.write(write(token))))
    assert.deepEqual(await rowsNamed('crash'), once([...named('crash-a', 3), ...named('crash-b', 3)]))
    assert.deepEqual((await readdir(left)).sort(), ['lock', 'log', 'owner'])
    await writer.close()
    await journal.close()
  })

  test('sets damaged parts of the journal aside, counted, and uses the rest', async () => {
    const path = journalFolder()
    const journal = await openJournal(path, false, silent)
    for (const token of ['torn-a', 'torn-b']) {
      const group = { table: 'otel.otel_traces', format: 'JSONEachRow' as const, token, members: [token] }
      await journal.begin(group, [Buffer.from(row(token))])
    }
    await journal.close()
    const rows = await readFile(join(path, '1.rows'))
    await writeFile(join(path, '1.rows'), rows.subarray(0, rows.length - 5))
    await writeFile(join(path, '9.rows'), 'written, but not begun')
    await appendFile(join(path, 'log'), '01234567 {"begun":{"number":3,"tab')
    const writer = await open(path)
    assert.deepEqual(writer.recovered, { groups: 1, setAside: 2 })
    const left = (await readdir(path)).sort()
    assert.deepEqual(left, ['1.rows.damaged', 'lock', 'log', 'log.10.damaged', 'owner'])
    await writer.write(write('torn-a'))
    assert.deepEqual(await rowsNamed('torn'), once(['torn-a', 'torn-b']))
    await writer.close()
  })

  test('tries a group that failed as it was, and stores base and view rows once', async () => {
    const path = journalFolder()
    const writer = await open(path)
    const tokens = named('view', 5)
    const send = () => Promise.allSettled(tokens.map((token) => writer.write(write(token))))
    const viewRows = async () => {
      const sql = "SELECT TraceId AS id FROM otel.otel_traces_trace_id_ts WHERE startsWith(TraceId, 'view') ORDER BY id"
      return (await store.query<{ id: string }>(sql)).map(({ id }) => id)
    }
    await store.command('RENAME TABLE otel.otel_traces_trace_id_ts TO otel.elsewhere')
    for (const { status, ...rest } of await send()) {
      assert.equal(status, 'rejected')
      assert.match(String((rest as PromiseRejectedResult).reason), /Code: 60\. DB::Exception/)
    }
    await store.command('RENAME TABLE otel.elsewhere TO otel.otel_traces_trace_id_ts')
    await store.command('CREATE TABLE otel.numbers (n UInt8) ENGINE = MergeTree ORDER BY n')
    await store.command(
      'CREATE MATERIALIZED VIEW otel.throws TO otel.numbers AS SELECT toUInt8(SpanName) AS n FROM otel.otel_traces',
    )
    assert.ok((await send()).every(({ status }) => status === 'rejected'))
    await store.command('DROP TABLE otel.throws')
    assert.ok((await send()).every(({ status }) => status === 'fulfilled'))
    await send()
    assert.deepEqual(await rowsNamed('view'), once(tokens))
    assert.deepEqual(await viewRows(), tokens)
    await writer.close()
  })

  test('refuses rows that ClickHouse cannot read, and stores those that came with them', async () => {
    const writer = await open(journalFolder())
    const bad = { ...write('bad-row'), rows: Buffer.from('{"Timestamp":"never"}\n') }
    const writes = [write('bad-0'), write('bad-1'), bad, write('bad-2')].map(writer.write)
    const outcomes = (await Promise.allSettled(writes)).map(({ status }) => status)
    assert.deepEqual(outcomes, ['fulfilled', 'fulfilled', 'rejected', 'fulfilled'])
    assert.deepEqual(await rowsNamed('bad'), once(['bad-0', 'bad-1', 'bad-2']))
    await writer.close()
  })

  test('acknowledges nothing while the journal cannot be written, and goes on when it can', async () => {
    const path = journalFolder()
    const writer = await open(path)
    await rename(path, `${path}-gone`)
    await assert.rejects(writer.write(write('gone-0')), { code: 'ENOENT' })
    await rename(`${path}-gone`, path)
    await Promise.all(named('gone', 2).map((token) => writer.write(write(token))))
    assert.deepEqual(await rowsNamed('gone'), once(named('gone', 2)))
    await writer.close()
  })

  test('acknowledges nothing that the disk did not take', { skip: !canLimit() }, async () => {
    const path = journalFolder()
    const writer = await open(path)
    limitFiles('65536')
    try {
      await assert.rejects(writer.write(write('full-0', 2_000)), /EFBIG|the disk took 65536 of \d+ bytes/)
    } finally {
      limitFiles('unlimited')
    }
    assert.deepEqual((await readdir(path)).sort(), ['lock', 'log', 'owner'])
    await writer.write(write('full-0'))
    assert.deepEqual(await rowsNamed('full'), once(['full-0']))
    await writer.close()
  })

  test('answers 503 when more waits than may, and says so by what is refused', async () => {
    const held: (() => void)[] = []
    const slow: Store = { ...store, insertFile: () => new Promise<void>((resolve) => held.push(resolve)) }
    const writer = await open(journalFolder(), slow)
    const large = Buffer.alloc(31 * 1024 * 1024)
    const writes = named('much', 6).map((token) => writer.write({ ...write(token), rows: large }))
    const results = Promise.allSettled(writes)
    const timer = setInterval(() => held.shift()?.(), 5)
    const refused = (await results).filter((result) => result.status === 'rejected')
    clearInterval(timer)
    assert.ok(refused.length >= 1 && refused.length <= 2)
    for (const { reason } of refused as PromiseRejectedResult[]) assert.equal(reason.status, 503)
    await writer.close()
  })

  test('a group has ended though the journal cannot be written anew, and the long log serves as well', async () => {
    const path = journalFolder()
    const journal = await openJournal(path, false, silent)
    // A folder where the new log would be: writing that fails, as it does on a full disk.
    await mkdir(join(path, 'log.new'))
    const members = Array.from({ length: 300_000 }, (_, n) => `${'long'.repeat(15)}-${n}`)
    const begun = { table: 'otel.otel_traces', format: 'JSONEachRow', token: 'long', members } as const
    await journal.stored(await journal.begin(begun, [Buffer.from(row('long'))]))
    await journal.stored(
      await journal.begin({ ...begun, token: 'next', members: ['next'] }, [Buffer.from(row('next'))]),
    )
    await journal.close()
    await rm(join(path, 'log.new'), { recursive: true })
    const again = await openJournal(path, false, silent)
    assert.deepEqual([again.unfinished, again.setAside], [[], 0])
    assert.ok(again.isStored('next') && again.isStored(members.at(-1) as string))
    await again.close()
  })

  test('is one to a folder', async () => {
    const path = journalFolder()
    const writer = await open(path)
    await assert.rejects(open(path), { code: 'journal-locked', message: new RegExp(`process ${process.pid} owns it`) })
    await writer.close()
    await (await open(path)).close()
  })
})

function limitFiles(bytes: string): boolean {
  return spawnSync('prlimit', ['--pid', String(process.pid), `--fsize=${bytes}:unlimited`]).status === 0
}
function canLimit(): boolean {
  return limitFiles('unlimited')
}
