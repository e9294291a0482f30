// The demo's providers under the official SDK: the recorded answer, delay and failure, as JSON and as a stream.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import OpenAI from 'openai'
import { type Provider, startProvider } from '../demo/provider.ts'
import {
  type Asked,
  answerOf,
  askedOf,
  durationOf,
  isRight,
  loadWorld,
  type Potential,
  potential,
  promptOf,
  questionIn,
  targets,
  tokensOf,
} from '../demo/world.ts'

const seed = 7
const world = await loadWorld()
const questions = new Map(world.questions.map((question) => [question.id, question]))
const asked = askedOf(world, seed, 2000)
const target = (model: string) => targets.find((each) => each.model === model) as (typeof targets)[number]
const bedrock = target('llama-3.1-70b-bedrock')
const outcome = (one: Asked) => potential(world, seed, one.question, bedrock)
const first = (wanted: (outcome: Potential) => boolean): Asked => {
  const found = asked.find((one) => wanted(outcome(one)))
  assert.ok(found)
  return found
}
const whole = first(({ failure }) => failure === null)
const cut = first(({ failure, outputTokens }) => failure === 'cut' && outputTokens > 20)

let provider: Provider
let client: OpenAI
before(async () => {
  provider = await startProvider({
    models: new Map([[bedrock.upstreamModel, (question) => potential(world, seed, question, bedrock)]]),
    questions,
    timeScale: 0.002,
  })
  client = new OpenAI({ baseURL: provider.url, apiKey: 'none', maxRetries: 0 })
})
after(() => provider.close())

const chat = (one: Asked) => ({
  model: bedrock.upstreamModel,
  messages: [{ role: 'user' as const, content: promptOf(one) }],
})

test('the same seed gives the same requests and the same outcome at every target, in any order', () => {
  assert.deepEqual(askedOf(world, seed, 300), asked.slice(0, 300))
  assert.notDeepEqual(askedOf(world, seed + 1, 300), asked.slice(0, 300))
  const once = targets.map((each) => asked.map((one) => potential(world, seed, one.question, each)))
  const again = targets
    .toReversed()
    .map((each) => asked.toReversed().map((one) => potential(world, seed, one.question, each)))
  assert.deepEqual(
    again.toReversed().map((row) => row.toReversed()),
    once,
  )
})

test('a conversation has one to six turns on one subject, and half of all requests are streamed', () => {
  for (const turns of Map.groupBy(asked, ({ session }) => session).values()) {
    assert.ok(turns.length <= 6)
    assert.equal(new Set(turns.map(({ question }) => question.category)).size, 1)
  }
  const streamed = asked.filter(({ stream }) => stream).length / asked.length
  assert.ok(Math.abs(streamed - 0.5) < 0.05, `${streamed} of the requests are streamed`)
})

test('each target is right and fails as often as was recorded', () => {
  for (const each of targets) {
    const outcomes = world.questions.map((question) => potential(world, seed, question, each))
    const right = outcomes.filter(({ correct }) => correct).length
    assert.equal(right, world.questions.filter(({ recorded }) => recorded[each.recorded]?.correct).length)
    const run = world.runs.get(each.run) ?? []
    const failed = outcomes.filter(({ failure }) => failure !== null).length / outcomes.length
    const recorded = run.filter(({ error }) => error).length / run.length
    assert.ok(Math.abs(failed - recorded) < 0.015, `${each.model} failed ${failed}, recorded ${recorded}`)
  }
})

test('a prompt is as long as recorded and names its question, and a judge reads the answer by its last line', () => {
  for (const one of asked.slice(0, 200)) {
    const prompt = promptOf(one)
    assert.equal(questionIn(prompt), one.question.id)
    assert.ok(tokensOf(prompt) >= one.contextTokens)
    const made = outcome(one)
    const answer = answerOf(one.question, made)
    assert.equal(answer.length, made.answerChars)
    assert.equal(isRight(one.question, answer), made.correct)
    assert.equal(isRight(one.question, answer.slice(0, -1)), false)
  }
})

test('answers the openai SDK with the recorded outcome and its usage', async () => {
  const made = outcome(whole)
  const completion = await client.chat.completions.create(chat(whole))
  assert.equal(completion.choices[0]?.message.content, answerOf(whole.question, made))
  assert.equal(completion.choices[0]?.finish_reason, 'stop')
  assert.equal(completion.usage?.prompt_tokens, tokensOf(promptOf(whole)))
  assert.equal(completion.usage?.completion_tokens, made.outputTokens)
})

test('streams the same answer in several chunks, with usage only for those who ask', async () => {
  const made = outcome(whole)
  for (const include_usage of [true, false]) {
    const startedAt = performance.now()
    const stream = await client.chat.completions.create({
      ...chat(whole),
      stream: true,
      stream_options: { include_usage },
    })
    const chunks: OpenAI.ChatCompletionChunk[] = []
    for await (const chunk of stream) chunks.push(chunk)
    assert.ok(performance.now() - startedAt >= durationOf(made) * 0.002)
    const text = chunks.map(({ choices }) => choices[0]?.delta.content ?? '').join('')
    assert.equal(text, answerOf(whole.question, made))
    assert.ok(chunks.length > 3)
    assert.equal(chunks.at(-1)?.usage?.completion_tokens, include_usage ? made.outputTokens : undefined)
  }
})

test('breaks a stream off where the recorded one ended, and closes the connection when nothing was sent', async () => {
  const stream = await client.chat.completions.create({ ...chat(cut), stream: true })
  let text = ''
  await assert.rejects(async () => {
    for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? ''
  })
  const full = answerOf(cut.question, outcome(cut))
  assert.ok(text.length > 0 && text.length < full.length)
  assert.ok(full.startsWith(text))
  await assert.rejects(client.chat.completions.create(chat(cut)), OpenAI.APIConnectionError)
})

test('says what is wrong with another model, an unknown question and another path', async () => {
  const messages = [{ role: 'user' as const, content: 'Question 99999999 (none): what?' }]
  await assert.rejects(client.chat.completions.create({ model: 'other', messages }), /404 no model 'other' here/)
  await assert.rejects(
    client.chat.completions.create({ model: bedrock.upstreamModel, messages }),
    /400 the last message names no recorded question/,
  )
  await assert.rejects(client.models.list(), /404 no such endpoint: GET \/v1\/models/)
})
