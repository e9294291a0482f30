// The budget of a re-execution: whatever a call may cost at most is set aside before it is made and settled when its bill is
// known. Nothing is started that the rest could not pay for, so the caps hold whatever the answers turn out to cost.

/** US dollars, and requests sent. */
export type Sum = { readonly usd: number; readonly calls: number }

/** `wait` when calls in flight may give back enough; else the cap that is in the way. */
export type Reserved = 'yes' | 'wait' | 'budget' | 'calls'

export type Purse = {
  readonly reserve: (most: Sum) => Reserved
  readonly settle: (reserved: Sum, spent: Sum) => void
  readonly spent: () => Sum
}

const nothing: Sum = { usd: 0, calls: 0 }

/** A purse of `caps` from which `before` is already gone. */
export const purseOf = (caps: Sum, before: Sum): Purse => {
  let spent = before
  let aside: Sum = nothing
  let open = 0
  const plus = (a: Sum, b: Sum, sign = 1): Sum => ({ usd: a.usd + sign * b.usd, calls: a.calls + sign * b.calls })
  const exceeded = (sum: Sum): 'budget' | 'calls' | null =>
    sum.usd > caps.usd ? 'budget' : sum.calls > caps.calls ? 'calls' : null
  return {
    reserve: (most) => {
      const never = exceeded(plus(spent, most))
      if (never) return never
      if (exceeded(plus(plus(spent, aside), most))) return 'wait'
      aside = plus(aside, most)
      open++
      return 'yes'
    },
    settle: (reserved, paid) => {
      open--
      // Exactly nothing when nothing is open: a rounding left over would be waited for without end.
      aside = open === 0 ? nothing : plus(aside, reserved, -1)
      spent = plus(spent, paid)
    },
    spent: () => spent,
  }
}
