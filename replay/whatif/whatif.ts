// A what-if from end to end, as one pure function: records, policies and a scenario in; three simulations out. Production by
// itself is what the others are compared with, because the simulator's own bias is then on both sides; the first-order effect
// is the scenario with nobody rerouting; and then everything reacts.
import { featureTypesOf, type Policy } from '../../router/policy/policy.ts'
import type { Context, DecisionRecord } from '../../router/policy/record.ts'
import { SourceError } from '../read/source.ts'
import { type LoggedPolicy, shelve, verify } from '../redecide/verify.ts'
import { type Arrival, arrivalsOf } from './arrivals.ts'
import { logModelOf, type Unused } from './log-model.ts'
import { checkNames, type Part, ScenarioError, worldOf } from './scenario.ts'
import { type Hop, type Route, type Simulated, type Simulation, type SimulationOptions, simulate } from './simulate.ts'
import { type Calibration, calibrate, loggedSummaryOf, type Move, movesOf, type Summary, summaryOf } from './summary.ts'

export type WhatIfOptions = {
  readonly parts: readonly Part[]
  /** The candidate; null keeps the policy that decided each record. */
  readonly policy: Policy | null
  readonly seed: string
  /** The latency objective, milliseconds; null for none. */
  readonly sloMs: number | null
  readonly onProgress?: (arrived: number, of: number) => void
}

export type WhatIf = {
  readonly v: 1
  /** No figure in here was observed, and none may enter a gate. */
  readonly evidence: 'simulated'
  readonly scenario: readonly Part[]
  readonly seed: string
  readonly policy: { readonly name: string; readonly hash: string } | null
  readonly records: number
  /** Records that have no outcome: simulated, and not in the logged figures. */
  readonly withoutOutcome: number
  readonly sloMs: number | null
  readonly calibration: Calibration
  readonly logged: Summary
  readonly production: Summary
  readonly firstOrder: Summary
  readonly simulated: Summary
  readonly moves: readonly Move[]
  readonly cascade: readonly Hop[]
  readonly targets: readonly TargetNote[]
  readonly unused: Unused
}

/** What the log knows of a target: its attempts, and whether its calls could be timed by themselves. */
export type TargetNote = { readonly model: string; readonly attempts: number; readonly isTimed: boolean }
export type WhatIfRun = {
  readonly whatIf: WhatIf
  /** Every request in the scenario, and in production simulated by itself. */
  readonly requests: readonly Simulated[]
  readonly production: readonly Simulated[]
}

const worldAsLogged = worldOf([])
/** A small log is simulated by itself more than once for the calibration, so that it is not judged by the luck of one run. */
const calibrationRequests = 10_000
const calibrationRunsMax = 5

/**
 * Simulates a scenario. Throws a ScenarioError for one that does not fit the log, and a SourceError when the records do not
 * reproduce their own decisions or have too few timed calls.
 */
export const whatIf = (
  records: readonly DecisionRecord[],
  policies: readonly LoggedPolicy[],
  options: WhatIfOptions,
): WhatIfRun => {
  const { parts, seed, sloMs, policy } = options
  const world = worldOf(parts)
  checkNames(world, modelsOf(records))
  const decideLogged = loggedDecider(records, policies, policy)
  const log = logModelOf(records)
  const recorded = arrivalsOf(records, worldAsLogged, seed)
  const supposed = arrivalsOf(records, world, seed)
  const setting = { log, seed, ...progressOf(options, recorded.length, supposed.length) }
  const itself = { ...setting, world: worldAsLogged, route: decideLogged, fallback: true }
  const production = simulate(recorded, itself)
  const routes = new Map(production.requests.map(({ arrival, route }) => [arrival.record, route]))
  const firstOrder = simulate(supposed, {
    ...setting,
    world,
    route: ({ record }) => routes.get(record) ?? routeAsLogged(record),
    fallback: false,
  })
  const route = policy ? (_: Arrival, context: () => Context) => policy.decide(context()) : decideLogged
  const simulated = simulate(supposed, { ...setting, world, route, fallback: true })
  const logged = loggedSummaryOf(
    recorded.map(({ record }) => record),
    sloMs,
  )
  return {
    requests: simulated.requests,
    production: production.requests,
    whatIf: {
      v: 1,
      evidence: 'simulated',
      scenario: parts,
      seed,
      policy: policy && { name: policy.name, hash: policy.hash },
      records: records.length,
      withoutOutcome: records.filter(({ outcome }) => !outcome).length,
      sloMs,
      calibration: calibrate(logged, itselfAgain(recorded, production, itself)),
      logged,
      production: summaryOf(production.requests, sloMs),
      firstOrder: summaryOf(firstOrder.requests, sloMs),
      simulated: summaryOf(simulated.requests, sloMs),
      moves: movesOf(production.requests, simulated.requests),
      cascade: simulated.cascade,
      targets: targetsOf(simulated.requests, records, log),
      unused: log.unused,
    },
  }
}

const modelsOf = (records: readonly DecisionRecord[]): ReadonlySet<string> => {
  const models = new Set<string>()
  for (const { candidates } of records) for (const { model } of candidates) models.add(model)
  return models
}

/** Production's own simulation, and as many others like it as a calibration wants. */
const itselfAgain = (
  arrivals: readonly Arrival[],
  { requests }: Simulation,
  options: SimulationOptions,
): Simulated[] => {
  const { onProgress: _, ...quietly } = options
  const runs = Math.min(calibrationRunsMax, Math.ceil(calibrationRequests / Math.max(1, requests.length)))
  const others = Array.from({ length: runs - 1 }, (_, at) =>
    simulate(arrivals, { ...quietly, seed: `${options.seed}#${at + 1}` }),
  )
  return [...requests, ...others.flatMap((other) => other.requests)]
}

/** Progress over all three simulations. */
const progressOf = ({ onProgress }: WhatIfOptions, recorded: number, supposed: number) => {
  if (!onProgress) return {}
  let [before, last] = [0, 0]
  return {
    onProgress: (arrived: number) => {
      if (arrived < last) before += last
      last = arrived
      onProgress(before + arrived, recorded + 2 * supposed)
    },
  }
}

const routeAsLogged = ({ chosen, plan }: DecisionRecord): Route => ({
  chosen,
  plan: plan.length > 0 || chosen === null ? plan : [chosen],
})

/**
 * Decides as production does: by the policy that decided the record. Where that policy's source is not at hand the logged
 * choice stands, which is enough to compare a candidate with, and not enough to say how production itself would react.
 */
const loggedDecider = (
  records: readonly DecisionRecord[],
  policies: readonly LoggedPolicy[],
  policy: Policy | null,
) => {
  const shelf = shelve(policy ? [...policies, policy] : policies, featureTypesOf(records))
  const { differing, groups } = verify(records, shelf)
  if (differing > 0)
    throw new SourceError(
      'record-invalid',
      `deciding the records again: ${differing} of ${records.length} come out differently than logged, so nothing was simulated; see signalbox replay verify`,
    )
  const unread = groups.find(({ count }) => count > 0)
  if (unread && !policy)
    throw new ScenarioError(
      `${unread.count} of ${records.length} records cannot be decided again (${unread.cause.kind}${'policy' in unread.cause ? `: ${unread.cause.policy}` : ''}); wanted the policy that decided them, with --logged-policy FILE, or a candidate with --policy FILE`,
    )
  return ({ record }: Arrival, context: () => Context): Route => {
    const own = shelf.get(record.policy.hash)
    return own === undefined || typeof own === 'string' ? routeAsLogged(record) : own.decide(context())
  }
}

const targetsOf = (
  requests: readonly Simulated[],
  records: readonly DecisionRecord[],
  log: ReturnType<typeof logModelOf>,
): TargetNote[] => {
  const streams = new Set(records.map(({ request }) => request.stream))
  const asked = new Set(requests.flatMap(({ target }) => (target === null ? [] : [target])))
  return [...asked].sort().map((model) => {
    const { attempts, isOwn } = log.target(model)
    return { model, attempts, isTimed: [...streams].some(isOwn) }
  })
}
