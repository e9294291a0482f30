// The demo's world: recorded outcomes of real models on real questions, real arrivals, real delays and failures. Every
// potential outcome, of any question at any target, is a pure function of the seed: the providers answer by it and the
// truth is computed from it. That the two cannot differ is what makes the truth beside the estimate worth printing.
import { readFile } from 'node:fs/promises'
import { gunzipSync } from 'node:zlib'
import { draw } from '../router/policy/chance.ts'

/** Conversations that are open at the same time, and the most turns one has. */
const conversationsOpen = 24
const turnsMax = 6
/** No texts were recorded, only lengths: one token stands for this many characters, on both sides of every call. */
export const charsPerToken = 4
/** The latency runs asked for this many tokens; a stream that ended early did so after this share of its answer. */
const tokensAsked = 150

type Recorded = { readonly correct: boolean; readonly chars: number }
/** One question of MMLU-Pro, without its text, and what each recorded model made of it. */
export type Question = {
  readonly id: string
  readonly category: string
  readonly chars: number
  readonly options: number
  readonly recorded: Readonly<Record<string, Recorded>>
}
/** One call of a latency run; `error` is its error code, empty for none. */
type Call = { readonly ttftMs: number; readonly totalMs: number; readonly tokens: number; readonly error: string }
type Arrival = { readonly gapMs: number; readonly contextTokens: number }

/** Everything that was recorded. */
export type World = {
  readonly questions: readonly Question[]
  readonly arrivals: readonly Arrival[]
  readonly runs: ReadonlyMap<string, readonly Call[]>
}

/** A model at a provider: whose answers it gives, at whose speed and price. */
export type Target = {
  readonly model: string
  readonly provider: string
  readonly upstreamModel: string
  /** Its column in the outcome data and its run in the latency data. */
  readonly recorded: string
  readonly run: string
  readonly contextTokensMax: number
  /** The published MMLU score: what a team knows before it has outcomes of its own. */
  readonly quality: number
}

export const targets: readonly Target[] = [
  {
    model: 'llama-3.1-70b',
    provider: 'together',
    upstreamModel: 'meta-llama/Meta-Llama-3.1-70B-Instruct-Turbo',
    recorded: 'llama-3.1-70b',
    run: 'together_70b',
    contextTokensMax: 131_072,
    quality: 0.836,
  },
  {
    model: 'llama-3.1-70b-bedrock',
    provider: 'aws',
    upstreamModel: 'meta.llama3-1-70b-instruct-v1:0',
    recorded: 'llama-3.1-70b',
    run: 'bedrock_70b',
    contextTokensMax: 128_000,
    quality: 0.836,
  },
  {
    model: 'mixtral-8x7b',
    provider: 'together',
    upstreamModel: 'mistralai/Mixtral-8x7B-Instruct-v0.1',
    recorded: 'mixtral-8x7b',
    run: 'together_13b',
    contextTokensMax: 32_768,
    quality: 0.706,
  },
  {
    model: 'llama-3.1-8b',
    provider: 'together',
    upstreamModel: 'meta-llama/Meta-Llama-3.1-8B-Instruct-Turbo',
    recorded: 'llama-3.1-8b',
    run: 'together_7b',
    contextTokensMax: 131_072,
    quality: 0.694,
  },
]

/** A file of this folder; the build puts a copy beside the compiled code. */
export const demoFile = (name: string): URL => new URL(name, import.meta.url)

const readTable = async (name: string): Promise<Readonly<Record<string, string>>[]> => {
  const text = gunzipSync(await readFile(demoFile(`data/${name}.csv.gz`))).toString('utf8')
  const [head = '', ...lines] = text.trimEnd().split('\n')
  const columns = head.split(',')
  return lines.map((line) => {
    const cells = line.split(',')
    return Object.fromEntries(columns.map((column, index) => [column, cells[index] ?? '']))
  })
}

/** Reads the recorded data that comes with the demo. */
export const loadWorld = async (): Promise<World> => {
  const [questions, arrivals, calls] = await Promise.all(['mmlu-pro', 'azure-conversations', 'llmperf'].map(readTable))
  const models = [...new Set(targets.map(({ recorded }) => recorded))]
  return {
    questions: (questions ?? []).map((row) => ({
      id: row.question ?? '',
      category: row.category ?? '',
      chars: Number(row.chars),
      options: Number(row.options),
      recorded: Object.fromEntries(
        models.map((m) => [m, { correct: row[`${m}|correct`] === '1', chars: Number(row[`${m}|output_chars`]) }]),
      ),
    })),
    arrivals: (arrivals ?? []).map((row) => ({
      gapMs: Number(row.gap_ms),
      contextTokens: Number(row.context_tokens),
    })),
    runs: Map.groupBy(
      (calls ?? []).map((row) => ({
        run: row.run ?? '',
        ttftMs: Number(row.ttft_ms),
        totalMs: Number(row.end_to_end_ms),
        tokens: Number(row.output_tokens),
        error: row.error_code ?? '',
      })),
      ({ run }) => run,
    ),
  }
}

/** One request to be driven: a question asked in the course of a conversation. */
export type Asked = {
  readonly index: number
  /** When it is sent, milliseconds of the recorded hour since the start. */
  readonly dueMs: number
  readonly session: string
  /** Of the request alone; the same seed gives the same users, and so the same draws. */
  readonly user: string
  readonly stream: boolean
  readonly question: Question
  /** Tokens of the conversation so far, from the arrival trace. */
  readonly contextTokens: number
}

/** The first `count` requests of the drive. Conversations keep to one subject and half the requests are streamed. */
export const askedOf = (world: World, seed: number, count: number): Asked[] => {
  const chance = (key: string, stream: string) => draw(key, String(seed), stream)
  const shuffled = world.questions
    .map((question) => ({ question, place: chance(question.id, 'order') }))
    .sort((a, b) => a.place - b.place)
    .map(({ question }) => question)
  const byCategory = Map.groupBy(shuffled, ({ category }) => category)
  const taken = new Map<string, number>()
  const open: { session: string; category: string; turns: number }[] = []
  let conversations = 0
  let dueMs = 0
  return Array.from({ length: count }, (_, index) => {
    const { gapMs, contextTokens } = world.arrivals[index % world.arrivals.length] as Arrival
    dueMs += gapMs
    const slot = index % conversationsOpen
    let conversation = open[slot]
    if (!conversation?.turns) {
      const session = `conversation-${++conversations}`
      const { category } = shuffled[conversations % shuffled.length] as Question
      conversation = { session, category, turns: 1 + Math.floor(chance(session, 'turns') * turnsMax) }
      open[slot] = conversation
    }
    conversation.turns--
    const questions = byCategory.get(conversation.category) ?? []
    const turn = taken.get(conversation.category) ?? 0
    taken.set(conversation.category, turn + 1)
    return {
      index,
      dueMs,
      session: conversation.session,
      user: `seed-${seed}-request-${index}`,
      stream: chance(String(index), 'stream') < 0.5,
      question: questions[turn % questions.length] as Question,
      contextTokens,
    }
  })
}

const fill = (sentence: string, chars: number): string =>
  sentence.repeat(Math.ceil(Math.max(0, chars) / sentence.length)).slice(0, Math.max(0, chars))

/** The text of a request: as long as the recorded conversation and question were, and naming the question. */
export const promptOf = ({ question, contextTokens }: Asked): string => {
  const task = `Question ${question.id} (${question.category}): choose one of ${question.options} options.`
  return `${fill('What was said before was not kept, only how long it was. ', contextTokens * charsPerToken + question.chars - task.length - 1)}\n${task}`
}

/** The id of the question that a prompt names; null when it names none. */
export const questionIn = (prompt: string): string | null => /Question (\d+) \(/.exec(prompt)?.[1] ?? null

export const tokensOf = (text: string): number => Math.ceil(text.length / charsPerToken)

/** What a target makes of a question, and what it does on the way. Times are as recorded, before any compression. */
export type Potential = {
  readonly failure: '429' | '500' | 'cut' | null
  readonly correct: boolean
  readonly answerChars: number
  /** Tokens that are sent: all of the answer's, or those before the cut. */
  readonly outputTokens: number
  readonly ttftMs: number
  readonly tokenMs: number
}

/**
 * The outcome of one question at one target: the recorded answer, with the delays and the fate of one call of the
 * target's latency run. The call is drawn from all of the run's calls, so failures are as frequent as they were. Code
 * 429 is a rate limit; an error without a token is a 500; an error with tokens is a stream that ended early.
 */
export const potential = (
  world: World,
  seed: number,
  question: Question,
  { model, recorded, run }: Target,
): Potential => {
  const calls = world.runs.get(run) ?? []
  const call = calls[Math.floor(draw(question.id, String(seed), `call:${model}`) * calls.length)]
  const answer = question.recorded[recorded]
  if (!call || !answer) throw new RangeError(`the demo's data has no answer of '${recorded}' or no run '${run}'`)
  const failure = !call.error ? null : call.error === '429' ? '429' : call.tokens > 1 ? 'cut' : '500'
  const answerChars = Math.max(answer.chars, finalLine(question, answer.correct).length + 1)
  const tokens = Math.ceil(answerChars / charsPerToken)
  const sent = failure === null ? 1 : failure === 'cut' ? Math.min(0.99, call.tokens / tokensAsked) : 0
  return {
    failure,
    correct: answer.correct,
    answerChars,
    outputTokens: Math.floor(tokens * sent),
    ttftMs: call.ttftMs,
    tokenMs: (call.totalMs - call.ttftMs) / Math.max(1, call.tokens - 1),
  }
}

/** From the request to the end of what is sent, milliseconds as recorded. */
export const durationOf = ({ ttftMs, tokenMs, outputTokens }: Potential): number =>
  ttftMs + tokenMs * Math.max(0, outputTokens - 1)

const finalLine = (question: Question, correct: boolean): string => {
  const right = Math.floor(draw(question.id, 'mmlu-pro', 'right-choice') * question.options)
  const choice = correct ? right : (right + 1) % question.options
  return `The answer is (${String.fromCharCode(65 + choice)}).`
}

/** An answer of the recorded length whose last line carries the right or a wrong choice. */
export const answerOf = (question: Question, { correct, answerChars }: Potential): string => {
  const last = finalLine(question, correct)
  return `${fill('The words of this answer were not kept, only how many there were. ', answerChars - last.length - 1)}\n${last}`
}

/** Whether an answer's last line carries the right choice. */
export const isRight = (question: Question, answer: string): boolean =>
  answer.slice(answer.lastIndexOf('\n') + 1) === finalLine(question, true)
