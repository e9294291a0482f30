// The report as one HTML file that needs no network: light and dark, on a phone and on paper. What it says comes from the
// same data and the same words as the terminal's report; everything that is not ours is escaped.

import type { Estimate } from '../estimate/estimators.ts'
import type { MetricResult } from '../estimate/evaluate.ts'
import { metrics } from '../estimate/metrics.ts'
import type { ChangedDecision, Replay } from '../run.ts'
import { differenceChart, planeChart } from './charts.ts'
import { type Check, checksOf } from './checks.ts'
import { html, type Markup, markup } from './markup.ts'
import { stylesheet } from './style.ts'
import {
  armName,
  causeText,
  count,
  differenceText,
  figuresOf,
  findingText,
  isShown,
  isSupported,
  percent,
  refusalText,
  remedyText,
  shortHash,
  shownFindings,
  verdictSentence,
} from './words.ts'

const titles: Readonly<Record<Replay['verdict']['kind'], string>> = {
  promote: 'Promote',
  reject: 'Reject',
  inconclusive: 'Undecided',
  refused: 'No verdict',
}

/** `command` is the command line that makes the report again. */
export const reportHtml = (replay: Replay, command: string): string =>
  html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${titles[replay.verdict.kind]}: ${replay.candidate.name}</title>
<style>${markup(stylesheet)}</style>
</head>
<body>
<main>
${header(replay)}
${replay.rows > 0 ? [evidence(replay), figures(replay), differences(replay), plane(replay)] : []}
${checks(replay)}
${fidelity(replay)}
${changes(replay)}
${reproduction(replay, command)}
</main>
</body>
</html>
`.markup

const header = (replay: Replay): Markup => {
  const { verdict, candidate, production, rows, window } = replay
  const reasons =
    verdict.kind === 'refused'
      ? verdict.refusals.map((refusal) => html`<li class="bad">${refusalText(refusal)}</li>`)
      : shownFindings(replay, verdict.findings).map(
          (finding) => html`<li class="${findingClass[finding.result]}">${findingText(replay, finding)}</li>`,
        )
  const remedies = verdict.remedies.map((remedy) => html`<li>${remedyText(remedy)}</li>`)
  const span = window
    ? ` from ${window.from.slice(0, 16).replace('T', ' ')} to ${window.to.slice(0, 16).replace('T', ' ')} UTC`
    : ''
  const logged = production.map(({ name, hash }) => `${name} ${shortHash(hash)}`).join(', ')
  return html`<header class="${verdict.kind}">
<p class="badge">${titles[verdict.kind]}</p>
<h1>${verdictSentence(replay)}</h1>
<p class="quiet">Candidate <b>${candidate.name}</b> ${shortHash(candidate.hash)} against <b>${logged || 'nothing'}</b>, on ${count(rows)} decisions${span}.</p>
<ul class="reasons">${reasons}</ul>
${remedies.length > 0 ? html`<h2>What would help</h2><ul>${remedies}</ul>` : ''}
</header>`
}

const findingClass = { held: 'good', harm: 'bad', open: 'warning' } as const

const evidence = ({ shares }: Replay): Markup => {
  const parts = [
    {
      name: 'observed',
      share: shares.observed,
      means: 'the candidate chooses as production did, and the logged outcome is reused',
    },
    {
      name: 'estimated',
      share: shares.estimated,
      means: 'it chooses otherwise; estimated from requests where production happened to choose so',
    },
    {
      name: 'unsupported',
      share: shares.unsupported,
      means: 'it chooses what production never would; nothing is known',
    },
  ].filter(({ share }) => share > 0)
  return html`<section><h2>Where the evidence comes from</h2>
<div class="ledger" role="img" aria-label="Shares of evidence">${parts.map(({ name, share }) => html`<i class="${name}" style="flex-grow:${share}"></i>`)}</div>
<ul class="legend">${parts.map(({ name, share, means }) => html`<li><i class="${name}"></i><b>${percent(share)} ${name === 'unsupported' ? 'never tried' : name}</b> ${means}</li>`)}</ul></section>`
}

const figures = (replay: Replay): Markup => {
  const known = replay.metrics.filter((result) => result.rows > 0 && isShown(result))
  const rows = known.map((result) => {
    const { production, candidate, difference, interval, relative } = figuresOf(replay, result)
    return html`<tr><th scope="row">${metrics[result.metric].title}</th><td>${production}</td><td>${candidate}</td><td>${difference} <small>${relative}</small></td><td>${interval}</td></tr>`
  })
  return html`<section><h2>Per request</h2><div class="wide"><table>
<thead><tr><th></th><th>production</th><th>candidate</th><th>difference</th><th>95 % interval</th></tr></thead>
<tbody>${rows}</tbody></table></div>
<p class="quiet">Doubly robust, cross-fitted, paired on the same requests, clustered by ${replay.clusterKeys.join(', ')}. “Production” is what the logged policy comes to over its own draws, the fair counterpart of the candidate. A dash: the log cannot tell.</p>
<h3>By each estimator</h3><div class="wide"><table>
<thead><tr><th></th><th>as logged</th><th>DR</th><th>SNIPS</th><th>IPS</th><th>DM</th></tr></thead>
<tbody>${known.map((result) => estimatorRow(replay, result))}</tbody></table></div>
<p class="quiet">“As logged” is the plain mean: the bill. DM is the outcome model’s projection and never decides.</p></section>`
}

const estimatorRow = (replay: Replay, result: MetricResult): Markup => {
  const { say, title } = metrics[result.metric]
  const cell = ({ value, low, high }: Estimate) =>
    isSupported(replay, result)
      ? html`<td>${say(value)} <small>[${say(low)}, ${say(high)}]</small></td>`
      : html`<td>—</td>`
  const { dr, snips, ips, dm } = result.estimators
  return html`<tr><th scope="row">${title}</th><td>${say(result.logged.value)}</td>${[dr, snips, ips].map(cell)}<td>${isSupported(replay, result) ? say(dm.value) : '—'}</td></tr>`
}

const differences = (replay: Replay): Markup => {
  const shown = replay.metrics.filter(
    (result) =>
      result.rows > 0 && isShown(result) && isSupported(replay, result) && Number.isFinite(result.difference.se),
  )
  if (shown.length === 0) return markup('')
  const figure = (result: MetricResult) => {
    const { difference, relative } = figuresOf(replay, result)
    const finding = replay.verdict.findings.find(({ metric }) => metric === result.metric)
    return html`<figure><figcaption>${metrics[result.metric].title}: <b>${difference}</b> <small>${relative}</small></figcaption>${differenceChart(result, finding)}</figure>`
  }
  return html`<section><h2>What changes</h2>${shown.map(figure)}
<p class="quiet">Dot and bar: difference with its 95 % interval. Dashed: the margin beyond which the gate sees harm.</p></section>`
}

const plane = (replay: Replay): Markup => {
  const chart = replay.metrics.every((result) => result.rows === 0 || isSupported(replay, result))
    ? planeChart(replay)
    : null
  return chart ? html`<section><h2>Cost and quality</h2><figure>${chart}</figure></section>` : markup('')
}

const lights: Readonly<Record<Check['state'], string>> = { good: '✓', warning: '!', bad: '✗' }

const checks = (replay: Replay): Markup =>
  html`<section><h2>Whether it may be believed</h2><ul class="checks">${checksOf(replay).map(
    ({ name, found, state }) =>
      html`<li class="${state}"><i>${lights[state]}</i><b>${name}</b><span>${found}</span></li>`,
  )}</ul></section>`

const fidelity = ({ verification: { groups } }: Replay): Markup =>
  groups.length === 0
    ? markup('')
    : html`<section><h2>Decisions that do not come out as logged</h2><ul>${groups.map(
        ({ cause, count: n, examples }) =>
          html`<li>${count(n)} × ${causeText(cause)}${
            cause.kind === 'field'
              ? html`<ul>${examples.map((difference) => html`<li><code>${differenceText(difference)}</code></li>`)}</ul>`
              : ''
          }</li>`,
      )}</ul></section>`

const changes = ({ moves, sample, shares }: Replay): Markup =>
  moves.length === 0
    ? markup('')
    : html`<section><h2>Which decisions change</h2>
<p>${percent(1 - shares.observed)} of the decisions change.</p>
<div class="wide"><table class="words"><thead><tr><th>production</th><th>candidate</th><th>decisions</th></tr></thead><tbody>${moves.map(
        ({ from, to, count: n }) =>
          html`<tr><th scope="row">${armName(from)}</th><th scope="row">${armName(to)}</th><td>${count(n)}</td></tr>`,
      )}</tbody></table></div>
<h3>A few of them</h3>
<div class="wide"><table class="words"><thead><tr><th>request</th><th>production</th><th>candidate</th><th>its probability before</th></tr></thead><tbody>${sample.map(changed)}</tbody></table></div></section>`

const changed = ({ record, decision }: ChangedDecision): Markup => {
  const { request } = record
  const before = record.candidates.find(({ model }) => model === decision.chosen)?.probability ?? 0
  const tags = Object.entries(request.tags).map(([key, value]) => `${key}=${value}`)
  return html`<tr><th scope="row">${[`${count(request.input_tokens)} tokens`, request.tier, ...tags].filter(Boolean).join(', ')}<br><small><code>${record.id}</code></small></th>
<td>${armName(record.chosen ?? '')} <small>${record.reason ?? ''}</small></td><td>${armName(decision.chosen ?? '')} <small>${decision.reason}</small></td><td>${percent(before)}</td></tr>`
}

const reproduction = ({ candidate, production, engine, options }: Replay, command: string): Markup =>
  html`<section><h2>Make this report again</h2><pre>${command}</pre>
<p class="quiet">engine ${engine} · candidate <code>${candidate.hash}</code>${production.map(
    ({ name, hash, rows }) => html` · ${name} <code>${hash || 'no hash'}</code> (${count(rows)} rows)`,
  )}${options.trustPropensities ? ' · probabilities taken on trust' : ''}${options.missingAtRandom ? ' · outcomes taken to be missing at random' : ''}</p></section>`
