// Bytes, times and counts as a person reads them, and rows of them under each other, for the commands that print tables.
const bytesPerUnit = 1024
const byteUnits = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB']
const msPerSecond = 1000
const msPerMinute = 60_000
const msPerHour = 3_600_000
const msPerDay = 86_400_000
const digitsBelow = 10

/** `1536` as `1.5 KiB`. */
export const bytesText = (bytes: number): string => {
  let [value, unit] = [bytes, 0]
  while (value >= bytesPerUnit && unit < byteUnits.length - 1) {
    value /= bytesPerUnit
    unit += 1
  }
  return `${value.toFixed(unit === 0 || value >= digitsBelow ? 0 : 1)} ${byteUnits[unit]}`
}

/** `90000` as `90 s`: the largest unit of which there are two or more. */
export const durationText = (ms: number): string => {
  const units = [
    [msPerDay, 'days'],
    [msPerHour, 'h'],
    [msPerMinute, 'min'],
    [msPerSecond, 's'],
  ] as const
  const [size, name] = units.find(([each]) => ms >= 2 * each) ?? [1, 'ms']
  return `${Math.round(ms / size)} ${name}`
}

export const countText = (count: number): string => count.toLocaleString('en-US')

/** Rows of text under each other, numbers to the right. */
export const tableText = (rows: readonly (readonly (string | number)[])[]): string => {
  const widths = (rows[0] ?? []).map((_, at) => Math.max(...rows.map((row) => String(row[at] ?? '').length)))
  const isNumber = (at: number): boolean =>
    rows.slice(1).every((row) => /^[\d.,]+( \w+)?$|^$|^–$/.test(String(row[at] ?? '')))
  const cell = (text: string, at: number): string =>
    isNumber(at) ? text.padStart(widths[at] ?? 0) : text.padEnd(widths[at] ?? 0)
  return rows
    .map((row) =>
      row
        .map((each, at) => cell(String(each), at))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}
