#!/usr/bin/env node
// The command's front door, in plain JavaScript so that any Node can read it: it checks the runtime in one line, then
// hands over. Node does not strip types below node_modules, so an installed package runs the compiled copy in dist/. What
// was compiled is kept in the user's own cache, so that threads and the next command load in a third of the time.
import { existsSync } from 'node:fs'
import module from 'node:module'
import { homedir } from 'node:os'
import { join } from 'node:path'

const nodeMajorMin = 24
if (Number(process.versions.node.split('.')[0]) < nodeMajorMin) {
  process.stderr.write(
    `signalbox needs Node >= ${nodeMajorMin}, and this is ${process.versions.node}; in a clone use "npx signalbox", which runs the Node the project carries\n`,
  )
  process.exitCode = 64
} else {
  // Node never ends making a folder where none can be, so the home must be there.
  if (existsSync(homedir())) {
    const compiled = join(homedir(), '.cache', 'signalbox', 'compiled')
    module.enableCompileCache(compiled)
    // biome-ignore lint/style/noProcessEnv: threads learn of it in no other way; whoever set it keeps what they set
    process.env.NODE_COMPILE_CACHE ??= compiled
  }
  const installed = import.meta.url.includes('/node_modules/')
  await import(installed ? './dist/cli/main.js' : './cli/main.ts')
}
