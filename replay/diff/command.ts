// `signalbox replay diff`: which captured decisions a candidate policy would make otherwise, as text or JSON. Exit codes: 0
// told, 3 the log itself cannot be decided again, 64 usage.
import { type Command, InvalidArgumentError } from 'commander'
import { featureTypesOf } from '../../router/policy/policy.ts'
import {
  collect,
  evidenceExitCode,
  example,
  exitWith,
  type LogOptions,
  loadPolicy,
  policiesOf,
  sourceCommand,
  withSource,
} from '../log-command.ts'
import { shelve, type Verification, verify } from '../redecide/verify.ts'
import { verificationText } from '../report/text.ts'
import { diffRecords, segmentsBy } from './diff.ts'
import { diffText } from './text.ts'

const sampleSizeDefault = 3
const sampleSizeMax = 100
const segmentKeysDefault = ['tier', 'category']

type Options = LogOptions & {
  readonly policy: string
  readonly segmentBy: readonly string[]
  readonly sample: number
  readonly trustPropensities?: boolean
  readonly json?: boolean
}

const sampleSizeOf = (text: string): number => {
  const size = Number(text)
  if (text.trim() !== '' && Number.isInteger(size) && size >= 0 && size <= sampleSizeMax) return size
  throw new InvalidArgumentError(`found '${text}'; wanted a whole number from 0 to ${sampleSizeMax}`)
}

/** Whether a log that verified so may be used: what came out otherwise never, what could not be verified on one's word. */
const isUsable = ({ differing, unverifiable }: Verification, { trustPropensities }: Options): boolean =>
  differing === 0 && (unverifiable === 0 || trustPropensities === true)

const printJson = (value: unknown): void => void process.stdout.write(`${JSON.stringify(value, null, 2)}\n`)

const run = (options: Options): Promise<number> =>
  withSource(options, async (source) => {
    const records = await collect(source)
    const features = featureTypesOf(records)
    const candidate = await loadPolicy(options.policy, features)
    const verification = verify(records, shelve(await policiesOf(source, options), features))
    if (!isUsable(verification, options)) {
      const colour = process.stdout.isTTY === true && process.stdout.hasColors()
      if (options.json) printJson({ verification })
      else process.stdout.write(verificationText(verification, { colour }))
      return evidenceExitCode
    }
    const segmentBy = segmentsBy(options.segmentBy)
    const diff = diffRecords(records, candidate, { segmentBy, sampleSize: options.sample })
    const { name, hash } = candidate
    if (options.json) printJson({ v: 1, candidate: { name, hash }, verification, ...diff })
    else process.stdout.write(diffText(diff, name))
    return 0
  })

/** The command; mount it under `signalbox replay`. */
export const diffCommand = (): Command =>
  sourceCommand('diff')
    .description(
      'Show which captured decisions a policy would make otherwise (exit 0 told, 3 the log is not verified).',
    )
    .requiredOption('--policy <file>', 'the candidate policy')
    .option('--segment-by <key...>', 'model, tier, tenant, user, or the name of a tag', segmentKeysDefault)
    .option('--sample <count>', 'how many changed decisions to explain', sampleSizeOf, sampleSizeDefault)
    .option('--trust-propensities', 'use decisions that cannot be verified, on your word')
    .option('--json', 'print everything as JSON')
    .addHelpText('after', example('diff --policy candidate.yaml --source decisions.ndjson --segment-by tier category'))
    .action(exitWith(run))
