// Two opinions of unequal worth: a judge model scores every row, people score a few. The judge's mean is precise and biased,
// the people's unbiased and imprecise; added in the right proportion they are unbiased and as precise as the judge deserves.
// It is done row by row, as another reward, so that every estimator and every interval works on it unchanged.

/** Sums over rows with a judge's score, and among them those with a person's: what the proportion follows from. They add up. */
export type JudgeSums = {
  rows: number
  labelled: number
  /** Over the labelled rows: Σ judge, Σ human, Σ judge², Σ judge · human. */
  judge: number
  human: number
  judgeSquare: number
  judgeHuman: number
}

export const judgeSums = (): JudgeSums => ({ rows: 0, labelled: 0, judge: 0, human: 0, judgeSquare: 0, judgeHuman: 0 })

/** Adds a row: the judge's score and the person's, which is NaN where nobody looked. */
export const addJudged = (sums: JudgeSums, judge: number, human: number): void => {
  sums.rows += 1
  if (Number.isNaN(human)) return
  sums.labelled += 1
  sums.judge += judge
  sums.human += human
  sums.judgeSquare += judge * judge
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
