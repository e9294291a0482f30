// `signalbox policy`: is a file a policy, and what is it in SQL. Features that only signalbox.yaml knows are found in records, as
// everywhere in replay: the snapshot's own have columns and are always known.
import { readFile } from 'node:fs/promises'
import { Command } from 'commander'
import type { FeatureTypes } from '../router/policy/cel.ts'
import { type Policy, PolicyError, parsePolicy, startFeatureTypes } from '../router/policy/policy.ts'
import { compilePolicySql, type PolicySql } from '../router/policy/sql.ts'
import { columnFeatures } from '../router/policy/sql-columns.ts'
import { SqlDeclined } from '../router/policy/sql-text.ts'
import { openSource, SourceError } from './read/source.ts'

/** As many records are looked at for features. */
const recordsMax = 10_000
const usageExitCode = 64
const rowsDefault = 'otel.routing_decisions FINAL'

type CheckOptions = { readonly featuresFrom?: string; readonly json?: boolean }
type CompileOptions = CheckOptions & { readonly sql: true; readonly rows: string }

const example = (line: string): string => `\nExample:\n  signalbox policy ${line}`

const fileCommand = (name: string): Command =>
  new Command(name)
    .argument('<file>', 'the policy, YAML or JSON')
    .option(
      '--features-from <where>',
      'a ClickHouse URL, or a file of decision records, that shows which features signalbox.yaml adds',
    )
    .option('--json', 'print everything as JSON')

/** `signalbox policy` and what stands below it. */
export const policyCommand = (): Command =>
  new Command('policy')
    .description('Check a policy, or compile it to ClickHouse SQL.')
    .addHelpText('after', example('check policies/balanced.yaml'))
    .addCommand(
      fileCommand('check')
        .description('Say whether a file is a policy, with every mistake in it (exit 0 yes, 64 no).')
        .addHelpText('after', example('check policies/balanced.yaml --features-from decisions.ndjson'))
        .action(exitWith(check)),
    )
    .addCommand(
      fileCommand('compile')
        .description('Print a policy as the query that judges recorded decisions where they are stored.')
        .requiredOption('--sql', 'as ClickHouse SQL')
        .option(
          '--rows <sql>',
          'what the query reads: a table with its conditions, or a query in parentheses',
          rowsDefault,
        )
        .addHelpText('after', example('compile --sql policies/balanced.yaml'))
        .action(exitWith(compile)),
    )

/** Runs a sub-command and turns what the input got wrong into a line and an exit code. */
const exitWith =
  <Options>(run: (file: string, options: Options) => Promise<string>) =>
  async (file: string, options: Options): Promise<void> => {
    try {
      process.stdout.write(`${await run(file, options)}\n`)
    } catch (error) {
      if (!(error instanceof SourceError || error instanceof PolicyError || error instanceof SqlDeclined)) throw error
      process.stderr.write(`signalbox policy: ${error.message}\n`)
      process.exitCode = usageExitCode
    }
  }

const check = async (file: string, { featuresFrom, json }: CheckOptions): Promise<string> => {
  const features = await featuresOf(featuresFrom)
  const policy = await readPolicy(file, features)
  const declined = declinedBy(() => compilePolicySql(policy, features))
  const { name, hash } = policy
  if (json) return JSON.stringify({ name, hash, sql: declined === null, declined })
  const engine = declined === null ? 'in SQL and in JavaScript' : `in JavaScript only: SQL has no equal for ${declined}`
  return `${file}: policy '${name}' ${hash}\nreplay can decide it ${engine}`
}

const declinedBy = (compileIt: () => PolicySql): string | null => {
  try {
    compileIt()
    return null
  } catch (error) {
    if (error instanceof SqlDeclined) return error.message
    throw error
  }
}

const compile = async (file: string, { featuresFrom, json, rows }: CompileOptions): Promise<string> => {
  const features = await featuresOf(featuresFrom)
  const policy = await readPolicy(file, features)
  const sql = compiled(policy, features, file)
  if (!json) return sql.over(rows)
  const { over, ...columns } = sql
  return JSON.stringify({ name: policy.name, hash: policy.hash, columns, sql: over(rows) })
}

const compiled = (policy: Policy, features: FeatureTypes, file: string): PolicySql => {
  try {
    return compilePolicySql(policy, features)
  } catch (error) {
    if (!(error instanceof SqlDeclined)) throw error
    throw new SqlDeclined(`compiling ${file} to SQL: SQL has no equal for ${error.message}; JavaScript decides it`)
  }
}

const readPolicy = async (file: string, features: FeatureTypes): Promise<Policy> => {
  const text = await readFile(file, 'utf8').catch((error: Error) => {
    throw new PolicyError([`reading the policy ${file}: ${error.message}`])
  })
  return parsePolicy(text, features, file)
}

/** The features that have columns, and those that the records of a source show besides. */
const featuresOf = async (where: string | undefined): Promise<FeatureTypes> => {
  if (where === undefined) return columnFeatures
  const source = openSource(where)
  const types = startFeatureTypes()
  let seen = 0
  try {
    for await (const { candidates } of source.records()) {
      types.add(candidates)
      seen += 1
      if (seen === recordsMax) break
    }
  } finally {
    await source.close()
  }
  return { ...types.close(), ...columnFeatures }
}
