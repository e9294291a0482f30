// What a machine can check about the shape of the code: who may import whom, that decisions stay pure, that every
// dependency is declared and every file used.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { glob } from 'node:fs/promises'
import { builtinModules } from 'node:module'
import { dirname, join, normalize } from 'node:path'
import { describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const linesMax = 300

const rooms = ['router', 'collector', 'replay', 'grafana', 'demo', 'cli', 'bench', 'test']
const files: string[] = []
for (const room of rooms) for await (const file of glob(`${room}/**/*.ts`, { cwd: root })) files.push(file)
const textOf = new Map(files.map((file) => [file, readFileSync(join(root, file), 'utf8')]))

const importPattern =
  /(?:^|\n)\s*(?:import|export)\s[^'"]*?from\s+'([^']+)'|(?:^|\n)import\s+'([^']+)'|\bimport\('([^']+)'\)/g
const importsOf = (file: string): string[] =>
  [...(textOf.get(file) as string).matchAll(importPattern)].map((match) => (match[1] ?? match[2] ?? match[3]) as string)
const localImports = (file: string): string[] =>
  importsOf(file)
    .filter((name) => name.startsWith('.'))
    .map((name) => normalize(join(dirname(file), name)))

/** Folder → what it may import of ours, as prefixes. */
const arrows: Readonly<Record<string, readonly string[]>> = {
  'router/policy/': ['router/policy/'],
  'router/': ['router/'],
  'collector/': ['collector/', 'router/policy/record.ts', 'router/policy/attributes.ts', 'router/policy/attempt.ts'],
  'replay/': ['replay/', 'router/policy/', 'router/capture/sealed.ts', 'router/capture/pattern.ts'],
  'grafana/': ['grafana/', 'router/policy/'],
  'demo/': ['demo/', 'cli/', 'collector/', 'replay/', 'router/'],
  'cli/': ['cli/', 'collector/', 'replay/', 'router/', 'demo/command.ts'],
}

describe('the rooms', () => {
  for (const [folder, allowed] of Object.entries(arrows))
    test(`${folder} imports only ${allowed.join(', ')}`, () => {
      const wrong = files
        .filter((file) => file.startsWith(folder) && !(folder === 'router/' && file.startsWith('router/policy/')))
        .flatMap((file) => localImports(file).map((to) => [file, to] as const))
        .filter(([, to]) => to.endsWith('.ts') && !allowed.some((prefix) => to.startsWith(prefix)))
      assert.deepEqual(wrong, [])
    })

  test('the policy is pure: no clock, no dice, no sockets, no environment', () => {
    const pure = new Set(['zod', 'yaml', '@marcbachmann/cel-js', 'xxhash-wasm', 'node:crypto'])
    for (const file of files.filter((name) => name.startsWith('router/policy/'))) {
      for (const name of importsOf(file)) assert.ok(name.startsWith('.') || pure.has(name), `${file} imports ${name}`)
      const code = (textOf.get(file) as string).replaceAll(/\/\*\*?[\s\S]*?\*\/|\/\/.*/g, '')
      const impure =
        /Date\.now|new Date\(\)|Math\.random|randomUUID|randomBytes|performance\.|process\.|setTimeout|fetch\(/.exec(
          code,
        )
      assert.equal(impure, null, `${file} uses ${impure?.[0]}`)
    }
  })
})

describe('the code', () => {
  test('imports only packages that package.json lists, and at run time only those that are installed at run time', () => {
    const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as Record<
      string,
      Record<string, string>
    >
    const runtime = new Set([
      ...Object.keys(manifest.dependencies ?? {}),
      ...Object.keys(manifest.optionalDependencies ?? {}),
    ])
    const development = new Set([...runtime, ...Object.keys(manifest.devDependencies ?? {})])
    const used = new Set<string>()
    for (const file of files) {
      const listed = /^(test|bench|grafana)\//.test(file) ? development : runtime
      for (const name of importsOf(file)) {
        if (name.startsWith('.') || name.startsWith('node:')) continue
        const parts = name.split('/')
        const dependency = name.startsWith('@') ? parts.slice(0, 2).join('/') : (parts[0] as string)
        assert.ok(!builtinModules.includes(name), `${file} imports '${name}' without 'node:'`)
        assert.ok(listed.has(dependency), `${file} imports '${dependency}', which package.json does not list for it`)
        used.add(dependency)
      }
    }
    assert.deepEqual(
      [...runtime].filter((name) => !used.has(name)),
      [],
      'listed and never imported',
    )
  })

  test('has no file that nothing uses', () => {
    const entries = files.filter(
      (file) =>
        file.endsWith('.test.ts') ||
        file.startsWith('bench/') ||
        file === 'cli/main.ts' ||
        file === 'grafana/generate.ts',
    )
    const reached = new Set<string>()
    const visit = (file: string): void => {
      if (reached.has(file) || !textOf.has(file)) return
      reached.add(file)
      for (const to of localImports(file)) visit(to)
    }
    for (const entry of entries) visit(entry)
    assert.deepEqual(
      files.filter((file) => !reached.has(file)),
      [],
    )
    const shipped = new Set<string>()
    const visitShipped = (file: string): void => {
      if (shipped.has(file) || !textOf.has(file)) return
      shipped.add(file)
      for (const to of localImports(file)) visitShipped(to)
    }
    visitShipped('cli/main.ts')
    const unused = files.filter((file) => /^(router|collector|replay|demo|cli)\//.test(file) && !shipped.has(file))
    assert.deepEqual(unused, [], 'only tests use these')
  })

  test('keeps files short enough to read, and says at the top what each is', () => {
    for (const file of files) {
      const text = textOf.get(file) as string
      assert.match(text, /^\/\/ |^#!/, `${file} does not open with what it is`)
      if (!file.startsWith('test/'))
        assert.ok(text.split('\n').length <= linesMax, `${file} has over ${linesMax} lines`)
    }
  })

  test('prints through its log or its report, not through the console', () => {
    for (const file of files.filter((name) => !name.startsWith('test/')))
      assert.doesNotMatch(textOf.get(file) as string, /\bconsole\.\w+\(/, file)
  })

  test('has only unique test names of tests that run', () => {
    for (const file of files.filter((name) => name.endsWith('.test.ts')))
      assert.doesNotMatch(textOf.get(file) as string, /\b(?:test|it|describe)\.(?:only|todo)\b/, file)
  })
})
