// Compiles the package into dist/, because Node does not strip types below node_modules, and puts beside the compiled
// files what they read: migrations, recorded data, the demo's policies.
import { execFileSync } from 'node:child_process'
import { cpSync, rmSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('.', import.meta.url))
const readAtRunTime = ['collector/migrations', 'demo/data', 'demo/policies', 'replay/data']

rmSync(`${root}dist`, { recursive: true, force: true })
execFileSync(`${root}node_modules/.bin/tsc`, ['-p', 'tsconfig.build.json'], { cwd: root, stdio: 'inherit' })
for (const folder of readAtRunTime) cpSync(`${root}${folder}`, `${root}dist/${folder}`, { recursive: true })
