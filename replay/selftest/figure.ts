// One figure of the self-test: what somebody else has, what we have, and how far apart the two may be.

/** `published`: printed in a paper or a project's documentation. `computed`: got with other software from the same data. */
export const figureSources = ['published', 'computed'] as const
export type FigureSource = (typeof figureSources)[number]

export type Figure = {
  /** Whose figure: 'OBP', 'RouteLLM', … */
  readonly group: string
  readonly name: string
  readonly source: FigureSource
  readonly expected: number
  readonly ours: number
  /** The digits after the point that are compared, and shown. */
  readonly decimals: number
  /** How far apart the two may be where chance has a part in it; 0 where every digit must agree. */
  readonly tolerance: number
  readonly ok: boolean
}

/** Compares digit by digit, or within a tolerance where there is one. */
export const figure = (parts: Omit<Figure, 'ok' | 'tolerance'> & { readonly tolerance?: number }): Figure => {
  const { expected, ours, decimals, tolerance = 0 } = parts
  const ok =
    tolerance > 0 ? Math.abs(ours - expected) <= tolerance : ours.toFixed(decimals) === expected.toFixed(decimals)
  return { ...parts, tolerance, ok }
}
