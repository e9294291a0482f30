// The stage for re-execution: a log in which production takes A and the candidate B, payloads for it, and a provider on a real
// socket that answers, judges and charges as the test says.
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { openPayloads } from '../replay/reexec/payloads.ts'
import { type Frame, frameOf, type JudgePlan } from '../replay/reexec/plan.ts'
import { type RunOptions, reexecute } from '../replay/reexec/run.ts'
import type { DecisionRecord } from '../router/policy/record.ts'
import { allB, logged, weighted } from './replay-two-models.ts'
import { json, type Script, startProvider } from './scripted-provider.ts'

export const allA = weighted('all-a', 1, 0)
const features = { input_usd_per_mtok: 1, output_usd_per_mtok: 10, output_tokens_expected: 90 }

/** Decisions for A by production, on which the candidate `allB` decides otherwise; quality 1 on every second. */
export const logFor = (rows: number, tenants = 1, predictedUsd = 0.001): DecisionRecord[] =>
  logged(
    allA,
    rows,
    (_, at) => ({ quality: at % 2 }),
    (at) => ({
      candidates: ['A', 'B'].map((model) => ({ model, features: { ...features, cost_usd: predictedUsd } })),
      tenant: `t-${at % tenants}`,
    }),
  )

export type Stage = {
  readonly folder: string
  readonly records: readonly DecisionRecord[]
  readonly payloadPath: string
  readonly logPath: string
  readonly policyPath: string
}

/** Files for `records`; `response` is the logged answer, if any. */
export const stageFor = async (
  t: TestContext,
  records: readonly DecisionRecord[],
  response?: string,
): Promise<Stage> => {
  const folder = await mkdtemp(join(tmpdir(), 'signalbox-'))
  t.after(() => rm(folder, { recursive: true, force: true }))
  const [payloadPath, logPath, policyPath] = ['payloads.ndjson', 'log.ndjson', 'candidate.yaml'].map((name) =>
    join(folder, name),
  ) as [string, string, string]
  const payload = ({ id }: DecisionRecord) => ({
    id,
    body: { model: 'auto', messages: [{ role: 'user', content: `question ${id}` }], max_tokens: 100 },
    ...(response === undefined ? {} : { response }),
  })
  const lines = (values: readonly unknown[]) => values.map((value) => `${JSON.stringify(value)}\n`).join('')
  await writeFile(payloadPath, lines(records.map(payload)))
  await writeFile(logPath, lines(records))
  await writeFile(policyPath, 'name: all-b\nchoose: {kind: weighted, weights: {A: 0, B: 1}}\n')
  return { folder, records, payloadPath, logPath, policyPath }
}

export const provide = async (t: TestContext, script: Script = json('an answer')) => {
  const provider = await startProvider(script)
  t.after(() => provider.close())
  return provider
}

export const judgeFor = (repeatShare = 0): JudgePlan => ({
  model: 'judge',
  price: { input: 1, output: 10 },
  repeatShare,
})

/** Plans and asks as the command does. */
export const runOn = async (
  stage: Stage,
  url: string,
  options: Partial<RunOptions> = {},
  tenantsMax = Infinity,
  onProgress: (asked: number, spentUsd: number) => void = () => {},
) => {
  const payloads = await openPayloads(stage.payloadPath)
  const { seed = 7, judge = null } = options
  const frame: Frame = frameOf(stage.records, allB, (id) => payloads.notes.get(id), {
    seed,
    judge,
    prices: new Map(),
    tenantsMax,
  })
  const settings: RunOptions = {
    url: `${url}/v1`,
    key: null,
    output: join(stage.folder, 'results.ndjson'),
    policyHash: allB.hash,
    seed,
    judge,
    budgetUsd: 1000,
    callsMax: Infinity,
    minutesMax: Infinity,
    outputTokensMax: 100,
    concurrency: 4,
    margin: null,
    ...options,
  }
  try {
    return { frame, output: settings.output, summary: await reexecute(frame, payloads, settings, onProgress) }
  } finally {
    await payloads.close()
  }
}
