// A published trace of real prompts as hashed blocks, and what an endless prompt cache makes of it: the figure to which the
// cache is held.
import { readFileSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
import { type CacheSettings, promptCacheOf } from './prompt-cache.ts'

const dataFile = new URL('../data/mooncake_conversation.csv.gz', import.meta.url)

type Prompt = { readonly atMs: number; readonly inputTokens: number; readonly blocks: readonly string[] }

/** The trace in its order. */
const mooncakePrompts = (): Prompt[] => {
  const lines = gunzipSync(readFileSync(dataFile)).toString().trimEnd().split('\n').slice(1)
  let [atMs, fresh] = [0, 0]
  return lines.map((line) => {
    const [gapMs, inputTokens, , runs = ''] = line.split(',')
    atMs += Number(gapMs)
    const blocks = runs.split(' ').flatMap((run) => {
      const [first, length] = run.startsWith('+')
        ? [fresh, Number(run)]
        : [Number(run.split(':')[0]), Number(run.split(':')[1] ?? 1)]
      fresh = Math.max(fresh, first + length)
      return Array.from({ length }, (_, at) => String(first + at))
    })
    return { atMs, inputTokens: Number(inputTokens), blocks }
  })
}

/** The share of input tokens that one cache for the whole trace would have had. */
export const mooncakeHitRatio = (settings: CacheSettings = { ttlMs: Infinity, tokensMax: Infinity }): number => {
  const cache = promptCacheOf(settings)
  let [cached, total] = [0, 0]
  for (const { atMs, inputTokens, blocks } of mooncakePrompts()) {
    cached += cache.use(blocks, inputTokens, atMs)
    total += inputTokens
  }
  return cached / total
}
