// A provider's prompt cache: blocks of tokens known by the hash of everything up to their end, so that a request finds as
// much as it shares with earlier ones from the start. Kept by last use, within a size and an age. Every target has its own,
// which is why a policy that scatters a conversation over models pays for it.
import type { DecisionRecord } from '../../router/policy/record.ts'

/** Tokens in one block, as in the Mooncake traces. */
export const blockTokens = 512
const blocksPerPromptMax = 100_000

export type CacheSettings = {
  /** Milliseconds after its last use that a block is kept; Infinity is for ever. */
  readonly ttlMs: number
  /** Tokens that one target keeps; Infinity is all. */
  readonly tokensMax: number
}

export type PromptCache = {
  /** Looks a prompt up and keeps it; returns how many of its tokens were there. Time must not run backwards. */
  readonly use: (blocks: readonly string[], inputTokens: number, nowMs: number) => number
}

export const promptCacheOf = ({ ttlMs, tokensMax }: CacheSettings): PromptCache => {
  /** Block → when it was last used, the longest unused first. */
  const kept = new Map<string, number>()
  const blocksMax = tokensMax / blockTokens
  const forget = (isOut: (usedAtMs: number) => boolean): void => {
    for (const [block, usedAtMs] of kept) {
      if (!isOut(usedAtMs)) return
      kept.delete(block)
    }
  }
  return {
    use: (blocks, inputTokens, nowMs) => {
      forget((usedAtMs) => nowMs - usedAtMs > ttlMs)
      let found = 0
      while (found < blocks.length && kept.has(blocks[found] as string)) found++
      // From the end, so that the beginning, which more prompts share, is the last to be forgotten.
      for (let at = blocks.length - 1; at >= 0; at--) {
        kept.delete(blocks[at] as string)
        kept.set(blocks[at] as string, nowMs)
      }
      forget(() => kept.size > blocksMax)
      return Math.min(found * blockTokens, inputTokens)
    },
  }
}

/**
 * The blocks of a recorded prompt: those its tag `prefix_hashes` names, separated by spaces; else, within a session, as
 * many whole blocks as the prompt has tokens, since every turn repeats the turns before it. A request of neither kind
 * shares nothing.
 */
export const blocksOf = ({ request, session }: Pick<DecisionRecord, 'request' | 'session'>): readonly string[] => {
  const named = request.tags.prefix_hashes
  if (named) return named.split(' ').slice(0, blocksPerPromptMax)
  if (session === '') return []
  const count = Math.min(blocksPerPromptMax, Math.floor(request.input_tokens / blockTokens))
  return Array.from({ length: count }, (_, at) => `${session}:${at}`)
}
