// The what-if page in a real Chromium: nobody can take it for observed, its numbers are those of the JSON, it reads on any
// screen and on paper; and the command that it prints makes it again.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { accessSync, constants, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { type Browser, chromium, type Page } from 'playwright-core'
import { whatIfHtml } from '../replay/whatif/page.ts'
import { parseScenario } from '../replay/whatif/scenario.ts'
import { type Distributions, distributionsOf } from '../replay/whatif/times.ts'
import { type WhatIf, whatIf } from '../replay/whatif/whatif.ts'
import { weightedPolicy, whatIfLog } from './whatif-log.ts'

const isExecutable = (path: string): boolean => {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}
const executablePath = [
  process.env.CHROMIUM ?? '',
  ...(process.env.PATH ?? '')
    .split(delimiter)
    .flatMap((folder) => ['chromium', 'chromium-browser', 'google-chrome'].map((name) => join(folder, name))),
].find((path) => path !== '' && isExecutable(path))
const missing = 'looking for Chromium: none in $CHROMIUM or on the PATH; on Debian, `apt-get install chromium`'
/** A machine without a browser may pass without these; one that decides what is released may not. */
const skip = executablePath === undefined && !process.env.CI ? missing : false

const rows = 1000
const commandRows = 400
const records = whatIfLog(weightedPolicy, rows)
const logged = [{ name: 'weighted', source: weightedPolicy.source, hash: weightedPolicy.hash }]
const parts = parseScenario(
  `- {kind: outage, model: large, from: '${records[300]?.time}', to: '${records[900]?.time}'}
- {kind: traffic, scale: 1.5}
- {kind: ratelimit, model: medium, concurrency: 4}
- {kind: cache, ttl_s: 60}`,
  'scenario',
)
const options = { parts, policy: null, seed: '1', sloMs: 8000 }
const { whatIf: scenario, requests } = whatIf(records, logged, options)
const itself = whatIf(records, logged, { ...options, parts: [] })
const distributions = distributionsOf(records, itself.requests, requests)
const command = 'signalbox replay whatif --scenario winter.yaml --html whatif.html'
const pageOf = (result: WhatIf): string => whatIfHtml(result, distributions, command)
const uncalibrated: WhatIf = {
  ...scenario,
  calibration: {
    ...scenario.calibration,
    calibrated: false,
    checks: scenario.calibration.checks.map((check, at) => (at === 1 ? { ...check, error: 0.31, ok: false } : check)),
  },
}

const folder = mkdtempSync(join(tmpdir(), 'signalbox-whatif-page-'))
after(() => rmSync(folder, { recursive: true }))
const at = (json: unknown, path: string): unknown =>
  path.split('.').reduce((value: unknown, key) => (value as Record<string, unknown> | undefined)?.[key], json)
const jsonOf = (page: string): WhatIf & { readonly distributions: Distributions } =>
  JSON.parse(/<script type="application\/json" id="replay">(.*?)<\/script>/s.exec(page)?.[1] ?? '')

test('curves run through the quantiles of the figures: the log, production by itself, and the scenario', () => {
  for (const [p, place] of [
    ['p50', 50],
    ['p95', 95],
    ['p99', 99],
  ] as const)
    for (const name of ['latencyMs', 'ttftMs'] as const)
      for (const arm of ['logged', 'production', 'simulated'] as const)
        assert.equal(distributions[name][arm]?.[place], scenario[arm][name][p], `${arm} ${name} ${p}`)
  for (const curve of [distributions.latencyMs, distributions.ttftMs].flatMap((of) => Object.values(of)))
    assert.deepEqual(
      curve,
      [...(curve as number[])].sort((a, b) => a - b),
    )
})

describe('the page in a real browser', { skip }, () => {
  let browser: Browser
  before(async () => {
    assert.ok(executablePath, missing)
    browser = await chromium.launch({ executablePath, args: ['--no-sandbox'] })
  })
  after(() => browser?.close())

  type Look = { readonly width?: number; readonly scheme?: 'light' | 'dark' }
  /** Opens a page, lets `use` look at it, and holds it to no errors, no requests and no sideways scrolling. */
  const look = async (html: string, { width = 1280, scheme = 'light' }: Look, use: (page: Page) => Promise<void>) => {
    const file = join(folder, 'page.html')
    const { href } = pathToFileURL(file)
    writeFileSync(file, html)
    const page = await browser.newPage({ viewport: { width, height: 900 }, colorScheme: scheme })
    const complaints: string[] = []
    page.on('console', (message) => complaints.push(message.text()))
    page.on('pageerror', (error) => complaints.push(error.message))
    page.on('request', (request) => request.url() === href || complaints.push(`request: ${request.url()}`))
    page.on('dialog', (dialog) => {
      complaints.push(`dialog: ${dialog.message()}`)
      void dialog.dismiss()
    })
    try {
      await page.goto(href)
      await use(page)
      assert.equal(
        await page.evaluate('document.documentElement.scrollWidth'),
        width,
        `scrolls sideways at ${width} px`,
      )
      assert.deepEqual(complaints, [])
    } finally {
      await page.close()
    }
  }
  const textOf = async (page: Page, selector: string) => (await page.locator(selector).first().textContent()) ?? ''

  for (const width of [390, 1280])
    for (const scheme of ['light', 'dark'] as const)
      test(`says first and large that it is simulated, then whether to believe it, at ${width} px, ${scheme}`, () =>
        look(pageOf(scenario), { width, scheme }, async (page) => {
          const banner = page.locator('.simulated b').first()
          assert.equal(await banner.textContent(), 'SIMULATED')
          const { y, height } = (await banner.boundingBox()) ?? { y: Infinity, height: 0 }
          assert.ok(y < 100 && height >= 30, `the banner is at ${y} px and ${height} px high`)
          assert.equal(await textOf(page, '.badge'), '✓ Calibrated')
          assert.equal(await textOf(page, 'h2'), 'Can the simulator be believed?')
          assert.match(await textOf(page, 'h1'), /^Then (failures .+, )?cost .+, latency p95 .+\.$/)
          assert.match(
            await textOf(page, 'header ul'),
            /^large is down from 2026-.+traffic × 1\.5.*prompts are cached 60 s/,
          )
        }))

  test('every number on the page is the one in its JSON, and the JSON is the what-if', () =>
    look(pageOf(scenario), {}, async (page) => {
      const shown = (await page.evaluate(
        `[...document.querySelectorAll('data[data-path]')].map((e) => ({ path: e.dataset.path, value: e.value, text: e.textContent }))`,
      )) as { readonly path: string; readonly value: string; readonly text: string }[]
      const { distributions: curves, ...json } = jsonOf(await page.content())
      assert.ok(shown.length > 70, `only ${shown.length} numbers name their place`)
      for (const { path, value, text } of shown) {
        const number = at(json, path) as number
        assert.equal(number, Number(value), path)
        const digits = Number(text.replace(/[^\d.e-]/g, ''))
        const places = (/\.(\d+)/.exec(text)?.[1] ?? '').length
        const scale = text.includes('%') ? 100 : 1
        assert.ok(Math.abs(number * scale - digits) <= 0.51 * 10 ** -places, `${path}: ${number} is shown as ${text}`)
      }
      assert.deepEqual(json, JSON.parse(JSON.stringify(scenario)))
      assert.deepEqual(curves, distributions)
    }))

  test('a simulator that does not reproduce production is called uncalibrated, loudly', () =>
    look(pageOf(uncalibrated), { width: 390 }, async (page) => {
      assert.equal(await textOf(page, '.simulated b'), 'SIMULATED, UNCALIBRATED')
      assert.equal(await textOf(page, '.badge'), '✗ Uncalibrated')
      assert.match(await textOf(page, 'h1'), /^Uncalibrated, so do not rely on it: /)
      assert.match(await textOf(page, '.light.bad'), /latency p95 .* \(31 % off\).*Do not rely on these figures/)
      assert.equal(await page.locator('td.bad .mark', { hasText: 'too far' }).count(), 1)
    }))

  test('too few answers to tell are an amber light, and uncalibrated all the same', () => {
    const calibration = { ...scenario.calibration, calibrated: false, answered: 80 }
    return look(pageOf({ ...scenario, calibration }), {}, async (page) => {
      assert.match(await textOf(page, '.light.warning'), /^! Uncalibrated.*only 80 requests were answered/)
      assert.equal(await textOf(page, '.simulated b'), 'SIMULATED, UNCALIBRATED')
    })
  })

  test('failures come first, where they change: what fails is cheap and quick', () => {
    const simulated = { ...scenario.simulated, failedShare: scenario.production.failedShare + 0.25 }
    return look(pageOf({ ...scenario, simulated }), { width: 390 }, async (page) => {
      assert.match(await textOf(page, 'h1'), /^Then failures \+25\.00 pp, cost /)
      assert.match(await textOf(page, '.tiles li.bad'), /^failures\+25\.00 pp/)
    })
  })

  test('has every picture, each with its text alternative', () =>
    look(pageOf(scenario), {}, async (page) => {
      const labels = (await page.evaluate(
        `[...document.querySelectorAll('svg[role=img]')].map((e) => e.getAttribute('aria-label'))`,
      )) as string[]
      const wanted = [
        /^Distribution of Latency: logged, production/,
        /^Distribution of TTFT/,
        /from .?large.? to /,
        /from .?medium.? to /,
      ]
      for (const label of wanted)
        assert.ok(
          labels.some((found) => label.test(found)),
          `none is ${label}: ${labels}`,
        )
      assert.equal(labels.length, 4)
    }))

  test('every sheet of paper is marked as simulated', () =>
    look(pageOf(scenario), { width: 690 }, async (page) => {
      const label = page.locator('.watermark')
      assert.equal(await label.isVisible(), false)
      await page.emulateMedia({ media: 'print', colorScheme: 'dark' })
      assert.equal(await label.isVisible(), true)
      assert.deepEqual(
        [
          await label.textContent(),
          await page.evaluate(`getComputedStyle(document.querySelector('.watermark')).position`),
        ],
        ['SIMULATED', 'fixed'],
      )
    }))

  const hostile: Readonly<Record<string, string>> = {
    'a script': `</script></style><script>alert(1)</script><img src=x onerror=alert(2)>"'&{{7*7}}`,
    'another direction': '\u202eسياسة\u2066 \u0000\u001b[31m\u2028',
    'ten kilobytes': 'very-long-name'.repeat(750),
  }
  for (const [kind, name] of Object.entries(hostile))
    test(`a model that is called ${kind} stays a name`, () => {
      const renamed = JSON.parse(JSON.stringify(scenario).replaceAll('"large"', () => JSON.stringify(name))) as WhatIf
      const page = pageOf({ ...renamed, seed: name, policy: { name, hash: 'sha256:0' } })
      return look(page, { width: 390 }, async (shown) => {
        assert.equal(await shown.evaluate(`document.querySelectorAll('img, script:not(#replay), iframe').length`), 0)
        assert.equal(jsonOf(page).policy?.name, name)
      })
    })
})

const program = `
import { Command } from ${JSON.stringify(import.meta.resolve('commander'))}
import { whatifCommand } from ${JSON.stringify(new URL('../replay/whatif/command.ts', import.meta.url).href)}
const program = new Command('signalbox').addCommand(new Command('replay').addCommand(whatifCommand()))
await program.parseAsync(['node', ...process.argv.slice(1)])`

test('--html writes the JSON of --json with the curves, and the printed command makes the same page again', () => {
  writeFileSync(
    join(folder, 'log.ndjson'),
    records
      .slice(0, commandRows)
      .map((record) => `${JSON.stringify(record)}\n`)
      .join(''),
  )
  writeFileSync(join(folder, "the operator's.yaml"), weightedPolicy.source)
  writeFileSync(
    join(folder, 'signalbox'),
    `#!/bin/sh\nexec '${process.execPath}' --input-type=module -e '${program.replaceAll("'", "'\\''")}' -- signalbox "$@"\n`,
    { mode: 0o755 },
  )
  const environment = { ...process.env, PATH: `${folder}${delimiter}${process.env.PATH}` }
  const shell = (line: string) =>
    spawnSync('sh', ['-c', line], { cwd: folder, env: environment, encoding: 'utf8', timeout: 30_000 })
  const typed = `signalbox replay whatif price --model large=+30% + traffic --scale 2 --source log.ndjson --logged-policy "the operator's.yaml" --html whatif.html`
  const { stdout, stderr, status } = shell(`${typed} --json`)
  assert.deepEqual([stderr, status], ['', 0])
  const page = readFileSync(join(folder, 'whatif.html'), 'utf8')
  const { distributions: curves, ...json } = jsonOf(page)
  assert.deepEqual(json, JSON.parse(stdout))
  assert.equal(curves.latencyMs.production?.[95], json.production.latencyMs.p95)
  const again = (/<pre[^>]*>(.*?)<\/pre>/s.exec(page)?.[1] ?? '').replaceAll('&#39;', "'")
  assert.match(again, /^signalbox replay whatif price --model large=\+30% \+ traffic --scale 2 --source log\.ndjson /)
  rmSync(join(folder, 'whatif.html'))
  assert.match(shell(again).stdout, /^SIMULATED.*\n\nreport: whatif\.html\n$/s)
  assert.equal(readFileSync(join(folder, 'whatif.html'), 'utf8'), page)
  const refused = shell(`${typed.replace('whatif.html', 'absent/whatif.html')}`)
  assert.deepEqual([refused.status, refused.stdout], [64, ''])
  assert.match(refused.stderr, /writing the page to absent\/whatif\.html: ENOENT/)
})
