// The audit of a log: what its records lack, and what that forbids. Replay can say no more than records hold, and it is
// better to hear so on the first day of logging than from a refused verdict a month later. One pass over the records, in
// little memory; what is asked stands in contract.ts, rows.ts and suspicions.ts.
import type { DecisionRecord } from '../../router/policy/record.ts'
import { startContract } from './contract.ts'
import type { AuditFinding, Gravity } from './finding.ts'
import { rowQuestions } from './rows.ts'
import { outcomeQuestions } from './suspicions.ts'

const order: readonly Gravity[] = ['bad', 'warning', 'note']

export type Audit = {
  readonly records: number
  /** Whether something was found without which no estimate may be made; an empty log forbids them too. */
  readonly forbidsEstimation: boolean
  /** Checks that found nothing. */
  readonly passed: number
  /** What the others found, gravest first. */
  readonly findings: readonly AuditFinding[]
}

/** Begins an audit; `nowMs`, milliseconds since 1970, tells what lies in the future. */
export const startAudit = (nowMs: number) => {
  const contract = startContract()
  const questions = [...rowQuestions(nowMs), ...outcomeQuestions()]
  let records = 0
  return {
    add: (record: DecisionRecord): void => {
      records++
      contract.add(record)
      for (const { add } of questions) add(record)
    },
    close: (): Audit => {
      const answers = [...contract.close(), ...questions.map(({ close }) => close())]
      const findings = answers.flatMap((answer) => answer ?? [])
      findings.sort((a, b) => order.indexOf(a.gravity) - order.indexOf(b.gravity) || b.share - a.share)
      return {
        records,
        forbidsEstimation: records === 0 || findings.some(({ gravity }) => gravity === 'bad'),
        passed: answers.length - findings.length,
        findings,
      }
    },
  }
}

/** Audits records that are at hand. */
export const auditRecords = (records: Iterable<DecisionRecord>, nowMs: number): Audit => {
  const audit = startAudit(nowMs)
  for (const record of records) audit.add(record)
  return audit.close()
}
