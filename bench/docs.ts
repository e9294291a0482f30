// `npm run docs`: writes what was measured into the README, between its markers — the benchmark's figures from
// bench/router.json, bench/replay.json and bench/collector.json, and what the demo prints when it is run now. Nobody copies a number by hand.
import { spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { benchText, collectorBenchText, replayBenchText } from './docs-text.ts'

const readme = new URL('../README.md', import.meta.url)
const demoMsMax = 300_000

const between = (text: string, name: string, content: string): string => {
  const [begin, end] = [`<!-- ${name}:begin -->`, `<!-- ${name}:end -->`]
  const [from, to] = [text.indexOf(begin), text.indexOf(end)]
  if (from < 0 || to < from) throw new Error(`README.md has no markers ${begin} … ${end}`)
  return `${text.slice(0, from + begin.length)}\n${content}\n${text.slice(to)}`
}

const demo = spawnSync(process.execPath, ['signalbox.js', 'demo'], { encoding: 'utf8', timeout: demoMsMax })
if (demo.status !== 0) throw new Error(`the demo ended with ${demo.status}: ${demo.stderr}`)
const [shown = ''] = demo.stdout.split('\nLatencies are as measured')
let text = readFileSync(readme, 'utf8')
text = between(text, 'demo', `\`\`\`\n${shown.trim()}\n\`\`\``)
text = between(text, 'bench', benchText())
text = between(text, 'replay-bench', replayBenchText())
text = between(text, 'collector-bench', collectorBenchText())
writeFileSync(readme, text)
