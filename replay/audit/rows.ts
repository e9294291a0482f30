// How the rows of a log stand to each other: ids that come twice, requests that became two rows, turns of one conversation,
// times that cannot be, and what is unknown of which model. Keys are kept as hashes, 16 bytes each, however long the log.
import { draw } from '../../router/policy/chance.ts'
import { hashSet } from '../redecide/hash-set.ts'
import { percent, short } from '../report/words.ts'
import { findingOf, type Question } from './finding.ts'

const hashRange = 2 ** 53
/** More requests than this that became two rows each forbid estimation. */
const doubleShareMax = 0.01
/** Clocks of two machines differ by less. */
const clockSkewMs = 60_000
const modelsMax = 1000
const featuresMax = 200
const modelsNamedMax = 3
const featuresNamedMax = 6
const muchUnknown = 0.5

const hashOf = (text: string, kind: string): number => draw(text, 'audit', kind) * hashRange

const repeatedIds = (): Question => {
  const seen = hashSet()
  let [repeated, rows] = [0, 0]
  return {
    add: ({ id }) => {
      rows++
      if (!seen.add(hashOf(id, 'id'))) repeated++
    },
    close: () =>
      repeated === 0
        ? null
        : findingOf('duplicate-id', 'warning', [repeated, rows], {
            what: 'repeat an id; the first of each is used',
            forbids: '',
            remedy: 'Deliver each record once: insert with a deduplication token, read with FINAL.',
          }),
  }
}

/** Rows of one session or user that ask the same within a millisecond: a retry that was logged as a decision of its own. */
export const doubledRows = (): Question => {
  const seen = hashSet()
  let [doubled, rows] = [0, 0]
  return {
    add: ({ session, time, request }) => {
      const { user, tenant, tier, tags, model, input_tokens, output_tokens_max, stream } = request
      if (session === '' && user === '') return
      rows++
      const asked = JSON.stringify([session, user, tenant, tier, tags, model, input_tokens, output_tokens_max, stream])
      const ms = Date.parse(time)
      // Two times at most 1 ms apart share one of these two buckets, and no others do.
      const isNewEven = seen.add(hashOf(`${Math.floor(ms / 2)} ${asked}`, 'even'))
      const isNewOdd = seen.add(hashOf(`${Math.floor((ms + 1) / 2)} ${asked}`, 'odd'))
      if (!isNewEven || !isNewOdd) doubled++
    },
    close: () =>
      doubled === 0
        ? null
        : findingOf('double-row', doubled / rows > doubleShareMax ? 'bad' : 'warning', [doubled, rows], {
            what: 'ask the same in the same session within 1 ms of another row: retries logged as decisions?',
            forbids: 'every estimate: one request would count twice',
            remedy: 'Log one record per request; retries and fallbacks are attempts in its outcome.',
          }),
  }
}

const laterTurns = (): Question => {
  const sessions = hashSet()
  let [later, rows] = [0, 0]
  return {
    add: ({ session }) => {
      if (session === '') return
      rows++
      if (!sessions.add(hashOf(session, 'session'))) later++
    },
    close: () =>
      later === 0
        ? null
        : findingOf('later-turn', 'note', [later, rows], {
            what: 'are later turns of a session, which another choice before could have changed',
            forbids: 'intervals that take rows for independent',
            remedy: 'Nothing: rows of one session are one piece of evidence here.',
          }),
  }
}

const clock = (nowMs: number): Question => {
  let [future, rows] = [0, 0]
  return {
    add: ({ time }) => {
      rows++
      if (Date.parse(time) > nowMs + clockSkewMs) future++
    },
    close: () =>
      future === 0
        ? null
        : findingOf('future-time', 'warning', [future, rows], {
            what: 'were decided in the future',
            forbids: 'windows of time, rates and drift',
            remedy: 'Set the clocks of the routers, and send times in UTC.',
          }),
  }
}

const disorder = (): Question => {
  let [backwards, rows, beforeMs] = [0, 0, -Infinity]
  return {
    add: ({ time }) => {
      const ms = Date.parse(time)
      rows++
      if (ms < beforeMs) backwards++
      beforeMs = ms
    },
    close: () =>
      backwards === 0
        ? null
        : findingOf('out-of-order', 'note', [backwards, rows], {
            what: 'are older than the row before them',
            forbids: 'sequences and simulations in order of arrival, unless sorted',
            remedy: 'Sort the file by time; ClickHouse does so by itself.',
          }),
  }
}

/** What is null or absent, by feature, among the candidates of the log. */
const unknownFeatures = (): Question => {
  const rowsOf = new Map<string, number>()
  const knownOf = new Map<string, Map<string, number>>()
  return {
    add: ({ candidates }) => {
      for (const { model, features } of candidates) {
        if (!rowsOf.has(model) && rowsOf.size >= modelsMax) continue
        rowsOf.set(model, (rowsOf.get(model) ?? 0) + 1)
        for (const feature in features) {
          let known = knownOf.get(feature)
          if (!known) {
            if (knownOf.size >= featuresMax) continue
            known = new Map()
            knownOf.set(feature, known)
          }
          if (features[feature] !== null) known.set(model, (known.get(model) ?? 0) + 1)
        }
      }
    },
    close: () => {
      const all = [...rowsOf.values()].reduce((sum, rows) => sum + rows, 0)
      const lacking = [...knownOf].flatMap(([feature, known]) => {
        const models = [...rowsOf]
          .map(([model, rows]) => ({ model, unknown: rows - (known.get(model) ?? 0), rows }))
          .filter(({ unknown }) => unknown > 0)
          .sort((a, b) => b.unknown - a.unknown || (a.model < b.model ? -1 : 1))
        const unknown = models.reduce((sum, model) => sum + model.unknown, 0)
        return unknown > 0 ? [{ feature, unknown, models }] : []
      })
      lacking.sort((a, b) => b.unknown - a.unknown || (a.feature < b.feature ? -1 : 1))
      const [worst] = lacking
      if (!worst) return null
      const named = lacking.slice(0, featuresNamedMax).map(({ feature, models }) => {
        const shares = models
          .slice(0, modelsNamedMax)
          .map(({ model, unknown, rows }) => `${short(model)} ${percent(unknown / rows)}`)
        return `${short(feature)} (${shares.join(', ')}${models.length > modelsNamedMax ? ', …' : ''})`
      })
      return findingOf(
        'unknown-features',
        worst.unknown / all > muchUnknown ? 'warning' : 'note',
        [worst.unknown, all],
        {
          what: `of all candidates considered have unknown features: ${named.join('; ')}`,
          forbids: 'policies that read them choosing these models',
          remedy: 'Give the router prices and quality for every model, or ask has(candidate.x) in the policy.',
        },
      )
    },
  }
}

/** `nowMs` is the present, in milliseconds since 1970. */
export const rowQuestions = (nowMs: number): readonly Question[] => [
  repeatedIds(),
  doubledRows(),
  laterTurns(),
  clock(nowMs),
  disorder(),
  unknownFeatures(),
]
