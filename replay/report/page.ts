// What every page of ours is made of: the document, its sections, folds and figures, and numbers that carry the value and
// the place in the page's own JSON they come from. One file, no script, no network; a content policy forbids both.
import { html, type Markup, markup } from './markup.ts'
import { stylesheet } from './style.ts'
import { short } from './words.ts'

/** A whole page. `data` goes into it as JSON, under the id `replay`, for programs that read what people see. */
export const page = (title: string, body: readonly Markup[], data?: unknown): string =>
  html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>${title}</title>
<style>${markup(stylesheet)}</style>
</head>
<body>
<main>
${body}
</main>
${data === undefined ? '' : html`<script type="application/json" id="replay">${embedded(data)}</script>`}
</body>
</html>
`.markup

/** JSON that cannot end the element it stands in. */
const embedded = (data: unknown): Markup => markup((JSON.stringify(data) ?? 'null').replaceAll('<', '\\u003c'))

/** A section with its heading and, in a sentence, what it shows. */
export const section = (title: string, lead: Markup | string, body: readonly Markup[]): Markup =>
  html`<section><h2>${title}</h2>${lead === '' ? '' : html`<p class="lead">${lead}</p>`}${body}</section>`

/** What need not be read at once; on paper it is open. */
export const fold = (title: string, body: readonly Markup[]): Markup =>
  html`<details><summary>${title}</summary>${body}</details>`

export const figure = (title: Markup | string, picture: Markup, note: Markup | string = ''): Markup =>
  html`<figure><figcaption>${title}</figcaption>${picture}${note === '' ? '' : html`<p class="quiet">${note}</p>`}</figure>`

/** Figures side by side where there is room. */
export const sideBySide = (figures: readonly Markup[]): Markup => html`<div class="side">${figures}</div>`

/** Somebody else's name: cut to length, and kept from turning the text around it. */
export const nameOf = (text: string): Markup => html`<bdi>${short(text)}</bdi>`

/** A number as people read it, with its value and the path to it in the page's JSON. */
export const figured = (path: string, value: number, text: string): Markup =>
  Number.isFinite(value) ? html`<data value="${value}" data-path="${path}">${text}</data>` : html`${text}`

export const table = (heads: readonly (Markup | string)[], rows: readonly Markup[], kind = ''): Markup =>
  html`<div class="wide"><table class="${kind}"><thead><tr>${heads.map((head) => html`<th scope="col">${head}</th>`)}</tr></thead><tbody>${rows}</tbody></table></div>`

/** The names of the two policies in the colours of the pictures. */
export const versus: Markup = html`<b class="key production">production</b> <b class="key candidate">candidate</b>`
