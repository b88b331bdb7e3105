"""A report as one HTML file that needs no network, in light and dark, from a phone's width upwards."""

import base64
import html
from collections.abc import Sequence

from evohydra.report.blocks import Block, Drawing, Link, Picture, Section, Table
from evohydra.report.style import svg, variables

STYLE = """
:root { color-scheme: light dark; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 66rem; font: 16px/1.5 system-ui, sans-serif;
  color: var(--c1); background: var(--c0); overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: 0 0 .5rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
a { color: var(--c4); } p { margin: 0; max-width: 46rem; }
.blocks { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr)); }
.blocks > p, .wide { grid-column: 1 / -1; }
figure { margin: 0; padding: .6rem; border: 1px solid var(--c3); border-radius: .5rem; min-width: 0; }
figure > .scroll > svg { display: block; width: 100%; min-width: var(--least); max-width: 31rem; height: auto; }
figure > .scroll > svg.broad { max-width: none; }
svg text { white-space: pre; } svg * { stroke-linejoin: round; stroke-linecap: butt; }
img { display: block; max-width: 100%; height: auto; background: white; }
figcaption { font-size: .85rem; color: var(--c2); margin-top: .4rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--c3); text-align: right; vertical-align: top;
  overflow-wrap: normal; white-space: nowrap; }
th:first-child, td:first-child, .words th, .words td { text-align: left; }
.words td { min-width: 6rem; max-width: 22rem; white-space: normal; overflow-wrap: anywhere; }
.words td:first-child { min-width: 0; }
th { color: var(--c2); font-weight: 600; }
"""
PHONE = 4.6  # inches: figures that are wider keep their size there, and scroll in their own box
COLUMNS = 5  # a table with more has a row of the page for itself


def page(title: str, sections: Sequence[Section]) -> str:
    """The HTML of the report."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{html.escape(title)}</title><style>{variables()}{STYLE}</style></head>'
        f"<body><h1>{html.escape(title)}</h1>{''.join(map(_section, sections))}</body></html>\n"
    )


def _section(section: Section) -> str:
    blocks = "".join(map(_block, section.blocks))
    return f'<section><h2>{html.escape(section.title)}</h2><div class="blocks">{blocks}</div></section>'


def _block(block: Block) -> str:
    match block:
        case Drawing():
            return _drawing(block)
        case Table():
            return _table(block)
        case Picture():
            data = base64.b64encode(block.path.read_bytes()).decode()
            shown = f'<img alt="{html.escape(block.caption)}" src="data:image/png;base64,{data}">'
            return _figure(shown, block.caption, wide=True)
        case Link():
            return f"<p>{_cell(block)}</p>"
        case _:
            return f"<p>{html.escape(block)}</p>"


def _drawing(drawing: Drawing) -> str:
    broad = drawing.figure.get_figwidth() > PHONE
    least = f"{drawing.figure.get_figwidth() * 72:.0f}px" if broad else "0"
    label = html.escape(drawing.caption.split(".")[0])
    drawn = svg(drawing.figure, drawing.name).replace(
        "<svg", f'<svg role="img" aria-label="{label}" style="--least: {least}"{" class=broad" if broad else ""}', 1
    )
    return _figure(drawn, drawing.caption, wide=broad)


def _table(table: Table) -> str:
    heads = "".join(f"<th>{html.escape(head)}</th>" for head in table.heads)
    rows = "".join(f"<tr>{''.join(f'<td>{_cell(cell)}</td>' for cell in row)}</tr>" for row in table.rows)
    words = ' class="words"' if table.words else ""
    return _figure(
        f"<table{words}><tr>{heads}</tr>{rows}</table>", table.caption, wide=table.words or len(table.heads) > COLUMNS
    )


def _cell(cell: str | Link) -> str:
    if isinstance(cell, str):
        return html.escape(cell)
    return f'<a href="{html.escape(cell.path)}">{html.escape(cell.text)}</a>'


def _figure(content: str, caption: str, *, wide: bool) -> str:
    shown = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return f'<figure{" class=wide" if wide else ""}><div class="scroll">{content}</div>{shown}</figure>'
