// HTML that cannot be broken by what is put into it: every interpolated value is escaped unless it is markup already.
// Policy names, tags and ids are other people's text.

/** Text that is known to be well-formed HTML. */
export type Markup = { readonly markup: string }
type Part = Markup | string | number | readonly Markup[]

const entities: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
}

const escapeHtml = (text: string): string => text.replace(/[&<>"']/g, (c) => entities[c] ?? c)

export const markup = (trusted: string): Markup => ({ markup: trusted })

const render = (part: Part): string => {
  if (typeof part === 'string' || typeof part === 'number') return escapeHtml(String(part))
  return 'markup' in part ? part.markup : part.map(render).join('')
}

/** A template whose values are escaped. */
export const html = (strings: TemplateStringsArray, ...parts: readonly Part[]): Markup =>
  markup(strings.reduce((text, string, at) => text + render(parts[at - 1] ?? '') + string))
