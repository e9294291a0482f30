// The command `signalbox`. Each sub-command lives beside what it commands; this file only gathers them, and turns every
// failure into one clear line and an exit code.
import { readFileSync } from 'node:fs'
import { Command, CommanderError } from 'commander'

/** Beside these, `replay` uses 0 to 3 for its verdicts, so nothing else may. */
const usageExitCode = 64
const failureExitCode = 70
const usageCodes = new Set(['config-invalid', 'policy-invalid', 'id-invalid'])

const packageFile = new URL(import.meta.url.endsWith('.ts') ? '../package.json' : '../../package.json', import.meta.url)
const { version } = JSON.parse(readFileSync(packageFile, 'utf8')) as { version: string }

const program = new Command('signalbox')
  .description('An LLM router that explains every routing decision, and replays captured traffic under another policy.')
  .version(version)
  .addHelpText('after', '\nStart here:\n  signalbox demo')
/** Loaded when asked for, so that a router does not carry the chart library of a report. */
const commands: Readonly<Record<string, () => Promise<Command>>> = {
  up: async () => (await import('./serve.ts')).upCommand(),
  router: async () => (await import('./serve.ts')).routerCommand(),
  collector: async () => (await import('./serve.ts')).collectorCommand(),
  migrate: async () => (await import('./migrate.ts')).migrateCommand(),
  demo: async () => (await import('../demo/command.ts')).demoCommand(),
  policy: async () => (await import('../replay/policy-command.ts')).policyCommand(),
  promote: async () => (await import('./promote.ts')).promoteCommand(),
  rollback: async () => (await import('./promote.ts')).rollbackCommand(),
  payloads: async () => (await import('./payloads.ts')).payloadsCommand(),
  evaluate: async () => (await import('../replay/evaluate/command.ts')).evaluateCommand(),
  explain: async () => (await import('./explain.ts')).explainCommand(),
  backup: async () => (await import('./backup.ts')).backupCommand(),
  restore: async () => (await import('./backup.ts')).restoreCommand(),
  db: async () => (await import('./db.ts')).dbCommand(),
  doctor: async () => (await import('./doctor.ts')).doctorCommand(),
  replay: async () => (await import('../replay/command.ts')).replayCommand(),
}
const asked = process.argv[2] ?? ''
const loading = Object.hasOwn(commands, asked) ? [commands[asked]] : Object.values(commands)
for (const load of loading) if (load) program.addCommand(await load())

const everyCommand = (command: Command): Command[] => [command, ...command.commands.flatMap(everyCommand)]
for (const command of everyCommand(program)) command.exitOverride().showHelpAfterError('(--help shows what it takes)')

// `signalbox … | head` closes the pipe early; that is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit()
  throw error
})

try {
  await program.parseAsync()
} catch (error) {
  if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? 0 : usageExitCode
  else {
    const { message, code, stack } = error as Error & { code?: string }
    // A failure with a code has a message for people; anything else is ours to debug.
    process.stderr.write(`signalbox: ${code ? message : stack}\n`)
    process.exitCode = usageCodes.has(code ?? '') ? usageExitCode : failureExitCode
  }
}
