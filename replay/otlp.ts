// What a command itself has to store, handed to the collector until it has it. Asked again with the same bytes, the collector
// stores them once, so that trying again is safe.
import { setTimeout as sleep } from 'node:timers/promises'

const requestMsMax = 60_000
export const triesMax = 5
const retryMsFirst = 200
const excerptMax = 200

/** Posts an OTLP request in JSON to `path`; resolves to null when it is stored, else to why it was not the last time. Never rejects. */
export const sendOtlp = async (
  collector: string,
  path: '/v1/traces' | '/v1/logs',
  request: object,
  token: string | null = null,
): Promise<string | null> => {
  const body = JSON.stringify(request)
  const headers = {
    'content-type': 'application/json',
    ...(token === null ? {} : { authorization: `Bearer ${token}` }),
  }
  let why = ''
  for (let attempt = 0; attempt < triesMax; attempt++) {
    if (attempt > 0) await sleep(retryMsFirst * 2 ** attempt)
    try {
      const signal = AbortSignal.timeout(requestMsMax)
      const response = await fetch(new URL(path, collector), { method: 'POST', headers, body, signal })
      const text = await response.text()
      if (response.ok) return null
      why = `${response.status} ${text.slice(0, excerptMax)}`
    } catch (error) {
      why = (error as { cause?: Error }).cause?.message ?? (error as Error).message
    }
  }
  return why
}
