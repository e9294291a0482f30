// The report's stylesheet: two palettes whose good and bad differ in blue and in lightness, not only in red and green; one
// column with pictures side by side where there is room; rules for phones and for paper.
const light = `--page: #fcfcfb; --surface: #f4f5f3; --ink: #191c22; --quiet: #596273; --line: #dfe2e7; --good: #08725f; --warning: #8a5a00; --bad: #bb3a07;
  --refused: #68399f; --neutral: #7a8494; --production: #6f7887; --candidate: #1c5fc7;`
const dark = `--page: #14161a; --surface: #1d2026; --ink: #e9ebef; --quiet: #a0a8b6; --line: #323843; --good: #3fc7a8; --warning: #e6b655; --bad: #ff8a5c;
  --refused: #bd9cf2; --neutral: #8e98a8; --production: #a3acba; --candidate: #7db3ff;`

export const stylesheet = `
:root { color-scheme: light dark; ${light} }
@media (prefers-color-scheme: dark) { :root { ${dark} } }
@media print { :root { color-scheme: light; ${light} --page: #fff; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2.2rem 1.5rem 4rem; }
h1 { font-size: 1.5rem; line-height: 1.35; font-weight: 650; letter-spacing: -.012em; margin: .8rem 0 .7rem; max-width: 50rem; overflow-wrap: anywhere; text-wrap: pretty; }
h2 { font-size: 1.22rem; line-height: 1.3; font-weight: 650; letter-spacing: -.005em; margin: 0 0 .35rem; } h3, .aside h2 { font-size: 1rem; letter-spacing: 0; margin: 0 0 .35rem; }
section { margin: 2.6rem 0 0; padding-top: 1.5rem; border-top: 1px solid var(--line); }
p { margin: 0 0 .7rem; } .lead { color: var(--quiet); max-width: 46rem; }
small { color: var(--quiet); font-size: .82em; font-weight: 400; } .quiet { color: var(--quiet); font-size: .88rem; overflow-wrap: anywhere; } .quiet b { color: var(--ink); font-weight: 600; }
ul { margin: .3rem 0; padding-left: 1.2rem; } li { overflow-wrap: anywhere; }
code, pre { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; } code { font-size: .88em; overflow-wrap: anywhere; }
.promote { --tone: var(--good); } .reject { --tone: var(--bad); } .inconclusive { --tone: var(--warning); } .refused { --tone: var(--refused); }
header { border-top: 5px solid var(--tone); padding-top: 1.1rem; }
.mast { display: flex; flex-wrap: wrap; justify-content: space-between; align-items: center; gap: .5rem; margin: 0; color: var(--quiet); font-size: .88rem; }
.badge { padding: .18rem .85rem .22rem; border-radius: 99px; background: var(--tone); color: var(--page); font-weight: 700; font-size: 1rem; }
.tiles, .reasons, .legend, .checks, .plain { list-style: none; padding: 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(14rem, 1fr)); gap: .9rem; margin: 1.3rem 0 0; }
.tiles li { background: var(--surface); border-radius: 10px; padding: .8rem 1rem .9rem; display: flex; flex-direction: column; border-left: 4px solid var(--state); }
.good { --state: var(--good); } .bad { --state: var(--bad); } .warning { --state: var(--warning); }
.tiles .name { font-weight: 600; color: var(--state); } .figure { font-size: 1.7rem; line-height: 1.35; font-weight: 650; letter-spacing: -.02em; font-variant-numeric: tabular-nums; }
.reasons { margin-top: 1rem; } .reasons li { padding: .35rem 0 .35rem 1.7rem; text-indent: -1.7rem; } .reasons li::before { content: "✗"; display: inline-block; width: 1.7rem; text-indent: 0; font-weight: 700; color: var(--bad); }
.aside { background: var(--surface); border-radius: 10px; padding: .9rem 1.1rem; margin: 1.1rem 0 0; } .aside p { margin: 0; } .aside .figure { margin-right: .5rem; }
.ledger { display: flex; height: 1.5rem; border-radius: 5px; overflow: hidden; gap: 2px; margin: .9rem 0 .7rem; } .ledger i { flex-basis: 3px; }
.legend { display: grid; gap: .2rem; } .legend li { padding-left: 1.4rem; position: relative; color: var(--quiet); font-size: .92rem; } .legend b { color: var(--ink); } .legend i { position: absolute; left: 0; top: .38rem; width: .8rem; height: .8rem; border-radius: 3px; }
.observed { background: var(--production); } .estimated { background: var(--candidate); } .reexecuted { background: var(--good); } .unsupported { background: repeating-linear-gradient(45deg, var(--refused) 0 5px, transparent 5px 9px); }
.checks { margin-top: .6rem; } .checks li { display: grid; grid-template-columns: 1.9rem 11.5rem 1fr; padding: .42rem 0; border-top: 1px solid var(--line); align-items: baseline; } .checks li:first-child { border: 0; }
.checks i, .mark { font-style: normal; font-weight: 700; color: var(--state); } .checks i { width: 1.35rem; height: 1.35rem; line-height: 1.35rem; border-radius: 50%; text-align: center; font-size: .82rem; background: var(--state); color: var(--page); }
.checks b { font-weight: 600; } .checks span { color: var(--quiet); font-size: .94rem; }
.wide { overflow-x: auto; margin: .6rem 0 .8rem; } table { border-collapse: collapse; width: 100%; font-size: .93rem; font-variant-numeric: tabular-nums; }
th, td { padding: .5rem .5rem; text-align: right; border-top: 1px solid var(--line); white-space: nowrap; vertical-align: middle; } th:first-child { padding-left: 0; } td:last-child { padding-right: 0; }
thead th { border: 0; color: var(--quiet); font-weight: 500; font-size: .85rem; padding-bottom: .25rem; vertical-align: bottom; } tbody th { text-align: left; font-weight: 550; white-space: normal; } thead th:first-child, .words th, .words td { text-align: left; } .words td { white-space: normal; overflow-wrap: anywhere; } .words .number { text-align: right; white-space: nowrap; } .words thead th:last-child { text-align: right; }
td small { display: block; } .words { font-size: .9rem; } .words th, .words td { padding-block: .34rem; } .words tbody th { font-weight: 450; } .moves { font-size: .82rem; } .moves .number, .moves thead th:last-child { width: 1%; } .segments th, .segments td { padding-block: .34rem; } .segments thead th { text-align: right; } th small { display: inline; }
.strip { width: 15rem; padding-block: .2rem; } .strip svg { width: 100%; min-width: 6.5rem; height: auto; } .over { display: block; text-align: center; color: var(--ink); font-weight: 600; } .ends { display: flex; justify-content: space-between; gap: 1rem; font-weight: 400; }
.segments .strip { width: 11.5rem; }
.side { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(21rem, 100%), 1fr)); gap: 1.6rem 2.2rem; align-items: start; margin: .9rem 0; }
figure { margin: 0; max-width: 34rem; min-width: 0; } figcaption { font-weight: 600; font-size: .95rem; margin-bottom: .4rem; } figure .quiet { margin: .3rem 0 0; }
.plot { display: block; width: 100%; height: auto; overflow: visible; font: 12.5px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif; font-variant-numeric: tabular-nums; color: var(--ink); }
.plot text { white-space: pre; } .plot .halo { fill: var(--ink); paint-order: stroke; stroke: var(--page); stroke-width: 3px; stroke-linejoin: round; }
.interval { white-space: nowrap; } .notes { max-width: 30rem; } .notes h3 { color: var(--ink); font-size: .95rem; } .key { font-weight: 600; white-space: nowrap; } .key::before { content: ""; display: inline-block; width: 1.3rem; border-top: 3px solid; vertical-align: .28em; margin: 0 .35rem 0 .6rem; } .key.production { color: var(--production); } .key.production::before { border-top-style: dashed; } .key.candidate { color: var(--candidate); }
details { margin: .9rem 0 0; border-top: 1px solid var(--line); } section > details:first-of-type { margin-top: 1rem; } summary { cursor: pointer; padding: .6rem 0; font-weight: 600; } summary::marker { color: var(--quiet); } summary:hover { color: var(--candidate); } :focus-visible { outline: 2px solid var(--candidate); outline-offset: 2px; }
pre { background: var(--surface); border-radius: 8px; padding: .8rem 1rem; margin: .5rem 0 .8rem; font-size: .88rem; white-space: pre-wrap; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: 0; } dd { margin: 0; min-width: 0; }
@media screen and (max-width: 46rem) {
  main { padding: 1rem 1rem 3rem; } h1 { font-size: 1.3rem; } section { margin-top: 1.8rem; padding-top: 1.2rem; }
  .checks li { grid-template-columns: 1.9rem 1fr; } .checks span { grid-column: 2; }
  .forest thead { display: none; } .forest tr { display: grid; grid-template-columns: 1fr 1fr; gap: .1rem 1rem; padding: .7rem 0; border-top: 1px solid var(--line); }
  .forest th, .forest td { border: 0; padding: 0; white-space: normal; } .forest th { grid-column: 1 / -1; } .forest td[data-label]:not(.strip) { display: flex; flex-wrap: wrap; justify-content: flex-end; align-items: baseline; gap: .5rem; font-size: .9rem; } .forest td[data-label]:not(.strip)::before { margin-right: auto; content: attr(data-label); color: var(--quiet); }
  .forest td[data-label="difference"], .forest td[data-label="95 % interval"] { grid-column: 1 / -1; } .forest .strip { width: auto; grid-column: 1 / -1; } .forest.segments .strip { grid-column: 1; } .forest.segments .strip::before { content: attr(data-label); color: var(--quiet); font-size: .82rem; display: block; text-align: left; }
  .words thead { display: none; } .words tr { display: grid; grid-template-columns: 1fr auto; gap: .1rem 1rem; padding: .5rem 0; border-top: 1px solid var(--line); } .words th, .words td { border: 0; padding: 0; } .words th { grid-column: 1 / -1; }
}
@media print {
  body { font-size: 10.5pt; -webkit-print-color-adjust: exact; print-color-adjust: exact; } main { padding: 0; max-width: none; } section { margin-top: 1.2rem; padding-top: .8rem; }
  figure, tr, .tiles li, .aside, .checks li { break-inside: avoid; } h2, h3, summary, figcaption { break-after: avoid; } .wide { overflow: visible; } .tiles { grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); } .side { grid-template-columns: 1fr 1fr; gap: 1rem 1.4rem; }
  table, .words, .moves { font-size: 8.5pt; } th, td { padding: .22rem .3rem; } tbody td { white-space: normal; } .strip, .segments .strip { width: 8.5rem; }
  details::details-content { display: block; content-visibility: visible; height: auto; } summary { list-style: none; }
}
`
