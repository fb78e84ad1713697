"""One self-contained HTML page about an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.report.metric_values import PER_CLASS, Group, as_number, format_value, read_group
from segkit.report.pixels import data_uri
from segkit.report.style import CSS
from segkit.structures import Category, CategorySet
from segkit.utils.files import replacing

WIDE_PX = 900  # a picture of this width has a row of the gallery to itself
ROWS_IN_VIEW = 25  # a longer table scrolls inside its frame, so that the pictures stay near
PERCENT = 100.0  # a whole bar, but for counts: there it is the largest
SMALL_PX = 256  # a picture of at most this width is enlarged to its place, pixels staying sharp


def write_page(
    path: str | Path,
    title: str,
    metrics: Mapping[str, Mapping[str, Any]],
    pictures: Sequence[tuple[str, NDArray[np.uint8]]] = (),
    *,
    categories: CategorySet | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Write headline numbers, a table per task, tables per class (the worst first) and a gallery, whole or not at all.

    metrics: task -> result of its evaluator, in percent, as `metrics_table` takes it, with a table `per_class`
    (row -> column -> value, the first column sorts) or Detectron2's `AP-<name>` keys. categories: names and colours
    for rows that are a category_id or a class name. pictures: (caption, (h, w, 3) uint8 RGB). notes: a paragraph each.
    All text is escaped, nothing is fetched; None and NaN are "–"; an empty part is left out. Raises ValueError for
    a picture of another shape or an empty one, OSError where the file cannot be written.
    """
    groups = [read_group(task, result) for task, result in metrics.items()]
    parts = [
        _headline(groups),
        *(_task(group, categories) for group in groups),
        _gallery(pictures),
        _notes(notes),
    ]
    page = (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{CSS}</style>\n</head>\n<body>\n<main>\n<h1>{escape(title)}</h1>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main>\n</body>\n</html>\n"
    )
    with replacing(Path(path)) as neighbour:
        neighbour.write_text(page, encoding="utf-8", errors="replace")


def _headline(groups: Sequence[Group]) -> str:
    tiles = "".join(_tile(group) for group in groups if group.headline)
    return f'<dl class="headline">{tiles}</dl>' if tiles else ""


def _tile(group: Group) -> str:
    (lead, value), *others = group.headline.items()
    more = " ".join(f"<span>{escape(name)} {escape(format_value(number))}</span>" for name, number in others)
    return (
        f'<div class="tile"><dt>{escape(group.task)}</dt>'
        f'<dd class="big">{escape(format_value(value))}<abbr>{escape(lead)}</abbr></dd>'
        f'<dd class="more">{more}</dd></div>'
    )


def _task(group: Group, categories: CategorySet | None) -> str:
    sheets = []
    if group.values:
        row = "".join(f"<td>{escape(format_value(value))}</td>" for value in group.values.values())
        sheets.append(_sheet("All images", "metric", group.values, [f'<tr><th scope="row">value</th>{row}</tr>']))
    for name, table in group.tables.items():
        sheets.append(_rows_sheet(name, table, categories))
    return f"<section>\n<h2>{escape(group.task)}</h2>\n" + "\n".join(sheets) + "\n</section>" if sheets else ""


def _rows_sheet(name: str, table: Mapping[str, Mapping[str, Any]], categories: CategorySet | None) -> str:
    columns = list(dict.fromkeys(column for row in table.values() for column in row))
    rows, caption = list(table.items()), name
    if name == PER_CLASS and columns:
        caption = f"Per class, lowest {columns[0]} first"
        rows.sort(key=lambda row: _worst_first(row[1].get(columns[0])))
    known = _known(categories)
    first = [row.get(column) for _, row in rows for column in columns[:1]]
    counts = [value for value in first if type(value) is int]
    full = float(max([1, *counts])) if len(counts) == len(first) else PERCENT
    body = []
    for key, row in rows:
        cells = "".join(_cell(row.get(column), full if column == columns[0] else None) for column in columns)
        body.append(f'<tr><th scope="row">{_row_name(key, known.get(key))}</th>{cells}</tr>')
    return _sheet(caption, "class" if name == PER_CLASS else name, columns, body)


def _worst_first(value: Any) -> tuple[bool, float]:
    number = as_number(value)
    return number is None, number or 0.0


def _known(categories: CategorySet | None) -> dict[str, Category]:
    """Categories by the text of their category_id and by name; a name wins over another's id."""
    all_of_them = categories.categories if categories else ()
    return {str(c.category_id): c for c in all_of_them} | {c.name: c for c in all_of_them}


def _row_name(key: str, category: Category | None) -> str:
    if category is None:
        return escape(key)
    chip = "#{:02x}{:02x}{:02x}".format(*category.color)
    kind = "thing" if category.isthing else "stuff"
    return (
        f'<span class="chip" style="background:{chip}"></span>{escape(category.name)}<span class="kind">{kind}</span>'
    )


def _cell(value: Any, full: float | None) -> str:
    """full: what a whole bar stands for; None for no bar."""
    number = as_number(value)
    if full is None or number is None:
        return f"<td>{escape(format_value(value))}</td>"
    return f'<td class="bar" style="--share:{min(max(number / full, 0.0), 1.0):.3f}">{escape(format_value(value))}</td>'


def _sheet(caption: str, corner: str, columns: Mapping[str, Any] | Sequence[str], body: Sequence[str]) -> str:
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in (corner, *columns))
    long = " long" if len(body) > ROWS_IN_VIEW else ""
    return (
        f'<div class="sheet{long}" role="region" aria-label="{escape(caption)}" tabindex="0"><table>'
        f"<caption>{escape(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n"
        + "\n".join(body)
        + "\n</tbody></table></div>"
    )


def _gallery(pictures: Sequence[tuple[str, NDArray[np.uint8]]]) -> str:
    figures = "\n".join(_figure(caption, picture) for caption, picture in pictures)
    return f'<section>\n<h2>Pictures</h2>\n<div class="gallery">\n{figures}\n</div>\n</section>' if figures else ""


def _figure(caption: str, picture: NDArray[np.uint8]) -> str:
    source = data_uri(picture)
    height, width = picture.shape[:2]
    place = ' class="wide"' if width >= WIDE_PX else ""
    small = ' class="small"' if width <= SMALL_PX else ""
    return (
        f'<figure{place}><img{small} src="{source}" width="{width}" height="{height}" alt="{escape(caption)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _notes(notes: Sequence[str]) -> str:
    paragraphs = "\n".join(f"<p>{escape(note)}</p>" for note in notes)
    return f'<section class="notes">\n<h2>Notes</h2>\n{paragraphs}\n</section>' if paragraphs else ""
