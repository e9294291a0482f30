// `npm run chaos`: one round after another, each a scenario on a stage of its own, until the time is over. Each round is a
// line; one that fails keeps its folder and says how to run it again, and the end is a table.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Command, InvalidArgumentError } from 'commander'
import { chanceOf } from './chance.ts'
import { judge, type Verdict } from './judge.ts'
import { type Scenario, scenarios } from './scenarios.ts'
import { openStage, type Stage } from './stage.ts'

/** What comes before a scenario and after it is under load, too. */
const calmMs = 300
const seedMax = 2 ** 31
const msPerMinute = 60_000
/** How long the parts of a scenario that take time take, in a run of minutes. */
const paceMs = 3_000
/** The outage that the promise names, once in a run that is long enough for it. */
const longOutageMs = 600_000
const longRunMinutes = 40
const longPauseMs = 250
const failureExitCode = 1

/** Plays one scenario on a stage, lets its clients finish, and judges. What goes wrong on the way is a failure, too. */
export const playRound = async (stage: Stage, scenario: Scenario, seed: number, ms: number): Promise<Verdict> => {
  const { load } = stage
  const before = load.decisions.length
  try {
    // At full speed minutes of an outage are more than any spool holds, and what a full one does is another scenario.
    load.start(ms >= longOutageMs ? longPauseMs : undefined)
    await sleep(calmMs)
    await scenario.play(stage, chanceOf(seed), ms)
    await sleep(calmMs)
    await load.stop()
    const verdict = await judge(stage)
    const answered = verdict.acknowledged - before
    return answered > 0 ? verdict : { ...verdict, failures: [...verdict.failures, 'no request was answered'] }
  } catch (error) {
    const failures = [...stage.failures, (error as Error).message]
    return { acknowledged: load.decisions.length, excused: 0, excusedStored: 0, stored: 0, runs: 0, failures }
  }
}

type Options = { readonly minutes: number; readonly seed: number; readonly only?: string; readonly json?: boolean }
type Round = { readonly scenario: string; readonly seed: number; readonly seconds: number; readonly folder: string } & (
  | { readonly verdict: Verdict }
  | { readonly verdict: null }
)

/** A round on a stage of its own; its folder is kept when it fails. */
const roundOf = async (scenario: Scenario, seed: number, ms: number): Promise<Round> => {
  const startedAtMs = performance.now()
  const folder = await mkdtemp(join(tmpdir(), `signalbox-chaos-${scenario.name}-`))
  const stage = await openStage(folder, scenario.needsSmallDisks ?? false)
  const verdict = stage && (await playRound(stage, scenario, seed, ms))
  const failed = verdict !== null && verdict.failures.length > 0
  await stage?.close(failed)
  if (!failed) await rm(folder, { recursive: true, force: true })
  const seconds = Math.round((performance.now() - startedAtMs) / 100) / 10
  return { scenario: scenario.name, seed, seconds, folder, verdict }
}

const print = (text: string): void => void process.stdout.write(`${text}\n`)

const lineOf = ({ scenario, seed, seconds, folder, verdict }: Round, minutes: number): string => {
  const head = `${scenario.padEnd(16)} seed ${String(seed).padEnd(10)} ${seconds.toFixed(1).padStart(6)} s`
  if (!verdict) return `${head}  passed over: a small disk needs root, to mount it`
  const { acknowledged, excused, excusedStored, stored, runs, failures } = verdict
  const counts = `${acknowledged} answered, ${stored} stored, ${runs} runs, ${excusedStored} of ${excused} at the last moment`
  if (failures.length === 0) return `${head}  ok  ${counts}`
  const again = `npm run chaos -- --only ${scenario} --seed ${seed} --minutes ${minutes}`
  return [
    `${head}  FAILED  ${counts}`,
    ...failures.map((each) => `    ${each}`),
    `    kept: ${folder}`,
    `    again: ${again}`,
  ].join('\n')
}

const tableOf = (rounds: readonly Round[]): string => {
  const lines = scenarios.flatMap(({ name, what }) => {
    const of = rounds.filter(({ scenario }) => scenario === name)
    if (of.length === 0) return []
    const failed = of.filter(({ verdict }) => verdict && verdict.failures.length > 0).length
    const skipped = of.filter(({ verdict }) => !verdict).length
    const answered = of.reduce((sum, { verdict }) => sum + (verdict?.acknowledged ?? 0), 0)
    return [
      `${name.padEnd(16)} ${String(of.length - skipped).padStart(6)} ${String(failed).padStart(7)} ${String(answered).padStart(9)}  ${what}`,
    ]
  })
  return [`${'scenario'.padEnd(16)} ${'rounds'} ${' failed'} ${' answered'}`, ...lines].join('\n')
}

const play = async ({ minutes, seed: firstSeed, only, json = false }: Options): Promise<void> => {
  const chosen = scenarios.filter(({ name }) => only === undefined || name === only)
  const endMs = performance.now() + minutes * msPerMinute
  const rounds: Round[] = []
  if (!json) print(`chaos: ${minutes} minutes from seed ${firstSeed}`)
  do {
    const seed = (firstSeed + rounds.length) % seedMax
    const scenario = chosen[rounds.length % chosen.length] as Scenario
    const firstOutage = scenario.name === 'outage' && !rounds.some((round) => round.scenario === 'outage')
    const round = await roundOf(scenario, seed, firstOutage && minutes >= longRunMinutes ? longOutageMs : paceMs)
    rounds.push(round)
    print(json ? JSON.stringify(round) : lineOf(round, minutes))
  } while (performance.now() < endMs)
  if (!json) print(`\n${tableOf(rounds)}`)
  if (rounds.some(({ verdict }) => verdict && verdict.failures.length > 0)) process.exitCode = failureExitCode
}

const numberFrom =
  (min: number) =>
  (text: string): number => {
    const value = Number(text)
    if (Number.isFinite(value) && value >= min) return value
    throw new InvalidArgumentError(`wanted a number of at least ${min}`)
  }
const scenarioName = (text: string): string => {
  if (scenarios.some(({ name }) => name === text)) return text
  throw new InvalidArgumentError(`there are: ${scenarios.map(({ name }) => name).join(', ')}`)
}

if (import.meta.main)
  await new Command('chaos')
    .description(
      'Kills, stops, fills and damages what it can under load, and asks the store whether anything was lost.',
    )
    .option('--minutes <n>', 'how long; the round under way is finished', numberFrom(0), 60)
    .option('--seed <n>', "the first round's seed; the next ones count up", numberFrom(0), Date.now() % seedMax)
    .option('--only <scenario>', `one of ${scenarios.map(({ name }) => name).join(', ')}`, scenarioName)
    .option('--json', 'print each round as JSON')
    .addHelpText('after', '\nExample:\n  npm run chaos -- --minutes 60 --seed 1 --only kill-both')
    .action(play)
    .parseAsync()
