// What a person or a CI job gets to see: the text, the HTML file, and the command with its exit codes.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { parseHTML } from 'linkedom'
import { figuresOf } from '../replay/report/cells.ts'
import { reportHtml } from '../replay/report/html.ts'
import { reportText } from '../replay/report/text.ts'
import { isShown } from '../replay/report/words.ts'
import { replay, replayDefaults } from '../replay/run.ts'
import { parsePolicy } from '../router/policy/policy.ts'
import { logOf, seeded, truthFeatures } from './replay-truth.ts'
import { wholeReplay } from './report-fixture.ts'

const productionText = 'name: production\nscore: candidate.rank\nchoose: {kind: highest}\nexplore: {rate: 0.9}'
const candidateText = `name: cheaper\nscore: 'candidate.rank == 3.0 ? 1.0 : 0.0'\nchoose: {kind: highest}`
const production = parsePolicy(productionText, truthFeatures)
const candidate = parsePolicy(candidateText, truthFeatures)
const records = logOf(production, 4000, seeded(3))
const result = replay(records, [production], candidate, replayDefaults)

const folder = mkdtempSync(join(tmpdir(), 'signalbox-report-'))
after(() => rmSync(folder, { recursive: true }))
const write = (name: string, text: string): string => {
  writeFileSync(join(folder, name), text)
  return join(folder, name)
}
const policyFile = write('candidate.yaml', candidateText)
const loggedFile = write('production.yaml', productionText)
const log = write('log.ndjson', records.map((record) => JSON.stringify(record)).join('\n'))
const cli = (...args: string[]) =>
  spawnSync(process.execPath, ['cli/main.ts', 'replay', ...args], {
    encoding: 'utf8',
    cwd: join(import.meta.dirname, '..'),
  })

test('the verdict comes first, and no line is coloured unless colours were asked for', () => {
  const text = reportText(result, { colour: false })
  assert.match(text, /^Promote 'cheaper': cost falls by \d+ % against production, quality stays within its margin/)
  assert.ok(!text.includes('\u001b'))
  assert.ok(reportText(result, { colour: true }).includes('\u001b'))
})

test('the text says the quantiles, the segments that do worst, and how wrong the log would have to be', () => {
  const text = reportText(wholeReplay(1500), { colour: false })
  for (const line of [/^latency p95 +\d+ +\d+ /m, /^time to first token p99 +\d+/m, /^worst for cost +rows/m])
    assert.match(text, line)
  const worst = text.split('\n').slice(text.split('\n').findIndex((line) => line.startsWith('worst for cost')) + 1)
  const differences = worst.slice(0, 3).map((line) => Number(/([+−][\d.]+)/.exec(line)?.[1]?.replace('−', '-')))
  assert.deepEqual(
    differences,
    differences.toSorted((a, b) => b - a),
  )
})

test('the HTML report is one file without any address, and its figures are those of the data', () => {
  const page = reportHtml(result, 'signalbox replay run')
  assert.doesNotMatch(
    page.replaceAll('http://www.w3.org/', ''),
    /https?:\/\/|<script(?! type="application\/json")|<link|@import|url\(/,
  )
  const { document } = parseHTML(page)
  const shown = result.metrics.filter((metric) => metric.rows > 0 && isShown(metric))
  const cells = [...(document.querySelector('table')?.querySelectorAll('tbody td:not(.strip)') ?? [])].map((cell) =>
    cell.textContent?.trim(),
  )
  const expected = shown.flatMap((metric) => {
    const { production: before, candidate: after_, difference, relative, interval } = figuresOf(result, metric)
    return [before, after_, `${difference}${relative}`, interval]
  })
  assert.deepEqual(cells, expected)
  assert.equal(document.querySelectorAll('table')[0]?.querySelectorAll('svg').length, shown.length)
})

test('names from policies and logs stay text, in HTML and on the terminal', () => {
  const hostile = '<img src=x onerror=alert(1)>"\'&\u001b[31m'
  const renamed = {
    ...result,
    candidate: { ...result.candidate, name: hostile },
    production: [{ name: hostile, hash: '', rows: 1 }],
  }
  const page = reportHtml({ ...renamed, moves: [{ from: hostile, to: hostile, count: 1 }] }, hostile)
  assert.ok(!page.includes('<img'))
  assert.ok(page.includes('&lt;img'))
  assert.ok(!reportText(renamed, { colour: false }).includes('\u001b'))
})

test('where the log cannot tell, the report shows no estimate', () => {
  const fixed = parsePolicy(`name: fixed\nscore: candidate.rank\nchoose: {kind: highest}`, truthFeatures)
  const refused = replay(logOf(fixed, 500, seeded(1)), [fixed], candidate, replayDefaults)
  for (const metric of refused.metrics) assert.equal(figuresOf(refused, metric).difference, '—')
  const page = reportHtml(refused, '')
  assert.ok(!/NaN|Infinity|undefined/.test(page + reportText(refused, { colour: false })))
  assert.ok(!page.includes('class="strip"><svg') && !page.includes('Cost and quality'))
})

test('replay run prints the verdict, writes the report and exits by the verdict', () => {
  const html = join(folder, 'report.html')
  const run = cli('run', '--policy', policyFile, '--source', log, '--logged-policy', loggedFile, '--html', html)
  assert.equal(run.status, 0, run.stderr)
  assert.match(run.stdout, /^Promote 'cheaper'/)
  assert.ok(readFileSync(html, 'utf8').includes('signalbox replay run --policy'))
  const unverified = cli('run', '--policy', policyFile, '--source', log, '--json')
  assert.equal(unverified.status, 3)
  assert.equal(JSON.parse(unverified.stdout).verdict.refusals[0].kind, 'unverifiable')
})

test('replay verify and export work on a file', () => {
  const verified = cli('verify', '--source', log, '--logged-policy', loggedFile)
  assert.equal(verified.status, 0, verified.stderr)
  assert.match(verified.stdout, /100\.000 % of 4,000 decisions/)
  const copy = join(folder, 'copy.ndjson')
  assert.equal(cli('export', '--source', log, '--output', copy, '--from', records[3990]?.time ?? '').status, 0)
  assert.equal(
    readFileSync(copy, 'utf8'),
    records
      .slice(3990)
      .map((record) => `${JSON.stringify(record)}\n`)
      .join(''),
  )
})

test('wrong usage exits 64 and a bad line exits 3, each with one line that says what is wrong', () => {
  const badPolicy = write('bad.yaml', 'name: bad\nscore: candidate.nonsense\nchoose: {kind: highest}')
  const cases = [
    [64, /nonsense/, 'run', '--policy', badPolicy, '--source', log],
    [64, /absent\.yaml/, 'run', '--policy', 'absent.yaml', '--source', log],
    [64, /wanted a number above 0/, 'run', '--policy', policyFile, '--margin', 'x'],
    [64, /wanted a time/, 'verify', '--from', 'yesterday'],
    [3, /none that match/, 'run', '--policy', policyFile, '--source', log, '--against', 'nobody'],
    [3, /line 1: not JSON/, 'verify', '--source', write('bad.ndjson', 'oops\n')],
  ] as const
  for (const [status, message, ...args] of cases) {
    const run = cli(...args)
    assert.equal(run.status, status, run.stderr)
    assert.match(run.stderr, message)
    assert.equal(run.stdout, '')
  }
})
