// What a person's data looks like in a text: e-mail addresses, telephone numbers, payment cards, bank accounts. Every pattern
// has bounded repetitions, so that a text made to be slow is not; checksums (Luhn, ISO 7064) tell a number from a card.

/** One value that was found: where, and the form under which the same value is always the same. */
export type Found = { readonly start: number; readonly end: number; readonly value: string }
/** Finds one kind of value: in order, none over another. */
export type Detector = { readonly kind: string; readonly find: (text: string) => readonly Found[] }

const cardDigits = { min: 13, max: 19 }
/** Digits in each group but the last, as cards are printed (4-4-4-4, 4-6-5); a row of small numbers is no card. */
const cardGroup = { min: 4, max: 6 }

/** A detector by a regular expression; `normal` gives the form that is the same for the same value. */
export const byPattern = (
  kind: string,
  pattern: RegExp,
  normal: (found: string) => string = (found) => found,
): Detector => ({
  kind,
  find: (text) =>
    Array.from(text.matchAll(pattern), ({ 0: found, index }) => ({
      start: index,
      end: index + found.length,
      value: normal(found),
    })),
})

const foldable = /[\p{Nd}\p{Zs}\p{Pd}\u200b\u2060\u2212\uff01-\uff5e]/gu
const isDigit = /\p{Nd}/u
const notAscii = /[\u0080-\uffff]/

const foldOne = (found: string): string => {
  const code = found.charCodeAt(0)
  if (code < 128 || found.length > 1) return found
  if (isDigit.test(found)) {
    // Every script's digits begin where a row of 16 does, or 6 after.
    const row = code - (code % 16)
    return String(code - (isDigit.test(String.fromCharCode(row)) ? row : row + 6))
  }
  if (code > 0xff00) return String.fromCharCode(code - 0xfee0)
  return /[\p{Pd}\u2212]/u.test(found) ? '-' : ' '
}

/** The text with digits of all scripts, full-width letters and signs, and all kinds of spaces and dashes as ASCII; of the same length. */
export const folded = (text: string): string => (notAscii.test(text) ? text.replaceAll(foldable, foldOne) : text)

/** An at sign may be escaped, as it is in an address on the web. */
const emailPattern = /[\p{L}\p{N}._%+'-]{1,64}(?:@|%40)[\p{L}\p{N}-]{1,63}(?:\.[\p{L}\p{N}-]{1,63}){0,8}\.\p{L}{2,24}/gu
const emailsIn = byPattern('email', emailPattern, (found) => found.toLowerCase().replace('%40', '@'))
const emails: Detector = { kind: 'email', find: (text) => (/@|%40/.test(text) ? emailsIn.find(text) : []) }

/** + or 00 and 7 to 15 digits; a national number behind its 0; North America's 3-3-4. */
const phonePattern = new RegExp(
  [
    String.raw`(?<![\w+.])(?:\+|%2[Bb]|00(?=[1-9]))(?:[ .\-/\u00a0]{0,2}\(?\d\)?){7,15}(?!\d)`,
    String.raw`(?<![\w+.\-/])(?:\(0\d{1,4}\)|0\d{2,4})[ .\-/\u00a0]{0,3}\d(?:[ .\-/\u00a0]?\d){5,9}(?![\w])`,
    String.raw`(?<![\w+.\-/])0\d(?:[ .\-\u00a0]\d{2}){4}(?!\w)`,
    String.raw`(?<![\w.\-])(?:1[ .\-])?(?:\(\d{3}\)[ ]?|\d{3}[ .\-])\d{3}[ .\-]\d{4}(?![\w\-])`,
  ].join('|'),
  'g',
)
const phones = byPattern('phone', phonePattern, (found) => found.replace(/%2b/i, '+').replaceAll(/[^\d+]/g, ''))

/** Whether digits carry Luhn's check digit (ISO/IEC 7812-1, annex B). */
export const isLuhn = (digits: string): boolean => {
  let sum = 0
  for (let at = digits.length - 1, double = false; at >= 0; at -= 1, double = !double) {
    const digit = digits.charCodeAt(at) - 48
    sum += double ? (digit > 4 ? 2 * digit - 9 : 2 * digit) : digit
  }
  return sum % 10 === 0
}

/** Groups of digits with at most three separators between two. */
const digitRunPattern = /\d+(?:[ .\-\u00a0]{1,3}\d+)*/g
const groupPattern = /\d+/g
const cards: Detector = {
  kind: 'card',
  find: (text) =>
    Array.from(text.matchAll(digitRunPattern)).flatMap(({ 0: run, index }) =>
      run.length < cardDigits.min ? [] : cardsIn(run, index),
    ),
}

/** 13 to 19 digits with the check digit, in one piece or in groups as they are printed; the longest from each place. */
const cardsIn = (run: string, offset: number): Found[] => {
  const groups = Array.from(run.matchAll(groupPattern), ({ 0: digits, index }) => ({ digits, index }))
  const found: Found[] = []
  for (let first = 0; first < groups.length; first += 1) {
    let [digits, last] = ['', -1]
    for (let at = first; at < groups.length && digits.length < cardDigits.max; at += 1) {
      const group = groups[at]?.digits ?? ''
      digits += group
      if (digits.length >= cardDigits.min && digits.length <= cardDigits.max && isLuhn(digits)) last = at
      if (group.length < cardGroup.min || group.length > cardGroup.max) break
    }
    const [from, to] = [groups[first], groups[last]]
    if (!from || !to) continue
    const end = to.index + to.digits.length
    found.push({
      start: offset + from.index,
      end: offset + end,
      value: run.slice(from.index, end).replaceAll(/\D/g, ''),
    })
    first = last
  }
  return found
}

/** Length of an IBAN by country, from the SWIFT registry. */
const ibanLengths = new Map(
  `AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 ES24 FI18
  FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20
  LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18
  SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30`
    .split(/\s+/)
    .map((entry) => [entry.slice(0, 2), Number(entry.slice(2))] as const),
)
const ibanStart = /(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}(?=[\s-]{0,2}[A-Za-z0-9])/g
const ibanSpanMax = 70

/** Whether the check digits hold: ISO 13616, mod 97-10 of ISO 7064. */
export const isIban = (iban: string): boolean => {
  let rest = 0
  for (const character of iban.slice(4) + iban.slice(0, 4)) {
    const value = Number.parseInt(character, 36)
    rest = (rest * (value > 9 ? 100 : 10) + value) % 97
  }
  return ibanLengths.get(iban.slice(0, 2)) === iban.length && rest === 1
}

const ibans: Detector = {
  kind: 'iban',
  find: (text) => {
    const found: Found[] = []
    for (const { index: start, 0: head } of text.matchAll(ibanStart)) {
      const length = ibanLengths.get(head.slice(0, 2).toUpperCase())
      if (length === undefined || start < (found.at(-1)?.end ?? 0)) continue
      let [iban, end] = ['', start]
      for (; end < Math.min(text.length, start + ibanSpanMax) && iban.length < length; end += 1) {
        const character = text[end] as string
        if (/[A-Za-z0-9]/.test(character)) iban += character.toUpperCase()
        else if (!/[\s-]/.test(character)) break
      }
      if (isIban(iban)) found.push({ start, end, value: iban })
    }
    return found
  },
}

/** The kinds of personal data that can be chosen in signalbox.yaml. */
export const personalKinds = ['email', 'phone', 'card', 'iban'] as const
export type PersonalKind = (typeof personalKinds)[number]

/** In the order in which they look: what has a checksum before what has only a shape. */
export const personalDetectors: readonly (Detector & { readonly kind: PersonalKind })[] = [
  { ...emails, kind: 'email' },
  { ...ibans, kind: 'iban' },
  { ...cards, kind: 'card' },
  { ...phones, kind: 'phone' },
]
