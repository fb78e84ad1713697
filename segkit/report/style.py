"""The look of the page: light and dark, no external font, nothing fetched."""

CSS = """
:root { color-scheme: light dark; --paper: #f6f7f9; --card: #fff; --ink: #1b1f24; --soft: #59636e; --line: #dde1e6;
  --accent: #0a6e8a; --bar: #bfe3ee; }
@media (prefers-color-scheme: dark) { :root { --paper: #111418; --card: #1a1f25; --ink: #e8ebee; --soft: #9aa5b1;
  --line: #2e353d; --accent: #6cc8e2; --bar: #1f4a58; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
main { max-width: 76rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 1.5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.75rem 0 1rem; overflow-wrap: anywhere; }
.headline { display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); gap: 1rem; margin: 0; }
.tile, .sheet, figure { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; }
.tile { padding: 1rem 1.25rem 1.1rem; }
.tile dt { color: var(--soft); font-size: .9rem; overflow-wrap: anywhere; }
.tile dd { margin: 0; }
.tile .big { font-size: 3rem; line-height: 1.15; font-weight: 650; font-variant-numeric: tabular-nums; }
.tile .big abbr { font-size: 1.1rem; font-weight: 600; color: var(--accent); margin-left: .35em; }
.tile .more { color: var(--soft); font-size: .85rem; font-variant-numeric: tabular-nums; }
.tile .more span { white-space: nowrap; margin-right: .8em; }
.sheet { overflow-x: auto; margin-bottom: 1rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); font-size: .9rem; padding: .8rem 1rem .4rem; }
th, td { padding: .4rem 1rem; text-align: right; white-space: nowrap; }
thead th { color: var(--soft); font-weight: 600; font-size: .85rem; }
tbody tr { border-top: 1px solid var(--line); }
th:first-child { text-align: left; }
tbody th { font-weight: 500; }
td.bar { min-width: 10rem;
  background: linear-gradient(var(--bar), var(--bar)) 0 50% / calc((100% - 4.5rem) * var(--share)) 62% no-repeat; }
.long { max-height: 44rem; overflow: auto; }
.long thead th { position: sticky; top: 0; background: var(--card); }
.chip { display: inline-block; width: .8em; height: .8em; border-radius: .2em; margin-right: .6em;
  border: 1px solid var(--line); vertical-align: -.05em; }
.kind { color: var(--soft); font-size: .85em; font-weight: 400; margin-left: .5em; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(22rem, 100%), 1fr)); gap: 1rem; }
figure { margin: 0; padding: .75rem; display: flex; flex-direction: column; }
figure.wide { grid-column: 1 / -1; }
figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; border-radius: .3rem; }
figure img.small { width: 100%; image-rendering: pixelated; }
figcaption { color: var(--soft); font-size: .9rem; padding-top: .6rem; overflow-wrap: anywhere; }
.notes { color: var(--soft); max-width: 48rem; overflow-wrap: anywhere; }
@media print { .long { max-height: none; } .tile, .sheet, figure { break-inside: avoid; } }
"""
