// The report in a real Chromium: what a person sees is what the JSON says, on any screen and on paper, and nobody's name can
// do anything but be read.
import assert from 'node:assert/strict'
import { accessSync, constants, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { type Browser, chromium, type Page } from 'playwright-core'
import { reportHtml } from '../replay/report/html.ts'
import type { Replay } from '../replay/run.ts'
import { front, refusedReplay, renamed, wholeReplay } from './report-fixture.ts'

const command = 'signalbox replay run --policy policies/llama-first.yaml --source decisions.ndjson'
const sizeMax = 400_000
const browserNames = ['chromium', 'chromium-browser', 'google-chrome']

const isExecutable = (path: string): boolean => {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

const browserPath = (): string | undefined => {
  const folders = (process.env.PATH ?? '').split(delimiter)
  const places = [
    process.env.CHROMIUM ?? '',
    ...folders.flatMap((folder) => browserNames.map((name) => join(folder, name))),
  ]
  return places.find((path) => path !== '' && isExecutable(path))
}
const executablePath = browserPath()
const missing = 'looking for Chromium: none in $CHROMIUM or on the PATH; on Debian, `apt-get install chromium`'
/** A machine without a browser may pass without these; one that decides what is released may not. */
const skip = executablePath === undefined && !process.env.CI ? missing : false

const folder = mkdtempSync(join(tmpdir(), 'signalbox-page-'))
const whole = wholeReplay()
let browser: Browser

type Look = { readonly width?: number; readonly scheme?: 'light' | 'dark' }

/** Opens a report, lets `use` look at it, and holds the page to no errors, no requests and no sideways scrolling. */
const look = async (html: string, { width = 1280, scheme = 'light' }: Look, use: (page: Page) => Promise<void>) => {
  const file = join(folder, 'report.html')
  writeFileSync(file, html)
  const page = await browser.newPage({ viewport: { width, height: 900 }, colorScheme: scheme })
  const complaints: string[] = []
  page.on('console', (message) => complaints.push(message.text()))
  page.on('pageerror', (error) => complaints.push(error.message))
  page.on('dialog', (dialog) => {
    complaints.push(`dialog: ${dialog.message()}`)
    void dialog.dismiss()
  })
  page.on('request', (request) => {
    if (request.url() !== pathToFileURL(file).href) complaints.push(`request: ${request.url()}`)
  })
  try {
    await page.goto(pathToFileURL(file).href)
    await use(page)
    assert.equal(await page.evaluate('document.documentElement.scrollWidth'), width, `scrolls sideways at ${width} px`)
    assert.deepEqual(complaints, [])
  } finally {
    await page.close()
  }
}

type Shown = { readonly path: string; readonly value: string; readonly text: string }

/** Every number on the page that names its place in the page's JSON, and that JSON. */
const numbersOf = async (page: Page) => ({
  shown: (await page.evaluate(
    `[...document.querySelectorAll('data[data-path]')].map((e) => ({ path: e.dataset.path, value: e.value, text: e.textContent }))`,
  )) as Shown[],
  json: JSON.parse((await page.locator('#replay').textContent()) ?? '') as unknown,
})

const at = (json: unknown, path: string): unknown =>
  path.split('.').reduce((value: unknown, key) => (value as Record<string, unknown> | undefined)?.[key], json)

const openAll = 'for (const fold of document.querySelectorAll("details")) fold.open = true'

describe('the page in a real browser', { skip }, () => {
  before(async () => {
    assert.ok(executablePath, missing)
    browser = await chromium.launch({ executablePath, args: ['--no-sandbox'] })
  })
  after(async () => {
    await browser?.close()
    rmSync(folder, { recursive: true })
  })

  for (const width of [390, 1280])
    for (const scheme of ['light', 'dark'] as const)
      test(`the report reads without errors, requests or sideways scrolling at ${width} px, ${scheme}`, () =>
        look(reportHtml(whole, command, { front }), { width, scheme }, async (page) => {
          await page.evaluate(openAll)
          assert.match((await page.locator('h1').textContent()) ?? '', /^Promote 'llama-first'/)
          const background = await page.evaluate('getComputedStyle(document.body).backgroundColor')
          assert.match(String(background), scheme === 'dark' ? /rgb\(2\d, 2\d, 2\d\)/ : /rgb\(25\d, 25\d, 25\d\)/)
        }))

  test('every number on the page is the one in its JSON, and the JSON is the replay', () =>
    look(reportHtml(whole, command), {}, async (page) => {
      const { shown, json } = await numbersOf(page)
      assert.ok(shown.length > 150, `only ${shown.length} numbers name their place`)
      for (const { path, value } of shown) assert.equal(at(json, path), Number(value), path)
      for (const { path, text } of shown) {
        const digits = Number(
          text
            .replaceAll(',', '')
            .replace('−', '-')
            .replace(/[^\d.e-]/g, ''),
        )
        const value = Number(at(json, path))
        const scales = [1, 100, 1000]
        const places = (/\.(\d+)/.exec(text)?.[1] ?? '').length
        const isRounded = scales.some((scale) => Math.abs(value * scale - digits) <= 0.51 * 10 ** -places)
        const isRelative = path.endsWith('difference.value') && text.includes('%')
        const isSignificant = Math.abs(value / digits - 1) < 0.05
        assert.ok(isRounded || isRelative || isSignificant, `${path}: ${value} is shown as ${text}`)
      }
      for (const key of ['metrics', 'shares', 'moves', 'detail', 'verdict', 'diagnostics'] as const)
        assert.deepEqual(at(json, key), JSON.parse(JSON.stringify(whole[key])), key)
    }))

  test('the report has every picture, each with its text alternative, and stays small', () =>
    look(reportHtml(whole, command, { front }), {}, async (page) => {
      const labels = (await page.evaluate(
        `[...document.querySelectorAll('svg')].map((e) => [e.getAttribute('role'), e.getAttribute('aria-label')])`,
      )) as [string, string][]
      for (const [role, label] of labels) assert.ok(role === 'img' && label.length > 10, label)
      const pictures = [
        /^Cost and quality/,
        /^Distribution of latency/,
        /^Distribution of time to first token/,
        /^Where decisions move/,
        /by importance weight$/,
        /by the logged probability/,
        /^What the outcome model predicts/,
        /^cost.*difference .* 95 % interval/,
      ]
      for (const picture of pictures)
        assert.ok(
          labels.some(([, label]) => picture.test(label)),
          `no picture is called ${picture}`,
        )
      assert.ok(Buffer.byteLength(reportHtml(whole, command, { front })) < sizeMax)
    }))

  test('on paper everything is shown that a screen has folded away', () =>
    look(reportHtml(whole, command), { width: 690 }, async (page) => {
      const heights = () =>
        page.evaluate(
          `[...document.querySelectorAll('details')].map((e) => e.getBoundingClientRect().height)`,
        ) as Promise<number[]>
      const folded = await heights()
      await page.emulateMedia({ media: 'print', colorScheme: 'dark' })
      const printed = await heights()
      assert.ok(folded.length >= 5)
      for (const [place, height] of printed.entries())
        assert.ok(height > 2 * (folded[place] ?? 0), `fold ${place} is shut`)
      assert.equal(await page.evaluate('getComputedStyle(document.body).backgroundColor'), 'rgb(255, 255, 255)')
    }))

  const hostile: Readonly<Record<string, string>> = {
    'a script': `</script></title></style><script>alert(1)</script><img src=x onerror=alert(2)>"'&{{7*7}}`,
    'another direction': '\u202eسياسة\u2066 \u0000\u001b[31m policy\u2028',
    'ten kilobytes': 'very-long-name'.repeat(750),
  }
  for (const [kind, name] of Object.entries(hostile))
    for (const width of [390, 1280])
      test(`a name that is ${kind} stays a name at ${width} px`, () =>
        look(reportHtml(renamed(whole, name), name), { width }, async (page) => {
          await page.evaluate(openAll)
          assert.equal(await page.evaluate(`document.querySelectorAll('img, script:not(#replay), iframe').length`), 0)
          const { json } = await numbersOf(page)
          assert.equal(at(json, 'candidate.name'), name)
        }))

  test('a refusal shows facts and remedies, and draws no estimate', () => {
    const refused: Replay = refusedReplay()
    return look(reportHtml(refused, command), { width: 390 }, async (page) => {
      assert.match((await page.locator('h1').textContent()) ?? '', /^No verdict on/)
      assert.equal(await page.locator('.strip svg').count(), 0)
      assert.ok((await page.locator('.aside li').count()) > 0)
      const text = (await page.locator('main').textContent()) ?? ''
      assert.doesNotMatch(text, /NaN|Infinity|undefined|null/)
    })
  })
})
