"""A self-contained HTML page about an evaluation, filled into templates/page.html."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from numpy.typing import NDArray

from segkit.metrics.undefined import NOTES
from segkit.report.rendering import encode_data_uri
from segkit.report.tables import PER_CLASS, MetricGroup, as_number, format_value, list_columns, read_groups
from segkit.report.views import View
from segkit.structures import CategorySet
from segkit.utils.files import replacing
from segkit.utils.text import make_printable

WIDE_PX = 900  # an image of at least this width fills a row of the gallery
SMALL_PX = 256  # an image of at most this width is enlarged with sharp pixels
ROWS_IN_VIEW = 25  # a longer table scrolls inside its frame, so that the images stay near
PERCENT = 100.0  # a full bar for percentages; for counts, the largest count is a full bar


def write_page(
    path: str | Path,
    title: str,
    metrics: Mapping[str, Mapping[str, Any]],
    images: Sequence[tuple[str, NDArray[np.uint8]]] = (),
    *,
    views: Iterable[View] = (),
    categories: CategorySet | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Write headline metrics, a table per task, tables per class and an image gallery.

    The page is written whole or not at all. All text is escaped, and the page fetches nothing. None and NaN appear as
    "–". Empty parts are left out.

    Args:
        path: File to write; missing folders are created.
        title: Title and heading of the page.
        metrics: Task -> result of its evaluator, in percent, as `metrics_table` takes it. A table `per_class` (row ->
            column -> value) and Detectron2's `AP-<name>` keys become the table per class, lowest first column first.
            The lines under `notes` stand before the notes of the argument.
        images: (caption, (h, w, 3) uint8 RGB) of each image in the gallery.
        views: Each shows its image, its overlay beside it, and its legend; taken and encoded one by one.
        categories: Names and colours for the rows whose key is a category_id or a class name.
        notes: Text of a paragraph each, at the end of the page.

    Raises:
        ValueError: An image is empty or has another shape or dtype.
        OSError: The file cannot be written.
    """
    groups = read_groups(metrics)
    sections = [(group.task, _build_tables(group, categories)) for group in groups]
    page = _load_template().render(
        title=title,
        tiles=[group for group in groups if group.headline],
        sections=[(task, tables) for task, tables in sections if tables],
        images=[{"caption": caption, **_describe_image(image)} for caption, image in images],
        views=[_describe_view(view) for view in views],
        notes=[*metrics.get(NOTES, ()), *notes],
        **{"rows_in_view": ROWS_IN_VIEW, "wide_px": WIDE_PX, "small_px": SMALL_PX},
    )
    with replacing(Path(path)) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="replace")


def _describe_image(image: NDArray[np.uint8]) -> dict[str, Any]:
    return {"uri": encode_data_uri(image), "height": image.shape[0], "width": image.shape[1]}


def _describe_view(view: View) -> dict[str, Any]:
    images = [_describe_image(view.image), _describe_image(view.overlay)]
    return {"title": view.title, "legend": view.legend, "images": images}


def _escape_control_characters(value: Any) -> Any:
    """Names of files and classes are written by strangers; what a template has made is not."""
    return make_printable(value, keep="\n") if type(value) is str else value


@cache
def _load_template() -> Template:
    environment = Environment(
        loader=PackageLoader("segkit.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_escape_control_characters,
    )
    environment.filters["metric"] = format_value
    environment.filters["hex"] = lambda color: "#{:02x}{:02x}{:02x}".format(*color)
    return environment.get_template("page.html")


def _build_tables(group: MetricGroup, categories: CategorySet | None) -> list[dict[str, Any]]:
    """The single values as a table of one row, then the tables of the group."""
    tables = []
    if group.values:
        row = {"name": "value", "category": None, "cells": [(value, None) for value in group.values.values()]}
        tables.append({"caption": "All images", "columns": ["metric", *group.values], "rows": [row]})
    return tables + [_build_table(name, rows, categories) for name, rows in group.tables.items()]


def _build_table(name: str, rows: Mapping[str, Mapping[str, Any]], categories: CategorySet | None) -> dict[str, Any]:
    """The first column has bars. A table per class is sorted by that column."""
    columns = list_columns(rows.values())
    leading = {key: row.get(column) for column in columns[:1] for key, row in rows.items()}
    numbers = {key: as_number(value) for key, value in leading.items()}
    counts = [value for value in leading.values() if type(value) is int]
    full_bar = float(max([1, *counts])) if len(counts) == len(leading) else PERCENT
    caption, corner, keys = name, name, list(rows)
    if name == PER_CLASS:
        corner = "class"
        if columns:
            caption = f"Per class, lowest {columns[0]} first"
            keys.sort(key=lambda key: (numbers[key] is None, numbers[key] or 0.0))
    known_categories = categories.categories if categories else ()
    by_key = {str(c.category_id): c for c in known_categories} | {c.name: c for c in known_categories}
    body = []
    for key in keys:
        number = numbers.get(key)
        share = None if number is None else min(max(number / full_bar, 0.0), 1.0)
        cells = [(rows[key].get(column), share if column == columns[0] else None) for column in columns]
        body.append({"name": key, "category": by_key.get(key), "cells": cells})
    return {"caption": caption, "columns": [corner, *columns], "rows": body}
