// What can go wrong, each as one small function: what is done to the stage, at moments drawn from the round's seed. Each
// leaves router and collector running; whether anything was lost is the judge's question, not theirs.
import { appendFileSync, readdirSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Chance } from './chance.ts'
import type { Name, Stage } from './stage.ts'

/** What a round does to a stage. */
export type Scenario = {
  readonly name: string
  /** What happens, for people. */
  readonly what: string
  readonly needsSmallDisks?: boolean
  /** `ms` is about how long the parts that take time should take. */
  readonly play: (stage: Stage, chance: Chance, ms: number) => Promise<void>
}

const dayMs = 86_400_000
/** How long a disk that failed is left alone by the spool, and a little more. */
const diskRetriedMs = 2_500
const jumpsMax = 4
const killEveryMs = 1_000
const writersMax = 4
const burstBytes = 8_388_608

const killAndStart =
  (name: Name) =>
  async ({ kill, start }: Stage, chance: Chance, ms: number): Promise<void> => {
    for (let times = chance.integer(1, Math.ceil(ms / killEveryMs)); times > 0; times -= 1) {
      await sleep(chance.between(0.2, 1) * ms)
      await kill(name)
      await sleep(chance.between(0, 0.3) * ms)
      await start(name)
    }
  }

const killBoth = async ({ kill, start }: Stage, chance: Chance, ms: number): Promise<void> => {
  const order = chance.shuffled<Name>(['router', 'collector'])
  await sleep(chance.between(0.3, 1) * ms)
  for (const name of order) {
    await kill(name)
    await sleep(chance.pick([0, chance.between(0, 0.3) * ms]))
  }
  if (chance.happens(0.5)) await Promise.all([start('router'), start('collector')])
  else for (const name of chance.shuffled(order)) await start(name)
}

/** Killed while it gets ready, when it mends what the time before left. */
const killStarting = async ({ kill, stumble, start }: Stage, chance: Chance, ms: number): Promise<void> => {
  await sleep(chance.between(0.3, 0.8) * ms)
  const names = chance.pick<Name[]>([['router'], ['collector'], ['collector', 'router']])
  for (const name of names) await kill(name)
  for (const name of names) {
    for (let times = chance.integer(1, 2); times > 0; times -= 1) await stumble(name, chance.between(300, 2_500))
    await start(name)
  }
}

const stopInOrder = async ({ stop, start, signal }: Stage, chance: Chance, ms: number): Promise<void> => {
  await sleep(chance.between(0.3, 0.8) * ms)
  // A router that stops while its collector hangs leaves the rest to its spool.
  const hangs = chance.happens(0.5)
  if (hangs) signal('collector', 'SIGSTOP')
  await sleep(chance.between(0, 0.3) * ms)
  await stop('router')
  if (hangs) signal('collector', 'SIGCONT')
  const collectorToo = chance.happens(0.7)
  if (collectorToo) await stop('collector')
  for (const name of chance.shuffled<Name>(collectorToo ? ['router', 'collector'] : ['router'])) await start(name)
}

const outage = async ({ kill, stop, start }: Stage, chance: Chance, ms: number): Promise<void> => {
  await (chance.happens(0.5) ? kill : stop)('collector')
  await sleep(chance.between(0.5, 1) * ms)
  if (chance.happens(0.5)) {
    await kill('router')
    await start('router')
  }
  await sleep(chance.between(0.5, 1) * ms)
  await start('collector')
}

/** Answers later than the router waits for them: it asks again while the first insert may be under way. */
const slowCollector = async ({ weather, signal }: Stage, chance: Chance, ms: number): Promise<void> => {
  weather.fate = () => ({ delayMs: chance.happens(0.2) ? chance.between(0, 5_000) : 0 })
  for (let times = chance.integer(1, 3); times > 0; times -= 1) {
    signal('collector', 'SIGSTOP')
    await sleep(chance.between(0.2, 2) * ms)
    signal('collector', 'SIGCONT')
    await sleep(chance.between(0.2, 0.5) * ms)
  }
  weather.fate = () => ({})
}

const duplicates = async ({ weather, kill, start }: Stage, chance: Chance, ms: number): Promise<void> => {
  weather.fate = () => ({
    delayMs: chance.happens(0.3) ? chance.between(0, 300) : 0,
    lost: chance.happens(0.1),
    answerLost: chance.happens(0.3),
    copiesAfterMs: Array.from({ length: chance.integer(0, 3) }, () => chance.between(0, ms * 1.5)),
  })
  await sleep(chance.between(0.5, 1) * ms)
  // Copies that come after a restart are known, too.
  if (chance.happens(0.7)) {
    await kill('collector')
    await start('collector')
  }
  await sleep(chance.between(0.5, 1) * ms)
  weather.fate = () => ({})
}

const clockJump = async ({ jumpClock, kill, start }: Stage, chance: Chance, ms: number): Promise<void> => {
  for (let jumps = chance.integer(2, jumpsMax); jumps > 0; jumps -= 1) {
    const reach = chance.pick([1_000, 60_000, 3_600_000, 2 * dayMs])
    const jumpMs = Math.round(chance.between(-reach, reach))
    jumpClock('router', jumpMs)
    if (chance.happens(0.5)) jumpClock('collector', jumpMs)
    await sleep(chance.between(0.1, 0.4) * ms)
  }
  // The next run's epoch is that of another time, so its batches may sort before what the last one left.
  await kill('router')
  await start('router')
}

/** Others write and flush as fast as the disk takes it, so that the spool's own flushes stand in line. */
const busyDisk = async ({ folder, kill, start }: Stage, chance: Chance, ms: number): Promise<void> => {
  const endMs = performance.now() + chance.between(0.7, 1) * ms
  const burning = Array.from({ length: writersMax }, async (_, n) => {
    const handle = await open(join(folder, `burning-${n}`), 'w')
    while (performance.now() < endMs) {
      await handle.write(Buffer.alloc(burstBytes), 0, burstBytes, 0)
      await handle.sync()
    }
    await handle.close()
  })
  await sleep(chance.between(0.3, 0.7) * ms)
  await kill('router')
  await Promise.all(burning)
  await start('router')
}

const fullSpool = async ({ disks, kill, start, signal }: Stage, chance: Chance, ms: number): Promise<void> => {
  await sleep(chance.between(0.1, 0.5) * ms)
  const collectorGone = chance.happens(0.6)
  if (collectorGone) signal('collector', 'SIGSTOP')
  disks?.spool.fill()
  await sleep(chance.between(0.5, 1.5) * ms)
  disks?.spool.free()
  await sleep(diskRetriedMs)
  // From here on all that waited is on the disk again.
  if (chance.happens(0.6)) {
    await kill('router')
    await start('router')
  }
  if (collectorGone) signal('collector', 'SIGCONT')
}

const fullData = async ({ disks, kill, start, stumble }: Stage, chance: Chance, ms: number): Promise<void> => {
  await sleep(chance.between(0.1, 0.5) * ms)
  disks?.data.fill()
  await sleep(chance.between(0.5, 1.5) * ms)
  const killed = chance.happens(0.4)
  if (killed) {
    await kill('collector')
    // Started on a full disk, it may fail; it may not spoil what is there.
    if (chance.happens(0.5)) await stumble('collector', chance.between(500, 3_000))
  }
  disks?.data.free()
  if (killed) await start('collector')
}

const spoolFiles = (stage: Stage, suffix: string): string[] =>
  readdirSync(join(stage.spoolFolder, 'traces'))
    .filter((name) => name.endsWith(suffix))
    .sort()
    .map((name) => join(stage.spoolFolder, 'traces', name))

/** The decisions whose lines end past this byte of a batch. */
const decisionsPast = (file: string, byte: number): string[] => {
  const bytes = readFileSync(file)
  // From the beginning of the line that is hit.
  const from = bytes.lastIndexOf('\n', Math.max(0, byte - 1)) + 1
  return [
    ...bytes.toString('utf8', from).matchAll(/"signalbox\.decision\.id","value":\{"stringValue":"([\w-]+)"/g),
  ].map(([, id]) => id as string)
}

/** What a torn write or a tired disk makes of a file's end: less, nothing but zeros, or something else. */
const tear = (file: string, chance: Chance): number => {
  const { size } = statSync(file)
  const at = chance.integer(Math.max(0, size - 3_000), size)
  const junk = Buffer.from(Array.from({ length: chance.integer(1, 400) }, () => chance.integer(0, 255)))
  switch (chance.pick(['cut', 'zeros', 'more', 'overwritten'] as const)) {
    case 'cut':
      truncateSync(file, at)
      return at
    case 'zeros':
      appendFileSync(file, Buffer.alloc(junk.length))
      return size
    case 'more':
      appendFileSync(file, junk)
      return size
    case 'overwritten':
      writeFileSync(file, Buffer.concat([readFileSync(file).subarray(0, at), junk]))
      return at
  }
}

const tornSpool = async (stage: Stage, chance: Chance, ms: number): Promise<void> => {
  stage.signal('collector', 'SIGSTOP')
  await sleep(chance.between(0.3, 1) * ms)
  await stage.kill('router')
  const last = spoolFiles(stage, '.open').at(-1)
  if (last) {
    stage.damaged += 1
    const before = readFileSync(last)
    const at = tear(last, chance)
    const after = readFileSync(last)
    writeFileSync(last, before)
    for (const id of decisionsPast(last, at)) stage.destroyed.add(id)
    writeFileSync(last, after)
  }
  stage.signal('collector', 'SIGCONT')
  await stage.start('router')
}

/** A whole batch that turned bad on the disk: it is set aside, and those behind it are delivered. */
const poisonedBatch = async (stage: Stage, chance: Chance, ms: number): Promise<void> => {
  stage.signal('collector', 'SIGSTOP')
  await sleep(chance.between(0.6, 1.5) * ms)
  await stage.kill('router')
  const whole = spoolFiles(stage, '.json')
  if (whole.length > 0) {
    const file = chance.pick(whole)
    stage.damaged += 1
    for (const id of decisionsPast(file, 0)) stage.destroyed.add(id)
    truncateSync(file, chance.integer(0, statSync(file).size - 1))
  }
  stage.signal('collector', 'SIGCONT')
  await stage.start('router')
}

/** The end of the collector's journal, which says what was begun and what is stored. */
const tornJournal = async ({ kill, start, journalFolder }: Stage, chance: Chance, ms: number): Promise<void> => {
  await sleep(chance.between(0.3, 1) * ms)
  await kill('collector')
  const log = join(journalFolder, 'log')
  const lines = readFileSync(log, 'utf8').split('\n')
  const last = lines.at(-2) ?? ''
  // What was begun is flushed before it is inserted and cannot be torn; what was stored may be.
  if (last.includes('"stored"')) truncateSync(log, statSync(log).size - chance.integer(0, last.length))
  appendFileSync(log, chance.pick(['', '\0\0\0\0', '1234abcd {"begun":{"num', 'nonsense\n']))
  await start('collector')
}

/** Refused in words that say whose the folder is, at no cost to whom it belongs. */
const twoOnOneFolder = async ({ rival, failures }: Stage, chance: Chance, ms: number): Promise<void> => {
  await sleep(chance.between(0.1, 0.4) * ms)
  for (const name of chance.shuffled<Name>(['collector', 'router'])) {
    const { how, logFile } = await rival(name)
    const said = readFileSync(logFile, 'utf8')
    if (how !== 'exit code 70') failures.push(`a second ${name} on the same folder: ${how}`)
    if (!/process \d+ owns it|belongs to the router with process id \d+/.test(said))
      failures.push(`a second ${name} on the same folder says: ${said.slice(-300)}`)
  }
}

export const scenarios: readonly Scenario[] = [
  { name: 'kill-router', what: 'the router is killed and started again', play: killAndStart('router') },
  { name: 'kill-collector', what: 'the collector is killed and started again', play: killAndStart('collector') },
  { name: 'kill-both', what: 'both are killed, one soon after the other', play: killBoth },
  { name: 'kill-starting', what: 'a part is killed again while it starts', play: killStarting },
  { name: 'stop', what: 'both are told to stop, perhaps while the collector hangs', play: stopInOrder },
  { name: 'outage', what: 'the collector is away for long', play: outage },
  { name: 'slow', what: 'the collector answers later than it is waited for', play: slowCollector },
  { name: 'duplicates', what: 'requests come late, twice, or their answers never', play: duplicates },
  { name: 'clock-jump', what: 'the clocks jump, up to two days either way', play: clockJump },
  { name: 'busy-disk', what: "the router is killed while its spool's disk is busy", play: busyDisk },
  { name: 'full-spool', what: "the spool's disk is full", needsSmallDisks: true, play: fullSpool },
  { name: 'full-data', what: "the collector's disk is full", needsSmallDisks: true, play: fullData },
  { name: 'two-on-one', what: 'a second part is started on the same folder', play: twoOnOneFolder },
  { name: 'torn-journal', what: "the end of a killed collector's journal is damaged", play: tornJournal },
  { name: 'torn-spool', what: "the end of a killed router's spool is damaged", play: tornSpool },
  { name: 'poisoned-batch', what: 'a whole batch in the spool is damaged', play: poisonedBatch },
]
