// `npm run bench:router`: what a request costs the router, in CPU microseconds of its whole process. A bare proxy, the
// router without telemetry and the router with it run in turn, so that a noisy machine disturbs them alike; then the
// spans that arrived are counted against the requests sent. Numbers go to bench/router.json and, by script, to the docs.
import { spawn, spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { type Load, startLoad, startUpstream } from './wire.ts'

const rounds = Number(process.env.ROUNDS ?? 5)
const roundMs = Number(process.env.ROUND_MS ?? 4000)
const warmUpMs = 6000
const connections = 64
const ticksPerSecond = 100
const spansPerRequest = 2
const requestBytes = 1536
const answerBytes = 1024

const body = JSON.stringify({ model: 'auto', messages: [{ role: 'user', content: 'x'.repeat(requestBytes - 80) }] })
const answer = Buffer.from(
  JSON.stringify({
    id: 'chatcmpl-1',
    object: 'chat.completion',
    created: 1,
    model: 'm',
    choices: [
      { index: 0, message: { role: 'assistant', content: 'y'.repeat(answerBytes - 240) }, finish_reason: 'stop' },
    ],
    usage: { prompt_tokens: 380, completion_tokens: 200, total_tokens: 580 },
  }),
)

const listen = async (onRequest: (bytes: Buffer) => Buffer) => {
  const server = createServer({ keepAliveTimeout: 600_000 }, (request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      const sent = Buffer.concat(chunks)
      const reply = onRequest(request.headers['content-encoding'] === 'gzip' ? gunzipSync(sent) : sent)
      response.writeHead(200, { 'content-type': 'application/json', 'content-length': reply.length }).end(reply)
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, server }
}

/** Where `taskset` is to be had, what is measured has the first core to itself. */
const pinned = spawnSync('taskset', ['-c', '0', 'true']).status === 0 ? ['taskset', '-c', '0'] : []
if (pinned.length > 0) spawnSync('taskset', ['-cp', '1', String(process.pid)])

const startChild = async (args: string[]) => {
  const [command = '', ...rest] = [...pinned, process.execPath, '--max-semi-space-size=32', ...args]
  const child = spawn(command, rest, { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] })
  const url = await new Promise<string>((resolve) =>
    child.once('message', (m) => resolve((m as { routerUrl: string }).routerUrl)),
  )
  return { child, url, pid: child.pid as number, load: await startLoad(url, '/v1/chat/completions', body, connections) }
}

/** CPU seconds of a process so far, all threads, user and system. */
const cpuSeconds = (pid: number): number => {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? []
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond
}

const drive = async (load: Load, ms: number) => {
  const startedAt = performance.now()
  const latencies = (await load.run(ms)).sort((a, b) => a - b)
  return {
    requests: latencies.length,
    perSecond: latencies.length / ((performance.now() - startedAt) / 1000),
    p50Ms: latencies[Math.floor(latencies.length * 0.5)] ?? 0,
    p99Ms: latencies[Math.floor(latencies.length * 0.99)] ?? 0,
  }
}

const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0

const folder = await mkdtemp(join(tmpdir(), 'signalbox-bench-'))
let spans = 0
const upstream = await startUpstream(answer)
const sink = await listen((bytes) => {
  for (let at = bytes.indexOf('"spanId"'); at >= 0; at = bytes.indexOf('"spanId"', at + 8)) spans += 1
  return Buffer.from('{}')
})
const configFor = async (name: string, telemetry: string) => {
  const file = join(folder, `${name}.yaml`)
  const models = ['a', 'b', 'c', 'd'].map(
    (model, at) =>
      `  - { name: ${model}, provider: p, price: { input_usd_per_mtok: ${at + 1}, output_usd_per_mtok: 4 }, features: { quality: 0.${9 - at} } }`,
  )
  await writeFile(
    file,
    `listen: { port: 0 }\ntelemetry: ${telemetry}\nproviders: [{ name: p, kind: openai, base_url: "${upstream.url}/v1" }]\nmodels:\n${models.join('\n')}\npolicy:\n  name: bench\n  filter: { affordable: candidate.cost_usd <= 1.0 }\n  score: candidate.quality - 40.0 * candidate.cost_usd - 0.0002 * candidate.ttft_ms\n  choose: { kind: highest }\n  explore: { rate: 0.02 }\n`,
  )
  return ['signalbox.js', 'router', '--config', file]
}
const variants = {
  bare: await startChild(['bench/bare-proxy.ts', upstream.url]),
  off: await startChild([...(await configFor('off', 'false'))]),
  on: await startChild([...(await configFor('on', `{ endpoint: "${sink.url}" }`))]),
}
type Name = keyof typeof variants
const names = Object.keys(variants) as Name[]
const figures: Record<Name, { cpuUs: number[]; perSecond: number[]; p50Ms: number[]; p99Ms: number[] }> =
  Object.fromEntries(names.map((name) => [name, { cpuUs: [], perSecond: [], p50Ms: [], p99Ms: [] }])) as never
let sent = 0
for (const name of names) {
  const { requests } = await drive(variants[name].load, warmUpMs)
  if (name === 'on') sent += requests
}
for (let round = 0; round < rounds; round += 1)
  for (const name of names) {
    const before = cpuSeconds(variants[name].pid)
    const { requests, perSecond, p50Ms, p99Ms } = await drive(variants[name].load, roundMs)
    const cpuUs = ((cpuSeconds(variants[name].pid) - before) / requests) * 1e6
    figures[name].cpuUs.push(cpuUs)
    figures[name].perSecond.push(perSecond)
    figures[name].p50Ms.push(p50Ms)
    figures[name].p99Ms.push(p99Ms)
    if (name === 'on') sent += requests
    process.stderr.write(`round ${round + 1}/${rounds} ${name}: ${cpuUs.toFixed(1)} µs\n`)
  }
const counts = async () =>
  (
    (await (await fetch(`${variants.on.url}/readyz`)).json()) as {
      spans: { queued: number; delivered: number; dropped: number; decisions: number }
    }
  ).spans
let last = await counts()
for (
  const deadline = performance.now() + 30_000;
  last.queued > 0 && performance.now() < deadline;
  last = await counts()
)
  await new Promise((resolve) => setTimeout(resolve, 50))
// One span more than two per request: the policy's.
const lost = sent * spansPerRequest + 1 - spans
const summary = {
  node: process.version,
  cores: cpus().length,
  date: new Date().toISOString().slice(0, 10),
  rounds,
  connections,
  requestBytes: body.length,
  answerBytes: answer.length,
  variants: Object.fromEntries(
    names.map((name) => {
      const { cpuUs, perSecond, p50Ms, p99Ms } = figures[name]
      return [
        name,
        {
          cpuUs: Number(median(cpuUs).toFixed(1)),
          perSecond: Math.round(median(perSecond)),
          p50Ms: Number(median(p50Ms).toFixed(2)),
          p99Ms: Number(median(p99Ms).toFixed(2)),
        },
      ]
    }),
  ) as Record<Name, { cpuUs: number; perSecond: number; p50Ms: number; p99Ms: number }>,
  requestsWithTelemetry: sent,
  spansArrived: spans,
  spansLost: lost,
}
const { bare, off, on } = summary.variants
process.stdout.write(`${JSON.stringify(summary, null, 2)}\n`)
process.stdout.write(
  `bare ${bare.cpuUs} µs · telemetry off ${off.cpuUs} µs (${(off.cpuUs / bare.cpuUs).toFixed(2)}×) · on ${on.cpuUs} µs (${(on.cpuUs / bare.cpuUs).toFixed(2)}×) · spans lost ${lost}\n`,
)
writeFileSync(new URL('./router.json', import.meta.url), `${JSON.stringify(summary, null, 2)}\n`)
for (const name of names) {
  variants[name].load.close()
  variants[name].child.kill('SIGTERM')
}
upstream.close()
sink.server.close()
sink.server.closeAllConnections()
await rm(folder, { recursive: true, force: true })
if (lost !== 0) process.exitCode = 1
