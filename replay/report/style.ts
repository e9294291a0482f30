// The report's stylesheet: two palettes, one column, and rules for paper.
export const stylesheet = `
:root { color-scheme: light dark; --page: #fbfaf8; --card: #fff; --ink: #1d2129; --quiet: #667085; --line: #dcdfe5;
  --good: #17803d; --warning: #a15c07; --bad: #c22f2f; --refused: #7a3fb0; --neutral: #64748b; --accent: #1f6feb; }
@media (prefers-color-scheme: dark) { :root { --page: #14161a; --card: #1c1f25; --ink: #e7e9ee; --quiet: #98a2b3; --line: #343943;
  --good: #4ac26b; --warning: #e0a341; --bad: #f47067; --refused: #c49bf0; --neutral: #94a3b8; --accent: #6cb0ff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 1rem; }
header, section { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 1.1rem 1.4rem; margin: 0 0 1rem; }
header { border-left: 8px solid var(--tone); }
.promote { --tone: var(--good); } .reject { --tone: var(--bad); } .inconclusive { --tone: var(--warning); } .refused { --tone: var(--refused); }
.badge { display: inline-block; margin: 0; padding: .1rem .7rem; border-radius: 99px; background: var(--tone); color: var(--card); font-weight: 700; }
h1 { font-size: 1.3rem; line-height: 1.35; margin: .6rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 0 0 .6rem; } h3 { font-size: .95rem; margin: 1rem 0 .4rem; } header h2 { margin-top: 1rem; }
.quiet, small { color: var(--quiet); } .quiet { font-size: .88rem; margin: .6rem 0 0; overflow-wrap: anywhere; }
ul { margin: .3rem 0; padding-left: 1.2rem; } li { overflow-wrap: anywhere; }
.reasons, .legend, .checks { list-style: none; padding: 0; }
.reasons li::before { display: inline-block; width: 1.4em; font-weight: 700; }
.reasons .good::before { content: "✓"; color: var(--good); } .reasons .bad::before { content: "✗"; color: var(--bad); } .reasons .warning::before { content: "?"; color: var(--warning); }
.ledger { display: flex; height: 1.6rem; border-radius: 6px; overflow: hidden; gap: 2px; }
.ledger i { flex-basis: 3px; } .legend i { display: inline-block; width: .8rem; height: .8rem; border-radius: 3px; margin-right: .5rem; }
.observed { background: var(--good); } .estimated { background: var(--accent); } .unsupported { background: repeating-linear-gradient(45deg, var(--refused) 0 6px, transparent 6px 10px); }
.checks li { display: grid; grid-template-columns: 1.6rem 12rem 1fr; padding: .3rem 0; border-top: 1px solid var(--line); }
.checks li:first-child { border: 0; } .checks i { font-style: normal; font-weight: 700; }
.checks .good i { color: var(--good); } .checks .warning i { color: var(--warning); } .checks .bad i { color: var(--bad); }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .6rem; text-align: right; border-top: 1px solid var(--line); white-space: nowrap; } thead th { border: 0; color: var(--quiet); font-weight: 600; }
tbody th { text-align: left; font-weight: 500; } thead th:first-child { text-align: left; }
.words th, .words td { text-align: left; } figure { margin: 0 0 .8rem; overflow-x: auto; } figcaption { position: sticky; left: 0; font-size: .92rem; }
figure svg { display: block; width: 100%; min-width: 30rem; height: auto; }
pre { overflow-x: auto; background: var(--page); border-radius: 8px; padding: .7rem; margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; } code { font-size: .85em; }
@media (max-width: 36rem) { main { padding: .5rem; } header, section { padding: .9rem; } .checks li { grid-template-columns: 1.6rem 1fr; } .checks span { grid-column: 2; } }
@media print { :root { --page: #fff; --card: #fff; --ink: #000; } header, section { break-inside: avoid; border-color: #bbb; } .wide { overflow: visible; } th, td { white-space: normal; } }
`
