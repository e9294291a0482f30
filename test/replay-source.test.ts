// Records read back from files and from the real ClickHouse engine, and what is said about those that cannot be read.
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { measured } from '../replay/log-command.ts'
import { openSource, type Selection, SourceError } from '../replay/read/source.ts'
import { surveyLog } from '../replay/redecide/engine.ts'
import { reportHtml } from '../replay/report/html.ts'
import { reportText } from '../replay/report/text.ts'
import { percent } from '../replay/report/words.ts'
import { replay, replayDefaults } from '../replay/run.ts'
import { attributeNames, spanNames, toAttributes } from '../router/policy/attributes.ts'
import { parsePolicy } from '../router/policy/policy.ts'
import { type DecisionRecord, engineVersion } from '../router/policy/record.ts'
import { jsonRequest, jsonSpan, otlpAttributes, post, temporaryCollector } from './collector-fixtures.ts'
import { drawPrompt, logOf, recordFor, seeded, truthFeatures } from './replay-truth.ts'

const production = parsePolicy(
  'name: production\nscore: candidate.rank\nchoose: {kind: highest}\nexplore: {rate: 0.5}',
  truthFeatures,
)
const records = logOf(production, 20, seeded(1))
let folder: string
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'signalbox-replay-'))
})
after(() => rm(folder, { recursive: true }))

const fileOf = async (text: string): Promise<string> => {
  const path = join(folder, `${randomUUID()}.ndjson`)
  await writeFile(path, text)
  return path
}
const lines = (some: readonly DecisionRecord[]) => some.map((record) => `${JSON.stringify(record)}\n`).join('')
const read = async (where: string, selection?: Selection): Promise<DecisionRecord[]> => {
  const source = openSource(where, selection)
  try {
    const all: DecisionRecord[] = []
    for await (const record of source.records()) all.push(record)
    return all
  } finally {
    await source.close()
  }
}
test('a tag called __proto__ stays a tag, through a line and back, and cannot be anything else', async () => {
  const hostile = JSON.parse('{"__proto__": "x", "category": "math", "constructor": "y"}')
  const record = {
    ...(records[0] as DecisionRecord),
    request: { ...(records[0] as DecisionRecord).request, tags: hostile },
  }
  const [found] = await read(await fileOf(lines([record])))
  const tags = found?.request.tags ?? {}
  assert.deepEqual(Object.entries(tags), Object.entries(hostile))
  assert.equal(Object.getPrototypeOf(tags), Object.prototype)
  assert.equal(JSON.stringify(found?.request.tags), JSON.stringify(hostile), 'and in its place')
  const { tags: _, ...bare } = record.request
  const [plain] = await read(await fileOf(lines([{ ...record, request: bare as typeof record.request }])))
  assert.deepEqual(plain?.request.tags, {})
  const text = JSON.stringify(record).replace('"__proto__":"x"', '"__proto__":7')
  const { message } = await failure(`${text}\n`)
  assert.match(message, /line 1: request\.tags\./)
})

test('the bar of a file goes by bytes while it is read, by rows when it is decided again, and ends full', async () => {
  const path = await fileOf(
    lines(
      Array.from({ length: 100 }, () => records)
        .flat()
        .map((record, at) => ({ ...record, id: `b-${at}` })),
    ),
  )
  const source = openSource(path)
  const size = (await source.size()) ?? 0
  const { watched, doneOf } = measured(source, size)
  const seen: number[] = []
  const log = await surveyLog(watched, [production], {
    objective: { slowAboveMs: null },
    onProgress: (progress) => seen.push(doneOf(progress)),
  })
  assert.ok(seen.length >= 3, 'told as it reads')
  const [first = 0, last = 0] = [seen[0], seen.at(-1)]
  assert.ok(first < last && last > 0.7 * size && last <= size, `${first} to ${last} of ${size} bytes`)
  const before = seen.length
  await log.gather([])
  assert.ok(seen.length > before + 1)
  assert.equal(seen.at(-1), 2 * size)
  assert.ok(
    seen.every((done, at) => done >= (seen[at - 1] ?? 0)),
    `never back: ${seen}`,
  )
  const table = { ...source, slices: async function* () {} }
  assert.equal(measured(table, 500).doneOf({ pass: 'decide', rows: 250 }), 750, 'a table is measured in rows')
})

test('a row that would stand for more requests than there are is impossible, and no figure becomes NaN', () => {
  const doubtful = logOf(production, 400, seeded(1)).map((record, at) => ({
    ...record,
    keep_probability: at === 5 ? 5e-324 : 1,
  }))
  const result = replay(doubtful, [production], production, { ...replayDefaults, replicates: 10 })
  assert.deepEqual(
    result.verdict.refusals.map(({ kind }) => kind),
    ['impossible-probabilities'],
  )
  const page = reportHtml(result, 'x')
  const words = page.slice(0, page.indexOf('<script')) + reportText(result, { colour: false })
  assert.match(words, /it was kept with probability 5e-324/)
  assert.doesNotMatch(words, /NaN/)
  assert.equal(percent(Number.NaN), '—')
})

const failure = (text: string): Promise<SourceError> =>
  fileOf(text)
    .then((path) => read(path))
    .then(
      () => assert.fail('was read'),
      (error) => {
        assert.ok(error instanceof SourceError)
        return error
      },
    )

test('what is written as NDJSON is read back as it was, with or without a last newline', async () => {
  assert.deepEqual(await read(await fileOf(lines(records))), records)
  assert.deepEqual(await read(await fileOf(`\n${lines(records).trimEnd()}`)), records)
})

test('decisions are selected by time and by policy, named or by the start of its hash', async () => {
  const other = { ...(records[0] as DecisionRecord), id: 'other', policy: { name: 'other', hash: '' } }
  const path = await fileOf(lines([...records, other]))
  assert.equal((await read(path, { against: 'other' })).length, 1)
  assert.equal((await read(path, { against: production.hash })).length, 20)
  assert.equal((await read(path, { against: production.hash.slice(7, 15) })).length, 20)
  assert.equal((await read(path, { against: 'sha256:0000' })).length, 0)
  const times = { from: records[5]?.time as string, to: records[8]?.time as string }
  assert.deepEqual(
    (await read(path, times)).map(({ id }) => id),
    ['d-5', 'd-6', 'd-7'],
  )
})

test('a line that is no record stops everything, naming file, line, field, what was found and what was wanted', async () => {
  const [first] = records as [DecisionRecord]
  const wrong = { ...first, candidates: first.candidates.map((c, at) => (at === 1 ? { ...c, probability: 1.2 } : c)) }
  const { message, code } = await failure(lines([first, first, wrong as DecisionRecord]))
  assert.equal(code, 'record-invalid')
  assert.match(
    message,
    /\.ndjson line 3: candidates\[1\]\.probability: found 1\.2; .*1.*\(2 good records before it; nothing was computed\)$/,
  )
})

test('a line cut short, an endless line and an absent file each have their own message', async () => {
  assert.match((await failure(lines(records).slice(0, -10))).message, /line 20: not JSON/)
  assert.match((await failure('x'.repeat(3_000_000))).message, /line 1 is longer than 1048576 bytes/)
  await assert.rejects(read(join(folder, 'absent')), { code: 'source-unreadable', message: /cannot open .*absent/ })
})

test('a ClickHouse that does not answer is named, without its password', async () => {
  await assert.rejects(read('http://me:secret@127.0.0.1:1'), ({ message }: Error) => {
    assert.match(message, /127\.0\.0\.1:1/)
    assert.doesNotMatch(message, /secret/)
    return true
  })
})

test('spans in ClickHouse come back as the records they carry, with feedback joined and policies at hand', async () => {
  const collector = await temporaryCollector()
  try {
    const random = seeded(4)
    const sent = Array.from({ length: 5 }, (): DecisionRecord => {
      const record = recordFor(drawPrompt(random), production, randomUUID())
      return {
        ...record,
        time: new Date(Date.now() - 60_000).toISOString(),
        outcome: { ...(record.outcome as NonNullable<typeof record.outcome>), quality: null },
      }
    })
    const judgement = {
      [attributeNames.decisionId]: sent[0]?.id ?? '',
      [attributeNames.evaluationName]: 'quality',
      [attributeNames.evaluationScore]: 0.25,
    }
    const policySpan = {
      [attributeNames.policyName]: production.name,
      [attributeNames.policyHash]: production.hash,
      [attributeNames.policySource]: production.source,
      [attributeNames.policyEngine]: engineVersion,
    }
    const response = await post(
      collector,
      jsonRequest(
        ...sent.map((record) => jsonSpan({ kind: 2, name: 'POST', attributes: otlpAttributes(toAttributes(record)) })),
        jsonSpan({ name: spanNames.evaluation, attributes: otlpAttributes(judgement) }),
        jsonSpan({ name: spanNames.policy, attributes: otlpAttributes(policySpan) }),
      ),
    )
    assert.equal(response.status, 200)
    const byId = (a: DecisionRecord, b: DecisionRecord) => (a.id < b.id ? -1 : 1)
    const expected = sent.map((record, at) =>
      at === 0 && record.outcome ? { ...record, outcome: { ...record.outcome, quality: 0.25 } } : record,
    )
    assert.deepEqual((await read(collector.clickhouseUrl)).sort(byId), expected.sort(byId))
    assert.equal((await read(collector.clickhouseUrl, { against: production.hash.slice(7, 17) })).length, 5)
    assert.equal((await read(collector.clickhouseUrl, { against: "it's" })).length, 0)
    assert.equal((await read(collector.clickhouseUrl, { to: '2020-01-01T00:00:00.000Z' })).length, 0)
    const source = openSource(collector.clickhouseUrl, { from: '2020-01-01T00:00:00.000Z' })
    assert.equal(await source.size(), 5)
    const { hash, name, source: text } = production
    assert.deepEqual(await source.policies(), [{ hash, name, source: text }])
    await source.close()
  } finally {
    await collector.close()
  }
})

test('a byte order mark is not part of the first record, and a folder is named as one', async () => {
  assert.deepEqual(await read(await fileOf(`\uFEFF${lines(records)}`)), records)
  await assert.rejects(read(folder), { code: 'source-unreadable', message: /cannot open .*signalbox-replay-.*folder/ })
})
