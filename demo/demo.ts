// The demo is the main job on recorded input: drive real requests through a real router, find every one of them in the
// table, replay them under two other policies, and print the truth, which only here is known, beside each estimate. It
// reads from top to bottom as the story it tells.
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { SingleBar } from 'cli-progress'
import { parse, stringify } from 'yaml'
import { loadDecision } from '../cli/explain.ts'
import { openSource } from '../replay/read/source.ts'
import type { LoggedPolicy } from '../replay/redecide/verify.ts'
import { reportHtml } from '../replay/report/html.ts'
import { remedyText } from '../replay/report/remedies.ts'
import { refusalText, verdictSentence } from '../replay/report/words.ts'
import { type Replay, replay, replayDefaults } from '../replay/run.ts'
import { explainDecision } from '../router/policy/explain.ts'
import { featureTypesOf, parsePolicy } from '../router/policy/policy.ts'
import { type DecisionRecord, propensityOf } from '../router/policy/record.ts'
import { drive, type Seen } from './drive.ts'
import { type Compared, compare, type Reconciled, reconcile, reconciledText, truthText } from './result.ts'
import { type RouterCounts, type Stage, setStage } from './stage.ts'
import { type Driven, type Known, knownOf, truthOf } from './truth.ts'
import { type Asked, askedOf, demoFile, loadWorld, targets } from './world.ts'

/** Recorded time runs this many times as fast: 4,000 requests of the recorded hour take less than a minute. */
const compressionDefault = 15
const deliveryMsMax = 60_000
const pollMs = 100
/** The explored decision to explain is one that chance alone made likely. */
const exploredBelow = 0.25
const decisionsFile = 'decisions.ndjson'
const candidateNames = ['candidate-better', 'candidate-worse'] as const

export type DemoOptions = {
  readonly requests: number
  readonly seed: number
  /** Production takes the highest score and explores at this rate; null to leave it as it is. */
  readonly explore: number | null
  /** Null for a temporary one, in which all but the database is left. */
  readonly folder: string | null
  readonly json: boolean
  readonly compression?: number
  readonly write?: (text: string) => void
}

/** One candidate's replay, the truth beside it, and where it can be read and run again. */
type Judged = {
  readonly replay: Replay
  readonly compared: readonly Compared[]
  readonly policyText: string
  readonly policyFile: string
  readonly reportFile: string
  readonly command: string
}

/** Runs the demo and returns the exit code: 0 unless a request is missing from the table. */
export const runDemo = async (options: DemoOptions): Promise<number> => {
  const write = options.write ?? ((text: string) => void process.stdout.write(text))
  const say = (text: string) => options.json || write(`${text}\n`)
  const folder = options.folder ? resolve(options.folder) : await mkdtemp(join(tmpdir(), 'signalbox-demo-'))
  await mkdir(folder, { recursive: true })
  const timeScale = 1 / (options.compression ?? compressionDefault)
  const world = await loadWorld()
  const asked = askedOf(world, options.seed, options.requests)
  const policy = await productionText(options.explore)
  const seconds = Math.round(((asked.at(-1)?.dueMs ?? 0) * timeScale) / 1000)
  say(
    `Signalbox demo: ${asked.length} recorded requests to ${targets.length} models, ${Math.round(1 / timeScale)} times as fast as recorded: ${seconds} s.`,
  )
  const stage = await setStage({ world, seed: options.seed, folder, policy, timeScale })
  try {
    const from = new Date().toISOString()
    const seen = await driveWithBar(stage, asked, timeScale, options.json)
    const counts = await delivered(stage, asked.length)
    const stored = await readStored(stage, from)
    const { records } = stored
    const reconciled = reconcile(seen, counts, records)
    say(`\n${reconciledText(reconciled)}`)
    const driven = drivenOf(seen, records)
    const known = knownOf(world, options.seed, timeScale, driven)
    const judged = await Promise.all(candidateNames.map((name) => judge(folder, name, stored, driven, known)))
    await leaveFiles(folder, stored, judged)
    for (const each of judged) say(`\n${judgedText(each)}`)
    say(
      `\nLatencies are as measured in compressed time; the true ones are the recorded delays and ${known.overheadMs.toFixed(1)} ms of overhead.`,
    )
    say(`\n${judged.map(({ reportFile, command }) => `Report: ${reportFile}\n  again: ${command}`).join('\n')}`)
    const explained = await explainThree(stage, records)
    say(`\nThree decisions, in words:\n\n${explained.join('\n\n')}`)
    if (options.json) write(`${JSON.stringify(resultOf(options, reconciled, judged, explained))}\n`)
    return reconciled.exact ? 0 : 1
  } finally {
    await stage.close()
    // What is left is small: the policies, the decisions as lines of JSON, the reports.
    if (!options.folder) await rm(join(folder, 'data'), { recursive: true, force: true })
  }
}

const policyUrl = (name: string): URL => demoFile(`policies/${name}.yaml`)

/** Production's policy; with an exploration rate, that of a production which leaves nothing else to chance. */
const productionText = async (explore: number | null): Promise<string> => {
  const text = await readFile(policyUrl('production'), 'utf8')
  if (explore === null) return text
  return stringify({ ...(parse(text) as object), choose: { kind: 'highest' }, explore: { rate: explore, per: 'user' } })
}

const driveWithBar = async (stage: Stage, asked: Asked[], timeScale: number, json: boolean): Promise<Seen[]> => {
  const bar =
    !json && process.stderr.isTTY
      ? new SingleBar({ format: 'Driving {bar} {value}/{total} requests, {eta} s left', stream: process.stderr })
      : null
  bar?.start(asked.length, 0)
  try {
    return await drive({ routerUrl: stage.routerUrl, asked, timeScale, progress: ({ done }) => bar?.update(done) })
  } finally {
    bar?.stop()
  }
}

/** Waits until no span is on its way: the collector has then acknowledged, and so stored, all of them. */
const delivered = async ({ counts }: Stage, decisions: number): Promise<RouterCounts> => {
  const deadline = Date.now() + deliveryMsMax
  let now = await counts()
  while ((now.queued > 0 || now.decisions < decisions) && Date.now() < deadline) {
    await sleep(pollMs)
    now = await counts()
  }
  return now
}

const readStored = async ({ clickhouseUrl }: Stage, from: string): Promise<Stored> => {
  const source = openSource(clickhouseUrl, { from })
  try {
    const records: DecisionRecord[] = []
    for await (const record of source.records()) records.push(record)
    return { records, policies: await source.policies() }
  } finally {
    await source.close()
  }
}

const drivenOf = (seen: readonly Seen[], records: readonly DecisionRecord[]): Driven[] => {
  const askedById = new Map(seen.map(({ decisionId, asked }) => [decisionId, asked]))
  return records.flatMap((record) => {
    const asked = askedById.get(record.id)
    return asked ? [{ asked, record }] : []
  })
}

type Stored = { readonly records: readonly DecisionRecord[]; readonly policies: readonly LoggedPolicy[] }

const judge = async (
  folder: string,
  name: string,
  { records, policies }: Stored,
  driven: readonly Driven[],
  known: Known,
): Promise<Judged> => {
  const policyText = await readFile(policyUrl(name), 'utf8')
  const policy = parsePolicy(policyText, featureTypesOf(records), `${name}.yaml`)
  const result = replay(records, policies, policy, replayDefaults)
  const compared = compare(result, truthOf(known, driven, policy), truthOf(known, driven, null))
  const file = (suffix: string) => join(folder, suffix)
  const policyFile = file(`${name}.yaml`)
  const command = `signalbox replay run --policy ${policyFile} --source ${file(decisionsFile)} --logged-policy ${file('production.yaml')}`
  return { replay: result, compared, policyText, policyFile, reportFile: file(`${name}.html`), command }
}

/** Leaves what it takes to run every replay again, and a report on each. */
const leaveFiles = async (folder: string, { records }: Stored, judged: readonly Judged[]): Promise<void> => {
  await writeFile(join(folder, decisionsFile), records.map((record) => `${JSON.stringify(record)}\n`).join(''))
  for (const { replay: result, policyText, policyFile, reportFile, command } of judged) {
    await writeFile(policyFile, policyText)
    await writeFile(reportFile, reportHtml(result, command))
  }
}

const judgedText = ({ replay: result, compared }: Judged): string => {
  const { kind, refusals, remedies } = result.verdict
  return [
    verdictSentence(result),
    ...refusals.slice(1).map((refusal) => `  · ${refusalText(refusal)}`),
    ...remedies.map((remedy) => `  → ${remedyText(remedy)}`),
    kind === 'refused'
      ? 'What it would not claim, beside the truth (where production never went, these are guesses):'
      : 'The estimates, beside the truth:',
    truthText(compared),
  ].join('\n')
}

/** One decision each that was explored, that fell back, and that excluded a candidate. */
const explainThree = async ({ clickhouseUrl }: Stage, records: readonly DecisionRecord[]): Promise<string[]> => {
  const picked = [
    records.find((record) => record.explored && propensityOf(record) < exploredBelow),
    records.find(({ outcome }) => outcome?.status === 'ok' && outcome.attempts > 1),
    records.find(({ candidates, explored }) => !explored && candidates.some(({ eligible }) => !eligible)),
  ].flatMap((record) => record ?? [])
  return Promise.all(
    picked.map(async ({ id }) => {
      const { record, attempts } = await loadDecision(clickhouseUrl, id)
      return explainDecision(record, attempts)
    }),
  )
}

const resultOf = (
  { requests, seed, explore }: DemoOptions,
  reconciled: Reconciled,
  judged: readonly Judged[],
  explained: readonly string[],
) => ({
  requests,
  seed,
  explore,
  reconciled,
  candidates: judged.map(({ replay: { candidate, verdict }, compared, reportFile, command }) => ({
    candidate,
    verdict,
    compared,
    reportFile,
    command,
  })),
  explained,
})
