// Two opinions of unequal worth: a judge model scores every row, people score a few. The judge's mean is precise and biased,
// the people's unbiased and imprecise; added in the right proportion they are unbiased and as precise as the judge deserves.
// It is done row by row, as another reward, so that every estimator and every interval works on it unchanged; and model by
// model, because a judge may favour one, and people may look at one's answers more often than at another's.

/** Rows of one model with both scores below which people's say too little about the judge's. */
export const labelledMin = 20

/** Sums over rows with a judge's score, and among them those with a person's: what the proportion follows from. They add up. */
export type JudgeSums = {
  rows: number
  labelled: number
  /** Over the labelled rows: Σ judge, Σ human, Σ judge², Σ human², Σ judge · human. */
  judge: number
  human: number
  judgeSquare: number
  humanSquare: number
  judgeHuman: number
}

export const judgeSums = (): JudgeSums => ({
  rows: 0,
  labelled: 0,
  judge: 0,
  human: 0,
  judgeSquare: 0,
  humanSquare: 0,
  judgeHuman: 0,
})

/** Adds a row: the judge's score and the person's, which is NaN where nobody looked. */
export const addJudged = (sums: JudgeSums, judge: number, human: number): void => {
  sums.rows += 1
  if (Number.isNaN(human)) return
  sums.labelled += 1
  sums.judge += judge
  sums.human += human
  sums.judgeSquare += judge * judge
  sums.humanSquare += human * human
  sums.judgeHuman += judge * human
}

export const mergeJudged = (sums: JudgeSums, other: JudgeSums): void => {
  for (const name of Object.keys(sums) as (keyof JudgeSums)[]) sums[name] += other[name]
}

/** How much the judge counts, how many rows people looked at, and by how much they differ from what of the judge counts. */
export type Rectifier = {
  /** 0 ignores the judge, 1 is the original proposal. */
  readonly lambda: number
  readonly share: number
  readonly offset: number
}

/**
 * Prediction-powered inference (Angelopoulos et al. 2023, algorithm 1) with power tuning ("PPI++", Angelopoulos, Duchi & Zrnic
 * 2023): V = λ mean(judge) + mean over labelled rows of (human − λ judge), λ = Cov(human, judge) / Var(judge) of the
 * labelled rows, within 0…1, which makes the variance least when the labelled rows are among those judged. Rows must have
 * been chosen for people by chance. Throws a RangeError below two labelled rows.
 */
export const rectifierOf = ({ rows, labelled, judge, human, judgeSquare, judgeHuman }: JudgeSums): Rectifier => {
  if (labelled < 2)
    throw new RangeError(
      `a judge was to be corrected by people's scores of ${labelled} of ${rows} rows; it takes at least 2 rows with both`,
    )
  const variance = judgeSquare - judge ** 2 / labelled
  const covariance = judgeHuman - (judge * human) / labelled
  const lambda = variance > 0 ? Math.min(1, Math.max(0, covariance / variance)) : 0
  return { lambda, share: labelled / rows, offset: (human - lambda * judge) / labelled }
}

/**
 * The reward of a row: λ judge + c + 1{labelled} (human − λ judge − c) / share, whose mean is V, whatever c is; c = the offset
 * gives it V's variance too, because what is then divided by the share has mean 0. Outside 0…1 for some rows.
 */
export const rectified = ({ lambda, share, offset }: Rectifier, judge: number, human: number): number => {
  const guess = lambda * judge + offset
  return Number.isNaN(human) ? guess : guess + (human - guess) / share
}

/** Plain data: what became of a log's two opinions. */
export type Judging = {
  /** By arm; null where fewer than 20 rows have both scores. */
  readonly rectifiers: readonly (Rectifier | null)[]
  /** Whether the judge is believed where it cannot be corrected. */
  readonly isTrusted: boolean
  /** Rows that people scored, rows by the judge as corrected by people, and rows by the judge where it cannot be. */
  readonly byPeople: number
  readonly corrected: number
  readonly alone: number
  /** Mean of judge − human over the rows with both, and its standard error; null below two of them. */
  readonly bias: { readonly mean: number; readonly se: number } | null
}

/** Closes the sums of each arm; `byPeople` counts all rows with a person's score. Null where no judge was asked. */
export const judgingOf = (arms: readonly JudgeSums[], byPeople: number, isTrusted: boolean): Judging | null => {
  const all = judgeSums()
  for (const sums of arms) mergeJudged(all, sums)
  if (all.rows === 0) return null
  const canCorrect = ({ labelled }: JudgeSums) => labelled >= labelledMin
  const unlabelled = (of: readonly JudgeSums[]) => of.reduce((sum, { rows, labelled }) => sum + rows - labelled, 0)
  const corrected = unlabelled(arms.filter(canCorrect))
  return {
    rectifiers: arms.map((sums) => (canCorrect(sums) ? rectifierOf(sums) : null)),
    isTrusted,
    byPeople,
    corrected,
    alone: all.rows - all.labelled - corrected,
    bias: all.labelled < 2 ? null : biasOf(all),
  }
}

const biasOf = ({ labelled, judge, human, judgeSquare, humanSquare, judgeHuman }: JudgeSums): Judging['bias'] => {
  const mean = (judge - human) / labelled
  const squares = judgeSquare - 2 * judgeHuman + humanSquare - labelled * mean ** 2
  return { mean, se: Math.sqrt(Math.max(0, squares) / (labelled - 1) / labelled) }
}

/**
 * The quality of a row of `arm` from both opinions, NaN standing for none: corrected where that can be done. It holds where
 * people's rows were chosen by chance among those of the model, whatever share of them that was.
 */
export const qualityBy = ({ rectifiers, isTrusted }: Judging, arm: number, judge: number, human: number): number => {
  if (Number.isNaN(judge)) return human
  const rectifier = rectifiers[arm]
  if (rectifier) return rectified(rectifier, judge, human)
  return Number.isNaN(human) && isTrusted ? judge : human
}
