// Sets the stage: two local providers that serve the recorded models, and a collector and a router as the child processes
// that `signalbox up` starts too. The configuration is written to the folder as a file, so that a person can read what
// was run, and everything listens on free ports of this machine.
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { request } from 'undici'
import { stringify } from 'yaml'
import { z } from 'zod'
import { startCollectorChild, startRouterChild } from '../cli/children.ts'
import { startProvider } from './provider.ts'
import { potential, type Target, targets, type World } from './world.ts'

const logged = { logLevel: 'error', logTo: 'stderr' } as const

const readySchema = z.object({
  spans: z.object({ decisions: z.number(), queued: z.number(), dropped: z.number(), refused: z.number() }),
})
/** What the router counted: decisions made, and spans waiting, given up and refused. */
export type RouterCounts = z.infer<typeof readySchema>['spans']

export type Stage = {
  readonly routerUrl: string
  readonly clickhouseUrl: string
  readonly counts: () => Promise<RouterCounts>
  readonly close: () => Promise<void>
}

type StageOptions = {
  readonly world: World
  readonly seed: number
  readonly folder: string
  /** The production policy's text. */
  readonly policy: string
  readonly timeScale: number
}

/** Starts providers, collector and router. Whatever was started is stopped again when a part fails. */
export const setStage = async (options: StageOptions): Promise<Stage> => {
  const closers: (() => Promise<void>)[] = []
  const close = async (): Promise<void> => {
    for (const closer of closers.splice(0).reverse()) await closer()
  }
  try {
    const providerUrls = new Map<string, string>()
    for (const [name, served] of Map.groupBy(targets, ({ provider }) => provider)) {
      const provider = await startProvider({
        ...options,
        models: modelsOf(options, served),
        questions: byId(options.world),
      })
      closers.push(provider.close)
      providerUrls.set(name, provider.url)
    }
    const configFile = join(options.folder, 'signalbox.yaml')
    await writeFile(join(options.folder, 'production.yaml'), options.policy)
    await writeFile(configFile, configText(providerUrls))
    const collector = await startCollectorChild({ ...logged, configFile })
    closers.push(collector.stop)
    const router = await startRouterChild({ ...logged, configFile, otlpUrl: collector.urls.otlpUrl })
    closers.push(router.stop)
    const { routerUrl } = router.urls
    return { routerUrl, clickhouseUrl: collector.urls.clickhouseUrl, counts: () => countsOf(routerUrl), close }
  } catch (error) {
    await close()
    throw error
  }
}

const byId = ({ questions }: World) => new Map(questions.map((question) => [question.id, question]))

const modelsOf = ({ world, seed }: StageOptions, served: readonly Target[]) =>
  new Map(
    served.map((target) => [
      target.upstreamModel,
      (question: World['questions'][number]) => potential(world, seed, question, target),
    ]),
  )

const configText = (providerUrls: ReadonlyMap<string, string>): string =>
  stringify({
    listen: { port: 0 },
    policy: 'production.yaml',
    providers: [...providerUrls].map(([name, base_url]) => ({ name, kind: 'openai', base_url })),
    models: targets.map(({ model, provider, upstreamModel, contextTokensMax, quality }) => ({
      name: model,
      provider,
      upstream_model: upstreamModel,
      context_tokens_max: contextTokensMax,
      price: { book: `${provider}/${upstreamModel}` },
      features: { quality },
    })),
    collector: { data: 'data', otlp_port: 0, clickhouse_port: 0 },
  })

const countsOf = async (routerUrl: string): Promise<RouterCounts> => {
  const { body } = await request(`${routerUrl}/readyz`)
  return readySchema.parse(await body.json()).spans
}
